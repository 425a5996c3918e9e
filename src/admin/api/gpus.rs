//! Who holds what of the GPUs, and who sleeps where.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::commands::project_of;
use super::error::{ApiError, on_disk};
use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::view::{ErrorView, GpuView, GpusView, HolderView, HostView, SleeperView};
use crate::config::HostBudget;
use crate::deployment::Handle;
use crate::deployment::snapshot::Residency;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(gpus))
}

/// Every GPU with who holds it; main memory; who sleeps, and who waits for room.
#[utoipa::path(get, path = "/gpus", tag = "gpus", responses(
    (status = 200, body = GpusView), (status = 401, body = ErrorView)))]
async fn gpus(State(admin): State<Admin>, caller: Caller) -> Result<Json<GpusView>, ApiError> {
    on_disk(move || Json(view(&admin, &caller))).await
}

fn view(admin: &Admin, caller: &Caller) -> GpusView {
    let inventory = &admin.gpus;
    let source = match (inventory.is_real(), inventory.devices.is_empty()) {
        (true, _) => "nvml",
        (false, true) => "none",
        (false, false) => "simulated",
    };
    let sample = inventory.readings.latest();
    let handles = admin.registry.all();
    let shown = |handle: &Handle| {
        let project = project_of(admin, handle.spec().instance.as_str());
        let own = caller.works_on(project.as_ref());
        if own {
            handle.id.to_string()
        } else {
            "-".to_owned()
        }
    };
    let holders = |index: u32| {
        let of_gpu = handles
            .iter()
            .filter(|h| h.snapshot().gpus.contains(&index));
        let holder = |handle: &std::sync::Arc<Handle>| HolderView {
            deployment: shown(handle),
            bytes: None,
            status: handle.status().as_str().to_owned(),
            evictable: String::new(),
        };
        of_gpu.map(holder).collect()
    };
    let devices = inventory.devices.iter().zip(&inventory.identities);
    let gpus = devices.map(|(device, identity)| {
        let reading = sample.devices.iter().find(|r| r.index == device.index);
        GpuView {
            index: device.index,
            name: identity.name.to_string(),
            memory_total: device.memory,
            memory_free: device.memory,
            held: holders(device.index),
            memory_used: reading.map(|reading| reading.memory_used),
            utilisation: reading.and_then(|r| r.utilization).map(f64::from),
            temperature: reading.and_then(|r| r.temperature).map(f64::from),
            power: reading
                .and_then(|r| r.power)
                .map(|milliwatts| f64::from(milliwatts) / 1e3),
        }
    });
    let sleeping = handles.iter().filter_map(|handle| {
        let snapshot = handle.snapshot();
        let residency = match snapshot.residency {
            Residency::Cpu => "cpu",
            Residency::Disk => "disk",
            Residency::Gpu | Residency::None => return None,
        };
        Some(SleeperView {
            deployment: shown(handle),
            residency: residency.to_owned(),
            since: snapshot.since,
            gpus: snapshot.gpus.to_vec(),
            bytes: None,
        })
    });
    GpusView {
        source: source.to_owned(),
        gpus: gpus.collect(),
        sleeping: sleeping.collect(),
        host: host(admin),
        waiting: Vec::new(),
    }
}

fn host(admin: &Admin) -> HostView {
    let mut sampler = crate::telemetry::host::Sampler::default();
    let machine = sampler.machine(admin.registry.clock.now());
    let budget = match admin.settings.gpus.host_memory_budget {
        HostBudget::Bytes(bytes) => Some(bytes),
        HostBudget::Share(share) => machine.memory_total.map(|total| part(total, share)),
    };
    HostView {
        memory_total: machine.memory_total,
        memory_used: machine.memory_used,
        budget,
        offloaded: None,
        processors: machine.processors,
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share from 0 to 1 of a size; the last bytes do not matter"
)]
fn part(total: u64, share: f64) -> u64 {
    (total as f64 * share) as u64
}
