//! The words of the lifecycle: phases, events, actions, durations.
//!
//! Closed enums, one per decision. What follows what is the parent's to say.

use std::time::Duration;

use crate::config::{Levels, OffloadTo};
use crate::names::Generation;
use crate::time::Uptime;

/// Phase of a deployment's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No worker, no GPUs.
    Stopped,
    /// The model is brought to this machine; no GPUs are asked for yet.
    Fetching,
    /// Waiting for GPUs.
    Placing {
        /// Step to take once they are granted.
        aim: Aim,
    },
    /// Worker launched, weights loading.
    Starting,
    /// Gate open, requests served.
    Ready,
    /// Gate closed, the requests inside finish.
    Draining {
        /// Step that follows.
        rest: Rest,
    },
    /// Worker told to sleep.
    Offloading {
        /// Place that its weights go to.
        to: OffloadTo,
    },
    /// Worker alive, weights out of GPU memory.
    Offloaded {
        /// Place of its weights.
        at: OffloadTo,
    },
    /// Worker told to wake up.
    Waking {
        /// Place that its weights come from.
        from: OffloadTo,
    },
    /// Worker told to end; GPUs stay held until it has.
    Stopping {
        /// Step that follows.
        next: Next,
        /// True if it was killed already.
        killed: bool,
    },
    /// Worker ended unasked; waiting before the next attempt.
    Failed,
}

/// Purpose for which GPUs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    /// To launch a new worker.
    Spawn,
    /// To wake the sleeping one, on the GPUs it is bound to.
    Wake {
        /// Place of its weights.
        from: OffloadTo,
    },
}

/// Way in which a worker leaves service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rest {
    /// Keep it, without GPU memory.
    Offload(OffloadTo),
    /// End it.
    Stop,
    /// End it and start another, with the new spec.
    Restart,
}

/// Step that follows once a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Nothing.
    Rest,
    /// A new worker.
    Restart,
    /// A new worker, after backoff.
    Retry,
}

/// State that the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Desired {
    /// Start on demand.
    OnDemand,
    /// Stay down, whatever the demand.
    Down,
}

/// The rungs of the ladder that failed for this worker's spec. They are not
/// used again until the spec changes, its engine is upgraded or an operator asks.
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
    /// Its engine is another version than the one whose rungs failed.
    Upgraded,
    /// Options that its worker is launched with changed.
    SpecChanged,
    /// Its idle times changed; the worker does not mind.
    IdleChanged,
    /// Another deployment needs its GPUs: it is to leave in this way.
    Evict(Rest),
    /// The claimant of its GPUs is gone: it may stay.
    Spared,
    /// Nobody waits for it any more, and nothing was granted yet.
    Withdrawn,
    /// The model is on this machine, or its engine is to bring it.
    Fetched,
    /// The model could not be brought here now.
    FetchFailed,
    /// The model can't be brought here; another try won't help.
    Unfetchable,
    /// Placement granted GPUs.
    Granted,
    /// Placement can't, now or later.
    Refused,
    /// The worker can't be launched as the spec says; another try won't help.
    Unlaunchable(Generation),
    /// No worker was launched, as our own state can't be written: it is nobody's
    /// failure, and is tried again.
    Unwritten(Generation),
    /// Our own state can be written.
    Writable(Generation),
    /// The worker answers health checks.
    WorkerReady(Generation),
    /// The worker let go of its GPU memory.
    Slept(Generation),
    /// A sleep or wake call failed.
    CallFailed(Generation),
    /// The worker lives, and does nothing any more.
    Stuck(Generation),
    /// The worker process is gone.
    Exited(Generation),
    /// The gate was found idle, and closed.
    IdleClosed {
        /// Step for which it was to be closed.
        rest: Rest,
        /// Time when the last request left.
        idle_since: Uptime,
    },
    /// The last request left a closed gate.
    Drained {
        /// Time when it left.
        idle_since: Uptime,
    },
    /// Time passed.
    Tick {
        /// Time since which no request has been inside; `None` while one is.
        idle_since: Option<Uptime>,
    },
}

impl Event {
    /// The worker that it is about; `None` where it is about the deployment.
    pub fn generation(self) -> Option<Generation> {
        match self {
            Self::Unlaunchable(g)
            | Self::Unwritten(g)
            | Self::Writable(g)
            | Self::WorkerReady(g)
            | Self::Slept(g)
            | Self::CallFailed(g)
            | Self::Stuck(g)
            | Self::Exited(g) => Some(g),
            Self::Demand
            | Self::Start
            | Self::Stop
            | Self::Permit
            | Self::Upgraded
            | Self::Offload
            | Self::SpecChanged
            | Self::IdleChanged
            | Self::Evict(_)
            | Self::Spared
            | Self::Withdrawn
            | Self::Fetched
            | Self::FetchFailed
            | Self::Unfetchable
            | Self::Granted
            | Self::Refused
            | Self::IdleClosed { .. }
            | Self::Drained { .. }
            | Self::Tick { .. } => None,
        }
    }
}

/// Something to do. The shell does them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bring the model to this machine; answered by `Fetched`, `FetchFailed` or
    /// `Unfetchable`.
    Fetch,
    /// End that.
    CancelFetch,
    /// Ask placement for GPUs; answered by `Granted` or `Refused`.
    AcquireGpus(Aim),
    /// Withdraw that question.
    CancelAcquire,
    /// Keep only what a sleeping worker occupies.
    ShrinkLease,
    /// Give all GPUs back.
    ReleaseLease,
    /// Launch a worker; answered by `WorkerReady`, `Exited`, `Unlaunchable` or
    /// `Unwritten`.
    Spawn(Generation),
    /// See whether our own state can be written; answered by `Writable` or
    /// `Unwritten`.
    TryState(Generation),
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
    /// Place that the weights go to; `None` where the worker can't sleep, or not now.
    pub offload_to: Option<OffloadTo>,
    /// Places that they may go to.
    pub levels: Levels,
    /// Idle time before the worker is stopped, counted from the last request
    /// also while it sleeps; `None` for never.
    pub stop_after: Option<Duration>,
    /// True where the model is to be brought here before GPUs are asked for.
    pub fetch_first: bool,
    /// Limit of `Placing`.
    pub place_timeout: Duration,
    /// Limit of `Starting`.
    pub start_timeout: Duration,
    /// Limit of `Offloading` and of `Waking`.
    pub call_timeout: Duration,
    /// Limit of `Draining`.
    pub drain_timeout: Duration,
    /// Pause between asking a worker to end and killing it; and between kills.
    pub stop_grace: Duration,
    /// First wait of `Failed`; doubles with each failure in a row.
    pub backoff_base: Duration,
    /// Time that a worker must serve before its end counts as a first failure.
    pub stable_after: Duration,
    /// Failures in a row after which only an operator starts it again.
    pub failures_max: u32,
    /// True if it is started again after a failure though no request waits.
    pub restart_unasked: bool,
}
