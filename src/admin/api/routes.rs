//! Routes, and the model endpoints that they lead to.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, on_disk};
use super::instances::{access, urls};
use super::status::with_text;
use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::touched::Touched;
use crate::admin::view::{EndpointView, ErrorView, RouteView, UpstreamView};
use crate::config::{Catalog, Deployment, Route};
use crate::deployment::{Handle, Status};
use crate::names::Project;
use crate::store::history::History;
use crate::telemetry::history::{Metric, Quantile, Scope, Times, Totals};
use crate::time::unix_seconds;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(routes))
        .routes(routes!(endpoints))
        .routes(routes!(upstreams))
}

/// The project that a route belongs to.
pub(in crate::admin) fn project(route: &Route) -> Option<&Project> {
    route.belonging().project
}

/// The servers behind each route, workers among them, and how each stands: in,
/// ejected, on probation, or down by its health check.
#[utoipa::path(get, path = "/upstreams", tag = "routes", responses(
    (status = 200, body = Vec<UpstreamView>), (status = 401, body = ErrorView)))]
async fn upstreams(State(admin): State<Admin>, caller: Caller) -> Json<Vec<UpstreamView>> {
    let catalog = admin.catalog.load();
    let mut views = admin.gateway.upstreams();
    views.retain(|view| {
        let mut routes = catalog.routes.iter();
        let route = routes.find(|route| route.name.as_str() == view.route);
        route.is_some_and(|route| sees(&caller, route))
    });
    Json(views)
}

/// Whether a caller sees a route: theirs, and public ones.
pub(super) fn sees(caller: &Caller, route: &Route) -> bool {
    caller.sees(route)
}

/// Every route that the caller sees.
#[utoipa::path(get, path = "/routes", tag = "routes", responses(
    (status = 200, body = Vec<RouteView>), (status = 401, body = ErrorView)))]
async fn routes(
    State(admin): State<Admin>,
    caller: Caller,
) -> Result<Json<Vec<RouteView>>, ApiError> {
    let catalog = admin.catalog.load_full();
    on_disk(move || {
        let seen = catalog.routes.iter().filter(|route| sees(&caller, route));
        Json(seen.map(|route| view(&admin, &catalog, route)).collect())
    })
    .await
}

/// How a route stands. Blocks on the disk.
pub(super) fn view(admin: &Admin, catalog: &Catalog, route: &Route) -> RouteView {
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
        kind: kind(route).to_owned(),
        load_balancing: balancing(route).to_owned(),
        status: status(admin, route).to_owned(),
        access: access(route),
        workspace: route.workspace.as_ref().map(ToString::to_string),
        project: project(route).map(ToString::to_string),
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

/// Who last changed a route through the API: itself, or the instance whose file it
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
    if route.deployments.len() + route.upstreams.len() > 1 {
        "least busy of two"
    } else {
        "none: one target"
    }
}

fn status(admin: &Admin, route: &Route) -> &'static str {
    if !route.enabled || kind(route) == "empty" {
        return "not_in_use";
    }
    let serves = |spec: &std::sync::Arc<Deployment>| {
        let handle = admin.registry.get(&spec.id);
        handle.is_some_and(|handle| matches!(handle.status(), Status::Active | Status::Idle))
    };
    if !route.upstreams.is_empty() || route.deployments.iter().any(serves) {
        "routing"
    } else {
        "pending"
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
    let catalog = admin.catalog.load_full();
    on_disk(move || {
        let seen = catalog
            .routes
            .iter()
            .filter(|route| route.enabled && sees(&caller, route));
        let own = seen.clone().flat_map(|route| {
            let handles = route.deployments.iter();
            let handles = handles.filter_map(|spec| admin.registry.get(&spec.id));
            handles
                .map(|handle| own_endpoint(&admin, route, &handle))
                .collect::<Vec<_>>()
        });
        let foreign = seen
            .filter(|route| !route.upstreams.is_empty())
            .flat_map(|route| foreign_endpoints(&admin, route));
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
        model: spec.model.clone(),
        project: project(route).map(ToString::to_string),
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

fn foreign_endpoints(admin: &Admin, route: &Route) -> Vec<EndpointView> {
    let scope = Scope::Route(route.name.clone());
    let known = route
        .upstreams
        .iter()
        .find_map(|upstream| upstream.model.as_ref());
    let workers = u32::try_from(route.upstreams.len()).unwrap_or(u32::MAX);
    let named = route.models.iter().map(|name| EndpointView {
        endpoint: name.to_string(),
        model: known.unwrap_or(name).to_string(),
        project: project(route).map(ToString::to_string),
        workers,
        status: "external".to_owned(),
        ..traffic(admin, route, &scope)
    });
    named.collect()
}

/// The part of an endpoint that its traffic says.
fn traffic(admin: &Admin, route: &Route, scope: &Scope) -> EndpointView {
    let live = admin.recorder.live(scope);
    let totals = admin.recorder.totals(scope);
    EndpointView {
        endpoint: String::new(),
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

/// Seconds for which a latency of the last hour is shown again.
const LATENCY_KEPT: u64 = 30;
/// Most scopes that are remembered; beyond, all are asked for again.
const SCOPES_MAX: usize = 10_000;

/// The 95th percentiles of the last hour, each asked of the history now and then:
/// many dashboards may look at many endpoints every few seconds.
#[derive(Debug, Default)]
pub(in crate::admin) struct Latencies {
    /// When it was asked, and what it was; locked for a look-up, never over the disk.
    known: Mutex<HashMap<Scope, (u64, Option<f64>)>>,
}

impl Latencies {
    /// That of a scope. May block on the disk.
    fn p95(&self, history: &History, scope: &Scope) -> Option<f64> {
        let now = unix_seconds();
        let known = self.lock().get(scope).copied();
        if let Some((at, value)) = known
            && now.saturating_sub(at) < LATENCY_KEPT
        {
            return value;
        }
        let metric = Metric::Quantile(Times::Latency, Quantile::P95);
        let since = now.saturating_sub(3_600);
        // Two steps at most, as they begin at multiples of their length.
        let asked = history.query(scope, metric, since, now, 3_600);
        let value = asked
            .ok()
            .and_then(|points| points.last().map(|(_, value)| *value));
        let mut known = self.lock();
        if known.len() >= SCOPES_MAX {
            known.clear();
        }
        known.insert(scope.clone(), (now, value));
        value
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, (u64, Option<f64>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
