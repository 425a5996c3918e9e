//! One deployment of a run: its machine, its worker and its clients.
//!
//! The requests of a worker share it: each further one makes all a little slower.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::trace::{Arrival, BATCH_MAX, Workload};
use crate::deployment::{Crowd, Tenant};
use crate::lifecycle::decide::machine::Machine;
use crate::lifecycle::decide::placement::{Insists, Stand, Standing};
use crate::lifecycle::decide::policy::Seconds;
use crate::time::Uptime;

/// Share by which each further request of a batch slows all down.
const CROWDING: f64 = 0.02;

/// Seconds as a time of the run.
pub(super) fn time(seconds: Seconds) -> Uptime {
    Duration::from_secs_f64(seconds.max(0.0))
}

/// A request at work: the deployment's progress at which it is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    pub(super) until: f64,
    pub(super) since: Uptime,
    pub(super) client: Option<u32>,
}

impl Eq for Work {}

impl Ord for Work {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until
            .total_cmp(&other.until)
            .then(self.since.cmp(&other.since))
    }
}

impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One deployment, its worker and its clients.
pub(super) struct Actor {
    pub(super) machine: Machine,
    pub(super) open: bool,
    /// Requests that wait, by their places in the trace.
    pub(super) queue: VecDeque<usize>,
    /// The times at which they came, summed up.
    pub(super) queued: Seconds,
    pub(super) running: BinaryHeap<Reverse<Work>>,
    /// Seconds of work done by each request that was there all along.
    pub(super) progress: f64,
    pub(super) progressed: Uptime,
    pub(super) idle_since: Uptime,
    /// Tells an announced completion that is out of date.
    pub(super) version: u32,
}

impl Actor {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine,
            open: false,
            queue: VecDeque::new(),
            queued: 0.0,
            running: BinaryHeap::new(),
            progress: 0.0,
            progressed: Uptime::ZERO,
            idle_since: Uptime::ZERO,
            version: 0,
        }
    }

    /// Factor by which each request runs slower than alone.
    pub(super) fn crowding(&self) -> f64 {
        let others = u32::try_from(self.running.len().saturating_sub(1)).unwrap_or(u32::MAX);
        1.0 + CROWDING * f64::from(others)
    }

    /// True if a request that comes now is begun at once.
    pub(super) fn has_place(&self) -> bool {
        self.open && self.running.len() < BATCH_MAX && self.queue.is_empty()
    }

    pub(super) fn advance(&mut self, now: Uptime) {
        let passed = now.saturating_sub(self.progressed).as_secs_f64();
        self.progress += passed / self.crowding();
        self.progressed = now;
    }

    pub(super) fn begin(&mut self, arrival: &Arrival, now: Uptime) {
        self.advance(now);
        self.running.push(Reverse(Work {
            until: self.progress + arrival.work,
            since: now,
            client: arrival.key,
        }));
    }

    pub(super) fn stand(&self, number: usize, now: Uptime, trace: &Workload) -> Stand {
        let first = self.queue.front();
        let first = first.and_then(|index| trace.arrivals.get(*index));
        let held = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        let running = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        let mut crowd = Crowd::default();
        if let Some(model) = trace.fleet.get(number).filter(|_| held > 0) {
            crowd.add(Tenant(u64::from(model.workspace)), held);
        }
        Stand {
            crowd,
            standing: Standing::of(&self.machine),
            running,
            idle_since: (running == 0).then_some(self.idle_since),
            held,
            head: first.map(|arrival| time(arrival.at)),
            waited: f64::from(held) * now.as_secs_f64() - self.queued,
            insists: Insists::No,
            is_kept: false,
        }
    }
}
