//! The response as it passes: untouched, counted, and owning all that the
//! request still holds.
//!
//! Bytes go out as they came, except for a usage event that we asked for and the
//! client did not. An upstream that breaks off within a stream is told to the
//! client in the API's own form. Nothing that goes wrong in the counting can
//! fail the response.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::inflow::Inflow;
use super::silence::{Due, Silence};
use crate::gateway::admission::Admission;
use crate::gateway::record::Record;
use crate::gateway::route::stored;
use crate::openai;
use crate::openai::api::Api;
use crate::openai::error::Broken;
use crate::openai::sse::StreamTap;
use crate::openai::usage::JsonTap;
use crate::telemetry::metrics::{Counted, Outcome};
use crate::time::Instant;

/// One line, without a blank one behind it: some readers take that for an event.
pub const COMMENT: Bytes = Bytes::from_static(b":\n");

/// Terms on which an answer is passed on.
#[derive(Debug)]
pub struct Delivery {
    /// API that was asked.
    pub api: Api,
    /// True if we alone asked for the usage event.
    pub remove_usage_event: bool,
    /// True if we alone asked for usage in every event.
    pub strip_usage: bool,
    /// True if an error may say that the server has no such path: nothing of the path
    /// was the client's.
    pub shows_apis: bool,
    /// Longest silence within the answer.
    pub idle_max: Duration,
    /// Time at which the answer has to be over, where that is limited.
    pub over_at: Option<Instant>,
    /// Time between comments to the client of a silent stream.
    pub keep_alive: Option<Duration>,
    /// Place where the answer is remembered, if its client may come back for it.
    pub stored: Option<stored::Passing>,
}

/// An upstream's response broke off: the connection to the client is cut, as
/// the only honest sign that is left.
#[derive(Debug, thiserror::Error)]
#[error("the upstream broke off within its response")]
pub struct Truncated;

impl From<Infallible> for Truncated {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// An upstream's response on its way to the client.
#[derive(Debug)]
pub struct Metered {
    tap: Tap,
    /// `None` once it has ended.
    inflow: Option<Inflow>,
    /// Bytes that are ready to go out.
    out: VecDeque<Bytes>,
    silence: Silence,
    /// True once the answer was ended because it took too long as a whole.
    is_over: bool,
    stored: Option<stored::Passing>,
    /// Resolves when the gateway ends what is still open; made when first waited
    /// for.
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    record: Box<Record>,
    /// Held until the last byte: a stream outlives its handler by minutes.
    _admission: Admission,
    _in_flight: Counted,
}

/// Reader of the bytes as they pass.
pub enum Tap {
    /// Server-sent events of this API.
    Stream(Api, Box<StreamTap>),
    /// One JSON document.
    Json(Box<JsonTap>),
    /// Bytes that we do not read.
    Opaque,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(..) => "Stream",
            Self::Json(_) => "Json",
            Self::Opaque => "Opaque",
        })
    }
}

impl Metered {
    /// Takes over all that the request holds.
    pub fn new(
        tap: Tap,
        inflow: Inflow,
        delivery: Delivery,
        record: Box<Record>,
        admission: Admission,
        in_flight: Counted,
    ) -> Self {
        Self {
            tap,
            inflow: Some(inflow),
            out: VecDeque::new(),
            silence: Silence::new(delivery.idle_max, delivery.over_at, delivery.keep_alive),
            is_over: false,
            stored: delivery.stored,
            ending: None,
            record,
            _admission: admission,
            _in_flight: in_flight,
        }
    }

    /// The next frame for the client.
    pub(in crate::gateway) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                return Poll::Ready(Some(Ok(self.sent(bytes))));
            }
            let Some(inflow) = &mut self.inflow else {
                return Poll::Ready(None);
            };
            match inflow.poll_bytes(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    let was_last = inflow.has_ended();
                    self.silence.broken();
                    let passed = self.pass(bytes);
                    // hyper drops a body of known length with its last byte, and
                    // does not ask for its end.
                    if was_last {
                        self.end();
                    }
                    if let Some(bytes) = passed {
                        return Poll::Ready(Some(Ok(self.sent(bytes))));
                    }
                }
                Poll::Ready(None) => self.end(),
                Poll::Ready(Some(Err(_))) => self.cut(Outcome::UpstreamTruncated)?,
                Poll::Pending => match self.silence.poll(cx) {
                    Poll::Ready(Due::End) => self.cut(Outcome::UpstreamTimeout)?,
                    Poll::Ready(Due::Over) => {
                        self.is_over = true;
                        self.cut(Outcome::UpstreamTimeout)?;
                    }
                    Poll::Ready(Due::Comment) => self.comment(),
                    Poll::Pending if self.poll_ending(cx).is_ready() => {
                        self.cut(Outcome::Unavailable)?;
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// True once the last frame was given out. HTTP/2 marks it as the last one then, and
    /// sends no empty frame behind it.
    pub(in crate::gateway) fn has_ended(&self) -> bool {
        self.inflow.is_none() && self.out.is_empty()
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let cut = &self.record.peer.cut;
        let wait = || Box::pin(cut.clone().cancelled_owned());
        self.ending.get_or_insert_with(wait).as_mut().poll(cx)
    }

    fn sent(&mut self, bytes: Bytes) -> Frame<Bytes> {
        self.record.bytes_out += bytes.len() as u64;
        Frame::data(bytes)
    }

    /// Reads a piece of the answer, and gives it back to be sent as it is, or queues what
    /// is to be sent of it.
    fn pass(&mut self, bytes: Bytes) -> Option<Bytes> {
        let passed = match &mut self.tap {
            Tap::Stream(_, tap) => {
                tap.feed(bytes, &mut |bytes| self.out.push_back(bytes));
                count(tap, &mut self.record);
                None
            }
            Tap::Json(tap) => {
                tap.feed(&bytes);
                Some(bytes)
            }
            Tap::Opaque => Some(bytes),
        };
        self.remember();
        passed
    }

    /// Shows the client that we are there: between two events only.
    fn comment(&mut self) {
        if let Tap::Stream(_, tap) = &self.tap
            && tap.takes_events()
            && tap.at_event_boundary()
            && !tap.done()
        {
            self.out.push_back(COMMENT);
        }
    }

    /// Remembers the response once its id has passed.
    fn remember(&mut self) {
        let nameless = self.stored.as_mut().filter(|stored| stored.is_nameless());
        let Some(stored) = nameless else { return };
        let id = match &self.tap {
            Tap::Stream(_, tap) => tap.response_id().map(Cow::Borrowed),
            Tap::Json(tap) => tap.response_id().map(Cow::Owned),
            Tap::Opaque => None,
        };
        if let Some(id) = id {
            stored.named(&id);
        }
    }

    /// The upstream ended its response in order.
    fn end(&mut self) {
        self.inflow = None;
        if let Tap::Stream(api, tap) = &mut self.tap {
            tap.read_unended();
            count(tap, &mut self.record);
            if !tap.is_whole() {
                self.record.outcome = Outcome::UpstreamTruncated;
                // Where events are lines of JSON, there is none to tell it with.
                if tap.takes_events() {
                    self.out
                        .push_back(epitaph(*api, tap, Outcome::UpstreamTruncated));
                }
                return;
            }
            self.rest();
        }
        self.record.outcome = self.answered();
    }

    /// The upstream broke off or is silent for too long, or we end. A stream gets a last
    /// event that says so; anything else is cut.
    fn cut(&mut self, outcome: Outcome) -> Result<(), Truncated> {
        self.inflow = None;
        if let Tap::Stream(api, tap) = &mut self.tap {
            tap.read_unended();
            count(tap, &mut self.record);
            if tap.done() {
                self.rest();
                self.record.outcome = self.answered();
                return Ok(());
            }
            self.record.outcome = outcome;
            if !tap.takes_events() {
                return Err(Truncated);
            }
            // Half an event that was held back stays here: it would be read as
            // broken JSON before the client comes to the error.
            let event = if self.is_over {
                ended(*api, tap, TOO_LONG)
            } else {
                epitaph(*api, tap, outcome)
            };
            self.out.push_back(event);
            return Ok(());
        }
        self.record.outcome = outcome;
        Err(Truncated)
    }

    /// Sends what a stream that is whole has held back.
    fn rest(&mut self) {
        if let Tap::Stream(_, tap) = &mut self.tap {
            let rest = tap.finish();
            if !rest.is_empty() {
                self.out.push_back(rest);
            }
        }
    }

    /// The outcome of a response that came whole.
    fn answered(&self) -> Outcome {
        match self.record.status {
            _ if matches!(&self.tap, Tap::Stream(_, tap) if tap.errored()) => {
                Outcome::UpstreamStatus
            }
            Some(status) if status.is_client_error() || status.is_server_error() => {
                Outcome::UpstreamStatus
            }
            _ => Outcome::Ok,
        }
    }
}

/// Takes in what has passed of what the model made.
fn count(tap: &StreamTap, record: &mut Record) {
    let count = tap.content_events();
    if count > record.tokens.count {
        let now = record.elapsed();
        record.tokens.first.get_or_insert(now);
        record.tokens.last = Some(now);
        record.tokens.count = count;
    }
}

/// Message and code for an answer that took longer than its deployment allows.
const TOO_LONG: (&str, &str) = (
    "The answer took longer than a request to this model may (`max_request_duration`): ask for less at once.",
    "request_timeout",
);

/// The event that tells the client of a stream that broke off.
fn epitaph(api: Api, tap: &StreamTap, outcome: Outcome) -> Bytes {
    let why = match outcome {
        Outcome::UpstreamTimeout => (
            "The server of this model was silent for too long.",
            "upstream_timeout",
        ),
        Outcome::Unavailable => (
            "The gateway is shutting down and had to end this answer.",
            "shutting_down",
        ),
        _ => (
            "The server of this model broke off within its answer.",
            "upstream_disconnected",
        ),
    };
    ended(api, tap, why)
}

/// End of a stream that did not end by itself, from a message and a code.
fn ended(api: Api, tap: &StreamTap, (message, code): (&str, &str)) -> Bytes {
    let broken = Broken {
        events: tap.events(),
        response_id: tap.response_id(),
    };
    let event = openai::error::stream_error(api, message, code, broken);
    if tap.at_event_boundary() {
        return event;
    }
    // The event that was cut is ended first, so that ours is read apart from it.
    let mut bytes = Vec::with_capacity(event.len() + 2);
    bytes.extend_from_slice(b"\n\n");
    bytes.extend_from_slice(&event);
    Bytes::from(bytes)
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.record.usage = match &self.tap {
            Tap::Stream(_, tap) => {
                // SDKs close as soon as they have read the end of the stream.
                if tap.done() && self.out.is_empty() && self.record.outcome == Outcome::ClientGone {
                    self.record.outcome = self.answered();
                }
                tap.usage()
            }
            Tap::Json(tap) => {
                let (usage, seconds) = tap.counted();
                self.record.audio_seconds = seconds;
                usage
            }
            Tap::Opaque => None,
        };
        // A response that is fetched again tells its tokens again.
        if self.record.usage.is_some()
            && let Some(stored) = &self.stored
            && !stored.counts()
        {
            self.record.usage = None;
            self.record.tokens.count = 0;
        }
    }
}
