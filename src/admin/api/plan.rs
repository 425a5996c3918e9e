//! Changes that files would make if they were taken into effect.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::access::Caller;
use crate::admin::error::{ApiError, Code};
use crate::admin::view::{ErrorView, PlanRequest, PlanView};
use crate::admin::{Admin, review};
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
    let previous = admin.catalog.load();
    let settings = Arc::clone(&admin.settings);
    let read = tokio::task::spawn_blocking(move || candidate(&settings, &previous, request));
    let candidate = read
        .await
        .map_err(|error| ApiError::new(Code::Internal, error.to_string()))?;
    let candidate = candidate.map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        ApiError::new(Code::Wrong, lines.join("\n"))
    })?;
    Ok(Json(review::planned(&admin, candidate).await))
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
