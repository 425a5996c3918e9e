//! `POST routes/{name}/test`: a real request, from outside, with each step timed.
//!
//! It goes to the gateway's own listener as a client's would: over TCP, TLS and
//! the token check, with a token of a minute that is good for this route only.
//! The certificate must be the one that the gateway was given, by its bytes; whose
//! name stands in it is the client's to check.

mod pinned;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::access::Caller;
use crate::admin::error::Answer;
use crate::admin::view::{ErrorView, RouteTest, RouteTestRequest, TestStep};
use crate::admin::{Admin, scope};
use crate::auth::{Pattern, Role, TokenLimits, TokenSpec};
use crate::config::{Deployment, Route};
use crate::deployment::{Handle, Status};
use crate::names::Workspace;
use crate::outbound::exchange::exchange;
use crate::outbound::socket::{Proof, Socket};
use crate::time::{Instant, timeout};

/// Limit of the whole test; beyond it, a cold start goes on without it.
const TEST_MAX: Duration = Duration::from_mins(10);
/// Life of the token.
const TOKEN_TTL: Duration = Duration::from_mins(11);
/// Most characters of a prompt.
const PROMPT_CHARS_MAX: usize = 4_000;
/// Characters of an answer that are shown.
const ANSWER_CHARS: usize = 2_000;
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Places of the text in an event.
const DELTAS: [&str; 3] = [
    "/choices/0/delta/content",
    "/choices/0/delta/reasoning_content",
    "/choices/0/delta/reasoning",
];
/// Tokens that are asked for.
const TOKENS: u32 = 64;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(test))
}

/// Send a real request through the gateway, and see each step with its time.
///
/// A worker that is stopped or asleep is started only if the body says
/// `"start": true`; else the test ends there and says so.
#[utoipa::path(post, path = "/routes/{name}/test", tag = "routes",
    params(("name" = String, Path, description = "The route")), request_body = RouteTestRequest,
    responses((status = 200, body = RouteTest), (status = 403, body = ErrorView),
    (status = 404, body = ErrorView)))]
async fn test(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
    Json(request): Json<RouteTestRequest>,
) -> Answer<RouteTest> {
    let catalog = admin.catalog.load();
    let route = &*scope::own_route(&catalog, &caller, &name)?;
    let started = Instant::now();
    let mut steps = Steps::default();
    let answer = timeout(TEST_MAX, run(&admin, route, &request, &mut steps)).await;
    let answer = answer.unwrap_or_else(|_| {
        steps.failed("end", format!("no end within {} s", TEST_MAX.as_secs()));
        None
    });
    let ok = steps
        .all
        .last()
        .is_some_and(|step| step.step == "end" && step.ok);
    let target = format!("route:{}", route.name);
    let detail = if ok { "answered" } else { "not answered" };
    admin.audit.done(&caller, "test", &target, detail).await;
    Ok(Json(RouteTest {
        ok,
        steps: steps.all,
        answer,
        total_ms: millis(started.elapsed()),
    }))
}

/// Steps that were done, each with the time since the one before.
struct Steps {
    all: Vec<TestStep>,
    since: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            since: Instant::now(),
        }
    }
}

impl Steps {
    fn push(&mut self, step: &str, ok: bool, detail: String) {
        let now = Instant::now();
        self.all.push(TestStep {
            step: step.to_owned(),
            ok,
            ms: millis(now - self.since),
            detail,
        });
        self.since = now;
    }

    fn done(&mut self, step: &str, detail: impl Into<String>) {
        self.push(step, true, detail.into());
    }

    fn failed(&mut self, step: &str, detail: impl Into<String>) {
        self.push(step, false, detail.into());
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Goes as far as it can; the last step says where it ended.
async fn run(
    admin: &Admin,
    route: &Route,
    request: &RouteTestRequest,
    steps: &mut Steps,
) -> Option<String> {
    let model = ready(admin, route, request, steps)?;
    let token = match token(admin, route) {
        Ok(token) => token,
        Err(error) => {
            steps.failed("token", error);
            return None;
        }
    };
    let prompt = request.prompt.as_deref().unwrap_or("Hello!");
    let prompt: String = prompt.chars().take(PROMPT_CHARS_MAX).collect();
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": TOKENS,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let Some(front) = admin.fronts.first() else {
        steps.failed("connect", "the gateway has no listener");
        return None;
    };
    let (address, secure) = (here(front.address), front.secure);
    let tcp = match TcpStream::connect(address).await {
        Ok(tcp) => tcp,
        Err(error) => {
            steps.failed("connect", format!("{address}: {error}"));
            return None;
        }
    };
    steps.done("connect", address.to_string());
    let request = Request::post(format!("/{}/v1/chat/completions", route.path))
        .header("host", route.host.as_deref().unwrap_or("localhost"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("user-agent", "tidegate-test")
        .body(Full::new(Bytes::from(body.to_string())));
    let Ok(request) = request else {
        steps.failed("send", "the request can't be written");
        return None;
    };
    let proof = match secure.then(|| pinned::client(&admin.settings.tls.certificate)) {
        Some(Ok(client)) => Some(Proof {
            client,
            name: ServerName::IpAddress(address.ip().into()),
        }),
        Some(Err(error)) => {
            steps.failed("tls", error);
            return None;
        }
        None => None,
    };
    let socket = match Socket::over(tcp, proof.as_ref(), TEST_MAX).await {
        Ok(socket) => socket,
        Err(failure) => {
            steps.failed("tls", failure.to_string());
            return None;
        }
    };
    if let Socket::Tls(stream) = &socket {
        let version = stream.get_ref().1.protocol_version();
        let version = version.map_or_else(String::new, |version| format!("{version:?}"));
        steps.done("tls", version.replace('_', "."));
    }
    conversation(socket, request, steps).await
}

/// The model to ask, once its worker serves or may be started.
fn ready(
    admin: &Admin,
    route: &Route,
    request: &RouteTestRequest,
    steps: &mut Steps,
) -> Option<String> {
    if !route.enabled {
        steps.failed(
            "route",
            "it is disabled: set route.enabled = true in its file",
        );
        return None;
    }
    let own = route
        .deployments
        .first()
        .map(|spec| spec.endpoint_name.to_string());
    let named = request.model.clone().or(own);
    let named = named.or_else(|| route.models.first().map(ToString::to_string));
    let Some(model) = named else {
        steps.failed("route", "it leads to no model: name one in the test");
        return None;
    };
    let meant = meant(route, &model);
    let handles = meant.filter_map(|spec| admin.registry.get(&spec.id));
    let stands = |handle: &Arc<Handle>| (handle.id.to_string(), handle.status());
    let standing: Vec<(String, Status)> = handles.map(|handle| stands(&handle)).collect();
    let serves = |status: Status| matches!(status, Status::Active | Status::Idle);
    let asleep = standing.iter().find(|(_, status)| !serves(*status));
    let (said, may) = match (asleep.filter(|_| !request.start), standing.first()) {
        (Some((id, status)), _) => {
            let hint = "start it, or allow the test to, with \"start\": true";
            (format!("{id} is {}: {hint}", status.as_str()), false)
        }
        (None, Some((id, status))) => (format!("{id} is {}", status.as_str()), true),
        (None, None) => (format!("{model} on servers that someone else runs"), true),
    };
    steps.push("route", may, said);
    may.then_some(model)
}

/// The deployments that may answer to a name: the one that is called so; any of the
/// route's where it is a name of the route.
fn meant<'a>(route: &'a Route, model: &str) -> impl Iterator<Item = &'a Arc<Deployment>> {
    let model = route.meaning(model);
    let is_own = |spec: &&Arc<Deployment>| spec.endpoint_name.as_str() == model;
    let all = route.deployments.as_slice();
    let own = all.iter().find(is_own).map(std::slice::from_ref);
    own.unwrap_or(all).iter()
}

/// A token that is good for this route, and for nothing else.
fn token(admin: &Admin, route: &Route) -> Result<String, String> {
    let spec = TokenSpec {
        workspace: match &route.workspace {
            Some(workspace) => workspace.clone(),
            None => Workspace::new("tidegate").map_err(|error| error.to_string())?,
        },
        subject: Some("svc:route-test".to_owned()),
        role: Role::User,
        projects: route.belonging().project.cloned().into_iter().collect(),
        endpoints: vec![Pattern::new(route.name.as_str()).map_err(|error| error.to_string())?],
        label: Some("route test".to_owned()),
        ttl: TOKEN_TTL,
        metadata: None,
        limits: TokenLimits::default(),
        may_load: false,
    };
    let made = admin.issuer.issue(spec, admin.revocations.clock().now());
    made.map(|(token, _)| token)
        .map_err(|error| error.to_string())
}

/// Address to connect to, to reach a listener of this machine.
fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listen.port())
}

async fn conversation(
    socket: Socket,
    request: Request<Full<Bytes>>,
    steps: &mut Steps,
) -> Option<String> {
    let told = &mut *steps;
    let answered = exchange(socket, request, move |head| async move {
        match head {
            Ok(response) => read(response, told).await,
            Err(error) => {
                told.failed("head", error.to_string());
                None
            }
        }
    });
    answered.await.unwrap_or_else(|error| {
        steps.failed("send", error.to_string());
        None
    })
}

/// Reads the answer: its head, its first token, its end.
async fn read(response: http::Response<Incoming>, steps: &mut Steps) -> Option<String> {
    let status = response.status();
    let header = |name: &str| {
        let value = response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let cold = header("x-tidegate-cold-start-ms").map(|ms| format!(", worker started in {ms} ms"));
    let id = header("x-request-id").unwrap_or_default();
    let said = format!("{status}, request {id}{}", cold.unwrap_or_default());
    steps.push("head", status.is_success(), said);
    let mut body = response.into_body();
    let (mut raw, mut answer, mut first) = (Vec::new(), String::new(), true);
    let mut tokens = None;
    let mut line_start = 0;
    let mut whole = false;
    while let Some(frame) = body.frame().await {
        let data = match frame.map(|frame| frame.into_data().unwrap_or_default()) {
            Ok(data) => data,
            Err(error) => {
                steps.failed("end", format!("the answer broke off: {error}"));
                return Some(cut(&answer));
            }
        };
        if raw.len() + data.len() > ANSWER_BYTES_MAX {
            steps.failed("end", "the answer is larger than 1 MiB");
            return Some(cut(&answer));
        }
        raw.extend_from_slice(&data);
        while let Some(end) = raw
            .get(line_start..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let line = raw.get(line_start..line_start + end).unwrap_or_default();
            let event = event(line);
            line_start += end + 1;
            whole |= matches!(event, Event::Done);
            if let Event::Data(event) = event {
                tokens = number(&event, "/usage/completion_tokens").or(tokens);
                let text = DELTAS.iter().find_map(|at| event.pointer(at)?.as_str());
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    if std::mem::take(&mut first) {
                        steps.done("first_token", text.chars().take(40).collect::<String>());
                    }
                    answer.push_str(text);
                }
            }
        }
    }
    if status != StatusCode::OK {
        return Some(refusal(&raw));
    }
    let counted = tokens.map_or_else(String::new, |tokens| format!("{tokens} tokens"));
    if whole {
        steps.done("end", counted);
    } else {
        steps.failed("end", "the stream ended without [DONE]");
    }
    Some(cut(&answer))
}

fn number(event: &Value, at: &str) -> Option<u64> {
    event.pointer(at)?.as_u64()
}

fn cut(text: &str) -> String {
    text.chars().take(ANSWER_CHARS).collect()
}

/// The words of a refusal.
fn refusal(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = json
        .as_ref()
        .and_then(|json| json.pointer("/error/message")?.as_str());
    message.map_or_else(|| cut(&String::from_utf8_lossy(body)), cut)
}

enum Event {
    Data(Value),
    Done,
    Other,
}

fn event(line: &[u8]) -> Event {
    match line
        .trim_ascii()
        .strip_prefix(b"data:")
        .map(<[u8]>::trim_ascii)
    {
        Some(b"[DONE]") => Event::Done,
        Some(data) => serde_json::from_slice(data).map_or(Event::Other, Event::Data),
        None => Event::Other,
    }
}
