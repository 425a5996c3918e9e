//! Parts that the control plane is built from.

use std::path::Path;
use std::sync::Arc;

use super::failure::Failure;
use crate::config::{GpuSource, Settings};
use crate::deployment::{Demands, Registry};
use crate::gpu::nvml::{self, Nvml};
use crate::gpu::{self, Inventory, Monitor};
use crate::lifecycle::ConductorParts;
use crate::lifecycle::act::calls::Http;
use crate::lifecycle::act::command::Engines;
use crate::lifecycle::act::command::own_executable;
use crate::lifecycle::act::process::{Bounds, Options, ProcessLauncher};
use crate::models::pull::Puller;
use crate::models::record::FetchRecord;
use crate::models::shared::Fetches;
use crate::store::timings::Timings;
use crate::tasks::Tasks;
use crate::telemetry::host::own_memory;

/// No GPU is there, though the settings ask for one.
#[derive(Debug, thiserror::Error)]
enum GpuError {
    #[error("gpus.source is \"nvml\", but {0}; or write gpus.source = \"auto\" or \"none\"")]
    Unusable(nvml::Error),
    #[error(
        "gpus.source is \"nvml\", but the driver knows no GPU: see what `nvidia-smi` says, or write gpus.source = \"auto\" or \"none\""
    )]
    Nothing,
}

/// Takes the state directory for the workers, and looks at the devices.
pub(super) fn parts(
    settings: &Arc<Settings>,
    registry: &Registry,
    demands: Demands,
    tasks: &Tasks,
) -> Result<ConductorParts, Failure> {
    let gpus = inventory(settings, tasks)?;
    let launcher = ProcessLauncher::open(Options {
        state: settings.gateway.state.clone(),
        engines: Engines {
            gpus: gpus.is_real(),
            ..Engines::new(settings)
        },
        own: own_executable().to_owned(),
        log_bytes_max: settings.workers.log_bytes_max,
        gpus: gpus.clone(),
        bounds: Bounds {
            cgroups: settings.workers.cgroups,
            memory_max: settings.workers.memory_max,
            sandbox: settings.workers.sandbox.clone(),
            private: settings.private_paths(),
        },
        tasks: tasks.clone(),
        fetches: settings.models.fetch_first.then(|| {
            let puller = Puller {
                record: FetchRecord::at(&settings.gateway.state),
                limits: settings.models.limits,
            };
            let at_once = settings.models.fetches_max;
            let fetches = Fetches::new(tasks.clone(), registry.clock, puller, at_once);
            Arc::new(fetches)
        }),
    })?;
    Ok(ConductorParts {
        registry: registry.clone(),
        demands,
        settings: Arc::clone(settings),
        tasks: tasks.clone(),
        clock: registry.clock,
        launcher: Arc::new(launcher),
        calls: Arc::new(Http),
        timings: Timings::open(settings.gateway.state.join("timings.json")),
        host_memory: host_memory(settings),
        gpus,
    })
}

/// Bytes of host memory that sleepers' weights may take. Swap is never counted.
fn host_memory(settings: &Settings) -> u64 {
    // If the size can't be read no share of it is promised.
    let memory = own_memory().unwrap_or_default();
    settings.gpus.host_memory_budget.of(memory)
}

/// The devices, with their sensors followed.
fn inventory(settings: &Settings, tasks: &Tasks) -> Result<Inventory, Failure> {
    let required = match &settings.gpus.source {
        GpuSource::Simulated(memory) => return Ok(Inventory::simulated(memory)),
        GpuSource::None => return Ok(Inventory::none()),
        GpuSource::Auto => false,
        GpuSource::Nvml => true,
    };
    let found = Nvml::open(&settings.gpus.library)
        .and_then(|nvml| nvml.inventory().map(|inventory| (nvml, inventory)));
    let (nvml, inventory) = match found {
        Ok(found) => found,
        Err(error) if required => return Err(GpuError::Unusable(error).into()),
        // Where the driver lists a GPU, its absence is news.
        Err(nvml::Error::Absent { .. }) if !gpu::has_any(Path::new(gpu::DRIVER_LIST)) => {
            tracing::info!("no NVIDIA driver: workers run on the CPU");
            return Ok(Inventory::none());
        }
        Err(error) => {
            tracing::error!("workers run as on a machine without GPUs: {error}");
            return Ok(Inventory::none());
        }
    };
    let visible = std::env::var_os("CUDA_VISIBLE_DEVICES");
    let mut inventory = inventory.restricted(visible.as_deref())?;
    if inventory.devices.is_empty() {
        if required {
            return Err(GpuError::Nothing.into());
        }
        return Ok(inventory);
    }
    tracing::info!("GPUs: {inventory}");
    let monitor = Monitor::new(nvml, &mut inventory, settings.gpus.poll);
    tasks.spawn_vital("gpus", monitor.run(tasks.ending()));
    Ok(inventory)
}
