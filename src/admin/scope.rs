//! Meaning of a name in a call, and the check that it is the caller's.

use std::sync::Arc;

use serde::Deserialize;
use utoipa::IntoParams;

use super::Admin;
use super::access::Caller;
use super::error::ApiError;
use crate::config::{Catalog, Instance, Route};
use crate::deployment::Handle;
use crate::names::Belonging;
use crate::telemetry::history::Scope;

/// Choice of a deployment of an instance; all where none is named.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// One deployment of the instance, by its endpoint name.
    pub(super) deployment: Option<String>,
}

/// True if a caller works on the instance of this name; on one that stands in no
/// file any more, only admins do.
pub(super) fn works_on(admin: &Admin, caller: &Caller, instance: &str) -> bool {
    let catalog = admin.catalog.load();
    let mut instances = catalog.instances.iter();
    let found = instances.find(|found| found.name.as_str() == instance);
    caller.works_on(found.map_or_else(Belonging::default, |found| found.belonging()))
}

/// The deployments that a name means, if they are the caller's: an instance's, or
/// one by its id.
pub(super) fn deployments(
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
        |nearest| format!("is it `{nearest}`?"),
    );
    let name: String = name.chars().take(80).collect();
    Err(ApiError::not_found(format!(
        "there is no instance `{name}`: {hint}"
    )))
}

/// The instance of this name.
pub(super) fn instance(catalog: &Catalog, name: &str) -> Result<Arc<Instance>, ApiError> {
    let found = catalog.instances.iter().find(|i| i.name.as_str() == name);
    found.cloned().ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        ApiError::not_found(format!("there is no instance `{name}`, or not any more"))
    })
}

/// The instance of this name, if the caller works on it.
pub(super) fn own_instance(
    catalog: &Catalog,
    caller: &Caller,
    name: &str,
) -> Result<Arc<Instance>, ApiError> {
    let instance = instance(catalog, name)?;
    if caller.works_on(instance.belonging()) {
        Ok(instance)
    } else {
        Err(not_yours(&instance.name))
    }
}

/// The route of this name.
pub(super) fn route(catalog: &Catalog, name: &str) -> Result<Arc<Route>, ApiError> {
    let found = catalog
        .routes
        .iter()
        .find(|route| route.name.as_str() == name);
    found.cloned().ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        ApiError::not_found(format!("there is no route `{name}`"))
    })
}

/// The route of this name, if the caller may change it.
pub(super) fn own_route(
    catalog: &Catalog,
    caller: &Caller,
    name: &str,
) -> Result<Arc<Route>, ApiError> {
    let route = route(catalog, name)?;
    if caller.works_on(route.belonging()) {
        Ok(route)
    } else {
        Err(not_yours(&route.name))
    }
}

/// Checks that a caller may see the history of a scope. The figures of the machine as a
/// whole are for every operator.
pub(super) fn check(admin: &Admin, caller: &Caller, scope: &Scope) -> Result<(), ApiError> {
    let may = match scope {
        Scope::Host | Scope::Gpu(_) => true,
        Scope::Instance(name) => works_on(admin, caller, name.as_str()),
        Scope::Deployment(id) | Scope::Worker(id) => works_on(admin, caller, id.instance()),
        Scope::Route(name) => {
            let catalog = admin.catalog.load();
            let route = catalog.routes.iter().find(|route| route.name == *name);
            route.map_or_else(|| caller.is_admin(), |route| caller.sees(route))
        }
    };
    if may { Ok(()) } else { Err(not_yours(scope)) }
}

/// Refusal for someone who reaches for another project.
pub(super) fn not_yours(what: &dyn std::fmt::Display) -> ApiError {
    ApiError::forbidden(&format!(
        "`{what}` does not belong to a project that you work on: ask an admin for a token with its project"
    ))
}
