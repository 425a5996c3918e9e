//! The calls of the API, under `/api/v1`.
//!
//! Shapes stand in [`super::view`], each field with its meaning; the description
//! at `/api/v1/openapi.json` is made of both. In short, for who writes a client:
//!
//! - Ask with `Authorization: Bearer TOKEN` (role `operator` or `admin`), or with
//!   the cookie of `POST /api/v1/session` or the form `POST /login`. Whatever
//!   changes something with a cookie is sent with the header `x-csrf-token`, whose
//!   value `GET session` gives ([`view::SessionView::csrf`]).
//! - An error has a status and `{"error": {"message": "…"}}`, in words for people.
//!   401: log in; 403: not yours; 404: not there; 409: in the way of something;
//!   412: changed by someone else meanwhile; 422: the file would be wrong, and the
//!   message has a line for each error, with file, line and key.
//! - Times are seconds since 1970, spans are seconds, sizes are bytes; names end in
//!   the unit. Spans in a query are written as `15m`, `2h`, `2d`, or in seconds.
//! - Lists are complete, but for `tokens` and `audit`, which go by pages.
//!
//! | call | answers |
//! |---|---|
//! | `GET status` | [`view::StatusView`] |
//! | `GET state/export`, `POST state/set-back-clock` | lines of JSON, [`view::ClockView`]; on the Unix socket only |
//! | `GET session`, `POST session` (log in, JSON), `DELETE session` (log out) | [`view::SessionView`] |
//! | `GET sessions`, `DELETE sessions/{id}` | [`view::SessionEntry`] |
//! | `POST login-links` | [`view::LoginLinkView`] |
//! | `GET instances` | list of [`view::InstanceView`], each with its [`view::DeploymentView`]s |
//! | `GET instances/{name}` | [`view::InstanceDetail`], with an `ETag` |
//! | `POST instances`, `POST instances/import`, `PUT instances/{name}` | [`super::exchange::Launched`]; body: a route file as TOML or JSON; `?dry_run=1` only tries it; with PUT `?drain=1` replaces workers at once |
//! | `POST drafts?replaces=` | [`view::DraftView`]; body: a route file, which is only tried: every error with line and key, and the command lines |
//! | `GET queues` | names of queues |
//! | `DELETE instances/{name}` | [`super::exchange::Deleted`] |
//! | `POST instances/{name}/{start,stop,offload,wake}` | [`view::Accepted`]; `?deployment=` for one model |
//! | `POST instances/{name}/clone` | [`super::exchange::Launched`]; `?dry_run=1` only tries it |
//! | `GET instances/{name}/export` | the instance as JSON |
//! | `GET instances/{name}/logs?tail=&follow=&deployment=` | a JSON list of lines; with `follow=1` server-sent events, each `id: N` and `data: "line"` (a JSON text), resumed by `Last-Event-ID` |
//! | `GET instances/{name}/events?tail=`, `GET events?tail=` | list of [`view::EventView`], the oldest first |
//! | `GET instances/{name}/explain` | list of [`view::ExplainView`]: why it is (not) running, what a start would evict |
//! | `GET instances/{name}/series?metric=a,b&since=1h&step=10`, `GET series?scope=…&metric=…` | [`view::SeriesView`]: columns for plots |
//! | `GET marks?scope=&since=1h` | [`view::MarksView`]: starts, wakes, evictions, failures and edits, for plots to mark |
//! | `GET metrics` | list of [`view::MetricView`] |
//! | `GET gpus` | [`view::GpusView`] |
//! | `GET endpoints` | list of [`view::EndpointView`] |
//! | `GET routes`, `GET routes/{name}/file` | list of [`view::RouteView`], the text of one's file |
//! | `PUT routes/{name}`, `DELETE routes/{name}` | body: a route file; `If-Match` with the revision |
//! | `POST routes/{name}/test` | [`view::RouteTest`] |
//! | `GET upstreams` | list of [`view::UpstreamView`] |
//! | `POST tokens/cut-off`, `POST tokens/rotate-key` | [`view::CutOff`], [`view::KeyRotated`] |
//! | `GET tokens`, `POST tokens`, `DELETE tokens/{jti}` | [`view::TokensView`], [`view::TokenMade`], [`view::TokenRevoked`] |
//! | `POST plan` | [`view::PlanView`]: what files would change; body: [`view::PlanRequest`] |
//! | `GET options?vllm_version=` | as `tidegate options --format json` prints it |
//! | `GET audit?before=&tail=`, `GET audit/{id}/text` | [`view::AuditPage`], [`view::AuditText`] |
//! | `GET embeds`, `POST embeds`, `DELETE embeds/{id}` | [`view::EmbedView`] |

#![expect(unused_qualifications, reason = "utoipa's macros write whole paths")]

mod commands;
mod draft;
mod events;
mod explain;
mod gpus;
mod instances;
mod logs;
mod marks;
mod options;
mod plan;
mod probe;
mod route_files;
mod routes;
pub(super) mod series;
mod sessions;
mod state;
mod status;
mod tokens;

use axum::Router;
use serde_json::Value;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::Admin;
#[cfg(doc)]
use super::view;

/// Largest body of a call, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// Text of the description beside the calls themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidegate admin API",
        description = "See, steer and launch. On the HTTPS listener send a token with the role operator or admin; on the Unix socket the file's permissions are the authentication."
    ),
    modifiers(&Security),
    paths(super::login::login_json)
)]
struct Description;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{
            ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        };
        let components = openapi.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", bearer);
        let cookie = ApiKeyValue::new(super::session::COOKIE);
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(cookie));
        components.add_security_scheme("session", cookie);
        let none: [&str; 0] = [];
        openapi.security = Some(vec![
            SecurityRequirement::new("token", none),
            SecurityRequirement::new("session", none),
        ]);
    }
}

/// Every call with its description.
fn described() -> (Router<Admin>, utoipa::openapi::OpenApi) {
    let v1 = OpenApiRouter::new()
        .merge(status::router())
        .merge(state::router())
        .merge(sessions::router())
        .merge(instances::router())
        .merge(super::exchange::router())
        .merge(commands::router())
        .merge(logs::router())
        .merge(events::router())
        .merge(explain::router())
        .merge(series::router())
        .merge(marks::router())
        .merge(gpus::router())
        .merge(routes::router())
        .merge(route_files::router())
        .merge(probe::router())
        .merge(super::embed::api())
        .merge(tokens::router())
        .merge(options::router())
        .merge(plan::router())
        .merge(draft::router());
    OpenApiRouter::with_openapi(Description::openapi())
        .nest("/api/v1", v1)
        .split_for_parts()
}

/// The description as JSON.
///
/// # Errors
///
/// No error can happen: the description is made of texts.
pub fn openapi() -> Result<String, serde_json::Error> {
    whole(&described().1)
}

/// The description as JSON, with what the standard demands and the code need not
/// say: a word for each answer.
fn whole(description: &utoipa::openapi::OpenApi) -> Result<String, serde_json::Error> {
    let mut json = serde_json::to_value(description)?;
    let paths = json.get_mut("paths").and_then(Value::as_object_mut);
    for (path, calls) in paths.into_iter().flatten() {
        for (method, call) in calls.as_object_mut().into_iter().flatten() {
            let id = operation_id(method, path);
            if let Some(call) = call.as_object_mut() {
                call.insert("operationId".to_owned(), Value::from(id));
            }
            let answers = call.get_mut("responses").and_then(Value::as_object_mut);
            answers
                .into_iter()
                .flatten()
                .for_each(|(status, answer)| describe(status, answer));
        }
    }
    serde_json::to_string_pretty(&json)
}

/// A name of its own for each call: `post_instances_name_clone`.
fn operation_id(method: &str, path: &str) -> String {
    let path = path.strip_prefix("/api/v1/").unwrap_or(path);
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    std::iter::once(method)
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

fn describe(status: &str, answer: &mut Value) {
    let code = status.parse::<http::StatusCode>();
    let word = code
        .ok()
        .and_then(|code| code.canonical_reason())
        .unwrap_or("Answer");
    if let Some(answer) = answer.as_object_mut() {
        answer
            .entry("description")
            .or_insert_with(|| Value::from(word));
    }
}

/// Every call, for each [`super::access::Caller`].
pub fn router() -> Router<Admin> {
    let (router, description) = described();
    let text: std::sync::Arc<str> = whole(&description).unwrap_or_default().into();
    let serve = move || {
        let text = std::sync::Arc::clone(&text);
        async move { ([("content-type", "application/json")], text.to_string()) }
    };
    router
        .route("/api/v1/openapi.json", axum::routing::get(serve))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
}
