//! Life of a worker: the lifecycle of one deployment, as a pure function.
//!
//! [`step`] takes the state, what happened and the time; it returns the next
//! state and what to do about it. It does no I/O and reads no clock, so every
//! path can be tested without processes, GPUs or waiting.
//!
//! ```text
//!            Demand | Start                    Granted           WorkerReady
//!  Stopped ----------------> Placing{Spawn} ----------> Starting -----------> Ready
//!     ^                                                                      |    ^
//!     |  Exited           IdleClosed{Stop} | Drained                         |    | WorkerReady
//!  Stopping <----------------------------------------------------- Draining <+    |
//!     ^                                                                |     |  Waking
//!     |                                  Drained{Offload}              v     |    ^
//!     +--- idle limit ---- Offloaded <------------- Offloading <-------+-----+    | Granted
//!                              |           Slept              IdleClosed{Offload} |
//!                              +-- Demand --> Placing{Wake} ----------------------+
//! ```
//!
//! `Fetching` comes before `Placing{Spawn}` where the model is not on this machine: no
//! GPUs are asked for until it is, and no limit of a start runs.
//!
//! Any live phase goes to `Failed` (with backoff) when its worker exits unasked,
//! and to `Stopping` when it overruns its deadline. A start that could not be
//! written down waits in `Failed` too, as no failure: before each further try the machine
//! looks if it can be now, so that no worker leaves its GPUs in vain.

mod phases;
mod words;

use std::time::Duration;

use crate::config::OffloadTo;
use crate::names::Generation;
use crate::time::Uptime;

pub use words::{Action, Aim, Broken, Desired, Event, Next, Phase, Policy, Rest};

/// Longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// Longest pause between two looks if our own state can be written: a look
/// costs next to nothing, and requests should not wait on after there is room.
const UNWRITTEN_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Pause before a gate that could not be closed as idle is looked at again.
const RELOOK: Duration = Duration::from_secs(1);

/// The state of one deployment's lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Phase of its life.
    pub phase: Phase,
    /// State that the operator allows.
    pub desired: Desired,
    /// True if someone asked for it since it last was ready.
    pub wanted: bool,
    /// The newest worker.
    pub worker: Generation,
    /// Failures in a row.
    pub failures: u32,
    /// Starts in a row that failed as our own state could not be written.
    pub unwritten: u32,
    /// Fetches of its model in a row that failed for now.
    pub unfetched: u32,
    /// Time since which the worker serves, in `Ready`.
    pub ready_since: Uptime,
    /// Time when the last request left, as known when the gate closed.
    pub idle_since: Uptime,
    /// Rungs that failed.
    pub broken: Broken,
    /// Time when this phase must be looked at again.
    pub deadline: Option<Uptime>,
}

impl Machine {
    /// A deployment that was never started.
    pub fn stopped() -> Self {
        Self {
            phase: Phase::Stopped,
            desired: Desired::OnDemand,
            wanted: false,
            worker: Generation(0),
            failures: 0,
            unwritten: 0,
            unfetched: 0,
            ready_since: Uptime::ZERO,
            idle_since: Uptime::ZERO,
            broken: Broken::default(),
            deadline: None,
        }
    }

    /// A deployment whose worker serves already, started by an earlier process.
    /// The gate is to be opened.
    pub fn adopted_ready(worker: Generation, now: Uptime) -> Self {
        Self {
            phase: Phase::Ready,
            worker,
            ready_since: now,
            // Looked at with the next tick, which knows the idle times.
            deadline: Some(now),
            ..Self::stopped()
        }
    }

    /// True if it sleeps, and a request would wake it: it may then be woken before one
    /// comes, where one is expected.
    pub fn wakes_on_demand(&self) -> bool {
        matches!(self.phase, Phase::Offloaded { .. }) && self.desired == Desired::OnDemand
    }

    /// A deployment whose worker sleeps, started by an earlier process.
    pub fn adopted_asleep(worker: Generation, at: OffloadTo, now: Uptime, policy: &Policy) -> Self {
        Self {
            phase: Phase::Offloaded { at },
            worker,
            idle_since: now,
            deadline: policy.stop_after.map(|after| now + after),
            ..Self::stopped()
        }
    }
}

/// Next state, and what to do about it. See the module docs.
pub fn step(
    machine: Machine,
    event: Event,
    now: Uptime,
    policy: &Policy,
) -> (Machine, Vec<Action>) {
    let mut step = Step {
        m: machine,
        now,
        policy,
        actions: Vec::new(),
    };
    step.run(event);
    (step.m, step.actions)
}

/// One call of [`step`]: the state as it changes, and the actions so far.
struct Step<'a> {
    m: Machine,
    now: Uptime,
    policy: &'a Policy,
    actions: Vec<Action>,
}

impl Step<'_> {
    fn run(&mut self, event: Event) {
        if self.is_stale(event) || self.is_met_by_intent(event) {
            return;
        }
        match self.m.phase {
            Phase::Stopped => self.in_stopped(event),
            Phase::Fetching => self.in_fetching(event),
            Phase::Placing { aim } => self.in_placing(event, aim),
            Phase::Starting => self.in_starting(event),
            Phase::Ready => self.in_ready(event),
            Phase::Draining { rest } => self.in_draining(event, rest),
            Phase::Offloading { to } => self.in_offloading(event, to),
            Phase::Offloaded { at } => self.in_offloaded(event, at),
            Phase::Waking { from } => self.in_waking(event, from),
            Phase::Stopping { next, killed } => self.in_stopping(event, next, killed),
            Phase::Failed => self.in_failed(event),
        }
    }

    /// Takes down what people and requests want. Returns whether that was all
    /// there is to do.
    fn is_met_by_intent(&mut self, event: Event) -> bool {
        match event {
            Event::Demand if self.m.desired == Desired::Down => {
                self.act(Action::RefuseWaiters);
                return true;
            }
            // In `Ready` the gate is open, so the demand is met already.
            Event::Demand => self.m.wanted = self.m.phase != Phase::Ready,
            Event::Start => {
                (self.m.desired, self.m.failures) = (Desired::OnDemand, 0);
                self.m.unfetched = 0;
                self.m.broken = Broken::default();
                self.m.wanted = self.m.phase != Phase::Ready;
            }
            Event::Stop => {
                (self.m.desired, self.m.wanted) = (Desired::Down, false);
                self.act(Action::RefuseWaiters);
            }
            Event::Permit => {
                (self.m.desired, self.m.failures) = (Desired::OnDemand, 0);
                return true;
            }
            Event::Offload | Event::SpecChanged | Event::Upgraded => {
                self.m.broken = Broken::default();
            }
            _ => {}
        }
        false
    }

    fn look_idle(&mut self, idle_since: Option<Uptime>) {
        if !self.overdue() {
            return;
        }
        let Some(since) = idle_since else {
            self.m.deadline = self.idle_limit().map(|limit| self.now + limit);
            return;
        };
        let due = |after: Option<Duration>| after.is_some_and(|after| since + after <= self.now);
        if due(self.policy.stop_after) {
            self.act(Action::CloseGateIfIdle(Rest::Stop));
        } else if due(self.policy.offload_after) && self.policy.offload_to.is_some() {
            self.act(Action::CloseGateIfIdle(self.rung()));
        }
        // Matters only if the gate was not closed: looked at again soon.
        self.m.deadline = self
            .idle_limit()
            .map(|limit| (since + limit).max(self.now + RELOOK));
    }

    fn idle_limit(&self) -> Option<Duration> {
        match (self.policy.offload_after, self.policy.stop_after) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Time when a worker that sleeps is to be stopped.
    fn stop_due(&self) -> Option<Uptime> {
        self.policy
            .stop_after
            .map(|after| self.m.idle_since + after)
    }

    /// The first rung below the GPU that has not failed.
    fn rung(&self) -> Rest {
        let Broken { cpu, disk } = self.m.broken;
        let levels = self.policy.levels;
        match self.policy.offload_to {
            Some(OffloadTo::Cpu) if levels.cpu && !cpu => Rest::Offload(OffloadTo::Cpu),
            Some(_) if levels.disk && !disk => Rest::Offload(OffloadTo::Disk),
            _ => Rest::Stop,
        }
    }

    /// This way down, or the next one where it failed or is not permitted.
    fn usable(&self, rest: Rest) -> Rest {
        let Broken { cpu, disk } = self.m.broken;
        match rest {
            Rest::Offload(_) if self.policy.offload_to.is_none() => Rest::Stop,
            Rest::Offload(OffloadTo::Cpu) if cpu => self.rung(),
            Rest::Offload(OffloadTo::Disk) if disk => self.rung(),
            Rest::Offload(to) if !self.policy.levels.permit(to) => self.rung(),
            rest => rest,
        }
    }

    fn break_rung(&mut self, rung: OffloadTo) {
        match rung {
            OffloadTo::Cpu => self.m.broken.cpu = true,
            OffloadTo::Disk => self.m.broken.disk = true,
        }
    }

    fn is_stale(&self, event: Event) -> bool {
        event.generation().is_some_and(|g| g != self.m.worker)
    }

    /// Sets out for a new worker: with its model, else with its GPUs.
    fn begin(&mut self) {
        if self.policy.fetch_first {
            self.act(Action::Fetch);
            // The fetch ends by itself where nothing comes any more.
            (self.m.phase, self.m.deadline) = (Phase::Fetching, None);
        } else {
            self.place(Aim::Spawn);
        }
    }

    fn place(&mut self, aim: Aim) {
        self.act(Action::AcquireGpus(aim));
        self.enter(Phase::Placing { aim }, self.policy.place_timeout);
    }

    fn spawn(&mut self) {
        self.m.worker = self.m.worker.next();
        self.act(Action::Spawn(self.m.worker));
        self.enter(Phase::Starting, self.policy.start_timeout);
    }

    fn serve(&mut self) {
        self.act(Action::OpenGate);
        (self.m.phase, self.m.wanted, self.m.ready_since) = (Phase::Ready, false, self.now);
        self.m.unwritten = 0;
        self.m.deadline = self.idle_limit().map(|limit| self.now + limit);
    }

    fn drain(&mut self, rest: Rest) {
        self.act(Action::CloseGate);
        self.enter(Phase::Draining { rest }, self.policy.drain_timeout);
    }

    fn sleep(&mut self, to: OffloadTo) {
        self.act(Action::Sleep(self.m.worker, to));
        self.enter(Phase::Offloading { to }, self.policy.call_timeout);
    }

    fn terminate(&mut self, next: Next) {
        self.act(Action::Terminate(self.m.worker));
        self.enter(
            Phase::Stopping {
                next,
                killed: false,
            },
            self.policy.stop_grace,
        );
    }

    fn release_and_fail(&mut self) {
        self.act(Action::ReleaseLease);
        self.fail();
    }

    fn fail(&mut self) {
        if self.m.desired == Desired::Down {
            return self.rest_stopped();
        }
        self.m.unwritten = 0;
        self.m.failures = self.m.failures.saturating_add(1);
        if self.m.failures >= self.policy.failures_max {
            return self.give_up();
        }
        self.m.wanted |= self.policy.restart_unasked;
        self.enter(Phase::Failed, self.pause(self.m.failures).min(BACKOFF_MAX));
    }

    /// Tries again by itself once our own state can be written; requests that wait are
    /// told when that is.
    fn put_off(&mut self) {
        if self.m.desired == Desired::Down {
            return self.rest_stopped();
        }
        (self.m.unwritten, self.m.wanted) = (self.m.unwritten.saturating_add(1), true);
        let pause = self.pause(self.m.unwritten).min(UNWRITTEN_PAUSE_MAX);
        self.enter(Phase::Failed, pause);
        self.act(Action::RefuseWaiters);
    }

    /// Its model could not come for now. As that is no fault of the worker's it is never
    /// given up for good: after so many times requests that wait are told when to come again,
    /// and the next request tries once.
    fn fetch_again(&mut self) {
        if self.m.desired == Desired::Down {
            return self.rest_stopped();
        }
        let most = self.policy.failures_max;
        self.m.unwritten = 0;
        self.m.unfetched = self.m.unfetched.saturating_add(1).min(most);
        self.m.wanted |= self.policy.restart_unasked;
        let pause = self.pause(self.m.unfetched).min(BACKOFF_MAX);
        self.enter(Phase::Failed, pause);
        if self.m.unfetched >= most {
            self.m.wanted = self.policy.restart_unasked;
            self.act(Action::RefuseWaiters);
        }
    }

    /// The pause after so many tries in a row; twice as long each time.
    fn pause(&self, tries: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
        self.policy.backoff_base.saturating_mul(doubled)
    }

    /// No further try until an operator asks or the spec changes.
    fn give_up(&mut self) {
        if self.m.desired == Desired::Down {
            return self.rest_stopped();
        }
        (self.m.phase, self.m.deadline, self.m.wanted) = (Phase::Failed, None, false);
        self.m.unwritten = 0;
        self.act(Action::RefuseWaiters);
    }

    fn rest_stopped(&mut self) {
        (self.m.phase, self.m.deadline, self.m.unwritten) = (Phase::Stopped, None, 0);
    }

    /// Forgets earlier failures of a deployment that has served for a while.
    fn forgive(&mut self) {
        if self.now >= self.m.ready_since + self.policy.stable_after {
            self.m.failures = 0;
        }
    }

    fn enter(&mut self, phase: Phase, limit: Duration) {
        (self.m.phase, self.m.deadline) = (phase, Some(self.now + limit));
    }

    fn overdue(&self) -> bool {
        self.m.deadline.is_some_and(|deadline| deadline <= self.now)
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

#[cfg(test)]
mod tests;
