//! Sends the request to the server that was chosen, and reads the head of its
//! answer.
//!
//! The body is ours by now, whole, so it can be sent again: once, on a fresh
//! connection, when a kept one turns out to be dead before a byte of the answer;
//! or to other servers, as [`super::retry`] allows. Never once an answer began. Where a
//! worker of ours can't be reached, or broke off because it ended, the request waits for
//! the one that replaces it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::admission::{Admission, Again, Place};
use super::head::headers;
use super::head::hops::Hops;
use super::head::onward::Onward;
use super::record::{Record, RequestPhase};
use super::refusal::Refusal;
use super::retry;
use super::route::paths::Paths;
use super::route::table::{Backend, Destination, Target};
use super::upstream::balance::Pick;
use super::upstream::fault::Fault;
use super::upstream::health::Attempt;
use super::upstream::pool::{Conn, Exchange, Pool};
use super::upstream::server::Server;
use super::upstream::wire::Sending;
use crate::config::Timeouts;
use crate::openai::api::Api;
use crate::openai::request::Scan;
use crate::openai::splice::{Edits, splice};
use crate::outbound::socket::Limits;
use crate::pieces::Pieces;
use crate::telemetry::metrics::{replays, retried};
use crate::time::{Instant, timeout};

/// A request that is about to be sent.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// API that is asked.
    pub api: Api,
    /// The method.
    pub method: Method,
    /// The path as the engine knows it.
    pub path: Cow<'static, str>,
    /// The client's query, as it came.
    pub query: Option<&'a str>,
    /// The client's headers that may go on, and ours.
    pub headers: Onward,
    /// The client's body.
    pub body: &'a Pieces,
    /// Facts that were read in the body; `None` where there is nothing to read.
    pub scan: Option<&'a Scan<'a>>,
    /// True if we ask for usage that the client did not ask for.
    pub ask_usage: bool,
    /// True if we ask for usage in every event, whatever the client asked for.
    pub ask_usage_always: bool,
}

impl Outgoing<'_> {
    /// True if it may be asked twice: a stored response would exist twice.
    pub fn may_replay(&self) -> bool {
        self.api != Api::Responses || self.scan.is_none()
    }
}

/// The head of an answer, and what its body comes through.
#[derive(Debug)]
pub struct Answered {
    /// The head.
    pub head: http::response::Parts,
    /// The body.
    pub exchange: Exchange,
    /// Text of the body of an error, where it was read already.
    pub said: Option<Bytes>,
}

/// Further places that a request may go to.
#[derive(Clone, Copy, Debug)]
pub enum Otherwise<'a> {
    /// Nowhere: what is asked for is there or nowhere.
    Nowhere,
    /// To another server of the target, or to the worker that replaces one of ours.
    Servers(Pick<'a>),
    /// To another server of the target; then whoever asked knows another target, so that
    /// no worker that can't be reached is waited for.
    Targets(Pick<'a>),
}

/// Sends a request to the admitted server; where that fails as the route's retries
/// say, to another one, as far as there is one `otherwise`.
///
/// # Errors
///
/// A [`Refusal`] when no server can be reached or none answers in time.
pub async fn forward(
    outgoing: &Outgoing<'_>,
    destination: &Destination,
    otherwise: Otherwise<'_>,
    admission: &mut Admission,
    record: &mut Record,
) -> Result<Answered, Refusal> {
    let route = &destination.route;
    destination.budget.earn(route.retries.budget);
    let mut tried: Vec<Arc<Server>> = Vec::new();
    let mut again = Again::default();
    loop {
        let prepared = Prepared::new(outgoing, admission, &record.hops)?;
        let server = Arc::clone(&admission.place.server);
        let attempt = server.health.begin();
        let duration_max = admission.place.duration_max();
        let result = prepared
            .exchange(&route.timeouts, duration_max, record)
            .await;
        judge(attempt, &result, destination, &server);
        let (Otherwise::Servers(pick) | Otherwise::Targets(pick)) = otherwise else {
            return result;
        };
        let status = result.as_ref().map(|answered| answered.head.status);
        let why = retry::reason(status, &route.retries, prepared.may_replay);
        let why = why.filter(|_| tried.len() < route.retries.servers_max as usize);
        if let Some(why) = why {
            tried.push(server);
            if let Some(place) = Place::another(destination, pick, &tried)
                && destination.budget.spend()
            {
                retried(route.name.as_str(), why);
                record.retries += 1;
                record.target = Some(Arc::clone(&place.target));
                admission.place = place;
                continue;
            }
        }
        // Boxed: it is seldom, and every request's future would carry it.
        let waits_on = match (&result, otherwise) {
            (Ok(_), _) | (Err(Refusal::Unreached(_)), Otherwise::Targets(_)) => false,
            (Err(refusal), _) => Box::pin(admission.is_replaced(refusal, &mut again)).await,
        };
        if !waits_on {
            return result;
        }
        tried.clear();
        Box::pin(admission.again(&mut again, pick, destination, record)).await?;
    }
}

/// Tells the server's health what became of a request.
fn judge(
    attempt: Attempt,
    result: &Result<Answered, Refusal>,
    destination: &Destination,
    server: &Arc<Server>,
) {
    use StatusCode as S;
    let refusal = match result {
        Ok(answered) => match answered.head.status {
            status @ (S::INTERNAL_SERVER_ERROR
            | S::BAD_GATEWAY
            | S::SERVICE_UNAVAILABLE
            | S::GATEWAY_TIMEOUT) => {
                let ejection = destination.route.ejection;
                let is_last = || destination.is_last(server);
                return attempt.failed(&Fault::Status(status), ejection, is_last);
            }
            _ => return attempt.succeeded(),
        },
        Err(refusal) => refusal,
    };
    blame(attempt, refusal, destination, server);
}

/// Tells a server's health why a request to it failed, where that speaks against it.
pub(super) fn blame(
    attempt: Attempt,
    refusal: &Refusal,
    destination: &Destination,
    server: &Arc<Server>,
) {
    let fault = match refusal {
        Refusal::Unreached(failure) => Fault::Unreached(failure),
        Refusal::UpstreamBroke => Fault::Broke,
        Refusal::UpstreamTimeout => Fault::Silent,
        Refusal::KeyRefused { status } => Fault::Key(*status),
        Refusal::Redirected { status } => Fault::Redirect(*status),
        _ => return,
    };
    let ejection = destination.route.ejection;
    attempt.failed(&fault, ejection, || destination.is_last(server));
}

/// A request for one server, ready to be sent more than once.
struct Prepared {
    pool: Arc<Pool>,
    request: Sending,
    may_replay: bool,
}

impl Prepared {
    fn new(outgoing: &Outgoing<'_>, admission: &Admission, hops: &Hops) -> Result<Self, Refusal> {
        let Place { target, server, .. } = &admission.place;
        let pool = Arc::clone(&server.pool);
        let body = edited(outgoing, target);
        let identity = HeaderValue::from_static("identity");
        let of_server = [
            (HOST, pool.host().clone()),
            (CONTENT_LENGTH, HeaderValue::from(body.len())),
            (ACCEPT_ENCODING, identity),
        ];
        let mark = target.mark(hops);
        let mark = mark.as_ref().map(|(name, value)| (name, value));
        let path = path(&target.paths, outgoing)?;
        let (told, authorization) = (server.headers(), server.authorization());
        let (method, headers) = (&outgoing.method, outgoing.headers.iter(&of_server));
        let request = if let Some(told) = &told {
            let is_told = |name: &HeaderName| told.iter().any(|(other, _)| other == name);
            let headers = headers.filter(|(name, _)| !is_told(name));
            let told = told.iter().map(|(name, value)| (name, value));
            Sending::new(method, &path, headers.chain(told).chain(mark), body)
        } else {
            let authorization = authorization.as_ref().map(|value| (&AUTHORIZATION, value));
            let headers = headers.chain(authorization).chain(mark);
            Sending::new(method, &path, headers, body)
        };
        Ok(Self {
            pool,
            request,
            may_replay: outgoing.may_replay(),
        })
    }

    async fn exchange(
        &self,
        timeouts: &Timeouts,
        duration_max: Option<Duration>,
        record: &mut Record,
    ) -> Result<Answered, Refusal> {
        // The deployment's own limit says nothing against its worker.
        let own = duration_max.filter(|max| *max < timeouts.first_byte);
        let first_byte_max = own.unwrap_or(timeouts.first_byte);
        let late = |_| own.map_or(Refusal::UpstreamTimeout, |max| Refusal::TooLong { max });
        let limits = Limits {
            connect: timeouts.connect,
            tls_handshake: timeouts.tls_handshake,
        };
        let occupied = self.pool.occupy();
        record.phase = RequestPhase::Connect;
        let kept = self.pool.kept().await;
        let mut conn = if let Some(conn) = kept {
            conn
        } else {
            let since = Instant::now();
            let dialled = self.dial(limits).await;
            record.waits.connect += since.elapsed();
            dialled?
        };
        record.phase = RequestPhase::FirstByte;
        let sent = Instant::now();
        // At most twice: only a reused connection or an unsent request goes again.
        for attempt in 0..2 {
            let left = first_byte_max.saturating_sub(sent.elapsed());
            let again = attempt == 0 && self.may_replay && conn.reused;
            let result = timeout(left, conn.send(&self.request))
                .await
                .map_err(late)?;
            record.waits.first_byte = sent.elapsed();
            match result {
                Ok(response) => {
                    is_answer(response.status())?;
                    let (head, body) = response.into_parts();
                    return Ok(Answered {
                        head,
                        exchange: Exchange::new(body, conn, occupied),
                        said: None,
                    });
                }
                Err(failed) if again && failed.safe_to_replay => {
                    replays().increment(1);
                    conn = self.dial(limits).await?;
                }
                Err(failed) => {
                    tracing::debug!(error = %failed.source, "an upstream broke off before its answer");
                    return Err(Refusal::UpstreamBroke);
                }
            }
        }
        Err(Refusal::UpstreamBroke)
    }

    async fn dial(&self, limits: Limits) -> Result<Conn, Refusal> {
        // Boxed: it takes much room, and most requests find a connection.
        Box::pin(self.pool.dial(limits)).await.map_err(|error| {
            tracing::debug!(upstream = %self.pool.address(), error = %error, "an upstream can't be reached");
            Refusal::Unreached(error)
        })
    }
}

/// Checks that a status is one of an answer, right or wrong, and not a matter between the
/// gateway and the server.
fn is_answer(status: StatusCode) -> Result<(), Refusal> {
    match status.as_u16() {
        401 | 403 | 407 => Err(Refusal::KeyRefused { status }),
        200..=299 | 400..=599 => Ok(()),
        300..=399 => Err(Refusal::Redirected { status }),
        // Nothing of ours asks for another protocol, and beyond 599 there is none.
        _ => Err(Refusal::UpstreamBroke),
    }
}

/// The body with the name that the server knows, and with usage asked for.
fn edited(outgoing: &Outgoing<'_>, target: &Target) -> Pieces {
    let Some(scan) = outgoing.scan else {
        return outgoing.body.clone();
    };
    let asked = scan.model.as_deref();
    let model = target.model.as_ref().map(crate::names::ModelName::as_str);
    // The field of a form is vLLM's own: others would refuse it.
    let may_ask =
        !outgoing.api.is_multipart() || matches!(target.backend, Backend::Deployment { .. });
    let edits = Edits {
        model: model.filter(|name| asked != Some(name)),
        include_usage: outgoing.ask_usage && may_ask,
        continuous_usage: outgoing.ask_usage_always && may_ask,
    };
    splice(outgoing.body, scan, edits)
}

fn path(paths: &Paths, outgoing: &Outgoing<'_>) -> Result<PathAndQuery, Refusal> {
    let text = match (&outgoing.path, outgoing.query) {
        (Cow::Borrowed(path), None) if paths.are_usual() => {
            return Ok(PathAndQuery::from_static(path));
        }
        (path, Some(query)) => format!("{}?{query}", paths.of(path)),
        (path, None) => paths.of(path),
    };
    text.parse().map_err(|_| Refusal::BadTarget)
}

/// The client's headers without what must not go on, and with where it came from.
pub fn forwarded_headers(given: HeaderMap, record: &mut Record) -> Onward {
    let mut onward = Onward::new(given).with(record.forwards.take());
    record.origin.put(&mut onward);
    record.trace.put(&mut onward, record.is_recorded());
    if let Ok(value) = HeaderValue::from_str(&record.request_id) {
        onward.say(headers::REQUEST_ID, value);
    }
    onward
}
