//! One replica of a deployment, as the conductor holds it: machine, worker, and
//! what is published of them. Most deployments have one.

use std::sync::Arc;
use std::time::Duration;

use super::fleet::Fleet;
use super::model::ModelFetch;
use crate::config::{self, Engine, OffloadTo, Settings};
use crate::deployment::{
    Counts, Gate, Handle, Refusal, Snapshot, Status, Telling, snapshot::Residency,
};
use crate::lifecycle::act::launcher::Launcher;
use crate::lifecycle::act::running::{Running, Target};
use crate::lifecycle::decide::ledger::LedgerKey;
use crate::lifecycle::decide::machine::{Aim, Desired, Event, Machine, Next, Phase, Policy, Rest};
use crate::lifecycle::decide::placement::{Insists, Profile, Stand, Standing};
use crate::lifecycle::decide::profile;
use crate::lifecycle::decide::profile::policy;
use crate::lifecycle::tell::events::Events;
use crate::lifecycle::tell::story::{Subject, phase_name};
use crate::models::pace::FetchProgress;
use crate::store::timings::{Timing, Timings};
use crate::time::{Uptime, unix_seconds};
use crate::vllm::fit::Fit;

/// Shortest pause between two reports of last activity.
const REPORT_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Wait of a worker to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Rolls {
    /// It does not.
    No,
    /// At the moment that its file chose.
    Due,
    /// As soon as no other replica changes, though requests are inside.
    Hurried,
}

/// Rungs that failed.
#[derive(Debug)]
pub(in crate::lifecycle) struct RungFailed {
    /// Words for which, and why the last of them did.
    pub(in crate::lifecycle) told: Telling,
    /// Version of the engine with which the last of them did; `None` where it told none.
    pub(in crate::lifecycle) version: Option<String>,
}

/// One deployment.
#[derive(Debug)]
pub(in crate::lifecycle) struct Member {
    /// Its own; the first replica's is the deployment's.
    pub(in crate::lifecycle) handle: Arc<Handle>,
    /// It, and the other replicas of its deployment.
    pub(in crate::lifecycle) fleet: Fleet,
    pub(in crate::lifecycle) spec: Arc<config::Deployment>,
    /// Digest of what the spec launches.
    pub(in crate::lifecycle) fingerprint: Arc<str>,
    pub(in crate::lifecycle) machine: Machine,
    pub(in crate::lifecycle) policy: Policy,
    pub(in crate::lifecycle) running: Option<Running>,
    /// No longer in the catalog: forgotten once it has stopped.
    pub(in crate::lifecycle) leaving: bool,
    /// Time when this phase began.
    pub(in crate::lifecycle) entered: Uptime,
    entered_unix: u64,
    /// Time when the last activity was last reported.
    pub(in crate::lifecycle) reported: Uptime,
    pub(in crate::lifecycle) gpus: Arc<[u32]>,
    pub(in crate::lifecycle) progress: Option<(Arc<str>, u8)>,
    /// Its model, which may have to come here first.
    pub(in crate::lifecycle) fetch: ModelFetch,
    /// Memory that its worker will need, by its model; `None`: not known.
    pub(in crate::lifecycle) fit: Option<Arc<Fit>>,
    /// Reason why it failed or was stopped.
    pub(in crate::lifecycle) reason: Option<Telling>,
    pub(in crate::lifecycle) refusals: u64,
    pub(in crate::lifecycle) refusal: Option<Refusal>,
    /// Rungs of its offloading that failed.
    pub(in crate::lifecycle) rung_failed: Option<RungFailed>,
    /// Its wait for a moment to be replaced, as its options changed.
    pub(in crate::lifecycle) rolls: Rolls,
    /// Its number in placement.
    pub(in crate::lifecycle) key: LedgerKey,
    /// Wish for it though no request waits.
    pub(in crate::lifecycle) insists: Insists,
    /// True if this worker slept with its weights in host memory before.
    pub(in crate::lifecycle) has_slept: bool,
    /// Counts of its gate when that was last looked at, and the time of the look.
    pub(in crate::lifecycle) counted: (Counts, Uptime),
}

impl Member {
    pub(in crate::lifecycle) fn new(
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
            fetch: ModelFetch::new(launcher.fetches(&spec)),
            fit: None,
            reason: None,
            rung_failed: None,
            refusals: 0,
            refusal: None,
            rolls: Rolls::No,
            key: LedgerKey(0),
            insists: Insists::No,
            has_slept: false,
            counted: (Counts::default(), now),
            handle,
            fleet,
            spec,
        }
    }

    /// Number of the replica, counted from 1.
    pub(in crate::lifecycle) fn number(&self) -> u32 {
        self.spec.replicas.number
    }

    /// Gate where the requests enter that its worker serves.
    pub(in crate::lifecycle) fn gate(&self) -> &Arc<Gate> {
        let running = self.running.as_ref();
        running.map_or(&self.handle.gate, |running| &running.gate)
    }

    /// Target that effects are told of.
    pub(in crate::lifecycle) fn target(&self) -> Target<'_> {
        Target {
            handle: &self.handle,
            spec: &self.spec,
            gpus: &self.gpus,
            running: self.running.as_ref(),
        }
    }

    /// Subject that stories are told about.
    pub(in crate::lifecycle) fn subject(&self) -> Subject<'_> {
        Subject {
            id: &self.handle.id,
            machine: &self.machine,
            replicas: self.spec.replicas,
            offloads: self.policy.offload_to.is_some(),
            gpus: &self.gpus,
            entered: self.entered,
            in_flight: self.gate().in_flight(),
        }
    }

    /// True if its worker was told to end, and none is to follow.
    pub(in crate::lifecycle) fn is_ending(&self) -> bool {
        match self.machine.phase {
            Phase::Stopping { next, .. } => next == Next::Rest && !self.machine.wanted,
            // Its requests are gone by then, and the rest takes no time.
            Phase::Draining { rest } => rest == Rest::Stop && self.gate().in_flight() == 0,
            _ => false,
        }
    }

    /// True if its worker runs with other options than the spec has now.
    pub(in crate::lifecycle) fn is_outdated(&self) -> bool {
        let launched = self.running.as_ref().and_then(|r| r.launched.as_ref());
        launched.is_some_and(|launched| launched.fingerprint != self.fingerprint)
    }

    /// Takes a new spec. Returns what the machine has to be told.
    pub(in crate::lifecycle) fn respec(
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
        self.fetch.respec(launcher.fetches(spec));
        self.fit = None;
        // A worker that serves goes on until it is its turn.
        if self.machine.phase == Phase::Ready {
            self.rolls = if self.is_outdated() {
                Rolls::Due
            } else {
                Rolls::No
            };
            return Some(Event::IdleChanged);
        }
        Some(Event::SpecChanged)
    }

    /// True while it waits to be replaced.
    pub(in crate::lifecycle) fn is_to_roll(&self) -> bool {
        self.rolls != Rolls::No
    }

    pub(in crate::lifecycle) fn changed_phase(&mut self, now: Uptime) {
        (self.entered, self.entered_unix) = (now, unix_seconds());
    }

    /// Since when no request is inside, as its own limits count: where a client wants it to
    /// stay awake for longer, they end with that.
    pub(in crate::lifecycle) fn idle_since(&self) -> Option<Uptime> {
        let since = self.gate().idle_since()?;
        let limits = [self.policy.offload_after, self.policy.stop_after];
        let limit = limits.into_iter().flatten().min().unwrap_or_default();
        Some(since.max(self.kept_until().saturating_sub(limit)))
    }

    /// Until when a client wants it to stay awake. Of several replicas the first does.
    pub(in crate::lifecycle) fn kept_until(&self) -> Uptime {
        match self.number() {
            1 => self.fleet.lead().kept_until(),
            _ => Uptime::ZERO,
        }
    }

    /// State of the member, for placement.
    pub(in crate::lifecycle) fn stand(&self) -> Stand {
        let held = self.fleet.lead().held();
        let standing = match Standing::of(&self.machine) {
            // Requests that it came up for are about to enter: to take it away now would
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
            is_kept: self.kept_until() > self.handle.gate.clock().now(),
        }
    }

    /// Profile that placement goes by.
    pub(in crate::lifecycle) fn profile(&self, timings: &Timings, gpu_memory: u64) -> Profile {
        let timing = timings.get(&self.handle.id);
        let (fit, broken) = (self.fit.as_deref(), self.machine.broken);
        profile::profile(&self.spec, &timing, fit, broken, gpu_memory)
    }

    /// Publishes how it stands.
    pub(in crate::lifecycle) fn publish(&self, timings: &Timings, now: Uptime) {
        let phase = self.machine.phase;
        let serves = matches!(phase, Phase::Ready | Phase::Draining { .. });
        let launched = self.running.as_ref().and_then(|r| r.launched.as_ref());
        let workers = self.running.as_ref().filter(|_| serves);
        let workers = workers.and_then(Running::worker).map(Arc::new);
        let status = self.status();
        let loading = status == Status::Loading;
        // A refused caller is told when to come again.
        let comes = loading || (phase == Phase::Failed && self.machine.deadline.is_some());
        // One that an operator stopped is not started by whoever asks.
        let rests = matches!(status, Status::Offloaded | Status::Stopped)
            && self.machine.desired == Desired::OnDemand;
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
            ready_in: comes.then(|| self.ready_in(&timings.get(&self.handle.id), now)),
            would_take: rests.then(|| self.ready_in(&timings.get(&self.handle.id), now)),
            progress: self.progress.clone().filter(|_| loading),
            fetch: self.fetched(),
            reason: self.reason.clone().or_else(|| self.failed_rung()),
            refusals: self.refusals,
            refusal: self.refusal,
            replicas: Arc::from([]),
        };
        self.fleet.publish(self.number(), &self.handle, snapshot);
    }

    /// Time when a request was last inside, in seconds since 1970.
    fn last_activity(&self, now: Uptime) -> Option<u64> {
        let ago = now.saturating_sub(self.handle.gate.last_activity());
        let served = self.machine.ready_since > Uptime::ZERO;
        served.then(|| unix_seconds().saturating_sub(ago.as_secs()))
    }

    /// Time when the last activity is to be looked at again, while it serves: nothing
    /// tells that a request came or went.
    pub(in crate::lifecycle) fn report_due(&self) -> Option<Uptime> {
        let interval = self.spec.idle.last_action_report_interval;
        let serves = matches!(self.machine.phase, Phase::Ready | Phase::Draining { .. });
        serves.then(|| self.reported + interval.max(REPORT_INTERVAL_MIN))
    }

    /// Reports the last activity if there was any since the last report.
    pub(in crate::lifecycle) fn report(&mut self, timings: &Timings, now: Uptime) {
        let since = std::mem::replace(&mut self.reported, now);
        if self.handle.gate.last_activity() > since {
            self.publish(timings, now);
        }
    }

    fn status(&self) -> Status {
        match self.machine.phase {
            Phase::Fetching | Phase::Placing { .. } | Phase::Starting | Phase::Waking { .. } => {
                Status::Loading
            }
            Phase::Ready | Phase::Draining { .. } => Status::Idle,
            Phase::Offloading { .. } | Phase::Offloaded { .. } => Status::Offloaded,
            Phase::Stopping { next, .. } if next != Next::Rest || self.machine.wanted => {
                Status::Loading
            }
            Phase::Stopping { .. } => Status::Stopping,
            Phase::Stopped => Status::Stopped,
            // Another try is under way: to requests that wait, it loads.
            Phase::Failed if self.machine.wanted => Status::Loading,
            Phase::Failed => Status::Failed,
        }
    }

    /// Rest of the usual time, at least a second; all of it while it rests. A first
    /// start is foretold from how far its log is, and before that from what is usual.
    fn ready_in(&self, timing: &Timing, now: Uptime) -> Duration {
        let from = match self.machine.phase {
            Phase::Waking { from }
            | Phase::Offloading { to: from }
            | Phase::Offloaded { at: from }
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
        // That of a fetch tells nothing of the start.
        let of_start = self.progress.as_ref();
        let of_start = of_start.filter(|_| self.machine.phase == Phase::Starting);
        let percent = of_start.map_or(0, |(_, percent)| *percent);
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
        let fetch = self.fetched().and_then(|fetch| fetch.left);
        let left = left + pause + fetch.unwrap_or_default();
        left.max(Duration::from_secs(1))
    }

    /// Progress of the fetch of its model, while it is fetched.
    fn fetched(&self) -> Option<FetchProgress> {
        let fetches = self.machine.phase == Phase::Fetching;
        self.fetch.progress().filter(|_| fetches)
    }

    /// Words for the rungs that failed.
    fn failed_rung(&self) -> Option<Telling> {
        let failed = self.rung_failed.as_ref();
        failed.map(|failed| failed.told.clone())
    }

    /// Version of the engine of its worker, by the engine's own word.
    pub(in crate::lifecycle) fn version(&self) -> Option<&str> {
        let running = self.running.as_ref()?;
        running.taste.version.get().map(String::as_str)
    }

    /// Writes down what happened.
    pub(in crate::lifecycle) fn tell(&self, events: &Events, text: Telling) {
        events.push(&self.handle.id, text, None);
    }
}

/// From here on the log tells how long the rest of a start will take.
const PERCENT_TELLING: u32 = 20;

/// Times of starts and wakes where none was measured: vLLM's take 30 to
/// 200 s and 0.3 to 10 s.
fn usual(spec: &config::Deployment, wakes: bool) -> Duration {
    match (&spec.engine, wakes) {
        (Engine::Sim(sim), true) => sim.wake,
        (Engine::Sim(sim), false) => sim.load,
        (Engine::Vllm(_), true) => Duration::from_secs(10),
        (Engine::Vllm(_), false) => Duration::from_secs(100),
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
