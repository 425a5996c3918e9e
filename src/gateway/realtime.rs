//! `/v1/realtime`: a WebSocket to a model that listens while it speaks.
//!
//! The opening is a request like any other where the model is known from its
//! address; what is refused there is refused with a status. vLLM's own clients
//! name the model only in their first event, `session.update`: then the
//! connection is opened first, and [`tunnel`] waits for that event before it
//! looks for a place and a server.
//!
//! The tunnel runs in the task of its connection and owns all that the request
//! holds, so it ends as every request ends. It counts as one, until it is closed.

mod caller;
mod dial;
mod end;
mod half;
mod tunnel;

use std::sync::{Arc, Mutex, PoisonError};

use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;

use super::Gateway;
use super::answer::body::Body;
use super::head::headers::SERVED_BY;
use super::record::Record;
use super::refusal::Refusal;
use super::route::find::find;
use super::route::table::Table;
use crate::auth::Principal;
use crate::openai::request::ScanError;
use crate::percent;
use crate::websocket;
use caller::{Caller, has_token};
use dial::Line;

pub use tunnel::Tunnel;

/// The one subprotocol that OpenAI's clients for browsers ask for by name.
const PROTOCOL: &str = "realtime";

/// A connection that is about to become a tunnel.
#[derive(Debug)]
pub struct Opening {
    client: OnUpgrade,
    accept: String,
    speaks_protocol: bool,
    caller: Caller,
    /// `None` until the client has named its model.
    line: Option<Line>,
}

/// Checks the opening and connects to the server, as far as it is known.
///
/// # Errors
///
/// A [`Refusal`], before the connection has become anything else.
pub async fn open(
    (gateway, table): (&Arc<Gateway>, &Arc<Table>),
    principal: &Arc<Principal>,
    route: Option<String>,
    parts: &mut Parts,
    record: &mut Record,
) -> Result<Opening, Refusal> {
    let key = check(parts)?;
    let client = parts.extensions.remove::<OnUpgrade>();
    let client = client.ok_or(Refusal::Upgrade)?;
    record.stream = true;
    let caller = Caller {
        gateway: Arc::clone(gateway),
        table: Arc::clone(table),
        principal: Arc::clone(principal),
        route,
        headers: parts.headers.clone(),
    };
    let named = model_in(parts.uri.query().unwrap_or_default())?;
    let line = match find(table, caller.route.as_deref(), named.as_deref(), principal) {
        Ok(destination) => Some(dial::connect(&caller, destination, record).await?),
        // It will be named in the first event.
        Err(Refusal::NoModel) => None,
        Err(refusal) => return Err(refusal),
    };
    Ok(Opening {
        client,
        accept: websocket::accept(&key),
        speaks_protocol: has_token(&caller.headers, &SEC_WEBSOCKET_PROTOCOL, PROTOCOL),
        caller,
        line,
    })
}

/// Checks that a request opens a WebSocket, and returns its key.
fn check(parts: &Parts) -> Result<String, Refusal> {
    let headers = &parts.headers;
    let is_upgrade = parts.version == Version::HTTP_11
        && has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket")
        && headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_some_and(|v| v == "13");
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().and_then(|key| key.to_str().ok());
    let key = key.filter(|key| websocket::is_key(key) && keys.next().is_none());
    let Some(key) = key.filter(|_| is_upgrade) else {
        return Err(Refusal::Upgrade);
    };
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    if has_body {
        return Err(Refusal::Framing);
    }
    Ok(key.to_owned())
}

/// True if a WebSocket is to be opened at `/v1/responses`, which some agents (Codex) try
/// before they ask by POST, and do so once they read 426.
pub fn is_for_responses(parts: &Parts) -> bool {
    let path = parts.uri.path();
    parts.method == Method::GET
        && has_token(&parts.headers, &UPGRADE, "websocket")
        && path
            .strip_suffix('/')
            .unwrap_or(path)
            .ends_with("/v1/responses")
}

/// `model` in the address, as OpenAI's clients send it.
fn model_in(query: &str) -> Result<Option<String>, Refusal> {
    let mut named = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("model="));
    let model = named.next();
    if named.next().is_some() {
        return Err(Refusal::Body(ScanError::Duplicate {
            key: "model".into(),
        }));
    }
    model
        .map(|text| percent::decoded(text).ok_or(Refusal::Body(ScanError::Model)))
        .transpose()
}

impl Opening {
    /// The response that turns the connection into a tunnel, which is in it.
    pub fn response(self, record: Box<Record>) -> Response<Body> {
        let mut response = Response::new(Body::full(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if self.speaks_protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        }
        let served = record.served.as_ref().and_then(|served| served.header());
        if let Some(served) = served {
            headers.insert(SERVED_BY, served);
        }
        let handover = Handover::default();
        handover.put(Tunnel::new(self.client, self.caller, self.line, record));
        response.extensions_mut().insert(handover);
        response
    }
}

/// Place where a connection finds the tunnel that it has become.
#[derive(Clone, Debug, Default)]
pub struct Handover(Arc<Mutex<Option<Box<Tunnel>>>>);

impl Handover {
    fn put(&self, tunnel: Tunnel) {
        *self.lock() = Some(Box::new(tunnel));
    }

    /// Takes over what a response carries, if it is such a response.
    pub fn adopt(&self, response: &mut Response<Body>) {
        let carried = response.extensions_mut().remove::<Self>();
        if let Some(tunnel) = carried.and_then(|carried| carried.take()) {
            *self.lock() = Some(tunnel);
        }
    }

    /// The tunnel, if there is one.
    pub fn take(&self) -> Option<Box<Tunnel>> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Box<Tunnel>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
