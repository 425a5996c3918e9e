//! Shapes of instances and their deployments.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One instance of `GET instances`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// Its name.
    pub name: String,
    /// The project that its users need.
    pub project: Option<String>,
    /// The one workspace that it is for; none: all that have a project of this name.
    pub workspace: Option<String>,
    /// The queue that its workers are placed in.
    pub queue: String,
    /// The route that leads to it.
    pub route: String,
    /// True if that route was made for it alone.
    #[serde(default)]
    pub ephemeral_route: bool,
    /// The status of the deployment that is most at work: `active`, `loading`,
    /// `idle`, `failed`, `offloaded`, `stopping`, `stopped`, in this order.
    #[serde(default)]
    pub status: String,
    /// Seconds since a request was last inside any of its workers.
    #[serde(default)]
    pub idle_seconds: Option<u64>,
    /// `vllm` or `sim`.
    #[serde(default)]
    pub engine: String,
    /// The vLLM version that its file names.
    #[serde(default)]
    pub vllm_version: Option<String>,
    /// Idle time after which workers are stopped, in seconds.
    #[serde(default)]
    pub idle_time_limit_seconds: Option<u64>,
    /// Idle time after which weights leave the GPU, in seconds.
    #[serde(default)]
    pub offload_after_seconds: Option<u64>,
    /// True if its options let weights leave the GPU while the worker stays.
    #[serde(default)]
    pub may_offload: bool,
    /// Rates of now, of all its deployments together.
    #[serde(default)]
    pub live: LiveView,
    /// The file that it stands in.
    pub file: String,
    /// Last change of the file, in seconds since 1970.
    #[serde(default)]
    pub updated: Option<u64>,
    /// Author of the last change through the API.
    #[serde(default)]
    pub updated_by: Option<String>,
    /// Revision of the file's present text; also the `ETag`. Send it as `If-Match` with
    /// PUT and DELETE, so that no one's change is overwritten unseen.
    #[serde(default)]
    pub revision: Option<String>,
    /// Its models.
    pub deployments: Vec<DeploymentView>,
}

/// Progress of the fetch of a model.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FetchView {
    /// Bytes that are here.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes a second; `None` until some came.
    pub bytes_per_second: Option<u64>,
    /// Seconds that the rest takes at that rate.
    pub seconds_left: Option<u64>,
}

/// One deployment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeploymentView {
    /// `instance/endpoint_name`.
    pub id: String,
    /// Name that clients write in `model`.
    pub endpoint: String,
    /// Path or hub name of the weights.
    pub model: String,
    /// `vllm` or `sim`.
    pub engine: String,
    /// State for people: `loading`, `active`, `idle`, `offloaded`, `stopping`, `stopped`,
    /// `failed`.
    pub status: String,
    /// The phase of the lifecycle.
    pub phase: String,
    /// Place of the weights: `gpu`, `cpu`, `disk`, `none`.
    #[schema(value_type = String)]
    pub residency: crate::deployment::snapshot::Residency,
    /// Start of this phase, in seconds since 1970.
    pub since: u64,
    /// Seconds since a request was last inside; `None` without a worker.
    pub idle_seconds: Option<u64>,
    /// Requests inside.
    pub in_flight: u32,
    /// Requests that wait for the worker.
    pub waiting: u32,
    /// Requests at once; `None` for no limit.
    pub max_concurrent_requests: Option<u32>,
    /// Process id of the worker.
    pub pid: Option<u32>,
    /// GPUs of the worker.
    pub gpus: Vec<u32>,
    /// Phase of a start, in words.
    pub progress: Option<String>,
    /// Percent of a start.
    pub percent: Option<u8>,
    /// Expected seconds until it serves.
    pub ready_in_seconds: Option<u64>,
    /// Progress of the fetch of its model, while it is fetched; no GPU is asked for before.
    #[serde(default)]
    pub fetch: Option<FetchView>,
    /// Reason for which the deployment failed or was stopped.
    pub reason: Option<String>,
    /// Rates of now.
    #[serde(default)]
    pub live: LiveView,
    /// Base URLs that clients may use for it, the shortest first, each ending in `/v1`.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Its workers side by side, where it may have several.
    #[serde(default)]
    pub replicas: Vec<ReplicaView>,
}

/// One of the workers that a deployment may have side by side.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReplicaView {
    /// The deployment's id for the first, `instance/endpoint_name#2` for the next.
    pub id: String,
    /// State for people.
    pub status: String,
    /// The phase of its lifecycle.
    pub phase: String,
    /// Start of this phase, in seconds since 1970.
    pub since: u64,
    /// Requests inside.
    pub in_flight: u32,
    /// Process id of its worker.
    pub pid: Option<u32>,
    /// GPUs of its worker.
    pub gpus: Vec<u32>,
    /// Number of the worker among those of this replica, from 1.
    pub generation: u32,
    /// Reason for which the replica failed or was stopped.
    pub reason: Option<String>,
}

/// Rates of now: the mean of the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LiveView {
    /// Requests that ended, per second.
    pub requests_per_second: f64,
    /// Prompt tokens per second.
    pub prompt_tokens_per_second: f64,
    /// Completion tokens per second.
    pub completion_tokens_per_second: f64,
}

/// `GET instances/{name}`: what `GET instances` shows, and what it is made of.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InstanceDetail {
    /// State of the instance.
    #[serde(flatten)]
    pub instance: InstanceView,
    /// Its configuration, as `GET instances/{name}/export` gives it: the tables of
    /// its file as an object, without secrets.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
    /// The command line of each worker as it would be run, secrets masked.
    pub commands: Vec<CommandView>,
    /// People who may use it, in words: `public`, `project NAME` or `admins`.
    pub access: String,
    /// The certificate authority to give to clients (`curl --cacert`), where the
    /// gateway made its own.
    pub ca: Option<String>,
}

/// Command by which a deployment's worker is run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CommandView {
    /// The deployment.
    pub deployment: String,
    /// Program and arguments, quoted for a shell.
    pub command: String,
    /// Options that the version does not have or that are changed, in words.
    pub notes: Vec<String>,
    /// GPU memory that it will need, in sentences; empty where that needs no estimate.
    #[serde(default)]
    pub memory: Vec<String>,
}

impl CommandView {
    /// A command as it is printed: its notes are the lines that begin with `#`.
    pub(in crate::admin) fn printed(deployment: String, text: &str, memory: Vec<String>) -> Self {
        let (notes, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
        let note = |line: &&str| line.trim_start_matches(['#', ' ']).to_owned();
        Self {
            deployment,
            command: lines.join("\n").trim().to_owned(),
            notes: notes.iter().map(note).collect(),
            memory,
        }
    }
}

/// Outcome that a route file would have.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DraftView {
    /// True if the file could be taken in.
    pub ok: bool,
    /// Everything that is wrong with it.
    pub errors: Vec<DraftError>,
    /// The tables that it holds, as an object, where it could be read.
    #[schema(value_type = Option<Object>)]
    pub config: Option<serde_json::Value>,
    /// The command line of each worker, secrets masked.
    pub commands: Vec<CommandView>,
}

/// One thing wrong with a draft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DraftError {
    /// Line of the text that was sent, from 1.
    pub line: Option<usize>,
    /// Dotted key: `deployment.options.dtype`; empty where none is meant.
    pub key: String,
    /// Index of the `[[deployment]]`, from 0, where that is known without the line.
    pub deployment: Option<usize>,
    /// The error, and the right thing to write.
    pub message: String,
}

impl DraftError {
    /// An error of no line and no key.
    pub fn plain(message: String) -> Self {
        Self {
            message,
            ..Self::default()
        }
    }
}

impl From<&crate::config::FileError> for DraftError {
    fn from(error: &crate::config::FileError) -> Self {
        Self {
            line: error.line,
            key: error.key.clone(),
            deployment: None,
            message: error.message.clone(),
        }
    }
}

/// The answer to `POST instances/{name}/start` and the like: it has begun.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// The deployments that were told.
    pub accepted: Vec<String>,
}

/// One decision or change.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Seconds since 1970.
    pub at: u64,
    /// The deployment of the event.
    pub deployment: String,
    /// The event and its reason.
    pub text: String,
}
