//! The end-of-request record: the one source of metrics, access log and usage.
//!
//! It travels with the request: first in the service future, then in the body of
//! the response. However the request ends, dropping the record writes it; until
//! someone says otherwise, the client is gone.

pub mod holding;
pub(in crate::gateway) mod ids;
mod line;
pub mod spans;
pub mod trace;

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, StatusCode};

use super::client::peer::{ClientOrigin, Peer};
use super::client::places::Places;
use super::head::Head;
use super::head::hops::Hops;
use super::limits::quota::{Charge, Spent};
use super::limits::rate::Standings;
use super::memory::{Lease, Memory};
use super::refusal::Refusal;
use super::route::table::lineup::Served;
use super::route::table::{Backend, Destination, Target};
use crate::auth::Principal;
use crate::openai::api::Api;
use crate::openai::usage::Usage;
use crate::telemetry::access::AccessLog;
use crate::telemetry::history::Ended;
use crate::telemetry::metrics::{Outcome, RequestMetrics};
use crate::telemetry::traces::Traces;
use crate::telemetry::usage::Ledger;
use crate::time::{Instant, unix_seconds};
use holding::Holding;
use trace::Trace;

/// Phase that a request has reached; it is logged of a client that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPhase {
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

impl RequestPhase {
    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Body => "body",
            Self::Queue => "queue",
            Self::ColdStart => "cold_start",
            Self::Connect => "connect",
            Self::FirstByte => "first_byte",
            Self::Stream => "stream",
        }
    }
}

/// Sinks that metrics and log are written to.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The access log.
    pub log: AccessLog,
    /// Counts requests that reached no route.
    pub unrouted: Arc<RequestMetrics>,
    /// Adds up what each token used.
    pub ledger: Arc<Ledger>,
    /// Takes spans, where a collector is named.
    pub traces: Option<Traces>,
}

/// All that is known of one request when it ends.
#[derive(Debug)]
pub struct Record {
    sink: Sink,
    started: Instant,
    /// Its id, ours or the client's.
    pub request_id: Arc<str>,
    /// Head of the request.
    pub head: Head,
    /// The other end of the connection.
    pub peer: Arc<Peer>,
    /// Shared resources that the request holds.
    pub holding: Holding,
    /// Origin of the request.
    pub origin: ClientOrigin,
    /// The trace that it belongs to.
    pub trace: Trace,
    /// Gateways that it went through.
    pub hops: Hops,
    /// Principal that asks.
    pub principal: Option<Arc<Principal>>,
    /// Names of headers that go on to servers beside those of our list.
    pub forwards: Option<Arc<[HeaderName]>>,
    /// API that was asked.
    pub api: Option<Api>,
    /// Destination that the name led to.
    pub destination: Option<Arc<Destination>>,
    /// The server that was chosen.
    pub target: Option<Arc<Target>>,
    /// Target of a list that answers; boxed, as few names lead to one.
    pub served: Option<Box<Served>>,
    /// True if the client asked for a stream.
    pub stream: bool,
    /// True for a copy for a mirror, of which no log tells.
    pub is_copy: bool,
    /// Number of times that the client's SDK tried before.
    pub retry: Option<u32>,
    /// Further servers that it was sent to.
    pub retries: u32,
    /// Time that the client waits, since the request started, where it says so.
    pub patience: Option<Duration>,
    /// For how long its model is to stay awake after it, where the client may say so.
    pub keep: Option<Duration>,
    /// Part of its token's budgets that the request holds.
    pub charge: Option<Charge>,
    /// State of those budgets.
    pub standings: Standings,
    /// Phase that the request has reached.
    pub phase: RequestPhase,
    /// Outcome of the request.
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
    /// True if the counts of tokens are estimated, as the answer was cut off.
    pub usage_estimated: bool,
    /// Seconds of audio that were read, where the engine counts those.
    pub audio_seconds: Option<f64>,
    /// Times of the first and the last event with content, and the number of such events.
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

/// Times of the events of a stream, since the request started.
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
    /// A request that starts now. Boxed, as it moves on from hand to hand.
    pub fn start(
        sink: Sink,
        request_id: Arc<str>,
        holding: Holding,
        origin: ClientOrigin,
        trace: Trace,
    ) -> Box<Self> {
        Box::new(Self {
            sink,
            started: Instant::now(),
            request_id,
            head: Head::default(),
            peer: Arc::clone(&holding.peer),
            holding,
            origin,
            trace,
            hops: Hops::default(),
            principal: None,
            forwards: None,
            api: None,
            destination: None,
            target: None,
            served: None,
            stream: false,
            is_copy: false,
            retry: None,
            retries: 0,
            patience: None,
            keep: None,
            charge: None,
            standings: Standings::default(),
            phase: RequestPhase::Head,
            outcome: Outcome::ClientGone,
            reason: None,
            status: None,
            waits: Waits::default(),
            bytes_in: 0,
            bytes_out: 0,
            usage: None,
            usage_estimated: false,
            audio_seconds: None,
            tokens: TokenTimes::default(),
        })
    }

    /// Counts the request for its token and its client, and holds what it takes; returns
    /// what is held for a body of `declared` bytes.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] as of [`Holding::count`].
    pub fn hold(
        &mut self,
        shared: (&Arc<Memory>, &Arc<Places>),
        principal: &Principal,
        headers: &HeaderMap,
        declared: u64,
    ) -> Result<Lease, Refusal> {
        let client = self.origin.client;
        self.holding
            .count(shared, principal, client, headers, declared)
    }

    /// Time since the request started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// True if spans of the request go to a collector.
    pub fn is_recorded(&self) -> bool {
        self.trace.sampled && self.sink.traces.is_some()
    }

    /// The shorter of a wait and of what the client's patience leaves of it.
    pub fn wait_max(&self, wait: Duration) -> Duration {
        let left = self.patience.map(|all| all.saturating_sub(self.elapsed()));
        left.map_or(wait, |left| left.min(wait))
    }

    /// Notes the time that we took ourselves, now that it goes to a server.
    pub fn note_overhead(&mut self) {
        let waits = &self.waits;
        let waited = waits.body + waits.queue + waits.cold_start.unwrap_or_default();
        self.waits.overhead = self.elapsed().saturating_sub(waited);
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

    /// Cost of the request. Where the engine did not say, that is the estimate of the prompt
    /// and one token for each event that came.
    fn spent(&self) -> Spent {
        if self.reason.is_some() {
            return Spent::Refused;
        }
        if let Some(usage) = self.usage {
            return Spent::Told(usage.prompt.saturating_add(usage.completion));
        }
        let reached = matches!(self.phase, RequestPhase::FirstByte | RequestPhase::Stream);
        if reached && self.outcome != Outcome::UpstreamStatus {
            Spent::Came(self.tokens.count)
        } else {
            Spent::NoTokens
        }
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
        if let Some(account) = metrics.account() {
            let (prompt_tokens, completion_tokens) =
                self.usage.map_or((0, 0), |u| (u.prompt, u.completion));
            account.ended(&Ended {
                outcome: self.outcome,
                total,
                first_token: self.tokens.first,
                prompt_tokens,
                completion_tokens,
            });
        }
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

    /// Learns from the tokens that were told; estimates those that were not, as
    /// far as an answer has come.
    fn settle_usage(&mut self) {
        let Some(target) = &self.target else { return };
        let made = self.tokens.count;
        let is_given_up = self.is_given_up();
        match &mut self.usage {
            Some(usage) if self.outcome == Outcome::Ok => {
                if self.bytes_in > 0 && usage.prompt > 0 {
                    target.prompts.learn(self.bytes_in, usage.prompt);
                }
            }
            // Told at the start of a stream, as in Anthropic's form.
            Some(usage) if usage.completion < made => {
                usage.completion = made;
                self.usage_estimated = true;
            }
            // A client that leaves before a token has at least had the prompt read.
            None if made > 0 || is_given_up => {
                self.usage = Some(Usage {
                    prompt: target.prompts.estimate(self.bytes_in),
                    completion: made,
                    cached: 0,
                });
                self.usage_estimated = true;
            }
            Some(_) | None => {}
        }
    }

    /// True if the client left an engine that was reading or answering text.
    fn is_given_up(&self) -> bool {
        let at_work = matches!(self.phase, RequestPhase::FirstByte | RequestPhase::Stream);
        let of_text = matches!(
            self.api,
            Some(Api::Chat | Api::Completions | Api::Responses | Api::Messages)
        );
        self.outcome == Outcome::ClientGone && at_work && of_text
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

    /// Tells the deployment which client asked it, for who is to be woken next, and for how
    /// long it is to stay awake.
    fn tell_deployment(&self) {
        if let (Some(principal), Some(target)) = (&self.principal, &self.target)
            && let Backend::Deployment { handle, .. } = &target.backend
        {
            handle.asked_by(&principal.token_id);
            if let Some(span) = self.keep
                && matches!(self.phase, RequestPhase::FirstByte | RequestPhase::Stream)
            {
                handle.keep_for(span);
            }
        }
    }

    /// Mean seconds between events with content.
    fn inter_token(&self) -> Option<f64> {
        let (first, last) = (self.tokens.first?, self.tokens.last?);
        let gaps = u32::try_from(self.tokens.count.checked_sub(1)?).ok()?;
        (gaps > 0).then(|| (last.saturating_sub(first) / gaps).as_secs_f64())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let total = self.elapsed();
        self.settle_usage();
        self.count(total);
        self.tell_deployment();
        self.add_to_ledger();
        if let Some(charge) = self.charge.take() {
            charge.close(self.spent());
        }
        let is_ours = self.outcome == Outcome::Local;
        // Health checks and the like would drown the rest; a list of models is a client's.
        if (!is_ours || self.principal.is_some()) && !self.is_copy {
            self.log(total);
        }
        if !is_ours
            && self.trace.sampled
            && let Some(traces) = &self.sink.traces
        {
            traces.give(spans::of(self, total));
        }
    }
}
