//! The seam to the scheduler: what the world tells it, and asks of it.
//!
//! [`Ours`] passes everything to the placement of the product.

use std::sync::Arc;
use std::time::Duration;

use super::trace::Workload;
use crate::config::OffloadTo;
use crate::gpu::Inventory;
use crate::lifecycle::decide::ledger::{Amount, LedgerKey, MemoryNeed};
use crate::lifecycle::decide::placement::{Decision, Foresight, Placement, Profile, Rungs, View};
use crate::lifecycle::decide::policy::{Params, Seconds};
use crate::names::DeploymentId;
use crate::time::Uptime;

/// Decides which deployments get memory. A deployment's key is its place in the fleet.
pub(super) trait Scheduler {
    fn arrived(&mut self, key: LedgerKey, now: Uptime);
    fn served(&mut self, key: LedgerKey, took: Seconds);
    fn adopt(&mut self, key: LedgerKey, gpus: &[u32], asleep: OffloadTo);
    fn ask(&mut self, key: LedgerKey);
    fn cancel(&mut self, key: LedgerKey);
    fn shrink(&mut self, key: LedgerKey);
    fn release(&mut self, key: LedgerKey);
    fn keep_on_host(&mut self, key: LedgerKey, keeps: bool);
    /// It became idle, or changed its phase.
    fn touch(&mut self, key: LedgerKey);
    fn plan(&mut self, now: Uptime, view: &View<'_>) -> Vec<Decision>;
    fn look_at(&self) -> Option<Uptime>;
    /// A client's request for this one is done: which one it is expected to ask next.
    fn foresees(
        &mut self,
        _client: u32,
        _key: LedgerKey,
        _now: Uptime,
    ) -> Option<(LedgerKey, f64)> {
        None
    }
    /// The next claim of this one is made because of that.
    fn foresee(&mut self, _key: LedgerKey, _chance: f64) {}
    /// The GPUs that this one holds, where they may be others than those that it was
    /// bound to.
    fn places(&self, _key: LedgerKey) -> Option<Vec<usize>> {
        None
    }
    /// Time that a request may wait before it is overdue, where that means anything.
    fn wait_bound(&self) -> Duration {
        Duration::MAX
    }
}

/// Memory that a deployment of a trace takes.
pub(super) fn need(trace: &Workload, model: usize) -> MemoryNeed {
    trace.fleet.get(model).map_or(
        MemoryNeed {
            gpus: 1,
            awake: Amount::Bytes(0),
            asleep: 0,
            host: 0,
        },
        |model| MemoryNeed {
            gpus: model.gpus,
            awake: Amount::Bytes(model.awake),
            asleep: model.asleep,
            host: model.weights,
        },
    )
}

/// The placement of the product.
#[derive(Debug)]
pub(super) struct Ours(pub(super) Placement);

impl Ours {
    pub(super) fn new(
        trace: &Workload,
        params: Params,
        foresight: Option<Arc<dyn Foresight + Send + Sync>>,
    ) -> Self {
        let devices = Inventory::simulated(&vec![trace.gpu_memory; trace.gpus]).devices;
        let mut placement = Placement::new(devices, trace.host_memory, params);
        if let Some(foresight) = foresight {
            placement = placement.with_foresight(foresight);
        }
        for (number, model) in trace.fleet.iter().enumerate() {
            let Ok(id) = DeploymentId::parse(&format!("fleet/m{number}")) else {
                continue;
            };
            let profile = Profile {
                need: need(trace, number),
                costs: model.costs,
                rungs: Rungs {
                    cpu: true,
                    disk: true,
                },
                pinned: model.keep,
                keeps_host: false,
            };
            placement.know(&id, profile, Uptime::ZERO);
        }
        Self(placement)
    }
}

impl Scheduler for Ours {
    fn arrived(&mut self, key: LedgerKey, now: Uptime) {
        self.0.arrived(key, 1, now, now);
    }
    fn served(&mut self, key: LedgerKey, took: Seconds) {
        self.0.served(key, 1, took);
    }
    fn adopt(&mut self, key: LedgerKey, gpus: &[u32], asleep: OffloadTo) {
        self.0.adopt(key, gpus, Some(asleep));
    }
    fn ask(&mut self, key: LedgerKey) {
        self.0.ask(key);
    }
    fn cancel(&mut self, key: LedgerKey) {
        self.0.cancel(key);
    }
    fn shrink(&mut self, key: LedgerKey) {
        self.0.shrink(key);
    }
    fn release(&mut self, key: LedgerKey) {
        self.0.release(key);
    }
    fn keep_on_host(&mut self, key: LedgerKey, keeps: bool) {
        self.0.keep_on_host(key, keeps);
    }
    fn touch(&mut self, key: LedgerKey) {
        self.0.touch(key);
    }
    fn plan(&mut self, now: Uptime, view: &View<'_>) -> Vec<Decision> {
        self.0.plan(now, view)
    }
    fn look_at(&self) -> Option<Uptime> {
        self.0.look_at()
    }
    fn foresees(&mut self, client: u32, key: LedgerKey, now: Uptime) -> Option<(LedgerKey, f64)> {
        self.0.asked(u64::from(client), key, now)
    }
    fn foresee(&mut self, key: LedgerKey, chance: f64) {
        self.0.foresee(key, chance);
    }
    fn places(&self, key: LedgerKey) -> Option<Vec<usize>> {
        let lease = self.0.ledger().lease(key)?;
        Some(lease.places().to_vec())
    }
    fn wait_bound(&self) -> Duration {
        self.0.params().wait_bound
    }
}
