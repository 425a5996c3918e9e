//! `/metrics`: the gauges and counters of vLLM that others read.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderValue, Response, header};

use super::app::{App, Body, json};

/// Answers the Prometheus text.
pub(super) fn response(app: &App) -> Response<Body> {
    let mut response = json(text(app));
    let kind = HeaderValue::from_static("text/plain; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// One sample of a family: what its name has behind it, labels before and after
/// the model's, value. vLLM sorts labels by name.
type Sample = (&'static str, &'static str, &'static str, f64);

/// The label that nearly every family has.
const ENGINE: &str = "engine=\"0\",";

fn text(app: &App) -> String {
    let model = &app.model;
    families(app)
        .into_iter()
        .flat_map(|(name, kind, help, samples)| {
            let head = format!("# HELP vllm:{name} {help}\n# TYPE vllm:{name} {kind}\n");
            let lines = samples.into_iter().map(move |(end, before, after, value)| {
                format!("vllm:{name}{end}{{{before}model_name={model}{after}}} {value:?}\n")
            });
            std::iter::once(head).chain(lines)
        })
        .collect()
}

/// Name, type, help and samples of each family.
#[rustfmt::skip]
fn families(app: &App) -> Vec<(&'static str, &'static str, &'static str, Vec<Sample>)> {
    let counters = &app.engine.counters;
    let level = app.engine.now().level;
    let flag = |holds: bool| f64::from(u8::from(holds));
    let running = f64::from(counters.running.load(Ordering::Acquire));
    let waiting = f64::from(counters.waiting.load(Ordering::Acquire));
    let share = (running / f64::from(app.args.max_num_seqs)).min(1.0);
    let total = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    let mut all = vec![
        ("num_requests_running", "gauge", "Number of requests in model execution batches.",
            vec![("", ENGINE, "", running)]),
        ("num_requests_waiting", "gauge", "Number of requests waiting to be processed.",
            vec![("", ENGINE, "", waiting)]),
        ("engine_sleep_state", "gauge", "Engine sleep state.", vec![
            ("", ENGINE, ",sleep_state=\"awake\"", flag(level.is_none())),
            ("", ENGINE, ",sleep_state=\"weights_offloaded\"", flag(level == Some(1))),
            ("", ENGINE, ",sleep_state=\"discard_all\"", flag(level == Some(2))),
        ]),
        ("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.",
            vec![("", ENGINE, "", share)]),
        ("prompt_tokens", "counter", "Number of prefill tokens processed.",
            vec![("_total", ENGINE, "", total(&counters.prompt_tokens))]),
        ("generation_tokens", "counter", "Number of generation tokens processed.",
            vec![("_total", ENGINE, "", total(&counters.generation_tokens))]),
        ("request_success", "counter", "Count of successfully processed requests.", vec![
            ("_total", "engine=\"0\",finished_reason=\"stop\",", "", total(&counters.stopped)),
            ("_total", "engine=\"0\",finished_reason=\"length\",", "", total(&counters.reached_length)),
            ("_total", "engine=\"0\",finished_reason=\"abort\",", "", total(&counters.aborted)),
            ("_total", "engine=\"0\",finished_reason=\"error\",", "", 0.0),
            ("_total", "engine=\"0\",finished_reason=\"repetition\",", "", 0.0),
        ]),
        ("admission_rejections", "counter", "Count of requests rejected at admission.",
            vec![("_total", "", ",reason=\"max_num_queued_reqs\"", total(&counters.rejected))]),
    ];
    if app.args.num_speculative_tokens > 0 {
        all.push(("spec_decode_num_draft_tokens", "counter", "Number of draft tokens.",
            vec![("_total", ENGINE, "", total(&counters.guessed))]));
        all.push(("spec_decode_num_accepted_tokens", "counter", "Number of accepted tokens.",
            vec![("_total", ENGINE, "", total(&counters.held))]));
    }
    all
}

/// A counter as a float, as Prometheus has it.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 tokens")]
fn count(value: u64) -> f64 {
    value as f64
}
