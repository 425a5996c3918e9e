//! Serving: the tasks, and their end in order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{App, Failure, certs, reload};
use crate::admin::{self, Admin, socket};
use crate::auth::Keys;
use crate::config::watch::Watcher;
use crate::deployment::{Registry, Status};
use crate::gateway::Gateway;
use crate::store::usage;
use crate::tasks::Tasks;
use crate::telemetry::metrics;
use crate::time::{sleep, unix_time};

/// Between two looks for idle upstream connections.
const SWEEP: Duration = Duration::from_secs(1);
/// Between two upkeeps of the metric recorder, which else grows unscraped.
const UPKEEP: Duration = Duration::from_secs(5);
/// Between two reports of status and last activity; the intervals that instances
/// ask for are multiples of it.
const REPORT: Duration = Duration::from_secs(1);
/// Limit of the last tasks once everything was told to end.
const LAST_WAIT: Duration = Duration::from_secs(5);

impl App {
    /// Serves until SIGTERM or SIGINT, then ends in order. A second signal cuts
    /// what is still open. `stop_workers` ends them too, else the next start
    /// adopts them.
    ///
    /// # Errors
    ///
    /// When signals can't be listened for.
    pub async fn serve(self, stop_workers: bool) -> Result<usize, Failure> {
        let mut stop = Stop::listen()?;
        let front = self.tasks.child();
        let cut = CancellationToken::new();
        let (gateway, admin, tasks) = (
            Arc::clone(&self.gateway),
            self.admin.clone(),
            self.tasks.clone(),
        );
        let shutdown_max = self.settings.gateway.shutdown_timeout;
        self.start(&front, &cut);
        gateway.set_ready(true);
        tracing::info!("ready");

        stop.asked().await;
        gateway.set_ready(false);
        tracing::info!(
            connections = front.len(),
            "ending: open requests may finish"
        );
        tokio::select! {
            _ = front.join(shutdown_max) => {}
            () = stop.asked() => {}
        }
        cut.cancel();
        front.join(LAST_WAIT).await;
        let log = Arc::clone(&gateway);
        // It fails only when the runtime ends, and the process with it.
        drop(tokio::task::spawn_blocking(move || log.close_log()).await);
        let ended = admin.lifecycle.shutdown(stop_workers);
        stop.unless_asked(ended, "workers that end").await;
        let handles = admin.registry.all();
        let alive = handles
            .iter()
            .filter(|handle| handle.snapshot().pid.is_some());
        let left = if stop_workers { 0 } else { alive.count() };
        tasks.join(LAST_WAIT).await;
        Ok(left)
    }

    /// Starts every task: those of clients on `front`, the others on our own.
    fn start(self, front: &Tasks, cut: &CancellationToken) {
        let places = Arc::new(Semaphore::new(self.settings.gateway.connections_max));
        for listener in self.doors.listeners {
            let gateway = Arc::clone(&self.gateway);
            let serving = listener.serve(gateway, Arc::clone(&places), front.clone(), cut.clone());
            front.spawn("listener", serving);
        }
        let router = admin::socket_router(self.admin.clone());
        let path = self.settings.admin.socket.clone();
        let ending = self.tasks.ending();
        let serving = socket::serve(self.admin_socket, path, router, ending.clone());
        self.tasks.spawn("admin", serving);
        if let Some(listener) = self.doors.admin {
            let router = admin::https_router(self.admin.clone());
            let serving = listener.serve(router, self.tasks.clone());
            self.tasks.spawn("dashboard", serving);
        }
        if let Some(socket) = self.doors.metrics {
            let scraped = scrape(socket, self.metrics.clone(), ending.clone());
            self.tasks.spawn("metrics", scraped);
        }
        let wrong = Arc::clone(&self.admin.certificate_errors);
        let reload = Arc::clone(&self.reload);
        let kept = certs::keep(self.certificates, wrong, reload, ending.clone());
        self.tasks.spawn("certificates", kept);
        self.keys.start(&self.tasks);
        let ledger = Arc::clone(self.gateway.ledger());
        let kept = usage::keep(self.admin.store.clone(), ledger, ending.clone());
        self.tasks.spawn("usage", kept);
        let registry = self.admin.registry.clone();
        let beats = beat(
            Arc::clone(&self.gateway),
            self.keys,
            registry,
            self.metrics,
            ending.clone(),
        );
        self.tasks.spawn("beat", beats);
        let reloads = reload_on_change(self.watcher, self.admin, self.gateway, ending);
        self.tasks.spawn("reload", reloads);
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    term: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for `ended`, but no longer than until a further signal.
    async fn unless_asked(&mut self, ended: impl Future<Output = ()>, what: &str) {
        tokio::select! {
            () = ended => {}
            () = self.asked() => tracing::warn!("did not wait for {what}"),
        }
    }

    /// Resolves with the next of either. Cancel-safe, as `recv` is.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves `GET /metrics`.
async fn scrape(socket: TcpListener, handle: PrometheusHandle, ending: CancellationToken) {
    let render = move || {
        let handle = handle.clone();
        async move {
            (
                [("content-type", "text/plain; version=0.0.4")],
                handle.render(),
            )
        }
    };
    let router = Router::new().route("/metrics", get(render));
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

/// What must be done now and then.
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
    let mut seconds = 0;
    loop {
        tokio::select! {
            _ = sweep.tick() => gateway.sweep(),
            _ = upkeep.tick() => handle.run_upkeep(),
            _ = report.tick() => {
                report_activity(&registry, seconds);
                report_tokens(&keys, &gateway);
                seconds += 1;
            }
            () = ending.cancelled() => return,
        }
    }
}

/// Reports how fetched keys stand, and what the ledger of usage lost.
fn report_tokens(keys: &Keys, gateway: &Gateway) {
    for status in keys.jwks_status() {
        metrics::jwks(&status.issuer, status.age, status.fetched, status.failed);
    }
    metrics::usage_lost(gateway.ledger().lost());
}

/// Reports each deployment's status, and its last activity as often as its
/// instance asks for.
fn report_activity(registry: &Registry, seconds: u64) {
    let names = Status::ALL.map(Status::as_str);
    for handle in registry.all() {
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
            metrics::last_activity(handle.id.as_str(), unix_time().saturating_sub(ago));
        }
        metrics::deployment_status(handle.id.as_str(), &names, Some(handle.status().as_str()));
    }
}

/// Takes changed files into effect: the conductor first, then the gateway.
async fn reload_on_change(
    mut watcher: Watcher,
    admin: Admin,
    gateway: Arc<Gateway>,
    ending: CancellationToken,
) {
    loop {
        tokio::select! {
            () = watcher.changed() => {}
            () = ending.cancelled() => return,
        }
        let (settings, previous) = (Arc::clone(&admin.settings), admin.catalog.load_full());
        let before = Arc::clone(&previous);
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
        let catalog = Arc::new(catalog);
        admin.lifecycle.apply(Arc::clone(&catalog)).await;
        gateway.install(&catalog);
        tracing::info!(
            routes = catalog.routes.len(),
            instances = catalog.instances.len(),
            errors = catalog.errors.len(),
            "routes are in effect"
        );
        admin.catalog.store(catalog);
    }
}
