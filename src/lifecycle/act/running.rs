//! A worker that lives or is about to, as tasks and the conductor hold it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::calls::Taste;
use super::health::Quiet;
use super::launcher::Launched;
use crate::config;
use crate::deployment::{Gate, Handle, Worker};

/// The deployment for whose worker something is done.
#[derive(Clone, Copy, Debug)]
pub(in crate::lifecycle) struct Target<'a> {
    pub(in crate::lifecycle) handle: &'a Arc<Handle>,
    pub(in crate::lifecycle) spec: &'a Arc<config::Deployment>,
    pub(in crate::lifecycle) gpus: &'a Arc<[u32]>,
    pub(in crate::lifecycle) running: Option<&'a Running>,
}

/// Wish for a worker, as its supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Wish {
    /// Let it run.
    Run,
    /// Ask it to end.
    Stop,
    /// End it, for the nth time.
    Kill(u32),
}

/// The worker that lives, or is about to.
#[derive(Debug)]
pub(in crate::lifecycle) struct Running {
    /// `None` until it was launched.
    pub(in crate::lifecycle) launched: Option<Launched>,
    /// Gate where the requests enter that the worker serves; tells it from every other worker.
    pub(in crate::lifecycle) gate: Arc<Gate>,
    /// Lock that is held while a request of ours is sent to the worker's engine.
    pub(in crate::lifecycle) quiet: Quiet,
    /// Answer of the worker, to be compared after a wake.
    pub(in crate::lifecycle) taste: Taste,
    /// To its supervisor.
    pub(in crate::lifecycle) wish: watch::Sender<Wish>,
    /// Ends the calls that are under way to it.
    pub(in crate::lifecycle) calls: CancellationToken,
}

impl Running {
    /// The worker, as requests find it; `None` until it was launched.
    pub(in crate::lifecycle) fn worker(&self) -> Option<Worker> {
        let launched = self.launched.as_ref()?;
        Some(Worker {
            generation: launched.generation,
            address: launched.address.clone(),
            api_key: Arc::clone(&launched.api_key),
            gate: Arc::clone(&self.gate),
        })
    }
}
