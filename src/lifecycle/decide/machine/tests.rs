//! A machine by itself: no clock, no process.
//!
//! `explored` walks every event in every reachable state, against the model of the
//! outside world in `world`; `idle` and `failures` follow single stories; `histories`
//! plays random ones of several machines that share GPUs.

mod explored;
mod failures;
mod histories;
mod idle;
mod world;

use super::*;
use crate::config::Levels;

const POLICY: Policy = Policy {
    offload_after: Some(Duration::from_secs(10)),
    offload_to: Some(OffloadTo::Cpu),
    levels: Levels::BOTH,
    stop_after: Some(Duration::from_secs(20)),
    fetch_first: false,
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

/// Policies of a deployment, one of each kind.
const POLICIES: [Policy; 5] = [
    POLICY,
    Policy {
        offload_to: Some(OffloadTo::Disk),
        levels: Levels::DISK,
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
    Policy {
        fetch_first: true,
        ..POLICY
    },
];

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
