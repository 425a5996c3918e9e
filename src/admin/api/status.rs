//! `GET status` and `GET audit`.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::seen_upstreams;
use crate::admin::access::Caller;
use crate::admin::error::{Answer, ApiError, on_disk};
use crate::admin::sight::Sight;
use crate::admin::view::{
    AuditPage, AuditText, AuditView, ErrorView, FileErrorView, ProblemView, StatusView,
};
use crate::admin::{Admin, Front};
use crate::auth::Role;
use crate::config::{Catalog, FileError, LostStore};
use crate::deployment::{Handle, Status};
use crate::lifecycle::act::process;
use crate::store::audit::{AuditEvent, Audited};
use crate::time::unix_seconds;

/// Problems that are told; what fails beyond them is seen in the lists.
const PROBLEMS_MAX: usize = 100;

/// Seconds for which a model that requests wait for may have no room before that is told.
const WAIT_MIN: u64 = 10;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(audit))
        .routes(routes!(text))
}

/// State of the process, and all that a person must know.
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
        utc_offset_seconds: utc_offset(),
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

/// Seconds that the clock on the wall is ahead of UTC here.
fn utc_offset() -> i32 {
    jiff::Zoned::now().offset().seconds()
}

/// Failures among the things that a caller sees: models that failed for good first.
fn problems(admin: &Admin, catalog: &Catalog, caller: &Caller) -> Vec<ProblemView> {
    let sight = Sight::of(catalog, caller);
    let own = catalog.instances.iter();
    let own = own.filter(|instance| caller.works_on(instance.belonging()));
    let handles = own.flat_map(|instance| &instance.deployments);
    let all: Vec<_> = handles
        .filter_map(|spec| admin.registry.get(&spec.id))
        .collect();
    let told = |kind: &str, handle: &Handle| {
        let snapshot = handle.snapshot();
        ProblemView {
            kind: kind.to_owned(),
            name: handle.id.to_string(),
            of: handle.spec().instance.to_string(),
            why: snapshot.reason.as_ref().map(|told| sight.read(told)),
            since: Some(snapshot.since),
        }
    };
    let failed = all
        .iter()
        .filter(|handle| handle.status() == Status::Failed);
    let failed = failed.map(|handle| told("deployment", handle));
    let seen = seen_upstreams(admin, catalog, caller).into_iter();
    let out = seen.filter(|server| server.deployment.is_none() && server.is_at_fault());
    let out = out.map(|server| ProblemView {
        kind: "server".to_owned(),
        name: server.address,
        of: server.route,
        why: server.why,
        since: server.since,
    });
    let waiting = all
        .iter()
        .filter(|handle| waits_long(handle))
        .map(|handle| told("waiting", handle));
    failed
        .chain(out)
        .chain(waiting)
        .take(PROBLEMS_MAX)
        .collect()
}

/// True if requests wait for a model that has had no room for long.
fn waits_long(handle: &Handle) -> bool {
    let snapshot = handle.snapshot();
    let waits = handle.waiting().saturating_add(handle.queued()) > 0;
    waits && snapshot.waits_for_room() && unix_seconds().saturating_sub(snapshot.since) >= WAIT_MIN
}

/// Warnings that a person must know and act on.
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
    /// Number of events; at most 500, default 100.
    tail: Option<usize>,
}

/// Changes and the people who made them, newest first: an operator sees their own deeds, an
/// admin all, or those of their workspace.
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
    let events =
        on_disk(move || store.audit(query.before, limit, |event| sees(&caller, event))).await??;
    let next = (events.len() == limit)
        .then(|| events.last().map(|audited| audited.number))
        .flatten();
    let view = |Audited {
                    number,
                    event,
                    has_text,
                }| AuditView {
        id: number,
        at: event.at,
        who: event.who,
        workspace: event.workspace.map(|workspace| workspace.to_string()),
        via: event.via,
        peer: event.peer,
        link_by: event.link_by,
        action: event.action,
        target: event.target,
        outcome: event.outcome,
        detail: event.detail,
        has_text,
    };
    Ok(Json(AuditPage {
        events: events.into_iter().map(view).collect(),
        next,
    }))
}

/// True if an event is theirs to see.
pub(super) fn sees(caller: &Caller, event: &AuditEvent) -> bool {
    let workspace = event.workspace.as_ref();
    let role = event.role.unwrap_or(Role::Admin);
    caller.rules(workspace, role) || caller.is(workspace, &event.who)
}

/// A file before a change and after it, without its secrets.
#[utoipa::path(get, path = "/audit/{id}/text", tag = "status",
    params(("id" = u64, Path, description = "The number of the change")), responses(
    (status = 200, body = AuditText), (status = 401, body = ErrorView),
    (status = 404, description = "There is none, or it is not kept any more", body = ErrorView)))]
async fn text(
    State(admin): State<Admin>,
    caller: Caller,
    Path(id): Path<u64>,
) -> Answer<AuditText> {
    let store = admin.store.clone();
    let found = on_disk(move || store.audit_text(id)).await??;
    let (event, text) = found.filter(|(event, _)| sees(&caller, event)).ok_or_else(|| {
        ApiError::not_found("the text of this change is not kept: only those of the newest are, and no long ones")
    })?;
    Ok(Json(AuditText {
        target: event.target,
        before: text.before,
        after: text.after,
    }))
}
