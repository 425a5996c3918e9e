//! Handles of what is reported again and again: how deployments and GPUs stand.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Gauge, gauge};

use super::float;
use super::names::{GPU_MEMORY, LAST_ACTIVITY, STATUS};

/// Handles of one deployment. Dropped, none of its statuses is in effect any more.
#[derive(Debug)]
pub struct DeploymentMetrics {
    statuses: Vec<(&'static str, Gauge)>,
    /// The status that was reported last.
    status: Option<&'static str>,
    last_activity: Gauge,
}

impl DeploymentMetrics {
    /// Looks the handles up; `all` are the statuses that there are.
    pub fn new(deployment: &str, all: &[&'static str]) -> Self {
        let of = |name: &'static str| {
            let gauge = gauge!(STATUS, "deployment" => deployment.to_owned(), "status" => name);
            gauge.set(0.0);
            (name, gauge)
        };
        Self {
            statuses: all.iter().copied().map(of).collect(),
            status: None,
            last_activity: gauge!(LAST_ACTIVITY, "deployment" => deployment.to_owned()),
        }
    }

    /// Says which status is in effect.
    pub fn status(&mut self, status: &'static str) {
        if self.status != Some(status) {
            self.status = Some(status);
            self.tell();
        }
    }

    /// Says when the deployment was last in use.
    pub fn last_activity(&self, since_1970: Duration) {
        self.last_activity.set(since_1970.as_secs_f64());
    }

    fn tell(&self) {
        for (name, gauge) in &self.statuses {
            let is_it = self.status == Some(*name);
            gauge.set(if is_it { 1.0 } else { 0.0 });
        }
    }
}

impl Drop for DeploymentMetrics {
    fn drop(&mut self) {
        self.status = None;
        self.tell();
    }
}

/// Handles of the memory of GPUs, made as the GPUs are seen.
#[derive(Debug, Default)]
pub struct GpuMetrics(BTreeMap<u32, OfGpu>);

#[derive(Debug)]
struct OfGpu {
    total: Gauge,
    held: Gauge,
    foreign: Gauge,
}

impl GpuMetrics {
    /// Says how much there is of one, and how much of that was granted.
    pub fn held(&mut self, gpu: u32, held: u64, total: u64) {
        let of = self.of(gpu);
        of.held.set(float(held));
        of.total.set(float(total));
    }

    /// Says how much others take of one.
    pub fn foreign(&mut self, gpu: u32, bytes: u64) {
        self.of(gpu).foreign.set(float(bytes));
    }

    fn of(&mut self, gpu: u32) -> &OfGpu {
        self.0.entry(gpu).or_insert_with(|| {
            let of = |state| gauge!(GPU_MEMORY, "gpu" => gpu.to_string(), "state" => state);
            OfGpu {
                total: of("total"),
                held: of("held"),
                foreign: of("foreign"),
            }
        })
    }
}
