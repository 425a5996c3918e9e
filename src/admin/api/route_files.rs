//! Routes made, changed and deleted, by their files in `routes.d`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::ETAG;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::access::Caller;
use crate::admin::audit::Changed;
use crate::admin::change;
use crate::admin::error::{Answer, ApiError, on_disk};
use crate::admin::revisions::revision;
use crate::admin::view::{ErrorView, RouteChanged, RouteFileView};
use crate::admin::{Admin, review, scope};
use crate::config::exchange::{RouteFile, read_file};
use crate::config::{Catalog, Route};
use crate::names::RouteName;
use crate::store::audit::ChangedText;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(put, delete))
}

/// The instance that a route's file describes as well.
fn shared_with(catalog: &Catalog, route: &Route) -> Option<String> {
    let mut instances = catalog.instances.iter();
    let found = instances.find(|instance| instance.file == route.file);
    found.map(|instance| instance.name.to_string())
}

/// The present text of a route's file, and the same as an object for a form.
#[utoipa::path(get, path = "/routes/{name}/file", tag = "routes",
    params(("name" = String, Path, description = "The route")), responses(
    (status = 200, body = RouteFileView, headers(("ETag" = String, description = "The revision"))),
    (status = 403, body = ErrorView), (status = 404, body = ErrorView),
    (status = 409, description = "It stands in the file of an instance", body = ErrorView)))]
async fn show(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let catalog = admin.catalog.load();
    let route = scope::own_route(&catalog, &caller, &name)?;
    alone(&catalog, &route)?;
    let file = route.file.clone();
    let content = on_disk(move || read_file(&file)).await??;
    let tag = revision(&content);
    let parsed = RouteFile::read(&content)?;
    let view = RouteFileView {
        name: route.name.to_string(),
        file: route.file.display().to_string(),
        revision: tag.to_string(),
        text: String::from_utf8_lossy(&content).into_owned(),
        config: parsed.json(),
    };
    Ok(([(ETAG, format!("\"{tag}\""))], Json(view)).into_response())
}

/// Checks that a route's file is its own.
fn alone(catalog: &Catalog, route: &Route) -> Result<(), ApiError> {
    match shared_with(catalog, route) {
        None => Ok(()),
        Some(instance) => Err(ApiError::conflict(format!(
            "the route `{}` stands in the file of the instance `{instance}`: change it there, with PUT instances/{instance}",
            route.name
        ))),
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct PutQuery {
    /// 1: only try it, and change nothing.
    dry_run: u8,
}

/// Make or change a route: the whole text of its file, as TOML or JSON.
#[utoipa::path(put, path = "/routes/{name}", tag = "routes",
    params(("name" = String, Path, description = "The route"),
        ("If-Match" = Option<String>, Header, description = "The revision that the change is made on"),
        PutQuery),
    request_body(content = String, description = "A route file without an instance, TOML or JSON"),
    responses((status = 200, body = RouteChanged), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView), (status = 409, body = ErrorView),
    (status = 412, description = "Changed by someone else meanwhile", body = ErrorView),
    (status = 422, description = "A line for each error", body = ErrorView)))]
async fn put(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<PutQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<RouteChanged> {
    let target = format!("route:{name}");
    let dry_run = query.dry_run != 0;
    let is_new = scope::route(&admin.catalog.load(), &name).is_err();
    let done = try_put(&admin, &caller, &name, &headers, &body, dry_run).await;
    if !dry_run {
        let action = if is_new { "launch" } else { "change" };
        let detail = |put: &RouteChanged| Changed {
            words: put.changed.clone(),
            text: put.text.clone(),
        };
        admin
            .audit
            .told(&caller, action, &target, &done, detail)
            .await;
    }
    done
}

async fn try_put(
    admin: &Admin,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
    body: &[u8],
    dry_run: bool,
) -> Answer<RouteChanged> {
    let name = RouteName::new(name).map_err(|error| ApiError::bad(&error))?;
    let mut new = RouteFile::read(body)?;
    if *new.name() != name {
        return Err(ApiError::bad_text(format!(
            "the body describes the route `{}`, and the path says `{name}`: write one name in both",
            new.name()
        )));
    }
    if new.has_instance() {
        return Err(ApiError::bad_text(
            "this file describes an instance too: use PUT or POST instances for it",
        ));
    }
    let turn = change::turn(admin).await;
    let catalog = admin.catalog.load();
    let found = scope::route(&catalog, name.as_str());
    let was_shared = found.as_ref().is_ok_and(|route| route.workspace.is_none());
    if let Some(own) = caller.confined_to().filter(|_| !was_shared) {
        new.belong_to(own);
    }
    let (path, text, (changed, before)) = match found {
        Ok(route) if route.ephemeral => {
            return Err(ApiError::conflict(format!(
                "the route `{name}` was made for the instance of that name: give this one another name"
            )));
        }
        Ok(_) => {
            let route = scope::own_route(&catalog, caller, name.as_str())?;
            alone(&catalog, &route)?;
            let old = change::present(&route.file, headers).await?;
            let text = new.text_for(&route.file, &old)?;
            let changed = RouteFile::read(&old).map(|old| new.difference(&old));
            let before = String::from_utf8_lossy(&old).into_owned();
            let told = (changed.unwrap_or_default(), Some(before));
            (route.file.clone(), text, told)
        }
        Err(_) => {
            let (syntax, text) = new.file();
            let path = change::new_path(admin, name.as_str(), syntax, "route").await?;
            (path, text, (String::new(), None))
        }
    };
    let after = change::tried(admin, caller, &path, Some(&text))?;
    let tag = revision(text.as_bytes()).to_string();
    let kept = ChangedText {
        before: before.clone(),
        after: Some(text.clone()),
    };
    let review = if dry_run {
        drop(turn);
        Some(review::of(admin, before, text, after).await)
    } else {
        change::write(admin, turn, &path, text, Vec::new()).await?;
        None
    };
    Ok(Json(RouteChanged {
        route: name.to_string(),
        file: path.display().to_string(),
        revision: tag,
        changed,
        text: Some(kept),
        review,
    }))
}

/// Remove a route's file.
#[utoipa::path(delete, path = "/routes/{name}", tag = "routes",
    params(("name" = String, Path, description = "The route"),
        ("If-Match" = Option<String>, Header, description = "The revision that was looked at")),
    responses((status = 204, description = "It is no more"), (status = 403, body = ErrorView),
    (status = 404, body = ErrorView),
    (status = 409, description = "An instance needs it", body = ErrorView),
    (status = 412, description = "Changed by someone else meanwhile", body = ErrorView)))]
async fn delete(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<http::StatusCode, ApiError> {
    let target = format!("route:{name}");
    let done = try_delete(&admin, &caller, &name, &headers).await.map(Json);
    let told = |before: &String| Changed {
        words: String::new(),
        text: Some(ChangedText {
            before: Some(before.clone()),
            after: None,
        }),
    };
    admin
        .audit
        .told(&caller, "delete", &target, &done, told)
        .await;
    done.map(|_| http::StatusCode::NO_CONTENT)
}

async fn try_delete(
    admin: &Admin,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
) -> Result<String, ApiError> {
    let turn = change::turn(admin).await;
    let catalog = admin.catalog.load();
    let route = scope::own_route(&catalog, caller, name)?;
    if route.ephemeral {
        return Err(ApiError::conflict(format!(
            "the route `{name}` was made for an instance, and goes with it"
        )));
    }
    alone(&catalog, &route)?;
    let old = change::present(&route.file, headers).await?;
    change::tried(admin, caller, &route.file, None)?;
    drop(change::remove(admin, turn, &route.file).await?);
    Ok(String::from_utf8_lossy(&old).into_owned())
}
