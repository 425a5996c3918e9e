//! The end-of-request record: the one source of metrics, access log and usage.
//!
//! It travels with the request: first in the service future, then in the body of
//! the response. However the request ends, dropping the record writes it; until
//! someone says otherwise, the client is gone.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use super::error::Refusal;
use super::peer::{Origin, Peer};
use super::quota::Charge;
use super::rate::Standings;
use super::router::{Destination, Target};
use super::trace::{Trace, TraceId};
use crate::auth::Principal;
use crate::openai::api::Api;
use crate::openai::usage::Usage;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::{Outcome, RequestMetrics};
use crate::telemetry::usage::Ledger;
use crate::time::{Instant, unix_seconds};

thread_local! {
    /// The line at hand, so that none is allocated for each request.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How far a request has come; where a client left is logged with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading its head and checking the token.
    Head,
    /// Reading its body.
    Body,
    /// Waiting for a place.
    Queue,
    /// Waiting for the worker to start or wake.
    ColdStart,
    /// Connecting to the server.
    Connect,
    /// Waiting for the head of the response.
    FirstByte,
    /// Passing the response on.
    Stream,
}

/// What metrics and log are written to.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The access log.
    pub log: AccessLog,
    /// Counts requests that reached no route.
    pub unrouted: Arc<RequestMetrics>,
    /// Adds up what each token used.
    pub ledger: Arc<Ledger>,
}

/// All that is known of one request when it ends.
#[derive(Debug)]
pub struct Record {
    sink: Sink,
    started: Instant,
    /// Its id, ours or the client's.
    pub request_id: Arc<str>,
    /// The other end of the connection.
    pub peer: Arc<Peer>,
    /// Where the request came from.
    pub origin: Origin,
    /// The trace that it belongs to.
    pub trace: Trace,
    /// Who asks.
    pub principal: Option<Arc<Principal>>,
    /// Which API.
    pub api: Option<Api>,
    /// What the name led to.
    pub destination: Option<Arc<Destination>>,
    /// The server that was chosen.
    pub target: Option<Arc<Target>>,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// How often the client's SDK tried before.
    pub retry: Option<u32>,
    /// How long the client waits, since the request started, where it says so.
    pub patience: Option<Duration>,
    /// What it holds of its token's budgets.
    pub charge: Option<Charge>,
    /// What is left of them.
    pub standings: Standings,
    /// How far it came.
    pub phase: Phase,
    /// How it ended.
    pub outcome: Outcome,
    /// The code of the refusal.
    pub reason: Option<&'static str>,
    /// The status that the client got.
    pub status: Option<StatusCode>,
    /// Time in each wait.
    pub waits: Waits,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// Tokens, as the engine reported them.
    pub usage: Option<Usage>,
    /// Seconds of audio that were read, where the engine counts those.
    pub audio_seconds: Option<f64>,
    /// When the first and the last event with content came, and how many.
    pub tokens: TokenTimes,
}

/// Time that a request spent in each wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// To check the token.
    pub auth: Duration,
    /// From the head to the whole body.
    pub body: Duration,
    /// For a place.
    pub queue: Duration,
    /// For the worker.
    pub cold_start: Option<Duration>,
    /// From the head of the request until it was sent, without the waits.
    pub overhead: Duration,
    /// For a connection to the server; none where one was kept.
    pub connect: Duration,
    /// From sent to the head of the response.
    pub first_byte: Duration,
    /// From the start of the request to the head of the response.
    pub until_stream: Option<Duration>,
}

/// When the events of a stream came, since the request started.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenTimes {
    /// First event with content.
    pub first: Option<Duration>,
    /// Last event with content.
    pub last: Option<Duration>,
    /// Events with content.
    pub count: u64,
}

impl Record {
    /// A request that starts now.
    pub fn start(
        sink: Sink,
        request_id: Arc<str>,
        peer: Arc<Peer>,
        origin: Origin,
        trace: Trace,
    ) -> Self {
        Self {
            sink,
            started: Instant::now(),
            request_id,
            peer,
            origin,
            trace,
            principal: None,
            api: None,
            destination: None,
            target: None,
            stream: false,
            retry: None,
            patience: None,
            charge: None,
            standings: Standings::default(),
            phase: Phase::Head,
            outcome: Outcome::ClientGone,
            reason: None,
            status: None,
            waits: Waits::default(),
            bytes_in: 0,
            bytes_out: 0,
            usage: None,
            audio_seconds: None,
            tokens: TokenTimes::default(),
        }
    }

    /// Time since the request started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether spans of it go to a collector.
    pub fn is_recorded(&self) -> bool {
        false
    }

    /// The shorter of a wait and of what the client's patience leaves of it.
    pub fn wait_max(&self, wait: Duration) -> Duration {
        let left = self.patience.map(|all| all.saturating_sub(self.elapsed()));
        left.map_or(wait, |left| left.min(wait))
    }

    /// We answered it ourselves.
    pub fn answered_by_us(&mut self, status: StatusCode) {
        (self.outcome, self.status) = (Outcome::Local, Some(status));
    }

    /// It was refused.
    pub fn refused(&mut self, refusal: &Refusal, status: StatusCode) {
        self.outcome = refusal.outcome();
        self.reason = Some(refusal.code());
        self.status = Some(status);
    }

    fn metrics(&self) -> &RequestMetrics {
        match &self.target {
            Some(target) => &target.metrics,
            None => match self.destination.as_ref().and_then(|d| d.targets.first()) {
                Some(target) => &target.metrics,
                None => &self.sink.unrouted,
            },
        }
    }

    fn count(&self, total: Duration) {
        let metrics = self.metrics();
        metrics.ended(self.outcome);
        if self.destination.is_none() {
            return;
        }
        metrics.duration.record(total.as_secs_f64());
        metrics.overhead.record(self.waits.overhead.as_secs_f64());
        let waited = self.waits.queue + self.waits.cold_start.unwrap_or_default();
        metrics.queue_wait.record(waited.as_secs_f64());
        if let Some(first) = self.tokens.first {
            metrics.first_token.record(first.as_secs_f64());
        }
        if let Some(gap) = self.inter_token() {
            metrics.inter_token.record(gap);
        }
        if let Some(usage) = self.usage {
            metrics.tokens_prompt.increment(usage.prompt);
            metrics.tokens_completion.increment(usage.completion);
            metrics.tokens_cached.increment(usage.cached);
        }
    }

    /// Counts what the token used, once a server was found for it.
    fn add_to_ledger(&self) {
        if let (Some(principal), Some(_)) = (&self.principal, &self.target) {
            let (prompt, completion) = self.usage.map_or((0, 0), |u| (u.prompt, u.completion));
            let token = &principal.token_id;
            self.sink
                .ledger
                .add(token, prompt, completion, unix_seconds());
        }
    }

    /// Mean seconds between events with content.
    fn inter_token(&self) -> Option<f64> {
        let (first, last) = (self.tokens.first?, self.tokens.last?);
        let gaps = u32::try_from(self.tokens.count.checked_sub(1)?).ok()?;
        (gaps > 0).then(|| (last.saturating_sub(first) / gaps).as_secs_f64())
    }

    fn log(&self, total: Duration) {
        let principal = self.principal.as_deref();
        let line = Line {
            time: Timestamp::now(),
            request_id: &self.request_id,
            trace_id: self.trace.id,
            peer: self.origin.client,
            workspace: principal.map(|p| p.workspace.as_str()),
            subject: principal.map(|p| &*p.subject),
            token_id: principal.map(|p| &*p.token_id),
            token_label: principal.and_then(|p| p.label.as_deref()),
            api: self.api.map(Api::label),
            route: self.destination.as_ref().map(|d| d.route.name.as_str()),
            model: self.destination.as_ref().map(|d| d.name.as_str()),
            deployment: self.target.as_ref().map(|t| &*t.label),
            stream: self.stream,
            retry: self.retry,
            status: self.status.map(|status| status.as_u16()),
            outcome: self.outcome.as_str(),
            phase: (self.outcome == Outcome::ClientGone).then_some(self.phase),
            reason: self.reason,
            total_ms: millis(total),
            auth_ms: millis(self.waits.auth),
            body_ms: millis(self.waits.body),
            queue_ms: millis(self.waits.queue),
            cold_start_ms: self.waits.cold_start.map(millis),
            overhead_ms: millis(self.waits.overhead),
            connect_ms: millis(self.waits.connect),
            first_byte_ms: millis(self.waits.first_byte),
            stream_ms: self
                .waits
                .until_stream
                .map(|until| millis(total.saturating_sub(until))),
            first_token_ms: self.tokens.first.map(millis),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            prompt_tokens: self.usage.map(|u| u.prompt),
            completion_tokens: self.usage.map(|u| u.completion),
            cached_tokens: self.usage.map(|u| u.cached),
            audio_seconds: self.audio_seconds,
            tokens_per_second: self.tokens_per_second(),
        };
        LINE.with_borrow_mut(|text| {
            text.clear();
            if serde_json::to_writer(&mut *text, &line).is_ok() {
                text.push(b'\n');
                self.sink.log.write(text);
            }
        });
    }

    /// Completion tokens over the time in which they came.
    fn tokens_per_second(&self) -> Option<f64> {
        let seconds = 1.0 / self.inter_token()?;
        seconds.is_finite().then(|| (seconds * 10.0).round() / 10.0)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let total = self.elapsed();
        self.count(total);
        self.add_to_ledger();
        if let Some(charge) = self.charge.take() {
            charge.close(self);
        }
        // Health checks and the like would drown the rest.
        if self.outcome != Outcome::Local {
            self.log(total);
        }
    }
}

/// Milliseconds with three digits behind the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// One line of the access log. Never a prompt, an answer or a token.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    request_id: &'a str,
    trace_id: TraceId,
    peer: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<&'a str>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    total_ms: f64,
    auth_ms: f64,
    body_ms: f64,
    queue_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold_start_ms: Option<f64>,
    overhead_ms: f64,
    connect_ms: f64,
    first_byte_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token_ms: Option<f64>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_second: Option<f64>,
}
