//! What the API shows: shapes of its answers, which the command line reads back.

use serde::{Deserialize, Serialize};

use crate::config::error::FileErrorView;
use crate::config::{Access, Catalog, Engine};
use crate::deployment::Handle;
use crate::time::unix_seconds;

/// `GET status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusView {
    /// The version that runs.
    pub version: String,
    /// Process id of the gateway.
    pub pid: u32,
    /// When it started, seconds since 1970.
    pub started: u64,
    /// Where it runs.
    pub directory: String,
    /// Where clients come in.
    pub listen: Vec<String>,
    /// Routes that are served.
    pub routes: usize,
    /// What is wrong with files whose present text is not in effect.
    pub config_errors: Vec<FileErrorView>,
}

/// One instance of `GET instances`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its name.
    pub name: String,
    /// The project that its users need.
    pub project: Option<String>,
    /// The queue that its workers are placed in.
    pub queue: String,
    /// The route that leads to it, and its path.
    pub route: String,
    /// The file that it stands in.
    pub file: String,
    /// Its models.
    pub deployments: Vec<DeploymentView>,
}

/// One deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentView {
    /// `instance/endpoint_name`.
    pub id: String,
    /// What clients write in `model`.
    pub endpoint: String,
    /// Path or hub name of the weights.
    pub model: String,
    /// `vllm` or `sim`.
    pub engine: String,
    /// What a person sees.
    pub status: String,
    /// The phase of the lifecycle.
    pub phase: String,
    /// Where the weights are.
    pub residency: crate::deployment::snapshot::Residency,
    /// When this phase began, seconds since 1970.
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
    /// Why it failed or was stopped.
    pub reason: Option<String>,
}

/// One route of `GET routes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteView {
    /// Its name.
    pub name: String,
    /// Its first path segment.
    pub path: String,
    /// Names that lead to it on `/v1`.
    pub models: Vec<String>,
    /// `public`, `project NAME` or `admins`.
    pub access: String,
    /// Whether it serves.
    pub enabled: bool,
    /// Whether it was made for an instance that names no route.
    pub ephemeral: bool,
    /// Servers that it leads to: deployments and addresses.
    pub targets: Vec<String>,
    /// The file that it stands in.
    pub file: String,
}

/// One decision or change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    /// Seconds since 1970.
    pub at: u64,
    /// Whose it is.
    pub deployment: String,
    /// What and why.
    pub text: String,
}

impl From<&crate::lifecycle::events::Happening> for EventView {
    fn from(happening: &crate::lifecycle::events::Happening) -> Self {
        Self {
            at: happening.at,
            deployment: happening.deployment.to_string(),
            text: happening.text.to_string(),
        }
    }
}

/// Every instance with its deployments as they stand now.
pub fn instances(admin: &super::Admin, catalog: &Catalog) -> Vec<InstanceView> {
    let clock = admin.registry.clock;
    catalog
        .instances
        .iter()
        .map(|instance| InstanceView {
            name: instance.name.to_string(),
            project: instance.project.as_ref().map(ToString::to_string),
            queue: instance.queue.to_string(),
            route: instance.route.to_string(),
            file: instance.file.display().to_string(),
            deployments: instance
                .deployments
                .iter()
                .filter_map(|deployment| admin.registry.get(&deployment.id))
                .map(|handle| deployment(&handle, clock))
                .collect(),
        })
        .collect()
}

fn deployment(handle: &Handle, clock: crate::time::Clock) -> DeploymentView {
    let (spec, snapshot) = (handle.spec(), handle.snapshot());
    let has_worker = snapshot.pid.is_some();
    let idle = clock.now().saturating_sub(handle.gate.last_activity());
    DeploymentView {
        id: handle.id.to_string(),
        endpoint: spec.endpoint_name.to_string(),
        model: spec.model.clone(),
        engine: match &spec.engine {
            Engine::Vllm(_) => "vllm",
            Engine::Sim(_) => "sim",
        }
        .to_owned(),
        status: handle.status().as_str().to_owned(),
        phase: snapshot.phase.to_owned(),
        residency: snapshot.residency,
        since: snapshot.since.min(unix_seconds()),
        idle_seconds: has_worker.then_some(idle.as_secs()),
        in_flight: handle.gate.in_flight(),
        waiting: handle.waiting(),
        max_concurrent_requests: spec.max_concurrent_requests,
        pid: snapshot.pid,
        gpus: snapshot.gpus.to_vec(),
        progress: snapshot
            .progress
            .as_ref()
            .map(|(words, _)| words.to_string()),
        percent: snapshot.progress.as_ref().map(|(_, percent)| *percent),
        ready_in_seconds: snapshot.ready_in.map(|rest| rest.as_secs()),
        reason: snapshot.reason.as_deref().map(str::to_owned),
    }
}

/// Every route.
pub fn routes(catalog: &Catalog) -> Vec<RouteView> {
    catalog
        .routes
        .iter()
        .map(|route| RouteView {
            name: route.name.to_string(),
            path: format!("/{}", route.path),
            models: route.models.iter().map(ToString::to_string).collect(),
            access: match &route.access {
                Access::Public => "public".to_owned(),
                Access::Project(project) => format!("project {project}"),
                Access::Admins => "admins".to_owned(),
            },
            enabled: route.enabled,
            ephemeral: route.ephemeral,
            targets: route
                .deployments
                .iter()
                .map(|deployment| deployment.id.to_string())
                .chain(
                    route
                        .upstreams
                        .iter()
                        .map(|upstream| upstream.address.to_string()),
                )
                .collect(),
            file: route.file.display().to_string(),
        })
        .collect()
}
