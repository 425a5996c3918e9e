//! The gateway as a process: taken over while clients come and go, passed its
//! sockets, short of descriptors.

mod files;
mod kills;
mod output;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

mod store;

/// No wait in these tests may be longer.
const LIMIT: Duration = Duration::from_secs(30);

/// A directory with settings and one model of the stand-in.
struct Place {
    dir: TempDir,
    address: SocketAddr,
}

/// A gateway that runs there, with its own log.
struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Place {
    fn new() -> Self {
        // Short, as the kernel limits the paths of sockets.
        let dir = tempfile::Builder::new().prefix("tg-").tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let settings = format!(
            "[gateway]\nlisten = []\nplain_listen = [\"{address}\"]\naccess_log = \"access.log\"\n\
             [admin]\nlisten = \"off\"\n[metrics]\nlisten = \"off\"\n[gpus]\nsource = \"none\"\n\
             [workers]\nstop_on_exit = true\n"
        );
        fs::write(dir.path().join("tidegate.toml"), settings).unwrap();
        fs::create_dir(dir.path().join("routes.d")).unwrap();
        let route = "[route]\nname = \"demo\"\nproject = \"demo\"\n[instance]\nname = \"demo\"\n\
             project = \"demo\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\n\
             [deployment.sim]\nload = \"10ms\"\nfirst_token = \"1ms\"\ntokens_per_second = 20\n";
        fs::write(dir.path().join("routes.d/demo.toml"), route).unwrap();
        Self { dir, address }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.current_dir(self.path()).env("RUST_LOG", "info");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.arg("serve");
        command
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running::of(self.command().args(arguments).spawn().unwrap())
    }

    fn token(&self) -> String {
        let token = fs::read_to_string(self.path().join(".tidegate/demo.token")).unwrap();
        token.trim().to_owned()
    }

    fn post(&self, tokens: u32, stream: bool) -> String {
        let body = format!(
            "{{\"model\":\"m\",\"stream\":{stream},\"max_tokens\":{tokens},\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}]}}"
        );
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token(),
            body.len()
        )
    }
}

impl Running {
    fn of(mut child: Child) -> Self {
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads its log up to a line with these words.
    fn says(&mut self, words: &str) {
        let mut seen = String::new();
        loop {
            let before = seen.len();
            let read = self.log.read_line(&mut seen).unwrap();
            assert!(read > 0, "{words:?} was never said:\n{seen}");
            if seen[before..].contains(words) {
                return;
            }
        }
    }

    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Reads one answer with a declared length: its head.
fn answer(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    Ok(lower)
}

/// Asks again and again until told to end: on a new connection each time, or on
/// one as long as the gateway keeps it.
fn asks(
    place: &Arc<Place>,
    kept: bool,
    ending: &Arc<AtomicBool>,
    done: &Arc<AtomicUsize>,
) -> thread::JoinHandle<()> {
    let (place, ending, done) = (Arc::clone(place), Arc::clone(ending), Arc::clone(done));
    thread::spawn(move || {
        let request = place.post(1, false);
        let mut open: Option<BufReader<TcpStream>> = None;
        while !ending.load(Ordering::Relaxed) {
            let mut stream = open
                .take()
                .unwrap_or_else(|| BufReader::new(connect(place.address).unwrap()));
            stream.get_mut().write_all(request.as_bytes()).unwrap();
            let head = answer(&mut stream).unwrap();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            done.fetch_add(1, Ordering::Relaxed);
            open = (kept && !head.contains("connection: close")).then_some(stream);
        }
    })
}

#[test]
fn gateways_take_over_from_each_other_and_no_client_notices() {
    let place = Arc::new(Place::new());
    let mut running = place.start(&[]);
    running.says("\"message\":\"ready\"");
    let (ending, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = [false, false, true, true]
        .iter()
        .map(|kept| asks(&place, *kept, &ending, &done))
        .collect();
    let worker = |place: &Place| {
        let mut records = fs::read_dir(place.path().join(".tidegate/workers")).unwrap();
        records.find_map(|entry| {
            let path = entry.unwrap().path();
            let is_record = path
                .extension()
                .is_some_and(|extension| extension == "json");
            is_record.then_some(path)
        })
    };
    while done.load(Ordering::Relaxed) < 10 {
        thread::yield_now();
    }
    let first = worker(&place);
    assert!(first.is_some());
    for _ in 0..3 {
        // A stream that outlives its gateway's rule.
        let mut stream = connect(place.address).unwrap();
        stream.write_all(place.post(20, true).as_bytes()).unwrap();
        let mut event = [0; 16];
        stream.read_exact(&mut event).unwrap();
        let mut next = place.start(&["--take-over"]);
        next.says("\"message\":\"ready\"");
        let so_far = done.load(Ordering::Relaxed);
        let (mut stream, mut rest) = (BufReader::new(stream), String::new());
        while !rest.contains("data: [DONE]") {
            assert!(stream.read_line(&mut rest).unwrap() > 0, "{rest}");
        }
        assert!(!rest.contains("error"), "{rest}");
        drop(stream);
        while done.load(Ordering::Relaxed) < so_far + 20 {
            thread::yield_now();
        }
        let mut old = std::mem::replace(&mut running, next);
        let mut log = String::new();
        old.log.read_to_string(&mut log).unwrap();
        assert!(old.child.wait().unwrap().success(), "{log}");
        assert!(!log.contains("ERROR"), "{log}");
    }
    ending.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(worker(&place), first, "the worker went on");
    running.end();
    let log = fs::read_to_string(place.path().join("access.log")).unwrap();
    let whole = log
        .lines()
        .filter(|line| line.contains("\"outcome\":\"ok\""))
        .count();
    assert_eq!(whole, log.lines().count(), "{log}");
    assert_eq!(whole, done.load(Ordering::Relaxed) + 3);
    assert_eq!(store::kept_requests(place.path()), whole as u64);
}

#[test]
fn a_socket_of_systemd_keeps_who_waits_and_it_is_told_how_we_stand() {
    let place = Place::new();
    let listener = TcpListener::bind(place.address).unwrap();
    let mut waiting = connect(place.address).unwrap();
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let manager = UnixDatagram::bind(place.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let next = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    // As systemd does: the socket is descriptor 3, and LISTEN_PID is who execs.
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec {} serve",
        env!("CARGO_BIN_EXE_tidegate")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(place.path());
    command
        .env("NOTIFY_SOCKET", place.path().join("notify"))
        .env("WATCHDOG_USEC", "200000");
    command
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let running = Running::of(command.spawn().unwrap());
    drop(command);
    let ready = format!("READY=1\nMAINPID={}", running.child.id());
    let mut told = Vec::new();
    while !told.contains(&ready) {
        told.push(next());
    }
    assert!(
        answer(&mut BufReader::new(waiting))
            .unwrap()
            .starts_with("http/1.1 200")
    );
    while next() != "WATCHDOG=1" {}
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    while !next().starts_with("RELOADING=1\n") {}
    while next() != ready {}
    running.end();
    while next() != "STOPPING=1" {}
}

#[test]
fn sixty_four_descriptors_are_enough_to_go_on() {
    let place = Place::new();
    let mut command = Command::new("sh");
    let script = format!(
        "ulimit -n 64; exec {} serve",
        env!("CARGO_BIN_EXE_tidegate")
    );
    command.args(["-c", &script]).current_dir(place.path());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = Running::of(command.spawn().unwrap());
    running.says("\"message\":\"ready\"");
    let mut stream = BufReader::new(connect(place.address).unwrap());
    stream
        .get_mut()
        .write_all(place.post(30, true).as_bytes())
        .unwrap();
    let mut line = String::new();
    while !line.contains("data: ") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0);
    }
    // Far more than there are descriptors; the kernel takes them, we do not.
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(place.address).unwrap()).collect();
    let mut rest = String::new();
    while !rest.contains("[DONE]") {
        assert!(
            stream.read_line(&mut rest).unwrap() > 0,
            "the open stream went on"
        );
    }
    drop(crowd);
    let mut client = BufReader::new(connect(place.address).unwrap());
    client
        .get_mut()
        .write_all(place.post(1, false).as_bytes())
        .unwrap();
    assert!(answer(&mut client).unwrap().starts_with("http/1.1 200"));
    drop((client, stream));
    running.end();
}
