//! Decisions and their reasons as words of closed sets: what metrics count by.
//!
//! Words for people, with figures, are told by [`super::story`].

use crate::lifecycle::decide::machine::{Aim, Event, Machine, Phase};
use crate::lifecycle::decide::why::Why;
use crate::lifecycle::tell::events::MarkKind;

/// Decision about a deployment; `None` where something merely ended as
/// it had been decided before.
pub(in crate::lifecycle) fn decision(
    event: Event,
    before: &Machine,
    after: &Machine,
) -> Option<&'static str> {
    // What follows a fetch was decided when that began.
    if before.phase == after.phase || event == Event::Fetched {
        return None;
    }
    Some(match (event, after.phase) {
        (Event::Spared, _) => "spare",
        (Event::Withdrawn, _) => "withdraw",
        (Event::Refused, _) => "refuse",
        (_, Phase::Fetching | Phase::Placing { aim: Aim::Spawn }) => "start",
        (
            _,
            Phase::Placing {
                aim: Aim::Wake { .. },
            },
        ) => "wake",
        (_, Phase::Starting | Phase::Waking { .. }) => "grant",
        (_, Phase::Draining { .. }) => "drain",
        (_, Phase::Offloading { .. }) => "offload",
        (_, Phase::Stopping { killed: true, .. }) => "kill",
        (_, Phase::Stopping { .. }) => "stop",
        (_, Phase::Failed) => "fail",
        (_, Phase::Ready | Phase::Offloaded { .. } | Phase::Stopped) => return None,
    })
}

/// Kind of the mark that a change of phase makes in plots; `None` where it makes none. What
/// follows from it, as that it is ready, makes none.
pub(in crate::lifecycle) fn mark(
    event: Event,
    before: &Machine,
    after: &Machine,
    why: Option<&Why>,
) -> Option<MarkKind> {
    let was_ending = matches!(before.phase, Phase::Stopping { .. });
    if matches!(event, Event::Exited(_)) && after.phase == Phase::Stopped && !was_ending {
        return Some(MarkKind::Failure);
    }
    match (decision(event, before, after)?, event) {
        ("start", _) => Some(MarkKind::Start),
        ("wake", _) => Some(MarkKind::Wake),
        ("fail" | "kill", _) => Some(MarkKind::Failure),
        _ if after.phase == Phase::Failed => Some(MarkKind::Failure),
        (_, Event::CallFailed(_)) => Some(MarkKind::Failure),
        // It took too long; after a start that did, it fails once its worker has ended.
        ("stop", Event::Tick { .. })
            if matches!(
                before.phase,
                Phase::Waking { .. } | Phase::Offloading { .. }
            ) =>
        {
            Some(MarkKind::Failure)
        }
        (_, Event::Evict(_)) if matches!(why, None | Some(Why::Needed { .. })) => {
            Some(MarkKind::Eviction)
        }
        (_, Event::SpecChanged) => Some(MarkKind::Edit),
        (_, Event::Stop) if why == Some(&Why::Removed) => Some(MarkKind::Edit),
        _ => None,
    }
}

/// The label of a cause, where `why` is what is known of it.
pub(in crate::lifecycle) fn label(
    event: Event,
    before: &Machine,
    why: Option<&Why>,
) -> &'static str {
    match event {
        Event::Slept(_) | Event::Evict(_) if why == Some(&Why::Operator) => "operator",
        Event::Evict(_) if why == Some(&Why::Client) => "client",
        Event::Demand if matches!(why, Some(Why::Foreseen { .. })) => "foreseen",
        Event::Demand | Event::Slept(_) => "demand",
        Event::Start | Event::Stop | Event::Offload => match why {
            Some(Why::Boot) => "boot",
            Some(Why::Removed) => "removed",
            Some(Why::Shutdown) => "shutdown",
            Some(Why::Operator) => "operator",
            _ => "load",
        },
        Event::Permit => "operator",
        Event::SpecChanged | Event::IdleChanged | Event::Upgraded => "options",
        Event::Evict(_) => "evicted",
        Event::Spared => "spared",
        Event::Withdrawn => "nobody_waits",
        Event::Fetched => "fetched",
        Event::FetchFailed | Event::Unfetchable => "fetch_failed",
        Event::Granted => "room",
        Event::Refused => "no_fit",
        Event::IdleClosed { .. } => "idle",
        Event::Drained { .. } => "drained",
        Event::WorkerReady(_) => "ready",
        Event::Tick { .. } => match before.phase {
            Phase::Offloaded { .. } | Phase::Ready => "idle",
            Phase::Failed => "backoff",
            _ => "timeout",
        },
        Event::Stuck(_) => "stuck",
        Event::Exited(_) => "exited",
        Event::Unlaunchable(_) => "unlaunchable",
        Event::Unwritten(_) => "unwritten",
        Event::Writable(_) => "writable",
        Event::CallFailed(_) => "call_failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OffloadTo;
    use crate::lifecycle::decide::machine::{Next, Rest};
    use crate::names::Generation;

    const SPAWN: Phase = Phase::Placing { aim: Aim::Spawn };
    const ASLEEP: Phase = Phase::Offloaded { at: OffloadTo::Cpu };
    const FIRST: Generation = Generation(1);
    const TICK: Event = Event::Tick { idle_since: None };

    fn word(before: Phase, event: Event, after: Phase, why: Option<&Why>) -> Option<&'static str> {
        let of = |phase| Machine {
            phase,
            ..Machine::stopped()
        };
        let kind = mark(event, &of(before), &of(after), why)?;
        Some(kind.as_str())
    }

    fn stopping(next: Next, killed: bool) -> Phase {
        Phase::Stopping { next, killed }
    }

    #[test]
    fn a_start_and_a_wake_are_marked_when_they_begin_and_not_when_they_are_done() {
        let from = OffloadTo::Cpu;
        let wake = Phase::Placing {
            aim: Aim::Wake { from },
        };
        for (before, event, after, expected) in [
            (Phase::Stopped, Event::Demand, SPAWN, Some("start")),
            (Phase::Stopped, Event::Start, Phase::Fetching, Some("start")),
            (Phase::Fetching, Event::Fetched, SPAWN, None),
            (SPAWN, Event::Granted, Phase::Starting, None),
            (
                Phase::Starting,
                Event::WorkerReady(FIRST),
                Phase::Ready,
                None,
            ),
            (ASLEEP, Event::Demand, wake, Some("wake")),
            (wake, Event::Granted, Phase::Waking { from }, None),
        ] {
            let seen = word(before, event, after, None);
            assert_eq!(seen, expected, "{before:?} {event:?}");
        }
    }

    #[test]
    fn who_leaves_for_another_or_for_its_file_is_marked_and_who_is_told_to_is_not() {
        let evict = Event::Evict(Rest::Stop);
        for (event, why, expected) in [
            (evict, None, Some("eviction")),
            (evict, Some(Why::Operator), None),
            (Event::Stop, Some(Why::Removed), Some("edit")),
            (Event::Stop, Some(Why::Operator), None),
            (Event::SpecChanged, None, Some("edit")),
        ] {
            let after = Phase::Draining { rest: Rest::Stop };
            let seen = word(Phase::Ready, event, after, why.as_ref());
            assert_eq!(seen, expected, "{event:?}");
        }
    }

    #[test]
    fn what_broke_is_marked_and_a_worker_that_ends_as_told_is_not() {
        let (exited, rest) = (Event::Exited(FIRST), stopping(Next::Rest, false));
        let (retry, again) = (stopping(Next::Retry, false), stopping(Next::Restart, false));
        let waking = Phase::Waking {
            from: OffloadTo::Cpu,
        };
        for (before, event, after, is_marked) in [
            (Phase::Ready, exited, Phase::Failed, true),
            (SPAWN, Event::Refused, Phase::Failed, true),
            (Phase::Starting, TICK, retry, false),
            (waking, TICK, again, true),
            (waking, Event::CallFailed(FIRST), again, true),
            (rest, TICK, stopping(Next::Rest, true), true),
            (rest, exited, Phase::Stopped, false),
            (ASLEEP, exited, Phase::Stopped, true),
            (ASLEEP, TICK, rest, false),
        ] {
            let seen = word(before, event, after, None);
            let expected = is_marked.then_some("failure");
            assert_eq!(seen, expected, "{before:?} {event:?}");
        }
    }
}
