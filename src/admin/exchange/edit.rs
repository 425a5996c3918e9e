//! Instances that are there, changed and deleted.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path as Named, Query, State};
use http::HeaderMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Deleted, LaunchQuery, Launched, check_secrets, is_of, read};
use crate::admin::access::Caller;
use crate::admin::audit::Changed;
use crate::admin::change;
use crate::admin::error::{Answer, ApiError, on_disk};
use crate::admin::view::ErrorView;
use crate::admin::{Admin, review, scope};
use crate::config::exchange::ExchangeError;
use crate::config::{self, Exchange};
use crate::lifecycle::Command;
use crate::store::audit::ChangedText;
use crate::store::secrets::Secrets;
use crate::vllm::options::SecretText;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(replace, delete))
}

/// Change an instance: the new text of its file, as TOML or JSON. Deployments that
/// stay as they are keep their workers.
#[utoipa::path(put, path = "/instances/{name}", tag = "instances",
    params(("name" = String, Path, description = "The instance"),
        ("If-Match" = Option<String>, Header, description = "The revision that the change is made on"),
        LaunchQuery),
    request_body(content = String, description = "A route file, TOML or JSON"), responses(
    (status = 200, body = Launched), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView), (status = 404, body = ErrorView),
    (status = 409, body = ErrorView),
    (status = 412, description = "Changed by someone else meanwhile", body = ErrorView),
    (status = 422, body = ErrorView)))]
async fn replace(
    State(admin): State<Admin>,
    caller: Caller,
    Named(name): Named<String>,
    Query(query): Query<LaunchQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Launched> {
    let target = format!("instance:{name}");
    let dry_run = query.dry_run != 0;
    let done = try_replace(&admin, &caller, &name, &headers, &body, dry_run).await;
    if !dry_run {
        if done.is_ok() && query.drain != 0 {
            drain(&admin, &name).await;
        }
        admin
            .audit
            .told(&caller, "change", &target, &done, Launched::told)
            .await;
    }
    done
}

/// Replaces at once the workers of an instance that wait to be.
async fn drain(admin: &Admin, name: &str) {
    let Ok(instance) = scope::instance(&admin.catalog.load(), name) else {
        return;
    };
    for spec in &instance.deployments {
        // It is refused where no worker waits to be replaced.
        if let Err(error) = admin.lifecycle.command(&spec.id, Command::Replace).await {
            tracing::debug!(deployment.id = %spec.id, error = %error, "nothing is replaced");
        }
    }
}

async fn try_replace(
    admin: &Admin,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
    body: &[u8],
    dry_run: bool,
) -> Answer<Launched> {
    let mut exchange = Exchange::read(body)?;
    let turn = change::turn(admin).await;
    let instance = scope::own_instance(&admin.catalog.load(), caller, name)?;
    if exchange.name().as_str() != name {
        return Err(ApiError::bad_text(format!(
            "the body describes `{}`: an instance keeps its name; clone it for another",
            exchange.name()
        )));
    }
    check_secrets(caller, &exchange, None)?;
    let path = instance.file.clone();
    let old = change::present(&path, headers).await?;
    let there = Exchange::read(&old)?;
    if !there.is_alone() && !caller.is_admin() {
        return Err(ApiError::conflict(format!(
            "{} holds more than the instance `{name}`: an admin may change it",
            path.display()
        )));
    }
    if let (Some(_), Some(own)) = (caller.confined_to(), &instance.workspace) {
        exchange.belong_to(own);
    }
    let changed = exchange.difference(&there);
    let before = dry_run.then(|| starred(&old, there.clone()));
    let taken = exchange.take_secrets();
    let secrets: Vec<_> = still_named(there.clone(), &exchange).chain(taken).collect();
    let text = exchange.text_for(&path, &old)?;
    let unchanged = text.as_bytes() == old;
    // The present text, sent back, changes nothing, its author neither.
    let is_new = !unchanged || !secrets.is_empty();
    let kept = is_new.then(|| ChangedText {
        before: referring(&path, &old, there),
        after: None,
    });
    let mut review = None;
    let mut written = None;
    if is_new {
        let after = change::tried(admin, caller, &path, Some(&text))?;
        change::sign(caller, &mut exchange);
        let text = exchange.text_for(&path, &old)?;
        if dry_run {
            drop(turn);
            review = Some(review::of(admin, before, text, after).await);
        } else {
            written = Some(text.clone());
            change::write(admin, turn, &path, text, secrets).await?;
        }
    }
    Ok(Json(Launched {
        instance: name.to_owned(),
        file: path.display().to_string(),
        unchanged,
        changed,
        text: kept.map(|kept| ChangedText {
            after: written,
            ..kept
        }),
        review,
    }))
}

/// Stop an instance and remove its file.
#[utoipa::path(delete, path = "/instances/{name}", tag = "instances",
    params(("name" = String, Path, description = "The instance"),
        ("If-Match" = Option<String>, Header, description = "The revision that was looked at")),
    responses((status = 200, body = Deleted), (status = 403, body = ErrorView),
    (status = 404, body = ErrorView),
    (status = 409, description = "Its file holds more, or others need its route", body = ErrorView),
    (status = 412, description = "Changed by someone else meanwhile", body = ErrorView)))]
async fn delete(
    State(admin): State<Admin>,
    caller: Caller,
    Named(name): Named<String>,
    headers: HeaderMap,
) -> Answer<Deleted> {
    let target = format!("instance:{name}");
    let done = try_delete(&admin, &caller, &name, &headers).await;
    let told = |deleted: &Deleted| Changed {
        words: String::new(),
        text: deleted.text.clone(),
    };
    admin
        .audit
        .told(&caller, "delete", &target, &done, told)
        .await;
    done
}

async fn try_delete(
    admin: &Admin,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
) -> Answer<Deleted> {
    let turn = change::turn(admin).await;
    let catalog = admin.catalog.load();
    let instance = scope::own_instance(&catalog, caller, name)?;
    let file = instance.file.clone();
    let old = change::present(&file, headers).await?;
    let exchange = read(&instance).await?;
    if !exchange.is_alone() {
        return Err(ApiError::conflict(format!(
            "{} holds more than the instance `{name}`: take the instance out of it by hand",
            file.display()
        )));
    }
    let others = || {
        catalog
            .instances
            .iter()
            .filter(|other| other.name != instance.name)
    };
    if let Some(route) = exchange.route()
        && let Some(other) = others().find(|other| other.route.as_str() == route)
    {
        return Err(ApiError::conflict(format!(
            "the route `{route}` in {} leads to the instance `{}` as well: move the route to a file of its own first",
            file.display(),
            other.name
        )));
    }
    change::tried(admin, caller, &file, None)?;
    let before = referring(&file, &old, exchange);
    let rest: Vec<PathBuf> = others().map(|other| other.file.clone()).collect();
    let store = Secrets::at(&admin.settings.gateway.state);
    let turn = change::remove(admin, turn, &file).await?;
    let owner = name.to_owned();
    on_disk(move || {
        let _turn = turn;
        // While a file can't be read, any secret may still be named in it.
        match named_secrets(&rest) {
            Ok(used) => store.retain(|secret| used.contains(secret) || !is_of(secret, &owner)),
            Err(_) => Ok(()),
        }
    })
    .await??;
    Ok(Json(Deleted {
        deleted: name.to_owned(),
        text: Some(ChangedText {
            before,
            after: None,
        }),
    }))
}

/// Text of a file, with the names of secrets where it holds them in place: the store
/// has them as soon as the form wrote the file.
fn referring(path: &Path, old: &[u8], mut there: Exchange) -> Option<String> {
    if there.take_secrets().is_empty() {
        return Some(String::from_utf8_lossy(old).into_owned());
    }
    there.text_for(path, old).ok()
}

/// Text of a file, with stars for the secrets that it holds in place.
fn starred(old: &[u8], mut there: Exchange) -> String {
    let text = String::from_utf8_lossy(old).into_owned();
    let secrets = there.take_secrets();
    secrets.iter().fold(text, |text, (_, secret)| {
        text.replace(secret.expose(), "***")
    })
}

/// The secrets that a file holds in place, and that its new text takes from the store:
/// an export names them so.
fn still_named(mut there: Exchange, new: &Exchange) -> impl Iterator<Item = (String, SecretText)> {
    let named = new.named_secrets();
    let mut held = there.take_secrets();
    held.retain(|(name, _)| named.contains(&name.as_str()));
    held.into_iter()
}

/// The secrets of the store that these files name.
fn named_secrets(files: &[PathBuf]) -> Result<HashSet<String>, ExchangeError> {
    let mut names = HashSet::new();
    for file in files {
        let exchange = Exchange::read(&config::exchange::read_file(file)?)?;
        names.extend(exchange.named_secrets().into_iter().map(str::to_owned));
    }
    Ok(names)
}
