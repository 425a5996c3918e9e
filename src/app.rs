//! Composition root: builds all from the settings, starts the tasks, ends them
//! in order.
//!
//! Everything that can fail for want of a file, a port or a right fails here
//! before anything is started, with a sentence that says what to do.

mod certs;
mod control;
mod demo;
mod doors;
mod end;
mod failure;
mod first;
mod handover;
mod health;
mod modes;
mod plots;
mod run;
mod signals;
#[cfg(test)]
mod simulation;
mod sockets;
mod successor;
mod systemd;
mod traces;
mod trim;

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::admin::{self, Admin};
use crate::auth::certs::ensure_server_pair;
use crate::auth::{Keys, Revocations, RevokedSet, Verifier};
use crate::config::keys::render::{route_schema, settings_schema};
use crate::config::{self, Catalog, Current, CurrentWriter, LostStore, Memory, Settings};
use crate::deployment::Registry;
use crate::gateway::Gateway;
use crate::gateway::client::tls::Certificates;
use crate::lifecycle::Conductor;
use crate::lifecycle::act::launcher::Launcher;
use crate::store::history::{self, History};
use crate::store::whole::write_whole;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics;
use crate::time::{Clock, Instant, sleep};
use crate::vllm::installation::VERSION_ASSUMED;

use doors::Doors;
pub use failure::Failure;
pub use first::Welcome;
use handover::Predecessor;
pub use signals::Signals;
use sockets::Sockets;

/// Longest that a gateway before us may still hold its files and ports once it has ended.
const HELD_MAX: Duration = Duration::from_secs(5);
const HELD_PAUSE: Duration = Duration::from_millis(20);

/// The state directory can't be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state directory {path} can't be written: give this user the right to, or set gateway.state to another one"
)]
struct StateError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The access log can't be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "the access log {path} can't be opened: set gateway.access_log to a file that this user may write"
)]
struct AccessLogError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Options that a process was started with.
#[derive(Debug, Default)]
pub struct StartOptions {
    sockets: Sockets,
    take_over: bool,
}

impl StartOptions {
    /// Takes the sockets that systemd passed. To be called once, before anything
    /// is opened. `take_over`: from the gateway that runs with the same state
    /// directory, where one runs.
    pub fn new(take_over: bool) -> Self {
        Self {
            sockets: Sockets::from_systemd(),
            take_over,
        }
    }

    async fn sockets(self, state: &Path) -> Result<(Option<Predecessor>, Sockets), Failure> {
        if !self.take_over {
            return Ok((None, self.sockets));
        }
        let Some((before, passed)) = Predecessor::find(state).await? else {
            tracing::info!("no gateway runs with this state directory: nothing to take over");
            return Ok((None, self.sockets.after_another()));
        };
        tracing::info!(sockets = passed.len(), "taking over");
        Ok((Some(before), Sockets::of(passed)))
    }
}

/// Told when files are to be read again at once.
#[derive(Clone, Debug, Default)]
struct Reloads {
    certificates: Arc<Notify>,
    routes: Arc<Notify>,
}

/// A gateway that has all it needs and serves nothing yet.
#[derive(Debug)]
pub struct App {
    settings: Arc<Settings>,
    gateway: Arc<Gateway>,
    keys: Arc<Keys>,
    admin: Admin,
    tasks: Tasks,
    doors: Doors,
    admin_socket: UnixListener,
    /// Socket that a gateway after us asks on, and the sockets that it gets.
    handover_socket: UnixListener,
    handles: Vec<OwnedFd>,
    /// The gateway that we take over from.
    before: Option<Predecessor>,
    launcher: Arc<dyn Launcher>,
    certificates: Arc<Certificates>,
    metrics: PrometheusHandle,
    watcher: config::watch::Watcher,
    /// Told when certificates or routes are to be read again at once.
    reloads: Reloads,
    current: CurrentWriter,
    welcome: Welcome,
}

impl App {
    /// Gets everything that serving needs. Workers that an earlier process left
    /// are adopted or reaped; no worker is started.
    ///
    /// # Errors
    ///
    /// The first thing that is missing, in words.
    pub async fn build(settings: Settings, start: StartOptions) -> Result<Self, Failure> {
        let settings = Arc::new(settings);
        make_state(&settings.gateway.state)?;
        prepare_files(&settings);
        let made = ensure_server_pair(&settings.tls.certificate, &settings.tls.private_key)?;
        let certificates = Certificates::load(settings.tls.clone())?;
        let (before, mut sockets) = start.sockets(&settings.gateway.state).await?;
        let doors = Doors::open(&settings, &certificates, &mut sockets)?;
        give_way(&settings, before.as_ref()).await?;
        let (store, revocations) = patiently(before.is_some(), || open_store(&settings)).await?;
        let keys = token_keys(&settings, &revocations)?;
        let (verifier, issuer) = (Arc::clone(keys.verifier()), Arc::clone(keys.issuer()));
        let metrics = metrics::install()?;
        let catalog = first::catalog(&settings);
        let watcher = config::watch::Watcher::new(&settings.gateway.routes);
        let (admin_socket, handover_socket) = local_sockets(&settings).await?;

        let demo = demo::token(&settings, &issuer, &verifier, &store)?;
        let tasks = Tasks::new();
        let (registry, demands) = Registry::new(Clock::start());
        let parts = control::parts(&settings, &registry, demands, &tasks)?;
        let (gpus, launcher) = (parts.gpus.clone(), Arc::clone(&parts.launcher));
        let lifecycle = Conductor::start(parts, &catalog).await?;

        let gateway = open_gateway(&settings, &verifier, &registry, &tasks, &catalog)?;
        let ca = first::ca(made, &settings.tls.certificate);
        let mut welcome = Welcome::new(
            &settings,
            &doors.listeners,
            &catalog,
            ca.as_deref(),
            &demo,
            &verifier,
        );
        let history = History::open(&settings.gateway.state, history::BYTES_MAX);
        let (current, catalog) = Current::new(catalog);
        let admin = Admin::new(admin::Parts {
            settings: Arc::clone(&settings),
            lifecycle,
            catalog,
            store,
            keys: Arc::clone(&keys),
            gateway: Arc::clone(&gateway),
            gpus,
            registry,
            history: Arc::new(history),
            fronts: doors.fronts(&settings),
            base_url: doors.admin_url(),
            ca,
        })?;
        welcome.dashboard(admin.url(), admin.first_login());
        Ok(Self {
            settings,
            gateway,
            keys,
            admin,
            tasks,
            doors,
            admin_socket,
            handover_socket,
            handles: sockets.finish(),
            before,
            launcher,
            certificates,
            metrics,
            watcher,
            reloads: Reloads::default(),
            current,
            welcome,
        })
    }

    /// Text for the person who started it.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }
}

/// Mends the modes of our own files, and writes the schemas that editors read.
fn prepare_files(settings: &Settings) {
    for note in modes::mend(settings) {
        tracing::warn!("{note}");
    }
    write_schemas(&settings.gateway.state);
}

/// Lets the gateway before us let go of the state directory, once we have all
/// else that can be had: whatever is wrong is found while it still serves.
async fn give_way(settings: &Settings, before: Option<&Predecessor>) -> Result<(), Failure> {
    if let Some(before) = before {
        token_keys(settings, &Arc::new(Revocations::new(RevokedSet::default())))?;
        before.give_way().await?;
    }
    Ok(())
}

/// Tries again for a while where a process that held it is just ending.
async fn patiently<T>(wait: bool, get: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
    let due = Instant::now() + HELD_MAX;
    loop {
        match get() {
            Err(error) if wait && Instant::now() < due && is_held(error.as_ref()) => {
                sleep(HELD_PAUSE).await;
            }
            got => return got,
        }
    }
}

fn is_held(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    matches!(
        error.downcast_ref::<StoreError>(),
        Some(StoreError::InUse { .. })
    )
}

/// The socket of the command line, and that of a gateway after us.
async fn local_sockets(settings: &Settings) -> Result<(UnixListener, UnixListener), Failure> {
    let handover = handover::socket(&settings.gateway.state);
    Ok((
        admin::socket::bind(&settings.admin.socket).await?,
        admin::socket::bind(&handover).await?,
    ))
}

/// The gateway as it stands before a request came.
fn open_gateway(
    settings: &Arc<Settings>,
    verifier: &Arc<Verifier>,
    registry: &Registry,
    tasks: &Tasks,
    catalog: &Catalog,
) -> Result<Arc<Gateway>, Failure> {
    let log = open_access_log(settings)?;
    let traces = traces::start(&settings.telemetry, tasks)?;
    let (settings, verifier) = (Arc::clone(settings), Arc::clone(verifier));
    let gateway = Gateway::traced(settings, verifier, registry.clone(), log, traces);
    gateway.install(catalog);
    Ok(gateway)
}

/// The store, and what is revoked. Its lock also keeps a second gateway off the
/// directory.
fn open_store(settings: &Settings) -> Result<(Store, Arc<Revocations>), Failure> {
    let opened = Store::open_beside(&settings.gateway.state, &settings.tokens.signing_key)?;
    for note in &opened.notes {
        tracing::error!("{note}");
    }
    let store = opened.store;
    for warning in store.warnings(settings.tokens.lost_store == LostStore::Accept) {
        tracing::warn!("{warning}");
    }
    let revocations = revocations(settings, &store)?;
    Ok((store, revocations))
}

/// True if a gateway of this state directory answers gateways that would take over: it
/// runs, also where its admin socket is gone.
pub fn is_running(state: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(handover::socket(state)).is_ok()
}

/// Revocations by a store, and the clock that they go by.
///
/// # Errors
///
/// The store can't be read.
pub fn revocations(settings: &Settings, store: &Store) -> Result<Arc<Revocations>, StoreError> {
    let set = RevokedSet {
        lost_before: match settings.tokens.lost_store {
            LostStore::Refuse => store.lost_at()?,
            LostStore::Accept => 0,
        },
        ..store.revoked_tokens()?
    };
    Ok(Arc::new(Revocations::by(set, Arc::clone(store.clock()))))
}

fn token_keys(settings: &Settings, revocations: &Arc<Revocations>) -> Result<Arc<Keys>, Failure> {
    let loaded = Keys::load(settings.tokens.key_sources(), Arc::clone(revocations))?;
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    Ok(loaded.keys)
}

fn make_state(path: &Path) -> Result<(), StateError> {
    let failed = |source| StateError {
        path: path.to_owned(),
        source,
    };
    if !path.is_dir() {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
    }
    // Written to, not asked about: root and read-only mounts answer otherwise.
    let probe = path.join(".writable");
    fs::write(&probe, b"").map_err(failed)?;
    fs::remove_file(&probe).map_err(failed)
}

/// Writes the schemas that `#:schema` lines of route files and of `tidegate.toml` name,
/// as this version reads them. Only editors miss them.
fn write_schemas(state: &Path) {
    for (name, schema) in [
        ("route.schema.json", route_schema(VERSION_ASSUMED)),
        ("tidegate.schema.json", settings_schema()),
    ] {
        let path = state.join(name);
        if let Err(error) = write_whole(&path, schema.to_string().as_bytes()) {
            tracing::warn!(%error, "could not write {}", path.display());
        }
    }
}

/// The access log: where the settings say, else standard output, unless a person
/// looks at it. Moved aside by size in the state directory alone.
fn open_access_log(settings: &Settings) -> Result<AccessLog, AccessLogError> {
    use std::io::IsTerminal;
    let (gateway, state) = (&settings.gateway, &settings.gateway.state);
    let path = match &gateway.access_log {
        Some(path) => path.clone(),
        None if io::stdout().is_terminal() => state.join("logs").join("access.log"),
        None => PathBuf::new(),
    };
    // In our own directory no one else would ever make room.
    let rotation = path.starts_with(state).then_some(gateway.access_logs);
    let opened = if path.as_os_str().is_empty() {
        AccessLog::open(None)
    } else {
        AccessLog::rotated(&path, rotation)
    };
    opened.map_err(|source| AccessLogError { path, source })
}

/// Reads routes and instances: again, on top of what is in effect, or for the first
/// time.
fn reload(settings: &Settings, previous: Option<&Catalog>) -> Catalog {
    let (dir, queues) = (&settings.gateway.routes, &settings.queues);
    let file = settings.gateway.state.join(Memory::FILE);
    let (before, catalog) = if let Some(previous) = previous {
        let catalog = config::load_catalog(dir, queues, Some(previous));
        (previous.memory(), catalog)
    } else {
        let memory = Memory::read(&file);
        let catalog = config::load_first(dir, queues, &memory);
        (memory, catalog)
    };
    let catalog = config::without_own(catalog, settings);
    let now = catalog.memory();
    if now != before
        && let Err(error) = write_whole(&file, &now.to_json())
    {
        tracing::warn!(%error, "could not write {}: after a restart, of files that clash none is served", file.display());
    }
    catalog
}
