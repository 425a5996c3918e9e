//! Settings and catalog that the admin wrote, as types: valid or absent.
//!
//! [`Settings`] is `tidegate.toml`; it holds for the life of the process.
//! [`Catalog`] is `routes.d` and instances: one immutable snapshot, swapped
//! whole when a file changes. Raw serde shapes stay inside this room; what
//! leaves it was checked, and nothing checks it again.

mod balancing;
pub mod catalog;
pub mod check;
mod current;
mod defaults;
pub mod edge;
mod engine;
pub mod error;
pub mod exchange;
mod file;
pub mod gateway;
mod inputs;
mod instance;
pub mod keys;
mod link;
mod name;
pub mod network;
mod options;
mod problems;
mod reader;
mod route;
mod sandbox;
mod settings;
pub mod shares;
mod target;
mod tree;
mod trusted;
mod upstream;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{
    Belonging, DeploymentId, InstanceName, ModelName, Project, QueueName, RouteName, Workspace,
};

pub use balancing::{Ejection, LoadBalancing, Policy, Retries, RetryOn};
pub use catalog::{Memory, load_catalog, load_first, with_file, without_file};
pub use check::check;
pub use current::{Current, CurrentWriter};
pub use edge::{Cors, Gateway, Telemetry, Tls};
pub use error::FileError;
pub use exchange::Exchange;
pub use gateway::load;
pub use sandbox::{Sandbox, SandboxMode};
pub use settings::{
    Admin, GpuSource, Gpus, HostBudget, LostStore, Metrics, Models, Placement, Settings, Tokens,
    VllmEngine, Workers,
};
pub use target::{GoOn, Mirror, Prefer, Sticky, TargetList, TargetRule};
pub use upstream::own::{errors as own_upstreams, without as without_own};
pub use upstream::{
    ApiKeySource, HeaderSource, HealthCheck, SecretUse, Upstream, UpstreamHeader, UpstreamTls,
};
pub use watch::Watcher;

pub use crate::openai::media::Inputs;
pub use crate::openai::rules::Rules;
pub use crate::outbound::dial::media::Media;

/// Routes and instances of one moment, and what was wrong with the files.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Every enabled or disabled route, by name.
    pub routes: Vec<Arc<Route>>,
    /// Every instance, by name.
    pub instances: Vec<Arc<Instance>>,
    /// Files whose present text is not in effect, with each reason.
    pub errors: Vec<FileError>,
    /// Content of each file, kept for the next load.
    pub(crate) files: catalog::Files,
}

/// A public entrance.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name; the label of its metrics.
    pub name: RouteName,
    /// First path segment under which it stands, without slashes: `chat`.
    pub path: String,
    /// The host name that is all its own, in lower case.
    pub host: Option<String>,
    /// Names by which requests on `/v1` reach its targets. Beside these, each
    /// deployment is reached by its endpoint name.
    pub models: Vec<ModelName>,
    /// The one workspace that it is for; `None`: those of all workspaces may enter.
    pub workspace: Option<Workspace>,
    /// Access of clients.
    pub access: Access,
    /// Description of it, as lists of models tell it.
    pub description: Option<String>,
    /// True if it serves.
    pub enabled: bool,
    /// Its bounds.
    pub limits: RouteLimits,
    /// Limits of its requests' times in each phase.
    pub timeouts: Timeouts,
    /// Signs of life on its streams.
    pub stream: Streams,
    /// Spread of its requests over several servers.
    pub load_balancing: LoadBalancing,
    /// Limits for sending them to a further server.
    pub retries: Retries,
    /// Rule by which a server is left out for a while.
    pub ejection: Ejection,
    /// Inputs that requests may bring along for our own deployments.
    pub inputs: Inputs,
    /// Longest time that a request may ask its model to stay awake after it; `None`: it may
    /// not.
    pub keep_alive_max: Option<Duration>,
    /// Servers that someone else runs.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Our own deployments that it leads to.
    pub deployments: Vec<Arc<Deployment>>,
    /// The list of both that its own names lead to; `None` where it has either kind and
    /// spreads requests over all of them.
    pub targets: Option<TargetList>,
    /// Names with parameters of their own, in their order.
    pub names: Vec<Arc<Name>>,
    /// The file that it stands in.
    pub file: PathBuf,
    /// True if it was made for an instance that names no route.
    pub ephemeral: bool,
}

/// A name with parameters of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// Name that clients ask for.
    pub name: ModelName,
    /// The model of the route that it stands for, as clients ask for that.
    pub of: ModelName,
    /// Rules for requests for it.
    pub rules: Arc<Rules>,
}

impl Route {
    /// Workspace and project that it belongs to.
    pub fn belonging(&self) -> Belonging<'_> {
        let project = match &self.access {
            Access::Project(project) => Some(project),
            Access::Public | Access::Admins => None,
        };
        Belonging {
            workspace: self.workspace.as_ref(),
            project,
        }
    }
}

/// Access to a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Any valid token: of any workspace, or of the one that the route belongs to.
    Public,
    /// Tokens with access to this project.
    Project(Project),
    /// Any valid token with the role `admin`, as no project was named.
    Admins,
}

/// The bounds of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// Requests at once; `None` for no limit.
    pub max_concurrent_requests: Option<u32>,
    /// Requests that may wait for a place; 0 to deny at once.
    pub queue_requests_max: u32,
    /// Longest wait for a place.
    pub queue_wait_max: Duration,
    /// Per token; `None` for no limit.
    pub requests_per_minute: Option<u32>,
    /// Per token; `None` for no limit.
    pub tokens_per_minute: Option<u32>,
}

/// Signs of life on streams while nothing comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Pause between two comments; `None` for no comments.
    pub keep_alive: Option<Duration>,
    /// Wait after which a stream is opened before its server has answered;
    /// `None` for never.
    pub open_after: Option<Duration>,
    /// Exactness of the tokens known of a stream that is cut off.
    pub usage: StreamUsage,
}

/// Exactness of the tokens known of a stream that is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamUsage {
    /// By an estimate: the server tells them at the end.
    #[default]
    AtEnd,
    /// As its server counts them: it tells them in every event.
    Exact,
}

impl Streams {
    /// Pause between two comments of a stream that was opened early, where the route
    /// does not say.
    pub const HELD_KEEP_ALIVE: Duration = Duration::from_secs(15);
}

/// Limits of a request's time in each phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Time from the request sent to the head of the response.
    pub first_byte: Duration,
    /// Longest silence of the upstream within a response.
    pub idle: Duration,
    /// Longest wait for a worker to start or wake.
    pub cold_start: Duration,
    /// Limit of a connection to the upstream.
    pub connect: Duration,
    /// Limit of the TLS handshake with an upstream, beside that of the connection.
    pub tls_handshake: Duration,
}

/// Content of one launch form, one file or one import.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name.
    pub name: InstanceName,
    /// The one workspace that it is for; `None`: its project is shared by all that
    /// have one of this name.
    pub workspace: Option<Workspace>,
    /// The project that its users need access to.
    pub project: Option<Project>,
    /// Queue that its workers are placed in.
    pub queue: QueueName,
    /// The route that leads to it.
    pub route: RouteName,
    /// Its models.
    pub deployments: Vec<Arc<Deployment>>,
    /// The file that it stands in.
    pub file: PathBuf,
}

impl Instance {
    /// Workspace and project that it belongs to.
    pub fn belonging(&self) -> Belonging<'_> {
        Belonging {
            workspace: self.workspace.as_ref(),
            project: self.project.as_ref(),
        }
    }
}

/// One model of an instance: all that its lifecycle and its requests need.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// `instance/endpoint_name`.
    pub id: DeploymentId,
    /// The instance that it belongs to.
    pub instance: InstanceName,
    /// Name that clients write in `model`, and that the worker serves it as.
    pub endpoint_name: ModelName,
    /// Path or hub name of the weights.
    pub model: String,
    /// Requests at once; `None` for no limit of its own.
    pub max_concurrent_requests: Option<u32>,
    /// Longest that a request may be with a worker; `None` for no limit.
    pub max_request_duration: Option<Duration>,
    /// Number of workers that it may have, and which of them this describes.
    pub replicas: Replicas,
    /// Time when its worker is started.
    pub start: Start,
    /// Time when a worker is replaced whose engine options changed.
    pub roll: Roll,
    /// Never chosen to make room for another, never idled out.
    pub keep: bool,
    /// Idle times.
    pub idle: Idle,
    /// Engine that runs it.
    pub engine: Engine,
    /// Inputs that requests may bring along for it, as its route says.
    pub inputs: Inputs,
    /// Author of its file.
    pub author: Author,
}

/// Author of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Author {
    /// An admin, or a person who edits files on the disk, which is the same.
    #[default]
    Admin,
    /// An operator, by this name, over the admin API.
    Operator(Arc<str>),
}

impl Deployment {
    /// The description of another of its workers, counted from 1.
    #[must_use]
    pub fn replica(&self, number: u32) -> Self {
        Self {
            id: self.id.replica(number),
            replicas: Replicas {
                number,
                ..self.replicas
            },
            ..self.clone()
        }
    }

    /// The names of its `LoRA` adapters: each is one that clients may write in
    /// `model`, and that its worker knows.
    pub fn adapters(&self) -> Vec<ModelName> {
        let Engine::Vllm(vllm) = &self.engine else {
            return Vec::new();
        };
        let adapters = vllm.options.adapters().into_iter();
        adapters
            .filter_map(|(name, _)| ModelName::new(&name).ok())
            .collect()
    }
}

/// Number of workers that a deployment may have side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// So many are started with the gateway, and never idled out.
    pub min: u32,
    /// So many at most.
    pub max: u32,
    /// Requests, at work or waiting, that one worker is meant for: with more a
    /// further one is started.
    pub requests_each: u32,
    /// Requests that one worker takes at once, while the others wait; `None` for no
    /// limit.
    pub requests_max: Option<u32>,
    /// Number of this one, counted from 1. A file describes the first; the
    /// lifecycle makes the others.
    pub number: u32,
}

impl Default for Replicas {
    fn default() -> Self {
        Self {
            min: 0,
            max: 1,
            requests_each: 32,
            requests_max: None,
            number: 1,
        }
    }
}

/// Time when a worker is replaced whose engine options changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roll {
    /// Once no request is inside.
    #[default]
    Idle,
    /// At once: requests inside finish, new ones wait for the new worker.
    Now,
}

/// Time when a deployment's worker is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With its first request.
    #[default]
    OnDemand,
    /// With the gateway.
    Boot,
}

/// Idle times of a deployment, from its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Idle time after which the worker is stopped; `None` for never.
    pub time_limit: Option<Duration>,
    /// Rule by which the weights may leave the GPU: when they do so by themselves, and where
    /// they go; `None` for never.
    pub offload: Option<Offload>,
    /// Pause between two reports of last activity by the gateway.
    pub last_action_report_interval: Duration,
}

/// Time after which weights are offloaded, and the places for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Idle time after which they leave; `None` for only when another deployment
    /// needs the memory, or an operator asks.
    pub after: Option<Duration>,
    /// Places for them.
    pub levels: Levels,
}

/// Places that weights may go to; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Levels {
    /// To host memory: vLLM's sleep level 1.
    pub cpu: bool,
    /// Dropped, to be read from disk again: vLLM's sleep level 2.
    pub disk: bool,
}

impl Levels {
    /// Host memory alone.
    pub const CPU: Self = Self {
        cpu: true,
        disk: false,
    };
    /// Disk alone.
    pub const DISK: Self = Self {
        cpu: false,
        disk: true,
    };
    /// Whichever takes less time, by what was measured.
    pub const BOTH: Self = Self {
        cpu: true,
        disk: true,
    };

    /// True if weights may go there.
    pub fn permit(self, to: OffloadTo) -> bool {
        match to {
            OffloadTo::Cpu => self.cpu,
            OffloadTo::Disk => self.disk,
        }
    }

    /// The one that is tried first where nothing else is known.
    pub fn first(self) -> OffloadTo {
        if self.cpu {
            OffloadTo::Cpu
        } else {
            OffloadTo::Disk
        }
    }
}

/// Place that offloaded weights go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OffloadTo {
    /// Host memory: vLLM's sleep level 1.
    Cpu,
    /// Dropped, to be read from disk again: vLLM's sleep level 2.
    Disk,
}

/// Engine that runs a deployment.
#[derive(Clone, Debug, PartialEq)]
pub enum Engine {
    /// vLLM, with its options merged from instance and deployment.
    Vllm(Vllm),
    /// The built-in stand-in.
    Sim(Sim),
}

/// Way in which vLLM is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Vllm {
    /// The version to run; `None` for the one found.
    pub version: Option<String>,
    /// Options by the names of `tidegate options`.
    pub options: crate::vllm::options::OptionSet,
}

/// Speeds and sizes of the stand-in.
#[derive(Clone, Debug, PartialEq)]
pub struct Sim {
    /// Time from launch to ready.
    pub load: Duration,
    /// Time from asleep to ready.
    pub wake: Duration,
    /// Time from ready to asleep.
    pub sleep: Duration,
    /// Time from request to first token.
    pub first_token: Duration,
    /// Token speed of each request.
    pub tokens_per_second: f64,
    /// Memory taken while awake, in bytes.
    pub weights: u64,
    /// Memory kept while asleep, in bytes.
    pub context: u64,
    /// Longest prompt and answer together, in tokens.
    pub max_model_len: u32,
    /// Faults, as `tidegate sim --fault` takes them.
    pub faults: Vec<String>,
}
