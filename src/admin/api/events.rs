//! Decisions, and the reasons for them.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::error::Answer;
use crate::admin::scope::{self, Which};
use crate::admin::sight::Sight;
use crate::admin::view::{ErrorView, EventView};

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(events))
        .routes(routes!(instance_events))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Number of events, the newest; default 200, at most 1,000.
    tail: Option<usize>,
}

/// Decisions about all deployments that the caller sees, the oldest first.
#[utoipa::path(get, path = "/events", tag = "events", params(EventsQuery), responses(
    (status = 200, body = Vec<EventView>), (status = 401, body = ErrorView)))]
async fn events(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<EventsQuery>,
) -> Json<Vec<EventView>> {
    let tail = query.tail.unwrap_or(200);
    let all = admin.lifecycle.events(None, usize::MAX);
    let sight = Sight::of(&admin.catalog.load(), &caller);
    let mut seen: Vec<EventView> = all
        .iter()
        .rev()
        .filter(|happening| sight.knows(&happening.deployment))
        .take(tail)
        .map(|happening| sight.event(happening))
        .collect();
    seen.reverse();
    Json(seen)
}

/// Decisions about one instance, the oldest first.
#[utoipa::path(get, path = "/instances/{name}/events", tag = "events",
    params(("name" = String, Path, description = "The instance, or INSTANCE%2FMODEL"), EventsQuery),
    responses((status = 200, body = Vec<EventView>), (status = 403, body = ErrorView),
        (status = 404, body = ErrorView)))]
async fn instance_events(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Answer<Vec<EventView>> {
    let tail = query.tail.unwrap_or(200);
    let sight = Sight::of(&admin.catalog.load(), &caller);
    let mut events = Vec::new();
    for handle in scope::deployments(&admin, &caller, &name, &Which::default())? {
        let newest = admin.lifecycle.events(Some(&handle.id), tail);
        events.extend(newest.iter().map(|event| sight.event(event)));
    }
    events.sort_by_key(|event| event.at);
    Ok(Json(events.split_off(events.len().saturating_sub(tail))))
}
