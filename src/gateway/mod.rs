//! Data plane: one request from its head to its last byte.
//!
//! [`listener`] accepts; [`service::handle`] is the story of a request, one file
//! per step: [`entry`], [`authorize`], [`receive`], [`router`], [`quota`] (with
//! [`rate`]), [`admit`] (with [`limits`] and [`balance`]), [`forward`] (with [`server`] and [`pool`]),
//! [`respond`], [`meter`]. Any refusal becomes a response in [`error`]; however a request
//! ends, its [`record`] is written once.
//!
//! No step runs in a task of its own: the future of the service and then the
//! body of the response own all that the request holds, and dropping them is the
//! cancellation.

pub mod admit;
pub mod ahead;
pub mod authorize;
pub mod balance;
pub mod body;
pub mod cors;
pub mod decode;
pub mod entry;
pub mod error;
pub mod estimate;
pub mod fault;
pub mod figures;
pub mod forward;
pub mod frames;
pub mod framing;
pub mod head;
pub mod headers;
pub mod health;
pub mod held;
pub mod holding;
pub mod host;
pub mod inflow;
pub mod limits;
pub mod lines;
pub mod linger;
pub mod listener;
pub mod lookout;
pub mod memory;
pub mod meter;
pub mod models;
pub mod onward;
pub mod patience;
pub mod peer;
pub mod places;
pub mod pool;
pub mod proxied;
pub mod quota;
pub mod rate;
pub mod realtime;
pub mod receive;
pub mod record;
pub mod respond;
pub mod retrieve;
pub mod retry;
pub mod rewind;
pub mod router;
pub mod server;
pub mod servers;
pub mod service;
pub mod sketch;
pub mod socket;
mod spans;
pub mod stall;
pub mod stored;
mod through;
pub mod tls;
pub mod trace;
mod wire;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;

use crate::auth::{Principal, Verifier};
use crate::config::{Catalog, Settings};
use crate::deployment::Registry;
use crate::telemetry::access::AccessLog;
use crate::telemetry::line::push_hex;
use crate::telemetry::metrics::RequestMetrics;
use crate::telemetry::traces::Traces;
use crate::telemetry::usage::Ledger;
use admit::{Crowd, Seating};
use error::Refusal;
use memory::Memory;
use places::Places;
use record::Sink;
use router::{Backend, Kept, Table};
use servers::UpstreamView;
use stored::Stored;

/// What every request shares.
#[derive(Debug)]
pub struct Gateway {
    settings: Arc<Settings>,
    verifier: Arc<Verifier>,
    registry: Registry,
    /// Swapped whole by [`Self::install`]; a request keeps the one it began with.
    table: ArcSwap<Table>,
    kept: Kept,
    crowd: Crowd,
    memory: Arc<Memory>,
    places: Arc<Places>,
    /// What clients of HTTP/1.1 are told of how long we keep their connection.
    keep_alive: HeaderValue,
    sink: Sink,
    stored: Arc<Stored>,
    ids: RequestIds,
    ready: AtomicBool,
    /// Why something is not durable.
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
        let memory = Memory::new(&settings.gateway, memory::machine::memory());
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
            crowd: Crowd::default(),
            sink: Sink {
                log,
                unrouted: RequestMetrics::new("-", "-"),
                ledger: Arc::new(Ledger::new()),
                traces,
            },
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

    /// What `/readyz` answers while we are ready.
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

    /// What each token used since it was last taken from here to the store.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.sink.ledger
    }

    /// Whether an answer of HTTP/1.1 closes its connection: who took over, or whoever has
    /// more memory then, serves the next.
    fn closes_connections(&self) -> bool {
        self.is_taken_over() || self.memory.is_short()
    }

    /// Counts a request for its token and its workspace.
    fn seat(&self, principal: &Principal) -> Result<Seating, Refusal> {
        let workspace_max = self.settings.workspace_max(&principal.workspace);
        self.crowd.seat(principal, workspace_max)
    }

    /// Whether it accepts work.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Where each request leaves its line.
    pub fn access_log(&self) -> &AccessLog {
        &self.sink.log
    }

    /// How many connections of clients there are.
    pub fn connections(&self) -> usize {
        self.places.count()
    }

    /// The account of what is held for clients.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// How the servers of every route stand, by route.
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

    /// Closes upstream connections that were idle for too long.
    pub fn sweep(&self) {
        self.table.load().sweep();
    }
}

/// Ids of requests and traces: unique in this process, and not to be guessed
/// across them.
#[derive(Debug)]
struct RequestIds {
    prefix: u64,
    count: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        Self {
            prefix: RandomState::new().hash_one("tidegate"),
            count: AtomicU64::new(1),
        }
    }

    fn next(&self) -> Arc<str> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let number = u128::from(self.prefix) << 48 | u128::from(count) & 0xffff_ffff_ffff;
        let mut text = Vec::with_capacity(28);
        push_hex(&mut text, number, 28);
        Arc::from(std::str::from_utf8(&text).unwrap_or_default())
    }

    /// A number that looks random and never comes twice in 2^64; not zero.
    fn random(&self) -> u64 {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        // SplitMix64: a bijection, so distinct counts stay distinct.
        let mut z = self
            .prefix
            .wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }
}
