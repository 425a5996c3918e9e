//! Instances made, taken out, copied and deleted, by their files in `routes.d`.
//!
//! Changes themselves, and the right to make them, are in [`super::change`].

#![expect(unused_qualifications, reason = "utoipa's macros write whole paths")]

mod edit;

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Admin;
use super::access::Caller;
use super::audit::Changed;
use super::error::{Answer, ApiError, Code, on_disk};
use super::scope::{self, not_yours};
use super::view::{ErrorView, Review};
use super::{change, review};
use crate::config::exchange::ExchangeError;
use crate::config::{self, Catalog, Exchange, Instance};
use crate::names::InstanceName;
use crate::store::audit::ChangedText;
use crate::store::secrets::SecretsError;

/// The answer to a launch, an import and a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Launched {
    /// The instance.
    pub instance: String,
    /// The file that it stands in.
    pub file: String,
    /// True if the same instance was there already.
    pub unchanged: bool,
    /// Differences from before, key by key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub changed: String,
    /// The file before and after, for the audit.
    #[serde(skip)]
    text: Option<ChangedText>,
    /// Review of a try: the file before and after, and what would happen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<Review>,
}

impl Launched {
    /// Change as the audit keeps it.
    fn told(&self) -> Changed {
        Changed {
            words: self.changed.clone(),
            text: self.text.clone(),
        }
    }
}

/// The answer to a deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// The instance that is no more.
    pub deleted: String,
    /// Its file, for the audit.
    #[serde(skip)]
    text: Option<ChangedText>,
}

/// `POST instances/{name}/clone`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneRequest {
    /// The name of the copy.
    #[schema(value_type = String)]
    pub name: InstanceName,
    /// New endpoint names by those of the original: two instances may not have
    /// the same, unless one route leads to both.
    #[serde(default)]
    pub endpoint_names: BTreeMap<String, String>,
}

/// Query of a launch.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LaunchQuery {
    /// The name, instead of that in the file.
    #[param(value_type = Option<String>)]
    name: Option<InstanceName>,
    /// 1: only try it, and change nothing.
    #[serde(default)]
    dry_run: u8,
    /// 1: workers whose options change are drained and replaced at once, though
    /// requests are inside, which may finish.
    #[serde(default)]
    drain: u8,
}

/// Name of a clone.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct CloneQuery {
    /// 1: only try it, and change nothing.
    dry_run: u8,
}

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(launch))
        .routes(routes!(import))
        .merge(edit::router())
        .routes(routes!(export))
        .routes(routes!(copy))
}

impl From<ExchangeError> for ApiError {
    fn from(error: ExchangeError) -> Self {
        let code = match error {
            ExchangeError::Large => Code::Large,
            _ => Code::Malformed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        Self::internal(&error)
    }
}

/// Make an instance of a route file, as TOML or JSON. Answers once it is in effect.
#[utoipa::path(post, path = "/instances", tag = "instances", params(LaunchQuery),
    request_body(content = String, description = "A route file, TOML or JSON"), responses(
    (status = 200, body = Launched), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView),
    (status = 409, description = "The name is taken", body = ErrorView),
    (status = 422, description = "A line for each error", body = ErrorView)))]
async fn launch(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<LaunchQuery>,
    body: Bytes,
) -> Answer<Launched> {
    let mut exchange = Exchange::read(&body)?;
    if let Some(name) = &query.name {
        exchange.rename(name);
    }
    admit(&admin, &caller, "launch", exchange, query.dry_run != 0).await
}

/// Make an instance of an export.
#[utoipa::path(post, path = "/instances/import", tag = "instances", params(LaunchQuery),
    request_body(content = Object, description = "What GET instances/{name}/export gave"), responses(
    (status = 200, body = Launched), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView), (status = 409, body = ErrorView),
    (status = 422, body = ErrorView)))]
async fn import(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<LaunchQuery>,
    body: Bytes,
) -> Answer<Launched> {
    let mut exchange = Exchange::import(&body)?;
    if let Some(name) = &query.name {
        exchange.rename(name);
    }
    admit(&admin, &caller, "import", exchange, query.dry_run != 0).await
}

/// The instance as JSON, without secrets.
#[utoipa::path(get, path = "/instances/{name}/export", tag = "instances",
    params(("name" = String, Path, description = "The instance")), responses(
    (status = 200, body = Object), (status = 403, body = ErrorView),
    (status = 404, body = ErrorView)))]
async fn export(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<serde_json::Value> {
    let instance = scope::own_instance(&admin.catalog.load(), &caller, &name)?;
    Ok(Json(exported(&instance).await?))
}

/// Contents of an export of an instance.
pub(super) async fn exported(instance: &Instance) -> Result<serde_json::Value, ApiError> {
    let mut exchange = read(instance).await?.instance_only();
    // Only their names go out.
    exchange.take_secrets();
    Ok(exchange.export())
}

/// Copy an instance under a new name.
#[utoipa::path(post, path = "/instances/{name}/clone", tag = "instances",
    params(("name" = String, Path, description = "The instance"), CloneQuery), request_body = CloneRequest,
    responses((status = 200, body = Launched), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView), (status = 404, body = ErrorView),
    (status = 409, body = ErrorView), (status = 422, body = ErrorView)))]
async fn copy(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<CloneQuery>,
    Json(request): Json<CloneRequest>,
) -> Answer<Launched> {
    let instance = scope::own_instance(&admin.catalog.load(), &caller, &name)?;
    let mut exchange = read(&instance).await?.instance_only();
    exchange.rename(&request.name);
    for (from, to) in &request.endpoint_names {
        if !exchange.rename_endpoint(from, to) {
            let message = format!("the instance `{name}` has no deployment `{from}`");
            return Err(ApiError::bad_text(message));
        }
    }
    // The copy may use everything that the original was given.
    admit_with(
        &admin,
        &caller,
        "clone",
        exchange,
        query.dry_run != 0,
        Some(instance.name.as_str()),
    )
    .await
}

/// Present contents of the file of an instance, which may be newer than what serves.
async fn read(instance: &Instance) -> Result<Exchange, ApiError> {
    let file = instance.file.clone();
    let content = on_disk(move || config::exchange::read_file(&file)).await?;
    let exchange = Exchange::read(&content?)?;
    if *exchange.name() == instance.name {
        return Ok(exchange);
    }
    Err(ApiError::conflict(format!(
        "{} no longer describes the instance `{}`: mend it by hand first",
        instance.file.display(),
        instance.name
    )))
}

async fn admit(
    admin: &Admin,
    caller: &Caller,
    action: &str,
    exchange: Exchange,
    dry_run: bool,
) -> Answer<Launched> {
    admit_with(admin, caller, action, exchange, dry_run, None).await
}

/// Writes the file of a new instance and waits until it serves; tells the audit.
async fn admit_with(
    admin: &Admin,
    caller: &Caller,
    action: &str,
    exchange: Exchange,
    dry_run: bool,
    original: Option<&str>,
) -> Answer<Launched> {
    let target = format!("instance:{}", exchange.name());
    let done = create(admin, caller, exchange, dry_run, original).await;
    let changed = !matches!(&done, Ok(Json(launched)) if launched.unchanged);
    if !dry_run && changed {
        admin
            .audit
            .told(caller, action, &target, &done, Launched::told)
            .await;
    }
    done
}

async fn create(
    admin: &Admin,
    caller: &Caller,
    mut exchange: Exchange,
    dry_run: bool,
    original: Option<&str>,
) -> Answer<Launched> {
    let turn = change::turn(admin).await;
    check_secrets(caller, &exchange, original)?;
    let name = exchange.name().clone();
    let secrets = exchange.take_secrets();
    if let Ok(there) = scope::instance(&admin.catalog.load(), name.as_str()) {
        if !caller.works_on(there.belonging()) {
            return Err(not_yours(&name));
        }
        if let (Some(_), Some(own)) = (caller.confined_to(), &there.workspace) {
            exchange.belong_to(own);
        }
        return same(&there, &exchange).await;
    }
    confine(&admin.catalog.load(), caller, &mut exchange);
    let (syntax, text) = exchange.as_sent();
    let path = admin
        .settings
        .gateway
        .routes
        .join(format!("{name}.{}", syntax.extension()));
    let after = change::tried(admin, caller, &path, Some(&text))?;
    change::sign(caller, &mut exchange);
    let (syntax, text) = exchange.file();
    let path = change::new_path(admin, name.as_str(), syntax, "instance").await?;
    let kept = ChangedText {
        before: None,
        after: Some(text.clone()),
    };
    let review = if dry_run {
        drop(turn);
        Some(review::of(admin, None, text, after).await)
    } else {
        change::write(admin, turn, &path, text, secrets).await?;
        None
    };
    Ok(Json(Launched {
        instance: name.to_string(),
        file: path.display().to_string(),
        unchanged: false,
        changed: exchange.models(),
        text: Some(kept),
        review,
    }))
}

/// Puts a launch by someone of a workspace into that workspace, unless it joins a route
/// that all share.
pub(super) fn confine(catalog: &Catalog, caller: &Caller, exchange: &mut Exchange) {
    let Some(own) = caller.confined_to() else {
        return;
    };
    let joined = exchange.joins().and_then(|name| {
        let mut routes = catalog.routes.iter();
        routes.find(|route| route.name.as_str() == name)
    });
    if joined.is_none_or(|route| route.workspace.is_some()) {
        exchange.belong_to(own);
    }
}

/// An operator's file names secrets of its own instance only, not those that
/// others stored, and none of this machine's files and variables.
fn check_secrets(
    caller: &Caller,
    exchange: &Exchange,
    original: Option<&str>,
) -> Result<(), ApiError> {
    if caller.is_admin() {
        return Ok(());
    }
    let own = |secret: &str| {
        is_of(secret, exchange.name().as_str())
            || original.is_some_and(|original| is_of(secret, original))
    };
    if let Some(other) = exchange
        .named_secrets()
        .into_iter()
        .find(|secret| !own(secret))
    {
        return Err(ApiError::forbidden(&format!(
            "the secret `{other}` is not one of this instance: write the secret itself, it is then stored apart"
        )));
    }
    if exchange.names_machine_secrets() {
        return Err(ApiError::forbidden(
            "a secret from a file or a variable of this machine is for admins: write the secret itself, it is then stored apart",
        ));
    }
    Ok(())
}

/// A launch of what is there already: fine if it is the same.
async fn same(there: &Instance, exchange: &Exchange) -> Answer<Launched> {
    let mut old = read(there).await?.instance_only().without_author();
    old.take_secrets();
    let new = exchange.clone().instance_only().without_author();
    if old.export() == new.export() {
        return Ok(Json(Launched {
            instance: there.name.to_string(),
            file: there.file.display().to_string(),
            unchanged: true,
            changed: String::new(),
            text: None,
            review: None,
        }));
    }
    Err(ApiError::conflict(format!(
        "there is another instance `{}` already, in {}: change it with PUT, delete it first, or give another name",
        there.name,
        there.file.display()
    )))
}

/// True if a secret was taken out of this instance: `NAME.OPTION` or
/// `NAME/MODEL.OPTION`.
fn is_of(secret: &str, instance: &str) -> bool {
    secret.strip_prefix(instance).is_some_and(|rest| {
        // Names may hold dots, names of options do not.
        rest.starts_with('/')
            || rest
                .strip_prefix('.')
                .is_some_and(|o| !o.contains(['.', '/']))
    })
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn a_secret_belongs_to_the_instance_that_it_was_taken_from() {
        for (secret, instance, belongs) in [
            ("team.huggingface_token", "team", true),
            ("team/qwen3-0.6b.huggingface_token", "team", true),
            ("team.two.huggingface_token", "team", false),
            ("team.two.huggingface_token", "team.two", true),
            ("team.two/a.huggingface_token", "team", false),
            ("teams.huggingface_token", "team", false),
            ("other", "team", false),
        ] {
            assert_eq!(is_of(secret, instance), belongs, "{secret} of {instance}");
        }
    }
}
