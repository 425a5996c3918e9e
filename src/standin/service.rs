//! One request: key, route, body, handler, and what every answer carries.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::app::{Answer, App, Body, Call, json, json_with};
use super::engine::Failure;
use super::error::ApiError;
use super::faults::Misdeed;
use super::json::quoted;
use super::routes::{self, Dev, Infer, NoRoute, Report, Route};
use super::{audio, chat, completions, dev, messages, metrics, pooling, realtime, responses};
use crate::time::{sleep, unix_seconds};

/// Largest request body, in bytes. vLLM has no limit of its own.
const BODY_BYTES_MAX: usize = 256 << 20;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a request.
pub(super) async fn handle(
    app: Arc<App>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let asked_id = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|id| Some(id.to_str().ok()?.to_owned()));
    let echo = app.args.enable_request_id_headers.then(|| {
        let id = asked_id.clone().unwrap_or_else(|| app.id() + &app.id());
        HeaderValue::from_str(&id).ok()
    });
    let mut response = if routes::guarded(request.uri().path()) && !app.args.admits(token(&request))
    {
        json_with(
            StatusCode::UNAUTHORIZED,
            Bytes::from_static(b"{\"error\":\"Unauthorized\"}"),
        )
    } else {
        answer(&app, request, asked_id).await
    };
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("uvicorn"));
    if let Some(id) = echo.flatten() {
        headers.insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// The bearer token of a request. vLLM heeds no other header.
fn token(request: &Request<Incoming>) -> Option<&str> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

async fn answer(
    app: &Arc<App>,
    request: Request<Incoming>,
    request_id: Option<String>,
) -> Response<Body> {
    match routes::find(&app.args, request.method(), request.uri().path()) {
        Ok(route) => routed(app, route, request, request_id).await,
        Err(wrong) => no_route(wrong),
    }
}

async fn routed(
    app: &Arc<App>,
    route: Route,
    request: Request<Incoming>,
    request_id: Option<String>,
) -> Response<Body> {
    let anthropic = matches!(route, Route::Infer(Infer::Messages | Infer::CountTokens));
    let answer = match route {
        Route::Report(report) => report_on(app, report, request.uri().path()),
        Route::Dev(change) => dev_change(app, change, request).await,
        Route::Realtime => realtime::open(app, request),
        Route::Infer(infer) => compute(app, infer, request, request_id).await,
    };
    match answer {
        Ok(response) => varying(response),
        Err(error) => {
            let body = if anthropic {
                error.anthropic_body()
            } else {
                error.body()
            };
            let response = json_with(error.status(), body);
            match error {
                ApiError::Unhandled(_) => response,
                ApiError::Detail(..) | ApiError::Error { .. } => varying(response),
            }
        }
    }
}

/// Adds the header of vLLM's CORS middleware.
fn varying(mut response: Response<Body>) -> Response<Body> {
    let vary = HeaderValue::from_static("Origin");
    response.headers_mut().insert(header::VARY, vary);
    response
}

fn no_route(wrong: NoRoute) -> Response<Body> {
    let allow = match wrong {
        NoRoute::Path => None,
        NoRoute::Method(method) => Some(method),
    };
    let error = ApiError::from(wrong);
    let mut response = json_with(error.status(), error.body());
    if let Some(allow) = allow {
        let allow = HeaderValue::from_static(allow);
        response.headers_mut().insert(header::ALLOW, allow);
    }
    varying(response)
}

fn report_on(app: &App, report: Report, path: &str) -> Answer {
    let state = app.engine.now();
    Ok(match report {
        Report::Health | Report::Ping if state.dead => {
            super::app::empty(StatusCode::SERVICE_UNAVAILABLE)
        }
        Report::Health | Report::Ping => super::app::empty(StatusCode::OK),
        Report::Version => json(format!("{{\"version\":\"{}\"}}", super::version::VERSION)),
        Report::Models => json(models(app)),
        Report::Metrics => metrics::response(app),
        Report::Load => json(format!(
            "{{\"server_load\":{}}}",
            app.engine.counters.inside.load(Ordering::Relaxed)
        )),
        Report::KvEventSources => json("{}"),
        Report::IsSleeping => json(format!("{{\"is_sleeping\":{}}}", state.level.is_some())),
        Report::IsPaused => json(format!("{{\"is_paused\":{}}}", !state.admits)),
        Report::WorldSize => json("{\"world_size\":1}"),
        Report::WeightInfo => json("{\"weight_version\":\"default\"}"),
        Report::ServerInfo => {
            let message = "'NoneType' object has no attribute 'splitlines'";
            return Err(ApiError::Unhandled(message.to_owned()));
        }
        Report::StoredResponse => {
            let id = path.split('/').nth(3).unwrap_or_default();
            json(app.stored.get(id)?)
        }
        Report::CancelledResponse => {
            let id = path.split('/').nth(3).unwrap_or_default();
            json(app.stored.cancel(id)?)
        }
    })
}

fn models(app: &App) -> String {
    let cards: Vec<String> = app
        .args
        .names()
        .iter()
        .map(|name| {
            format!(
                "{{\"id\":{},\"object\":\"model\",\"created\":{now},\"owned_by\":\"vllm\",\"root\":{},\"parent\":null,\"max_model_len\":{},\"permission\":[{{\"id\":\"modelperm-{}\",\"object\":\"model_permission\",\"created\":{now},\"allow_create_engine\":false,\"allow_sampling\":true,\"allow_logprobs\":true,\"allow_search_indices\":false,\"allow_view\":true,\"allow_fine_tuning\":false,\"organization\":\"*\",\"group\":null,\"is_blocking\":false}}]}}",
                quoted(name),
                quoted(&app.args.model),
                app.args.max_model_len,
                app.id(),
                now = unix_seconds()
            )
        })
        .collect();
    format!("{{\"object\":\"list\",\"data\":[{}]}}", cards.join(","))
}

async fn dev_change(app: &Arc<App>, change: Dev, request: Request<Incoming>) -> Answer {
    let query = request.uri().query().unwrap_or_default().to_owned();
    match change {
        Dev::Sleep => dev::sleep(app, &query).await,
        Dev::WakeUp => dev::wake_up(app, &query).await,
        Dev::Pause => dev::pause(app, &query).await,
        Dev::Resume => Ok(dev::resume(app)),
        Dev::ResetPrefixCache => Ok(json("{\"success\":true}")),
        Dev::ResetOther => Ok(super::app::empty(StatusCode::OK)),
        Dev::CollectiveRpc => dev::collective_rpc(app, &read(request).await?).await,
        Dev::Fault => dev::fault(app, &read(request).await?),
    }
}

/// Counts one request as inside while it lives.
struct Inside<'a>(&'a App);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let inside = &self.0.engine.counters.inside;
        inside.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn compute(
    app: &Arc<App>,
    infer: Infer,
    request: Request<Incoming>,
    request_id: Option<String>,
) -> Answer {
    app.engine.counters.inside.fetch_add(1, Ordering::Relaxed);
    let _inside = Inside(app);
    let plan = app.plan.load_full();
    let is_form = matches!(infer, Infer::Transcriptions | Infer::Translations);
    let (call, form) = if is_form {
        let form = form_body(request).await?;
        (Call::default(), Some(form))
    } else {
        let body = json_body(request).await?;
        (Call { body, request_id }, None)
    };
    if let Some(wait) = plan.find(|fault| match fault {
        Misdeed::SlowHeaders(wait) => Some(*wait),
        _ => None,
    }) {
        sleep(wait).await;
    }
    if plan.has(&Misdeed::Status500) {
        return Err(Failure::Dead.into());
    }
    if plan.has(&Misdeed::QueueFull) {
        return Err(Failure::QueueFull.into());
    }
    let infer = match infer {
        Infer::Invocations => like(&call)?,
        infer => infer,
    };
    let app = Arc::clone(app);
    match form {
        Some(form) => audio::transcribe(app, form, infer == Infer::Translations).await,
        None => answer_call(app, infer, call).await,
    }
}

async fn answer_call(app: Arc<App>, infer: Infer, call: Call) -> Answer {
    match infer {
        Infer::Chat => chat::chat(app, call).await,
        Infer::Completions => completions::completions(app, call).await,
        Infer::Responses => responses::responses(app, call).await,
        Infer::Messages => messages::messages(app, call).await,
        Infer::CountTokens => messages::count_tokens(&app, &call),
        Infer::Tokenize => pooling::tokenize(&app, &call),
        Infer::Detokenize => pooling::detokenize(&app, &call),
        Infer::Embeddings => pooling::embeddings(&app, &call).await,
        Infer::Embed => pooling::embed(&app, &call).await,
        Infer::Pooling => pooling::pooling(&app, &call).await,
        Infer::Score => pooling::score(&app, &call).await,
        Infer::Rerank => pooling::rerank(&app, &call).await,
        Infer::Classify => pooling::classify(&app, &call).await,
        Infer::Invocations | Infer::Transcriptions | Infer::Translations => {
            Err(ApiError::not_found())
        }
    }
}

/// Task that a body of `/invocations` looks like.
fn like(call: &Call) -> Result<Infer, ApiError> {
    [
        ("messages", Infer::Chat),
        ("prompt", Infer::Completions),
        ("input", Infer::Embeddings),
    ]
    .into_iter()
    .find_map(|(field, infer)| call.get(field).map(|_| infer))
    .ok_or_else(|| {
        ApiError::Detail(
            StatusCode::BAD_REQUEST,
            "Cannot find suitable handler for request. Expected one of: chat, completion, embedding".to_owned(),
        )
    })
}

async fn read(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let limited = Limited::new(request.into_body(), BODY_BYTES_MAX);
    match limited.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(unreadable()),
    }
}

fn unreadable() -> ApiError {
    ApiError::Detail(
        StatusCode::BAD_REQUEST,
        "There was an error parsing the body".to_owned(),
    )
}

/// The body as a form.
async fn form_body(request: Request<Incoming>) -> Result<audio::Form, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| Some(kind.to_str().ok()?.to_owned()));
    let body = read(request).await?;
    audio::form(&kind.unwrap_or_default(), &body)
}

/// The body as a JSON object.
async fn json_body(request: Request<Incoming>) -> Result<Value, ApiError> {
    debug_assert_eq!(request.method(), Method::POST);
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::validation(
            None,
            "Unsupported Media Type: Only 'application/json' is allowed",
        ));
    }
    let body = read(request).await?;
    let text = std::str::from_utf8(&body).map_err(|_| unreadable())?;
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(ApiError::validation(
            Some("body".to_owned()),
            "{'type': 'model_attributes_type', 'loc': 'body', 'msg': 'Input should be a valid dictionary or object to extract fields from'}",
        )),
        Err(error) => Err(ApiError::bad_json(text.as_bytes(), &error)),
    }
}
