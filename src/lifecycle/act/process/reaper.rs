//! Reaps what became our child without being started by us: as the first process
//! of a container, or as the one that orphans are handed to.
//!
//! A child that we started is waited for by its starter; so an ended child is left alone
//! for a while, and for good where it is a keeper.

use std::collections::HashMap;
use std::sync::{PoisonError, Weak};
use std::time::Duration;

use rustix::process::{WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};

use super::{Inner, proc};
use crate::proc::Stat;
use crate::time::sleep;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Looks for which an ended child is left to its starter.
const LOOKS: u32 = 3;

/// Reaps as long as the launcher is there.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut seen = HashMap::new();
    loop {
        sleep(PAUSE).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        look(&mut seen, |pid| inner.is_keeper(pid));
    }
}

/// Looks once. `seen`: how often each that has ended was seen, with its start time.
fn look(seen: &mut HashMap<(u32, u64), u32>, is_known: impl Fn(u32) -> bool) {
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    if !matches!(waitid(WaitId::All, ended), Ok(Some(_))) {
        seen.clear();
        return;
    }
    let mut now = HashMap::new();
    for child in proc::own_children() {
        let pid = child.as_raw_nonzero().get().cast_unsigned();
        let Some(stat) = Stat::of(pid).filter(|stat| stat.state == 'Z') else {
            continue;
        };
        let looks = seen.get(&(pid, stat.start_time)).map_or(1, |n| n + 1);
        if looks >= LOOKS && !is_known(pid) {
            waitpid(Some(child), WaitOptions::NOHANG).unwrap_or_default();
        } else {
            now.insert((pid, stat.start_time), looks);
        }
    }
    *seen = now;
}

impl Inner {
    fn is_keeper(&self, pid: u32) -> bool {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workers = workers.values();
        workers.any(|worker| worker.is_kept_by(pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_child_that_no_one_waits_for_is_reaped_and_a_known_one_is_not() {
        let child = || std::process::Command::new("true").spawn().unwrap().id();
        let (orphan, known) = (child(), child());
        let state = |pid| Stat::of(pid).map(|stat| stat.state);
        while [orphan, known].map(state) != [Some('Z'); 2] {
            std::thread::yield_now();
        }
        let mut seen = HashMap::new();
        // Another test's child, which is waited for in time, must not be taken.
        let others = |pid| pid != orphan;
        for _ in 1..LOOKS {
            look(&mut seen, others);
            assert_eq!(state(orphan), Some('Z'), "its time is not over");
        }
        look(&mut seen, others);
        assert_eq!((state(orphan), state(known)), (None, Some('Z')));
        let known = rustix::process::Pid::from_raw(known.cast_signed());
        assert!(waitpid(known, WaitOptions::empty()).unwrap().is_some());
    }
}
