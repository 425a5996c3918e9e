//! Contents of a link: the live page, the picture, the values.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use super::find;
use crate::admin::api::series::{Ask, read};
use crate::admin::chart::{self, Look, Theme};
use crate::admin::embeds::Embed;
use crate::admin::error::{ApiError, on_disk};
use crate::admin::view::SeriesView;
use crate::admin::{Admin, dashboard};
use crate::telemetry::history::{Metric, Scope};
use crate::time::unix_seconds;

/// Points of a picture, at most: more would not be seen.
const POINTS: u64 = 360;

/// A picture loads nothing; its drawing is styled in place.
const PICTURE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

/// Pages and pictures, which need no login: the link is the permission.
pub(in crate::admin) fn router() -> Router<Admin> {
    Router::new()
        .route("/embed/{link}", get(page))
        .route("/embed/{link}/plot.svg", get(picture))
        .route("/embed/{link}/data.json", get(data))
}

/// Query for a picture.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LookQuery {
    theme: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
}

impl LookQuery {
    fn theme(&self) -> Theme {
        match self.theme.as_deref() {
            Some("dark") => Theme::Dark,
            _ => Theme::Light,
        }
    }
}

/// Answer for a link that shows nothing; the same for all causes.
fn gone() -> Response {
    let text = "This link has ended, was revoked, or is not whole.";
    (
        StatusCode::NOT_FOUND,
        [(CONTENT_TYPE, "text/plain; charset=utf-8")],
        text,
    )
        .into_response()
}

/// Any site may show it.
const SHARED: (HeaderName, &str) = (
    HeaderName::from_static("cross-origin-resource-policy"),
    "cross-origin",
);

/// The live page: the same plot as on the dashboard, with values under the pointer.
async fn page(State(admin): State<Admin>, Path(link): Path<String>) -> Response {
    if find(&admin, &link).is_none() {
        return gone();
    }
    ([SHARED], dashboard::embedded(&link)).into_response()
}

/// The picture.
async fn picture(
    State(admin): State<Admin>,
    Path(link): Path<String>,
    Query(query): Query<LookQuery>,
) -> Response {
    let Some(embed) = find(&admin, &link) else {
        return gone();
    };
    let look = Look::new(query.width, query.height, query.theme());
    let heading = embed.title.clone();
    let drawn = ask(&admin, &embed, move |view| {
        chart::svg(&heading, view, look).map_err(|error| ApiError::internal(&error))
    });
    match drawn.await {
        Ok(svg) => {
            let headers = [
                (CONTENT_TYPE, "image/svg+xml"),
                (CACHE_CONTROL, "public, max-age=10"),
                (CONTENT_SECURITY_POLICY, PICTURE_POLICY),
                SHARED,
            ];
            (headers, svg).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Values that the live page draws.
#[derive(Serialize)]
struct Values {
    /// The heading.
    title: String,
    #[serde(flatten)]
    view: SeriesView,
}

/// The values, for a page that draws them itself.
async fn data(State(admin): State<Admin>, Path(link): Path<String>) -> Response {
    let Some(embed) = find(&admin, &link) else {
        return gone();
    };
    match ask(&admin, &embed, |view| Ok(view.clone())).await {
        Ok(view) => {
            let title = embed.title.clone();
            Json(Values { title, view }).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn ask<T: Send + 'static>(
    admin: &Admin,
    embed: &Embed,
    show: impl FnOnce(&SeriesView) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let scope = embed
        .scope
        .parse::<Scope>()
        .map_err(|error| ApiError::bad(&error))?;
    let metrics: Result<Vec<Metric>, _> = embed.metrics.iter().map(|name| name.parse()).collect();
    let until = unix_seconds() + 1;
    let ask = Ask {
        scope,
        metrics: metrics.map_err(|error| ApiError::bad(&error))?,
        since: until.saturating_sub(embed.span),
        until,
        step: embed.span / POINTS,
    };
    let history = Arc::clone(&admin.history);
    let drawing = Arc::clone(&admin.embeds.drawing);
    // It is never closed.
    let _one = drawing.acquire_owned().await;
    on_disk(move || show(&read(&history, &ask)?)).await?
}
