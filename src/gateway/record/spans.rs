//! The two spans of a request: ours, from its head to its last byte, and within
//! it the call to the server, with what the conventions for generative AI name.
//!
//! <https://opentelemetry.io/docs/specs/semconv/gen-ai/>. Never a prompt, an
//! answer or a token.

use std::sync::Arc;
use std::time::Duration;

use super::Record;
use crate::gateway::route::table::Backend;
use crate::openai::api::Api;
use crate::telemetry::metrics::Outcome;
use crate::telemetry::traces::Attribute::{Flag, Float, Int, Text, Word};
use crate::telemetry::traces::{Attribute, Span, SpanKind};
use crate::time::unix_time;

type Attributes = Vec<(&'static str, Attribute)>;

/// The spans of a request that ended now and took `total`.
pub(in crate::gateway) fn of(record: &Record, total: Duration) -> Vec<Span> {
    let end = unix_time();
    let start = end.saturating_sub(total);
    let failure = failure(record);
    let mut spans = vec![Span {
        trace: record.trace.id.0,
        id: record.trace.span,
        parent: record.trace.parent,
        name: match record.api {
            Some(api) => format!("{} {}", method(api), api.upstream_path("")).into(),
            None => "HTTP".into(),
        },
        side: SpanKind::Server,
        start,
        end,
        attributes: served(record),
        failure,
    }];
    if let (Some(api), Some(model)) = (record.api, model(record))
        && record.waits.first_byte > Duration::ZERO
    {
        let waits = &record.waits;
        let before =
            waits.overhead + waits.body + waits.queue + waits.cold_start.unwrap_or_default();
        spans.push(Span {
            trace: record.trace.id.0,
            id: record.trace.call,
            parent: Some(record.trace.span),
            name: format!("{} {model}", operation(api)).into(),
            side: SpanKind::Client,
            start: (start + before).min(end),
            end,
            attributes: called(record, api, model),
            failure,
        });
    }
    spans
}

/// The reason of an end that was not the client's own wish.
fn failure(record: &Record) -> Option<&'static str> {
    match record.outcome {
        Outcome::Ok | Outcome::Local | Outcome::ClientGone => None,
        outcome => Some(record.reason.unwrap_or(outcome.as_str())),
    }
}

fn model(record: &Record) -> Option<Arc<str>> {
    let destination = record.destination.as_ref()?;
    Some(Arc::from(destination.name.as_str()))
}

fn text(text: &str) -> Attribute {
    Text(Arc::from(text))
}

fn served(record: &Record) -> Attributes {
    let mut all: Attributes = vec![
        (
            "http.request.method",
            Word(record.api.map_or("_OTHER", method)),
        ),
        (
            "url.scheme",
            Word(if record.peer.secure { "https" } else { "http" }),
        ),
        ("client.address", text(&record.origin.client.to_string())),
        ("tidegate.request.id", Text(Arc::clone(&record.request_id))),
        ("tidegate.outcome", Word(record.outcome.as_str())),
        (
            "tidegate.auth.duration",
            Float(record.waits.auth.as_secs_f64()),
        ),
        (
            "tidegate.body.duration",
            Float(record.waits.body.as_secs_f64()),
        ),
        (
            "tidegate.queue.duration",
            Float(record.waits.queue.as_secs_f64()),
        ),
    ];
    if let Some(api) = record.api {
        all.push(("http.route", Word(api.upstream_path(""))));
    }
    if let Some(status) = record.status {
        all.push(("http.response.status_code", Int(u64::from(status.as_u16()))));
    }
    if let Some(waited) = record.waits.cold_start {
        all.push(("tidegate.cold_start.duration", Float(waited.as_secs_f64())));
    }
    if let Some(why) = failure(record) {
        all.push(("error.type", Word(why)));
    }
    if let Some(retry) = record.retry {
        all.push(("http.request.resend_count", Int(u64::from(retry))));
    }
    if let Some(principal) = &record.principal {
        all.push(("tidegate.workspace", text(principal.workspace.as_str())));
        all.push(("tidegate.token.id", text(&principal.token_id)));
        if let Some(label) = &principal.label {
            all.push(("tidegate.token.label", text(label)));
        }
    }
    if let Some(destination) = &record.destination {
        all.push(("tidegate.route", text(destination.route.name.as_str())));
    }
    all
}

fn called(record: &Record, api: Api, model: Arc<str>) -> Attributes {
    let target = record.target.as_ref();
    let ours = target.is_some_and(|t| matches!(t.backend, Backend::Deployment { .. }));
    let mut all: Attributes = vec![
        ("gen_ai.operation.name", Word(operation(api))),
        // Of a foreign server is known only what it speaks.
        (
            "gen_ai.provider.name",
            Word(if ours { "vllm" } else { "openai" }),
        ),
        ("gen_ai.request.model", Text(model)),
        ("gen_ai.request.stream", Flag(record.stream)),
        (
            "tidegate.connect.duration",
            Float(record.waits.connect.as_secs_f64()),
        ),
        (
            "tidegate.first_byte.duration",
            Float(record.waits.first_byte.as_secs_f64()),
        ),
    ];
    if let Some(target) = target {
        all.push(("server.address", text(&target.label)));
        if let Some(model) = &target.model {
            all.push(("gen_ai.response.model", text(model.as_str())));
        }
    }
    if let Some(usage) = record.usage {
        all.push(("gen_ai.usage.input_tokens", Int(usage.prompt)));
        all.push(("gen_ai.usage.output_tokens", Int(usage.completion)));
        all.push(("gen_ai.usage.cache_read.input_tokens", Int(usage.cached)));
    }
    if let Some(first) = record.tokens.first {
        all.push((
            "gen_ai.response.time_to_first_chunk",
            Float(first.as_secs_f64()),
        ));
    }
    if let Some(why) = failure(record) {
        all.push(("error.type", Word(why)));
    }
    all
}

/// The operations that the conventions name; for others our own word.
fn operation(api: Api) -> &'static str {
    match api {
        Api::Chat | Api::Responses | Api::Messages => "chat",
        Api::Completions => "text_completion",
        Api::Embeddings | Api::Embed => "embeddings",
        other => other.label(),
    }
}

/// The method of an API.
fn method(api: Api) -> &'static str {
    if api == Api::Realtime { "GET" } else { "POST" }
}
