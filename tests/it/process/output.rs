//! Output that no one takes, signals that mean nothing, logs that are moved aside.

use std::io::PipeReader;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Place that the gateway's output goes to.
struct Broken {
    name: &'static str,
    stdout: Stdio,
    stderr: Stdio,
    /// Held, and never read.
    _reader: Option<PipeReader>,
}

fn broken() -> Vec<Broken> {
    let full = || fs::File::create("/dev/full").unwrap();
    let (reader, pipe) = std::io::pipe().unwrap();
    let (gone, left) = std::io::pipe().unwrap();
    drop(gone);
    fill(&pipe);
    vec![
        Broken {
            name: "a full disk",
            stdout: full().into(),
            stderr: full().into(),
            _reader: None,
        },
        Broken {
            name: "a pipe that was left",
            stdout: left.try_clone().unwrap().into(),
            stderr: left.into(),
            _reader: None,
        },
        Broken {
            name: "a pipe that is full",
            stdout: pipe.try_clone().unwrap().into(),
            stderr: pipe.into(),
            _reader: Some(reader),
        },
    ]
}

/// Writes until nothing more goes in, and leaves it as it was else.
fn fill(pipe: &std::io::PipeWriter) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(pipe).unwrap();
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(pipe, &[b'x'; 4096]).is_ok() {}
    fcntl_setfl(pipe, flags).unwrap();
}

/// A socket of a service manager that says once the gateway is ready.
struct Manager(UnixDatagram);

impl Manager {
    fn new(place: &Place) -> Self {
        let socket = UnixDatagram::bind(place.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self(socket)
    }

    fn waits_until_ready(&self) {
        let mut text = [0; 256];
        let length = self.0.recv(&mut text).unwrap();
        assert!(length > 0 && text.starts_with(b"READY=1"));
    }
}

fn get(place: &Place, path: &str) -> String {
    let mut stream = BufReader::new(connect(place.address).unwrap());
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    answer(&mut stream).unwrap()
}

fn ended(child: &mut Child) -> bool {
    let pid = Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let limit = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let mut waiting = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    let seen = rustix::event::poll(&mut waiting, Some(&limit)).unwrap();
    if seen == 0 {
        child.kill().unwrap();
    }
    child.wait().unwrap().success() && seen > 0
}

/// The first request comes after the output broke: it starts a model, and each line
/// about it is lost.
#[test]
fn broken_output_costs_lines_and_nothing_else() {
    for broken in broken() {
        let place = Place::new();
        let manager = Manager::new(&place);
        let settings = place.path().join("tidegate.toml");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, text.replace("\"access.log\"", "\"stdout\"")).unwrap();
        let mut command = place.command();
        command.env("NOTIFY_SOCKET", place.path().join("notify"));
        command.stdout(broken.stdout).stderr(broken.stderr);
        let mut child = command.spawn().unwrap();
        // Closes our copies of the pipes.
        drop(command);
        manager.waits_until_ready();
        for _ in 0..20 {
            let mut stream = BufReader::new(connect(place.address).unwrap());
            let request = place.post(1, false);
            stream.get_mut().write_all(request.as_bytes()).unwrap();
            let head = answer(&mut stream).unwrap();
            assert!(head.starts_with("http/1.1 200"), "{}: {head}", broken.name);
        }
        let ready = get(&place, "/readyz");
        assert!(
            ready.starts_with("http/1.1 200"),
            "{}: {ready}",
            broken.name
        );
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(ended(&mut child), "{}: it never ended", broken.name);
    }
}

#[test]
fn a_start_that_fails_ends_though_no_one_takes_its_words() {
    for broken in broken() {
        let place = Place::new();
        let _taken = TcpListener::bind(place.address).unwrap();
        let mut command = place.command();
        command.stdout(broken.stdout).stderr(broken.stderr);
        let mut child = command.spawn().unwrap();
        assert!(!ended(&mut child), "{}", broken.name);
        assert_eq!(child.wait().unwrap().code(), Some(1), "{}", broken.name);
    }
}

#[test]
fn signals_that_mean_nothing_cut_no_stream_and_moved_logs_are_opened_anew() {
    let place = Place::new();
    let mut running = place.start(&[]);
    running.says("\"message\":\"ready\"");
    let pid = Pid::from_child(&running.child);
    let mut stream = connect(place.address).unwrap();
    stream.write_all(place.post(20, true).as_bytes()).unwrap();
    let mut begin = [0; 16];
    stream.read_exact(&mut begin).unwrap();
    for (signal, words) in [
        (Signal::QUIT, "SIGQUIT means nothing here"),
        (Signal::USR2, "SIGUSR2 means nothing here"),
        (Signal::ALARM, "SIGALRM means nothing here"),
        (Signal::HUP, "routes are in effect"),
    ] {
        kill_process(pid, signal).unwrap();
        running.says(words);
    }
    let mut rest = String::new();
    BufReader::new(&stream)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| line != "data: [DONE]")
        .for_each(|line| rest.push_str(&line));
    assert!(rest.contains("finish_reason"), "{rest}");
    let log = place.path().join("access.log");
    while fs::read(&log).unwrap().is_empty() {
        thread::yield_now();
    }
    for (number, signal) in [Signal::HUP, Signal::USR1].into_iter().enumerate() {
        fs::rename(&log, place.path().join(format!("access.log.{number}"))).unwrap();
        kill_process(pid, signal).unwrap();
        while !log.exists() {
            thread::yield_now();
        }
    }
    get(&place, "/readyz");
    let mut stream = BufReader::new(connect(place.address).unwrap());
    let request = place.post(1, false);
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    answer(&mut stream).unwrap();
    drop(stream);
    running.end();
    let lines = fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}");
}

/// Its engine writes without end; the disk has two logs of the limit at most.
#[test]
fn a_log_of_a_worker_stays_within_its_bound_and_readyz_answers_at_once() {
    let place = Place::new();
    let engine = place.path().join("engine");
    fs::write(&engine, "#!/bin/sh\n[ \"$1\" = --version ] && { echo 0.99.0; exit; }\nyes 'a line of an engine that writes without end'\n").unwrap();
    let mut permissions = fs::metadata(&engine).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&engine, permissions).unwrap();
    let log = place.path().join("a.log");
    let mut keeper = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    keeper.args(["worker-keep", "--log-bytes-max", "1000000", "--log"]);
    keeper.arg(&log).arg("--").arg(&engine);
    let mut child = keeper
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut words = String::new();
    said.read_line(&mut words).unwrap();
    let engine: i32 = words.split(' ').next().unwrap().parse().unwrap();
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    let older = log.with_extension("log.1");
    let (mut turns, mut before) = (0, 0);
    while turns < 200 {
        let (now, aside) = (size(&log), size(&older));
        assert!(now <= 1_000_000 && aside <= 1_000_000, "{now} {aside}");
        turns += usize::from(now < before);
        before = now;
    }
    kill_process(Pid::from_raw(engine).unwrap(), Signal::TERM).unwrap();
    drop(child.stdin.take());
    words.clear();
    said.read_line(&mut words).unwrap();
    assert_eq!(words, "signal 15\n");
    assert!(child.wait().unwrap().success());
}
