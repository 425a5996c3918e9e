//! What the control plane is built from, and why it can't start.

use std::sync::Arc;

use super::act::calls::Calls;
use super::act::launcher::{Launcher, ListError};
use crate::config::Settings;
use crate::deployment::{Demands, Registry};
use crate::gpu::Inventory;
use crate::store::timings::Timings;
use crate::tasks::Tasks;
use crate::time::Clock;

/// What the control plane is built from.
#[derive(Debug)]
pub struct ConductorParts {
    /// Where the two planes meet.
    pub registry: Registry,
    /// The demand signals of that registry.
    pub demands: Demands,
    /// `tidegate.toml`.
    pub settings: Arc<Settings>,
    /// Runs what takes time.
    pub tasks: Tasks,
    /// The clock of the registry.
    pub clock: Clock,
    /// Where workers run.
    pub launcher: Arc<dyn Launcher>,
    /// How workers are asked; [`crate::lifecycle::act::calls::Http`] but in tests.
    pub calls: Arc<dyn Calls>,
    /// The devices to place on.
    pub gpus: Inventory,
    /// Bytes of host memory that sleepers' weights may take.
    pub host_memory: u64,
    /// How long earlier starts took.
    pub timings: Timings,
}

/// Why the control plane can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Who is left over is not known, so nothing may be placed.
    #[error("could not look for workers of the last run")]
    Leftovers(#[from] ListError),
}
