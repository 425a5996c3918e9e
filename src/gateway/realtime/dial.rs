//! From a model's name to a WebSocket with its server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::caller::{Caller, has_token};
use crate::config::GoOn;
use crate::gateway::admission::{Admission, Again, Call, Course, Failed, admit, seat};
use crate::gateway::forward::{blame, forwarded_headers};
use crate::gateway::record::{Record, RequestPhase};
use crate::gateway::refusal::Refusal;
use crate::gateway::retry::onward;
use crate::gateway::route::table::Destination;
use crate::gateway::upstream::pool::Occupied;
use crate::openai::api::Api;
use crate::openai::request::{Scan, ScanError};
use crate::outbound::socket::{Limits, Socket};
use crate::pieces::Pieces;
use crate::telemetry::metrics::Counted;
use crate::time::{Instant, timeout};
use crate::websocket;

/// A server that listens, and what is held of it.
#[derive(Debug)]
pub(super) struct Line {
    /// Destination that the client asked for.
    pub(super) destination: Arc<Destination>,
    /// The connection.
    pub(super) server: Upgraded,
    /// The name by which the server knows the model.
    pub(super) model: String,
    pub(super) held: Held,
    /// Longest that the tunnel may last there; `None` for no limit.
    pub(super) duration_max: Option<Duration>,
}

/// Places that are held at a server until the tunnel ends.
#[derive(Debug)]
pub(super) struct Held {
    _admission: Admission,
    _occupied: Occupied,
    _in_flight: Counted,
}

/// Lets the request in, and opens a WebSocket with the server that takes it.
///
/// # Errors
///
/// A [`Refusal`] when it is not let in, or no server takes it.
pub(super) async fn connect(
    caller: &Caller,
    destination: Arc<Destination>,
    record: &mut Record,
) -> Result<Line, Refusal> {
    record.destination = Some(Arc::clone(&destination));
    destination.must_serve(Api::Realtime)?;
    if let Some(name) = &destination.stands_for {
        let of = name.of.to_string();
        return Err(Refusal::Body(ScanError::NoPlace { of }));
    }
    let (gateway, principal) = (&caller.gateway, &caller.principal);
    let (scan, headers) = (Scan::of_nothing(), &caller.headers);
    let call = Call {
        principal,
        destination: &destination,
        api: Api::Realtime,
        scan: &scan,
        pick: destination.pick(Api::Realtime, headers, &scan, &Pieces::default()),
    };
    let seats = gateway.seat(principal)?;
    let told = forwarded_headers(HeaderMap::new(), record).into_map();
    let (admission, opened) = if let Some(list) = &destination.list {
        let rules = &destination.route.load_balancing;
        let key = list.key(principal, headers, rules);
        let seated = seat(seats, call, record).await?;
        let mut course = Course::new((call, list), key, seated);
        loop {
            let (step, mut admission) = course.next(|_, _| false, record).await?;
            let at = (step.call, step.when, course.has_next());
            match attempt(at, &mut admission, &told, record).await {
                Ok(opened) => break (admission, opened),
                Err(failed) => course.leave(admission, failed, record)?,
            }
        }
    } else {
        let mut admission = admit(seats, call, record).await?;
        match attempt((call, &[], false), &mut admission, &told, record).await {
            Ok(opened) => (admission, opened),
            Err(Failed::Here(refusal)) => return Err(refusal),
            Err(Failed::Onward(_)) => return Err(Refusal::Unreachable),
        }
    };
    let (occupied, in_flight, upgraded) = opened;
    record.phase = RequestPhase::Stream;
    let model = admission.place.target.model.as_ref();
    let model = model.unwrap_or(&destination.name);
    Ok(Line {
        model: model.as_str().to_owned(),
        server: upgraded,
        destination,
        duration_max: admission.place.duration_max(),
        held: Held {
            _admission: admission,
            _occupied: occupied,
            _in_flight: in_flight,
        },
    })
}

/// A WebSocket with a server, and what counts it.
type Opened = (Occupied, Counted, Upgraded);

/// Failure to open a WebSocket, and the status with which the server answered instead.
struct Unopened {
    refusal: Refusal,
    status: Option<StatusCode>,
}

impl From<Refusal> for Unopened {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            status: None,
        }
    }
}

/// A WebSocket with the admitted server, or with the worker that replaces it.
async fn attempt(
    (call, when, has_next): (Call<'_>, &[GoOn], bool),
    admission: &mut Admission,
    headers: &HeaderMap,
    record: &mut Record,
) -> Result<Opened, Failed> {
    let mut again = Again::default();
    loop {
        let Unopened { refusal, status } =
            match open(admission, headers, call.destination, record).await {
                Ok(opened) => return Ok(opened),
                Err(unopened) => unopened,
            };
        if has_next && matches!(refusal, Refusal::UnsupportedEndpoint) {
            return Err(Failed::Onward("no_such_api"));
        }
        // Nothing was said yet, so it may be said to another.
        if let Some(why) = onward(status.ok_or(&refusal), when, true) {
            return Err(Failed::Onward(why));
        }
        if !admission.is_replaced(&refusal, &mut again).await {
            return Err(Failed::Here(refusal));
        }
        let next = admission.again(&mut again, call.pick, call.destination, record);
        next.await.map_err(Failed::Here)?;
    }
}

/// A WebSocket with the admitted server.
async fn open(
    admission: &Admission,
    headers: &HeaderMap,
    destination: &Destination,
    record: &mut Record,
) -> Result<Opened, Unopened> {
    let timeouts = &destination.route.timeouts;
    let (target, server) = (&admission.place.target, &admission.place.server);
    record.phase = RequestPhase::Connect;
    let occupied = server.pool.occupy();
    let limits = Limits {
        connect: timeouts.connect,
        tls_handshake: timeouts.tls_handshake,
    };
    let reached = server.pool.reach(limits).await;
    let in_flight = target.metrics.inside();
    let attempt = server.health.begin();
    let opened = match reached {
        Ok(socket) => {
            record.phase = RequestPhase::FirstByte;
            let sent = Instant::now();
            let key = websocket::new_key();
            let path = target.paths.of(Api::Realtime.upstream_path(""));
            let mut headers = headers.clone();
            headers.insert(HOST, server.pool.host().clone());
            headers.extend(target.mark(&record.hops));
            server.tell(&mut headers);
            let request = opening(&path, headers, &key)?;
            let opened = timeout(timeouts.first_byte, upgrade(socket, request, &key)).await;
            record.waits.first_byte = sent.elapsed();
            opened.unwrap_or(Err(Refusal::UpstreamTimeout.into()))
        }
        Err(failure) => Err(Refusal::Unreached(failure).into()),
    };
    match opened {
        Ok(upgraded) => {
            attempt.succeeded();
            Ok((occupied, in_flight, upgraded))
        }
        Err(unopened) => {
            blame(attempt, &unopened.refusal, destination, server);
            Err(unopened)
        }
    }
}

/// The request that opens it. Nothing of the client's goes along: its headers
/// are for the opening with us.
fn opening(path: &str, headers: HeaderMap, key: &str) -> Result<Request<Empty<Bytes>>, Refusal> {
    let mut request = Request::get(path)
        .body(Empty::new())
        .map_err(|_| Refusal::BadTarget)?;
    let own = request.headers_mut();
    *own = headers;
    own.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    own.insert(UPGRADE, HeaderValue::from_static("websocket"));
    own.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let key = HeaderValue::from_str(key).map_err(|_| Refusal::BadTarget)?;
    own.insert(SEC_WEBSOCKET_KEY, key);
    Ok(request)
}

async fn upgrade(
    socket: Socket,
    request: Request<Empty<Bytes>>,
    key: &str,
) -> Result<Upgraded, Unopened> {
    let broke = |error: hyper::Error| {
        tracing::debug!(error = %error, "an upstream broke off before it became a WebSocket");
        Unopened::from(Refusal::UpstreamBroke)
    };
    let (mut sender, driver) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(broke)?;
    let opened = async {
        let mut response = sender.send_request(request).await.map_err(broke)?;
        check(&response, key)?;
        hyper::upgrade::on(&mut response).await.map_err(broke)
    };
    tokio::pin!(opened);
    let driver = driver.with_upgrades();
    tokio::pin!(driver);
    let mut moves = true;
    loop {
        tokio::select! {
            // Both are polled where they stand, so neither loses anything.
            biased;
            done = opened.as_mut() => return done,
            ended = driver.as_mut(), if moves => {
                // What went wrong reaches the other future too.
                drop(ended);
                moves = false;
            }
        }
    }
}

/// Checks that the server opens the WebSocket, and answers to our key.
fn check(response: &Response<Incoming>, key: &str) -> Result<(), Unopened> {
    let headers = response.headers();
    let accept = websocket::accept(key);
    let refusal = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS
            if has_token(headers, &UPGRADE, "websocket")
                && has_token(headers, &CONNECTION, "upgrade")
                && headers
                    .get(SEC_WEBSOCKET_ACCEPT)
                    .is_some_and(|given| *given == *accept) =>
        {
            return Ok(());
        }
        // uvicorn answers 403 where there is no such route.
        StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::UPGRADE_REQUIRED => Refusal::UnsupportedEndpoint,
        status @ StatusCode::UNAUTHORIZED => Refusal::KeyRefused { status },
        status if status.is_redirection() => Refusal::Redirected { status },
        status @ (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE) => {
            return Err(Unopened {
                refusal: Refusal::UpstreamBroke,
                status: Some(status),
            });
        }
        _ => Refusal::UpstreamBroke,
    };
    Err(refusal.into())
}
