//! What files would change if they were taken into effect.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::view::{ErrorView, PlanRequest, PlanView, PlannedView};
use crate::config::{self, Catalog, FileError};

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(plan))
}

/// Say what would happen, and do nothing: to the files of a directory on this
/// machine, or to files laid over those in effect.
#[utoipa::path(post, path = "/plan", tag = "instances", request_body = PlanRequest, responses(
    (status = 200, body = PlanView), (status = 403, body = ErrorView),
    (status = 422, description = "A file would be wrong", body = ErrorView)))]
async fn plan(
    State(admin): State<Admin>,
    caller: Caller,
    Json(request): Json<PlanRequest>,
) -> Result<Json<PlanView>, ApiError> {
    if !caller.is_admin() {
        return Err(ApiError::forbidden("only an admin may read other files"));
    }
    let before = admin.catalog.load_full();
    let (settings, previous) = (Arc::clone(&admin.settings), Arc::clone(&before));
    let read = tokio::task::spawn_blocking(move || candidate(&settings, &previous, request));
    let candidate = read
        .await
        .map_err(|error| ApiError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let candidate = Arc::new(candidate.map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        ApiError(StatusCode::UNPROCESSABLE_ENTITY, lines.join("\n"))
    })?);
    let planned = admin.lifecycle.plan(Arc::clone(&candidate)).await;
    Ok(Json(PlanView {
        deployments: planned.into_iter().map(PlannedView::from).collect(),
        routes: routes_changed(&before, &candidate),
    }))
}

fn candidate(
    settings: &config::Settings,
    before: &Catalog,
    request: PlanRequest,
) -> Result<Catalog, Vec<FileError>> {
    let mut catalog = match &request.routes {
        Some(routes) => {
            let catalog = config::load_catalog(&PathBuf::from(routes), &settings.queues, None);
            if !catalog.errors.is_empty() {
                return Err(catalog.errors);
            }
            catalog
        }
        None => before.clone(),
    };
    for file in request.files {
        // The name alone: nothing is read or written there.
        let name = file.name.rsplit('/').next().unwrap_or_default().to_owned();
        let path = settings.gateway.routes.join(name);
        catalog = config::with_file(&catalog, &settings.queues, &path, file.text.as_bytes())?;
    }
    Ok(catalog)
}

/// Routes that come, go or differ, in words.
fn routes_changed(before: &Catalog, after: &Catalog) -> Vec<String> {
    let find = |catalog: &Catalog, name: &str| {
        let mut routes = catalog.routes.iter();
        routes.find(|route| route.name.as_str() == name).cloned()
    };
    let names: BTreeSet<&str> = before
        .routes
        .iter()
        .chain(&after.routes)
        .map(|route| route.name.as_str())
        .collect();
    let said = names
        .into_iter()
        .filter_map(|name| match (find(before, name), find(after, name)) {
            (None, Some(_)) => Some(format!("route {name}: new, at once")),
            (Some(_), None) => Some(format!(
                "route {name}: removed, at once; requests inside finish"
            )),
            (Some(old), Some(new)) => {
                let same = old.path == new.path
                    && old.models == new.models
                    && old.access == new.access
                    && old.enabled == new.enabled
                    && old.limits == new.limits
                    && old.timeouts == new.timeouts
                    && old.upstreams == new.upstreams;
                (!same).then(|| format!("route {name}: takes effect at once"))
            }
            (None, None) => None,
        });
    said.collect()
}
