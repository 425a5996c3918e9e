//! Answers for the launch form while someone writes: errors of the file, and the command
//! that would run. Nothing is taken in, nothing is installed.

use std::path::{Path, PathBuf};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::access::Caller;
use crate::admin::error::{Answer, ApiError, on_disk};
use crate::admin::exchange::confine;
use crate::admin::view::{CommandView, DraftError, DraftView, ErrorView};
use crate::admin::{Admin, change, scope};
use crate::config::exchange::{ExchangeError, Syntax};
use crate::config::{self, Catalog, Deployment, Engine, Exchange, FileError};
use crate::gpu::Device;
use crate::lifecycle::act::command;
use crate::lifecycle::act::command::Engines;
use crate::vllm::options::OptionError;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(check))
        .routes(routes!(queues))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct DraftQuery {
    /// The instance that it would take the place of.
    replaces: Option<String>,
}

/// Tries a route file, in TOML or JSON: every error with its line and key, the
/// tables that it holds, and the command line of each worker.
#[utoipa::path(post, path = "/drafts", tag = "instances", params(DraftQuery),
    request_body = String, responses(
    (status = 200, body = DraftView), (status = 403, body = ErrorView),
    (status = 404, body = ErrorView)))]
async fn check(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<DraftQuery>,
    body: Bytes,
) -> Answer<DraftView> {
    let replaced = match query.replaces.as_deref() {
        Some(name) => {
            let catalog = admin.catalog.load();
            Some(scope::own_instance(&catalog, &caller, name)?.file.clone())
        }
        None => None,
    };
    // Commands name secrets, which are looked up on the disk.
    on_disk(move || Json(tried(&admin, &caller, replaced.as_ref(), &body))).await
}

fn tried(admin: &Admin, caller: &Caller, replaced: Option<&PathBuf>, body: &[u8]) -> DraftView {
    let mut draft = DraftView::default();
    let exchange = match Exchange::read(body) {
        Ok(exchange) => exchange,
        Err(error) => {
            draft.errors = unread(admin, &error, body);
            return draft;
        }
    };
    draft.config = Some(serde_json::Value::Object(exchange.tables().clone()));
    let routes = &admin.settings.gateway.routes;
    let name = format!("{}.{}", exchange.name(), Syntax::of(body).extension());
    let path = replaced.cloned().unwrap_or_else(|| routes.join(name));
    // As it was sent, so that its lines are those that the sender knows; but an
    // export has a header, which no route file has.
    let (_, written) = exchange.as_sent();
    let text = if exchange.is_export() {
        written.as_bytes()
    } else {
        body
    };
    let path = path.with_extension(Syntax::of(text).extension());
    let before = admin.catalog.load();
    let before = config::without_file(&before, replaced.unwrap_or(&path));
    let after = match config::with_file(&before, &admin.settings.queues, &path, text) {
        Ok(after) => after,
        Err(errors) => {
            draft.errors = errors.iter().map(DraftError::from).collect();
            return draft;
        }
    };
    let after = config::without_own(after, &admin.settings);
    let new = after
        .errors
        .iter()
        .filter(|error| !before.errors.contains(error));
    draft.errors.extend(new.map(other));
    let refused = match caller.confined_to() {
        None => change::check_owner(caller, &after, &path).err(),
        Some(_) => confined(admin, caller, &before, &path, exchange.clone()),
    };
    draft
        .errors
        .extend(refused.map(|refused| DraftError::plain(refused.message)));
    let after = change::signed(caller, after, &path);
    let engines = Engines::new(&admin.settings).within(&after);
    let own = after
        .instances
        .iter()
        .filter(|instance| instance.file == path);
    for (place, spec) in own.flat_map(|instance| instance.deployments.iter().enumerate()) {
        match preview(&engines, spec, &admin.gpus.devices) {
            Ok(command) => draft.commands.push(command),
            Err(errors) => {
                let errors = errors
                    .iter()
                    .map(|error| option(error, place, exchange.tables()));
                draft.errors.extend(errors);
            }
        }
    }
    draft.ok = draft.errors.is_empty();
    draft
}

/// Reason for which someone of a workspace may not launch this, as a launch gives it.
fn confined(
    admin: &Admin,
    caller: &Caller,
    before: &Catalog,
    path: &Path,
    mut exchange: Exchange,
) -> Option<ApiError> {
    confine(before, caller, &mut exchange);
    let (syntax, text) = exchange.as_sent();
    let path = &path.with_extension(syntax.extension());
    // Other errors of the text are told already.
    let after = config::with_file(before, &admin.settings.queues, path, text.as_bytes()).ok()?;
    change::check_owner(caller, &after, path).err()
}

/// Errors for which a text is no route file. One that only lacks a name is looked at whole.
fn unread(admin: &Admin, error: &ExchangeError, body: &[u8]) -> Vec<DraftError> {
    match error {
        ExchangeError::Syntax(errors) => errors.iter().map(DraftError::from).collect(),
        ExchangeError::Name(error) => {
            let name = format!("draft.{}", Syntax::of(body).extension());
            let path = admin.settings.gateway.routes.join(name);
            let before = admin.catalog.load();
            let tried = config::with_file(&before, &admin.settings.queues, &path, body);
            let errors = tried.err().unwrap_or_default();
            let nameless = DraftError {
                key: "instance.name".to_owned(),
                ..DraftError::plain(error.to_string())
            };
            let mut errors: Vec<DraftError> = errors.iter().map(DraftError::from).collect();
            if !errors.iter().any(|error| error.key == nameless.key) {
                errors.insert(0, nameless);
            }
            errors
        }
        other => vec![DraftError::plain(other.to_string())],
    }
}

/// Error that another file would have.
fn other(error: &FileError) -> DraftError {
    DraftError::plain(format!("this would leave another file wrong: {error}"))
}

/// An option that the version refuses, at the table that sets it.
fn option(
    error: &OptionError,
    place: usize,
    tables: &serde_json::Map<String, serde_json::Value>,
) -> DraftError {
    let name = error.key.split('.').next().unwrap_or_default();
    let has = |table: Option<&serde_json::Value>| {
        table
            .and_then(|table| table.get("options")?.get(name))
            .is_some_and(|value| !value.is_null())
    };
    let own = tables.get("deployment").and_then(|list| list.get(place));
    let of_instance = !has(own) && has(tables.get("instance"));
    let table = if of_instance {
        "instance"
    } else {
        "deployment"
    };
    DraftError {
        key: format!("{table}.options.{name}"),
        deployment: (!of_instance).then_some(place),
        ..DraftError::plain(error.message.clone())
    }
}

/// Command by which a worker would be run. Installed versions are not looked for: an unnamed
/// version is taken for the newest that is known.
fn preview(
    engines: &Engines,
    spec: &Deployment,
    devices: &[Device],
) -> Result<CommandView, Vec<OptionError>> {
    let place = command::WorkerPlace::shown();
    let wrong = |message: String| vec![OptionError::new("vllm_version", message)];
    let (text, doubts) = match &spec.engine {
        Engine::Vllm(vllm) => {
            let assumed = engines.vllm.assumed(vllm.version.as_deref());
            let assumed = assumed.map_err(|error| wrong(error.to_string()))?;
            let line = engines.vllm_arguments(spec, vllm, &assumed, place)?;
            let mut text = Vec::new();
            crate::vllm::args::print(&mut text, &line).map_err(|error| wrong(error.to_string()))?;
            (String::from_utf8_lossy(&text).into_owned(), assumed.doubts)
        }
        Engine::Sim(_) => {
            let line = engines
                .command_line(spec, &command::Engine::StandIn, place)
                .map_err(wrong)?;
            (format!("tidegate {}", line.args.join(" ")), Vec::new())
        }
    };
    let memory = engines.foretold(spec, devices);
    let mut view = CommandView::printed(spec.id.to_string(), &text, memory);
    view.notes.extend(doubts);
    Ok(view)
}

/// Queues that workers can be placed in.
#[utoipa::path(get, path = "/queues", tag = "instances", responses(
    (status = 200, body = Vec<String>), (status = 401, body = ErrorView)))]
async fn queues(State(admin): State<Admin>, _caller: Caller) -> Json<Vec<String>> {
    let names = admin.settings.queues.iter();
    Json(names.map(ToString::to_string).collect())
}
