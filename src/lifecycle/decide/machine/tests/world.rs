//! A model of the outside world, and a walk through every state that it can lead to.

use std::collections::{HashSet, VecDeque};

use super::*;

/// A worker that this deployment never had.
pub(super) const STALE: Generation = Generation(u32::MAX);

/// World as it would be had the actions been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of the world are independent"
)]
pub(super) struct World {
    /// A process that has been spawned and has not exited.
    pub(super) alive: bool,
    /// Place of the weights of a worker that was told to sleep.
    pub(super) asleep: Option<OffloadTo>,
    pub(super) lease: Lease,
    pub(super) gate_open: bool,
    /// A question to placement that has no answer yet.
    pub(super) asked: bool,
    /// A fetch of its model that has not ended.
    pub(super) fetches: bool,
    /// A request waits at the closed gate.
    pub(super) waiting: bool,
    /// Sleep calls of these levels failed since the spec last changed.
    pub(super) cpu_failed: bool,
    pub(super) disk_failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lease {
    None,
    Shrunk,
    Full,
}

impl World {
    const EMPTY: Self = Self {
        alive: false,
        asleep: None,
        lease: Lease::None,
        gate_open: false,
        asked: false,
        fetches: false,
        waiting: false,
        cpu_failed: false,
        disk_failed: false,
    };

    /// World that the next process finds: a worker that serves.
    const SERVING: Self = Self {
        alive: true,
        lease: Lease::Full,
        gate_open: true,
        ..Self::EMPTY
    };

    /// World that the next process finds: a worker that sleeps.
    const SLEEPING: Self = Self {
        alive: true,
        asleep: Some(OffloadTo::Cpu),
        lease: Lease::Shrunk,
        ..Self::EMPTY
    };

    pub(super) fn happened(&mut self, before: &Machine, event: Event) {
        match event {
            Event::Granted => (self.asked, self.lease) = (false, Lease::Full),
            Event::Refused => self.asked = false,
            Event::Fetched | Event::FetchFailed | Event::Unfetchable => self.fetches = false,
            Event::Demand => self.waiting |= !self.gate_open,
            Event::Exited(g) | Event::Unlaunchable(g) | Event::Unwritten(g) if g != STALE => {
                (self.alive, self.asleep) = (false, None);
            }
            Event::IdleClosed { .. } => self.gate_open = false,
            Event::CallFailed(g) if g != STALE => match before.phase {
                Phase::Offloading { to: level } | Phase::Waking { from: level } => {
                    self.failed(level);
                }
                _ => {}
            },
            Event::Start | Event::SpecChanged | Event::Offload | Event::Upgraded => {
                (self.cpu_failed, self.disk_failed) = (false, false);
            }
            _ => {}
        }
    }

    fn failed(&mut self, level: OffloadTo) {
        match level {
            OffloadTo::Cpu => self.cpu_failed = true,
            OffloadTo::Disk => self.disk_failed = true,
        }
    }

    #[expect(clippy::cognitive_complexity, reason = "one arm per action")]
    pub(super) fn done(&mut self, action: Action) {
        match action {
            Action::Fetch => {
                assert!(!self.fetches, "fetched twice");
                let holds = self.asked || self.alive || self.lease != Lease::None;
                assert!(
                    !holds,
                    "holds GPUs, or asks for them, while its model is fetched"
                );
                self.fetches = true;
            }
            Action::CancelFetch => {
                assert!(self.fetches, "ended no fetch");
                self.fetches = false;
            }
            Action::AcquireGpus(_) => {
                assert!(!self.asked, "asked twice");
                self.asked = true;
            }
            Action::CancelAcquire => {
                assert!(self.asked, "withdrew no question");
                self.asked = false;
            }
            Action::ShrinkLease => {
                assert!(self.asleep.is_some(), "shrunk the lease of one awake");
                self.lease = Lease::Shrunk;
            }
            Action::ReleaseLease => {
                assert!(!self.alive, "gave GPUs away under a living process");
                self.lease = Lease::None;
            }
            Action::Spawn(_) => {
                assert!(!self.alive, "two workers at once");
                assert_eq!(self.lease, Lease::Full, "launched without GPUs");
                self.alive = true;
            }
            Action::TryState(_) => {
                let holds = self.alive || self.lease != Lease::None;
                assert!(
                    !holds,
                    "holds GPUs while it is seen whether it can be started"
                );
            }
            Action::OpenGate => {
                let served = self.alive && self.lease == Lease::Full;
                assert!(served, "opened the gate to no one");
                (self.gate_open, self.asleep, self.waiting) = (true, None, false);
            }
            Action::CloseGate => {
                assert!(self.gate_open, "closed a closed gate");
                self.gate_open = false;
            }
            Action::Sleep(_, to) => {
                assert!(self.alive && !self.gate_open, "slept under open gate");
                assert_eq!(self.asleep, None, "told a sleeper to sleep");
                let failed = match to {
                    OffloadTo::Cpu => self.cpu_failed,
                    OffloadTo::Disk => self.disk_failed,
                };
                assert!(!failed, "used a level again that failed: {to:?}");
                self.asleep = Some(to);
            }
            Action::Wake(_, from) => {
                assert!(self.alive && self.lease == Lease::Full, "woke without GPUs");
                assert_eq!(self.asleep, Some(from), "woke from where it was not");
            }
            Action::Terminate(_) | Action::Kill(_) => assert!(self.alive, "signalled no one"),
            Action::CloseGateIfIdle(_) => assert!(self.gate_open),
            Action::RefuseWaiters => self.waiting = false,
        }
    }
}

/// Events that a worker could report that this deployment never had.
const STALE_VOICES: [Event; 8] = [
    Event::Exited(STALE),
    Event::WorkerReady(STALE),
    Event::Slept(STALE),
    Event::CallFailed(STALE),
    Event::Unlaunchable(STALE),
    Event::Stuck(STALE),
    Event::Unwritten(STALE),
    Event::Writable(STALE),
];

/// Answers owed to a fetch and to a question to placement.
fn answers(world: World) -> Vec<(Event, Duration)> {
    let soon = Duration::ZERO;
    let mut events = Vec::new();
    if world.fetches {
        events.extend([
            (Event::Fetched, soon),
            (Event::FetchFailed, soon),
            (Event::Unfetchable, soon),
            // What it needs became known meanwhile.
            (Event::Refused, soon),
        ]);
        if !world.waiting {
            events.push((Event::Withdrawn, soon));
        }
    }
    if world.asked {
        events.extend([(Event::Granted, soon), (Event::Refused, soon)]);
        if !world.waiting {
            events.push((Event::Withdrawn, soon));
        }
    }
    events
}

/// The events that the world could bring about now.
fn possible(machine: &Machine, world: World) -> Vec<(Event, Duration)> {
    let soon = Duration::ZERO;
    let mut events = vec![
        (Event::Demand, soon),
        (Event::Start, soon),
        (Event::Stop, soon),
        (Event::Permit, soon),
        (Event::Offload, soon),
        (Event::Upgraded, soon),
        (Event::SpecChanged, soon),
        (Event::IdleChanged, soon),
        (Event::Evict(Rest::Offload(OffloadTo::Cpu)), soon),
        (Event::Evict(Rest::Offload(OffloadTo::Disk)), soon),
        (Event::Evict(Rest::Stop), soon),
        (Event::Spared, soon),
        (Event::Tick { idle_since: None }, soon),
        // The answer to a question of an earlier phase.
        (Event::Writable(machine.worker), soon),
    ];
    // A stale worker's voice is always possible.
    events.extend(STALE_VOICES.map(|event| (event, soon)));
    if let Some(deadline) = machine.deadline {
        for idle_since in [None, Some(Duration::ZERO)] {
            events.push((Event::Tick { idle_since }, deadline));
        }
    }
    events.extend(answers(world));
    if world.alive {
        let worker = machine.worker;
        events.push((Event::Exited(worker), soon));
        events.push((Event::Stuck(worker), soon));
        match machine.phase {
            Phase::Starting => events.extend([
                (Event::WorkerReady(worker), soon),
                (Event::Unlaunchable(worker), soon),
                (Event::Unwritten(worker), soon),
            ]),
            Phase::Stopping { .. } => events.extend([
                (Event::Unlaunchable(worker), soon),
                (Event::Unwritten(worker), soon),
            ]),
            Phase::Waking { .. } => events.extend([
                (Event::WorkerReady(worker), soon),
                (Event::CallFailed(worker), soon),
            ]),
            Phase::Offloading { .. } => events.extend([
                (Event::Slept(worker), soon),
                (Event::CallFailed(worker), soon),
            ]),
            _ => {}
        }
    }
    if !world.alive {
        events.push((Event::Unwritten(machine.worker), soon));
    }
    let idle_since = Duration::ZERO;
    if machine.phase == Phase::Ready {
        for rest in [Rest::Offload(OffloadTo::Cpu), Rest::Stop] {
            // Closed only after it was asked for, so never a broken rung.
            if !(machine.broken.cpu && rest == Rest::Offload(OffloadTo::Cpu)) {
                events.push((Event::IdleClosed { rest, idle_since }, soon));
            }
        }
    }
    if matches!(machine.phase, Phase::Draining { .. }) {
        events.push((Event::Drained { idle_since }, soon));
    }
    events
}

/// Time and worker count forgotten, so that the state space is finite.
fn shape(machine: &Machine, world: World) -> (Machine, World) {
    let mut shape = *machine;
    shape.deadline = machine.deadline.map(|_| Duration::ZERO);
    shape.worker = Generation(0);
    shape.unwritten = machine.unwritten.min(1);
    shape.ready_since = Duration::ZERO;
    shape.idle_since = Duration::ZERO;
    (shape, world)
}

#[expect(clippy::cognitive_complexity, reason = "one assertion per invariant")]
fn check(machine: &Machine, world: World) {
    let phase = machine.phase;
    assert_eq!(
        world.gate_open,
        phase == Phase::Ready,
        "gate is open exactly when ready: {phase:?}"
    );
    let should_live = !matches!(
        phase,
        Phase::Stopped | Phase::Fetching | Phase::Failed | Phase::Placing { aim: Aim::Spawn }
    );
    assert_eq!(world.alive, should_live, "{phase:?}");
    assert_eq!(world.fetches, phase == Phase::Fetching, "{phase:?}");
    assert_eq!(
        world.asked,
        matches!(phase, Phase::Placing { .. }),
        "{phase:?}"
    );
    if matches!(phase, Phase::Stopped | Phase::Fetching | Phase::Failed) {
        assert_eq!(world.lease, Lease::None, "GPUs held by no one: {phase:?}");
    }
    let may_wait_forever = matches!(
        phase,
        Phase::Stopped | Phase::Fetching | Phase::Ready | Phase::Offloaded { .. } | Phase::Failed
    );
    assert!(
        may_wait_forever || machine.deadline.is_some(),
        "no deadline in {phase:?}"
    );
    let heard = machine.wanted && (machine.deadline.is_some() || phase == Phase::Fetching);
    assert!(
        !world.waiting || heard,
        "a waiting request is stranded: {machine:?}"
    );
    if let Phase::Offloaded { at } = phase {
        assert_eq!((world.asleep, world.lease), (Some(at), Lease::Shrunk));
    }
    let at_rest = matches!(phase, Phase::Stopped | Phase::Offloaded { .. });
    assert!(
        !(at_rest && world.waiting),
        "rests while a request waits: {machine:?}"
    );
    let given_up = phase == Phase::Failed && machine.deadline.is_none();
    assert!(
        !(given_up && machine.wanted),
        "a demand that was refused is still wanted: {machine:?}"
    );
    let waits = phase == Phase::Failed && machine.wanted && machine.deadline.is_some();
    assert!(
        machine.unwritten == 0 || waits || phase != Phase::Failed,
        "given up for want of room: {machine:?}"
    );
    let moot = phase == Phase::Ready && machine.wanted;
    assert!(
        !moot,
        "demand that was met would wake the next sleeper: {machine:?}"
    );
}

/// One transition that was walked.
pub(super) struct Walked {
    pub(super) policy: Policy,
    pub(super) before: Machine,
    pub(super) event: Event,
    pub(super) after: Machine,
    pub(super) world: World,
    pub(super) actions: Vec<Action>,
}

pub(super) fn explore(mut visit: impl FnMut(&Walked)) -> usize {
    POLICIES
        .iter()
        .map(|policy| explore_one(policy, &mut visit))
        .sum()
}

fn explore_one(policy: &Policy, visit: &mut impl FnMut(&Walked)) -> usize {
    let now = Duration::ZERO;
    let first = Generation(1);
    let mut queue = VecDeque::from([
        (Machine::stopped(), World::EMPTY),
        (Machine::adopted_ready(first, now), World::SERVING),
    ]);
    if policy.offload_to.is_some() {
        let asleep = Machine::adopted_asleep(first, OffloadTo::Cpu, now, policy);
        queue.push_back((asleep, World::SLEEPING));
    }
    let mut seen: HashSet<_> = queue.iter().map(|(m, w)| shape(m, *w)).collect();
    while let Some((before, world)) = queue.pop_front() {
        for (event, at) in possible(&before, world) {
            let mut world = world;
            world.happened(&before, event);
            let (after, actions) = step(before, event, at, policy);
            if world.waiting && actions.contains(&Action::RefuseWaiters) {
                let hopeless = after.desired == Desired::Down || after.phase == Phase::Failed;
                assert!(
                    hopeless,
                    "refused a request that could be served: {after:?}"
                );
            }
            for action in &actions {
                world.done(*action);
            }
            check(&after, world);
            assert!(after.failures <= policy.failures_max, "{after:?}");
            if seen.insert(shape(&after, world)) {
                queue.push_back((after, world));
            }
            visit(&Walked {
                policy: *policy,
                before,
                event,
                after,
                world,
                actions,
            });
        }
    }
    seen.len()
}
