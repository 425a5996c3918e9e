//! `GET options`: what the launch form is made of.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::error::{Answer, ApiError};
use crate::admin::view::ErrorView;
use crate::vllm::options::render;
use crate::vllm::versions::Version;

/// The version that is shown when none is named: the newest that is built in.
const NEWEST: Version = Version::new(0, 32, 0);

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(options))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct OptionsQuery {
    /// Version as `0.32.0`; default: the newest that is known.
    vllm_version: Option<String>,
}

/// Every option of a deployment: group, label, help, default, choices, bounds,
/// whether the version has it, and what becomes of it. As
/// `tidegate options --format json` prints it.
#[utoipa::path(get, path = "/options", tag = "options", params(OptionsQuery), responses(
    (status = 200, body = Object), (status = 400, body = ErrorView)))]
async fn options(
    State(_): State<Admin>,
    _caller: Caller,
    Query(query): Query<OptionsQuery>,
) -> Answer<serde_json::Value> {
    let version = match query.vllm_version.as_deref().map(str::trim) {
        None | Some("") => NEWEST,
        Some(text) => text
            .parse::<Version>()
            .map_err(|error| ApiError::bad_text(error.to_string()))?,
    };
    Ok(Json(render::json_value(version)))
}
