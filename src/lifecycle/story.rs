//! What happened, in words with figures; and what a command means as it stands.

use std::sync::Arc;
use std::time::Duration;

use super::Command;
use super::machine::{Aim, Event, Machine, Phase, Rest};
use super::member::Member;
use super::placement::{Eviction, Obstacle};
use crate::config::OffloadTo;
use crate::names::DeploymentId;
use crate::time::Uptime;
use crate::units::{Span, counted};

/// The event of a command, or why it can't be obeyed now.
pub(super) fn event_of(command: Command, member: &Member) -> Result<Event, String> {
    let (id, phase) = (&member.handle.id, member.machine.phase);
    let is_up = matches!(phase, Phase::Ready);
    match command {
        Command::Stop => Ok(Event::Stop),
        Command::Start => Ok(Event::Start),
        Command::Wake => match phase {
            Phase::Offloaded { .. }
            | Phase::Offloading { .. }
            | Phase::Draining {
                rest: Rest::Offload(_),
            } => Ok(Event::Start),
            Phase::Stopped | Phase::Failed => {
                Err(format!("{id} has no worker to wake: start it instead"))
            }
            _ if is_up => Err(format!("{id} is awake")),
            _ => Err(format!("{id} is {} now", super::member::phase_name(phase))),
        },
        Command::Unload if member.number() <= member.spec.replicas.min => Err(format!(
            "{id} is kept up by its file (replicas = {{ min = {} }}): lower that, or stop it instead",
            member.spec.replicas.min
        )),
        Command::Unload => match phase {
            Phase::Stopped | Phase::Failed | Phase::Placing { aim: Aim::Spawn } => {
                Err(format!("{id} has no worker to unload"))
            }
            Phase::Stopping { .. } | Phase::Draining { rest: Rest::Stop } => {
                Err(format!("{id} is ending already"))
            }
            Phase::Draining {
                rest: Rest::Restart,
            } => Err(format!(
                "{id} is being replaced: try again once it is ready"
            )),
            _ => Ok(Event::Evict(Rest::Stop)),
        },
        Command::Offload if member.policy.offload_to.is_none() => Err(format!(
            "{id} can't be offloaded: set automatic_cpu_offloading or disk_swapping in its \
             instance's options, or levels = [\"cpu\", \"disk\"] in [instance.idle]"
        )),
        Command::Offload => match phase {
            _ if is_up => Ok(Event::Offload),
            Phase::Offloaded { .. } | Phase::Offloading { .. } => {
                Err(format!("{id} is offloaded already"))
            }
            Phase::Stopped | Phase::Failed => Err(format!("{id} has no worker to offload")),
            _ => Err(format!(
                "{id} is {} now: try again once it is ready",
                super::member::phase_name(phase)
            )),
        },
    }
}

/// Tells a transition; `None` where there is none, or none worth telling.
pub(super) fn of(
    member: &Member,
    before: &Machine,
    event: Event,
    why: Option<&str>,
    now: Uptime,
) -> Option<String> {
    let after = &member.machine;
    if before.phase == after.phase {
        return None;
    }
    let why = why.or_else(|| cause(event, before, after)).unwrap_or("");
    let took = span(now.saturating_sub(member.entered));
    let text = match after.phase {
        Phase::Placing { aim: Aim::Spawn } if matches!(before.phase, Phase::Stopping { .. }) => {
            format!("starting again: its last worker {}", head(why))
        }
        Phase::Placing { aim: Aim::Spawn } => format!("starting: {why}"),
        Phase::Placing {
            aim: Aim::Wake { .. },
        } => format!("waking: {why}"),
        Phase::Starting => match member.gpus.as_ref() {
            [] => format!("launching worker {}", after.worker),
            gpus => format!("launching worker {} on {}", after.worker, gpu_list(gpus)),
        },
        Phase::Waking { from } => format!("wakes from {}", rung(from)),
        Phase::Ready => format!("ready after {took}"),
        Phase::Draining { .. } => match member.gate().in_flight() {
            0 => format!("leaving: {why}"),
            n => format!("draining {}: {why}", counted(n, "request")),
        },
        Phase::Offloading { to } => format!("offloading to {}: {why}", rung(to)),
        Phase::Offloaded { at } if matches!(before.phase, Phase::Offloading { .. }) => {
            format!("offloaded to {} in {took}", rung(at))
        }
        Phase::Offloaded { at } => format!("stays offloaded to {}: {why}", rung(at)),
        Phase::Stopping { killed: true, .. } => format!("killed: did not end within {took}"),
        Phase::Stopping { .. } => format!("stopping: {why}"),
        Phase::Stopped if matches!(before.phase, Phase::Stopping { .. }) => {
            format!("stopped: {}", head(why))
        }
        Phase::Stopped => format!("stopped: {why}"),
        Phase::Failed => failure(member, why, now),
    };
    Some(text)
}

/// How a worker ended, without what its log says: it was told to end, and its last
/// lines would only alarm.
fn head(why: &str) -> &str {
    why.split_once(": ").map_or(why, |(how, _)| how)
}

fn failure(member: &Member, why: &str, now: Uptime) -> String {
    match member.machine.deadline {
        Some(due) => {
            let wait = span(due.saturating_sub(now));
            if member.machine.unwritten > 0 {
                return format!("not started: {why}; tried again in {wait}");
            }
            format!("failed, and is tried again in {wait}: {why}")
        }
        None => format!("failed, and is not tried again until started or changed: {why}"),
    }
}

/// Keeps or forgets why it failed.
pub(super) fn set_reason(member: &mut Member, before: &Machine, why: Option<&str>, now: Uptime) {
    match member.machine.phase {
        Phase::Ready => member.reason = None,
        Phase::Placing { .. } if before.unwritten > 0 => member.reason = None,
        Phase::Failed if member.machine.unwritten > 0 => {
            // While it is tried again, what was said of the last try stands.
            if let (Some(why), Some(due)) = (why, member.machine.deadline) {
                let wait = span(due.saturating_sub(now));
                member.reason = Some(format!("{why}; tried again in {wait}").into());
            }
        }
        Phase::Failed => {
            // What came before the exit tells more than that it exited.
            let known = matches!(before.phase, Phase::Stopping { .. })
                .then(|| member.reason.clone())
                .flatten();
            member.reason = known.or_else(|| why.map(Arc::from));
        }
        Phase::Stopping { .. } => {
            let overran = match before.phase {
                Phase::Starting => Some("the start took longer than workers.start_timeout"),
                Phase::Waking { .. } => Some("the wake took longer than workers.call_timeout"),
                Phase::Offloading { .. } => Some("the sleep took longer than workers.call_timeout"),
                _ => None,
            };
            member.reason = why.or(overran).map(Arc::from);
        }
        _ => {}
    }
}

/// What an event means where nothing else was said.
fn cause(event: Event, before: &Machine, after: &Machine) -> Option<&'static str> {
    Some(match event {
        Event::Demand | Event::Slept(_) => "a request waits",
        Event::Start => "asked to start",
        Event::Stop => "asked to stop",
        Event::Offload => "asked to offload",
        Event::SpecChanged => "its options changed",
        Event::Evict(_) => "its GPU memory is needed",
        Event::Spared => "whom it was to leave for has gone",
        Event::Withdrawn => Obstacle::Unwanted.words(),
        Event::Refused => "it does not fit",
        Event::IdleClosed { .. } => "idle",
        Event::Drained { .. } => "no request is inside any more",
        Event::Writable(_) => "its record can be written again",
        Event::Exited(_) if after.wanted => "its worker ended, and a request waits",
        Event::Exited(_) => "its worker ended",
        Event::Tick { .. } => match before.phase {
            Phase::Offloaded { .. } => "idle for its time limit",
            Phase::Failed => "its pause is over",
            _ => "it took too long",
        },
        _ => return None,
    })
}

/// Why one leaves for another, with the figures of the choice.
pub(super) fn evicted(eviction: &Eviction, claimant: &DeploymentId) -> String {
    let waits = match eviction.held {
        0 => "asked for".to_owned(),
        1 => format!("a request waits, for {}", seconds(eviction.head_wait)),
        n => format!(
            "{n} requests wait, the first for {}",
            seconds(eviction.head_wait)
        ),
    };
    let overdue = if eviction.overdue { ", overdue" } else { "" };
    format!(
        "needed by {claimant} ({waits}{overdue}); {}",
        leaves(eviction)
    )
}

/// What one is in the middle of who leaves, and what that costs.
pub(super) fn leaves(eviction: &Eviction) -> String {
    let state = match eviction.idle {
        Some(idle) => format!("idle {}", seconds(idle)),
        None => format!("{} inside end first", eviction.running),
    };
    format!(
        "{state}, coming back costs {}, expected harm {}",
        seconds(eviction.back),
        seconds(eviction.harm)
    )
}

/// How one leaves.
pub(super) fn way(rest: Rest) -> &'static str {
    match rest {
        Rest::Offload(OffloadTo::Cpu) => "offloads to cpu",
        Rest::Offload(OffloadTo::Disk) => "offloads to disk",
        Rest::Stop | Rest::Restart => "stops",
    }
}

/// What a claim waits for; `leaving` are those who leave for it.
pub(super) fn waits(obstacle: Obstacle, leaving: &[&DeploymentId]) -> String {
    if leaving.is_empty() {
        return format!("waits: {}", obstacle.words());
    }
    let names: Vec<&str> = leaving.iter().map(|id| id.as_str()).collect();
    format!("waits until {} made room for it", names.join(", "))
}

/// Seconds as a person reads them.
pub(super) fn seconds(seconds: f64) -> Span {
    span(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
}

pub(super) fn rung(level: OffloadTo) -> &'static str {
    match level {
        OffloadTo::Cpu => "cpu",
        OffloadTo::Disk => "disk",
    }
}

/// GPUs by their numbers, as `GPU 0` or `GPUs 0, 1`.
pub(super) fn gpu_list(gpus: &[u32]) -> String {
    let numbers: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    let plural = if gpus.len() == 1 { "" } else { "s" };
    format!("GPU{plural} {}", numbers.join(", "))
}

/// Rounded to what a person reads: milliseconds only below ten seconds.
pub(super) fn span(duration: Duration) -> Span {
    let round = if duration < Duration::from_secs(10) {
        1
    } else {
        1_000
    };
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Span(Duration::from_millis(millis / round * round))
}
