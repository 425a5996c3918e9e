//! The whole binary in a directory of its own, and a plain client of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::time::Instant;

/// Bound of each wait for a fact.
const PATIENCE: Duration = Duration::from_mins(1);

/// Codes by which a request is refused by design.
const DOCUMENTED: [&str; 6] = [
    "model_loading",
    "model_stopped",
    "model_failed",
    "queue_timeout",
    "shutting_down",
    "concurrency_limit_exceeded",
];

/// The gateway as a process, and where it can be asked.
pub(crate) struct Place {
    dir: TempDir,
    port: u16,
    metrics: u16,
    child: Option<Child>,
}

/// Two ports that nobody listens on: bound at once, so that they differ.
fn free_ports() -> (u16, u16) {
    let [one, two] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |socket: TcpListener| socket.local_addr().unwrap().port();
    (port(one), port(two))
}

impl Place {
    pub(crate) fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (port, metrics) = free_ports();
        let toml = format!(
            "[gateway]\nlisten = [\"127.0.0.1:0\"]\nplain_listen = [\"127.0.0.1:{port}\"]\naccess_log = \"access.log\"\n\
             shutdown_timeout = \"5s\"\n[admin]\nlisten = \"off\"\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n{more}"
        );
        fs::write(dir.path().join("tidegate.toml"), toml).unwrap();
        fs::create_dir(dir.path().join("routes.d")).unwrap();
        Self {
            dir,
            port,
            metrics,
            child: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = self.path().join("routes.d").join(name);
        let beside = self.path().join(name);
        fs::write(&beside, text).unwrap();
        fs::rename(beside, file).unwrap();
    }

    /// Starts it, and waits until it accepts work.
    pub(crate) fn start(&mut self, args: &[&str]) {
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path().join("serve.log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--config", "tidegate.toml"])
            .args(args)
            .current_dir(self.path())
            .env("TIDEGATE_WORKER_THREADS", "2")
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.until("readiness", || {
            self.http("GET", "/readyz", "", None)
                .is_ok_and(|reply| reply.starts_with("HTTP/1.1 200"))
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) {
        let mut child = self.child.take().unwrap();
        let begin = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(
                begin.elapsed() < PATIENCE,
                "it does not end: {}",
                self.tail()
            );
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn tail(&self) -> String {
        let log = fs::read_to_string(self.path().join("serve.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(60).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn until(&self, what: &str, mut fact: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !fact() {
            assert!(
                begin.elapsed() < PATIENCE,
                "waited too long for {what}:\n{}",
                self.tail()
            );
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn http(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> std::io::Result<String> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        exchange(stream, method, path, token, body)
    }

    /// Asks the admin socket.
    pub(crate) fn admin(&self, method: &str, path: &str) -> std::io::Result<(u16, Value)> {
        let stream = UnixStream::connect(self.path().join(".tidegate/admin.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reply = exchange(stream, method, &format!("/api/v1/{path}"), "", None)?;
        let status = reply.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (_, body) = reply.split_once("\r\n\r\n").unwrap_or_default();
        let from = body.find(['[', '{']).unwrap_or(0);
        let to = body.rfind([']', '}']).map_or(body.len(), |at| at + 1);
        let value = serde_json::from_str(body.get(from..to).unwrap_or_default());
        Ok((status.unwrap_or(0), value.unwrap_or(Value::Null)))
    }

    pub(crate) fn deployments(&self) -> Vec<Value> {
        let Ok((200, Value::Array(instances))) = self.admin("GET", "instances") else {
            return Vec::new();
        };
        let deployments = instances.iter().filter_map(|i| i["deployments"].as_array());
        deployments.flatten().cloned().collect()
    }

    /// One chat request, as a client counts it.
    pub(crate) fn chat(&self, model: &str, stream: bool) -> Outcome {
        let Ok(token) = fs::read_to_string(self.path().join(".tidegate/demo.token")) else {
            return Outcome::Unreached;
        };
        let body = json!({"model": model, "max_tokens": 4, "stream": stream,
            "messages": [{"role": "user", "content": "Hello!"}]});
        match self.http("POST", "/v1/chat/completions", token.trim(), Some(&body)) {
            Ok(reply) => Outcome::of(&reply, stream),
            Err(_) => Outcome::Unreached,
        }
    }

    /// GPU memory that the ledger holds, in bytes.
    pub(crate) fn held(&self) -> f64 {
        let stream = TcpStream::connect(("127.0.0.1", self.metrics)).unwrap();
        let page = exchange(stream, "GET", "/metrics", "", None).unwrap();
        let held = page.lines().filter(|line| {
            line.starts_with("tidegate_gpu_memory_bytes") && line.contains("state=\"held\"")
        });
        held.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Processes of workers of this state directory.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let state = self.path().join(".tidegate");
        let state = fs::canonicalize(&state).unwrap_or(state);
        let state = state.as_os_str().as_encoded_bytes();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            memchr::memmem::find(&line, state).is_some()
        })
        .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        for pid in self.workers() {
            let pid = Pid::from_raw(pid.cast_signed()).unwrap();
            kill_process(pid, Signal::KILL).unwrap_or_default();
        }
    }
}

fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> std::io::Result<String> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let authorization = match token {
        "" => String::new(),
        token => format!("authorization: Bearer {token}\r\n"),
    };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{authorization}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

/// Answer that a client saw.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// A whole answer.
    Served,
    /// A refusal that the documents name.
    Refused(String),
    /// The server said that it broke off.
    Broken(String),
    /// The connection ended without an answer, or in the midst of one.
    Cut(String),
    /// No connection.
    Unreached,
}

impl Outcome {
    fn of(reply: &str, stream: bool) -> Self {
        let Some((head, body)) = reply.split_once("\r\n\r\n") else {
            return Self::Cut(reply.chars().take(40).collect());
        };
        let status = head.split(' ').nth(1).unwrap_or_default();
        let code = DOCUMENTED
            .iter()
            .find(|code| body.contains(&format!("\"{code}\"")));
        match (status, code) {
            ("200", _) if stream && body.contains("\"error\"") => {
                Self::Broken("in a stream".to_owned())
            }
            ("200", _) if stream && body.contains("data: [DONE]") => Self::Served,
            ("200", _) if !stream && body.contains("\"choices\"") && body.contains("\"usage\"") => {
                Self::Served
            }
            ("200", _) => Self::Cut(body.chars().rev().take(80).collect()),
            (_, Some(code)) => Self::Refused((*code).to_owned()),
            ("502" | "504" | "500", None) => Self::Broken(status.to_owned()),
            _ => Self::Broken(format!("{status} {body}")),
        }
    }
}
