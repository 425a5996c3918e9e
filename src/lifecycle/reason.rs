//! Decisions and their reasons as words of closed sets: what metrics count by.
//!
//! What a person reads, with figures, is told by [`super::story`].

use super::machine::{Aim, Event, Machine, Phase};

/// Said of a start with the gateway.
pub(super) const AT_BOOT: &str = "starts with the gateway";
/// Said, with more, of a wake that nobody asked for yet.
pub(super) const FORESEEN: &str = "a request is expected";
/// Said of what an operator asked.
pub(super) const BY_OPERATOR: &str = "asked by an operator";
/// Said of a deployment that is no longer in any file.
pub(super) const REMOVED: &str = "removed from the configuration";
/// Said of a stop with the gateway.
pub(super) const AT_SHUTDOWN: &str = "tidegate is shutting down";

/// What was decided about a deployment; `None` where something merely ended as
/// it had been decided before.
pub(super) fn decision(event: Event, before: &Machine, after: &Machine) -> Option<&'static str> {
    if before.phase == after.phase {
        return None;
    }
    Some(match (event, after.phase) {
        (Event::Spared, _) => "spare",
        (Event::Withdrawn, _) => "withdraw",
        (Event::Refused, _) => "refuse",
        (_, Phase::Placing { aim: Aim::Spawn }) => "start",
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

/// Why, for an event that was said to come for this reason.
pub(super) fn label(event: Event, before: &Machine, why: Option<&str>) -> &'static str {
    match event {
        Event::Slept(_) | Event::Evict(_) if why == Some(BY_OPERATOR) => "operator",
        Event::Demand if why.is_some_and(|why| why.starts_with(FORESEEN)) => "foreseen",
        Event::Demand | Event::Slept(_) => "demand",
        Event::Start | Event::Stop | Event::Offload => match why {
            Some(AT_BOOT) => "boot",
            Some(REMOVED) => "removed",
            Some(AT_SHUTDOWN) => "shutdown",
            Some(BY_OPERATOR) => "operator",
            _ => "load",
        },
        Event::Permit => "operator",
        Event::SpecChanged | Event::IdleChanged => "options",
        Event::Evict(_) => "evicted",
        Event::Spared => "spared",
        Event::Withdrawn => "nobody_waits",
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
