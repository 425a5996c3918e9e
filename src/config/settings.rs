//! `tidegate.toml` as types, with every default filled in.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cors, Gateway, Sandbox, Telemetry, Tls};
use crate::auth::keeper::{KeySources, SharedSecret, TrustedIssuer};
use crate::auth::keys::previous_beside;
use crate::models::room::DiskLimits;
use crate::names::{QueueName, Workspace};
use crate::vllm::rules::Allowed;

/// `tidegate.toml`, with every default filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[tls]`
    pub tls: Tls,
    /// `[cors]`
    pub cors: Cors,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[tokens]`
    pub tokens: Tokens,
    /// `[admin]`
    pub admin: Admin,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[gpus]`
    pub gpus: Gpus,
    /// `[placement]`
    pub placement: Placement,
    /// `[workers]`
    pub workers: Workers,
    /// `[models]`
    pub models: Models,
    /// `[queues.*]`: the queues that instances may name; `local` is always one.
    pub queues: Vec<QueueName>,
    /// `[workspaces.*]`: requests that each may have at work at once, on all routes
    /// together; no limit for those that are not named.
    pub workspaces: HashMap<Workspace, u32>,
    /// `[engines.vllm]`
    pub vllm: VllmEngine,
    /// The file that all of this was read in; `None` where there is none.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Number of requests that a workspace may have at work; `None` for no limit.
    pub fn workspace_max(&self, workspace: &Workspace) -> Option<u32> {
        self.workspaces.get(workspace).copied()
    }
}

/// `[tokens]`: tokens that we issue and accept.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The `iss` claim.
    pub issuer: String,
    /// The `aud` claim.
    pub audience: String,
    /// Ed25519 private key, PKCS#8 PEM.
    pub signing_key: PathBuf,
    /// Keys that signed before and still verify; `None`: what `tidegate token rotate`
    /// keeps beside the signing key.
    pub previous_keys: Option<Vec<PathBuf>>,
    /// `[tokens.hs256]`: a secret that others sign tokens of our shape with.
    pub hs256: Option<SharedSecret>,
    /// `[[tokens.trusted]]`: others whose tokens are accepted.
    pub trusted: Vec<TrustedIssuer>,
    /// Fate of tokens that were issued before the store of revocations was lost.
    pub lost_store: LostStore,
}

/// Fate of tokens that were issued before the store of revocations was lost, or
/// an older copy was put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostStore {
    /// They are refused: some of them may have been revoked.
    Refuse,
    /// They are accepted, and that is told for as long as this stands.
    Accept,
}

impl Tokens {
    /// Place where a rotation keeps the public halves of previous keys.
    ///
    /// # Errors
    ///
    /// Reason why there is no rotation, with what to do.
    pub fn kept_keys(&self) -> Result<PathBuf, &'static str> {
        match self.previous_keys {
            None => Ok(previous_beside(&self.signing_key)),
            Some(_) => Err(
                "tokens.previous_keys names the files of previous keys, so they are kept by hand: take it out of tidegate.toml to have them kept beside the signing key",
            ),
        }
    }

    /// The same, as [`crate::auth::Keys::load`] takes it.
    pub fn key_sources(&self) -> KeySources {
        KeySources {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            signing_key: self.signing_key.clone(),
            previous_keys: self.previous_keys.clone(),
            shared_secret: self.hs256.clone(),
            trusted: self.trusted.clone(),
        }
    }
}

/// `[admin]`: the admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    /// HTTPS listener of dashboard and API.
    pub listen: Option<SocketAddr>,
    /// Unix socket for the command line.
    pub socket: PathBuf,
}

/// `[metrics]`
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Plain HTTP listener of `GET /metrics`.
    pub listen: Option<SocketAddr>,
}

/// `[gpus]`: which devices workers run on.
#[derive(Clone, Debug)]
pub struct Gpus {
    /// Source of the inventory.
    pub source: GpuSource,
    /// The driver's library: a name that the system looks up, or a path.
    pub library: PathBuf,
    /// Pause between two looks at what the GPUs do.
    pub poll: Duration,
    /// Part of the host's memory that offloaded weights may take.
    pub host_memory_budget: HostBudget,
}

/// Source of the GPU inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuSource {
    /// NVML if it can be loaded, else none.
    Auto,
    /// NVML; without it the gateway does not start.
    Nvml,
    /// No GPU: workers run on the CPU.
    None,
    /// Pretended devices with these memory sizes, in bytes.
    Simulated(Vec<u64>),
}

/// A share of the host's memory, or a fixed size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HostBudget {
    /// Fraction of RAM, 0 to 1.
    Share(f64),
    /// Bytes.
    Bytes(u64),
}

/// `[placement]`: the policy's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Length of a busy window, in switch costs.
    pub quantum: f64,
    /// Time that demand waits before it may cut a window, in switch costs.
    pub patience: f64,
    /// Claims that wait longer go first.
    pub wait_bound: Duration,
    /// Largest share of time spent switching, 0 to 1.
    pub switch_share_max: f64,
    /// True if sleepers are woken that a client is expected to ask next.
    pub prefetch: bool,
}

/// `[workers]`: bounds that hold for every worker.
#[derive(Clone, Debug)]
pub struct Workers {
    /// True if workers end with the gateway; else the next start adopts them.
    pub stop_on_exit: bool,
    /// Limit from launch to ready.
    pub start_timeout: Duration,
    /// Limit of a sleep or wake call.
    pub call_timeout: Duration,
    /// Time that requests inside may go on when a worker is stopped.
    pub drain_timeout: Duration,
    /// Pause between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// First pause after a failure; doubles with each further one.
    pub backoff: Duration,
    /// Failures in a row after which only an operator starts it again.
    pub failures_max: u32,
    /// Time that a worker must serve before its failures are forgiven.
    pub stable_after: Duration,
    /// True if each worker gets a control group, where this process may make some.
    pub cgroups: bool,
    /// Main memory that one worker may take, in bytes; needs control groups.
    pub memory_max: Option<u64>,
    /// Time that a start may go on without a line of log, work or a byte read.
    pub stall_timeout: Duration,
    /// Pause between two probes of a worker that serves; zero for none.
    pub probe_interval: Duration,
    /// Limit of a probe.
    pub probe_timeout: Duration,
    /// Probes that fail in a row before the worker is replaced.
    pub probe_failures: u32,
    /// Time that the load must ask for another replica before it is started.
    pub scale_up_after: Duration,
    /// Time that the load must leave a replica idle before it is drained.
    pub scale_down_after: Duration,
    /// Size at which a worker's log file is rotated, in bytes.
    pub log_bytes_max: u64,
    /// Walls of workers.
    pub sandbox: Sandbox,
}

/// `[models]`: models that are fetched.
#[derive(Clone, Debug)]
pub struct Models {
    /// Limits of the disk that they may take.
    pub limits: DiskLimits,
    /// True if the gateway brings a deployment's model here before it asks for GPUs.
    pub fetch_first: bool,
    /// Number of models that it brings at once.
    pub fetches_max: u32,
    /// True if a fetch goes on once nobody waits for its model.
    pub keep_fetching: bool,
    /// True if models are brought here as soon as a file names them.
    pub prefetch: bool,
    /// The Python that fetches from the hub; `None`: that of the vllm of the settings.
    pub python: Option<PathBuf>,
}

/// `[engines.vllm]`: where vLLM comes from.
#[derive(Clone, Debug)]
pub struct VllmEngine {
    /// Command that is run when an instance names no version: a name on PATH, a path, or
    /// the directory of a venv.
    pub command: PathBuf,
    /// Venvs or commands that serve a version instead of an install, by version.
    pub versions: BTreeMap<String, PathBuf>,
    /// The Python that the venvs of other versions are made with.
    pub python: PathBuf,
    /// The package index; `None` for the installer's own choice.
    pub index_url: Option<String>,
    /// Further arguments of `pip install`.
    pub pip_arguments: Vec<String>,
    /// Longest install of a version.
    pub install_timeout: Duration,
    /// Allowance of instances; `None` for the one that goes with the author of their file.
    pub allowed: Option<Allowed>,
}
