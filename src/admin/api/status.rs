//! `GET status` and `GET audit`.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::seen_upstreams;
use crate::admin::access::Caller;
use crate::admin::error::{Answer, on_disk};
use crate::admin::sight::Sight;
use crate::admin::view::{AuditPage, AuditView, ErrorView, FileErrorView, ProblemView, StatusView};
use crate::admin::{Admin, Front};
use crate::auth::Role;
use crate::config::{Catalog, FileError, LostStore};
use crate::deployment::Status;
use crate::lifecycle::act::process;
use crate::time::unix_seconds;

/// Problems that are told; what fails beyond them is seen in the lists.
const PROBLEMS_MAX: usize = 100;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(audit))
}

/// How the process stands, and what a person must know.
#[utoipa::path(get, path = "/status", tag = "status", responses(
    (status = 200, body = StatusView), (status = 401, body = ErrorView)))]
async fn status(State(admin): State<Admin>, caller: Caller) -> Json<StatusView> {
    let catalog = admin.catalog.load();
    // Files and their errors tell of other projects too.
    let certificates = admin.certificate_errors.load();
    let errors = catalog.errors.iter().chain(certificates.iter());
    let errors = errors.filter(|_| caller.is_admin());
    let errors: Vec<FileError> = errors.cloned().collect();
    let config_errors = on_disk(move || errors.iter().map(with_text).collect()).await;
    let asked = admin.clone();
    let warnings = on_disk(move || warnings(&asked)).await;
    Json(StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: admin.started,
        now: unix_seconds(),
        directory: admin.directory.display().to_string(),
        listen: admin.fronts.iter().map(Front::url).collect(),
        admin: admin.url().map(str::to_owned),
        metrics: admin
            .settings
            .metrics
            .listen
            .map(|a| format!("http://{a}/metrics")),
        routes: catalog.routes.iter().filter(|route| route.enabled).count(),
        config_errors: config_errors.unwrap_or_default(),
        warnings: warnings.unwrap_or_default(),
        problems: problems(&admin, &catalog, &caller),
        isolation: isolation(&admin).ok().map(str::to_owned),
    })
}

/// What fails of what a caller sees: models that failed for good first.
fn problems(admin: &Admin, catalog: &Catalog, caller: &Caller) -> Vec<ProblemView> {
    let sight = Sight::of(catalog, caller);
    let own = catalog.instances.iter();
    let own = own.filter(|instance| caller.works_on(instance.belonging()));
    let handles = own.flat_map(|instance| &instance.deployments);
    let handles = handles.filter_map(|spec| admin.registry.get(&spec.id));
    let failed = handles.filter(|handle| handle.status() == Status::Failed);
    let failed = failed.map(|handle| {
        let snapshot = handle.snapshot();
        ProblemView {
            kind: "deployment".to_owned(),
            name: handle.id.to_string(),
            of: handle.spec().instance.to_string(),
            why: snapshot.reason.as_ref().map(|told| sight.read(told)),
            since: Some(snapshot.since),
        }
    });
    let seen = seen_upstreams(admin, catalog, caller).into_iter();
    let out = seen.filter(|server| server.deployment.is_none() && server.is_at_fault());
    let out = out.map(|server| ProblemView {
        kind: "server".to_owned(),
        name: server.address,
        of: server.route,
        why: server.why,
        since: None,
    });
    failed.chain(out).take(PROBLEMS_MAX).collect()
}

/// What a person must know and do.
fn warnings(admin: &Admin) -> Vec<String> {
    let unread = admin.gpus.readings.latest().fault.clone();
    let unread = unread.map(|why| {
        format!("The GPUs can't be read: {why}. What was read last stays in use, and memory that others take since is not seen.")
    });
    let accepts_lost = admin.settings.tokens.lost_store == LostStore::Accept;
    let store = admin.store.warnings(accepts_lost).into_iter();
    let open = isolation(admin).err().map(str::to_owned);
    store
        .chain(admin.history.degraded())
        .chain(unread)
        .chain(open)
        .collect()
}

fn isolation(admin: &Admin) -> Result<&'static str, &'static str> {
    process::isolation(&admin.settings.workers.sandbox)
}

/// An error with the text of its line.
pub(super) fn with_text(error: &FileError) -> FileErrorView {
    let mut view = FileErrorView::from(error);
    // Certificates and keys are files with errors too, and are not shown.
    if !error
        .file
        .extension()
        .is_some_and(|end| end == "toml" || end == "json")
    {
        return view;
    }
    let content = crate::config::exchange::read_file(&error.file).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let line = error
        .line
        .and_then(|line| content.lines().nth(line.checked_sub(1)?));
    view.text = line.map(|line| line.chars().take(200).collect());
    view
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only events before this number: [`AuditPage::next`].
    before: Option<u64>,
    /// How many; at most 500, default 100.
    tail: Option<usize>,
}

/// Who changed what, the newest first: an operator sees their own deeds, an admin all, or
/// those of their workspace.
#[utoipa::path(get, path = "/audit", tag = "status", params(AuditQuery), responses(
    (status = 200, body = AuditPage), (status = 401, body = ErrorView)))]
async fn audit(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Answer<AuditPage> {
    let limit = query
        .tail
        .unwrap_or(100)
        .clamp(1, crate::store::audit::PAGE_MAX);
    let store = admin.store.clone();
    let events = on_disk(move || {
        let seen = |event: &crate::store::audit::AuditEvent| {
            let workspace = event.workspace.as_ref();
            let role = event.role.unwrap_or(Role::Admin);
            caller.rules(workspace, role) || caller.is(workspace, &event.who)
        };
        store.audit(query.before, limit, seen)
    })
    .await??;
    let next = (events.len() == limit)
        .then(|| events.last().map(|(id, _)| *id))
        .flatten();
    let events = events.into_iter().map(|(id, event)| AuditView {
        id,
        at: event.at,
        who: event.who,
        workspace: event.workspace.map(|workspace| workspace.to_string()),
        via: event.via,
        peer: event.peer,
        action: event.action,
        target: event.target,
        outcome: event.outcome,
        detail: event.detail,
    });
    Ok(Json(AuditPage {
        events: events.collect(),
        next,
    }))
}
