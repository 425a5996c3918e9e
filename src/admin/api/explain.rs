//! Explanation of why a deployment runs or does not.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::error::Answer;
use crate::admin::scope::{self, Which};
use crate::admin::sight::Sight;
use crate::admin::view::{ErrorView, ExplainView};
use crate::config::{Catalog, Name, Route};
use crate::names::DeploymentId;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(explain))
}

/// Reasons why each deployment of an instance runs or does not, and what a start would
/// evict; the same for what a name with parameters of its own leads to. Of a list, first
/// who would be asked now.
#[utoipa::path(get, path = "/instances/{name}/explain", tag = "events",
    params(("name" = String, Path, description = "The instance, INSTANCE%2FMODEL, or a name")),
    responses((status = 200, body = Vec<ExplainView>), (status = 403, body = ErrorView),
        (status = 404, body = ErrorView)))]
async fn explain(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<Vec<ExplainView>> {
    let catalog = admin.catalog.load();
    let sight = Sight::of(&catalog, &caller);
    let chosen = scope::deployments(&admin, &caller, &name, &Which::default());
    let named = named(&catalog, &caller, &name).filter(|_| chosen.is_err());
    let listed = listed(&catalog, &caller, &name);
    let route = named.as_ref().map(|(route, _)| route).or(listed.as_ref());
    let ids: Vec<DeploymentId> = match (chosen, route) {
        (Ok(handles), _) => handles.iter().map(|handle| handle.id.clone()).collect(),
        (Err(_), Some(route)) => {
            let behind = route.behind(&name);
            behind.iter().map(|spec| spec.id.clone()).collect()
        }
        (Err(error), None) => return Err(error),
    };
    let mut explained = Vec::new();
    for id in ids {
        let explanation = admin.lifecycle.explain(&id).await;
        explained.extend(explanation.map(|why| sight.explanation(&why)));
    }
    if let Some((route, named)) = named {
        if !route.upstreams.is_empty() {
            explained.push(elsewhere(&route, &named));
        }
        for view in &mut explained {
            view.lines.insert(0, named.words());
        }
    }
    let lines = listed.map(|_| admin.gateway.choice(&name));
    if let Some(lines) = lines.filter(|lines| !lines.is_empty()) {
        let view = ExplainView {
            deployment: name,
            phase: ExplainView::LIST.to_owned(),
            waits_for: None,
            lines,
            evicts: Vec::new(),
        };
        explained.insert(0, view);
    }
    Ok(Json(explained))
}

/// A name with parameters of its own that leads to a route of the caller's.
fn named(catalog: &Catalog, caller: &Caller, name: &str) -> Option<(Arc<Route>, Arc<Name>)> {
    let mut routes = catalog.routes.iter();
    routes.find_map(|route| {
        let mut all = route.names.iter();
        let found = all.find(|one| one.name.as_str() == name)?;
        let is_own = caller.works_on(route.belonging());
        is_own.then(|| (Arc::clone(route), Arc::clone(found)))
    })
}

/// A route of the caller's to whose list a name leads.
fn listed(catalog: &Catalog, caller: &Caller, name: &str) -> Option<Arc<Route>> {
    let mut routes = catalog.routes.iter();
    let leads = |route: &&Arc<Route>| {
        let of = route.meaning(name);
        let is_called = route.models.iter().any(|model| model.as_str() == of);
        route.targets.is_some() && is_called && caller.works_on(route.belonging())
    };
    routes.find(leads).map(Arc::clone)
}

/// Explanation for servers that someone else runs.
fn elsewhere(route: &Route, named: &Name) -> ExplainView {
    let addresses = route.upstreams.iter();
    let addresses: Vec<String> = addresses.map(|one| one.address.to_string()).collect();
    let line = format!(
        "servers that someone else runs answer: {}",
        addresses.join(", ")
    );
    ExplainView {
        deployment: named.of.to_string(),
        phase: ExplainView::EXTERNAL.to_owned(),
        waits_for: None,
        lines: vec![line],
        evicts: Vec::new(),
    }
}
