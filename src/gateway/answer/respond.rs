//! From an upstream's answer to the response that the client gets.
//!
//! An answer passes as it comes. An error is read first: what it says reaches the client
//! in the form of the API that was asked, with its status and its code, whatever form
//! the server gave it.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};

use super::body::Body;
use super::inflow::Inflow;
use super::meter::{Delivery, Metered, Tap};
use crate::gateway::admission::Admission;
use crate::gateway::forward::Answered;
use crate::gateway::head::headers;
use crate::gateway::record::{Record, RequestPhase};
use crate::gateway::refusal::lacking::lacks_path;
use crate::gateway::refusal::{Refusal, foreign, put_no_retry};
use crate::gateway::request::decode::Coding;
use crate::gateway::route::table::Target;
use crate::names::ModelName;
use crate::openai::api::Api;
use crate::openai::sse::StreamTap;
use crate::openai::usage::JsonTap;
use crate::telemetry::metrics::Outcome;
use crate::time::timeout;

/// Largest part of an upstream's error that is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Longest wait for the body of an error.
const ERROR_WAIT_MAX: Duration = Duration::from_secs(10);

/// Makes the response; record and admission travel in its body.
pub async fn pass_on(
    answered: Answered,
    admission: Admission,
    mut delivery: Delivery,
    mut record: Box<Record>,
) -> Response<Body> {
    let Answered {
        mut head,
        exchange,
        said,
    } = answered;
    let in_flight = admission.place.target.metrics.inside();
    let failed = head.status.is_client_error() || head.status.is_server_error();
    let media = headers::media_type(&head.headers).to_owned();
    let kind = Kind::of(&media);
    let coding = Coding::of_answer(&head.headers);
    headers::strip_response(
        &mut head.headers,
        matches!(kind, Kind::Events | Kind::Lines),
    );
    let served = record.served.as_ref().and_then(|served| served.header());
    if let Some(served) = served {
        head.headers.insert(headers::SERVED_BY, served);
    }
    let coding = match coding {
        Ok(coding) => coding,
        // What can't be read says nothing; its status does.
        Err(_) if failed => return error(head, &Bytes::new(), delivery.api, record),
        Err(_) => {
            tracing::debug!(deployment.id = %admission.place.target.label, "an upstream packed its answer in a way that was not asked for");
            let response = Refusal::UpstreamBroke.response(Some(delivery.api));
            record.refused(&Refusal::UpstreamBroke, response.status());
            return response.map(Body::full);
        }
    };
    let mut inflow = Inflow::new(exchange, coding);
    if coding != Coding::Identity {
        head.headers.remove(CONTENT_LENGTH);
    }
    if let Some(waited) = record.waits.cold_start {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        head.headers
            .insert(headers::COLD_START, HeaderValue::from(millis));
    }
    record.status = Some(head.status);
    record.phase = RequestPhase::Stream;
    record.waits.until_stream = Some(record.elapsed());
    if failed {
        let text = match said {
            Some(text) => text,
            None => read_error(&mut inflow).await,
        };
        let target = &admission.place.target;
        if delivery.shows_apis && is_named_by_us(target, &record) && lacks_path(head.status, &text)
        {
            target.apis.has_not(delivery.api);
        }
        return error(head, &text, delivery.api, record);
    }
    admission.place.target.apis.has_answered(delivery.api);
    delivery.stored = delivery.stored.filter(|_| head.status.is_success());
    let (api, removes) = (delivery.api, delivery.remove_usage_event);
    let strips = delivery.strip_usage;
    let stream = |tap: StreamTap| {
        let tap = if strips { tap.stripping() } else { tap };
        Tap::Stream(api, Box::new(tap))
    };
    let tap = match kind {
        Kind::Events if api.streams() => stream(StreamTap::new(api, removes)),
        Kind::Lines if api.streams() => stream(StreamTap::of_lines(api, removes)),
        Kind::Json => Tap::Json(Box::new(JsonTap::new(api))),
        Kind::Events | Kind::Lines | Kind::Other => Tap::Opaque,
    };
    let metered = Metered::new(tap, inflow, delivery, record, admission, in_flight);
    Response::from_parts(head, Body::Metered(Box::new(metered)))
}

/// The same answer, an error, with what its body says.
pub async fn heard(mut answered: Answered) -> Answered {
    // What can't be read says nothing; its status does.
    let coding = Coding::of_answer(&answered.head.headers).unwrap_or(Coding::Identity);
    let mut inflow = Inflow::new(answered.exchange, coding);
    answered.said = Some(read_error(&mut inflow).await);
    answered.exchange = inflow.into_exchange();
    answered
}

/// True if the client can't have made up the model's name, so that a server's error about a
/// missing path is about the path.
fn is_named_by_us(target: &Target, record: &Record) -> bool {
    let route = record.destination.as_ref().map(|found| &found.route);
    let is_pattern = |name: &ModelName| name.as_str().contains('*');
    target.model.is_some() || route.is_some_and(|route| !route.models.iter().any(is_pattern))
}

/// Kind of an answer's body, as far as the body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Server-sent events.
    Events,
    /// JSON, one document a line.
    Lines,
    /// One document of JSON.
    Json,
    Other,
}

impl Kind {
    /// By the media type, without parameters.
    fn of(media: &str) -> Self {
        let is = |name: &str| media.eq_ignore_ascii_case(name);
        if is("application/json") {
            Self::Json
        } else if is("text/event-stream") {
            Self::Events
        } else if LINES.into_iter().any(is) {
            Self::Lines
        } else if media.to_ascii_lowercase().ends_with("+json") || is("text/json") {
            Self::Json
        } else {
            Self::Other
        }
    }
}

/// Names of JSON in lines; none is registered.
const LINES: [&str; 5] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/jsonlines",
];

/// The body of an error, as far as it comes within the bounds.
async fn read_error(inflow: &mut Inflow) -> Bytes {
    let mut text = BytesMut::new();
    let read = async {
        while let Some(Ok(bytes)) = poll_fn(|cx| inflow.poll_bytes(cx)).await {
            let room = ERROR_BYTES_MAX - text.len();
            text.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
            if text.len() >= ERROR_BYTES_MAX {
                return;
            }
        }
    };
    // What has come by then may say enough.
    drop(timeout(ERROR_WAIT_MAX, read).await);
    text.freeze()
}

/// An upstream's error as the client gets it.
fn error(
    mut head: http::response::Parts,
    text: &Bytes,
    api: Api,
    mut record: Box<Record>,
) -> Response<Body> {
    let bytes = foreign(head.status, text, api);
    let headers = &mut head.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    record.status = Some(head.status);
    put_no_retry(head.status, headers);
    record.outcome = Outcome::UpstreamStatus;
    record.bytes_out = bytes.len() as u64;
    Response::from_parts(head, Body::full(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_known_by_its_media_type() {
        for (media, kind) in [
            ("application/json", Kind::Json),
            ("Application/JSON", Kind::Json),
            ("application/problem+json", Kind::Json),
            ("text/event-stream", Kind::Events),
            ("application/x-ndjson", Kind::Lines),
            ("audio/wav", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(Kind::of(media), kind, "{media}");
        }
    }
}
