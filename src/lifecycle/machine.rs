//! When a worker lives: the lifecycle of one deployment, as a pure function.
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
//! Any live phase goes to `Failed` (with backoff) when its worker exits unasked,
//! and to `Stopping` when it overruns its deadline.

use std::time::Duration;

use crate::config::OffloadTo;
use crate::names::Generation;
use crate::time::Uptime;

/// Where a deployment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No worker, no GPUs.
    Stopped,
    /// Waiting for GPUs.
    Placing {
        /// What to do once they are granted.
        aim: Aim,
    },
    /// Worker launched, weights loading.
    Starting,
    /// Gate open, requests served.
    Ready,
    /// Gate closed, the requests inside finish.
    Draining {
        /// What follows.
        rest: Rest,
    },
    /// Worker told to sleep.
    Offloading {
        /// Where its weights go.
        to: OffloadTo,
    },
    /// Worker alive, weights out of GPU memory.
    Offloaded {
        /// Where its weights are.
        at: OffloadTo,
    },
    /// Worker told to wake up.
    Waking {
        /// Where its weights were.
        from: OffloadTo,
    },
    /// Worker told to end; GPUs stay held until it has.
    Stopping {
        /// What follows.
        next: Next,
        /// Whether it was killed already.
        killed: bool,
    },
    /// Worker ended unasked; waiting before the next attempt.
    Failed,
}

/// Why GPUs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    /// To launch a new worker.
    Spawn,
    /// To wake the sleeping one, on the GPUs it is bound to.
    Wake {
        /// Where its weights are.
        from: OffloadTo,
    },
}

/// How a worker leaves service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rest {
    /// Keep it, without GPU memory.
    Offload(OffloadTo),
    /// End it.
    Stop,
    /// End it and start another, with the new spec.
    Restart,
}

/// What follows once a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Nothing.
    Rest,
    /// A new worker.
    Restart,
    /// A new worker, after backoff.
    Retry,
}

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Desired {
    /// Start on demand.
    OnDemand,
    /// Stay down, whatever the demand.
    Down,
}

/// The rungs of the ladder that failed for this worker's spec. They are not
/// used again until the spec changes or an operator asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken {
    /// Sleep or wake with weights in host memory.
    pub cpu: bool,
    /// Sleep or wake with weights read again from disk.
    pub disk: bool,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request waits for this deployment.
    Demand,
    /// An operator wants it up.
    Start,
    /// An operator wants it down.
    Stop,
    /// It may start on demand again; nobody asks for it yet.
    Permit,
    /// An operator wants its GPU memory free.
    Offload,
    /// What its worker is launched with changed.
    SpecChanged,
    /// Its idle times changed; the worker does not mind.
    IdleChanged,
    /// Another deployment needs its GPUs.
    Evict,
    /// Placement granted GPUs.
    Granted,
    /// Placement can't, now or later.
    Refused,
    /// The worker can't be launched as the spec says; another try won't help.
    Unlaunchable(Generation),
    /// The worker answers health checks.
    WorkerReady(Generation),
    /// The worker let go of its GPU memory.
    Slept(Generation),
    /// A sleep or wake call failed.
    CallFailed(Generation),
    /// The worker process is gone.
    Exited(Generation),
    /// The gate was found idle, and closed.
    IdleClosed {
        /// Why it was to be closed.
        rest: Rest,
        /// When the last request left.
        idle_since: Uptime,
    },
    /// The last request left a closed gate.
    Drained {
        /// When it left.
        idle_since: Uptime,
    },
    /// Time passed.
    Tick {
        /// Since when no request has been inside; `None` while one is.
        idle_since: Option<Uptime>,
    },
}

/// Something to do. The shell does them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask placement for GPUs; answered by `Granted` or `Refused`.
    AcquireGpus(Aim),
    /// Withdraw that question.
    CancelAcquire,
    /// Keep only what a sleeping worker occupies.
    ShrinkLease,
    /// Give all GPUs back.
    ReleaseLease,
    /// Launch a worker; answered by `WorkerReady`, `Exited` or `Unlaunchable`.
    Spawn(Generation),
    /// Let requests in.
    OpenGate,
    /// Let no more in; answered by `Drained`.
    CloseGate,
    /// Close the gate if no one is inside; answered by `IdleClosed` if so.
    CloseGateIfIdle(Rest),
    /// Answered by `Slept` or `CallFailed`.
    Sleep(Generation, OffloadTo),
    /// Answered by `WorkerReady` or `CallFailed`.
    Wake(Generation, OffloadTo),
    /// Ask the worker to end; answered by `Exited`.
    Terminate(Generation),
    /// End it now; answered by `Exited`.
    Kill(Generation),
    /// Tell waiting requests that no worker will come.
    RefuseWaiters,
}

/// The durations of one deployment.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Idle time before GPU memory is freed; `None` for never by itself.
    pub offload_after: Option<Duration>,
    /// Where the weights go; `None` where the worker can't sleep.
    pub offload_to: Option<OffloadTo>,
    /// Idle time before the worker is stopped, counted from the last request
    /// also while it sleeps; `None` for never.
    pub stop_after: Option<Duration>,
    /// Limit of `Placing`.
    pub place_timeout: Duration,
    /// Limit of `Starting`.
    pub start_timeout: Duration,
    /// Limit of `Offloading` and of `Waking`.
    pub call_timeout: Duration,
    /// Limit of `Draining`.
    pub drain_timeout: Duration,
    /// Between asking a worker to end and killing it; and between kills.
    pub stop_grace: Duration,
    /// First wait of `Failed`; doubles with each failure in a row.
    pub backoff_base: Duration,
    /// How long a worker must serve before its end counts as a first failure.
    pub stable_after: Duration,
    /// Failures in a row after which only an operator starts it again.
    pub failures_max: u32,
    /// Whether it is started again after a failure though no request waits.
    pub restart_unasked: bool,
}

/// Longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// Pause before a gate that could not be closed as idle is looked at again.
const RELOOK: Duration = Duration::from_secs(1);

/// The state of one deployment's lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Where it is.
    pub phase: Phase,
    /// What the operator allows.
    pub desired: Desired,
    /// Whether someone asked for it since it last was ready.
    pub wanted: bool,
    /// The newest worker.
    pub worker: Generation,
    /// Failures in a row.
    pub failures: u32,
    /// Since when the worker serves, in `Ready`.
    pub ready_since: Uptime,
    /// When the last request left, as known when the gate closed.
    pub idle_since: Uptime,
    /// Rungs that failed.
    pub broken: Broken,
    /// When this phase must be looked at again.
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

/// What happens next. See the module docs.
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
            Event::Offload | Event::SpecChanged => self.m.broken = Broken::default(),
            _ => {}
        }
        false
    }

    fn in_stopped(&mut self, event: Event) {
        if matches!(event, Event::Demand | Event::Start) {
            self.place(Aim::Spawn);
        }
    }

    fn in_placing(&mut self, event: Event, aim: Aim) {
        match (event, aim) {
            (Event::Granted, Aim::Spawn) => self.spawn(),
            (Event::Granted, Aim::Wake { from }) => {
                self.act(Action::Wake(self.m.worker, from));
                self.enter(Phase::Waking { from }, self.policy.call_timeout);
            }
            (Event::Refused, Aim::Spawn) => self.give_up(),
            (Event::Tick { .. }, Aim::Spawn) if self.overdue() => {
                self.act(Action::CancelAcquire);
                self.fail();
            }
            // A sleeping worker is bound to its GPUs: if those can't be had, a
            // new worker may still fit elsewhere.
            (Event::Refused, Aim::Wake { .. }) => self.terminate(Next::Restart),
            (Event::Tick { .. }, Aim::Wake { .. }) if self.overdue() => {
                self.act(Action::CancelAcquire);
                self.terminate(Next::Restart);
            }
            (Event::Stop, Aim::Spawn) => {
                self.act(Action::CancelAcquire);
                self.rest_stopped();
            }
            (Event::Stop | Event::Evict, Aim::Wake { .. }) => {
                self.act(Action::CancelAcquire);
                self.terminate(Next::Rest);
            }
            // What it needs may have changed: ask anew.
            (Event::SpecChanged, Aim::Spawn) => {
                self.act(Action::CancelAcquire);
                self.place(Aim::Spawn);
            }
            (Event::SpecChanged, Aim::Wake { .. }) => {
                self.act(Action::CancelAcquire);
                self.terminate(Next::Restart);
            }
            (Event::Exited(_), Aim::Wake { .. }) => {
                self.act(Action::CancelAcquire);
                self.act(Action::ReleaseLease);
                self.fail();
            }
            _ => {}
        }
    }

    fn in_starting(&mut self, event: Event) {
        match event {
            Event::WorkerReady(_) => self.serve(),
            Event::Exited(_) => self.release_and_fail(),
            Event::Unlaunchable(_) => {
                self.act(Action::ReleaseLease);
                self.give_up();
            }
            Event::Tick { .. } if self.overdue() => self.terminate(Next::Retry),
            Event::Stop | Event::Evict => self.terminate(Next::Rest),
            Event::SpecChanged => self.terminate(Next::Restart),
            _ => {}
        }
    }

    fn in_ready(&mut self, event: Event) {
        match event {
            Event::IdleClosed { rest, idle_since } => {
                self.m.idle_since = idle_since;
                match rest {
                    Rest::Offload(to) => self.sleep(to),
                    Rest::Stop | Rest::Restart => self.terminate(Next::Rest),
                }
            }
            Event::Tick { idle_since } => self.look_idle(idle_since),
            Event::IdleChanged => self.m.deadline = Some(self.now),
            Event::Evict => self.drain(self.rung()),
            Event::Offload if self.policy.offload_to.is_some() => self.drain(self.rung()),
            Event::Stop => self.drain(Rest::Stop),
            Event::SpecChanged => self.drain(Rest::Restart),
            Event::Exited(_) => {
                if self.now >= self.m.ready_since + self.policy.stable_after {
                    self.m.failures = 0;
                }
                self.act(Action::CloseGate);
                self.release_and_fail();
            }
            _ => {}
        }
    }

    fn in_draining(&mut self, event: Event, rest: Rest) {
        match (event, rest) {
            (Event::Drained { idle_since }, _) => {
                self.m.idle_since = idle_since;
                match rest {
                    Rest::Offload(to) => self.sleep(to),
                    Rest::Stop => self.terminate(Next::Rest),
                    Rest::Restart => self.terminate(Next::Restart),
                }
            }
            // Out of patience: the requests inside are cut.
            (Event::Tick { .. }, Rest::Restart) if self.overdue() => self.terminate(Next::Restart),
            (Event::Tick { .. }, _) if self.overdue() => self.terminate(Next::Rest),
            (Event::Stop, _) => self.m.phase = Phase::Draining { rest: Rest::Stop },
            (Event::SpecChanged, Rest::Offload(_)) => {
                self.m.phase = Phase::Draining {
                    rest: Rest::Restart,
                }
            }
            (Event::Exited(_), _) => self.release_and_fail(),
            _ => {}
        }
    }

    fn in_offloading(&mut self, event: Event, to: OffloadTo) {
        match event {
            Event::Slept(_) => {
                self.act(Action::ShrinkLease);
                if self.m.wanted {
                    self.place(Aim::Wake { from: to });
                } else {
                    self.m.phase = Phase::Offloaded { at: to };
                    self.m.deadline = self.stop_due();
                }
            }
            // Whoever needs these GPUs gets them either way.
            Event::CallFailed(_) => {
                self.break_rung(to);
                self.terminate(Next::Rest);
            }
            Event::Tick { .. } if self.overdue() => {
                self.break_rung(to);
                self.terminate(Next::Rest);
            }
            Event::Stop => self.terminate(Next::Rest),
            Event::SpecChanged => self.terminate(Next::Restart),
            Event::Exited(_) => self.release_and_fail(),
            _ => {}
        }
    }

    fn in_offloaded(&mut self, event: Event, at: OffloadTo) {
        match event {
            Event::Demand | Event::Start => self.place(Aim::Wake { from: at }),
            Event::Stop | Event::Evict | Event::SpecChanged => self.terminate(Next::Rest),
            Event::IdleChanged => self.m.deadline = self.stop_due(),
            Event::Tick { .. } if self.overdue() => self.terminate(Next::Rest),
            Event::Exited(_) => {
                self.act(Action::ReleaseLease);
                self.rest_stopped();
            }
            _ => {}
        }
    }

    fn in_waking(&mut self, event: Event, from: OffloadTo) {
        match event {
            Event::WorkerReady(_) => self.serve(),
            Event::CallFailed(_) => {
                self.break_rung(from);
                self.terminate(Next::Restart);
            }
            Event::Tick { .. } if self.overdue() => {
                self.break_rung(from);
                self.terminate(Next::Restart);
            }
            Event::SpecChanged => self.terminate(Next::Restart),
            Event::Stop | Event::Evict => self.terminate(Next::Rest),
            Event::Exited(_) => self.release_and_fail(),
            _ => {}
        }
    }

    fn in_stopping(&mut self, event: Event, next: Next, killed: bool) {
        match event {
            Event::Exited(_) => {
                self.act(Action::ReleaseLease);
                match next {
                    Next::Retry => self.fail(),
                    Next::Restart => self.place(Aim::Spawn),
                    Next::Rest if self.m.wanted => self.place(Aim::Spawn),
                    Next::Rest => self.rest_stopped(),
                }
            }
            // Never give the GPUs away under a living process: kill again.
            Event::Tick { .. } if self.overdue() => {
                self.act(Action::Kill(self.m.worker));
                self.enter(
                    Phase::Stopping { next, killed: true },
                    self.policy.stop_grace,
                );
            }
            Event::Stop => {
                self.m.phase = Phase::Stopping {
                    next: Next::Rest,
                    killed,
                }
            }
            _ => {}
        }
    }

    fn in_failed(&mut self, event: Event) {
        match event {
            Event::Start => self.place(Aim::Spawn),
            Event::Stop => self.rest_stopped(),
            Event::SpecChanged => {
                self.m.failures = 0;
                if self.m.wanted {
                    self.place(Aim::Spawn);
                } else {
                    self.rest_stopped();
                }
            }
            Event::Demand if self.m.deadline.is_none() => self.act(Action::RefuseWaiters),
            Event::Tick { .. } if self.overdue() => {
                if self.m.wanted {
                    self.place(Aim::Spawn);
                } else {
                    self.rest_stopped();
                }
            }
            _ => {}
        }
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
        } else if due(self.policy.offload_after) {
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

    /// When a worker that sleeps is to be stopped.
    fn stop_due(&self) -> Option<Uptime> {
        self.policy
            .stop_after
            .map(|after| self.m.idle_since + after)
    }

    /// The first rung below the GPU that has not failed.
    fn rung(&self) -> Rest {
        let Broken { cpu, disk } = self.m.broken;
        match self.policy.offload_to {
            Some(OffloadTo::Cpu) if !cpu => Rest::Offload(OffloadTo::Cpu),
            Some(_) if !disk => Rest::Offload(OffloadTo::Disk),
            _ => Rest::Stop,
        }
    }

    fn break_rung(&mut self, rung: OffloadTo) {
        match rung {
            OffloadTo::Cpu => self.m.broken.cpu = true,
            OffloadTo::Disk => self.m.broken.disk = true,
        }
    }

    fn is_stale(&self, event: Event) -> bool {
        match event {
            Event::WorkerReady(g)
            | Event::Slept(g)
            | Event::CallFailed(g)
            | Event::Unlaunchable(g)
            | Event::Exited(g) => g != self.m.worker,
            _ => false,
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
        self.m.failures = self.m.failures.saturating_add(1);
        if self.m.failures >= self.policy.failures_max {
            return self.give_up();
        }
        self.m.wanted |= self.policy.restart_unasked;
        let doubled = 2_u32.saturating_pow(self.m.failures - 1);
        let wait = self.policy.backoff_base.saturating_mul(doubled);
        self.enter(Phase::Failed, wait.min(BACKOFF_MAX));
    }

    /// No further try until an operator asks or the spec changes.
    fn give_up(&mut self) {
        if self.m.desired == Desired::Down {
            return self.rest_stopped();
        }
        (self.m.phase, self.m.deadline, self.m.wanted) = (Phase::Failed, None, false);
        self.act(Action::RefuseWaiters);
    }

    fn rest_stopped(&mut self) {
        (self.m.phase, self.m.deadline) = (Phase::Stopped, None);
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
