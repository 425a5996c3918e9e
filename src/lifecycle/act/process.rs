//! Workers as processes of this machine.
//!
//! Each worker leads a session of its own, below a keeper that writes its log and
//! is the parent of all that it started: it outlives this process, and is ended
//! with all of that. The journal names each worker, so the next process finds it.
//! `Exited` means that nothing of it is left.
//!
//! A pid is never trusted alone: a process is signalled through a pidfd that was
//! opened before its identity was checked.

mod cgroup;
mod environment;
pub mod exec;
mod fetch;
pub mod keep;
mod keeper;
mod launch;
mod log;
pub mod peer;
mod places;
pub(crate) mod proc;
mod reaper;
mod remains;
mod shared;
mod walls;
mod worker;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;

use super::command::{Engine, Engines};
use super::launcher::{
    Boxed, Exit, FetchFailure, LaunchError, Launched, Launcher, ListError, Nonce, Order,
    ProcessOwner, WorkerActivity,
};
use crate::config::{self, Catalog, OffloadTo, Sandbox, SandboxMode};
use crate::deployment::Handle;
use crate::gpu::Inventory;
use crate::models::pace::FetchProgress;
use crate::models::shared::Fetches;
use crate::names::DeploymentId;
use crate::proc::Stat;
use crate::store::workers::{self, Journal, JournalError};
use crate::tasks::Tasks;
use crate::vllm::fit::Fit;
use crate::vllm::installation::InstallationError;
use cgroup::Groups;
use places::Places;
use worker::Worker;

/// Tries for the lock of the state directory, and the pause between two.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Reason why workers can't be run here.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The directories can't be used.
    #[error("could not prepare {path} for workers")]
    Io {
        /// The state directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Two would reap each other's workers.
    #[error("another tidegate runs with the state directory {0}: stop it, or set gateway.state")]
    Busy(PathBuf),
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A limit that would not hold.
    #[error(
        "workers.memory_max is set, but memory can't be limited here ({0}): run tidegate in a unit as `tidegate unit` prints it, with systemd 254 or newer, or take memory_max out"
    )]
    NoLimit(String),
}

/// Limits of workers: how they are kept together, and what each may take and reach.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// True if each worker gets a control group, where that is allowed.
    pub cgroups: bool,
    /// Main memory of each, in bytes; `None` for no limit.
    pub memory_max: Option<u64>,
    /// Share of our environment and files that workers get.
    pub sandbox: Sandbox,
    /// Files and directories that are ours alone.
    pub private: Vec<PathBuf>,
}

/// Protection of what is the gateway's own from workers, in words: `Ok` where the kernel
/// gives it, `Err` where nothing does.
///
/// # Errors
///
/// Words for what a worker can reach, and what to do about it.
pub fn isolation(sandbox: &Sandbox) -> Result<&'static str, &'static str> {
    match (sandbox.mode, walls::are_possible(), walls::close_sockets()) {
        (SandboxMode::Off, ..) => Err(
            "workers can read the keys, the state and the route files of this gateway: workers.sandbox is \"off\"",
        ),
        (_, false, _) => Err(
            "workers can read the keys, the state and the route files of this gateway: this kernel has no Landlock; boot it with landlock in lsm=…",
        ),
        (_, true, false) => Ok(
            "workers can't read this gateway's settings, keys, state and route files (Landlock); they share caches, and to keep them from each other's sockets takes Linux 7.1",
        ),
        (_, true, true) => Ok(
            "workers can't read this gateway's settings, keys, state and route files, nor reach each other's sockets (Landlock); they share caches",
        ),
    }
}

/// Parts that the launcher is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory.
    pub state: PathBuf,
    /// Our own executable, which runs `worker-exec`. `/proc/self/exe` stays
    /// right when the file is replaced.
    pub own: PathBuf,
    /// Sources of engines.
    pub engines: Engines,
    /// Size at which a log is rotated, in bytes.
    pub log_bytes_max: u64,
    /// Names of the devices.
    pub gpus: Inventory,
    /// Limits of workers.
    pub bounds: Bounds,
    /// Runs the tails of logs.
    pub tasks: Tasks,
    /// Brings models here before their workers start; `None`: their engines do.
    pub fetches: Option<Arc<Fetches>>,
}

/// Runs workers on this machine.
#[derive(Clone, Debug)]
pub struct ProcessLauncher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    places: Places,
    /// Place for the workers' control groups, if they get some.
    groups: Option<Groups>,
    journal: Journal,
    followers: log::Followers,
    /// Identity of our state directory: a copy of it has another.
    identity: String,
    boot_id: String,
    /// Held for a look or a change, never over an await.
    workers: Mutex<HashMap<Nonce, Arc<Worker>>>,
    /// Locked as long as we live, so no second one uses the directory.
    lock: File,
}

impl ProcessLauncher {
    /// Prepares the directories and takes the state directory for itself.
    ///
    /// # Errors
    ///
    /// [`ProcessError`].
    pub fn open(options: Options) -> Result<Self, ProcessError> {
        let wrong = |source| ProcessError::Io {
            path: options.state.clone(),
            source,
        };
        let places = Places::below(&options.state).map_err(wrong)?;
        let lock = File::create(places.journal.join("lock")).map_err(wrong)?;
        if !locked(&lock) {
            return Err(ProcessError::Busy(options.state.clone()));
        }
        // What a keeper has becomes ours when the keeper dies, so that we can reap
        // it. Keepers do the same with what the engine starts.
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!(%error,
                "this kernel does not let us look after orphans: what a worker starts in the background may outlive it, and hold GPU memory");
        }
        let groups = groups(&options, &places)?;
        let journal = Journal::open(places.journal.clone())?;
        let inner = Arc::new(Inner {
            followers: log::Followers::start().map_err(wrong)?,
            identity: workers::identity(&options.state).map_err(wrong)?,
            places,
            groups,
            journal,
            boot_id: proc::boot_id(),
            workers: Mutex::default(),
            lock,
            options,
        });
        let reaped = reaper::run(Arc::downgrade(&inner));
        inner.options.tasks.spawn_until_end("reaper", reaped);
        Ok(Self { inner })
    }
}

/// Place for the workers' control groups; `None` where they get none.
fn groups(options: &Options, places: &Places) -> Result<Option<Groups>, ProcessError> {
    if !options.bounds.cgroups {
        return Ok(None);
    }
    let groups = Groups::prepare(&places.tag());
    let limited = options.bounds.memory_max.is_some();
    match groups {
        Ok(groups) if limited && !groups.limits_memory() => Err(ProcessError::NoLimit(
            "its group has no memory controller".to_owned(),
        )),
        Ok(groups) => Ok(Some(groups)),
        Err(why) if limited => Err(ProcessError::NoLimit(why)),
        Err(why) => {
            tracing::info!("workers get no control groups of their own: {why}");
            Ok(None)
        }
    }
}

/// Takes the lock. A process that just ended may seem to hold it for a moment
/// longer, while a child of its own has not begun to run its program.
fn locked(lock: &File) -> bool {
    (0..LOCK_TRIES).any(|attempt| {
        if attempt > 0 {
            std::thread::sleep(LOCK_PAUSE);
        }
        flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
}

impl Inner {
    fn worker(&self, nonce: &Nonce) -> Option<Arc<Worker>> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.get(nonce).cloned()
    }

    fn keep(&self, nonce: Nonce, worker: Worker) -> Launched {
        let launched = worker.launched();
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.insert(nonce, Arc::new(worker));
        launched
    }

    fn log_of(&self, id: &DeploymentId) -> PathBuf {
        self.places.logs.join(format!("{}.log", id.file_stem()))
    }

    /// Finds or installs the engine of a spec, and tells so on the console.
    async fn engine(
        &self,
        spec: &config::Deployment,
        handle: &Handle,
    ) -> Result<Engine, LaunchError> {
        let tell = |line: &str| handle.console.push(&format!("tidegate: {line}"));
        let engine = self.options.engines.get(spec, &tell).await;
        let engine = engine.map_err(|error| {
            let text = chain(&error);
            tell(&text);
            match error {
                InstallationError::Missing(_)
                | InstallationError::Mismatch { .. }
                | InstallationError::Refused(_)
                | InstallationError::Version(_) => LaunchError::Spec(text),
                InstallationError::Install(_) | InstallationError::Introspect(_) => {
                    LaunchError::Now(text)
                }
            }
        })?;
        if let Engine::Vllm(installation) = &engine {
            installation.doubts.iter().for_each(|doubt| tell(doubt));
        }
        Ok(engine)
    }

    /// Removes the record and the files of a worker of which nothing is left.
    fn forget(&self, nonce: &str) {
        self.places.clean(nonce);
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.remove(&Nonce::recorded(nonce));
        // Under the lock: a note that is being written must not come after it.
        self.journal.remove(nonce);
    }

    /// Writes down what is known of a worker now, unless it was forgotten.
    fn note(&self, nonce: &Nonce) -> Result<(), JournalError> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let record = workers.get(nonce).map(|worker| worker.record());
        record.map_or(Ok(()), |record| self.journal.write(&record))
    }
}

impl Launcher for ProcessLauncher {
    fn release(&self) {
        if let Err(error) = flock(&self.inner.lock, FlockOperation::Unlock) {
            tracing::error!(error = %error, "the lock of the state directory can't be released");
        }
    }

    fn follow(&self, catalog: &Catalog) {
        let engines = &self.inner.options.engines;
        engines.catalog.store(Arc::new(catalog.clone()));
    }

    fn fingerprint(&self, spec: &config::Deployment) -> Arc<str> {
        Arc::from(self.inner.options.engines.fingerprint(spec))
    }

    fn prepare<'a>(
        &'a self,
        spec: &'a config::Deployment,
        handle: &'a Handle,
    ) -> Boxed<'a, Result<(), LaunchError>> {
        Box::pin(async move { self.inner.engine(spec, handle).await.map(drop) })
    }

    fn fetches(&self, spec: &config::Deployment) -> bool {
        self.inner.options.fetches.is_some() && fetch::names_hub(spec)
    }

    fn fetch<'a>(
        &'a self,
        spec: &'a config::Deployment,
        handle: &'a Handle,
        progress: &'a watch::Sender<Option<FetchProgress>>,
    ) -> Boxed<'a, Result<(), FetchFailure>> {
        Box::pin(self.inner.fetch(spec, handle, progress))
    }

    fn foretells(&self, spec: &config::Deployment) -> bool {
        matches!(spec.engine, config::Engine::Vllm(_))
    }

    fn foretell(&self, spec: &config::Deployment) -> Option<Arc<Fit>> {
        let told = self.inner.options.engines.foretell(spec)?;
        told.ok().map(|fitted| fitted.fit)
    }

    fn submit(&self, order: Order) -> Boxed<'_, Result<Launched, LaunchError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let engine = inner.engine(&order.spec, &order.handle).await?;
            let launch = tokio::task::spawn_blocking(move || inner.launch(&order, &engine));
            match launch.await {
                Ok(launched) => launched,
                Err(error) => Err(LaunchError::Now(error.to_string())),
            }
        })
    }

    fn can_record(&self) -> Result<(), String> {
        launch::can_record(&self.inner.places)
    }

    fn list(&self) -> Boxed<'_, Result<Vec<Launched>, ListError>> {
        Box::pin(async {
            let recovered = self.inner.recover().await;
            recovered.map_err(|error| ListError(Box::new(error)))
        })
    }

    fn owners(&self, pids: &[u32]) -> Vec<ProcessOwner> {
        let workers = self.inner.workers.lock();
        let workers: Vec<_> = workers
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        let owner = |pid: &u32| {
            let Some(stat) = Stat::of(*pid) else {
                return ProcessOwner::Unknown;
            };
            let of = workers.iter().find(|worker| worker.owns(*pid, &stat));
            of.map_or(ProcessOwner::Foreign, |worker| {
                let launched = worker.launched();
                ProcessOwner::Worker(launched.deployment, launched.generation)
            })
        };
        pids.iter().map(owner).collect()
    }

    fn activity(&self, nonce: &Nonce) -> Option<WorkerActivity> {
        self.inner.worker(nonce).map(|worker| worker.activity())
    }

    fn settled(&self, nonce: &Nonce) {
        if let Some(worker) = self.inner.worker(nonce)
            && worker.note_shared()
            && let Err(error) = self.inner.note(nonce)
        {
            tracing::debug!(%error, "shared memory of a worker is not noted");
        }
    }

    fn find(&self, nonce: &Nonce) -> Option<Launched> {
        self.inner.worker(nonce).map(|worker| worker.launched())
    }

    fn adopt(&self, nonce: &Nonce, handle: &Arc<Handle>) {
        if let Some(worker) = self.inner.worker(nonce) {
            let (log, handle) = (worker.record().log, Arc::clone(handle));
            let tail = log::Tail::new(log, handle, log::From::LastLines);
            worker.follow(tail, &self.inner.followers);
        }
    }

    fn stop(&self, nonce: &Nonce) {
        if let Some(worker) = self.inner.worker(nonce) {
            worker.stop();
        }
    }

    fn kill(&self, nonce: &Nonce) {
        if let Some(worker) = self.inner.worker(nonce) {
            worker.kill();
        }
    }

    fn exited(&self, nonce: &Nonce) -> Boxed<'_, Exit> {
        let (inner, nonce) = (Arc::clone(&self.inner), nonce.clone());
        Box::pin(async move {
            let Some(worker) = inner.worker(&nonce) else {
                return Exit::default();
            };
            let exit = worker.exited().await;
            inner.forget(nonce.as_str());
            exit
        })
    }

    fn note_asleep(&self, nonce: &Nonce, asleep: Option<OffloadTo>) {
        if let Some(worker) = self.inner.worker(nonce) {
            worker.set_asleep(asleep);
            if let Err(error) = self.inner.note(nonce) {
                // The next process then finds it asleep unawares, and reaps it.
                tracing::warn!(%error, "could not note that a worker sleeps");
            }
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
