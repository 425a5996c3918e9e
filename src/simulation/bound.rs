//! The longest wait that the policy promises, checked as a run goes.
//!
//! `wait_bound + (m + 1) * (D + S + W)`: m overdue ones that are older were served
//! before on the same GPUs, each after a drain, a sleep and a wake. One that is served
//! gets all of its GPUs at once, so those that it waits for on others of its own are ahead
//! too. D, S and W are
//! the longest of the run, with their waits for the bus of a GPU; where a sleeper
//! had to be ended, its next start is a wake. Workspaces take turns, so an overdue
//! one of another workspace may go first though it is younger.

use crate::lifecycle::decide::ledger::LedgerKey;
use crate::lifecycle::decide::policy::Seconds;

/// A wake that has begun.
#[derive(Debug)]
struct Wake {
    home: Vec<usize>,
    at: Seconds,
    until: Seconds,
    /// Time since which its first request had waited.
    head: Seconds,
    whose: (LedgerKey, u32),
}

#[derive(Debug)]
pub(super) struct Bound {
    /// Seconds after which a request is overdue.
    patience: Seconds,
    /// The longest request.
    pub(super) drain: Seconds,
    /// The longest sleep.
    pub(super) sleep: Seconds,
    /// The longest wake.
    wake: Seconds,
    /// All of them, in order of time.
    wakes: Vec<Wake>,
    /// Seconds that a wait went beyond the formula, at most.
    pub(super) beyond: Seconds,
}

impl Bound {
    pub(super) fn new(wait_bound: Seconds) -> Self {
        Self {
            patience: wait_bound,
            drain: 0.0,
            sleep: 0.0,
            wake: 0.0,
            wakes: Vec::new(),
            beyond: 0.0,
        }
    }

    /// Notes a wake on these GPUs, from `at` to `until`, whose first request came at `head`.
    pub(super) fn granted(
        &mut self,
        whose: (LedgerKey, u32),
        home: &[usize],
        head: Seconds,
        (at, until): (Seconds, Seconds),
    ) {
        self.wake = self.wake.max(until - at);
        let home = home.to_vec();
        self.wakes.push(Wake {
            home,
            at,
            until,
            head,
            whose,
        });
    }

    /// A request that came then is let in on these GPUs.
    pub(super) fn admitted(
        &mut self,
        whose: (LedgerKey, u32),
        home: &[usize],
        came: Seconds,
        now: Seconds,
    ) {
        let overdue = came + self.patience;
        if now <= overdue {
            return;
        }
        let begin = overdue - self.wake;
        let since = self.wakes.iter().rev();
        // The newest first: those that it waited for came before.
        let since = since.take_while(|wake| wake.at >= begin);
        let (mut places, mut turns) = (home.to_vec(), 1.0);
        for wake in since {
            let age = wake.head.total_cmp(&came).then(wake.whose.0.cmp(&whose.0));
            let goes_before = wake.whose.1 != whose.1 && wake.head + self.patience <= wake.at;
            let meets = wake.home.iter().any(|place| places.contains(place));
            let other = wake.whose.0 != whose.0;
            if other && (age.is_lt() || goes_before) && meets && wake.until >= overdue {
                turns += 1.0;
                places.extend(&wake.home);
            }
        }
        let limit = self.patience + turns * (self.drain + self.sleep + self.wake);
        self.beyond = self.beyond.max(now - came - limit);
    }
}
