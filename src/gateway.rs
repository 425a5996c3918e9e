//! Data plane: one request from its head to its last byte.
//!
//! [`listener`] accepts, with the layers in [`client`]; [`service::handle`] is the story of
//! a request, one folder per step: [`request`] (entry, authorize, receive), [`route`],
//! [`limits`] (quota, rate), [`admission`], [`forward`] with [`upstream`], [`answer`]. Any
//! refusal becomes a response in [`refusal`]; however a request ends, its [`record`] is
//! written once.
//!
//! No step runs in a task of its own: the future of the service and then the
//! body of the response own all that the request holds, and dropping them is the
//! cancellation.

pub mod admission;
pub mod answer;
pub mod client;
pub mod forward;
pub mod head;
#[cfg(test)]
mod idle;
pub mod limits;
pub mod listener;
pub mod loading;
pub mod lookout;
pub mod memory;
pub mod models;
pub mod realtime;
pub mod record;
pub mod refusal;
pub mod request;
pub mod retrieve;
pub mod retry;
pub mod route;
pub mod service;
pub mod upstream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;

use crate::auth::{Principal, Verifier};
use crate::config::{Catalog, Settings};
use crate::deployment::Registry;
use crate::tasks::Tasks;
use crate::telemetry::access::AccessLog;
use crate::telemetry::host::own_memory;
use crate::telemetry::metrics::RequestMetrics;
use crate::telemetry::traces::Traces;
use crate::telemetry::usage::Ledger;
use admission::concurrency::{Concurrency, Seating};
use client::places::Places;
use limits::slots::Seats;
use memory::Memory;
use record::Sink;
use record::ids::RequestIds;
use refusal::Refusal;
use route::stored::Stored;
use route::table::kept::Kept;
use route::table::{Backend, Table};
use upstream::servers::UpstreamView;

/// Size taken for our memory where neither the machine nor a control group says.
const MEMORY_UNKNOWN: u64 = 1 << 30;

/// State that all requests share.
#[derive(Debug)]
pub struct Gateway {
    settings: Arc<Settings>,
    verifier: Arc<Verifier>,
    registry: Registry,
    /// Swapped whole by [`Self::install`]; a request keeps the one it began with.
    table: ArcSwap<Table>,
    kept: Kept,
    concurrency: Concurrency,
    /// Requests by token whose media's hosts are looked up.
    look_ups: Arc<Seats<Arc<str>>>,
    memory: Arc<Memory>,
    places: Arc<Places>,
    /// Header that tells clients of HTTP/1.1 how long we keep their connection.
    keep_alive: HeaderValue,
    sink: Sink,
    /// Copies of requests for mirrors, which end with the process.
    copies: Tasks,
    stored: Arc<Stored>,
    ids: RequestIds,
    ready: AtomicBool,
    /// Reason for which something is not durable.
    degraded: ArcSwapOption<Arc<str>>,
    /// Set once, when another gateway has taken over our listeners.
    taken_over: AtomicBool,
}

impl Gateway {
    /// A gateway without routes that is not ready yet.
    pub fn new(
        settings: Arc<Settings>,
        verifier: Arc<Verifier>,
        registry: Registry,
        log: AccessLog,
    ) -> Arc<Self> {
        Self::traced(settings, verifier, registry, log, None)
    }

    /// The same, with its traces told to a collector.
    pub fn traced(
        settings: Arc<Settings>,
        verifier: Arc<Verifier>,
        registry: Registry,
        log: AccessLog,
        traces: Option<Traces>,
    ) -> Arc<Self> {
        let memory = Memory::new(&settings.gateway, own_memory().unwrap_or(MEMORY_UNKNOWN));
        let places = Places::new(settings.gateway.connections, Arc::clone(&memory));
        let seconds = settings.gateway.keep_alive.as_secs();
        let keep_alive = HeaderValue::from_str(&format!("timeout={seconds}"));
        Arc::new(Self {
            memory,
            places,
            keep_alive: keep_alive.unwrap_or(HeaderValue::from_static("timeout=1")),
            settings,
            verifier,
            registry,
            table: ArcSwap::default(),
            kept: Kept::default(),
            concurrency: Concurrency::default(),
            look_ups: Seats::new(),
            sink: Sink {
                log,
                unrouted: RequestMetrics::new("-", "-"),
                ledger: Arc::new(Ledger::new()),
                traces,
            },
            copies: Tasks::new(),
            stored: Arc::default(),
            ids: RequestIds::new(),
            ready: AtomicBool::new(false),
            degraded: ArcSwapOption::empty(),
            taken_over: AtomicBool::new(false),
        })
    }

    /// Takes a catalog into effect. Its deployments must be in the registry.
    pub fn install(&self, catalog: &Catalog) {
        let table = self.kept.compile(catalog, &self.registry);
        self.table.store(Arc::new(table));
    }

    /// Sets what is not durable, which `/readyz` says: requests are served rightly, so
    /// it is no reason to send them elsewhere.
    pub fn set_degraded(&self, why: Option<Arc<str>>) {
        self.degraded.store(why.map(Arc::new));
    }

    /// Answer of `/readyz` while we are ready.
    pub fn ready_text(&self) -> String {
        match &*self.degraded.load() {
            None => "ready\n".to_owned(),
            Some(why) => format!("ready, but not durable: {why}\n"),
        }
    }

    /// Sets what `/readyz` says.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Says that another gateway has taken over: what is open may finish, and
    /// every answer closes its connection.
    pub fn set_taken_over(&self) {
        self.taken_over.store(true, Ordering::Release);
    }

    fn is_taken_over(&self) -> bool {
        self.taken_over.load(Ordering::Acquire)
    }

    /// Use by each token since it was last taken from here to the store.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.sink.ledger
    }

    /// True if an answer of HTTP/1.1 closes its connection: the gateway that took over, or this
    /// one once it has more memory, serves the next.
    fn closes_connections(&self) -> bool {
        self.is_taken_over() || self.memory.is_short()
    }

    /// Counts a request for its token and its workspace.
    fn seat(&self, principal: &Principal) -> Result<Seating, Refusal> {
        let workspace_max = self.settings.workspace_max(&principal.workspace);
        self.concurrency.seat(principal, workspace_max)
    }

    /// True while it accepts work.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Log in which each request leaves its line.
    pub fn access_log(&self) -> &AccessLog {
        &self.sink.log
    }

    /// Number of connections of clients.
    pub fn connections(&self) -> usize {
        self.places.count()
    }

    /// The account of what is held for clients.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// State of the servers of every route, by route.
    pub fn upstreams(&self) -> Vec<UpstreamView> {
        let table = self.table.load_full();
        let mut views = Vec::new();
        for (route, targets) in table.by_route() {
            for target in targets {
                let deployment = match &target.backend {
                    Backend::External(_) => None,
                    Backend::Deployment { handle, .. } => Some(handle.id.as_str()),
                };
                let view = |s: &Arc<_>| UpstreamView::of(route.name.as_str(), deployment, s);
                views.extend(target.servers().iter().map(view));
            }
        }
        views
    }

    /// In which order the targets of a name's list would be asked now, in words; nothing
    /// where it leads to none.
    pub fn choice(&self, name: &str) -> Vec<String> {
        let found = self.table.load().by_model(name);
        let list = found.as_ref().and_then(|found| found.list.as_ref());
        list.map(|list| list.words()).unwrap_or_default()
    }

    /// Closes upstream connections that were idle for too long.
    pub fn sweep(&self) {
        self.table.load().sweep();
    }
}
