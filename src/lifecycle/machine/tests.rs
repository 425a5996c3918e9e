//! Exhaustive exploration: every event, in every reachable state, against a
//! model of the outside world. No sampling, no clock, no process.

mod histories;

use super::*;
use std::collections::{HashSet, VecDeque};

const POLICY: Policy = Policy {
    offload_after: Some(Duration::from_secs(10)),
    offload_to: Some(OffloadTo::Cpu),
    stop_after: Some(Duration::from_secs(20)),
    place_timeout: Duration::from_secs(5),
    start_timeout: Duration::from_secs(5),
    call_timeout: Duration::from_secs(5),
    drain_timeout: Duration::from_secs(5),
    stop_grace: Duration::from_secs(5),
    backoff_base: Duration::from_secs(1),
    stable_after: Duration::from_mins(1),
    failures_max: 3,
    restart_unasked: false,
};

/// What a deployment may be told, one of each kind.
const POLICIES: [Policy; 4] = [
    POLICY,
    Policy {
        offload_to: Some(OffloadTo::Disk),
        stop_after: None,
        restart_unasked: true,
        ..POLICY
    },
    Policy {
        offload_after: None,
        offload_to: None,
        ..POLICY
    },
    Policy {
        offload_after: None,
        stop_after: None,
        ..POLICY
    },
];

/// A worker that this deployment never had.
const STALE: Generation = Generation(u32::MAX);

/// What the world would look like had the actions been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of the world are independent"
)]
struct World {
    /// A process that has been spawned and has not exited.
    alive: bool,
    /// Where the weights of a worker that was told to sleep are.
    asleep: Option<OffloadTo>,
    lease: Lease,
    gate_open: bool,
    /// A question to placement that has no answer yet.
    asked: bool,
    /// A request waits at the closed gate.
    waiting: bool,
    /// Sleep calls of these levels failed since the spec last changed.
    cpu_failed: bool,
    disk_failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lease {
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
        waiting: false,
        cpu_failed: false,
        disk_failed: false,
    };

    /// What the next process finds: a worker that serves.
    const SERVING: Self = Self {
        alive: true,
        lease: Lease::Full,
        gate_open: true,
        ..Self::EMPTY
    };

    /// What the next process finds: a worker that sleeps.
    const SLEEPING: Self = Self {
        alive: true,
        asleep: Some(OffloadTo::Cpu),
        lease: Lease::Shrunk,
        ..Self::EMPTY
    };

    fn happened(&mut self, before: &Machine, event: Event) {
        match event {
            Event::Granted => (self.asked, self.lease) = (false, Lease::Full),
            Event::Refused => self.asked = false,
            Event::Demand => self.waiting |= !self.gate_open,
            Event::Exited(g) | Event::Unlaunchable(g) if g != STALE => {
                (self.alive, self.asleep) = (false, None);
            }
            Event::IdleClosed { .. } => self.gate_open = false,
            Event::CallFailed(g) if g != STALE => match before.phase {
                Phase::Offloading { to: level } | Phase::Waking { from: level } => {
                    self.failed(level);
                }
                _ => {}
            },
            Event::Start | Event::SpecChanged | Event::Offload => {
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
    fn done(&mut self, action: Action) {
        match action {
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

/// The events that the world could bring about now.
fn possible(machine: &Machine, world: World) -> Vec<(Event, Duration)> {
    let soon = Duration::ZERO;
    let mut events = vec![
        (Event::Demand, soon),
        (Event::Start, soon),
        (Event::Stop, soon),
        (Event::Permit, soon),
        (Event::Offload, soon),
        (Event::SpecChanged, soon),
        (Event::IdleChanged, soon),
        (Event::Evict(Rest::Offload(OffloadTo::Cpu)), soon),
        (Event::Evict(Rest::Offload(OffloadTo::Disk)), soon),
        (Event::Evict(Rest::Stop), soon),
        (Event::Spared, soon),
        (Event::Tick { idle_since: None }, soon),
        // A stale worker's voice is always possible.
        (Event::Exited(STALE), soon),
        (Event::WorkerReady(STALE), soon),
        (Event::Slept(STALE), soon),
        (Event::CallFailed(STALE), soon),
        (Event::Unlaunchable(STALE), soon),
        (Event::Stuck(STALE), soon),
    ];
    if let Some(deadline) = machine.deadline {
        events.push((Event::Tick { idle_since: None }, deadline));
        events.push((
            Event::Tick {
                idle_since: Some(Duration::ZERO),
            },
            deadline,
        ));
    }
    if world.asked {
        events.extend([(Event::Granted, soon), (Event::Refused, soon)]);
        if !world.waiting {
            events.push((Event::Withdrawn, soon));
        }
    }
    if world.alive {
        let worker = machine.worker;
        events.push((Event::Exited(worker), soon));
        events.push((Event::Stuck(worker), soon));
        match machine.phase {
            Phase::Starting => events.extend([
                (Event::WorkerReady(worker), soon),
                (Event::Unlaunchable(worker), soon),
            ]),
            Phase::Stopping { .. } => events.push((Event::Unlaunchable(worker), soon)),
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
        Phase::Stopped | Phase::Failed | Phase::Placing { aim: Aim::Spawn }
    );
    assert_eq!(world.alive, should_live, "{phase:?}");
    assert_eq!(
        world.asked,
        matches!(phase, Phase::Placing { .. }),
        "{phase:?}"
    );
    if matches!(phase, Phase::Stopped | Phase::Failed) {
        assert_eq!(world.lease, Lease::None, "GPUs held by no one: {phase:?}");
    }
    let may_wait_forever = matches!(
        phase,
        Phase::Stopped | Phase::Ready | Phase::Offloaded { .. } | Phase::Failed
    );
    assert!(
        may_wait_forever || machine.deadline.is_some(),
        "no deadline in {phase:?}"
    );
    let heard = machine.wanted && machine.deadline.is_some();
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
    let moot = phase == Phase::Ready && machine.wanted;
    assert!(
        !moot,
        "demand that was met would wake the next sleeper: {machine:?}"
    );
}

/// One transition that was walked.
struct Walked {
    policy: Policy,
    before: Machine,
    event: Event,
    after: Machine,
    world: World,
    actions: Vec<Action>,
}

fn explore(mut visit: impl FnMut(&Walked)) -> usize {
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

#[test]
fn no_reachable_state_breaks_an_invariant() {
    let mut transitions = 0;
    let states = explore(|_| transitions += 1);
    assert!(states > 200, "explored only {states} states");
    eprintln!("{states} states, {transitions} transitions");
}

#[test]
fn a_worker_that_crashes_at_once_is_given_up() {
    let mut m = Machine::stopped();
    for _ in 0..POLICY.failures_max {
        for event in [Event::Start, Event::Granted] {
            // `Start` forgives past failures, so only the first round uses it.
            let event = if event == Event::Start && m.failures > 0 {
                Event::Tick { idle_since: None }
            } else {
                event
            };
            m.wanted |= matches!(event, Event::Tick { .. });
            m = step(m, event, m.deadline.unwrap_or_default(), &POLICY).0;
        }
        m = step(
            m,
            Event::WorkerReady(m.worker),
            m.deadline.unwrap_or_default(),
            &POLICY,
        )
        .0;
        assert_eq!(m.phase, Phase::Ready);
        m = step(m, Event::Exited(m.worker), m.ready_since, &POLICY).0;
    }
    assert_eq!((m.phase, m.deadline), (Phase::Failed, None));
}

#[test]
fn a_stale_worker_changes_nothing() {
    explore(|walked| {
        let stale = matches!(
            walked.event,
            Event::Exited(STALE)
                | Event::WorkerReady(STALE)
                | Event::Slept(STALE)
                | Event::CallFailed(STALE)
                | Event::Unlaunchable(STALE)
        );
        if stale {
            assert_eq!((walked.before, 0), (walked.after, walked.actions.len()));
        }
    });
}

#[test]
fn stop_always_leads_to_stopped() {
    explore(|walked| {
        let (mut m, mut w) = (walked.after, walked.world);
        let mut script = VecDeque::from([Event::Stop]);
        for _ in 0..8 {
            let Some(event) = script.pop_front() else {
                break;
            };
            w.happened(&m, event);
            let at = m.deadline.unwrap_or_default();
            let (next, actions) = step(m, event, at, &walked.policy);
            for action in actions {
                w.done(action);
                match action {
                    Action::Terminate(g) => script.push_back(Event::Exited(g)),
                    Action::CloseGate => script.push_back(Event::Drained { idle_since: at }),
                    _ => {}
                }
            }
            m = next;
            if script.is_empty() && w.alive {
                script.push_back(Event::Exited(m.worker));
            }
        }
        assert_eq!(m.phase, Phase::Stopped, "from {:?}", walked.after);
        assert_eq!(w.lease, Lease::None);
    });
}

#[test]
fn stop_is_obeyed_at_once() {
    explore(|walked| {
        if walked.event == Event::Stop {
            let leaving = matches!(
                walked.after.phase,
                Phase::Stopped
                    | Phase::Draining { rest: Rest::Stop }
                    | Phase::Stopping {
                        next: Next::Rest,
                        ..
                    }
            );
            assert!(leaving && !walked.after.wanted, "{:?}", walked.after);
        }
    });
}

/// A machine in `Ready` at time zero.
fn ready(policy: &Policy) -> Machine {
    run(
        Machine::stopped(),
        &[
            Event::Demand,
            Event::Granted,
            Event::WorkerReady(Generation(1)),
        ],
        policy,
    )
}

/// The state after these events, all at time zero.
fn run(machine: Machine, events: &[Event], policy: &Policy) -> Machine {
    events.iter().fold(machine, |machine, event| {
        step(machine, *event, Duration::ZERO, policy).0
    })
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tick(idle_since: u64) -> Event {
    Event::Tick {
        idle_since: Some(secs(idle_since)),
    }
}

#[test]
fn idle_counts_from_the_last_request_and_not_before_its_time() {
    let m = ready(&POLICY);
    assert_eq!(m.deadline, Some(secs(10)));
    let close = Action::CloseGateIfIdle(Rest::Offload(OffloadTo::Cpu));
    assert_eq!(step(m, tick(0), secs(10), &POLICY).1, [close]);
    let (m, actions) = step(m, tick(3), secs(10), &POLICY);
    assert_eq!((actions.len(), m.deadline), (0, Some(secs(13))));
    assert_eq!(step(m, tick(3), secs(12), &POLICY).1, []);
    assert_eq!(step(m, tick(3), secs(13), &POLICY).1, [close]);
}

#[test]
fn a_request_inside_puts_idleness_off() {
    let busy = Event::Tick { idle_since: None };
    let (m, actions) = step(ready(&POLICY), busy, secs(10), &POLICY);
    assert_eq!((actions.len(), m.deadline), (0, Some(secs(20))));
}

#[test]
fn a_gate_that_was_not_idle_after_all_is_looked_at_again_soon() {
    let (m, actions) = step(ready(&POLICY), tick(0), secs(15), &POLICY);
    assert_eq!(actions.len(), 1);
    assert_eq!(m.deadline, Some(secs(16)));
}

#[test]
fn the_time_limit_counts_from_the_last_request_also_while_asleep() {
    let m = ready(&POLICY);
    let closed = Event::IdleClosed {
        rest: Rest::Offload(OffloadTo::Cpu),
        idle_since: secs(4),
    };
    let m = step(m, closed, secs(14), &POLICY).0;
    let m = step(m, Event::Slept(m.worker), secs(15), &POLICY).0;
    assert_eq!(m.deadline, Some(secs(24)), "20 s after the last request");
    let (m, actions) = step(m, tick(4), secs(24), &POLICY);
    assert_eq!(actions, [Action::Terminate(Generation(1))]);
    assert!(matches!(m.phase, Phase::Stopping { .. }));
}

#[test]
fn both_limits_due_at_once_stop_the_worker() {
    let actions = step(ready(&POLICY), tick(0), secs(20), &POLICY).1;
    assert_eq!(actions, [Action::CloseGateIfIdle(Rest::Stop)]);
}

#[test]
fn changed_idle_times_are_looked_at_at_once() {
    let shorter = Policy {
        offload_after: Some(secs(2)),
        ..POLICY
    };
    let m = step(ready(&POLICY), Event::IdleChanged, secs(3), &shorter).0;
    let actions = step(m, tick(0), secs(3), &shorter).1;
    assert_eq!(actions.len(), 1);

    let mut asleep = Machine::adopted_asleep(Generation(1), OffloadTo::Cpu, secs(0), &POLICY);
    assert_eq!(asleep.deadline, Some(secs(20)));
    let longer = Policy {
        stop_after: Some(secs(90)),
        ..POLICY
    };
    asleep = step(asleep, Event::IdleChanged, secs(3), &longer).0;
    assert_eq!(asleep.deadline, Some(secs(90)));
}

#[test]
fn a_level_that_failed_gives_way_to_the_next_rung() {
    let evicted = |m: Machine| {
        let draining = run(m, &[Event::Evict(Rest::Offload(OffloadTo::Cpu))], &POLICY).phase;
        let Phase::Draining { rest } = draining else {
            panic!("{draining:?}");
        };
        rest
    };
    let mut m = ready(&POLICY);
    for expected in [
        Rest::Offload(OffloadTo::Cpu),
        Rest::Offload(OffloadTo::Disk),
        Rest::Stop,
    ] {
        assert_eq!(evicted(m), expected);
        let worker = m.worker;
        m = run(
            m,
            &[
                Event::Evict(Rest::Offload(OffloadTo::Cpu)),
                Event::Drained {
                    idle_since: secs(0),
                },
                Event::CallFailed(worker),
                Event::Exited(worker),
                Event::Demand,
                Event::Granted,
                Event::WorkerReady(worker.next()),
            ],
            &POLICY,
        );
    }
    assert!(m.broken.cpu && m.broken.disk);
    assert_eq!(
        run(m, &[Event::SpecChanged], &POLICY).broken,
        Broken::default()
    );
}

#[test]
fn a_wake_that_overruns_breaks_its_level_and_starts_anew() {
    let asleep = Machine::adopted_asleep(Generation(1), OffloadTo::Disk, secs(0), &POLICY);
    let waking = run(asleep, &[Event::Demand, Event::Granted], &POLICY);
    let (m, actions) = step(waking, tick(0), secs(5), &POLICY);
    assert_eq!(actions, [Action::Terminate(Generation(1))]);
    assert!(m.broken.disk && m.wanted);
    let m = run(m, &[Event::Exited(Generation(1))], &POLICY);
    assert_eq!(m.phase, Phase::Placing { aim: Aim::Spawn });
}

#[test]
fn failures_back_off_twice_as_long_each_time_and_are_forgiven_after_service() {
    let crash = |m: Machine, at: Duration| step(m, Event::Exited(m.worker), at, &POLICY).0;
    let again = |m: Machine| {
        let at = m.deadline.unwrap_or_default();
        let m = step(m, Event::Start, at, &POLICY).0;
        let m = step(m, Event::Granted, at, &POLICY).0;
        step(m, Event::WorkerReady(m.worker), at, &POLICY).0
    };
    let m = crash(ready(&POLICY), secs(0));
    assert_eq!((m.failures, m.deadline), (1, Some(secs(1))));
    let mut second = again(m);
    second.failures = 1;
    let at = second.ready_since;
    let m = crash(second, at + secs(59));
    assert_eq!((m.failures, m.deadline), (2, Some(at + secs(61))));
    let m = crash(second, at + secs(60));
    assert_eq!(m.failures, 1, "it served long enough");
}

#[test]
fn what_cannot_be_launched_is_not_tried_again_unasked() {
    let starting = run(
        Machine::stopped(),
        &[Event::Demand, Event::Granted],
        &POLICY,
    );
    let (m, actions) = step(
        starting,
        Event::Unlaunchable(Generation(1)),
        secs(0),
        &POLICY,
    );
    assert_eq!((m.phase, m.deadline), (Phase::Failed, None));
    assert_eq!(actions, [Action::ReleaseLease, Action::RefuseWaiters]);
    let placing = run(Machine::stopped(), &[Event::Demand], &POLICY);
    let m = run(placing, &[Event::Refused], &POLICY);
    assert_eq!((m.phase, m.deadline), (Phase::Failed, None));
    assert_eq!(
        step(m, Event::Demand, secs(9), &POLICY).1,
        [Action::RefuseWaiters]
    );
    let m = run(m, &[Event::Start], &POLICY);
    assert_eq!(m.phase, Phase::Placing { aim: Aim::Spawn });
}

#[test]
fn one_that_starts_at_boot_comes_back_after_a_crash_without_a_request() {
    for restart_unasked in [false, true] {
        let policy = Policy {
            restart_unasked,
            ..POLICY
        };
        let m = run(ready(&policy), &[Event::Exited(Generation(1))], &policy);
        let m = step(m, tick(0), m.deadline.unwrap_or_default(), &policy).0;
        let placed = m.phase == Phase::Placing { aim: Aim::Spawn };
        assert_eq!(placed, restart_unasked, "{m:?}");
    }
}

#[test]
fn a_worker_that_ignores_the_end_is_killed_again_and_again() {
    let mut m = run(ready(&POLICY), &[Event::Stop], &POLICY);
    m = run(
        m,
        &[Event::Drained {
            idle_since: secs(0),
        }],
        &POLICY,
    );
    for round in 1..4 {
        let (next, actions) = step(m, tick(0), secs(5 * round), &POLICY);
        assert_eq!(actions, [Action::Kill(Generation(1))]);
        m = next;
    }
    assert_eq!(
        run(m, &[Event::Exited(Generation(1))], &POLICY).phase,
        Phase::Stopped
    );
}

#[test]
fn a_new_spec_is_placed_anew_with_its_own_needs() {
    let placing = run(Machine::stopped(), &[Event::Demand], &POLICY);
    let actions = step(placing, Event::SpecChanged, secs(0), &POLICY).1;
    assert_eq!(
        actions,
        [Action::CancelAcquire, Action::AcquireGpus(Aim::Spawn)]
    );
}

#[test]
fn an_operator_offloads_only_what_can_sleep() {
    let m = run(ready(&POLICY), &[Event::Offload], &POLICY);
    let rest = Rest::Offload(OffloadTo::Cpu);
    assert_eq!(m.phase, Phase::Draining { rest });
    let never = Policy {
        offload_to: None,
        ..POLICY
    };
    assert_eq!(run(ready(&never), &[Event::Offload], &never), ready(&never));
}
