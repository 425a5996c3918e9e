//! Decisions and their reasons as words of closed sets: what metrics count by.
//!
//! Words for people, with figures, are told by [`super::story`].

use crate::lifecycle::decide::machine::{Aim, Event, Machine, Phase};
use crate::lifecycle::decide::why::Why;

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
        Event::SpecChanged | Event::IdleChanged => "options",
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
