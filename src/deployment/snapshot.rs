//! State of a deployment: what the conductor publishes and everyone reads.
//!
//! A snapshot is immutable and swapped whole. Nothing acts on what it says: to
//! act, take a permit.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Gate;
use super::telling::Telling;
use crate::models::pace::FetchProgress;
use crate::names::{DeploymentId, Generation};
use crate::outbound::Address;
use crate::time::unix_seconds;
use crate::units::Span;

/// Status as a person sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A worker starts, wakes, or is about to.
    Loading,
    /// A worker serves, and a request is inside.
    Active,
    /// A worker serves, and no request is inside.
    Idle,
    /// The worker sleeps: weights out of GPU memory.
    Offloaded,
    /// The worker was told to end, and has not yet.
    Stopping,
    /// No worker.
    Stopped,
    /// The worker ended or could not start; see the reason.
    Failed,
}

impl Status {
    /// Every status, for metrics.
    pub const ALL: [Self; 7] = [
        Self::Loading,
        Self::Active,
        Self::Idle,
        Self::Offloaded,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// The word of the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Offloaded => "offloaded",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// Place of a deployment's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Residency {
    /// In GPU memory (or in the engine's, on a machine without GPUs).
    Gpu,
    /// In host memory.
    Cpu,
    /// On disk, the worker kept.
    Disk,
    /// No worker.
    None,
}

/// A worker that requests can be sent to.
///
/// A deployment may have several. Its own gate says whether it takes requests:
/// to end one of several, the conductor closes the gate of that one, takes it
/// out of the next snapshot, and ends it once [`Gate::drained`]; the deployment's
/// gate stays open. A worker's gate is made with it, open, and is what tells one
/// worker from another.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Generation of the worker in its deployment.
    pub generation: Generation,
    /// Address at which it listens.
    pub address: Address,
    /// The key that proves us to it.
    pub api_key: Arc<str>,
    /// Gate where the requests enter that it serves, within that of the deployment.
    pub gate: Arc<Gate>,
}

/// Reason why requests that waited were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An operator stopped it.
    Stopped,
    /// It failed too often, or can't be placed.
    Failed,
    /// It can't be started now, as there is no room for what is written of it or its model
    /// does not come; it is tried again.
    PutOff,
}

/// State of a deployment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Status as a person sees it. `Idle` stands for any ready worker; see
    /// [`super::Handle::status`].
    pub status: Status,
    /// The phase of the lifecycle machine, for people who look closer.
    pub phase: &'static str,
    /// Place of the weights.
    pub residency: Residency,
    /// Time when this phase began, seconds since 1970.
    pub since: u64,
    /// Time when a request was last inside, seconds since 1970, as last reported;
    /// `None` before the first worker was ready.
    pub last_activity: Option<u64>,
    /// The workers, each from ready to the end of draining; requests are spread
    /// over those whose gates are open.
    pub workers: Arc<[Arc<Worker>]>,
    /// Generation of the newest worker, alive or not.
    pub generation: Generation,
    /// Process id of the living worker.
    pub pid: Option<u32>,
    /// GPUs that the worker holds, by index.
    pub gpus: Arc<[u32]>,
    /// Expected time until it serves, from earlier starts; while loading.
    pub ready_in: Option<Duration>,
    /// Expected time until it would serve, were it asked for now, from earlier starts; while
    /// it rests.
    pub would_take: Option<Duration>,
    /// Progress of a start: a phase in words and a percentage.
    pub progress: Option<(Arc<str>, u8)>,
    /// Progress of the fetch of its model, while it is fetched.
    pub fetch: Option<FetchProgress>,
    /// Reason why it failed or was stopped, in words, with the last lines of the log.
    pub reason: Option<Telling>,
    /// Counts the times that waiting requests were refused, with the last cause:
    /// a waiter gives up when it has grown since it began to wait.
    pub refusals: u64,
    /// Cause of the last refusal.
    pub refusal: Option<Refusal>,
    /// State of each of its replicas, by its id, where it may have several; the
    /// rest of this snapshot then tells of the best of them.
    pub replicas: Arc<[(DeploymentId, Arc<Snapshot>)]>,
}

impl Snapshot {
    /// Progress of a start, in words; `None` where none is under way or nothing is known.
    pub fn loading(&self) -> Option<String> {
        let (words, percent) = self.progress.as_ref()?;
        let left = self
            .ready_in
            .map(|left| Span(Duration::from_secs(left.as_secs())));
        let left = left.map_or_else(String::new, |left| format!(", about {left} left"));
        (self.status == Status::Loading).then(|| format!("loading, {percent} % ({words}){left}"))
    }

    /// A deployment that was never started.
    pub fn stopped() -> Self {
        Self {
            status: Status::Stopped,
            phase: "stopped",
            residency: Residency::None,
            since: unix_seconds(),
            last_activity: None,
            workers: Arc::new([]),
            generation: Generation(0),
            pid: None,
            gpus: Arc::new([]),
            ready_in: None,
            would_take: None,
            progress: None,
            fetch: None,
            reason: None,
            refusals: 0,
            refusal: None,
            replicas: Arc::new([]),
        }
    }

    /// True if a worker serves, or comes up with the memory that it needs.
    pub fn is_coming(&self) -> bool {
        matches!(self.phase, "starting" | "waking" | "ready")
    }

    /// True if memory of GPUs is asked for, to start or to wake, and not granted yet.
    pub fn waits_for_room(&self) -> bool {
        self.phase == "placing"
    }

    /// True if there is a worker that has not been told to leave.
    pub fn has_worker(&self) -> bool {
        let sleeps = matches!(self.phase, "offloading" | "offloaded")
            || self.waits_for_room() && self.residency != Residency::None;
        self.is_coming() || sleeps
    }
}
