//! From an upstream's answer to the response that the client gets.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use super::admit::Admission;
use super::body::Body;
use super::error::{Refusal, reworded};
use super::forward::Answered;
use super::headers;
use super::meter::{Metered, Tap};
use super::pool::Exchange;
use super::record::{Phase, Record};
use crate::openai::api::Api;
use crate::openai::sse::StreamTap;
use crate::openai::usage::JsonTap;
use crate::telemetry::metrics::Outcome;
use crate::time::{Instant, timeout};

/// Largest error of an upstream that is read before it is passed on, in bytes.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// Longest wait for the body of an error.
const ERROR_WAIT_MAX: Duration = Duration::from_secs(10);

/// How an answer is passed on.
#[derive(Debug)]
pub struct Passing {
    /// Which API.
    pub api: Api,
    /// Whether the usage event was asked for by us alone.
    pub remove_usage_event: bool,
    /// Longest silence within the answer.
    pub idle_max: Duration,
    /// When the answer has to be over, where that is limited.
    pub over_at: Option<Instant>,
    /// How often the client of a silent stream gets a comment.
    pub keep_alive: Option<Duration>,
    /// Where it is remembered, if its client may come back for it.
    pub stored: Option<super::stored::Passing>,
}

/// Makes the response; record and admission travel in its body.
pub async fn pass_on(
    answered: Answered,
    admission: Admission,
    mut passing: Passing,
    mut record: Box<Record>,
) -> Response<Body> {
    let (mut head, body) = answered.response.into_parts();
    let in_flight = admission.place.target.metrics.inside();
    let mut exchange = Exchange::new(body, answered.conn, answered.occupied);
    let media = headers::media_type(&head.headers).to_owned();
    let stream = media.eq_ignore_ascii_case("text/event-stream");
    let failed = head.status.is_client_error() || head.status.is_server_error();
    let length = headers::content_length(&head.headers);
    headers::strip_response(&mut head.headers, stream);
    if let Some(waited) = record.waits.cold_start {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        head.headers
            .insert(headers::COLD_START, HeaderValue::from(millis));
    }
    record.status = Some(head.status);
    record.phase = Phase::Stream;
    record.waits.until_stream = Some(record.elapsed());
    if failed && length.is_some_and(|length| length <= ERROR_BYTES_MAX) {
        let text = read_error(&mut exchange).await;
        return error(head, text, passing.api, record);
    }
    passing.stored = passing.stored.filter(|_| head.status.is_success());
    let tap = if stream && passing.api.streams() {
        let tap = StreamTap::new(passing.api, passing.remove_usage_event);
        Tap::Stream(passing.api, Box::new(tap))
    } else if media.eq_ignore_ascii_case("application/json") {
        Tap::Json(Box::new(JsonTap::new(passing.api)))
    } else {
        Tap::Opaque
    };
    let metered = Metered::new(tap, exchange, passing, record, admission, in_flight);
    Response::from_parts(head, Body::Metered(Box::new(metered)))
}

/// The body of an error; `None` when it breaks off or does not come.
async fn read_error(exchange: &mut Exchange) -> Option<Bytes> {
    let mut text = BytesMut::new();
    let read = async {
        while let Some(frame) = poll_fn(|cx| exchange.poll_frame(cx)).await {
            let bytes = frame.ok()?.into_data().unwrap_or_default();
            text.extend_from_slice(&bytes);
            if text.len() as u64 > ERROR_BYTES_MAX {
                return None;
            }
        }
        Some(())
    };
    timeout(ERROR_WAIT_MAX, read).await.ok()??;
    Some(text.freeze())
}

/// An upstream's error as the client gets it: as it came where it has OpenAI's
/// form, else in our words.
fn error(
    mut head: http::response::Parts,
    text: Option<Bytes>,
    api: Api,
    mut record: Box<Record>,
) -> Response<Body> {
    // The server refuses our key: that is between us and it.
    if head.status == StatusCode::UNAUTHORIZED || text.is_none() {
        let refusal = Refusal::UpstreamBroke;
        let response = refusal.response(Some(api));
        record.refused(&refusal, response.status());
        return response;
    }
    let text = text.unwrap_or_default();
    let bytes = if has_error_form(&text) {
        text
    } else {
        head.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        reworded(head.status)
    };
    head.headers
        .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    record.outcome = Outcome::UpstreamStatus;
    record.bytes_out = bytes.len() as u64;
    Response::from_parts(head, Body::full(bytes))
}

fn has_error_form(text: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Form {
        error: serde_json::Map<String, serde_json::Value>,
    }
    serde_json::from_slice::<Form>(text).is_ok_and(|form| !form.error.is_empty())
}
