//! What a token may use: the model that a request names, and `GET /v1/models`,
//! which says how each stands.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use super::body::Body;
use super::error::Refusal;
use super::router::{Backend, Destination, Table, may_use};
use crate::auth::Principal;
use crate::deployment::Status;
use crate::openai::models::{ModelEntry, list_body};

/// Every model that the token may use, on `/v1` or on one route's path.
pub fn list(table: &Table, route: Option<&str>, principal: &Principal) -> Response<Body> {
    let entries: Vec<_> = table
        .names(route)
        .into_iter()
        .filter(|destination| may_use(principal, destination))
        .map(|destination| entry(destination))
        .collect();
    json(list_body(&entries))
}

/// One model; vLLM itself does not serve this.
///
/// # Errors
///
/// [`Refusal::UnknownModel`] for what is not there, or not for this token.
pub fn one(
    table: &Table,
    route: Option<&str>,
    id: &str,
    principal: &Principal,
) -> Result<Response<Body>, Refusal> {
    let found = match route {
        Some(route) => table.by_entrance(route, Some(id)),
        None => table.by_model(id),
    };
    found
        .filter(|destination| may_use(principal, destination))
        .map(|destination| json(entry(&destination).body()))
        .ok_or_else(|| Refusal::UnknownModel(id.chars().take(256).collect()))
}

/// Where the request goes: unknown and forbidden are one answer. Without
/// a name it goes where its path leads, if that is one model.
///
/// # Errors
///
/// A [`Refusal`] where it goes nowhere, or can't be known.
pub fn find(
    table: &Table,
    route: Option<&str>,
    name: Option<&str>,
    principal: &Principal,
) -> Result<Arc<Destination>, Refusal> {
    let name = name.filter(|name| !name.is_empty());
    let found = match (route, name) {
        (Some(route), name) => table.by_entrance(route, name),
        (None, Some(name)) => table.by_model(name),
        (None, None) => return Err(Refusal::NoModel),
    };
    match (found, name) {
        (Some(destination), _) if may_use(principal, &destination) => Ok(destination),
        (_, Some(name)) => Err(Refusal::UnknownModel(name.chars().take(256).collect())),
        // Without a name, on a path that leads to one model only, or to several.
        (Some(_), None) => Err(Refusal::UnknownPath),
        (None, None) => Err(Refusal::NoModel),
    }
}

fn entry(destination: &Destination) -> ModelEntry<'_> {
    // The best of several: a request goes to that one.
    let rank = |status: &Status| match status {
        Status::Active => 0,
        Status::Idle => 1,
        Status::Loading => 2,
        Status::Offloaded => 3,
        Status::Stopping => 4,
        Status::Stopped => 5,
        Status::Failed => 6,
    };
    let statuses = destination
        .targets
        .iter()
        .map(|target| match &target.backend {
            Backend::External(_) => Status::Active,
            Backend::Deployment { handle, .. } => handle.status(),
        });
    let status = statuses.min_by_key(rank).unwrap_or(Status::Stopped);
    let since = destination
        .targets
        .iter()
        .find_map(|target| match &target.backend {
            Backend::External(_) => None,
            Backend::Deployment { handle, .. } => Some(handle.snapshot().since),
        });
    ModelEntry {
        id: destination.name.as_str(),
        created: since.unwrap_or(0),
        owned_by: "tidegate",
        status: Some(status.as_str()),
        max_model_len: None,
    }
}

fn json(text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
