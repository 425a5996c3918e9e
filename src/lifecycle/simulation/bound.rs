//! The longest wait that the policy promises, checked as a run goes.
//!
//! `wait_bound + (m + 1) * (D + S + W)`: m overdue ones that are older were served
//! before on the same GPUs, each after a drain, a sleep and a wake. D, S and W are
//! the longest of the run, with their waits for the bus of a GPU.

use crate::lifecycle::policy::Seconds;

/// Seconds after which a request is overdue, as the policy ships.
const WAIT_BOUND: Seconds = 120.0;

#[derive(Debug)]
pub(super) struct Bound {
    /// The longest request.
    pub(super) drain: Seconds,
    /// The longest sleep.
    pub(super) sleep: Seconds,
    /// The longest wake.
    pub(super) wake: Seconds,
    /// Wakes on each GPU: when, and since when their first request had waited.
    wakes: Vec<Vec<(Seconds, Seconds)>>,
    /// How far a wait went beyond the formula, at most.
    pub(super) beyond: Seconds,
}

impl Bound {
    pub(super) fn new(gpus: usize) -> Self {
        Self {
            drain: 0.0,
            sleep: 0.0,
            wake: 0.0,
            wakes: vec![Vec::new(); gpus],
            beyond: 0.0,
        }
    }

    /// One wakes on these GPUs whose first request came then.
    pub(super) fn granted(&mut self, home: &[usize], came: Seconds, now: Seconds) {
        for place in home {
            if let Some(wakes) = self.wakes.get_mut(*place) {
                wakes.push((now, came));
            }
        }
    }

    /// A request that came then is let in on these GPUs.
    pub(super) fn admitted(&mut self, home: &[usize], came: Seconds, now: Seconds) {
        let overdue = came + WAIT_BOUND;
        if now <= overdue {
            return;
        }
        let ahead: usize = home
            .iter()
            .filter_map(|place| self.wakes.get(*place))
            .map(|wakes| {
                let since = wakes.iter().rev().take_while(|(at, _)| *at >= overdue);
                since.filter(|(_, other)| *other < came).count()
            })
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let turns = ahead as f64 + 1.0;
        let limit = WAIT_BOUND + turns * (self.drain + self.sleep + self.wake);
        self.beyond = self.beyond.max(now - came - limit);
    }
}
