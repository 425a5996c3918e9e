//! Deployments that hold memory of the GPUs, sleep, or wait for room.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::error::{ApiError, on_disk};
use crate::admin::scope::works_on;
use crate::admin::sight::Sight;
use crate::admin::view::{
    ErrorView, GpuView, GpusView, HolderView, HostView, SleeperView, WaiterView,
};
use crate::config::HostBudget;
use crate::deployment::snapshot::Residency;
use crate::deployment::{Handle, MemoryHolding, Status};
use crate::gpu::{Device, Identity, Reading};
use crate::units::share_of;

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
        if works_on(admin, caller, handle.spec().instance.as_str()) {
            handle.id.to_string()
        } else {
            "-".to_owned()
        }
    };
    let holdings = admin.registry.holdings();
    let holders = |index: u32| {
        let of_gpu = holdings.iter().filter(|holding| holding.gpu == index);
        let holder = |holding: &MemoryHolding| {
            let handle = admin.registry.lead(&holding.deployment);
            HolderView {
                deployment: handle
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), |handle| shown(handle)),
                bytes: Some(holding.bytes),
                status: handle
                    .as_ref()
                    .map_or("stopped", |h| h.status().as_str())
                    .to_owned(),
                evictable: handle
                    .as_ref()
                    .map_or_else(String::new, |h| evictable(admin, h)),
            }
        };
        of_gpu.map(holder).collect::<Vec<_>>()
    };
    let devices = inventory.devices.iter().zip(&inventory.identities);
    let gpus = devices.map(|(device, identity)| {
        let reading = sample.devices.iter().find(|r| r.index == device.index);
        gpu(*device, identity, reading, holders(device.index))
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
        waiting: waiting(admin, &Sight::of(&admin.catalog.load(), caller), shown),
    }
}

fn gpu(
    device: Device,
    identity: &Identity,
    reading: Option<&Reading>,
    held: Vec<HolderView>,
) -> GpuView {
    GpuView {
        index: device.index,
        name: identity.name.to_string(),
        memory_total: device.memory,
        memory_free: free(device.memory, &held),
        held,
        memory_used: reading.map(|reading| reading.memory_used),
        utilisation: reading.and_then(|r| r.utilization).map(f64::from),
        temperature: reading.and_then(|r| r.temperature).map(f64::from),
        power: reading
            .and_then(|r| r.power)
            .map(|milliwatts| f64::from(milliwatts) / 1e3),
    }
}

/// Bytes that no deployment holds.
fn free(total: u64, held: &[HolderView]) -> u64 {
    let held: u64 = held.iter().filter_map(|holder| holder.bytes).sum();
    total.saturating_sub(held)
}

/// Words that say if a deployment would be moved out for another.
fn evictable(admin: &Admin, handle: &Handle) -> String {
    let inside = handle.gate.in_flight();
    if handle.spec().keep {
        "never: it is kept".to_owned()
    } else if inside > 0 {
        let plural = if inside == 1 { "" } else { "s" };
        format!("not now: {inside} request{plural} inside")
    } else if handle.snapshot().pid.is_none() {
        "its worker has ended".to_owned()
    } else if handle.status() == Status::Loading {
        "not now: it is coming up".to_owned()
    } else {
        let idle = admin
            .registry
            .clock
            .now()
            .saturating_sub(handle.gate.last_activity());
        format!("yes: idle for {} s", idle.as_secs())
    }
}

/// Deployments whose requests wait while they have no worker on a GPU.
fn waiting(admin: &Admin, sight: &Sight, shown: impl Fn(&Handle) -> String) -> Vec<WaiterView> {
    let handles = admin.registry.all();
    let waits = handles.iter().filter_map(|handle| {
        let snapshot = handle.snapshot();
        snapshot
            .waits_for_room()
            .then_some((snapshot.since, handle))
    });
    let mut waits: Vec<_> = waits.collect();
    waits.sort_by_key(|(since, _)| *since);
    let view = |(since, handle): (u64, &std::sync::Arc<Handle>)| {
        let event = admin.lifecycle.events(Some(&handle.id), 1).pop();
        WaiterView {
            deployment: shown(handle),
            since,
            why: event.map_or_else(String::new, |event| sight.read(&event.text)),
        }
    };
    waits.into_iter().map(view).collect()
}

fn host(admin: &Admin) -> HostView {
    let mut sampler = crate::telemetry::host::Sampler::default();
    let machine = sampler.machine(admin.registry.clock.now());
    let budget = match admin.settings.gpus.host_memory_budget {
        HostBudget::Bytes(bytes) => Some(bytes),
        HostBudget::Share(share) => {
            crate::telemetry::host::own_memory().map(|total| share_of(total, share))
        }
    };
    HostView {
        memory_total: machine.memory_total,
        memory_used: machine.memory_used,
        budget,
        offloaded: None,
        processors: machine.processors,
    }
}
