//! One replica of a deployment, as the conductor holds it: machine, worker, and
//! what is published of them. Most deployments have one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::calls::Taste;
use super::events::Events;
use super::fleet::Fleet;
use super::health::Quiet;
use super::launcher::{Launched, Launcher};
use super::ledger::Key;
use super::machine::{Aim, Event, Machine, Next, Phase, Policy, Rest};
use super::placement::{Insists, Profile, Stand, Standing};
use super::profile::{self, policy};
use crate::config::{self, Engine, OffloadTo, Settings};
use crate::deployment::{
    Counts, Gate, Handle, Refusal, Snapshot, Status, Worker, snapshot::Residency,
};
use crate::store::timings::{Timing, Timings};
use crate::time::{Uptime, unix_seconds};

/// Shortest pause between two reports of last activity.
const REPORT_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// What the supervisor of a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Let it run.
    Run,
    /// Ask it to end.
    Stop,
    /// End it, for the nth time.
    Kill(u32),
}

/// The worker that lives, or is about to.
#[derive(Debug)]
pub(super) struct Running {
    /// `None` until it was launched.
    pub(super) launched: Option<Launched>,
    /// Where the requests that it serves enter; tells it from every other worker.
    pub(super) gate: Arc<Gate>,
    /// Held by whoever sends its engine a request of ours.
    pub(super) quiet: Quiet,
    /// What it says, to be compared after a wake.
    pub(super) taste: Taste,
    /// To its supervisor.
    pub(super) wish: watch::Sender<Wish>,
    /// Ends the calls that are under way to it.
    pub(super) calls: CancellationToken,
}

impl Running {
    /// The worker, as requests find it; `None` until it was launched.
    fn worker(&self) -> Option<Worker> {
        let launched = self.launched.as_ref()?;
        Some(Worker {
            generation: launched.generation,
            address: launched.address.clone(),
            api_key: Arc::clone(&launched.api_key),
            gate: Arc::clone(&self.gate),
        })
    }
}

/// One deployment.
#[derive(Debug)]
pub(super) struct Member {
    /// Its own; the first replica's is the deployment's.
    pub(super) handle: Arc<Handle>,
    /// It, and the other replicas of its deployment.
    pub(super) fleet: Fleet,
    pub(super) spec: Arc<config::Deployment>,
    /// Digest of what the spec launches.
    pub(super) fingerprint: Arc<str>,
    pub(super) machine: Machine,
    pub(super) policy: Policy,
    pub(super) running: Option<Running>,
    /// No longer in the catalog: forgotten once it has stopped.
    pub(super) leaving: bool,
    /// When this phase began.
    pub(super) entered: Uptime,
    entered_unix: u64,
    /// When the last activity was last reported.
    pub(super) reported: Uptime,
    pub(super) gpus: Arc<[u32]>,
    pub(super) progress: Option<(Arc<str>, u8)>,
    /// Why it failed or was stopped.
    pub(super) reason: Option<Arc<str>>,
    pub(super) refusals: u64,
    pub(super) refusal: Option<Refusal>,
    /// Its options changed, and it waits for a moment to be replaced.
    pub(super) rolls: bool,
    /// Its number in placement.
    pub(super) key: Key,
    /// Whether it is wanted though no request waits.
    pub(super) insists: Insists,
    /// Whether this worker slept with its weights in host memory before.
    pub(super) has_slept: bool,
    /// What its gate had counted when it was last looked at, and when that was.
    pub(super) counted: (Counts, Uptime),
}

impl Member {
    pub(super) fn new(
        handle: Arc<Handle>,
        fleet: Fleet,
        settings: &Settings,
        launcher: &dyn Launcher,
        now: Uptime,
    ) -> Self {
        let spec = handle.spec();
        Self {
            fingerprint: launcher.fingerprint(&spec),
            policy: policy(&spec, settings),
            machine: Machine::stopped(),
            running: None,
            leaving: false,
            entered: now,
            entered_unix: unix_seconds(),
            reported: now,
            gpus: Arc::from([]),
            progress: None,
            reason: None,
            refusals: 0,
            refusal: None,
            rolls: false,
            key: Key(0),
            insists: Insists::No,
            has_slept: false,
            counted: (Counts::default(), now),
            handle,
            fleet,
            spec,
        }
    }

    /// Which replica it is, counted from 1.
    pub(super) fn number(&self) -> u32 {
        self.spec.replicas.number
    }

    /// Where the requests enter that its worker serves.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        let running = self.running.as_ref();
        running.map_or(&self.handle.gate, |running| &running.gate)
    }

    /// Whether its worker was told to end, and none is to follow.
    pub(super) fn is_ending(&self) -> bool {
        match self.machine.phase {
            Phase::Stopping { next, .. } => next == Next::Rest && !self.machine.wanted,
            // Its requests are gone by then, and the rest takes no time.
            Phase::Draining { rest } => rest == Rest::Stop && self.gate().in_flight() == 0,
            _ => false,
        }
    }

    /// Whether its worker runs with other options than the spec has now.
    pub(super) fn is_outdated(&self) -> bool {
        let launched = self.running.as_ref().and_then(|r| r.launched.as_ref());
        launched.is_some_and(|launched| launched.fingerprint != self.fingerprint)
    }

    /// Takes a new spec. Returns what the machine has to be told.
    pub(super) fn respec(
        &mut self,
        spec: &Arc<config::Deployment>,
        settings: &Settings,
        launcher: &dyn Launcher,
    ) -> Option<Event> {
        if *self.spec == **spec {
            return None;
        }
        let fingerprint = launcher.fingerprint(spec);
        let changed = fingerprint != self.fingerprint;
        let policy = policy(spec, settings);
        self.handle.set_spec(Arc::clone(spec));
        (self.spec, self.fingerprint, self.policy) = (Arc::clone(spec), fingerprint, policy);
        if !changed {
            return Some(Event::IdleChanged);
        }
        // A worker that serves goes on until it is its turn.
        if self.machine.phase == Phase::Ready {
            self.rolls = self.is_outdated();
            return Some(Event::IdleChanged);
        }
        Some(Event::SpecChanged)
    }

    pub(super) fn changed_phase(&mut self, now: Uptime) {
        (self.entered, self.entered_unix) = (now, unix_seconds());
    }

    /// How it stands, for placement.
    pub(super) fn stand(&self) -> Stand {
        let held = self.fleet.lead().held();
        let standing = match Standing::of(&self.machine) {
            // Whoever it came up for is about to enter: to take it away now would
            // bring it up in vain, over and over.
            Standing::Ready(_) if held.count > 0 => Standing::Waking,
            standing => standing,
        };
        // An operator's start waits as a request does; a replica that load alone asks
        // for pushes nobody out.
        let asked = self.insists == Insists::Yes
            && self.number() <= self.spec.replicas.min.max(1)
            && matches!(self.machine.phase, Phase::Placing { .. });
        Stand {
            standing,
            running: self.gate().in_flight(),
            idle_since: self.gate().idle_since(),
            held: held.count,
            head: held.head.or(asked.then_some(self.entered)),
            waited: held.waited.as_secs_f64(),
            crowd: held.crowd,
            insists: self.insists,
        }
    }

    /// What placement goes by.
    pub(super) fn profile(&self, timings: &Timings, gpu_memory: u64) -> Profile {
        let timing = timings.get(&self.handle.id);
        profile::profile(&self.spec, &timing, self.machine.broken, gpu_memory)
    }

    /// Publishes how it stands.
    pub(super) fn publish(&self, timings: &Timings, now: Uptime) {
        let phase = self.machine.phase;
        let serves = matches!(phase, Phase::Ready | Phase::Draining { .. });
        let launched = self.running.as_ref().and_then(|r| r.launched.as_ref());
        let workers = self.running.as_ref().filter(|_| serves);
        let workers = workers.and_then(Running::worker).map(Arc::new);
        let status = self.status();
        let loading = status == Status::Loading;
        let snapshot = Snapshot {
            status,
            phase: phase_name(phase),
            residency: residency(phase),
            since: self.entered_unix,
            last_activity: self.last_activity(now),
            workers: workers.into_iter().collect(),
            generation: self.machine.worker,
            pid: launched.and_then(|launched| launched.pid),
            gpus: Arc::clone(&self.gpus),
            ready_in: loading.then(|| self.ready_in(&timings.get(&self.handle.id), now)),
            progress: self.progress.clone().filter(|_| loading),
            reason: self.reason.clone(),
            refusals: self.refusals,
            refusal: self.refusal,
            replicas: Arc::from([]),
        };
        self.fleet.publish(self.number(), &self.handle, snapshot);
    }

    /// When a request was last inside, in seconds since 1970.
    fn last_activity(&self, now: Uptime) -> Option<u64> {
        let ago = now.saturating_sub(self.handle.gate.last_activity());
        let served = self.machine.ready_since > Uptime::ZERO;
        served.then(|| unix_seconds().saturating_sub(ago.as_secs()))
    }

    /// When the last activity is to be looked at again, while it serves: no one
    /// tells that a request came or went.
    pub(super) fn report_due(&self) -> Option<Uptime> {
        let interval = self.spec.idle.last_action_report_interval;
        let serves = matches!(self.machine.phase, Phase::Ready | Phase::Draining { .. });
        serves.then(|| self.reported + interval.max(REPORT_INTERVAL_MIN))
    }

    /// Reports the last activity if there was any since the last report.
    pub(super) fn report(&mut self, timings: &Timings, now: Uptime) {
        let since = std::mem::replace(&mut self.reported, now);
        if self.handle.gate.last_activity() > since {
            self.publish(timings, now);
        }
    }

    fn status(&self) -> Status {
        match self.machine.phase {
            Phase::Placing { .. } | Phase::Starting | Phase::Waking { .. } => Status::Loading,
            Phase::Ready | Phase::Draining { .. } => Status::Idle,
            Phase::Offloading { .. } | Phase::Offloaded { .. } => Status::Offloaded,
            Phase::Stopping { next, .. } if next != Next::Rest || self.machine.wanted => {
                Status::Loading
            }
            Phase::Stopping { .. } => Status::Stopping,
            Phase::Stopped => Status::Stopped,
            // Another try is under way: for whoever waits, it loads.
            Phase::Failed if self.machine.wanted => Status::Loading,
            Phase::Failed => Status::Failed,
        }
    }

    /// What is left of the usual time, at least a second. A first start is
    /// foretold from how far its log is, and before that from what is usual.
    fn ready_in(&self, timing: &Timing, now: Uptime) -> Duration {
        let from = match self.machine.phase {
            Phase::Waking { from }
            | Phase::Placing {
                aim: Aim::Wake { from },
            } => Some(from),
            _ => None,
        };
        let known = match from {
            Some(OffloadTo::Cpu) => timing.wake_cpu.tail(),
            Some(OffloadTo::Disk) => timing.wake_disk.tail(),
            None => timing.start.tail(),
        };
        let in_phase = match self.machine.phase {
            Phase::Starting | Phase::Waking { .. } => now.saturating_sub(self.entered),
            _ => Duration::ZERO,
        };
        let percent = self.progress.as_ref().map_or(0, |(_, percent)| *percent);
        let percent = u32::from(percent.min(100));
        let left = match known {
            Some(usual) => usual.saturating_sub(in_phase),
            None if percent >= PERCENT_TELLING => in_phase * (100 - percent) / percent,
            None => usual(&self.spec, from.is_some()).saturating_sub(in_phase),
        };
        let pause = match (self.machine.phase, self.machine.deadline) {
            (Phase::Failed, Some(due)) => due.saturating_sub(now),
            _ => Duration::ZERO,
        };
        let left = left + pause;
        left.max(Duration::from_secs(1))
    }

    /// Writes down what happened.
    pub(super) fn tell(&self, events: &Events, text: &str) {
        events.push(&self.handle.id, text);
    }
}

/// From here on the log tells how long the rest of a start will take.
const PERCENT_TELLING: u32 = 20;

/// How long starts and wakes take where none was measured: vLLM's take 30 to
/// 200 s and 0.3 to 10 s.
fn usual(spec: &config::Deployment, wakes: bool) -> Duration {
    match (&spec.engine, wakes) {
        (Engine::Sim(sim), true) => sim.wake,
        (Engine::Sim(sim), false) => sim.load,
        (Engine::Vllm(_), true) => Duration::from_secs(10),
        (Engine::Vllm(_), false) => Duration::from_secs(100),
    }
}

/// The phase as one word.
pub(super) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Stopped => "stopped",
        Phase::Placing { .. } => "placing",
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Draining { .. } => "draining",
        Phase::Offloading { .. } => "offloading",
        Phase::Offloaded { .. } => "offloaded",
        Phase::Waking { .. } => "waking",
        Phase::Stopping { .. } => "stopping",
        Phase::Failed => "failed",
    }
}

fn residency(phase: Phase) -> Residency {
    match phase {
        Phase::Offloaded { at } | Phase::Waking { from: at } => rung(at),
        Phase::Placing {
            aim: Aim::Wake { from },
        } => rung(from),
        Phase::Ready | Phase::Draining { .. } | Phase::Offloading { .. } => Residency::Gpu,
        _ => Residency::None,
    }
}

fn rung(at: OffloadTo) -> Residency {
    match at {
        OffloadTo::Cpu => Residency::Cpu,
        OffloadTo::Disk => Residency::Disk,
    }
}
