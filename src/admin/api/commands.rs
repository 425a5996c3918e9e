//! Starting, stopping, unloading, offloading and waking; and which deployments a name means.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{Answer, ApiError};
use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::view::{Accepted, ErrorView};
use crate::deployment::Handle;
use crate::lifecycle::Command;
use crate::names::Belonging;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(command))
}

/// Which deployment of an instance is meant; all where none is named.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// One deployment of the instance, by its endpoint name.
    pub(super) deployment: Option<String>,
}

/// Whether a caller works on the instance of this name; on one that stands in no
/// file any more, only admins do.
pub(in crate::admin) fn works_on(admin: &Admin, caller: &Caller, instance: &str) -> bool {
    let catalog = admin.catalog.load();
    let mut instances = catalog.instances.iter();
    let found = instances.find(|found| found.name.as_str() == instance);
    caller.works_on(found.map_or_else(Belonging::default, |found| found.belonging()))
}

/// The deployments that a name means, if they are the caller's: an instance's, or
/// one by its id.
pub(super) fn find(
    admin: &Admin,
    caller: &Caller,
    name: &str,
    which: &Which,
) -> Result<Vec<Arc<Handle>>, ApiError> {
    let all = admin.registry.all();
    let is_meant = |handle: &Arc<Handle>| {
        let spec = handle.spec();
        let of_name = spec.instance.as_str() == name || handle.id.as_str() == name;
        let of_deployment = |wanted: &str| wanted == spec.endpoint_name.as_str();
        of_name && which.deployment.as_deref().is_none_or(of_deployment)
    };
    let chosen: Vec<_> = all
        .iter()
        .filter(|handle| is_meant(handle))
        .cloned()
        .collect();
    if let Some(first) = chosen.first() {
        let instance = first.spec().instance.clone();
        if works_on(admin, caller, instance.as_str()) {
            return Ok(chosen);
        }
        return Err(not_yours(&instance));
    }
    let mut seen = all.clone();
    seen.retain(|handle| works_on(admin, caller, handle.spec().instance.as_str()));
    let seen = seen.iter();
    let known = seen.map(|handle| handle.spec().instance.to_string());
    let nearest = known.min_by_key(|known| strsim::levenshtein(known, name));
    let hint = nearest.map_or_else(
        || "no instance is configured".to_owned(),
        |nearest| format!("is it `{nearest}`? see `tidegate ps`"),
    );
    let name: String = name.chars().take(80).collect();
    Err(ApiError::not_found(format!(
        "there is no instance `{name}`: {hint}"
    )))
}

/// What someone is told who reaches for another project.
pub(in crate::admin) fn not_yours(what: &dyn std::fmt::Display) -> ApiError {
    ApiError::forbidden(&format!(
        "`{what}` does not belong to a project that you work on: ask an admin for a token with its project"
    ))
}

/// Tell an instance to start, stop, unload, offload or wake. Answers once that has begun.
#[utoipa::path(post, path = "/instances/{name}/{command}", tag = "instances",
    params(("name" = String, Path, description = "The instance, or INSTANCE%2FMODEL"),
        ("command" = String, Path, description = "start, stop, unload, offload or wake"), Which),
    responses((status = 200, body = Accepted),
        (status = 403, description = "Of another project", body = ErrorView),
        (status = 404, body = ErrorView),
        (status = 409, description = "It can't be done as it stands", body = ErrorView)))]
async fn command(
    State(admin): State<Admin>,
    caller: Caller,
    Path((name, command)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Answer<Accepted> {
    let (word, command) = match command.as_str() {
        "start" => ("start", Command::Start),
        "stop" => ("stop", Command::Stop),
        "unload" => ("unload", Command::Unload),
        "offload" => ("offload", Command::Offload),
        "wake" => ("wake", Command::Wake),
        _ => {
            return Err(ApiError::not_found(
                "there is no such command: use start, stop, unload, offload, wake or clone",
            ));
        }
    };
    let target = format!("instance:{name}");
    let handles = match find(&admin, &caller, &name, &which) {
        Ok(handles) => handles,
        Err(error) => {
            if error.0 == StatusCode::FORBIDDEN {
                admin.audit.refused(&caller, word, &target, &error.1).await;
            }
            return Err(error);
        }
    };
    let mut accepted = Vec::new();
    for handle in handles {
        if let Err(error) = admin.lifecycle.command(&handle.id, command).await {
            let message = format!("{}: {error}", handle.id);
            admin.audit.failed(&caller, word, &target, &message).await;
            return Err(ApiError(StatusCode::CONFLICT, message));
        }
        accepted.push(handle.id.to_string());
    }
    admin
        .audit
        .done(&caller, word, &target, &accepted.join(", "))
        .await;
    Ok(Json(Accepted { accepted }))
}
