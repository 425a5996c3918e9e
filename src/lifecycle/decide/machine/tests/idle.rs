//! Moments when idleness is noticed, and what it leads to.

use super::*;

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
