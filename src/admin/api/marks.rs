//! Happenings that plots mark: starts, wakes, evictions, failures, and edits of files.
//!
//! A mark is seen by those who may see what it tells: the first four as in `GET events`, an
//! edit as in `GET audit`, each within the scope of the plot.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::series::moment;
use super::status::sees;
use crate::admin::access::Caller;
use crate::admin::error::{Answer, ApiError, on_disk};
use crate::admin::sight::Sight;
use crate::admin::touched::is_edit;
use crate::admin::view::{ErrorView, MarkView, MarksView};
use crate::admin::{Admin, scope};
use crate::names::DeploymentId;
use crate::store::audit::{AuditEvent, PAGE_MAX};
use crate::telemetry::history::Scope;
use crate::time::unix_seconds;

/// Most marks of one answer: more than a plot can show apart.
const MARKS_MAX: usize = 200;
/// The span where none is named, in seconds: an hour.
const SPAN: u64 = 3_600;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(marks))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct MarksQuery {
    /// Scope: `instance:NAME`, `deployment:INSTANCE/MODEL`, `route:NAME`; default `host`, which
    /// is all that the caller sees.
    scope: Option<String>,
    /// Start: seconds since 1970, or a span back from now as `1h`, `2d`. Default `1h`.
    since: Option<String>,
    /// End; default now.
    until: Option<String>,
}

/// Starts, wakes, evictions, failures and edits over a span, with their reasons.
#[utoipa::path(get, path = "/marks", tag = "history", params(MarksQuery), responses(
    (status = 200, body = MarksView), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView)))]
async fn marks(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<MarksQuery>,
) -> Answer<MarksView> {
    let scope = query.scope.as_deref().unwrap_or("host");
    let scope = scope
        .parse::<Scope>()
        .map_err(|error| ApiError::bad(&error))?;
    scope::check(&admin, &caller, &scope)?;
    let now = unix_seconds();
    let until = moment(query.until.as_deref(), now, "until")?.unwrap_or(now + 1);
    let since = moment(query.since.as_deref(), now, "since")?;
    let span = since.unwrap_or_else(|| until.saturating_sub(SPAN))..until;

    let sight = Sight::of(&admin.catalog.load(), &caller);
    let (marked, known_since) = admin.lifecycle.marked();
    let seen = marked.iter().filter(|happening| {
        span.contains(&happening.at)
            && sight.knows(&happening.deployment)
            && is_of(&scope, &happening.deployment)
    });
    let mut marks: Vec<MarkView> = seen
        .filter_map(|happening| {
            let kind = happening.mark?.as_str().to_owned();
            let event = sight.event(happening);
            Some(MarkView {
                at: event.at,
                kind,
                of: event.deployment,
                text: event.text,
                by: None,
            })
        })
        .collect();

    let store = admin.store.clone();
    let edits = on_disk(move || {
        store.audit(None, PAGE_MAX, |event| {
            span.contains(&event.at)
                && is_edit(event)
                && is_edit_of(&scope, &event.target)
                && sees(&caller, event)
        })
    });
    let edits = edits.await??;
    marks.extend(edits.into_iter().map(|audited| edit(audited.event)));
    marks.sort_by_key(|mark| mark.at);
    let left_out = marks.len().saturating_sub(MARKS_MAX);
    Ok(Json(MarksView {
        marks: marks.split_off(left_out),
        left_out,
        known_since,
    }))
}

fn edit(event: AuditEvent) -> MarkView {
    let text = if event.detail.is_empty() {
        event.action
    } else {
        format!("{}: {}", event.action, event.detail)
    };
    MarkView {
        at: event.at,
        kind: "edit".to_owned(),
        of: event.target,
        text,
        by: Some(event.who),
    }
}

/// True if what happens to a deployment belongs to the plots of a scope.
fn is_of(scope: &Scope, id: &DeploymentId) -> bool {
    match scope {
        Scope::Host | Scope::Gpu(_) => true,
        Scope::Instance(name) => id.instance() == name.as_str(),
        Scope::Deployment(own) | Scope::Worker(own) => own.has_replica(id),
        Scope::Route(_) => false,
    }
}

/// True if the change of a target belongs to the plots of a scope.
fn is_edit_of(scope: &Scope, target: &str) -> bool {
    let instance = |name: &str| target.strip_prefix("instance:") == Some(name);
    match scope {
        Scope::Host | Scope::Gpu(_) => true,
        Scope::Instance(name) => instance(name.as_str()),
        Scope::Deployment(own) | Scope::Worker(own) => instance(own.instance()),
        Scope::Route(name) => target.strip_prefix("route:") == Some(name.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_belongs_to_the_plots_of_its_own_scopes() {
        let id = DeploymentId::parse("a/m").unwrap();
        for (scope, happens, edits) in [
            ("host", true, true),
            ("gpu:0", true, true),
            ("instance:a", true, true),
            ("instance:b", false, false),
            ("deployment:a/m", true, true),
            ("deployment:a/n", false, true),
            ("deployment:b/m", false, false),
            ("route:a", false, false),
        ] {
            let parsed = scope.parse::<Scope>().unwrap();
            assert_eq!(is_of(&parsed, &id), happens, "{scope}");
            assert_eq!(is_edit_of(&parsed, "instance:a"), edits, "{scope}");
        }
        let route = "route:a".parse::<Scope>().unwrap();
        assert!(is_edit_of(&route, "route:a") && !is_edit_of(&route, "route:ab"));
    }
}
