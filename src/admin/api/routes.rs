//! Routes, and the model endpoints that they lead to.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::instances::{access, urls};
use super::status::with_text;
use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::error::{ApiError, on_disk};
use crate::admin::touched::Touched;
use crate::admin::view::{EndpointView, ErrorView, NameView, RouteView, UpstreamView};
use crate::config::{Catalog, Deployment, Prefer, Route};
use crate::deployment::{Handle, Status};
use crate::telemetry::history::{Scope, Totals};
use crate::time::unix_seconds;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(routes))
        .routes(routes!(endpoints))
        .routes(routes!(upstreams))
}

/// The servers behind each route, workers among them, and how each stands: in,
/// ejected, on probation, or down by its health check.
#[utoipa::path(get, path = "/upstreams", tag = "routes", responses(
    (status = 200, body = Vec<UpstreamView>), (status = 401, body = ErrorView)))]
async fn upstreams(State(admin): State<Admin>, caller: Caller) -> Json<Vec<UpstreamView>> {
    Json(seen_upstreams(&admin, &admin.catalog.load(), &caller))
}

/// The servers of the routes that a caller sees.
pub(super) fn seen_upstreams(
    admin: &Admin,
    catalog: &Catalog,
    caller: &Caller,
) -> Vec<UpstreamView> {
    let seen = catalog.routes.iter().filter(|route| caller.sees(route));
    let seen: HashSet<&str> = seen.map(|route| route.name.as_str()).collect();
    let mut views = admin.gateway.upstreams();
    views.retain(|view| seen.contains(view.route.as_str()));
    views
}

/// Every route that the caller sees.
#[utoipa::path(get, path = "/routes", tag = "routes", responses(
    (status = 200, body = Vec<RouteView>), (status = 401, body = ErrorView)))]
async fn routes(
    State(admin): State<Admin>,
    caller: Caller,
) -> Result<Json<Vec<RouteView>>, ApiError> {
    let catalog = admin.catalog.load();
    on_disk(move || {
        let seen = catalog.routes.iter().filter(|route| caller.sees(route));
        let servers = admin.gateway.upstreams();
        Json(
            seen.map(|route| view(&admin, &catalog, route, &servers))
                .collect(),
        )
    })
    .await
}

/// State of a route with its servers, which are among `servers`. Blocks on the disk.
pub(super) fn view(
    admin: &Admin,
    catalog: &Catalog,
    route: &Route,
    servers: &[UpstreamView],
) -> RouteView {
    let own = route.deployments.iter().map(|spec| spec.id.to_string());
    let foreign = route
        .upstreams
        .iter()
        .map(|upstream| upstream.address.to_string());
    let mut instances: Vec<String> = route
        .deployments
        .iter()
        .map(|spec| spec.instance.to_string())
        .collect();
    instances.dedup();
    let facts = admin.files.facts(&route.file);
    let touched = touched(admin, catalog, route);
    let born = facts.as_ref().and_then(|facts| facts.created);
    let changed = facts.as_ref().map(|facts| facts.updated);
    let of_file = catalog
        .errors
        .iter()
        .filter(|error| error.file == route.file);
    RouteView {
        name: route.name.to_string(),
        path: format!("/{}", route.path),
        urls: urls(admin, route),
        models: route.models.iter().map(ToString::to_string).collect(),
        names: route.names.iter().map(|name| NameView::of(name)).collect(),
        kind: kind(route).to_owned(),
        load_balancing: balancing(route).to_owned(),
        status: status(admin, route, servers).to_owned(),
        access: access(route),
        workspace: route.workspace.as_ref().map(ToString::to_string),
        project: route.belonging().project.map(ToString::to_string),
        enabled: route.enabled,
        ephemeral: route.ephemeral,
        targets: own.chain(foreign).collect(),
        instances,
        file: route.file.display().to_string(),
        created: touched
            .as_ref()
            .and_then(|touched| touched.created)
            .or(born),
        updated: changed,
        updated_by: touched.map_or_else(
            || Some("file".to_owned()),
            |touched| touched.last_by(changed),
        ),
        revision: facts.map(|facts| facts.revision.to_string()),
        errors: of_file.map(with_text).collect(),
    }
}

/// Last change of a route through the API: of itself, or of the instance whose file it
/// stands in.
fn touched(admin: &Admin, catalog: &Catalog, route: &Route) -> Option<Touched> {
    let own = admin.audit.touched(&format!("route:{}", route.name));
    own.or_else(|| {
        let mut instances = catalog.instances.iter();
        let of_file = instances.find(|instance| instance.file == route.file)?;
        let target = format!("instance:{}", of_file.name);
        admin.audit.touched(&target)
    })
}

fn kind(route: &Route) -> &'static str {
    match (route.deployments.is_empty(), route.upstreams.is_empty()) {
        (true, true) => "empty",
        (false, true) => "instances",
        (true, false) => "upstreams",
        (false, false) => "mixed",
    }
}

fn balancing(route: &Route) -> &'static str {
    if let Some(list) = &route.targets {
        return match list.prefer {
            Prefer::Order => "list: in its order",
            Prefer::Awake => "list: who serves already first",
            Prefer::Weight => "list: by weight",
        };
    }
    if route.deployments.len() + route.upstreams.len() > 1 {
        "least busy of two"
    } else {
        "none: one target"
    }
}

fn status(admin: &Admin, route: &Route, servers: &[UpstreamView]) -> &'static str {
    if !route.enabled || kind(route) == "empty" {
        return "not_in_use";
    }
    let handles = route.deployments.iter();
    let handles = handles.filter_map(|spec| admin.registry.get(&spec.id));
    let own: Vec<Status> = handles.map(|handle| handle.status()).collect();
    let failed = own.iter().filter(|s| **s == Status::Failed).count();
    let is_served = own
        .iter()
        .any(|s| matches!(s, Status::Active | Status::Idle));
    let foreign = servers.iter().filter(|server| server.deployment.is_none());
    let foreign = foreign.filter(|server| route.name.as_str() == server.route);
    let (faulty, sound): (Vec<_>, Vec<_>) = foreign.partition(|server| server.is_at_fault());
    match (
        is_served || !sound.is_empty(),
        failed > 0 || !faulty.is_empty(),
    ) {
        (true, false) => "routing",
        (true, true) => "degraded",
        (false, _) if failed < own.len() => "pending",
        (false, _) if own.is_empty() => "down",
        (false, _) => "failed",
    }
}

/// Every model endpoint that the caller sees: active ones, those that load, and
/// the others.
#[utoipa::path(get, path = "/endpoints", tag = "endpoints", responses(
    (status = 200, body = Vec<EndpointView>), (status = 401, body = ErrorView)))]
async fn endpoints(
    State(admin): State<Admin>,
    caller: Caller,
) -> Result<Json<Vec<EndpointView>>, ApiError> {
    let catalog = admin.catalog.load();
    on_disk(move || {
        let seen = catalog
            .routes
            .iter()
            .filter(|route| route.enabled && caller.sees(route));
        let own = seen.clone().flat_map(|route| {
            let handles = route.deployments.iter();
            let handles = handles.filter_map(|spec| admin.registry.get(&spec.id));
            handles
                .map(|handle| own_endpoint(&admin, route, &handle))
                .collect::<Vec<_>>()
        });
        let foreign = seen
            .filter(|route| !route.upstreams.is_empty())
            .map(|route| foreign_endpoint(&admin, route));
        Json(own.chain(foreign).collect())
    })
    .await
}

fn own_endpoint(admin: &Admin, route: &Route, handle: &Handle) -> EndpointView {
    let (spec, snapshot) = (handle.spec(), handle.snapshot());
    let status = handle.status();
    let scope = Scope::Deployment(handle.id.clone());
    let serves = matches!(status, Status::Active | Status::Idle);
    let uptime = unix_seconds().saturating_sub(snapshot.since);
    EndpointView {
        endpoint: spec.endpoint_name.to_string(),
        also: names_of(route, &spec),
        model: spec.model.clone(),
        project: route.belonging().project.map(ToString::to_string),
        instances: vec![spec.instance.to_string()],
        workers: u32::from(snapshot.pid.is_some()),
        status: status.as_str().to_owned(),
        uptime_seconds: serves.then_some(uptime),
        phase: snapshot
            .progress
            .as_ref()
            .map(|(words, _)| words.to_string()),
        percent: snapshot.progress.as_ref().map(|(_, percent)| *percent),
        ready_in_seconds: snapshot.ready_in.map(|rest| rest.as_secs()),
        ..traffic(admin, route, &scope)
    }
}

/// The names with parameters of their own that lead to a deployment.
fn names_of(route: &Route, spec: &Deployment) -> Vec<String> {
    let names = route.names.iter().map(|named| named.name.to_string());
    let leads = |name: &String| route.behind(name).iter().any(|behind| behind.id == spec.id);
    names.filter(leads).collect()
}

/// The servers of a route, under the first name that a client could write: figures are
/// kept by route, so that a row for each name would count every request several times.
fn foreign_endpoint(admin: &Admin, route: &Route) -> EndpointView {
    let known = route
        .upstreams
        .iter()
        .find_map(|upstream| upstream.model.as_ref());
    let mut names: Vec<String> = route.models.iter().map(ToString::to_string).collect();
    // A pattern is no name.
    names.sort_by_key(|name| name.contains('*'));
    names.extend(route.names.iter().map(|name| name.name.to_string()));
    let first = if names.is_empty() {
        route.name.to_string()
    } else {
        names.remove(0)
    };
    EndpointView {
        model: known.map_or_else(|| first.clone(), ToString::to_string),
        endpoint: first,
        also: names,
        project: route.belonging().project.map(ToString::to_string),
        workers: u32::try_from(route.upstreams.len()).unwrap_or(u32::MAX),
        status: "external".to_owned(),
        ..traffic(admin, route, &Scope::Route(route.name.clone()))
    }
}

/// The part of an endpoint that its traffic says.
fn traffic(admin: &Admin, route: &Route, scope: &Scope) -> EndpointView {
    let live = admin.recorder.live(scope);
    let totals = admin.recorder.totals(scope);
    EndpointView {
        endpoint: String::new(),
        also: Vec::new(),
        model: String::new(),
        url: urls(admin, route).into_iter().next().unwrap_or_default(),
        route: route.name.to_string(),
        project: None,
        scope: scope.to_string(),
        instances: Vec::new(),
        workers: 0,
        status: String::new(),
        uptime_seconds: None,
        requests: totals.requests,
        requests_per_minute: live.requests * 60.0,
        latency_mean_seconds: mean(totals),
        latency_p95_seconds: admin.latencies.p95(&admin.history, scope),
        tokens_per_second: live.completion_tokens,
        phase: None,
        percent: None,
        ready_in_seconds: None,
    }
}

fn mean(totals: Totals) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let answered = totals.answered as f64;
    (totals.answered > 0).then(|| totals.answer_seconds / answered)
}
