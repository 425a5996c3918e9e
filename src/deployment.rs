//! Meeting point of the two planes.
//!
//! The gateway takes permits at the [`Gate`] and signals demand; the lifecycle
//! conductor, and only it, opens and closes the gate and publishes the
//! [`Snapshot`]. Neither plane knows the other.
//!
//! A request enters two gates: that of its deployment, which is open while any
//! worker serves, and within it that of the worker which it is sent to. The
//! snapshot lists the workers; the gateway spreads requests over those whose
//! gates are open. One that is to end alone is drained at its own gate.

pub mod console;
pub mod crowd;
pub mod gate;
pub mod snapshot;
pub mod telling;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, watch};

use crate::config;
use crate::names::{DeploymentId, Workspace};
use crate::telemetry::history::Recorder;
use crate::time::{Clock, Uptime};
use crate::vllm::about::About;

pub use console::Console;
pub use crowd::{Crowd, Tenant};
pub use gate::{Counts, Gate, Permit};
pub use snapshot::{Refusal, Snapshot, Status, Worker};
pub use telling::{Part, Telling};

/// One deployment, as both planes hold it.
#[derive(Debug)]
pub struct Handle {
    /// Its id.
    pub id: DeploymentId,
    /// Wish of the admin; swapped by the conductor when a file changes.
    spec: ArcSwap<config::Deployment>,
    /// Gate through which requests enter.
    pub gate: Arc<Gate>,
    /// The worker's last lines.
    pub console: Console,
    /// One writer: the conductor.
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Tells of each new snapshot: wakes its waiters in the order in which they came, a watch
    /// does so in any order.
    news: Notify,
    /// True while a demand is on its way to the conductor.
    demanded: AtomicBool,
    /// True while a client's wish to unload it is on its way to the conductor.
    unloads: AtomicBool,
    /// True once it was removed, and nobody answers for it any more. Set once.
    gone: AtomicBool,
    /// At most two messages per deployment are inside, see `demanded` and `unloads`.
    demands: mpsc::UnboundedSender<DeploymentId>,
    /// Telling which client asked, if someone wants to know.
    clients: Arc<OnceLock<mpsc::Sender<ClientAsked>>>,
    waiting: AtomicU32,
    /// Number of requests that wait for a place at one of its workers.
    queued: AtomicU32,
    /// Its further replicas, each with a console of its own; swapped by the
    /// conductor.
    replicas: ArcSwap<Vec<Arc<Handle>>>,
    /// Arrivals of the waiting requests. Locked for a moment, never over an await.
    came: Mutex<Came>,
    /// Until when a client wants it to stay awake, in milliseconds of the gate's clock.
    kept_until: AtomicU64,
    /// Facts that its workers told of their model, since its engine is what it is.
    about: ArcSwap<About>,
}

/// A client that asked a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAsked {
    /// The client, as a number.
    pub client: u64,
    /// The deployment that it asked.
    pub deployment: DeploymentId,
}

/// A client's name as a number, the same for the same name.
fn number_of(client: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    hasher.finish()
}

/// Most requests that wait to be told to a follower of clients; beyond it they are
/// not told.
const ASKED_MAX: usize = 1_024;

/// Arrivals of the requests that wait, by the clock of the gate.
#[derive(Debug, Default)]
struct Came {
    next: u64,
    at: BTreeMap<u64, (Uptime, Option<Tenant>)>,
    sum: Duration,
    /// Number of each workspace, as far as they are told.
    of: BTreeMap<Tenant, u32>,
}

/// Requests that wait at a closed gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Number of them.
    pub count: u32,
    /// Arrival of the first of them.
    pub head: Option<Uptime>,
    /// Time that they have waited, all together.
    pub waited: Duration,
    /// Workspaces that they are of.
    pub crowd: Crowd,
}

impl Handle {
    /// Wish of the admin for it.
    pub fn spec(&self) -> Arc<config::Deployment> {
        self.spec.load_full()
    }

    /// Swaps what the admin wants. For the conductor only.
    pub fn set_spec(&self, spec: Arc<config::Deployment>) {
        let before = self.spec.load_full();
        let is_same = (&before.model, &before.engine) == (&spec.model, &spec.engine);
        self.spec.store(spec);
        if !is_same {
            self.about.store(Arc::default());
        }
    }

    /// Facts that its workers told of their model; nothing before the first was ready.
    pub fn about(&self) -> Arc<About> {
        self.about.load_full()
    }

    /// Adds what a worker of this spec told. What was told of another is dropped.
    pub fn told(&self, of: &config::Deployment, about: &About) {
        let spec = self.spec.load();
        if (&of.model, &of.engine) == (&spec.model, &spec.engine) {
            self.about.rcu(|known| About::clone(known).with(about));
        }
    }

    /// Its present state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Follows how it stands.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Publishes how it stands. For the conductor only.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.send_replace(Arc::new(snapshot));
        self.news.notify_waiters();
    }

    /// Resolves at the next snapshot after this call; who waits longest is woken first.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// True once it was removed: no demand for it is ever met.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Its further replicas, in their order; the first is this one.
    pub fn replicas(&self) -> Arc<Vec<Arc<Self>>> {
        self.replicas.load_full()
    }

    /// Tells the conductor that a request waits at the closed gate. `false`: it has
    /// ended, and no worker is started any more.
    pub fn demand(&self) -> bool {
        if self.demands.is_closed() {
            return false;
        }
        self.demanded.swap(true, Ordering::AcqRel) || self.demands.send(self.id.clone()).is_ok()
    }

    /// Takes the demand signal off. For the conductor, before it acts on it.
    pub fn take_demand(&self) -> bool {
        self.demanded.swap(false, Ordering::AcqRel)
    }

    /// Tells the conductor that a client wants it unloaded; obeyed only where it is not in
    /// use. `false`: it has ended.
    pub fn unload(&self) -> bool {
        if self.demands.is_closed() {
            return false;
        }
        self.unloads.swap(true, Ordering::AcqRel) || self.demands.send(self.id.clone()).is_ok()
    }

    /// Takes the wish to unload it off. For the conductor, before it acts on it.
    pub fn take_unload(&self) -> bool {
        self.unloads.swap(false, Ordering::AcqRel)
    }

    /// True if a request is inside, or waits for it.
    pub fn is_in_use(&self) -> bool {
        self.gate.in_flight() > 0 || self.waiting() > 0 || self.queued() > 0
    }

    /// True if its file keeps it up, whatever its clients want.
    pub fn is_kept(&self) -> bool {
        let spec = self.spec.load();
        spec.keep || spec.replicas.min > 0
    }

    /// Takes in that a client wants it to stay awake for so long from now on. Another's
    /// longer wish stands.
    pub fn keep_for(&self, span: Duration) {
        let until = self.gate.clock().now().saturating_add(span);
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.kept_until.fetch_max(millis, Ordering::AcqRel);
    }

    /// Until when a client wants it to stay awake, by the clock of the gate; zero where none
    /// did.
    pub fn kept_until(&self) -> Uptime {
        Uptime::from_millis(self.kept_until.load(Ordering::Acquire))
    }

    /// Tells that this client's request is done, if someone follows clients.
    pub fn asked_by(&self, client: &str) {
        if let Some(clients) = self.clients.get() {
            // If the queue is full the hint is dropped; only prefetch loses by it.
            drop(clients.try_send(ClientAsked {
                client: number_of(client),
                deployment: self.id.clone(),
            }));
        }
    }

    /// Counts one waiting request, of this workspace, until the guard is dropped.
    pub fn wait(self: &Arc<Self>, of: Option<&Workspace>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let now = self.gate.clock().now();
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let number = came.next;
        came.next += 1;
        let tenant = of.map(|workspace| Tenant::of(workspace.as_str()));
        came.at.insert(number, (now, tenant));
        came.sum += now;
        if let Some(tenant) = tenant {
            *came.of.entry(tenant).or_default() += 1;
        }
        drop(came);
        Waiting {
            handle: Arc::clone(self),
            number,
        }
    }

    /// Requests that wait at the closed gate, and the time that they have waited.
    pub fn held(&self) -> Held {
        if self.waiting() == 0 {
            return Held::default();
        }
        let now = self.gate.clock().now();
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let count = u32::try_from(came.at.len()).unwrap_or(u32::MAX);
        let mut crowd = Crowd::default();
        for (tenant, count) in &came.of {
            crowd.add(*tenant, *count);
        }
        Held {
            count,
            head: came.at.values().next().map(|(at, _)| *at),
            waited: (now * count).saturating_sub(came.sum),
            crowd,
        }
    }

    /// Number of requests that wait at the closed gate.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Acquire)
    }

    /// Counts one request that waits for a place at a worker, until the guard is
    /// dropped. Another worker would have one: the conductor counts them as load.
    pub fn queue(self: &Arc<Self>) -> Queued {
        self.queued.fetch_add(1, Ordering::AcqRel);
        Queued(Arc::clone(self))
    }

    /// Number of requests that wait for a place at a worker.
    pub fn queued(&self) -> u32 {
        self.queued.load(Ordering::Acquire)
    }

    /// State for people: the snapshot's status, with `Active` for a ready
    /// worker that has a request inside.
    pub fn status(&self) -> Status {
        match self.snapshot.borrow().status {
            Status::Idle if self.gate.in_flight() > 0 => Status::Active,
            status => status,
        }
    }
}

/// A request that waits at a closed gate.
#[derive(Debug)]
pub struct Waiting {
    handle: Arc<Handle>,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let came = &self.handle.came;
        let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = came.at.remove(&self.number);
        if let Some((at, _)) = gone {
            came.sum = came.sum.saturating_sub(at);
        }
        if let Some(tenant) = gone.and_then(|(_, tenant)| tenant)
            && let Some(count) = came.of.get_mut(&tenant)
        {
            *count -= 1;
            if *count == 0 {
                came.of.remove(&tenant);
            }
        }
        drop(came);
        self.handle.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request that waits for a place at a worker.
#[derive(Debug)]
pub struct Queued(Arc<Handle>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

/// GPU memory that a deployment holds, by our own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryHolding {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The GPU, by index.
    pub gpu: u32,
    /// Bytes of it.
    pub bytes: u64,
}

/// Every deployment that there is. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The clock of every gate.
    pub clock: Clock,
    /// Recorder by which both planes tell the history.
    pub recorder: Arc<Recorder>,
    /// Memory that deployments hold of the GPUs; swapped whole by the conductor.
    holdings: Arc<ArcSwap<Vec<MemoryHolding>>>,
    map: Arc<ArcSwap<HashMap<DeploymentId, Arc<Handle>>>>,
    demands: mpsc::UnboundedSender<DeploymentId>,
    clients: Arc<OnceLock<mpsc::Sender<ClientAsked>>>,
}

/// The conductor's end of the demand signals.
pub type Demands = mpsc::UnboundedReceiver<DeploymentId>;

impl Registry {
    /// An empty registry, and the receiver of its demand signals.
    pub fn new(clock: Clock) -> (Self, Demands) {
        let (demands, receiver) = mpsc::unbounded_channel();
        let registry = Self {
            clock,
            recorder: Arc::new(Recorder::new(clock)),
            holdings: Arc::default(),
            map: Arc::default(),
            demands,
            clients: Arc::default(),
        };
        (registry, receiver)
    }

    /// Memory that deployments hold of the GPUs.
    pub fn holdings(&self) -> Arc<Vec<MemoryHolding>> {
        self.holdings.load_full()
    }

    /// Publishes who holds what of the GPUs. For the conductor only.
    pub fn set_holdings(&self, holdings: Vec<MemoryHolding>) {
        if **self.holdings.load() != holdings {
            self.holdings.store(Arc::new(holdings));
        }
    }

    /// The deployment with this id.
    pub fn get(&self, id: &DeploymentId) -> Option<Arc<Handle>> {
        self.map.load().get(id).cloned()
    }

    /// The deployment of an id, which may be that of one of its replicas.
    pub fn lead(&self, id: &DeploymentId) -> Option<Arc<Handle>> {
        let map = self.map.load();
        let direct = map.get(id).cloned();
        direct.or_else(|| {
            map.values()
                .find(|handle| handle.id.has_replica(id))
                .cloned()
        })
    }

    /// All deployments, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        let mut all: Vec<_> = self.map.load().values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Adds a deployment, stopped. For the conductor only, its single writer.
    pub fn insert(&self, spec: Arc<config::Deployment>) -> Arc<Handle> {
        let handle = self.handle(spec);
        let mut map = HashMap::clone(&self.map.load());
        map.insert(handle.id.clone(), Arc::clone(&handle));
        self.map.store(Arc::new(map));
        handle
    }

    /// Adds a further replica of a deployment, stopped. Requests do not find it
    /// but by its deployment. For the conductor only.
    pub fn insert_replica(&self, of: &Arc<Handle>, spec: Arc<config::Deployment>) -> Arc<Handle> {
        let handle = self.handle(spec);
        let mut replicas = Vec::clone(&of.replicas.load());
        replicas.push(Arc::clone(&handle));
        of.replicas.store(Arc::new(replicas));
        handle
    }

    fn handle(&self, spec: Arc<config::Deployment>) -> Arc<Handle> {
        Arc::new(Handle {
            id: spec.id.clone(),
            gate: Gate::new(self.clock),
            console: Console::default(),
            snapshot: watch::Sender::new(Arc::new(Snapshot::stopped())),
            news: Notify::new(),
            demanded: AtomicBool::new(false),
            unloads: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            kept_until: AtomicU64::new(0),
            demands: self.demands.clone(),
            clients: Arc::clone(&self.clients),
            waiting: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            replicas: ArcSwap::default(),
            came: Mutex::default(),
            about: ArcSwap::default(),
            spec: ArcSwap::new(spec),
        })
    }

    /// Begins to tell which client asked which deployment. `None` where
    /// someone follows already.
    pub fn follow_clients(&self) -> Option<mpsc::Receiver<ClientAsked>> {
        let (told, asked) = mpsc::channel(ASKED_MAX);
        self.clients.set(told).ok().map(|()| asked)
    }

    /// Removes a deployment, or a replica of one. For the conductor only.
    pub fn remove(&self, id: &DeploymentId) {
        let mut map = HashMap::clone(&self.map.load());
        if let Some(handle) = map.remove(id) {
            self.map.store(Arc::new(map));
            // A request that found it before may come to its gate only now.
            handle.gone.store(true, Ordering::Release);
            return handle.news.notify_waiters();
        }
        for handle in map.values().filter(|handle| handle.id.has_replica(id)) {
            let mut replicas = Vec::clone(&handle.replicas.load());
            replicas.retain(|replica| replica.id != *id);
            handle.replicas.store(Arc::new(replicas));
        }
    }
}
