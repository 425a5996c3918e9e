//! Control plane: when a worker lives, and what it takes.
//!
//! ```text
//!  demands, commands, worker events, deadlines
//!        |
//!        v
//!   conductor -- machine::step (pure) --> effects -- Launcher (processes)
//!        |                                   |  \--- Calls (health, sleep, wake)
//!        |                                   \------ placement (pure)
//!        v
//!   snapshots, gates, events
//! ```
//!
//! One task, the [`conductor`], owns every machine and is the only one that
//! opens a gate or publishes a snapshot. It never waits: what takes time runs as
//! a task beside it and comes back as an event that carries the worker's
//! generation. It knows nothing of requests, routes or clients.

mod adoption;
pub mod calls;
pub mod command;
mod conductor;
mod effects;
pub mod events;
mod fleet;
mod health;
pub mod launcher;
pub mod ledger;
pub mod machine;
mod member;
mod observe;
pub mod placement;
pub mod policy;
pub mod process;
mod profile;
pub mod progress;
mod reason;
mod scale;
pub mod simulation;
mod story;
mod verdict;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::config::{self, Catalog, Settings};
use crate::deployment::{Demands, Registry};
use crate::gpu::{Device, Inventory};
use crate::names::DeploymentId;
use crate::store::timings::Timings;
use crate::tasks::Tasks;
use crate::time::Clock;
use calls::Calls;
use events::{Events, Happening};
use launcher::{Launcher, ListError};

pub use conductor::Conductor;

/// What the control plane is built from.
#[derive(Debug)]
pub struct Parts {
    /// Where the two planes meet.
    pub registry: Registry,
    /// The demand signals of that registry.
    pub demands: Demands,
    /// `tidegate.toml`.
    pub settings: Arc<Settings>,
    /// Runs what takes time.
    pub tasks: Tasks,
    /// The clock of the registry.
    pub clock: Clock,
    /// Where workers run.
    pub launcher: Arc<dyn Launcher>,
    /// How workers are asked; [`calls::Http`] but in tests.
    pub calls: Arc<dyn Calls>,
    /// The devices to place on.
    pub gpus: Inventory,
    /// Bytes of host memory that sleepers' weights may take.
    pub host_memory: u64,
    /// How long earlier starts took.
    pub timings: Timings,
}

/// Why the control plane can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Who is left over is not known, so nothing may be placed.
    #[error("could not look for workers of the last run")]
    Leftovers(#[from] ListError),
}

/// What an operator asks of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start it, and let it start on demand again.
    Start,
    /// Stop it; requests are refused until a start.
    Stop,
    /// End its worker; the next request starts another.
    Unload,
    /// Free its GPU memory, keep its worker.
    Offload,
    /// Bring it back.
    Wake,
}

/// Why a command was not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such deployment.
    #[error("there is no deployment {0}")]
    Unknown(DeploymentId),
    /// It can't be done as it stands.
    #[error("{0}")]
    Refused(String),
    /// The control plane has ended.
    #[error("tidegate is shutting down")]
    Ended,
}

/// The deployments of a catalog that could never run on these devices, however
/// empty, and why. What was measured of them is not known here.
pub fn misfits(catalog: &Catalog, devices: &[Device]) -> Vec<(DeploymentId, String)> {
    let specs = catalog.instances.iter().flat_map(|i| &i.deployments);
    let misfit = |spec: &Arc<config::Deployment>| {
        let why = profile::misfit(spec, devices)?;
        Some((spec.id.clone(), why))
    };
    specs.filter_map(misfit).collect()
}

/// What would become of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its id.
    pub deployment: DeploymentId,
    /// The kind of change.
    pub change: Change,
    /// What happens, and when, in words.
    pub words: String,
}

/// How a new catalog touches a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is no longer there.
    Removed,
    /// It changes, and its worker goes on.
    Live,
    /// Its worker is replaced.
    Rolled,
}

/// Why a deployment runs or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its id.
    pub deployment: DeploymentId,
    /// The phase that it is in.
    pub phase: &'static str,
    /// In one word what it waits for, or would.
    pub waits_for: Option<&'static str>,
    /// The answer in words with figures, the most important first.
    pub lines: Vec<String>,
    /// Who would leave for it if a request came now.
    pub evicts: Vec<Evicted>,
}

/// One who would leave for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Who.
    pub deployment: DeploymentId,
    /// How it would leave, in words.
    pub how: &'static str,
    /// What it is in the middle of, and what that costs.
    pub words: String,
}

/// Someone who asks, and the answer.
type Reply<T> = oneshot::Sender<T>;

/// What is asked of the conductor from outside.
#[derive(Debug)]
pub(crate) enum Request {
    Apply(Arc<Catalog>, Reply<()>),
    Plan(Arc<Catalog>, Reply<Vec<Planned>>),
    Explain(DeploymentId, Reply<Option<Explanation>>),
    Command(DeploymentId, Command, Reply<Result<(), CommandError>>),
    Shutdown { stop_workers: bool, done: Reply<()> },
}

/// The conductor, as others hold it. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Bounded; whoever asks waits while it is full.
    requests: mpsc::Sender<Request>,
    events: Events,
}

impl Handle {
    /// Follows a new catalog, by difference. Returns once it is in effect.
    pub async fn apply(&self, catalog: Arc<Catalog>) {
        let (reply, done) = oneshot::channel();
        if self
            .requests
            .send(Request::Apply(catalog, reply))
            .await
            .is_ok()
        {
            // No answer means that it ends; then no catalog matters.
            drop(done.await);
        }
    }

    /// Says what following a catalog would change, by deployment; nothing is done.
    /// Empty too when the control plane has ended.
    pub async fn plan(&self, catalog: Arc<Catalog>) -> Vec<Planned> {
        let (reply, planned) = oneshot::channel();
        drop(self.requests.send(Request::Plan(catalog, reply)).await);
        planned.await.unwrap_or_default()
    }

    /// Says why a deployment runs or does not, and what a start would evict; `None`
    /// where there is no such deployment, or the control plane has ended.
    pub async fn explain(&self, id: &DeploymentId) -> Option<Explanation> {
        let (reply, explained) = oneshot::channel();
        let request = Request::Explain(id.clone(), reply);
        self.requests.send(request).await.ok()?;
        explained.await.ok()?
    }

    /// Obeys an operator. Returns once it has begun, not once it is done.
    ///
    /// # Errors
    ///
    /// [`CommandError`] in words for the operator.
    pub async fn command(&self, id: &DeploymentId, command: Command) -> Result<(), CommandError> {
        let (reply, done) = oneshot::channel();
        let request = Request::Command(id.clone(), command, reply);
        let sent = self.requests.send(request).await;
        sent.map_err(|_| CommandError::Ended)?;
        done.await.map_err(|_| CommandError::Ended)?
    }

    /// The newest `count` happenings, oldest first; of one deployment or of all.
    pub fn events(&self, deployment: Option<&DeploymentId>, count: usize) -> Vec<Happening> {
        self.events.newest(deployment, count)
    }

    /// Ends the control plane. With `stop_workers` each worker is stopped first;
    /// without, they go on for the next process to adopt.
    pub async fn shutdown(&self, stop_workers: bool) {
        let (done, ended) = oneshot::channel();
        let request = Request::Shutdown { stop_workers, done };
        if self.requests.send(request).await.is_ok() {
            drop(ended.await);
        }
    }
}
