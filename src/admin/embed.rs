//! Plots shown elsewhere: links that need no login, and show one plot only.
//!
//! A link holds the id of a record and a signature of it. The record says what is
//! shown, until when, and holds the key of the signature; deleting it ends the
//! link at once. It shows what its maker may see, and ends with their right:
//! with their token, and when what it shows is no longer theirs. Under the link stand
//! a live page for iframes, and a picture for places that take only pictures. Other
//! sites may frame the page, and nothing else of ours.

mod pages;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Admin;
use super::access::{Caller, Via};
use super::api::series::{parse_metrics, span, title};
use super::embeds::Embed;
use super::error::{Answer, ApiError, on_disk};
use super::scope;
use super::session::{self, Grant};
use super::view::{EmbedRequest, EmbedView, ErrorView};
use crate::auth::{NoRandomBytes, ulid};
use crate::telemetry::history::Scope;
use crate::time::unix_seconds;

/// Life of a link where none is given, in seconds: 30 days.
const TTL: u64 = 30 * 86_400;
/// The longest, in seconds: a year.
const TTL_MAX: u64 = 366 * 86_400;
/// The span where nothing is said, in seconds: an hour.
const SPAN: u64 = 3_600;
/// The longest, in seconds: what is kept.
const SPAN_MAX: u64 = 90 * 86_400;
/// Most characters of a heading.
const TITLE_CHARS_MAX: usize = 120;

pub(super) use pages::router;

pub(super) fn api() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

/// Links that work: an operator sees those of their projects that were made in their
/// workspace.
#[utoipa::path(get, path = "/embeds", tag = "history", responses(
    (status = 200, body = Vec<EmbedView>), (status = 401, body = ErrorView)))]
async fn list(State(admin): State<Admin>, caller: Caller) -> Json<Vec<EmbedView>> {
    let now = admin.store.clock().seconds();
    let base = admin.url().unwrap_or_default();
    let all = admin.embeds.all.load();
    let seen = all.iter().filter(|(_, embed)| {
        embed.expires > now && embed.is_of(&admin, &caller).is_ok() && embed.is_rightful(&admin)
    });
    Json(seen.map(|(id, embed)| embed.view(id, base)).collect())
}

/// Make a link that shows one plot to whoever has it, read-only.
#[utoipa::path(post, path = "/embeds", tag = "history", request_body = EmbedRequest, responses(
    (status = 200, body = EmbedView), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView),
    (status = 409, description = "Too many, or the HTTPS listener is off", body = ErrorView)))]
async fn create(
    State(admin): State<Admin>,
    caller: Caller,
    Json(request): Json<EmbedRequest>,
) -> Answer<EmbedView> {
    let Some(base) = admin.url().map(str::to_owned) else {
        let message =
            "no one could open it, as the dashboard is off: set [admin] listen in tidegate.toml";
        return Err(ApiError::conflict(message.to_owned()));
    };
    let scope = request
        .scope
        .parse::<Scope>()
        .map_err(|error| ApiError::bad(&error))?;
    let target = format!("embed:{scope}");
    if let Err(error) = scope::check(&admin, &caller, &scope) {
        admin
            .audit
            .refused(&caller, "embed.create", &target, &error.message)
            .await;
        return Err(error);
    }
    let embed = embed(&caller, &scope, &request)?;
    let id = ulid(admin.store.clock().now()).map_err(|error| ApiError::internal(&error))?;
    let view = embed.view(&id, &base);
    let embeds = Arc::clone(&admin.embeds);
    on_disk(move || embeds.add(id, embed)).await??;
    let detail = format!("{} {}", view.id, view.metrics.join(","));
    admin
        .audit
        .done(&caller, "embed.create", &target, &detail)
        .await;
    Ok(Json(view))
}

fn embed(caller: &Caller, scope: &Scope, request: &EmbedRequest) -> Result<Embed, ApiError> {
    let metrics = parse_metrics(request.metrics.iter().map(String::as_str))?;
    let unit = metrics.first().map(|metric| metric.unit());
    if metrics.iter().any(|metric| Some(metric.unit()) != unit) {
        return Err(ApiError::bad_text(
            "the metrics of one plot have one unit: make a link for each of the others",
        ));
    }
    let now = unix_seconds();
    let ttl = span(request.ttl.as_deref(), "ttl")?.unwrap_or(TTL);
    let back = span(request.span.as_deref(), "span")?.unwrap_or(SPAN);
    if !(60..=TTL_MAX).contains(&ttl) {
        return Err(ApiError::bad_text("ttl: a link works from 1m to 366d"));
    }
    if !(60..=SPAN_MAX).contains(&back) {
        return Err(ApiError::bad_text("span: a plot shows from 1m to 90d"));
    }
    let heading = request
        .title
        .as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty());
    let made = || {
        let titles: Vec<String> = metrics.iter().copied().map(title).collect();
        format!("{} of {scope}", titles.join(", "))
    };
    let heading = heading.map_or_else(made, str::to_owned);
    let plain = |c: &char| !c.is_control();
    let token_ends = caller
        .token
        .as_ref()
        .map_or(u64::MAX, |token| token.expires);
    Ok(Embed {
        scope: scope.to_string(),
        metrics: metrics.iter().map(ToString::to_string).collect(),
        span: back,
        title: heading
            .chars()
            .filter(plain)
            .take(TITLE_CHARS_MAX)
            .collect(),
        created_by: caller.name.to_string(),
        maker: Some(caller.grant()),
        created: now,
        expires: (now + ttl).min(token_ends),
        key: session::random().map_err(|error: NoRandomBytes| ApiError::internal(&error))?,
    })
}

/// End a link: it shows nothing from now on.
#[utoipa::path(delete, path = "/embeds/{id}", tag = "history",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It shows nothing any more"), (status = 403, body = ErrorView),
    (status = 404, body = ErrorView)))]
async fn revoke(
    State(admin): State<Admin>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let all = admin.embeds.all.load_full();
    let Some((_, embed)) = all.iter().find(|(known, _)| *known == id) else {
        return Err(ApiError::not_found("there is no such link"));
    };
    let target = format!("embed:{}", embed.scope);
    if let Err(error) = embed.is_of(&admin, &caller) {
        admin
            .audit
            .refused(&caller, "embed.revoke", &target, &error.message)
            .await;
        return Err(error);
    }
    let (embeds, ended) = (Arc::clone(&admin.embeds), id.clone());
    on_disk(move || embeds.remove(&ended)).await??;
    admin
        .audit
        .done(&caller, "embed.revoke", &target, &id)
        .await;
    Ok(StatusCode::NO_CONTENT)
}

/// The link of an id and signature, while it works and its maker may see what it shows.
fn find(admin: &Admin, link: &str) -> Option<Arc<Embed>> {
    let signed = admin.embeds.signed(link);
    signed.filter(|embed| embed.is_rightful(admin))
}

impl Embed {
    /// True if the maker of the link may still see what it shows.
    fn is_rightful(&self, admin: &Admin) -> bool {
        let Some(maker) = &self.maker else {
            // Of before makers were kept: no token has a subject with a space, so that
            // these two are who they say, and others are no one that is known.
            return [&*Caller::socket().name, Grant::LINK].contains(&&*self.created_by);
        };
        let scope = self.scope.parse::<Scope>();
        let caller = Caller::of_grant(maker, Via::Token);
        !maker.is_revoked(&admin.revocations)
            && scope.is_ok_and(|scope| scope::check(admin, &caller, &scope).is_ok())
    }

    /// Checks that a caller sees and ends the link: it is of their workspace and theirs to see.
    fn is_of(&self, admin: &Admin, caller: &Caller) -> Result<(), ApiError> {
        let scope = self.scope.parse::<Scope>();
        let scope = scope.map_err(|error| ApiError::bad(&error))?;
        scope::check(admin, caller, &scope)?;
        if caller.is_admin() || caller.workspace() == self.workspace() {
            return Ok(());
        }
        Err(ApiError::forbidden(
            "this link was made by someone of another workspace: ask an admin",
        ))
    }
}

#[cfg(test)]
mod tests;
