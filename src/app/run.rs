//! Serving: the tasks, and their end in order.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::handover::{self, Answers};
use super::signals::{Signals, Told};
use super::systemd::Notifier;
use super::{App, Failure, certs, health, plots, reload, trim};
use crate::admin::{self, Admin, socket};
use crate::auth::Keys;
use crate::config::watch::Watcher;
use crate::config::{Catalog, CurrentWriter};
use crate::deployment::{Registry, Status};
use crate::gateway::{Gateway, lookout};
use crate::names::DeploymentId;
use crate::store::usage;
use crate::tasks::Tasks;
use crate::telemetry::metrics::{self, DeploymentMetrics};
use crate::telemetry::output::{self, Output};
use crate::time::{Instant, sleep, unix_time};

/// Pause between two looks for idle upstream connections.
const SWEEP: Duration = Duration::from_secs(1);
/// Pause between two upkeeps of the metric recorder, which else grows unscraped.
const UPKEEP: Duration = Duration::from_secs(5);
/// Pause between two reports of status and last activity; the intervals that instances
/// ask for are multiples of it.
const REPORT: Duration = Duration::from_secs(1);

impl App {
    /// Serves until SIGTERM or SIGINT, then ends in order, or until another
    /// gateway takes over. A second signal cuts what is still open. SIGHUP reads
    /// files again; it and SIGUSR1 open the access log anew. `stop_workers` ends
    /// them too, else the next start adopts them.
    ///
    /// # Errors
    ///
    /// A task that all depends on has ended by itself.
    pub async fn serve(
        mut self,
        mut signals: Signals,
        stop_workers: bool,
    ) -> Result<usize, Failure> {
        let (asks, mut asked) = mpsc::channel(1);
        let notifier = Arc::new(Notifier::from_environment());
        let end = End {
            gateway: Arc::clone(&self.gateway),
            admin: self.admin.clone(),
            launcher: Arc::clone(&self.launcher),
            front: self.tasks.sibling(),
            tasks: self.tasks.clone(),
            talks: Tasks::new(),
            cut: CancellationToken::new(),
            notifier: Arc::clone(&notifier),
            answers: Answers {
                handles: Arc::new(std::mem::take(&mut self.handles)),
                asked: asks,
                store: self.admin.store.clone(),
                usage: Arc::clone(self.gateway.ledger()),
            },
        };
        if self.before.is_some() {
            end.settle_usage().await;
        }
        let (before, reloads) = (self.before.take(), self.reloads.clone());
        self.start(&end);
        end.gateway.set_ready(true);
        tracing::info!("ready");
        if let Some(before) = before {
            before.serving().await;
        }
        notifier.ready();
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::End => return Ok(end.stop(&mut signals, stop_workers).await),
                    Told::Reload => {
                        notifier.reloading();
                        end.gateway.access_log().reopen();
                        reloads.certificates.notify_one();
                        reloads.routes.notify_one();
                        notifier.ready();
                    }
                    Told::Reopen => end.gateway.access_log().reopen(),
                    Told::Nothing(name) => {
                        tracing::warn!("{name} means nothing here: SIGTERM and SIGINT end, SIGHUP reads files again, SIGUSR1 opens logs anew");
                    }
                },
                fallen = end.tasks.fallen() => {
                    tracing::error!("{fallen}");
                    // Workers go on, and a start adopts them: that is what helps.
                    end.stop(&mut signals, false).await;
                    return Err(fallen.into());
                }
                Some(first) = asked.recv() => {
                    return Ok(end.give_way(first, &mut asked, &mut signals).await);
                }
            }
        }
    }

    /// Starts every task: those of clients on `front`, the others on our own.
    fn start(self, end: &End) {
        let (front, cut) = (&end.front, &end.cut);
        for listener in self.doors.listeners {
            let gateway = Arc::clone(&self.gateway);
            let serving = listener.serve(gateway, front.clone(), cut.clone());
            front.spawn_vital("listener", serving);
        }
        let talks = end.talks.ending();
        let answers = handover::answer(self.handover_socket, end.answers.clone(), talks);
        end.talks.spawn("handover", answers);
        let router = admin::socket_router(self.admin.clone(), &self.tasks);
        let path = self.settings.admin.socket.clone();
        let ending = self.tasks.ending();
        let serving = socket::serve(self.admin_socket, path, router, ending.clone());
        self.tasks.spawn_vital("admin", serving);
        if let Some(listener) = self.doors.admin {
            let router = admin::https_router(self.admin.clone(), &self.tasks);
            let serving = listener.serve(router, self.tasks.clone());
            self.tasks.spawn_vital("dashboard", serving);
        }
        if let Some(socket) = self.doors.metrics {
            let gateway = Arc::clone(&self.gateway);
            let scraped = scrape(socket, self.metrics.clone(), gateway, ending.clone());
            self.tasks.spawn_vital("metrics", scraped);
        }
        let wrong = Arc::clone(&self.admin.certificate_errors);
        let asked = Arc::clone(&self.reloads.certificates);
        let kept = certs::keep(self.certificates, wrong, asked, ending.clone());
        self.tasks.spawn_vital("certificates", kept);
        self.keys.start(&self.tasks);
        let given_back = trim::keep(Arc::clone(&self.gateway), ending.clone());
        self.tasks.spawn("trim", given_back);
        let looking = lookout::run(Arc::clone(&self.gateway), self.tasks.child());
        self.tasks.spawn_vital("lookout", looking);
        let ledger = Arc::clone(self.gateway.ledger());
        let holders = Arc::clone(self.keys.verifier().holders());
        let kept = health::keep(self.admin.clone(), ending.clone());
        self.tasks.spawn("store", kept);
        let kept = usage::keep(self.admin.store.clone(), ledger, holders, ending.clone());
        self.tasks.spawn_vital("usage", kept);
        let plotted = plots::keep(self.admin.clone(), ending.clone());
        self.tasks.spawn_vital("history", plotted);
        let registry = self.admin.registry.clone();
        let beats = beat(
            Arc::clone(&self.gateway),
            self.keys,
            registry,
            self.metrics,
            ending.clone(),
        );
        self.tasks.spawn_vital("beat", beats);
        let (notifier, until) = (Arc::clone(&end.notifier), ending.clone());
        self.tasks
            .spawn("watchdog", async move { notifier.live(until).await });
        let asked = self.reloads.routes;
        let reloads = reload_on_change(
            self.watcher,
            asked,
            (self.admin, self.current),
            self.gateway,
            ending,
        );
        self.tasks.spawn_vital("reload", reloads);
    }
}

/// A page of metrics, packed for clients that take it so: thousands of lines that differ in a
/// word each.
fn page(asked: &HeaderMap, text: String) -> (HeaderMap, Vec<u8>) {
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if !takes_gzip(asked) {
        return (headers, text.into_bytes());
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let written = packed.write_all(text.as_bytes());
    match written.and_then(|()| packed.finish()) {
        Ok(bytes) => {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            (headers, bytes)
        }
        // Writing to memory can't fail.
        Err(_) => (headers, text.into_bytes()),
    }
}

/// True if a client takes gzip: it names it, or anything, and not with `q=0`.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=");
        let is_none = weight.starts_with('0') && weight.trim_matches(['0', '.']).is_empty();
        name.trim().eq_ignore_ascii_case("gzip") && !is_none
    })
}

/// Serves `GET /metrics`, and whether we live and accept work: so that neither is ever
/// asked behind clients.
async fn scrape(
    socket: TcpListener,
    handle: PrometheusHandle,
    gateway: Arc<Gateway>,
    ending: CancellationToken,
) {
    let render = move |headers: HeaderMap| {
        let handle = handle.clone();
        async move { page(&headers, handle.render()) }
    };
    let ready = async move || {
        if gateway.is_ready() {
            (StatusCode::OK, gateway.ready_text())
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting down\n".to_owned(),
            )
        }
    };
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get("ok\n"))
        .route("/readyz", get(ready));
    let until = ending.clone();
    let served =
        axum::serve(socket, router).with_graceful_shutdown(async move { until.cancelled().await });
    tokio::select! {
        result = served => if let Err(error) = result {
            tracing::error!(error = %error, "the metrics listener broke");
        },
        // A scraper's idle connection must not hold up the end.
        () = async { ending.cancelled().await; sleep(Duration::from_millis(200)).await } => {}
    }
}

/// Does all that must be done now and then.
async fn beat(
    gateway: Arc<Gateway>,
    keys: Arc<Keys>,
    registry: Registry,
    handle: PrometheusHandle,
    ending: CancellationToken,
) {
    let mut sweep = tokio::time::interval(SWEEP);
    let mut upkeep = tokio::time::interval(UPKEEP);
    let mut report = tokio::time::interval(REPORT);
    let (mut seconds, mut reported) = (0, BTreeMap::new());
    loop {
        tokio::select! {
            _ = sweep.tick() => gateway.sweep(),
            _ = upkeep.tick() => handle.run_upkeep(),
            _ = report.tick() => {
                report_activity(&registry, &mut reported, seconds);
                report_tokens(&keys, &gateway);
                seconds += 1;
            }
            () = ending.cancelled() => return,
        }
    }
}

/// Reports how fetched keys stand, and what was lost of usage and of logs.
fn report_tokens(keys: &Keys, gateway: &Gateway) {
    for status in keys.jwks_status() {
        metrics::jwks(&status.issuer, status.age, status.fetched, status.failed);
    }
    metrics::usage_lost(gateway.ledger().lost());
    let own = output::used_stderr().map_or(0, Output::dropped);
    metrics::log_dropped(gateway.access_log().dropped(), own);
    metrics::memory(gateway.memory().used(), gateway.memory().max());
}

/// Reports each deployment's status, and its last activity as often as its
/// instance asks for.
fn report_activity(
    registry: &Registry,
    reported: &mut BTreeMap<DeploymentId, DeploymentMetrics>,
    seconds: u64,
) {
    let all = registry.all();
    for handle in &all {
        if !reported.contains_key(&handle.id) {
            let statuses = Status::ALL.map(Status::as_str);
            let metrics = DeploymentMetrics::new(handle.id.as_str(), &statuses);
            reported.insert(handle.id.clone(), metrics);
        }
        let Some(metrics) = reported.get_mut(&handle.id) else {
            continue;
        };
        let interval = handle
            .spec()
            .idle
            .last_action_report_interval
            .as_secs()
            .max(1);
        if seconds.is_multiple_of(interval) {
            let ago = registry
                .clock
                .now()
                .saturating_sub(handle.gate.last_activity());
            metrics.last_activity(unix_time().saturating_sub(ago));
        }
        metrics.status(handle.status().as_str());
    }
    if reported.len() > all.len() {
        reported.retain(|id, _| all.iter().any(|handle| handle.id == *id));
    }
}

/// Longest that a file may be gone and still be the same one when it is there again.
const REWRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// Waits for a file that is gone: deleted and written again is how rsync, git and
/// editors change one.
async fn settled(known: Arc<Catalog>) {
    let gone = tokio::task::spawn_blocking(move || known.misses_a_file()).await;
    if gone.is_ok_and(|is_gone| is_gone) {
        tracing::info!(
            "a route file is gone; what it says ends unless it is there again within {REWRITTEN_WITHIN:?}"
        );
        sleep(REWRITTEN_WITHIN).await;
    }
}

/// Takes changed files into effect: the conductor first, then the gateway.
async fn reload_on_change(
    mut watcher: Watcher,
    asked: Arc<Notify>,
    (admin, current): (Admin, CurrentWriter),
    gateway: Arc<Gateway>,
    ending: CancellationToken,
) {
    loop {
        tokio::select! {
            () = watcher.changed() => {}
            () = asked.notified() => {}
            () = ending.cancelled() => return,
        }
        let (settings, previous) = (Arc::clone(&admin.settings), admin.catalog.load());
        tokio::select! {
            () = settled(Arc::clone(&previous)) => {}
            () = ending.cancelled() => return,
        }
        let before = Arc::clone(&previous);
        let since = Instant::now();
        let read = tokio::task::spawn_blocking(move || reload(&settings, Some(&previous))).await;
        let Ok(catalog) = read else { continue };
        for error in catalog
            .errors
            .iter()
            .filter(|error| !before.errors.contains(error))
        {
            tracing::error!("{error}; what was read before stays in effect");
        }
        metrics::config_errors(catalog.errors.len());
        let read_took = since.elapsed();
        let catalog = Arc::new(catalog);
        admin.lifecycle.apply(Arc::clone(&catalog)).await;
        gateway.install(&catalog);
        tracing::info!(
            routes = catalog.routes.len(),
            instances = catalog.instances.len(),
            errors = catalog.errors.len(),
            read_ms = read_took.as_secs_f64() * 1e3,
            total_ms = since.elapsed().as_secs_f64() * 1e3,
            "routes are in effect"
        );
        current.set(catalog);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn metrics_are_packed_for_those_who_take_it_so() {
        let text = "tidegate_requests_total{route=\"chat\"} 1\n".repeat(1_000);
        for (asked, is_packed) in [
            ("gzip", true),
            ("deflate, GZip;q=0.5", true),
            ("", false),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0.0, br", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(asked));
            let (head, bytes) = page(&headers, text.clone());
            assert_eq!(head.contains_key(CONTENT_ENCODING), is_packed, "{asked}");
            let mut read = String::new();
            if is_packed {
                assert!(bytes.len() * 10 < text.len());
                let mut packed = flate2::read::GzDecoder::new(&bytes[..]);
                packed.read_to_string(&mut read).unwrap();
            } else {
                read = String::from_utf8(bytes).unwrap();
            }
            assert!(read == text, "{asked}");
        }
    }
}
