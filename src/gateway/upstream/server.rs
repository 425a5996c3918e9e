//! One process that answers requests: an upstream, or one of the workers that a
//! deployment has at present.
//!
//! A [`Server`] holds the connections to it, what it is told beside, and what is
//! known of its health and load. A deployment's servers are its [`Fleet`], which
//! follows the workers of the snapshot; a worker that left it has its idle
//! connections closed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::balance::{Candidate, Pick, Turns, hash};
use super::credentials::{Credentials, bearer, is_more};
use super::due::Lookout;
use super::figures::Figures;
use super::health::Health;
use super::pool::Pool;
use crate::config::Upstream;
use crate::deployment::{Handle, Permit, Snapshot, Worker};
use crate::gateway::limits::slots::Slots;
use crate::names::{DeploymentId, Generation};
use crate::telemetry::metrics::ServerMetrics;
use crate::time::Clock;
use crate::vllm::figures::EngineLoad;

/// Idle time of connections to our own workers, which are started with a far
/// longer keep-alive.
const WORKER_IDLE: Duration = Duration::from_mins(1);

/// One process that answers.
#[derive(Debug)]
pub struct Server {
    /// Its address; behind that of a worker, its number.
    pub label: Arc<str>,
    /// Its connections.
    pub pool: Arc<Pool>,
    /// Health of the server: what speaks against it.
    pub health: Arc<Health>,
    /// Figures of its own load.
    pub figures: Arc<Figures>,
    /// Questions that it is asked, and when.
    pub lookout: Lookout,
    kind: Kind,
    seed: u64,
}

#[derive(Debug)]
enum Kind {
    /// Someone else runs it.
    External {
        told: Arc<Credentials>,
        /// True if it is told more than a bearer token.
        is_told_more: bool,
        /// Its places, where it has a limit of its own.
        slots: Option<Arc<Slots>>,
    },
    /// A worker of ours.
    Worker(Arc<Worker>, HeaderValue),
}

/// Parts of an external server that outlive a reload.
#[derive(Clone, Debug)]
pub struct Lasting {
    /// Its connections.
    pub pool: Arc<Pool>,
    /// Health of the server: what speaks against it.
    pub health: Arc<Health>,
    /// Figures of its own load.
    pub figures: Arc<Figures>,
    /// Headers that it is told.
    pub told: Arc<Credentials>,
    /// Its places.
    pub slots: Arc<Slots>,
}

impl Server {
    /// A server that someone else runs.
    pub fn external(
        label: Arc<str>,
        lasting: Lasting,
        upstream: &Upstream,
        lookout: Lookout,
    ) -> Arc<Self> {
        let slots = upstream.max_concurrent_requests.map(|_| lasting.slots);
        Arc::new(Self {
            seed: hash(&label),
            label,
            pool: lasting.pool,
            health: lasting.health,
            figures: lasting.figures,
            lookout,
            kind: Kind::External {
                told: lasting.told,
                is_told_more: is_more(upstream),
                slots,
            },
        })
    }

    fn of(worker: &Arc<Worker>, id: &DeploymentId, clock: Clock, lookout: Lookout) -> Arc<Self> {
        let label: Arc<str> = Arc::from(format!("{id}#{}", worker.generation));
        let metrics = ServerMetrics::of_deployment(id.as_str());
        Arc::new(Self {
            seed: hash(worker.address.to_string()),
            pool: Pool::new(worker.address.clone(), None, WORKER_IDLE),
            health: Health::new(clock, Arc::clone(&label), metrics),
            figures: Arc::new(Figures::new(clock)),
            lookout,
            kind: Kind::Worker(Arc::clone(worker), bearer(&worker.api_key)),
            label,
        })
    }

    /// The `Authorization` that it wants; `None` too where that is among
    /// [`Self::headers`].
    pub fn authorization(&self) -> Option<HeaderValue> {
        match &self.kind {
            Kind::External { told, .. } => told.bearer(),
            Kind::Worker(_, authorization) => Some(authorization.clone()),
        }
    }

    /// Headers that it is told, in place of the client's; `None` where they are no more
    /// than [`Self::authorization`].
    pub fn headers(&self) -> Option<Arc<Vec<(HeaderName, HeaderValue)>>> {
        match &self.kind {
            Kind::External {
                told,
                is_told_more: true,
                ..
            } => Some(told.headers()),
            Kind::External { .. } | Kind::Worker(..) => None,
        }
    }

    /// Puts what it is told beside into the head of a question of ours.
    pub fn tell(&self, head: &mut HeaderMap) {
        let bearer = self.authorization().map(|value| (AUTHORIZATION, value));
        head.extend(bearer);
        for (name, value) in self.headers().iter().flat_map(|all| all.iter()) {
            head.insert(name, value.clone());
        }
    }

    /// Its places, where it has a limit of its own.
    pub fn slots(&self) -> Option<&Arc<Slots>> {
        match &self.kind {
            Kind::External { slots, .. } => slots.as_ref(),
            Kind::Worker(..) => None,
        }
    }

    /// Headers that it is told, where they can change.
    pub fn told(&self) -> Option<&Arc<Credentials>> {
        match &self.kind {
            Kind::External { told, .. } => Some(told),
            Kind::Worker(..) => None,
        }
    }

    fn worker(&self) -> Option<&Worker> {
        match &self.kind {
            Kind::External { .. } => None,
            Kind::Worker(worker, _) => Some(worker),
        }
    }

    /// Requests of ours that it has.
    pub fn in_flight(&self) -> u32 {
        match self.worker() {
            Some(worker) => worker.gate.in_flight(),
            None => self.pool.active(),
        }
    }

    fn is(&self, worker: &Worker) -> bool {
        self.worker()
            .is_some_and(|own| Arc::ptr_eq(&own.gate, &worker.gate))
    }

    /// Generation of the worker; `None` of a server that is no worker.
    pub fn generation(&self) -> Option<Generation> {
        self.worker().map(|worker| worker.generation)
    }

    /// Resolves once it serves no more, as far as its deployment knows.
    pub async fn ended(&self, deployment: &Handle) {
        let serves = |worker: &Arc<Worker>| self.is(worker) && worker.gate.is_open();
        loop {
            let news = deployment.news();
            if !deployment.snapshot().workers.iter().any(serves) {
                return;
            }
            news.await;
        }
    }

    /// Enters it; `None` when its gate is closed, or it has none.
    pub fn enter(&self) -> Option<Permit> {
        self.worker()?.gate.enter()
    }

    /// The same if it has fewer than `max` requests.
    fn enter_below(&self, max: u32) -> Option<Permit> {
        self.worker()?.gate.enter_below(max)
    }
}

impl Candidate for Arc<Server> {
    fn tier(&self) -> u8 {
        let has_place = || self.slots().is_none_or(|slots| slots.has_free());
        match self.health.is_usable() {
            true if has_place() => 0,
            true => 1,
            false => 2,
        }
    }

    fn load(&self) -> u64 {
        let look = self.figures.now().unwrap_or_default();
        look.load(self.in_flight())
    }

    fn requests(&self) -> u32 {
        let EngineLoad { waiting, .. } = self.figures.now().unwrap_or_default();
        self.in_flight().saturating_add(waiting)
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}

/// Of a worker that takes any number of requests.
const NO_LIMIT: u32 = u32::MAX;

/// The servers of one deployment.
#[derive(Debug)]
pub struct Fleet {
    id: DeploymentId,
    clock: Clock,
    /// In the order of the snapshot's workers.
    servers: ArcSwap<Vec<Arc<Server>>>,
    /// Held while `servers` is replaced, never over an await.
    change: Mutex<()>,
    /// Requests that one worker takes at once; [`NO_LIMIT`] for any number.
    each_max: AtomicU32,
    turns: Turns,
}

impl Fleet {
    /// Without a worker.
    pub fn new(id: DeploymentId, clock: Clock) -> Self {
        Self {
            id,
            clock,
            servers: ArcSwap::default(),
            change: Mutex::default(),
            each_max: AtomicU32::new(NO_LIMIT),
            turns: Turns::default(),
        }
    }

    /// Sets how many requests one worker takes at once; `None` for any number.
    pub fn set_each_max(&self, max: Option<u32>) {
        self.each_max
            .store(max.unwrap_or(NO_LIMIT), Ordering::Relaxed);
    }

    /// True if a worker takes only so many requests at once.
    pub fn is_limited(&self) -> bool {
        self.each_max.load(Ordering::Relaxed) != NO_LIMIT
    }

    /// Places of all workers together, where `total` is the deployment's own limit.
    /// Without a worker as many as the one has that will be started first.
    pub fn places(&self, total: Option<u32>, snapshot: &Snapshot) -> Option<u32> {
        let each = match self.each_max.load(Ordering::Relaxed) {
            NO_LIMIT => return total,
            each => each,
        };
        let open = snapshot.workers.iter().filter(|w| w.gate.is_open());
        let workers = u32::try_from(open.count()).unwrap_or(u32::MAX).max(1);
        Some(each.saturating_mul(workers).min(total.unwrap_or(u32::MAX)))
    }

    /// Enters the worker that is to take a request; `None` when none is left that is
    /// not `tried` and whose gate is open.
    pub fn enter(
        &self,
        snapshot: &Snapshot,
        pick: Pick<'_>,
        tried: &[Arc<Server>],
    ) -> Option<(Arc<Server>, Permit)> {
        let servers = self.follow(snapshot);
        if let ([only], []) = (servers.as_slice(), tried) {
            return Some((Arc::clone(only), only.enter()?));
        }
        let max = self.each_max.load(Ordering::Relaxed);
        let entered = self.enter_one(&servers, pick, tried, max);
        // The caller already holds a slot of the deployment, so a worker is full only
        // while another one leaves: its limit is then exceeded rather than the request
        // refused.
        match entered {
            None if max != NO_LIMIT => self.enter_one(&servers, pick, tried, NO_LIMIT),
            entered => entered,
        }
    }

    /// Enters one that has fewer than `max` requests.
    fn enter_one(
        &self,
        servers: &[Arc<Server>],
        pick: Pick<'_>,
        tried: &[Arc<Server>],
        max: u32,
    ) -> Option<(Arc<Server>, Permit)> {
        let mut left_out = tried.to_vec();
        // Each turn leaves one more out.
        loop {
            let one = pick.among(servers, &self.turns, |one| is_among(one, &left_out))?;
            match one.enter_below(max) {
                Some(permit) => return Some((Arc::clone(one), permit)),
                None => left_out.push(Arc::clone(one)),
            }
        }
    }

    /// The servers of the workers that there are now.
    pub fn follow(&self, snapshot: &Snapshot) -> Arc<Vec<Arc<Server>>> {
        let known = self.servers.load();
        if is_same(&known, &snapshot.workers) {
            return Arc::clone(&known);
        }
        drop(known);
        let _held = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.servers.load_full();
        if is_same(&before, &snapshot.workers) {
            return before;
        }
        let server_of = |worker: &Arc<Worker>| {
            let known = before.iter().find(|server| server.is(worker));
            let new = || Server::of(worker, &self.id, self.clock, Lookout::of_worker());
            known.map_or_else(new, Arc::clone)
        };
        let now: Arc<Vec<_>> = Arc::new(snapshot.workers.iter().map(server_of).collect());
        for gone in before.iter().filter(|old| !is_among(old, &now)) {
            gone.pool.close_idle();
        }
        self.servers.store(Arc::clone(&now));
        now
    }
}

/// True if `server` is one of `others`.
pub fn is_among(server: &Arc<Server>, others: &[Arc<Server>]) -> bool {
    others.iter().any(|other| Arc::ptr_eq(server, other))
}

fn is_same(servers: &[Arc<Server>], workers: &[Arc<Worker>]) -> bool {
    servers.len() == workers.len() && servers.iter().zip(workers).all(|(s, w)| s.is(w))
}

#[cfg(test)]
mod tests;
