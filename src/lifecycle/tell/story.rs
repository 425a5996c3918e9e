//! Events in words with figures; and the meaning of a command as things stand.

use std::time::Duration;

use crate::config::{OffloadTo, Replicas};
use crate::deployment::{Part, Telling};
use crate::lifecycle::control::Command;
use crate::lifecycle::decide::machine::{Aim, Broken, Event, Machine, Phase, Rest};
use crate::lifecycle::decide::placement::{Eviction, Obstacle};
use crate::lifecycle::decide::why::Why;
use crate::names::DeploymentId;
use crate::time::Uptime;
use crate::units::{Span, counted};

/// One replica, as far as stories tell of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::lifecycle) struct Subject<'a> {
    pub(in crate::lifecycle) id: &'a DeploymentId,
    /// As it stands now.
    pub(in crate::lifecycle) machine: &'a Machine,
    /// Its number, and how many there are.
    pub(in crate::lifecycle) replicas: Replicas,
    /// True if its file lets it leave GPU memory and keep its worker.
    pub(in crate::lifecycle) offloads: bool,
    pub(in crate::lifecycle) gpus: &'a [u32],
    /// Time when its phase began.
    pub(in crate::lifecycle) entered: Uptime,
    /// Requests at its worker.
    pub(in crate::lifecycle) in_flight: u32,
}

/// The event of a command, or why it can't be obeyed now.
pub(in crate::lifecycle) fn event_of(
    command: Command,
    subject: &Subject<'_>,
) -> Result<Event, String> {
    let (id, phase) = (subject.id, subject.machine.phase);
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
            _ => Err(format!("{id} is {} now", phase_name(phase))),
        },
        Command::Unload if subject.replicas.number <= subject.replicas.min => Err(format!(
            "{id} is kept up by its file (replicas = {{ min = {} }}): lower that, or stop it instead",
            subject.replicas.min
        )),
        Command::Unload => match phase {
            Phase::Stopped
            | Phase::Fetching
            | Phase::Failed
            | Phase::Placing { aim: Aim::Spawn } => Err(format!("{id} has no worker to unload")),
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
        Command::Replace => Err(format!("{id} has no worker that waits to be replaced")),
        Command::Offload if !subject.offloads => Err(format!(
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
                phase_name(phase)
            )),
        },
    }
}

/// Tells a transition; `None` where there is none, or none worth telling.
pub(in crate::lifecycle) fn of(
    subject: &Subject<'_>,
    before: &Machine,
    event: Event,
    why: Option<&Why>,
    now: Uptime,
) -> Option<Telling> {
    let after = subject.machine;
    if before.phase == after.phase {
        return None;
    }
    let cause = || cause(event, before, after).unwrap_or("").into();
    let brief = || why.map_or_else(cause, brief);
    let why = why.map_or_else(cause, said);
    let took = span(now.saturating_sub(subject.entered));
    Some(match after.phase {
        // It was here already: nobody waited for that.
        Phase::Placing { .. } if event == Event::Fetched && !fetched_for_long(subject, now) => {
            return None;
        }
        Phase::Placing { .. } if event == Event::Fetched => {
            format!("its model is here after {took}: asks for GPU memory").into()
        }
        Phase::Fetching | Phase::Placing { aim: Aim::Spawn }
            if matches!(before.phase, Phase::Stopping { .. }) =>
        {
            brief().after("starting again: its last worker ")
        }
        Phase::Fetching | Phase::Placing { aim: Aim::Spawn } => why.after("starting: "),
        Phase::Placing {
            aim: Aim::Wake { .. },
        } => why.after("waking: "),
        Phase::Starting => match subject.gpus {
            [] => format!("launching worker {}", after.worker).into(),
            gpus => format!("launching worker {} on {}", after.worker, gpu_list(gpus)).into(),
        },
        Phase::Waking { from } => format!("wakes from {}", rung(from)).into(),
        Phase::Ready => format!("ready after {took}").into(),
        Phase::Draining { .. } => match subject.in_flight {
            0 => why.after("leaving: "),
            n => why.after(format!("draining {}: ", counted(n, "request"))),
        },
        Phase::Offloading { to } => why.after(format!("offloading to {}: ", rung(to))),
        Phase::Offloaded { at } if matches!(before.phase, Phase::Offloading { .. }) => {
            format!("offloaded to {} in {took}", rung(at)).into()
        }
        Phase::Offloaded { at } => why.after(format!("stays offloaded to {}: ", rung(at))),
        Phase::Stopping { killed: true, .. } => format!("killed: did not end within {took}").into(),
        Phase::Stopping { .. } => why.after("stopping: "),
        Phase::Stopped if matches!(before.phase, Phase::Stopping { .. }) => {
            brief().after("stopped: ")
        }
        Phase::Stopped => why.after("stopped: "),
        Phase::Failed => failure(after, &why, now),
    })
}

/// True where a fetch took longer than a look whether the model is here.
fn fetched_for_long(subject: &Subject<'_>, now: Uptime) -> bool {
    now.saturating_sub(subject.entered) >= Duration::from_secs(1)
}

/// A cause in words with figures.
fn said(why: &Why) -> Telling {
    match why {
        Why::Boot => "starts with the gateway".into(),
        Why::Operator => "asked by an operator".into(),
        Why::Client => "asked by a client".into(),
        Why::Removed => "removed from the configuration".into(),
        Why::Shutdown => "tidegate is shutting down".into(),
        Why::Foreseen { after, chance } => Telling::from_iter([
            "a request is expected: who asked ".into(),
            after.into(),
            format!(" is likely to ask it next ({:.0} %)", chance * 100.0).into(),
        ]),
        Why::Needed { claimant, eviction } => evicted(eviction, claimant),
        Why::NoRoomAtBoot => {
            "others hold the memory, and nobody asks for it yet: it starts with its first request"
                .into()
        }
        Why::Load(words) | Why::NeverFits(words) | Why::Fault(words) => words.as_str().into(),
        Why::Ended { how, details } => match details {
            Some(details) => format!("{how}: {details}").into(),
            None => how.as_str().into(),
        },
    }
}

/// A cause without what the log of a worker says: it was told to end, and its last
/// lines would only alarm.
fn brief(why: &Why) -> Telling {
    match why {
        Why::Ended { how, .. } => how.as_str().into(),
        why => said(why),
    }
}

fn failure(machine: &Machine, why: &Telling, now: Uptime) -> Telling {
    match machine.deadline {
        Some(due) => {
            let wait = span(due.saturating_sub(now));
            if machine.unwritten > 0 {
                let again = format!("; tried again in {wait}");
                return why.after("not started: ").then(again);
            }
            why.after(format!("failed, and is tried again in {wait}: "))
        }
        None => why.after("failed, and is not tried again until started or changed: "),
    }
}

/// Reason why it failed or was stopped, after a change of phase; `known` is what was said
/// of it before.
pub(in crate::lifecycle) fn reason(
    after: &Machine,
    before: &Machine,
    known: Option<Telling>,
    why: Option<&Why>,
    now: Uptime,
) -> Option<Telling> {
    match after.phase {
        Phase::Ready => None,
        Phase::Fetching | Phase::Placing { .. } if before.unwritten > 0 => None,
        Phase::Failed if after.unwritten > 0 => {
            // While it is tried again, what was said of the last try stands.
            let (Some(why), Some(due)) = (why, after.deadline) else {
                return known;
            };
            let wait = span(due.saturating_sub(now));
            Some(said(why).then(format!("; tried again in {wait}")))
        }
        Phase::Failed => {
            // What came before the exit tells more than that it exited.
            let known = known.filter(|_| matches!(before.phase, Phase::Stopping { .. }));
            known.or_else(|| why.map(said))
        }
        Phase::Stopping { .. } => {
            let overran = match before.phase {
                Phase::Starting => Some("the start took longer than workers.start_timeout"),
                Phase::Waking { .. } => Some("the wake took longer than workers.call_timeout"),
                Phase::Offloading { .. } => Some("the sleep took longer than workers.call_timeout"),
                _ => None,
            };
            why.map(said).or_else(|| overran.map(Telling::from))
        }
        _ => known,
    }
}

/// Words for the rungs that are not used any more, and why the last of them failed.
pub(in crate::lifecycle) fn rung_failed(broken: Broken, why: Option<&Why>) -> Option<Telling> {
    let rungs = match broken {
        Broken {
            cpu: true,
            disk: true,
        } => "in host memory or without them",
        Broken { cpu: true, .. } => "in host memory",
        Broken { disk: true, .. } => "without them",
        Broken { .. } => return None,
    };
    let why = why.map_or_else(
        || Telling::from("it took longer than workers.call_timeout"),
        said,
    );
    let again =
        "; tried again once its file changes, its engine is upgraded or it is started by hand";
    Some(
        why.after(format!(
            "not put to sleep with its weights {rungs} any more: "
        ))
        .then(again),
    )
}

/// The phase as one word.
pub(in crate::lifecycle) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Stopped => "stopped",
        Phase::Fetching => "fetching",
        Phase::Placing { .. } => "placing",
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Draining { .. } => "draining",
        Phase::Offloading { .. } => "offloading",
        Phase::Offloaded { .. } => "offloaded",
        Phase::Waking { .. } => "waking",
        Phase::Stopping { .. } => "stopping",
        Phase::Failed => "failed",
    }
}

/// Meaning of an event where nothing else was said.
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
        Event::FetchFailed | Event::Unfetchable => "its model could not be fetched",
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

/// Reason why one deployment leaves for another, with the figures of the choice.
fn evicted(eviction: &Eviction, claimant: &DeploymentId) -> Telling {
    let waits = match eviction.held {
        0 => "asked for".to_owned(),
        1 => format!("a request waits, for {}", seconds(eviction.head_wait)),
        n => format!(
            "{n} requests wait, the first for {}",
            seconds(eviction.head_wait)
        ),
    };
    let overdue = if eviction.overdue { ", overdue" } else { "" };
    let figures = format!(" ({waits}{overdue}); {}", leaves(eviction));
    Telling::from_iter(["needed by ".into(), claimant.into(), figures.into()])
}

/// State of a victim that leaves, and costs of its leaving.
pub(in crate::lifecycle) fn leaves(eviction: &Eviction) -> String {
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

/// Words for the way in which a worker leaves.
pub(in crate::lifecycle) fn way(rest: Rest) -> &'static str {
    match rest {
        Rest::Offload(OffloadTo::Cpu) => "offloads to cpu",
        Rest::Offload(OffloadTo::Disk) => "offloads to disk",
        Rest::Stop | Rest::Restart => "stops",
    }
}

/// Words for what a claim waits for; `leaving` are those that leave for it.
pub(in crate::lifecycle) fn waits(obstacle: Obstacle, leaving: &[&DeploymentId]) -> Telling {
    let Some((last, first)) = leaving.split_last() else {
        return format!("waits: {}", obstacle.words()).into();
    };
    let first = first.iter().flat_map(|id| [Part::from(*id), ", ".into()]);
    let names = first.chain([Part::from(*last)]).collect::<Telling>();
    names.after("waits until ").then(" made room for it")
}

/// Seconds as a person reads them.
pub(in crate::lifecycle) fn seconds(seconds: f64) -> Span {
    span(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
}

pub(in crate::lifecycle) fn rung(level: OffloadTo) -> &'static str {
    match level {
        OffloadTo::Cpu => "cpu",
        OffloadTo::Disk => "disk",
    }
}

/// GPUs by their numbers, as `GPU 0` or `GPUs 0, 1`.
pub(in crate::lifecycle) fn gpu_list(gpus: &[u32]) -> String {
    let numbers: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    let plural = if gpus.len() == 1 { "" } else { "s" };
    format!("GPU{plural} {}", numbers.join(", "))
}

/// Rounded to what a person reads: milliseconds only below ten seconds.
pub(in crate::lifecycle) fn span(duration: Duration) -> Span {
    let round = if duration < Duration::from_secs(10) {
        1
    } else {
        1_000
    };
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Span(Duration::from_millis(millis / round * round))
}
