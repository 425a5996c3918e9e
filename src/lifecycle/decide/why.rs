//! Cause of what happens to a deployment, as data.
//!
//! Words for people and labels of metrics are made of it by [`super::super::tell`].

use super::placement::Eviction;
use crate::names::DeploymentId;

/// Cause of an event, as far as it is known beside the event itself.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::lifecycle) enum Why {
    /// It starts with the gateway.
    Boot,
    /// An operator asked.
    Operator,
    /// A client asked that may.
    Client,
    /// It stands in no file any more.
    Removed,
    /// The gateway ends, and its workers with it.
    Shutdown,
    /// The client that asked `after` is likely to ask this one next.
    Foreseen {
        after: DeploymentId,
        /// From 0 to 1.
        chance: f64,
    },
    /// Another deployment needs its memory.
    Needed {
        claimant: DeploymentId,
        eviction: Eviction,
    },
    /// The load on its replicas, in figures.
    Load(String),
    /// It starts with the gateway, but others hold the memory.
    NoRoomAtBoot,
    /// It can never fit, and what it lacks.
    NeverFits(String),
    /// A worker ended, or was not launched.
    Ended {
        /// The end, in a few words.
        how: String,
        /// Words of its log or the machine about it.
        details: Option<String>,
    },
    /// Fault of a worker, or of this machine.
    Fault(String),
}
