//! What the control plane is built from.

use std::sync::Arc;

use super::Failure;
use crate::config::{GpuSource, Settings};
use crate::deployment::{Demands, Registry};
use crate::gpu::Inventory;
use crate::lifecycle::Parts;
use crate::lifecycle::calls::Http;
use crate::lifecycle::command::Engines;
use crate::lifecycle::process::{Options, ProcessLauncher, own_executable};
use crate::store::timings::Timings;
use crate::tasks::Tasks;

/// Takes the state directory for the workers, and looks at the devices.
pub(super) fn parts(
    settings: &Arc<Settings>,
    registry: &Registry,
    demands: Demands,
    tasks: &Tasks,
) -> Result<Parts, Failure> {
    let gpus = match &settings.gpus.source {
        GpuSource::Simulated(memory) => Inventory::simulated(memory),
        GpuSource::Auto | GpuSource::None => Inventory::none(),
    };
    let launcher = ProcessLauncher::open(Options {
        state: settings.gateway.state.clone(),
        engines: Engines::new(settings),
        own: own_executable().to_owned(),
        log_bytes_max: settings.workers.log_bytes_max,
        tasks: tasks.clone(),
    })?;
    Ok(Parts {
        registry: registry.clone(),
        demands,
        settings: Arc::clone(settings),
        tasks: tasks.clone(),
        clock: registry.clock,
        launcher: Arc::new(launcher),
        calls: Arc::new(Http),
        timings: Timings::open(settings.gateway.state.join("timings.json")),
        gpus,
    })
}
