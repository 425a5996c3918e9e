//! Take-overs during which one of the two is killed, at any moment.

use rustix::process::{Pid, Signal, kill_process};
use std::sync::Mutex;

use tokio::time::Instant;

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

/// Waits for the next that is ready: its number.
fn ready(manager: &UnixDatagram) -> Pid {
    loop {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).unwrap();
        let text = String::from_utf8_lossy(text.get(..length).unwrap());
        if let Some(pid) = text.strip_prefix("READY=1\nMAINPID=") {
            return Pid::from_raw(pid.parse().unwrap()).unwrap();
        }
    }
}

/// Waits for this one to be ready. One that was killed meanwhile may have said so first.
fn is_ready(manager: &UnixDatagram, pid: Pid) {
    while ready(manager) != pid {}
}

/// End of a take-over whose new gateway was killed.
enum Outcome {
    /// The gateway that serves now.
    Serves(One),
    /// It served already, and the old one had gone: a lone gateway was killed.
    TooLate,
}

/// Kills the old one; the new one serves then.
fn kill_old(old: One, new: One, manager: &UnixDatagram) -> One {
    old.kill();
    is_ready(manager, new.pid);
    new
}

/// Kills the new one; `from`: where the old one's log stood before it came.
fn kill_new(mut old: One, new: One, from: usize, manager: &UnixDatagram) -> Outcome {
    let killed = new.pid;
    new.kill();
    let said = old.says(from, &["broke off", "the new gateway serves"]);
    let gave_way = old.log.lock().unwrap()[from..].contains("given way: serving");
    if said == 0 && !gave_way {
        return Outcome::Serves(old);
    }
    // One that it starts itself, before it ends.
    let mut others = std::iter::repeat_with(|| ready(manager)).skip_while(|pid| *pid == killed);
    let pid = (said == 0).then(|| others.next().unwrap());
    if let Some(child) = &mut old.child {
        assert!(child.wait().unwrap().success());
    }
    pid.map_or(Outcome::TooLate, |pid| {
        Outcome::Serves(One {
            pid,
            log: old.log,
            child: None,
        })
    })
}

fn ask(place: &Place) -> std::io::Result<String> {
    let mut stream = BufReader::new(connect(place.address)?);
    let request = place.post(1, false);
    stream.get_mut().write_all(request.as_bytes())?;
    answer(&mut stream)
}

/// Number of clients that were served, refused, and broken off.
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
        while !ending.load(Ordering::Relaxed) {
            let count = match ask(&place) {
                Ok(head) if head.starts_with("http/1.1 200") => &counts.served,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    &counts.refused
                }
                // Held by the one that was killed.
                _ => &counts.broken,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

fn dice() -> impl FnMut() -> u64 {
    let mut state = 88_172_645_463_325_252_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    }
}

#[test]
fn whoever_is_killed_during_a_take_over_one_serves_and_no_connection_is_refused() {
    let kills = std::env::var(KILLS_VARIABLE).map_or(KILLS, |kills| kills.parse().unwrap());
    let place = Arc::new(Place::new());
    let manager = UnixDatagram::bind(place.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let first = || {
        let one = One::start(&place, &[]);
        is_ready(&manager, one.pid);
        one
    };
    let mut one = first();
    let (ending, counts) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Counts::default()),
    );
    let clients: Vec<_> = (0..2).map(|_| comes(&place, &ending, &counts)).collect();
    let (mut done, mut too_late, mut excused, mut dice) = (0, 0, 0, dice());
    while done < kills {
        let refused = counts.refused.load(Ordering::Relaxed);
        let from = one.log.lock().unwrap().len();
        let next = One::start(&place, &["--take-over"]);
        next.says(0, &["\"taking over\""]);
        // The moment is what is tried here; nothing is waited for.
        thread::sleep(Duration::from_millis(dice() % DELAY_MAX_MS));
        let outcome = if dice().is_multiple_of(2) {
            Outcome::Serves(kill_old(one, next, &manager))
        } else {
            kill_new(one, next, from, &manager)
        };
        one = if let Outcome::Serves(one) = outcome {
            done += 1;
            one
        } else {
            let one = first();
            too_late += 1;
            excused += counts.refused.load(Ordering::Relaxed) - refused;
            one
        };
        assert!(ask(&place).unwrap().starts_with("http/1.1 200"));
    }
    ending.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    eprintln!("{done} kills, and {too_late} after the take-over, which cost {excused}: {counts:?}");
    let pidfd = rustix::process::pidfd_open(one.pid, rustix::process::PidfdFlags::empty());
    let pidfd = pidfd.unwrap();
    kill_process(one.pid, Signal::TERM).unwrap();
    let ended = rustix::event::PollFlags::IN;
    let mut waiting = [rustix::event::PollFd::new(&pidfd, ended)];
    assert_eq!(rustix::event::poll(&mut waiting, None), Ok(1));
    if let Some(mut child) = one.child {
        child.wait().unwrap();
    }
    assert_eq!(counts.refused.load(Ordering::Relaxed), excused);
    assert!(counts.served.load(Ordering::Relaxed) > 0);
}
