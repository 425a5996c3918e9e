//! The conductor, as others hold it: what is asked of it, and its answers.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::tell::events::{Events, Happening};
use crate::config::Catalog;
use crate::deployment::Telling;
use crate::names::DeploymentId;

/// Command of an operator to a deployment.
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
    /// Drain and replace its workers that wait to be replaced, though requests are inside.
    Replace,
}

/// Reason why a command was not obeyed.
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

/// Effect of a new catalog on one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its id.
    pub deployment: DeploymentId,
    /// The kind of change.
    pub change: Change,
    /// Words for what happens, and when.
    pub words: String,
    /// True if it waits until no request is inside: [`Command::Replace`] does not.
    pub waits: bool,
}

/// Way in which a new catalog touches a deployment.
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

/// Reasons why a deployment runs or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its id.
    pub deployment: DeploymentId,
    /// The phase that it is in.
    pub phase: &'static str,
    /// Word for what it waits for, or would.
    pub waits_for: Option<&'static str>,
    /// The answer in words with figures, the most important first.
    pub lines: Vec<Telling>,
    /// Deployments that would leave for it if a request came now.
    pub evicts: Vec<Evicted>,
}

/// A deployment that would leave for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Way in which it would leave, in words.
    pub how: &'static str,
    /// State that it is in, and costs of its leaving.
    pub words: String,
}

/// Channel for the answer to a caller.
type Reply<T> = oneshot::Sender<T>;

/// Request to the conductor from outside.
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
pub struct Control {
    /// Bounded; callers wait while it is full.
    requests: mpsc::Sender<Request>,
    events: Events,
}

impl Control {
    pub(super) fn new(requests: mpsc::Sender<Request>, events: Events) -> Self {
        Self { requests, events }
    }

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

    /// Happenings that plots mark, oldest first; and since when all are known, in seconds
    /// since 1970.
    pub fn marked(&self) -> (Vec<Happening>, u64) {
        self.events.marked()
    }

    /// Writes down in this state directory what plots mark, for the next process. Blocks on
    /// the disk.
    pub fn keep_marks(&self, state: &Path) {
        self.events.keep(state);
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
