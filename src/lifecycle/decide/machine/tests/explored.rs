//! Invariants of every reachable state, after every event. No sampling.

use std::collections::VecDeque;

use super::world::{Lease, STALE, explore};
use super::*;

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
        let stale = walked.event.generation() == Some(STALE);
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
