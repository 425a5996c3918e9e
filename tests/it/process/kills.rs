//! Take-overs during which one of the two is killed, at any moment.

use std::sync::Mutex;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Kills of one run; more of them by this variable.
const KILLS: u32 = 6;
const KILLS_VARIABLE: &str = "TIDEGATE_TEST_KILLS";
/// The longest that a kill comes after the sockets were passed.
const DELAY_MAX_MS: u64 = 300;

/// A gateway by its number, which may be one that another gateway started.
struct One {
    pid: Pid,
    /// Of it, or of who started it.
    log: Arc<Mutex<String>>,
    child: Option<Child>,
}

impl One {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut command = place.command();
        command.env("NOTIFY_SOCKET", place.path().join("notify"));
        let mut child = command.args(arguments).spawn().unwrap();
        let (log, lines) = (Arc::default(), child.stderr.take().unwrap());
        let kept: Arc<Mutex<String>> = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self {
            pid: Pid::from_child(&child),
            log,
            child: Some(child),
        }
    }

    /// Waits until its log has one of these words, from here on; which.
    fn says(&self, from: usize, words: &[&str]) -> usize {
        let begun = Instant::now();
        loop {
            let log = self.log.lock().unwrap().clone();
            let new = log.get(from..).unwrap_or_default();
            if let Some(place) = words.iter().position(|words| new.contains(words)) {
                return place;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "none of {words:?} was said:\n{log}"
            );
            thread::yield_now();
        }
    }

    fn kill(mut self) {
        kill_process(self.pid, Signal::KILL).unwrap();
        if let Some(child) = &mut self.child {
            child.wait().unwrap();
        }
    }
}

/// The number of the next that is ready.
fn ready(manager: &UnixDatagram) -> Pid {
    loop {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).unwrap();
        let text = std::str::from_utf8(&text[..length]).unwrap();
        if let Some(pid) = text.strip_prefix("READY=1\nMAINPID=") {
            return Pid::from_raw(pid.parse().unwrap()).unwrap();
        }
    }
}

/// How often clients were served, refused, and broken off.
#[derive(Debug, Default)]
struct Counts {
    served: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
}

/// Comes again and again, on a new connection each time.
fn comes(
    place: &Arc<Place>,
    ending: &Arc<AtomicBool>,
    counts: &Arc<Counts>,
) -> thread::JoinHandle<()> {
    let (place, ending, counts) = (Arc::clone(place), Arc::clone(ending), Arc::clone(counts));
    thread::spawn(move || {
        let request = place.post(1, false);
        while !ending.load(Ordering::Relaxed) {
            let count = match connect(place.address).map(BufReader::new) {
                Err(_) => &counts.refused,
                Ok(mut stream) => {
                    let sent = stream.get_mut().write_all(request.as_bytes());
                    match sent.and_then(|()| answer(&mut stream)) {
                        Ok(head) if head.starts_with("http/1.1 200") => &counts.served,
                        // Held by the one that was killed.
                        _ => &counts.broken,
                    }
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn whoever_is_killed_during_a_take_over_one_serves_and_no_connection_is_refused() {
    let kills = std::env::var(KILLS_VARIABLE).map_or(KILLS, |kills| kills.parse().unwrap());
    let place = Arc::new(Place::new());
    let manager = UnixDatagram::bind(place.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let mut one = One::start(&place, &[]);
    assert_eq!(ready(&manager), one.pid);
    let ending = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(Counts::default());
    let clients: Vec<_> = (0..2).map(|_| comes(&place, &ending, &counts)).collect();
    let (mut done, mut too_late, mut excused, mut dice) = (0, 0, 0, 88_172_645_463_325_252_u64);
    while done < kills {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let from = one.log.lock().unwrap().len();
        let refused = counts.refused.load(Ordering::Relaxed);
        let next = One::start(&place, &["--take-over"]);
        next.says(0, &["\"taking over\""]);
        // The moment is what is tried here; nothing is waited for.
        thread::sleep(Duration::from_millis((dice >> 8) % DELAY_MAX_MS));
        if dice.is_multiple_of(2) {
            one.kill();
            assert_eq!(ready(&manager), next.pid);
            one = next;
        } else {
            next.kill();
            if one.says(from, &["broke off", "the new gateway serves"]) == 1 {
                // The take-over was over: a lone gateway was killed.
                too_late += 1;
                if let Some(child) = &mut one.child {
                    child.wait().unwrap();
                }
                one = One::start(&place, &[]);
                while ready(&manager) != one.pid {}
                excused += counts.refused.load(Ordering::Relaxed) - refused;
                continue;
            }
            if one.log.lock().unwrap()[from..].contains("given way: serving") {
                let pid = ready(&manager);
                if let Some(child) = &mut one.child {
                    assert!(child.wait().unwrap().success());
                }
                one = One {
                    pid,
                    log: one.log,
                    child: None,
                };
            }
        }
        done += 1;
        let mut stream = BufReader::new(connect(place.address).unwrap());
        let request = place.post(1, false);
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let head = answer(&mut stream).unwrap();
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    ending.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    eprintln!("{done} kills, and {too_late} after the take-over, which cost {excused}: {counts:?}");
    let pidfd = rustix::process::pidfd_open(one.pid, rustix::process::PidfdFlags::empty()).unwrap();
    kill_process(one.pid, Signal::TERM).unwrap();
    let mut waiting = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    assert_eq!(rustix::event::poll(&mut waiting, None), Ok(1));
    if let Some(mut child) = one.child {
        child.wait().unwrap();
    }
    assert_eq!(counts.refused.load(Ordering::Relaxed), excused);
    assert!(counts.served.load(Ordering::Relaxed) > 0);
}
