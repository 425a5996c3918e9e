//! The seam to a worker's own routes: ready, sleep, wake, proof.
//!
//! [`Http`] asks a real worker through [`crate::vllm::client`]. It decides
//! nothing: when to ask, and what follows a failure, is the machine's.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::launcher::{Boxed, Launched};
use crate::config::OffloadTo;
use crate::names::ModelName;
use crate::time::sleep;
use crate::vllm::about::About;
use crate::vllm::client::{CallError, Client, SleepLevel};
use crate::vllm::taste::{Reference, TasteFigures};

/// First pause between two looks at a worker that is not ready.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Longest pause between two looks.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A worker, as the calls need it.
#[derive(Clone, Debug)]
pub struct Callee {
    /// The launched worker.
    pub launched: Launched,
    /// The name that it serves.
    pub model: ModelName,
    /// Names of its adapters.
    pub adapters: Arc<[ModelName]>,
    /// True where it may be put to sleep, after which what it says is held against before.
    pub sleeps: bool,
    /// Limit of one call.
    pub limit: Duration,
    /// Answer of the worker to a fixed prompt, once it was asked.
    pub taste: Taste,
}

/// Taste of one worker; shared by all that call the worker.
pub type Taste = Arc<Tasted>;

/// Answers of one worker to a fixed prompt, to be compared after a wake, and the figures of
/// the newest comparison.
#[derive(Debug, Default)]
pub struct Tasted {
    /// Empty until it was asked, `None` where it completes no texts.
    pub reference: OnceLock<Option<Reference>>,
    /// Version of its engine, by its own word; empty until it was asked and told.
    pub version: OnceLock<String>,
    /// Swapped whole by whoever woke it.
    woken: ArcSwapOption<TasteFigures>,
}

impl Tasted {
    /// Takes down the figures of a wake.
    pub fn woke(&self, figures: TasteFigures) {
        self.woken.store(Some(Arc::new(figures)));
    }

    /// Figures of the newest taste; `None` where there was none.
    pub fn newest(&self) -> Option<TasteFigures> {
        let woken = self.woken.load_full().map(|figures| *figures);
        woken.or_else(|| self.known().map(Reference::figures))
    }

    /// Answers of when the worker came up.
    pub fn known(&self) -> Option<&Reference> {
        self.reference.get().and_then(Option::as_ref)
    }
}

/// Finding about an adopted worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// It serves.
    Awake,
    /// It sleeps.
    Asleep,
}

/// Depth of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Asks the worker if it is well.
    Look,
    /// Asks the worker's engine for one token.
    Answer,
}

/// Asks workers.
pub trait Calls: fmt::Debug + Send + Sync + 'static {
    /// Resolves once the worker serves; never while it does not.
    fn ready(&self, worker: Callee) -> Boxed<'_, ()>;

    /// Puts it to sleep. No request may be inside.
    fn sleep(&self, worker: Callee, to: OffloadTo) -> Boxed<'_, Result<(), String>>;

    /// Wakes it, and makes sure that it answers.
    fn wake(&self, worker: Callee, from: OffloadTo) -> Boxed<'_, Result<(), String>>;

    /// Checks that a worker that serves is well.
    fn probe(&self, _worker: Callee, _depth: Depth) -> Boxed<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// Asks a worker that serves about its model; `None` where it doesn't tell.
    fn about(&self, _worker: Callee) -> Boxed<'_, Option<About>> {
        Box::pin(async { None })
    }

    /// Checks that this address answers for that worker; returns what the worker does.
    fn prove(&self, worker: Callee) -> Boxed<'_, Result<Proven, String>>;
}

/// Over HTTP, as vLLM and the stand-in answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

impl Calls for Http {
    fn ready(&self, worker: Callee) -> Boxed<'_, ()> {
        Box::pin(async move {
            let client = client(&worker);
            let mut pause = LOOK_PAUSE;
            loop {
                let ready = match client.health().await {
                    Ok(()) => client.warm_up(worker.limit).await,
                    Err(error) => Err(error),
                };
                match ready {
                    Ok(()) => {
                        // It serves all the same, and is tasted again before it sleeps.
                        if let Err(error) = taste(&client, &worker).await {
                            tracing::info!(%error, model = %worker.model, "a worker could not be tasted");
                        }
                        return;
                    }
                    Err(error) => tracing::trace!(%error, "not ready yet"),
                }
                sleep(pause).await;
                // Grows slowly, so that a start is seen at most a quarter late.
                pause = (pause + pause / 4).min(LOOK_PAUSE_MAX);
            }
        })
    }

    fn sleep(&self, worker: Callee, to: OffloadTo) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move {
            let client = client(&worker);
            // A wake that nothing can be held against could not be told from a bad one.
            let tasted = taste(&client, &worker).await;
            tasted.map_err(|error| format!("it can't be tasted before: {}", in_words(&error)))?;
            let slept = client.sleep(level(to), worker.limit).await;
            slept.map_err(|error| in_words(&error))
        })
    }

    fn wake(&self, worker: Callee, from: OffloadTo) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move {
            let before = worker.taste.known();
            let woken = client(&worker)
                .wake(level(from), before, worker.limit)
                .await;
            let figures = woken.map_err(|error| in_words(&error))?;
            if let Some(figures) = figures {
                worker.taste.woke(figures);
            }
            Ok(())
        })
    }

    fn probe(&self, worker: Callee, depth: Depth) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move {
            let client = client(&worker);
            let probed = async {
                client.health().await?;
                match depth {
                    Depth::Look => Ok(()),
                    Depth::Answer => client.warm_up(worker.limit).await,
                }
            };
            probed.await.map_err(|error| in_words(&error))
        })
    }

    fn about(&self, worker: Callee) -> Boxed<'_, Option<About>> {
        Box::pin(async move {
            let told = client(&worker).about().await;
            let told = told.inspect_err(|error| tracing::debug!(%error, "it tells nothing"));
            told.ok()
        })
    }

    fn prove(&self, worker: Callee) -> Boxed<'_, Result<Proven, String>> {
        Box::pin(async move {
            let client = client(&worker);
            let proven = async {
                client.health().await?;
                client.prove().await?;
                client.is_sleeping().await
            };
            match proven.await {
                Ok(true) => Ok(Proven::Asleep),
                Ok(false) => Ok(Proven::Awake),
                Err(error) => Err(in_words(&error)),
            }
        })
    }
}

/// Asks a worker that may sleep, once, to be compared after a wake.
async fn taste(client: &Client, worker: &Callee) -> Result<(), CallError> {
    if worker.sleeps && worker.taste.reference.get().is_none() {
        if let Some(version) = client.version().await {
            worker.taste.version.get_or_init(|| version);
        }
        let said = client.taste(&worker.adapters, worker.limit).await?;
        worker.taste.reference.get_or_init(|| said);
    }
    Ok(())
}

fn client(worker: &Callee) -> Client {
    let address = worker.launched.address.clone();
    let key = Arc::clone(&worker.launched.api_key);
    Client::new(address, key, Arc::from(worker.model.as_str()))
}

fn level(to: OffloadTo) -> SleepLevel {
    match to {
        OffloadTo::Cpu => SleepLevel::One,
        OffloadTo::Disk => SleepLevel::Two,
    }
}

/// The error with its cause.
fn in_words(error: &CallError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
