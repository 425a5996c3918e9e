//! Control plane: when a worker lives, and what it takes.
//!
//! ```text
//!  demands, commands, worker events, deadlines
//!        |
//!        v
//!   conductor -- decide::machine::step --> act::effects -- Launcher (processes)
//!        |      decide::placement                   \--- Calls (health, sleep, wake)
//!        v
//!   snapshots, gates; tell: events
//! ```
//!
//! One task, the [`conductor`], owns every machine and is the only one that
//! opens a gate or publishes a snapshot. It never waits: what takes time runs as
//! a task beside it and comes back as an event that carries the worker's
//! generation. It knows nothing of requests, routes or clients.

pub mod act;
mod conductor;
mod control;
pub mod decide;
mod parts;
pub mod tell;

use std::sync::Arc;

use crate::config::{self, Catalog};
use crate::gpu::Device;
use crate::names::DeploymentId;

pub use conductor::Conductor;
pub use control::{Change, Command, CommandError, Control, Evicted, Explanation, Planned};
pub use parts::{ConductorParts, StartError};

/// The deployments of a catalog that could never run on these devices, however
/// empty, and why. What was measured of them is not known here.
pub fn misfits(catalog: &Catalog, devices: &[Device]) -> Vec<(DeploymentId, String)> {
    let specs = catalog.instances.iter().flat_map(|i| &i.deployments);
    let misfit = |spec: &Arc<config::Deployment>| {
        let why = decide::profile::misfit(spec, devices)?;
        Some((spec.id.clone(), why))
    };
    specs.filter_map(misfit).collect()
}
