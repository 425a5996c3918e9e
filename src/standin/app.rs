//! State that all handlers share: names, ids, the engine, the faults in effect.
//!
//! Owns the shape of replies and the checks that every route makes. Does not
//! know any route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use super::args::Args;
use super::end::SimError;
use super::engine::Engine;
use super::error::ApiError;
use super::faults::{Misdeed, Plan};
use super::json::quoted;
use super::stored::Store;
use super::stream::{End, Events, Sink};
use crate::random::spread;
use crate::tasks::Tasks;
use crate::time::unix_time;

/// The body of a response: whole, or made while it is sent.
pub(super) type Body = Either<Full<Bytes>, Events>;

/// Answer of a handler.
pub(super) type Answer = Result<Response<Body>, ApiError>;

/// A request whose body was read.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The JSON body.
    pub(super) body: Value,
    /// The client's `x-request-id`.
    pub(super) request_id: Option<String>,
}

impl Call {
    /// A field, if it is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.body.get(name).filter(|value| !value.is_null())
    }

    /// True if a field is there and true.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// A field that must be there.
    ///
    /// # Errors
    ///
    /// vLLM's words for a missing field.
    pub(super) fn need(&self, name: &str) -> Result<&Value, ApiError> {
        let items = self.body.as_object().map_or(0, serde_json::Map::len);
        self.get(name).ok_or_else(|| ApiError::missing(name, items))
    }
}

/// The stand-in, as its handlers see it.
#[derive(Debug)]
pub(super) struct App {
    /// The command line.
    pub(super) args: Args,
    /// The engine core.
    pub(super) engine: Arc<Engine>,
    /// The faults in effect; swapped whole.
    pub(super) plan: ArcSwap<Plan>,
    /// The first served name, as JSON.
    pub(super) model: String,
    /// `system_fingerprint`, without quotes.
    pub(super) fingerprint: String,
    /// Sleep and wake, one at a time.
    pub(super) transitions: Semaphore,
    /// Tasks beside the connections.
    pub(super) tasks: Tasks,
    /// The responses that are kept.
    pub(super) stored: Store,
    /// Told when the process should end by itself.
    pub(super) over: Notify,
    ids: AtomicU64,
}

impl App {
    /// The stand-in before its first request.
    pub(super) fn new(args: Args) -> Arc<Self> {
        let engine = Engine::new(&args);
        let origin = u64::try_from(unix_time().as_nanos() & u128::from(u64::MAX)).unwrap_or(0);
        let origin = spread(origin ^ u64::from(std::process::id()) << 32);
        Arc::new(Self {
            engine,
            plan: ArcSwap::from_pointee(Plan(args.fault.clone())),
            model: quoted(args.names().first().map_or("", String::as_str)).into_owned(),
            fingerprint: format!("vllm-{}-{:08x}", super::version::VERSION, origin >> 32),
            transitions: Semaphore::new(1),
            tasks: Tasks::new(),
            stored: Store::default(),
            over: Notify::new(),
            ids: AtomicU64::new(origin),
            args,
        })
    }

    /// A fresh id of 16 hexadecimal digits.
    pub(super) fn id(&self) -> String {
        format!("{:016x}", spread(self.ids.fetch_add(1, Ordering::Relaxed)))
    }

    /// The client's own id for a request, else a fresh one.
    pub(super) fn id_of(&self, call: &Call) -> String {
        let own = call.get("request_id").and_then(Value::as_str);
        let own = call.request_id.as_deref().or(own);
        own.map_or_else(|| self.id(), |own| quoted(own).trim_matches('"').to_owned())
    }

    /// True if a fault is in effect.
    pub(super) fn faulty(&self, fault: &Misdeed) -> bool {
        self.plan.load().has(fault)
    }

    /// Checks the `model` of a request. None at all means the one served.
    ///
    /// # Errors
    ///
    /// 404 with the names that are served.
    pub(super) fn check_model(&self, call: &Call) -> Result<(), ApiError> {
        match call.get("model").and_then(Value::as_str) {
            None | Some("") => Ok(()),
            Some(name) if self.args.names().iter().any(|served| served == name) => Ok(()),
            Some(name) => Err(ApiError::unknown_model(name, self.args.names())),
        }
    }

    /// `prompt_tokens_details` of a whole answer; only chat counts what it cached.
    pub(super) fn prompt_details(&self, created: &str) -> String {
        if !self.args.enable_prompt_tokens_details {
            return "null".to_owned();
        }
        format!(
            "{{\"cached_tokens\":0,\"created_cache_tokens\":{created},\"multimodal_tokens\":null}}"
        )
    }
}

/// A whole JSON answer.
pub(super) fn json(body: impl Into<Bytes>) -> Response<Body> {
    json_with(StatusCode::OK, body)
}

/// A whole JSON answer with a status.
pub(super) fn json_with(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// An answer of events, made by `write`.
pub(super) fn events<F>(app: &App, write: impl FnOnce(Sink) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), End>> + Send + 'static,
{
    let mut response = Response::new(Either::Right(Events::new(app.plan.load_full(), write)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    response
}

impl App {
    /// Writes the pretended GPU memory to its file, if there is one.
    ///
    /// # Errors
    ///
    /// [`SimError::Io`] when it cannot be written.
    pub(super) async fn report_memory(&self, bytes: u64) -> Result<(), SimError> {
        let Some(path) = &self.args.memory_file else {
            return Ok(());
        };
        // Renamed into place, so that no reader finds half a number.
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let written = async {
            tokio::fs::write(&beside, bytes.to_string()).await?;
            tokio::fs::rename(&beside, path).await
        };
        written.await.map_err(SimError::io("write the memory file"))
    }
}
