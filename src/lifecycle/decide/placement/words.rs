//! The words of placement: what it is told of a deployment, and what it decides.

use super::super::ledger::{LedgerKey, MemoryNeed};
use super::super::machine::{Aim, Machine, Phase, Rest};
use super::super::policy::Seconds;
use super::super::policy::costs::Costs;
use crate::config::OffloadTo;
use crate::deployment::Crowd;
use crate::time::Uptime;

/// Figures of a deployment, with or without a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Memory that a worker of it takes.
    pub need: MemoryNeed,
    /// Costs of its transitions.
    pub costs: Costs,
    /// The ways down that its spec permits and that have not failed.
    pub rungs: Rungs,
    /// Never made to leave for another.
    pub pinned: bool,
    /// True if the engine keeps the host memory of a sleep until it ends, as vLLM
    /// does with pinned memory; else the engine gives it back when it wakes.
    pub keeps_host: bool,
}

/// The ways in which a worker can give up its GPU memory and stay alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rungs {
    /// Weights to host memory.
    pub cpu: bool,
    /// Weights dropped, to be read again.
    pub disk: bool,
}

/// Phase of a deployment's life, as far as memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no worker.
    Absent,
    /// Its worker was launched, and measures the memory that it may take.
    Starting,
    /// Its worker wakes.
    Waking,
    /// It serves, since then.
    Ready(Uptime),
    /// Its gate is closed and requests are inside; then it leaves, in this way.
    Draining(Rest),
    /// It leaves, in this way.
    Leaving(Rest),
    /// It sleeps.
    Asleep(OffloadTo),
}

impl Standing {
    /// Of the deployment of this machine.
    pub fn of(machine: &Machine) -> Self {
        match machine.phase {
            Phase::Stopped
            | Phase::Fetching
            | Phase::Failed
            | Phase::Placing { aim: Aim::Spawn } => Self::Absent,
            Phase::Starting => Self::Starting,
            Phase::Waking { .. } => Self::Waking,
            Phase::Ready => Self::Ready(machine.ready_since),
            Phase::Draining { rest } => Self::Draining(rest),
            Phase::Offloading { to } => Self::Leaving(Rest::Offload(to)),
            Phase::Stopping { .. } => Self::Leaving(Rest::Stop),
            Phase::Offloaded { at }
            | Phase::Placing {
                aim: Aim::Wake { from: at },
            } => Self::Asleep(at),
        }
    }
}

/// True if the host holds a worker's weights in this phase, or is about to.
pub fn keeps_host(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Draining {
            rest: Rest::Offload(OffloadTo::Cpu)
        } | Phase::Offloading { to: OffloadTo::Cpu }
            | Phase::Offloaded { at: OffloadTo::Cpu }
            | Phase::Waking {
                from: OffloadTo::Cpu
            }
            | Phase::Placing {
                aim: Aim::Wake {
                    from: OffloadTo::Cpu
                }
            }
    )
}

/// Wish for a deployment though no request waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insists {
    /// It is not.
    No,
    /// As far as nobody has to leave for it: it starts with the gateway.
    IfRoom,
    /// It is: an operator asked, or it serves again with other options.
    Yes,
}

/// State of a deployment now; asked for when it matters.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// Standing of the deployment.
    pub standing: Standing,
    /// Requests inside its worker.
    pub running: u32,
    /// Time since which none is, if none is.
    pub idle_since: Option<Uptime>,
    /// Requests that wait for it.
    pub held: u32,
    /// Time when the oldest of them came.
    pub head: Option<Uptime>,
    /// Seconds that they have waited, all together.
    pub waited: Seconds,
    /// Workspaces of these requests.
    pub crowd: Crowd,
    /// Wish for it though no request waits.
    pub insists: Insists,
    /// True if a client wants it to stay awake: that counts as one request that waits.
    pub is_kept: bool,
}

impl Stand {
    /// Of one that has no worker and that nobody wants.
    pub fn absent() -> Self {
        Self {
            standing: Standing::Absent,
            running: 0,
            idle_since: None,
            held: 0,
            head: None,
            waited: 0.0,
            crowd: Crowd::default(),
            insists: Insists::No,
            is_kept: false,
        }
    }

    /// Seconds that the oldest request has waited.
    pub fn head_wait(&self, now: Uptime) -> Seconds {
        self.head
            .map_or(0.0, |head| now.saturating_sub(head).as_secs_f64())
    }
}

/// Asks how a deployment stands.
pub type View<'a> = dyn Fn(LedgerKey) -> Stand + 'a;

/// Reason why a claim waits: a closed set, so that waits can be counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It was not looked at yet.
    New,
    /// Others are on their way out for it.
    Leaving,
    /// One that has waited too long, or soon will have, goes first.
    Reserved,
    /// A start measures the memory there.
    Measuring,
    /// Nobody waits for it, so nobody is to leave.
    Unwanted,
    /// Those on its GPUs are busy, on their way up, or may not leave yet.
    Busy,
    /// Others never leave its GPUs: they are kept, or replicas of the same deployment.
    Kept,
    /// Memory that is free or becomes free there goes to others first.
    Promised,
    /// Others come or go on its GPUs, and a start measures their memory.
    Unsettled,
    /// Others on the GPUs where it sleeps are kept: it ends, and starts on other GPUs.
    Elsewhere,
    /// Programs that are none of our workers use memory there, and what they leave
    /// is too little.
    Foreign,
    /// Others' workspaces had less of late.
    Turn,
    /// The switch would do more harm than it saves so far.
    Costly,
    /// No GPU is large enough now.
    Small,
}

impl Obstacle {
    /// The word that metrics count by.
    pub fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Leaving => "leaving",
            Self::Reserved => "reserved",
            Self::Measuring => "measuring",
            Self::Unwanted => "unwanted",
            Self::Busy => "busy",
            Self::Kept => "kept",
            Self::Promised => "promised",
            Self::Unsettled => "unsettled",
            Self::Elsewhere => "elsewhere",
            Self::Foreign => "foreign",
            Self::Turn => "turn",
            Self::Costly => "costly",
            Self::Small => "small",
        }
    }

    /// Words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::New => "it was not looked at yet",
            Self::Leaving => "others leave for it, and are not gone yet",
            Self::Reserved => {
                "its GPUs are kept for one that has waited longer, until it has its turn"
            }
            Self::Measuring => "another worker starts on its GPUs and measures their memory",
            Self::Unwanted => "nobody waits for it, so nobody leaves for it",
            Self::Busy => "those on its GPUs are busy, on their way up, or may not leave yet",
            Self::Kept => {
                "those on its GPUs never leave for it: they are kept (keep = true), or replicas of the same deployment"
            }
            Self::Promised => "the memory of its GPUs goes to others first",
            Self::Unsettled => {
                "others come or go on its GPUs, and a start must find their memory at rest"
            }
            Self::Elsewhere => {
                "others are kept where it sleeps, and leave it too little: it ends, and starts on other GPUs"
            }
            Self::Foreign => {
                "programs that are no workers of ours use memory of its GPUs, and leave too little"
            }
            Self::Turn => {
                "workspaces take turns: of late more was moved for those who wait for it than for others"
            }
            Self::Costly => "the switch would cost others more than it saves so far",
            Self::Small => "no GPU is large enough",
        }
    }
}

/// Decision about the claims.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The memory is taken for this deployment.
    Grant(LedgerKey),
    /// It can never fit, or never where it sleeps; why.
    Refuse(LedgerKey, String),
    /// A resident must leave.
    Evict(Eviction),
    /// This one need not leave after all: the claims that it was to leave for are gone.
    Spare(LedgerKey),
    /// Nobody waits for this one any more: its claim is dropped.
    Withdraw(LedgerKey),
    /// It must wait, and for what: told once for each obstacle of a claim.
    Wait(LedgerKey, Obstacle),
}

impl Decision {
    /// Deployment that the decision is about.
    pub fn key(&self) -> LedgerKey {
        match self {
            Self::Grant(key)
            | Self::Refuse(key, _)
            | Self::Spare(key)
            | Self::Withdraw(key)
            | Self::Wait(key, _) => *key,
            Self::Evict(eviction) => eviction.victim,
        }
    }
}

/// Choice of a victim for a claimant, with the figures of the choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eviction {
    /// Deployment that leaves.
    pub victim: LedgerKey,
    /// Deployment that it leaves for.
    pub claimant: LedgerKey,
    /// Way in which it leaves.
    pub rest: Rest,
    /// Requests inside it.
    pub running: u32,
    /// Seconds for which none was inside it, if none is.
    pub idle: Option<Seconds>,
    /// Seconds that bringing it back takes.
    pub back: Seconds,
    /// Seconds of waiting that its leaving is expected to cause.
    pub harm: Seconds,
    /// Requests that wait for the claimant.
    pub held: u32,
    /// Seconds that the oldest of them has waited.
    pub head_wait: Seconds,
    /// True if the claimant is overdue, and so waives every condition.
    pub overdue: bool,
}
