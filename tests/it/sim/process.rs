//! The stand-in as a child process in a group of its own, and a plain client.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tidegate::outbound::Address;
use tidegate::time::Instant;

/// Bound of every wait for a fact.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Sim {
    child: Child,
    log: Receiver<String>,
    address: String,
}

impl Sim {
    /// A process that begins to load.
    pub(super) fn start(options: &[&str]) -> Self {
        Self::spawn(options, true)
    }

    /// A process that is ready, in development mode.
    pub(super) fn ready(options: &[&str]) -> Self {
        Self::spawn(options, true).until_ready()
    }

    pub(super) fn ready_without_dev_mode(options: &[&str]) -> Self {
        Self::spawn(options, false).until_ready()
    }

    fn spawn(options: &[&str], dev_mode: bool) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["sim", "models/llama", "--port", "0"])
            .args(options)
            .env_remove("VLLM_API_KEY")
            .env_remove("VLLM_HTTP_TIMEOUT_KEEP_ALIVE")
            .env("VLLM_SERVER_DEV_MODE", if dev_mode { "1" } else { "0" })
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, log) = channel();
        // Ends with the process, whose log ends then.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self {
            child,
            log,
            address: String::new(),
        }
    }

    fn until_ready(mut self) -> Self {
        let line = self.log_until("Starting vLLM server on http://");
        let (_, address) = line.split_once("http://").unwrap();
        address.trim().clone_into(&mut self.address);
        self.log_until("Application startup complete.");
        self
    }

    /// Reads the log up to the line that contains `text`.
    pub(super) fn log_until(&mut self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            assert!(line.is_ok(), "the log never said {text:?}");
            let line = line.unwrap();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Address at which it listens.
    pub(super) fn address(&self) -> Address {
        let (host, port) = self.address.rsplit_once(':').unwrap();
        Address::Tcp {
            host: host.to_owned(),
            port: port.parse().unwrap(),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(super) fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the exit", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(super) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// True while a process of the group runs. Those that have ended do not count:
    /// other tests make this process the reaper of orphans, who then stay for a
    /// while as zombies.
    pub(super) fn group_lives(&self) -> bool {
        let group = self.pid().as_raw_nonzero().get().to_string();
        let entries = std::fs::read_dir("/proc").unwrap();
        let stats = entries.flatten().filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // Behind the name, which may hold anything: state, parent, group.
            let (_, rest) = stat.rsplit_once(')')?;
            let mut fields = rest.split_whitespace().map(str::to_owned);
            Some((fields.next()?, fields.nth(1)?))
        });
        stats
            .into_iter()
            .any(|(state, of)| of == group && state != "Z" && state != "X")
    }

    pub(super) fn kill_group(&self) {
        kill_process_group(self.pid(), Signal::KILL).unwrap();
    }

    pub(super) fn until_group_gone(&self) {
        wait_for("the end of the group", || !self.group_lives());
    }

    pub(super) fn until_refused(&self) {
        wait_for("a refusal", || {
            TcpStream::connect(&self.address)
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
    }

    /// Waits until a gauge of `/metrics` has a value.
    pub(super) fn until(&self, gauge: &str, value: f64) {
        let start = format!("vllm:{gauge}{{");
        wait_for(gauge, || {
            let page = self.get("/metrics").body;
            let line = page.lines().find(|line| line.starts_with(&start)).unwrap();
            let (_, seen) = line.rsplit_once(' ').unwrap();
            (seen.parse::<f64>().unwrap() - value).abs() < 0.5
        });
    }

    /// Sends a request, and leaves the answer in the connection.
    pub(super) fn send(&self, method: &str, path: &str, body: &Value) -> TcpStream {
        self.send_raw(
            method,
            path,
            "content-type: application/json\r\n",
            &body.to_string(),
        )
    }

    pub(super) fn send_raw(&self, method: &str, path: &str, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        stream
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::read(self.send("POST", path, body))
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        Reply::read(self.send_raw("GET", path, "", ""))
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // The group is gone already where the test ended it.
        kill_process_group(self.pid(), Signal::KILL).unwrap_or_default();
        drop(self.child.wait());
    }
}

/// Waits for a fact that another process brings about.
fn wait_for(what: &str, mut fact: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !fact() {
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        // Others share the processor; the fact decides, not this pause.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    /// Lengths of the chunks.
    pub(super) pieces: Vec<usize>,
    /// True if it ended as its framing says.
    pub(super) complete: bool,
}

impl Reply {
    pub(super) fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Self {
            status: status.parse().unwrap(),
            headers,
            body: rest.to_owned(),
            pieces: Vec::new(),
            complete: true,
        };
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.join_chunks();
        }
        reply
    }

    fn join_chunks(&mut self) {
        let text = std::mem::take(&mut self.body);
        let mut rest = text.as_str();
        self.complete = false;
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            self.complete = size == 0;
            if self.complete {
                break;
            }
            self.pieces.push(size);
            self.body.push_str(after.get(..size).unwrap());
            rest = after.get(size + 2..).unwrap_or_default();
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The whole events that hold JSON.
    pub(super) fn events(&self) -> Vec<Value> {
        self.body
            .split_inclusive("\n\n")
            .filter_map(|event| event.strip_suffix("\n\n")?.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect()
    }
}
