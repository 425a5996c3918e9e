//! The destination of a request, by the name that it asks for and the token that asks.

use std::sync::Arc;

use super::table::{Destination, Table};
use crate::auth::Principal;
use crate::config::Access;
use crate::gateway::refusal::Refusal;

/// True if a token may use what a name leads to. The one place that decides it.
pub fn may_use(principal: &Principal, destination: &Destination) -> bool {
    let route = &destination.route;
    if route.access == Access::Admins && !principal.rules(route.workspace.as_ref()) {
        return false;
    }
    let name = destination.name.as_str();
    principal.may_use(route.belonging(), route.name.as_str(), name)
}

/// Destination that a name leads to, on `/v1` or on a route's own path, if the token may use
/// it. Without a name it is the only one of the path.
pub fn named(
    table: &Table,
    route: Option<&str>,
    name: Option<&str>,
    principal: &Principal,
) -> Option<Arc<Destination>> {
    let found = match route {
        Some(route) => table.by_entrance(route, name),
        None => table.by_model(name?),
    };
    found.filter(|destination| may_use(principal, destination))
}

/// Destination of the request: unknown and forbidden are one answer. Without
/// a name the request goes where its path leads, if that is one model.
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
    named(table, route, name, principal).ok_or_else(|| match (route, name) {
        (_, Some(name)) => unknown(name),
        // One that leads to a model which is not theirs.
        (Some(route), None) if table.by_entrance(route, None).is_some() => Refusal::UnknownPath,
        (_, None) => Refusal::NoModel,
    })
}

/// Refusal of a name that leads nowhere, or nowhere for this token.
pub fn unknown(name: &str) -> Refusal {
    Refusal::UnknownModel(name.chars().take(256).collect())
}
