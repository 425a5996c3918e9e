//! Every metric name, its help, its buckets, and handles that are looked up once.
//!
//! Labels carry only values that the admin or we defined: routes, deployments,
//! outcomes. Never a caller's string.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::history::{Account, Level};
use crate::units::float;

mod describe;
pub(super) mod names;
mod state;
mod store;

pub use state::{DeploymentMetrics, GpuMetrics};
pub use store::{StoreHealth, store};

use names::{
    BUILD_INFO, CERTIFICATE_ERRORS, CERTIFICATE_EXPIRY, CONFIG_ERRORS, CONNECTIONS, DECISIONS,
    DURATION, EJECTIONS, FIRST_TOKEN, HISTORY_DEGRADED, IN_FLIGHT, INTER_TOKEN, JWKS_AGE,
    JWKS_REFRESHES, LOG_DROPPED, MEMORY_BUDGET, MEMORY_HELD, MIRRORED, OVERHEAD, OWN_LOG_DROPPED,
    QUEUE_WAIT, QUEUED, REPLAYS, REQUESTS, RETRIES, SPANS_DROPPED, TOKENS, TRANSITION,
    UPSTREAM_FAILURES, UPSTREAM_IN, USAGE_LOST,
};

pub use super::outcome::Outcome;

/// Seconds of whole requests and waits: 5 ms to 20 min.
const LONG: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1200.0,
];
/// Seconds between tokens: 1 ms to 5 s.
const TOKEN_GAP: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Seconds of our own work: 20 us to 1 s.
const SHORT: [f64; 14] = [
    0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
    0.25, 1.0,
];

/// Installs the recorder of this process and describes every name.
///
/// # Errors
///
/// A recorder is installed already, or a bucket list is empty.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let long = [DURATION, FIRST_TOKEN, QUEUE_WAIT, TRANSITION];
    let mut builder = PrometheusBuilder::new();
    for name in long {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &LONG)?;
    }
    let handle = builder
        .set_buckets_for_metric(Matcher::Full(INTER_TOKEN.to_owned()), &TOKEN_GAP)?
        .set_buckets_for_metric(Matcher::Full(OVERHEAD.to_owned()), &SHORT)?
        .install_recorder()?;
    describe::describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(CONFIG_ERRORS).set(0.0);
    Ok(handle)
}

/// Handles of one route and deployment, looked up once when routes are compiled.
#[derive(Debug)]
pub struct RequestMetrics {
    outcomes: [Counter; Outcome::ALL.len()],
    /// Time from the head of the request to the last byte.
    pub duration: Histogram,
    /// Time to the first token.
    pub first_token: Histogram,
    /// Mean time between the events of a stream.
    pub inter_token: Histogram,
    /// Wait for a place or for a worker.
    pub queue_wait: Histogram,
    /// Time that the gateway itself took.
    pub overhead: Histogram,
    /// Prompt tokens.
    pub tokens_prompt: Counter,
    /// Completion tokens.
    pub tokens_completion: Counter,
    /// Prompt tokens that the engine had cached.
    pub tokens_cached: Counter,
    /// Requests with a worker or upstream.
    pub in_flight: Gauge,
    /// Requests that wait.
    pub queued: Gauge,
    /// The same for the history; none of what reached no route.
    account: Option<Arc<Account>>,
}

impl RequestMetrics {
    /// Looks the handles up. `deployment` is a deployment's id, the name of an
    /// upstream's route, or `-` where none was found.
    pub fn new(route: &str, deployment: &str) -> Arc<Self> {
        let (route, deployment) = (route.to_owned(), deployment.to_owned());
        let tokens = |kind: &'static str| counter!(TOKENS, "deployment" => deployment.clone(), "kind" => kind);
        Arc::new(Self {
            outcomes: Outcome::ALL.map(|outcome| {
                counter!(REQUESTS, "route" => route.clone(), "deployment" => deployment.clone(),
                    "outcome" => outcome.as_str())
            }),
            duration: histogram!(DURATION, "route" => route.clone(), "deployment" => deployment.clone()),
            first_token: histogram!(FIRST_TOKEN, "route" => route.clone(), "deployment" => deployment.clone()),
            inter_token: histogram!(INTER_TOKEN, "route" => route.clone(), "deployment" => deployment.clone()),
            queue_wait: histogram!(QUEUE_WAIT, "route" => route.clone(), "deployment" => deployment.clone()),
            overhead: histogram!(OVERHEAD, "route" => route.clone(), "deployment" => deployment.clone()),
            tokens_prompt: tokens("prompt"),
            tokens_completion: tokens("completion"),
            tokens_cached: tokens("cached"),
            in_flight: gauge!(IN_FLIGHT, "route" => route.clone(), "deployment" => deployment.clone()),
            queued: gauge!(QUEUED, "route" => route, "deployment" => deployment.clone()),
            account: None,
        })
    }

    /// Metrics as of [`Self::new`], with the history of a scope.
    pub fn with_account(route: &str, deployment: &str, account: Arc<Account>) -> Arc<Self> {
        let metrics = Self::new(route, deployment);
        let metrics = Arc::into_inner(metrics).map(|metrics| Self {
            account: Some(account),
            ..metrics
        });
        metrics.map_or_else(|| Self::new(route, deployment), Arc::new)
    }

    /// Account that tells the history of requests.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.account.as_ref()
    }

    /// Counts one request as inside, until the guard is dropped.
    pub fn inside(&self) -> Counted {
        Counted::with(&self.in_flight, self.account.as_ref().map(|a| &a.in_flight))
    }

    /// Counts one request as waiting, until the guard is dropped.
    pub fn waiting(&self) -> Counted {
        Counted::with(&self.queued, self.account.as_ref().map(|a| &a.queued))
    }

    /// Counts one request that ended so.
    pub fn ended(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.increment(1);
        }
    }
}

/// Adds to a gauge now and takes it off again when dropped.
#[derive(Debug)]
pub struct Counted(Gauge, Option<Level>);

impl Counted {
    /// Counts one on `gauge`.
    pub fn on(gauge: &Gauge) -> Self {
        Self::with(gauge, None)
    }

    fn with(gauge: &Gauge, level: Option<&Level>) -> Self {
        gauge.increment(1.0);
        let level = level.cloned();
        if let Some(level) = &level {
            level.rise();
        }
        Self(gauge.clone(), level)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
        if let Some(level) = &self.1 {
            level.fall();
        }
    }
}

/// Handles of one server of a route.
#[derive(Debug)]
pub struct ServerMetrics {
    /// `None` for workers: they come and go, and would leave a series each.
    is_in: Option<Gauge>,
    ejections: Counter,
    /// Its labels.
    route: String,
    upstream: String,
}

impl ServerMetrics {
    /// Looks the handles up.
    pub fn new(route: &str, upstream: &str) -> Self {
        let (route, upstream) = (route.to_owned(), upstream.to_owned());
        Self {
            is_in: Some(
                gauge!(UPSTREAM_IN, "route" => route.clone(), "upstream" => upstream.clone()),
            ),
            ejections: counter!(EJECTIONS, "route" => route.clone(), "upstream" => upstream.clone()),
            route,
            upstream,
        }
    }

    /// Metrics for the workers of a deployment, which are counted together.
    pub fn of_deployment(id: &str) -> Self {
        Self {
            is_in: None,
            ejections: counter!(EJECTIONS, "route" => "-", "upstream" => id.to_owned()),
            route: "-".to_owned(),
            upstream: id.to_owned(),
        }
    }

    /// Reports if requests are sent to it.
    pub fn is_in(&self, is_in: bool) {
        if let Some(gauge) = &self.is_in {
            gauge.set(if is_in { 1.0 } else { 0.0 });
        }
    }

    /// A request to it failed, for one of a closed set of reasons.
    pub fn failed(&self, reason: &'static str) {
        let (route, upstream) = (self.route.clone(), self.upstream.clone());
        counter!(UPSTREAM_FAILURES, "route" => route, "upstream" => upstream, "reason" => reason)
            .increment(1);
    }

    /// Counts one more ejection.
    pub fn ejected(&self) {
        self.ejections.increment(1);
    }
}

/// Counts a request of `route` that goes to a further server because of `why`.
pub fn retried(route: &str, why: &'static str) {
    counter!(RETRIES, "route" => route.to_owned(), "reason" => why).increment(1);
}

/// Counts a copy of a request of `route` for its mirror, and what became of it.
pub fn mirrored(route: &str, what: &'static str) {
    counter!(MIRRORED, "route" => route.to_owned(), "what" => what).increment(1);
}

/// The gauge of open client connections.
pub fn connections() -> Gauge {
    gauge!(CONNECTIONS)
}

/// The counter of requests sent again on a fresh connection.
pub fn replays() -> Counter {
    counter!(REPLAYS)
}

/// The counter of spans that found no place or no collector.
pub fn spans_dropped() -> Counter {
    counter!(SPANS_DROPPED)
}

/// Counts spans that no collector took.
pub fn spans_lost(count: usize) {
    counter!(SPANS_DROPPED).increment(count as u64);
}

/// Reports how many lines of the access log, and of the process's own log, were
/// lost since the start.
pub fn log_dropped(access: u64, own: u64) {
    counter!(LOG_DROPPED).absolute(access);
    counter!(OWN_LOG_DROPPED).absolute(own);
}

/// Reports how the key set of a trusted issuer stands. `age`: since it was last
/// fetched whole, none before the first time; the counts are since the start.
pub fn jwks(issuer: &str, age: Option<Duration>, fetched: u64, failed: u64) {
    if let Some(age) = age {
        gauge!(JWKS_AGE, "issuer" => issuer.to_owned()).set(age.as_secs_f64());
    }
    for (outcome, count) in [("ok", fetched), ("failed", failed)] {
        counter!(JWKS_REFRESHES, "issuer" => issuer.to_owned(), "outcome" => outcome)
            .absolute(count);
    }
}

/// Reports how many requests the ledger of usage lost since the start.
pub fn usage_lost(count: u64) {
    counter!(USAGE_LOST).absolute(count);
}

/// Reports how many bytes are held for clients, and how many may be.
pub fn memory(held: u64, budget: u64) {
    gauge!(MEMORY_HELD).set(float(held));
    gauge!(MEMORY_BUDGET).set(float(budget));
}

/// Sets how many errors the files of certificates have that stand there now.
pub fn certificate_errors(count: usize) {
    gauge!(CERTIFICATE_ERRORS).set(float(count as u64));
}

/// Sets until when a certificate is valid that is served, in seconds since 1970.
pub fn certificate_expiry(file: &str, until: u64) {
    gauge!(CERTIFICATE_EXPIRY, "certificate" => file.to_owned()).set(float(until));
}

/// Sets whether the history can't be written.
pub fn history_degraded(is_degraded: bool) {
    gauge!(HISTORY_DEGRADED).set(if is_degraded { 1.0 } else { 0.0 });
}

/// Sets how many errors the files have.
pub fn config_errors(count: usize) {
    gauge!(CONFIG_ERRORS).set(float(count as u64));
}

/// Records how long a deployment took from one residency to another.
pub fn transition(deployment: &str, from: &'static str, to: &'static str, took: Duration) {
    histogram!(TRANSITION, "deployment" => deployment.to_owned(), "from" => from, "to" => to)
        .record(took.as_secs_f64());
}

/// Counts a decision about a deployment, by its reason.
pub fn decision(deployment: &str, decision: &'static str, reason: &'static str) {
    counter!(DECISIONS, "deployment" => deployment.to_owned(), "decision" => decision, "reason" => reason)
        .increment(1);
}
