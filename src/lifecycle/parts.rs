//! Parts that the control plane is built from, and reasons why it can't start.

use std::sync::Arc;

use super::act::calls::Calls;
use super::act::launcher::{Launcher, ListError};
use crate::config::Settings;
use crate::deployment::{Demands, Registry};
use crate::gpu::Inventory;
use crate::store::timings::Timings;
use crate::tasks::Tasks;
use crate::time::Clock;

/// Parts that the control plane is built from.
#[derive(Debug)]
pub struct ConductorParts {
    /// Registry where the two planes meet.
    pub registry: Registry,
    /// The demand signals of that registry.
    pub demands: Demands,
    /// `tidegate.toml`.
    pub settings: Arc<Settings>,
    /// Runs what takes time.
    pub tasks: Tasks,
    /// The clock of the registry.
    pub clock: Clock,
    /// Launcher of the workers.
    pub launcher: Arc<dyn Launcher>,
    /// Calls to the workers; [`crate::lifecycle::act::calls::Http`] but in tests.
    pub calls: Arc<dyn Calls>,
    /// The devices to place on.
    pub gpus: Inventory,
    /// Bytes of host memory that sleepers' weights may take.
    pub host_memory: u64,
    /// Times that earlier starts took.
    pub timings: Timings,
}

/// Reason why the control plane can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The left-over workers are not known, so nothing may be placed.
    #[error("could not look for workers of the last run")]
    Leftovers(#[from] ListError),
}
