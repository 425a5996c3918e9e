//! Instances made, taken out, copied and deleted, by their files in `routes.d`.
//!
//! A change is a file: tried against the catalog in effect, its secrets stored
//! apart, written whole, and waited for until it serves. One change at a time.
//! The reload task is the one that puts it into effect.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::api::{Answer, ApiError};
use crate::config::exchange::ExchangeError;
use crate::config::{self, Catalog, Exchange, FileError, Instance};
use crate::names::InstanceName;
use crate::store::secrets::{Secrets, SecretsError};
use crate::store::whole::write_durable;
use crate::time::{sleep, timeout};

/// Longest wait for a change to be in effect.
const EFFECT_MAX: Duration = Duration::from_secs(15);
/// How often the catalog is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The answer to a launch, an import and a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// The instance.
    pub instance: String,
    /// The file that it stands in.
    pub file: String,
    /// Whether it was there already, just so.
    pub unchanged: bool,
}

/// The answer to a deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The instance that is no more.
    pub deleted: String,
}

/// `POST instances/{name}/clone`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneRequest {
    /// The name of the copy.
    pub name: InstanceName,
    /// New endpoint names by those of the original: two instances may not have
    /// the same, unless one route leads to both.
    #[serde(default)]
    pub endpoint_names: BTreeMap<String, String>,
}

/// How a launch is called.
#[derive(Debug, Default, Deserialize)]
struct LaunchQuery {
    /// The name, instead of that in the file.
    name: Option<InstanceName>,
}

pub(super) fn router() -> Router<Admin> {
    let delete_import = async |admin| delete(admin, Path("import".to_owned())).await;
    Router::new()
        .route("/instances", post(launch))
        .route("/instances/import", post(import).delete(delete_import))
        .route("/instances/{name}", axum::routing::delete(delete))
        .route("/instances/{name}/export", get(export))
        .route("/instances/{name}/clone", post(copy))
}

impl From<ExchangeError> for ApiError {
    fn from(error: ExchangeError) -> Self {
        let status = match error {
            ExchangeError::Large => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        Self::internal(&error)
    }
}

async fn launch(
    State(admin): State<Admin>,
    Query(query): Query<LaunchQuery>,
    body: Bytes,
) -> Answer<Launched> {
    let mut exchange = Exchange::read(&body)?;
    if let Some(name) = query.name {
        exchange.rename(&name);
    }
    admit(&admin, exchange).await
}

async fn import(State(admin): State<Admin>, body: Bytes) -> Answer<Launched> {
    admit(&admin, Exchange::import(&body)?).await
}

async fn export(State(admin): State<Admin>, Path(name): Path<String>) -> Answer<serde_json::Value> {
    let instance = find(&admin.catalog.load(), &name)?;
    let mut exchange = read(&instance).await?.instance_only();
    // Only their names go out.
    exchange.take_secrets();
    Ok(Json(exchange.export()))
}

async fn copy(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Json(request): Json<CloneRequest>,
) -> Answer<Launched> {
    let instance = find(&admin.catalog.load(), &name)?;
    let mut exchange = read(&instance).await?.instance_only();
    exchange.rename(&request.name);
    for (from, to) in &request.endpoint_names {
        if !exchange.rename_endpoint(from, to) {
            let message = format!("the instance `{name}` has no deployment `{from}`");
            return Err(ApiError(StatusCode::BAD_REQUEST, message));
        }
    }
    admit(&admin, exchange).await
}

fn find(catalog: &Catalog, name: &str) -> Result<Arc<Instance>, ApiError> {
    let found = catalog.instances.iter().find(|i| i.name.as_str() == name);
    found.cloned().ok_or_else(|| {
        let message = format!("there is no instance `{name}`: see `tidegate ps`");
        ApiError(StatusCode::NOT_FOUND, message)
    })
}

/// What the file of an instance says now, which may be newer than what serves.
async fn read(instance: &Instance) -> Result<Exchange, ApiError> {
    let file = instance.file.clone();
    let content = on_disk(move || config::exchange::read_file(&file)).await?;
    let exchange = Exchange::read(&content?)?;
    if *exchange.name() == instance.name {
        return Ok(exchange);
    }
    Err(conflict(format!(
        "{} no longer describes the instance `{}`: see `tidegate check`",
        instance.file.display(),
        instance.name
    )))
}

/// Writes the file of a new instance and waits until it serves.
async fn admit(admin: &Admin, mut exchange: Exchange) -> Answer<Launched> {
    let change = Arc::clone(&admin.changes).lock_owned().await;
    let name = exchange.name().clone();
    let secrets = exchange.take_secrets();
    let catalog = admin.catalog.load_full();
    if let Ok(there) = find(&catalog, name.as_str()) {
        return same(&there, &exchange).await;
    }
    let (syntax, text) = exchange.file();
    let routes = &admin.settings.gateway.routes;
    let path = routes.join(format!("{name}.{}", syntax.extension()));
    config::with_file(&catalog, &admin.settings.queues, &path, text.as_bytes())
        .map_err(|errors| refused(&errors))?;
    let (file, store) = (path.clone(), Secrets::at(&admin.settings.gateway.state));
    let taken = ["toml", "json"].map(|end| routes.join(format!("{name}.{end}")));
    on_disk(move || {
        let _change = change;
        if let Some(taken) = taken.iter().find(|file| file.symlink_metadata().is_ok()) {
            return Err(conflict(format!(
                "{} is there already and is not this instance: move it away, or give another name",
                taken.display()
            )));
        }
        // First the secrets: a file that serves finds its own.
        store.put(&secrets)?;
        write_durable(&file, text.as_bytes()).map_err(|error| unwritable(&file, &error))
    })
    .await??;
    in_effect(admin, &path, |catalog| {
        let of_name = |instance: &Arc<Instance>| instance.name == name && instance.file == path;
        catalog.instances.iter().any(of_name)
    })
    .await?;
    Ok(Json(Launched {
        instance: name.to_string(),
        file: path.display().to_string(),
        unchanged: false,
    }))
}

/// A launch of what is there already: fine if it is the same.
async fn same(there: &Instance, exchange: &Exchange) -> Answer<Launched> {
    let mut old = read(there).await?.instance_only();
    old.take_secrets();
    if old.export() == exchange.clone().instance_only().export() {
        return Ok(Json(Launched {
            instance: there.name.to_string(),
            file: there.file.display().to_string(),
            unchanged: true,
        }));
    }
    Err(conflict(format!(
        "there is another instance `{}` already, in {}: delete it first, or give another name",
        there.name,
        there.file.display()
    )))
}

async fn delete(State(admin): State<Admin>, Path(name): Path<String>) -> Answer<Deleted> {
    let change = Arc::clone(&admin.changes).lock_owned().await;
    let catalog = admin.catalog.load_full();
    let instance = find(&catalog, &name)?;
    let exchange = read(&instance).await?;
    let file = instance.file.clone();
    if !exchange.is_alone() {
        return Err(conflict(format!(
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
        return Err(conflict(format!(
            "the route `{route}` in {} leads to the instance `{}` as well: move the route to a file of its own first",
            file.display(),
            other.name
        )));
    }
    let rest: Vec<PathBuf> = others().map(|other| other.file.clone()).collect();
    let store = Secrets::at(&admin.settings.gateway.state);
    let gone = file.clone();
    on_disk(move || std::fs::remove_file(&gone).map_err(|error| unwritable(&gone, &error)))
        .await??;
    in_effect(&admin, &file, |catalog| find(catalog, &name).is_err()).await?;
    let owner = name.clone();
    on_disk(move || {
        let _change = change;
        // While a file can't be read, any secret may still be named in it.
        match named_secrets(&rest) {
            Ok(used) => store.retain(|secret| used.contains(secret) || !is_of(secret, &owner)),
            Err(_) => Ok(()),
        }
    })
    .await??;
    Ok(Json(Deleted { deleted: name }))
}

/// Whether a secret was taken out of this instance: `NAME.OPTION` or
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

/// The secrets of the store that these files name.
fn named_secrets(files: &[PathBuf]) -> Result<HashSet<String>, ExchangeError> {
    let mut names = HashSet::new();
    for file in files {
        let exchange = Exchange::read(&config::exchange::read_file(file)?)?;
        names.extend(exchange.named_secrets().into_iter().map(str::to_owned));
    }
    Ok(names)
}

/// Waits until a change is in effect, or is found to be refused.
async fn in_effect(
    admin: &Admin,
    file: &FilePath,
    done: impl Fn(&Catalog) -> bool,
) -> Result<(), ApiError> {
    let watched = async {
        loop {
            let catalog = admin.catalog.load_full();
            if done(&catalog) {
                return Ok(());
            }
            let own = catalog.errors.iter().filter(|error| error.file == file);
            let errors: Vec<FileError> = own.cloned().collect();
            if !errors.is_empty() {
                return Err(refused(&errors));
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(EFFECT_MAX, watched).await.unwrap_or_else(|_| {
        let message = format!(
            "{} was changed, but it is not in effect after {} s: see the log of the gateway",
            file.display(),
            EFFECT_MAX.as_secs()
        );
        Err(ApiError(StatusCode::GATEWAY_TIMEOUT, message))
    })
}

fn refused(errors: &[FileError]) -> ApiError {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    ApiError(StatusCode::UNPROCESSABLE_ENTITY, lines.join("\n"))
}

fn conflict(message: String) -> ApiError {
    ApiError(StatusCode::CONFLICT, message)
}

fn unwritable(file: &FilePath, error: &std::io::Error) -> ApiError {
    let message = format!(
        "{} can't be changed: {error}; see to its permissions and the disk",
        file.display()
    );
    ApiError(StatusCode::INTERNAL_SERVER_ERROR, message)
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(&error))
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
