//! Failures, what is tried next, and when nothing is any more.

use super::*;

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
    for event in [Event::SpecChanged, Event::Upgraded] {
        assert_eq!(run(m, &[event], &POLICY).broken, Broken::default());
    }
    let upgraded = run(m, &[Event::Upgraded], &POLICY);
    assert_eq!(upgraded.phase, m.phase, "it serves on");
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
fn what_cannot_be_written_down_is_no_failure_and_is_tried_until_it_can() {
    let mut m = run(
        Machine::stopped(),
        &[Event::Demand, Event::Granted],
        &POLICY,
    );
    let mut actions;
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        let at = m.deadline.unwrap_or_default();
        (m, actions) = step(m, Event::Unwritten(Generation(1)), at, &POLICY);
        assert!(actions.contains(&Action::RefuseWaiters));
        assert_eq!((m.phase, m.failures, m.wanted), (Phase::Failed, 0, true));
        assert_eq!(m.deadline, Some(at + secs(pause)));
        (m, actions) = step(m, tick(0), at + secs(pause), &POLICY);
        assert_eq!(actions, [Action::TryState(Generation(1))], "holds no GPUs");
    }
    let placing = run(m, &[Event::Writable(Generation(1))], &POLICY);
    assert_eq!(placing.phase, Phase::Placing { aim: Aim::Spawn });
    let up = [Event::Granted, Event::WorkerReady(Generation(2))];
    assert_eq!(run(placing, &up, &POLICY).unwritten, 0);
    assert_eq!(run(m, &[Event::Stop], &POLICY).phase, Phase::Stopped);
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
