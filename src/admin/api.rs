//! The calls of the API.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Admin, exchange, view};
use crate::auth::{Pattern, Role, TokenLimits, TokenRecord, TokenSpec};
use crate::deployment::Handle;
use crate::lifecycle::Command;
use crate::names::{Project, Workspace};
use crate::store::StoreError;
use crate::time::{unix_seconds, unix_time};
use crate::units::Span;

/// Largest body of a call, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A call that failed: what the caller is told.
#[derive(Debug)]
pub struct ApiError(pub(super) StatusCode, pub(super) String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": {"message": self.1}}))).into_response()
    }
}

impl ApiError {
    fn bad(message: &dyn std::error::Error) -> Self {
        Self(StatusCode::BAD_REQUEST, message.to_string())
    }

    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %error, "a call of the admin API failed");
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TokenId(_) => Self::bad(&error),
            _ => Self::internal(&error),
        }
    }
}

pub(super) type Answer<T> = Result<Json<T>, ApiError>;

/// Every call, for whoever is admin.
pub fn router(admin: Admin) -> Router {
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/routes", get(routes))
        .route("/instances", get(instances))
        .route("/instances/{name}/logs", get(logs))
        .route("/instances/{name}/events", get(instance_events))
        .route("/instances/{name}/{command}", post(command))
        .route("/events", get(events))
        .route("/tokens", get(tokens).post(create_token))
        .route("/tokens/{jti}", delete(revoke_token))
        .merge(exchange::router());
    Router::new()
        .nest("/api/v1", v1)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(admin)
}

async fn status(State(admin): State<Admin>) -> Json<view::StatusView> {
    let catalog = admin.catalog.load();
    let gateway = &admin.settings.gateway;
    Json(view::StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: admin.started,
        directory: admin.directory.display().to_string(),
        listen: gateway
            .listen
            .iter()
            .map(|address| format!("https://{address}"))
            .chain(
                gateway
                    .plain_listen
                    .iter()
                    .map(|address| format!("http://{address}")),
            )
            .collect(),
        routes: catalog.routes.iter().filter(|route| route.enabled).count(),
        config_errors: catalog.errors.iter().map(Into::into).collect(),
    })
}

async fn routes(State(admin): State<Admin>) -> Json<Vec<view::RouteView>> {
    Json(view::routes(&admin.catalog.load()))
}

async fn instances(State(admin): State<Admin>) -> Json<Vec<view::InstanceView>> {
    Json(view::instances(&admin, &admin.catalog.load()))
}

/// Which deployment of an instance is meant; all where none is named.
#[derive(Debug, Default, Deserialize)]
struct Which {
    deployment: Option<String>,
}

/// The deployments that a name means: an instance's, or one by its id or endpoint.
fn find(admin: &Admin, name: &str, which: &Which) -> Result<Vec<Arc<Handle>>, ApiError> {
    let all = admin.registry.all();
    let chosen: Vec<_> = all
        .iter()
        .filter(|handle| {
            let spec = handle.spec();
            let of_name = spec.instance.as_str() == name || handle.id.as_str() == name;
            of_name
                && which
                    .deployment
                    .as_deref()
                    .is_none_or(|wanted| wanted == spec.endpoint_name.as_str())
        })
        .cloned()
        .collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let known = all.iter().map(|handle| handle.spec().instance.to_string());
    let nearest = known.min_by_key(|known| strsim::levenshtein(known, name));
    let hint = nearest.map_or_else(
        || "no instance is configured".to_owned(),
        |nearest| format!("is it `{nearest}`? see `tidegate ps`"),
    );
    Err(ApiError(
        StatusCode::NOT_FOUND,
        format!("there is no instance `{name}`: {hint}"),
    ))
}

async fn command(
    State(admin): State<Admin>,
    Path((name, command)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Answer<serde_json::Value> {
    let command = match command.as_str() {
        "start" => Command::Start,
        "stop" => Command::Stop,
        "offload" => Command::Offload,
        "wake" => Command::Wake,
        other => {
            let message =
                format!("there is no command `{other}`: use start, stop, offload or wake");
            return Err(ApiError(StatusCode::NOT_FOUND, message));
        }
    };
    let mut done = Vec::new();
    for handle in find(&admin, &name, &which)? {
        admin
            .lifecycle
            .command(&handle.id, command)
            .await
            .map_err(|error| ApiError(StatusCode::CONFLICT, format!("{}: {error}", handle.id)))?;
        done.push(handle.id.to_string());
    }
    Ok(Json(json!({"accepted": done})))
}

#[derive(Debug, Deserialize)]
struct LogsQuery {
    tail: Option<usize>,
    #[serde(default)]
    follow: u8,
    deployment: Option<String>,
}

/// The console: one JSON text a line, as server-sent events when followed.
async fn logs(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, ApiError> {
    let which = Which {
        deployment: query.deployment,
    };
    let handles = find(&admin, &name, &which)?;
    let several = handles.len() > 1;
    let tail = query.tail.unwrap_or(200);
    if query.follow == 0 {
        let mut lines = Vec::new();
        for handle in &handles {
            lines.extend(
                handle
                    .console
                    .tail(tail)
                    .0
                    .iter()
                    .map(|line| prefixed(handle, line, several)),
            );
        }
        return Ok(Json(lines).into_response());
    }
    let followers = handles
        .into_iter()
        .map(|handle| Follower::new(handle, tail, several))
        .collect();
    let body = Body::new(Followed {
        followers,
        ready: VecDeque::new(),
    });
    let headers = [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
    ];
    Ok((headers, body).into_response())
}

fn prefixed(handle: &Handle, line: &str, several: bool) -> String {
    if several {
        format!("[{}] {line}", handle.spec().endpoint_name)
    } else {
        line.to_owned()
    }
}

/// One console that is followed.
struct Follower {
    handle: Arc<Handle>,
    next: u64,
    several: bool,
    fresh: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Follower {
    fn new(handle: Arc<Handle>, tail: usize, several: bool) -> Self {
        let (_, end) = handle.console.tail(0);
        Self {
            next: end.saturating_sub(tail as u64),
            fresh: Box::pin(std::future::ready(())),
            several,
            handle,
        }
    }

    /// Resolves once there are lines from number `from` on.
    fn wait(handle: &Handle, from: u64) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut count = handle.console.watch();
        Box::pin(async move {
            // The console lives as long as the handle; its end ends the wait.
            drop(count.wait_for(|count| *count > from).await);
        })
    }
}

/// A body of server-sent events, one a line. It ends when the client leaves.
struct Followed {
    followers: Vec<Follower>,
    ready: VecDeque<Bytes>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        use std::task::Poll;
        let this = self.get_mut();
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(http_body::Frame::data(event))));
            }
            let mut moved = false;
            for follower in &mut this.followers {
                if follower.fresh.as_mut().poll(cx).is_pending() {
                    continue;
                }
                moved = true;
                let (lines, next) = follower.handle.console.since(follower.next);
                follower.next = next;
                follower.fresh = Follower::wait(&follower.handle, next);
                for line in lines {
                    let text = prefixed(&follower.handle, &line, follower.several);
                    this.ready
                        .push_back(Bytes::from(format!("data: {}\n\n", json!(text))));
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct EventsQuery {
    tail: Option<usize>,
}

async fn events(
    State(admin): State<Admin>,
    Query(query): Query<EventsQuery>,
) -> Json<Vec<view::EventView>> {
    let newest = admin.lifecycle.events(None, query.tail.unwrap_or(200));
    Json(newest.iter().map(Into::into).collect())
}

async fn instance_events(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Answer<Vec<view::EventView>> {
    let tail = query.tail.unwrap_or(200);
    let mut events = Vec::new();
    for handle in find(&admin, &name, &Which::default())? {
        let newest = admin.lifecycle.events(Some(&handle.id), tail);
        events.extend(newest.iter().map(view::EventView::from));
    }
    events.sort_by_key(|event| event.at);
    Ok(Json(events.split_off(events.len().saturating_sub(tail))))
}

#[derive(Debug, Default, Deserialize)]
struct TokensQuery {
    workspace: Option<Workspace>,
    before: Option<String>,
}

/// One page of `GET tokens`.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokensView {
    /// The newest first.
    pub tokens: Vec<TokenRecord>,
    /// Where the next page begins.
    pub next: Option<String>,
}

async fn tokens(
    State(admin): State<Admin>,
    Query(query): Query<TokensQuery>,
) -> Answer<TokensView> {
    let store = admin.store.clone();
    let page =
        blocking(move || store.tokens(query.workspace.as_ref(), query.before.as_deref(), 200))
            .await?;
    Ok(Json(TokensView {
        tokens: page.records,
        next: page.next,
    }))
}

/// `POST tokens`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The tenant.
    pub workspace: Workspace,
    /// Whom it is for; default: a name from the label.
    #[serde(default)]
    pub subject: Option<String>,
    /// What it may do.
    #[serde(default)]
    pub role: Role,
    /// Projects that it may read.
    #[serde(default)]
    pub projects: Vec<Project>,
    /// Routes or models that it is limited to; makes it an endpoint token.
    #[serde(default)]
    pub endpoints: Vec<Pattern>,
    /// A name for people.
    #[serde(default)]
    pub label: Option<String>,
    /// How long it is valid.
    pub ttl: Span,
    /// Anything that belongs to it, as an object.
    #[serde(default)]
    pub metadata: Option<serde_json::Value>,
}

impl TokenRequest {
    /// What the issuer takes.
    pub fn spec(self) -> TokenSpec {
        TokenSpec {
            workspace: self.workspace,
            subject: self.subject,
            role: self.role,
            projects: self.projects,
            endpoints: self.endpoints,
            label: self.label,
            ttl: self.ttl.0,
            metadata: self.metadata,
            limits: TokenLimits::default(),
        }
    }
}

/// The answer to `POST tokens`: the only time that the token is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenMade {
    /// The token.
    pub token: String,
    /// What is kept of it.
    pub record: TokenRecord,
}

async fn create_token(
    State(admin): State<Admin>,
    Json(request): Json<TokenRequest>,
) -> Answer<TokenMade> {
    let made = admin
        .issuer
        .issue(request.spec(), unix_time())
        .map_err(|error| ApiError::bad(&error))?;
    let (token, mut record) = made;
    record.created_by = Some("admin socket".to_owned());
    let (store, kept) = (admin.store.clone(), record.clone());
    blocking(move || store.put_token(&kept)).await?;
    Ok(Json(TokenMade { token, record }))
}

async fn revoke_token(
    State(admin): State<Admin>,
    Path(jti): Path<String>,
) -> Answer<serde_json::Value> {
    let (store, id) = (admin.store.clone(), jti.clone());
    let since = blocking(move || store.revoke_token(&id, unix_seconds())).await?;
    // Kept first, then in effect: a crash between the two forgets nothing.
    admin.revocations.add(&jti);
    Ok(Json(json!({"revoked": jti, "since": since})))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::internal(&error)),
    }
}
