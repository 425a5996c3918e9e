//! Instances and their deployments, as they stand now.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::ETAG;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::access::Caller;
use crate::admin::error::{ApiError, on_disk};
use crate::admin::revisions::Facts;
use crate::admin::sight::Sight;
use crate::admin::view::{
    CommandView, DeploymentView, ErrorView, FetchView, InstanceDetail, InstanceView, LiveView,
    ReplicaView,
};
use crate::admin::{Admin, exchange, scope};
use crate::config::{Access, Catalog, Engine, Instance, Offload, Route};
use crate::deployment::{Handle, Snapshot, Status};
use crate::gpu::Device;
use crate::lifecycle::act::command;
use crate::lifecycle::act::command::Engines;
use crate::names::DeploymentId;
use crate::telemetry::history::Scope;
use crate::time::unix_seconds;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
}

/// Every instance that the caller sees, with its deployments.
#[utoipa::path(get, path = "/instances", tag = "instances", responses(
    (status = 200, body = Vec<InstanceView>), (status = 401, body = ErrorView)))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
) -> Result<Json<Vec<InstanceView>>, ApiError> {
    let catalog = admin.catalog.load();
    let seen = catalog.instances.iter();
    let seen: Vec<Arc<Instance>> = seen
        .filter(|instance| caller.works_on(instance.belonging()))
        .cloned()
        .collect();
    let sight = Sight::of(&catalog, &caller);
    on_disk(move || {
        let views = seen
            .iter()
            .map(|instance| view(&admin, &catalog, &sight, instance));
        Json(views.collect())
    })
    .await
}

/// State of one instance, and the parts that it is made of.
#[utoipa::path(get, path = "/instances/{name}", tag = "instances",
    params(("name" = String, Path, description = "The instance")), responses(
    (status = 200, body = InstanceDetail, headers(("ETag" = String, description = "The revision"))),
    (status = 403, description = "Of another project", body = ErrorView),
    (status = 404, body = ErrorView)))]
async fn show(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let catalog = admin.catalog.load();
    let instance = scope::own_instance(&catalog, &caller, &name)?;
    let config = exchange::exported(&instance).await?;
    let sight = Sight::of(&catalog, &caller);
    on_disk(move || {
        let engines = Engines::new(&admin.settings).within(&catalog);
        let commands = instance
            .deployments
            .iter()
            .map(|spec| command_view(&engines, spec, &admin.gpus.devices));
        let route = catalog
            .routes
            .iter()
            .find(|route| route.name == instance.route);
        let detail = InstanceDetail {
            commands: commands.collect(),
            instance: view(&admin, &catalog, &sight, &instance),
            config,
            access: route.map_or_else(|| "admins".to_owned(), |route| access(route)),
            ca: admin.ca.as_ref().map(|ca| ca.display().to_string()),
        };
        let tag = detail.instance.revision.as_deref().unwrap_or_default();
        ([(ETAG, format!("\"{tag}\""))], Json(detail)).into_response()
    })
    .await
}

/// People who may enter, in words.
pub(super) fn access(route: &Route) -> String {
    let who = match &route.access {
        Access::Public => "public".to_owned(),
        Access::Project(project) => format!("project {project}"),
        Access::Admins => "admins".to_owned(),
    };
    match &route.workspace {
        Some(workspace) => format!("{who} of workspace {workspace}"),
        None => who,
    }
}

fn command_view(
    engines: &Engines,
    spec: &crate::config::Deployment,
    devices: &[Device],
) -> CommandView {
    let (deployment, memory) = (spec.id.to_string(), engines.foretold(spec, devices));
    match printed(engines, spec) {
        Ok(text) => CommandView::printed(deployment, &text, memory),
        Err(error) => CommandView {
            deployment,
            command: String::new(),
            notes: vec![format!("it can't be run: {error}")],
            memory,
        },
    }
}

/// The command as a shell would read it, secrets masked, with notes as comments;
/// judged by what is known of the version, whether or not it is installed.
fn printed(engines: &Engines, spec: &crate::config::Deployment) -> Result<String, String> {
    let place = command::WorkerPlace::shown();
    match &spec.engine {
        Engine::Vllm(vllm) => {
            let found = engines.vllm.assumed(vllm.version.as_deref());
            let found = found.map_err(|error| error.to_string())?;
            let line = engines.vllm_line(spec, vllm, &found, place)?;
            let mut text = Vec::new();
            crate::vllm::args::print(&mut text, &line).map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
        }
        Engine::Sim(_) => {
            let line = engines.command_line(spec, &command::Engine::StandIn, place)?;
            Ok(format!("tidegate {}", line.args.join(" ")))
        }
    }
}

/// State of an instance. Blocks on the disk.
pub(super) fn view(
    admin: &Admin,
    catalog: &Catalog,
    sight: &Sight,
    instance: &Instance,
) -> InstanceView {
    let route = catalog
        .routes
        .iter()
        .find(|route| route.name == instance.route);
    let deployments: Vec<DeploymentView> = instance
        .deployments
        .iter()
        .filter_map(|spec| admin.registry.get(&spec.id))
        .map(|handle| deployment(admin, sight, &handle, route.map(AsRef::as_ref)))
        .collect();
    let facts = admin.files.facts(&instance.file);
    let touched = admin.audit.touched(&format!("instance:{}", instance.name));
    let first = instance.deployments.first();
    let idle = first.map(|spec| spec.idle);
    let live = admin.recorder.live(&Scope::Instance(instance.name.clone()));
    InstanceView {
        name: instance.name.to_string(),
        workspace: instance.workspace.as_ref().map(ToString::to_string),
        project: instance.project.as_ref().map(ToString::to_string),
        queue: instance.queue.to_string(),
        route: instance.route.to_string(),
        ephemeral_route: route.is_some_and(|route| route.ephemeral),
        status: status(&deployments).to_owned(),
        idle_seconds: deployments.iter().filter_map(|d| d.idle_seconds).min(),
        engine: first.map_or("", |spec| engine(&spec.engine)).to_owned(),
        vllm_version: first.and_then(|spec| match &spec.engine {
            Engine::Vllm(vllm) => vllm.version.clone(),
            Engine::Sim(_) => None,
        }),
        idle_time_limit_seconds: idle.and_then(|idle| idle.time_limit).map(|t| t.as_secs()),
        offload_after_seconds: idle
            .and_then(|idle| idle.offload)
            .and_then(|Offload { after, .. }| Some(after?.as_secs())),
        may_offload: instance
            .deployments
            .iter()
            .any(|d| d.idle.offload.is_some()),
        live: live.into(),
        file: instance.file.display().to_string(),
        updated: facts.as_ref().map(|facts| facts.updated),
        updated_by: touched.and_then(|touched| touched.last_by(facts.as_ref().map(|f| f.updated))),
        revision: facts.map(|Facts { revision, .. }| revision.to_string()),
        deployments,
    }
}

/// The status of the deployment that is most at work.
fn status(deployments: &[DeploymentView]) -> &'static str {
    let order = [
        "active",
        "loading",
        "idle",
        "failed",
        "offloaded",
        "stopping",
        "stopped",
    ];
    let has = |status: &&&str| deployments.iter().any(|d| d.status == **status);
    order.iter().find(has).copied().unwrap_or("stopped")
}

fn engine(engine: &Engine) -> &'static str {
    match engine {
        Engine::Vllm(_) => "vllm",
        Engine::Sim(_) => "sim",
    }
}

fn deployment(
    admin: &Admin,
    sight: &Sight,
    handle: &Handle,
    route: Option<&Route>,
) -> DeploymentView {
    let (spec, snapshot) = (handle.spec(), handle.snapshot());
    let has_worker = snapshot.pid.is_some();
    let clock = admin.registry.clock;
    let idle = clock.now().saturating_sub(handle.gate.last_activity());
    let live: LiveView = admin
        .recorder
        .live(&Scope::Deployment(handle.id.clone()))
        .into();
    DeploymentView {
        id: handle.id.to_string(),
        endpoint: spec.endpoint_name.to_string(),
        model: spec.model.clone(),
        engine: engine(&spec.engine).to_owned(),
        status: handle.status().as_str().to_owned(),
        phase: snapshot.phase.to_owned(),
        residency: snapshot.residency,
        since: snapshot.since.min(unix_seconds()),
        idle_seconds: has_worker.then_some(idle.as_secs()),
        in_flight: handle.gate.in_flight(),
        waiting: handle.waiting().saturating_add(handle.queued()),
        max_concurrent_requests: spec.max_concurrent_requests,
        pid: snapshot.pid,
        gpus: snapshot.gpus.to_vec(),
        progress: snapshot
            .progress
            .as_ref()
            .map(|(words, _)| words.to_string()),
        percent: snapshot.progress.as_ref().map(|(_, percent)| *percent),
        ready_in_seconds: snapshot.ready_in.map(|rest| rest.as_secs()),
        fetch: snapshot.fetch.map(|fetch| FetchView {
            bytes_done: fetch.done,
            bytes_total: fetch.total,
            bytes_per_second: fetch.rate,
            seconds_left: fetch.left.map(|left| left.as_secs()),
        }),
        reason: snapshot.reason.as_ref().map(|told| sight.read(told)),
        live,
        urls: route.map_or_else(Vec::new, |route| urls(admin, route)),
        replicas: snapshot
            .replicas
            .iter()
            .map(|(id, snapshot)| replica(sight, id, snapshot))
            .collect(),
    }
}

fn replica(sight: &Sight, id: &DeploymentId, snapshot: &Snapshot) -> ReplicaView {
    let workers = snapshot.workers.iter();
    let in_flight = workers.map(|worker| worker.gate.in_flight()).sum();
    let status = match snapshot.status {
        Status::Idle if in_flight > 0 => Status::Active,
        status => status,
    };
    ReplicaView {
        id: id.to_string(),
        status: status.as_str().to_owned(),
        phase: snapshot.phase.to_owned(),
        since: snapshot.since,
        in_flight,
        pid: snapshot.pid,
        gpus: snapshot.gpus.to_vec(),
        generation: snapshot.generation.0,
        reason: snapshot.reason.as_ref().map(|told| sight.read(told)),
    }
}

/// Base URLs of a route, the shortest first.
pub(super) fn urls(admin: &Admin, route: &Route) -> Vec<String> {
    let Some(front) = admin.fronts.first() else {
        return Vec::new();
    };
    let base = front.url();
    let of_host = route
        .host
        .as_ref()
        .map(|host| format!("{}/v1", front.url_of(host)));
    let mut urls = vec![format!("{base}/v1"), format!("{base}/{}/v1", route.path)];
    urls.extend(of_host);
    urls
}
