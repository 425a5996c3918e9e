//! Traces: the spans of requests on their way to a collector, and their form in
//! OTLP's JSON.
//!
//! Own JSON over the HTTP client that is here anyway: the crates of OpenTelemetry
//! bring a second HTTP stack and a second set of metrics for the two spans of a
//! request. Requests put spans in a bounded queue and never wait; what does not
//! fit is dropped and counted. Who sends them is `app`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::metrics::spans_dropped;

/// Requests whose spans may wait for the collector.
const QUEUE_MAX: usize = 4_096;

/// Takes spans. A clone puts them in the same queue.
#[derive(Clone, Debug)]
pub struct Traces {
    queue: Sender<Vec<Span>>,
    dropped: Counter,
}

/// One piece of work.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace: u128,
    /// Its id.
    pub id: u64,
    /// The span that it is a part of.
    pub parent: Option<u64>,
    /// Name of the work.
    pub name: Cow<'static, str>,
    /// Side from which it is seen.
    pub side: SpanKind,
    /// Start, since 1970.
    pub start: Duration,
    /// End, since 1970.
    pub end: Duration,
    /// Facts of the work.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Reason for which it failed; `None` when it did not.
    pub failure: Option<&'static str>,
}

/// Side from which a span is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// The side that answers.
    Server,
    /// The side that asks.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(Arc<str>),
    /// A word of ours.
    Word(&'static str),
    /// A whole number.
    Int(u64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Flag(bool),
}

impl Traces {
    /// An empty queue, and its end.
    pub fn queue() -> (Self, Receiver<Vec<Span>>) {
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let dropped = spans_dropped();
        (Self { queue, dropped }, spans)
    }

    /// Takes the spans of one request, or drops them where the queue is full.
    pub fn give(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.queue.try_send(spans).is_err() {
            self.dropped.increment(count);
        }
    }
}

/// The body of `POST /v1/traces`: `ExportTraceServiceRequest` in JSON, where ids
/// are hexadecimal and 64-bit numbers are texts.
pub fn export_request(service: &str, spans: &[Span]) -> Vec<u8> {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let request = json!({"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": service}},
            {"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}},
            {"key": "process.pid", "value": {"intValue": std::process::id().to_string()}},
        ]},
        "scopeSpans": [{
            "scope": {"name": "tidegate", "version": env!("CARGO_PKG_VERSION")},
            "spans": spans,
        }],
    }]});
    // Serialises into memory; texts and numbers cannot fail to.
    serde_json::to_vec(&request).unwrap_or_default()
}

fn span(span: &Span) -> Value {
    let attributes = span.attributes.iter().map(|(key, value)| {
        let value = match value {
            Attribute::Text(text) => json!({"stringValue": text}),
            Attribute::Word(text) => json!({"stringValue": text}),
            Attribute::Int(number) => json!({"intValue": number.to_string()}),
            Attribute::Float(number) => json!({"doubleValue": number}),
            Attribute::Flag(flag) => json!({"boolValue": flag}),
        };
        json!({"key": key, "value": value})
    });
    let mut value = json!({
        "traceId": format!("{:032x}", span.trace),
        "spanId": format!("{:016x}", span.id),
        "name": span.name,
        "kind": match span.side { SpanKind::Server => 2, SpanKind::Client => 3 },
        "startTimeUnixNano": span.start.as_nanos().to_string(),
        "endTimeUnixNano": span.end.as_nanos().to_string(),
        "attributes": attributes.collect::<Vec<_>>(),
        "status": match span.failure {
            Some(why) => json!({"code": 2, "message": why}),
            None => json!({}),
        },
    });
    if let (Some(parent), Some(fields)) = (span.parent, value.as_object_mut()) {
        fields.insert("parentSpanId".to_owned(), json!(format!("{parent:016x}")));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Span {
        Span {
            trace: 0xabc,
            id: 0x12,
            parent: Some(0x34),
            name: "chat m".into(),
            side: SpanKind::Client,
            start: Duration::from_nanos(1_700_000_000_000_000_001),
            end: Duration::from_nanos(1_700_000_000_000_000_009),
            attributes: vec![
                ("gen_ai.request.model", Attribute::Text(Arc::from("m"))),
                ("gen_ai.usage.input_tokens", Attribute::Int(7)),
            ],
            failure: Some("upstream_error"),
        }
    }

    #[test]
    fn a_span_has_the_form_of_otlp_in_json() {
        let text = export_request("tidegate", &[one()]);
        let request: Value = serde_json::from_slice(&text).unwrap();
        let span = &request["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "00000000000000000000000000000abc");
        assert_eq!(span["spanId"], "0000000000000012");
        assert_eq!(span["parentSpanId"], "0000000000000034");
        assert_eq!(span["kind"], 3);
        assert_eq!(span["startTimeUnixNano"], "1700000000000000001");
        assert_eq!(span["attributes"][1]["value"]["intValue"], "7");
        assert_eq!(span["status"]["code"], 2);
    }

    #[test]
    fn a_full_queue_drops_and_no_one_waits() {
        let (traces, mut spans) = Traces::queue();
        for _ in 0..2 * QUEUE_MAX {
            traces.give(vec![one()]);
        }
        let mut count = 0;
        while spans.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, QUEUE_MAX);
    }
}
