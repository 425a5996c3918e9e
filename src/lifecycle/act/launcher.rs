//! The seam to a place where workers run.
//!
//! [`Launcher`] is what such a place must offer; [`super::process`] is this
//! machine, cluster engines come behind the same trait. Nothing above it may
//! assume a local pid. A launcher starts, signals and watches; it never restarts
//! a worker and does not judge whether one is ready.

use std::fmt::{self, Write};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{self, Catalog, OffloadTo};
use crate::deployment;
use crate::lifecycle::decide::why::Why;
use crate::models::pace::FetchProgress;
use crate::names::{DeploymentId, Generation};
use crate::outbound::Address;
use crate::vllm::fit::Fit;

/// A future behind a trait object.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Names one worker for ever: 128 random bits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(Arc<str>);

impl Nonce {
    /// A new one.
    pub fn random() -> Self {
        Self(Arc::from(random_hex::<16>()))
    }

    /// One that was written down.
    pub fn recorded(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `N` random bytes in hexadecimal.
#[expect(
    clippy::expect_used,
    reason = "without randomness a worker's key could be guessed"
)]
pub(crate) fn random_hex<const N: usize>() -> String {
    let mut bytes = [0_u8; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source answers");
    hex(&bytes)
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string can't fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// A worker to be launched.
#[derive(Clone, Debug)]
pub struct Order {
    /// Names the worker.
    pub nonce: Nonce,
    /// Deployment of the worker; its console gets the output.
    pub handle: Arc<deployment::Handle>,
    /// Spec to run.
    pub spec: Arc<config::Deployment>,
    /// Generation of the worker in its deployment.
    pub generation: Generation,
    /// The GPUs granted to it, by index; empty on a machine without.
    pub gpus: Arc<[u32]>,
}

/// A worker that was launched.
#[derive(Clone, Debug)]
pub struct Launched {
    /// Its name.
    pub nonce: Nonce,
    /// Deployment of the worker.
    pub deployment: DeploymentId,
    /// Generation of the worker in its deployment.
    pub generation: Generation,
    /// Address at which the worker will listen.
    pub address: Address,
    /// The key that it wants.
    pub api_key: Arc<str>,
    /// Its process id, where that means something on this machine.
    pub pid: Option<u32>,
    /// Digest of what was launched, see [`Launcher::fingerprint`].
    pub fingerprint: Arc<str>,
    /// The GPUs that it was given.
    pub gpus: Arc<[u32]>,
    /// Place of its weights, once it was told to sleep.
    pub asleep: Option<OffloadTo>,
}

/// End of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// In words: `exited with code 1`.
    pub how: String,
    /// True if the kernel counted a kill for want of memory among the worker's processes.
    pub out_of_memory: bool,
}

/// Work of a worker so far; only the difference of two values means anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerActivity {
    /// Processor time of all its processes.
    pub cpu: std::time::Duration,
    /// Bytes that they read and wrote.
    pub bytes: u64,
}

/// Reason why nothing was launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The spec can't be launched; another try would not help.
    #[error("{0}")]
    Spec(String),
    /// It failed now and may do later.
    #[error("could not launch the worker: {0}")]
    Now(String),
    /// Our own files about the worker can't be written now, as on a full disk. Neither
    /// the spec nor the worker is at fault.
    #[error("{0}")]
    State(String),
}

impl LaunchError {
    /// The cause of the event that it becomes.
    pub(super) fn why(self) -> Why {
        match self {
            Self::Spec(words) | Self::State(words) => Why::Fault(words),
            Self::Now(details) => Why::Ended {
                how: "could not launch the worker".to_owned(),
                details: Some(details),
            },
        }
    }
}

/// Reason why the model of a spec is not here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// It can't be brought here; another try would not help.
    #[error("{0}")]
    Never(String),
    /// It failed now and may do later.
    #[error("{0}")]
    Now(String),
}

/// Reason why the left-over workers are not known.
#[derive(Debug, thiserror::Error)]
#[error("could not read who was left over by the last run")]
pub struct ListError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Owner of a process that a device reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessOwner {
    /// A worker of ours.
    Worker(DeploymentId, Generation),
    /// Someone else's.
    Foreign,
    /// Not to be found here: it ended, or its number is of another namespace.
    Unknown,
}

/// A place where workers run.
pub trait Launcher: fmt::Debug + Send + Sync + 'static {
    /// Lets another process of ours run the workers, which go on. Nothing is
    /// launched after this.
    fn release(&self) {}

    /// Digest of what this spec would launch: a worker whose digest differs must
    /// be replaced to follow the spec.
    fn fingerprint(&self, spec: &config::Deployment) -> Arc<str>;

    /// Takes note of what is in effect from now on: what may be launched can depend
    /// on it.
    fn follow(&self, _catalog: &Catalog) {}

    /// Gets what this spec runs, where it is not here yet; what there is to say
    /// goes to the handle's console. Dropping the future ends it, and the next
    /// call goes on from there.
    fn prepare<'a>(
        &'a self,
        spec: &'a config::Deployment,
        handle: &'a deployment::Handle,
    ) -> Boxed<'a, Result<(), LaunchError>>;

    /// True where [`Self::fetch`] may have something to bring for a spec. Looks at
    /// nothing but the spec.
    fn fetches(&self, _spec: &config::Deployment) -> bool {
        false
    }

    /// Brings the model of a spec here, if it is one that its engine would fetch after it
    /// got its GPUs; `progress` hears how far it is. One fetch serves all callers that ask for the
    /// same model. Dropping the future ends it for this caller, and the next call goes on
    /// from there.
    fn fetch<'a>(
        &'a self,
        _spec: &'a config::Deployment,
        _handle: &'a deployment::Handle,
        _progress: &'a watch::Sender<Option<FetchProgress>>,
    ) -> Boxed<'a, Result<(), FetchFailure>> {
        Box::pin(async { Ok(()) })
    }

    /// True where [`Self::foretell`] may know something of a spec. Looks at nothing but the
    /// spec.
    fn foretells(&self, _spec: &config::Deployment) -> bool {
        false
    }

    /// Memory that a worker of a spec will need, by what of its model is here; `None`
    /// where that is not known. Blocks for a look at the disk.
    fn foretell(&self, _spec: &config::Deployment) -> Option<Arc<Fit>> {
        None
    }

    /// Launches a worker of a spec that was prepared. The same nonce never
    /// launches two.
    fn submit(&self, order: Order) -> Boxed<'_, Result<Launched, LaunchError>>;

    /// Checks that the record of a launched worker can be written now; else tells
    /// why not, in words. Blocks.
    ///
    /// # Errors
    ///
    /// As a launch would end with [`LaunchError::State`].
    fn can_record(&self) -> Result<(), String> {
        Ok(())
    }

    /// The workers of an earlier process that still live. What is left of dead
    /// ones is removed before this returns.
    fn list(&self) -> Boxed<'_, Result<Vec<Launched>, ListError>>;

    /// The worker of that name, if it was launched here and lives.
    fn find(&self, nonce: &Nonce) -> Option<Launched>;

    /// Owners of these processes, where workers are processes of this machine.
    /// Blocks for a look at each.
    fn owners(&self, pids: &[u32]) -> Vec<ProcessOwner> {
        vec![ProcessOwner::Unknown; pids.len()]
    }

    /// Work of a worker so far; `None` where that is not known. Blocks for a
    /// look at each of its processes.
    fn activity(&self, _nonce: &Nonce) -> Option<WorkerActivity> {
        None
    }

    /// The worker is ready: what must be known of it after its end is noted.
    /// Blocks for a look at each of its processes.
    fn settled(&self, _nonce: &Nonce) {}

    /// Takes a listed worker over: its output goes to this handle's console.
    fn adopt(&self, nonce: &Nonce, handle: &Arc<deployment::Handle>);

    /// Asks a worker to end.
    fn stop(&self, nonce: &Nonce);

    /// Ends a worker, with all that it started.
    fn kill(&self, nonce: &Nonce);

    /// Resolves once nothing of the worker is left.
    fn exited(&self, nonce: &Nonce) -> Boxed<'_, Exit>;

    /// Writes down where the worker's weights are, for the next process.
    fn note_asleep(&self, nonce: &Nonce, asleep: Option<OffloadTo>);
}
