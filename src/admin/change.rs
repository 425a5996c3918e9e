//! A change of `routes.d`: who may make it, whether it would hold, and its effect.
//!
//! A change is a file. It is tried against the catalog in effect, its secrets are
//! stored apart, it is written whole, and waited for until it serves. One change
//! at a time: each holds `Admin::changes`. The reload task is the one
//! that puts it into effect.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::OwnedMutexGuard;

use super::Admin;
use super::access::Caller;
use super::error::{ApiError, Code, on_disk};
use super::revisions::{check_revision, revision};
use super::scope::not_yours;
use crate::config::exchange::Syntax;
use crate::config::{self, Author, Catalog, Engine, Exchange, FileError, Instance, Route};
use crate::lifecycle::act::command::{Engines, WorkerPlace};
use crate::store::secrets::Secrets;
use crate::store::whole::write_durable;
use crate::time::timeout;
use crate::vllm::options::SecretText;

/// Longest wait for a change to be in effect.
const EFFECT_MAX: Duration = Duration::from_secs(15);

/// The right to change files, until it is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

/// Waits for one's turn to change files.
pub(super) async fn turn(admin: &Admin) -> Turn {
    Arc::clone(&admin.changes).lock_owned().await
}

/// Present text of a file, if its revision is the one that the change is made on.
///
/// # Errors
///
/// 412 when someone else changed it meanwhile.
pub(super) async fn present(path: &Path, headers: &HeaderMap) -> Result<Vec<u8>, ApiError> {
    let file = path.to_owned();
    let content = on_disk(move || config::exchange::read_file(&file)).await??;
    check_revision(headers, &revision(&content))?;
    Ok(content)
}

/// The file of a new instance or route, which is not there yet; `what` says which.
///
/// # Errors
///
/// 409 where a file of that name is there, in either syntax.
pub(super) async fn new_path(
    admin: &Admin,
    name: &str,
    syntax: Syntax,
    what: &str,
) -> Result<PathBuf, ApiError> {
    let routes = &admin.settings.gateway.routes;
    let taken = ["toml", "json"].map(|end| routes.join(format!("{name}.{end}")));
    let is_there = |file: &PathBuf| file.symlink_metadata().is_ok();
    let taken = on_disk(move || taken.into_iter().find(is_there)).await?;
    match taken {
        None => Ok(routes.join(format!("{name}.{}", syntax.extension()))),
        Some(taken) => Err(ApiError::conflict(format!(
            "{} is there already and is not this {what}: move it away, or give another name",
            taken.display()
        ))),
    }
}

/// Tries a change: the new text of a file, or its end. Returns what would be in
/// effect.
///
/// # Errors
///
/// 422 with a line for each error; 409 where another file would be wrong for it;
/// 403 where something of it is not the caller's.
pub(super) fn tried(
    admin: &Admin,
    caller: &Caller,
    path: &Path,
    content: Option<&str>,
) -> Result<Catalog, ApiError> {
    let before = admin.catalog.load();
    check_owner(caller, &before, path)?;
    let after = match content {
        Some(content) => {
            config::with_file(&before, &admin.settings.queues, path, content.as_bytes())
                .map_err(|errors| refused(&errors))?
        }
        None => config::without_file(&before, path),
    };
    let after = config::without_own(after, &admin.settings);
    check_owner(caller, &after, path)?;
    check_confined(caller, &before, &after, path)?;
    check_options(admin, caller, &signed(caller, after.clone(), path), path)?;
    let new = after
        .errors
        .iter()
        .filter(|error| !before.errors.contains(error));
    let new: Vec<String> = new.map(ToString::to_string).collect();
    if new.is_empty() {
        return Ok(after);
    }
    Err(ApiError::conflict(format!(
        "this would leave another file wrong:\n{}",
        new.join("\n")
    )))
}

/// Checks that everything in a file is the caller's. An operator may not let in
/// everyone, nor send requests, with a key of this machine, to servers of their
/// choice.
pub(super) fn check_owner(caller: &Caller, catalog: &Catalog, path: &Path) -> Result<(), ApiError> {
    if caller.is_admin() {
        return Ok(());
    }
    for instance in catalog.instances.iter().filter(|i| i.file == path) {
        if !caller.works_on(instance.belonging()) {
            return Err(not_yours(&instance.name));
        }
        let route = catalog
            .routes
            .iter()
            .find(|route| route.name == instance.route);
        if let Some(route) = route {
            check_route(caller, route)?;
        }
    }
    let routes = catalog.routes.iter().filter(|route| route.file == path);
    routes
        .into_iter()
        .try_for_each(|route| check_route(caller, route))
}

/// Checks that a person of a workspace opens nothing to others: they write for their
/// own workspace, but for what was shared before, and for instances of a route that is.
fn check_confined(
    caller: &Caller,
    before: &Catalog,
    after: &Catalog,
    path: &Path,
) -> Result<(), ApiError> {
    let Some(own) = caller.confined_to() else {
        return Ok(());
    };
    let outside = |name: &dyn std::fmt::Display, table: &str| {
        ApiError::forbidden(&format!(
            "`{name}` would be open to all workspaces: write {table}.workspace = \"{own}\", or ask an admin"
        ))
    };
    let route_of = |instance: &Instance| {
        let mut routes = after.routes.iter();
        routes.find(|route| route.name == instance.route).cloned()
    };
    let here = |instance: &&Arc<Instance>| instance.file == path;
    for instance in after.instances.iter().filter(here) {
        let mut earlier = before.instances.iter().filter(here);
        let was_shared = earlier.any(|i| i.name == instance.name && i.workspace.is_none());
        let joins_shared =
            route_of(instance).is_some_and(|route| route.file != path && route.workspace.is_none());
        if instance.workspace.is_none() && !was_shared && !joins_shared {
            return Err(outside(&instance.name, "instance"));
        }
    }
    let here = |route: &&Arc<Route>| route.file == path;
    for route in after.routes.iter().filter(here) {
        let mut earlier = before.routes.iter().filter(here);
        let was_shared = earlier.any(|r| r.name == route.name && r.workspace.is_none());
        if route.workspace.is_none() && !was_shared {
            return Err(outside(&route.name, "route"));
        }
    }
    Ok(())
}

/// The caller as the author of a file.
pub(super) fn author(caller: &Caller) -> Author {
    if caller.is_admin() {
        return Author::Admin;
    }
    let workspace = caller.workspace();
    let name = match workspace {
        Some(workspace) => format!("{} of {workspace}", caller.name),
        None => caller.name.to_string(),
    };
    Author::Operator(name.into())
}

/// Catalog in effect once this caller wrote a file: with its author. Files that an
/// operator wrote stays an operator's when an admin copies it.
pub(super) fn signed(caller: &Caller, mut catalog: Catalog, path: &Path) -> Catalog {
    let author = author(caller);
    if author == Author::Admin {
        return catalog;
    }
    let own = catalog.instances.iter_mut().filter(|i| i.file == path);
    for instance in own {
        for spec in &mut Arc::make_mut(instance).deployments {
            Arc::make_mut(spec).author = author.clone();
        }
    }
    catalog
}

/// States an operator as the author of a file that is about to be written.
pub(super) fn sign(caller: &Caller, exchange: &mut Exchange) {
    if let Author::Operator(name) = author(caller) {
        exchange.set_author(&name);
    }
}

/// Checks that an operator launches only what operators may. The files of an
/// admin, who may run any program here, are not held to that.
fn check_options(
    admin: &Admin,
    caller: &Caller,
    catalog: &Catalog,
    path: &Path,
) -> Result<(), ApiError> {
    let engines = Engines::new(&admin.settings).within(catalog);
    let own = catalog.instances.iter().filter(|i| i.file == path);
    for spec in own.flat_map(|instance| &instance.deployments) {
        let (Engine::Vllm(vllm), Author::Operator(_)) = (&spec.engine, &spec.author) else {
            continue;
        };
        let version = vllm.version.as_deref();
        let known = engines.vllm.assumed(version);
        let line = known.map_err(|error| error.to_string());
        let line =
            line.and_then(|known| engines.vllm_line(spec, vllm, &known, WorkerPlace::shown()));
        if let Err(error) = line {
            let adopt = if caller.is_admin() {
                "; an operator wrote this file: take instance.author out to make it an admin's"
            } else {
                ""
            };
            let message = format!("{}: {error}{adopt}", spec.id);
            return Err(ApiError::new(Code::Wrong, message));
        }
    }
    Ok(())
}

fn check_route(caller: &Caller, route: &Route) -> Result<(), ApiError> {
    if !caller.works_on(route.belonging()) {
        return Err(ApiError::forbidden(&format!(
            "the route `{}` must have a project that you work on: write route.project, or ask an admin",
            route.name
        )));
    }
    if route.inputs.widens() {
        return Err(ApiError::forbidden(&format!(
            "the route `{}` lets requests bring along more than operators may allow: take media or chat_template out, or ask an admin",
            route.name
        )));
    }
    if route.upstreams.is_empty() {
        return Ok(());
    }
    Err(ApiError::forbidden(&format!(
        "the route `{}` leads to servers that someone else runs: only an admin may change it",
        route.name
    )))
}

/// Writes a file and waits until it serves. First its secrets: a file that serves
/// finds its own.
pub(super) async fn write(
    admin: &Admin,
    turn: Turn,
    path: &Path,
    content: String,
    secrets: Vec<(String, SecretText)>,
) -> Result<(), ApiError> {
    let store = Secrets::at(&admin.settings.gateway.state);
    let (file, text) = (path.to_owned(), content.clone());
    let turn = on_disk(move || {
        store
            .put(&secrets)
            .map_err(|error| ApiError::internal(&error))?;
        write_durable(&file, text.as_bytes()).map_err(|error| unwritable(&file, &error))?;
        Ok::<_, ApiError>(turn)
    })
    .await??;
    let served = |catalog: &Catalog| catalog.serves(path, content.as_bytes());
    in_effect(admin, path, served).await?;
    drop(turn);
    Ok(())
}

/// Removes a file and waits until it serves no more.
pub(super) async fn remove(admin: &Admin, turn: Turn, path: &Path) -> Result<Turn, ApiError> {
    let gone = path.to_owned();
    on_disk(move || std::fs::remove_file(&gone).map_err(|error| unwritable(&gone, &error)))
        .await??;
    in_effect(admin, path, |catalog| !catalog.has_file(path)).await?;
    Ok(turn)
}

/// Waits until a change is in effect, or is found to be refused.
async fn in_effect(
    admin: &Admin,
    file: &Path,
    done: impl Fn(&Catalog) -> bool,
) -> Result<(), ApiError> {
    let started = admin.catalog.load();
    let watched = async {
        let mut found = Ok(());
        let mut settled = |catalog: &Arc<Catalog>| {
            if done(catalog) {
                return true;
            }
            let own = catalog.errors.iter().filter(|error| error.file == file);
            let errors: Vec<FileError> = own.cloned().collect();
            // Errors of the catalog before tell of the text before.
            let is_refused = !errors.is_empty() && !Arc::ptr_eq(catalog, &started);
            if is_refused {
                found = Err(refused(&errors));
            }
            is_refused
        };
        admin.catalog.wait_for(&mut settled).await;
        found
    };
    timeout(EFFECT_MAX, watched).await.unwrap_or_else(|_| {
        let message = format!(
            "{} was changed, but it is not in effect after {} s: see the log of the gateway",
            file.display(),
            EFFECT_MAX.as_secs()
        );
        Err(ApiError::new(Code::Late, message))
    })
}

/// Errors of a file, a line for each.
pub(super) fn refused(errors: &[FileError]) -> ApiError {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    ApiError::new(Code::Wrong, lines.join("\n"))
}

pub(super) fn unwritable(file: &Path, error: &std::io::Error) -> ApiError {
    let message = format!(
        "{} can't be changed: {error}; see to its permissions and the disk",
        file.display()
    );
    ApiError::new(Code::Internal, message)
}
