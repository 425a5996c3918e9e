//! Why a deployment runs or does not.

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

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(explain))
}

/// Why each deployment of an instance runs or does not, and what a start would
/// evict.
#[utoipa::path(get, path = "/instances/{name}/explain", tag = "events",
    params(("name" = String, Path, description = "The instance, or INSTANCE%2FMODEL")),
    responses((status = 200, body = Vec<ExplainView>), (status = 403, body = ErrorView),
        (status = 404, body = ErrorView)))]
async fn explain(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<Vec<ExplainView>> {
    let sight = Sight::of(&admin.catalog.load(), &caller);
    let mut explained = Vec::new();
    for handle in scope::deployments(&admin, &caller, &name, &Which::default())? {
        let explanation = admin.lifecycle.explain(&handle.id).await;
        explained.extend(explanation.map(|why| sight.explanation(&why)));
    }
    Ok(Json(explained))
}
