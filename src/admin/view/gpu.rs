//! Shapes of the GPU page.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET gpus`: who holds what, who sleeps where, and what comes next.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct GpusView {
    /// Source of the inventory: `nvml`, `simulated` or `none`.
    pub source: String,
    /// Each device, by index.
    pub gpus: Vec<GpuView>,
    /// Main memory, and what offloaded weights take of it.
    pub host: HostView,
    /// Deployments whose worker lives with its weights off the GPU.
    pub sleeping: Vec<SleeperView>,
    /// Deployments that wait for room, the longest first.
    pub waiting: Vec<WaiterView>,
}

/// One GPU.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GpuView {
    /// Its index.
    pub index: u32,
    /// Name of the model: `NVIDIA H100 80GB HBM3`, `simulated`.
    pub name: String,
    /// Its memory, in bytes.
    pub memory_total: u64,
    /// Bytes that no deployment holds.
    pub memory_free: u64,
    /// Deployments that hold memory, with how much.
    pub held: Vec<HolderView>,
    /// Bytes in use as the device itself says.
    pub memory_used: Option<u64>,
    /// Percent of the time in which it computed.
    pub utilisation: Option<f64>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
    /// Watts.
    pub power: Option<f64>,
}

/// A deployment's part of a GPU.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HolderView {
    /// The deployment; `-` for one of a project that the caller does not see.
    pub deployment: String,
    /// Bytes that it holds of this GPU; `None` where that is not known.
    pub bytes: Option<u64>,
    /// `loading`, `active`, `idle`, `offloaded`.
    pub status: String,
    /// Words that say if and why it would be moved out for another.
    pub evictable: String,
}

/// Main memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Bytes of main memory.
    pub memory_total: Option<u64>,
    /// Bytes of it in use.
    pub memory_used: Option<u64>,
    /// Bytes that offloaded weights may take.
    pub budget: Option<u64>,
    /// Bytes that they take.
    pub offloaded: Option<u64>,
    /// Number of processors.
    pub processors: Option<u32>,
}

/// A deployment whose weights are off the GPU.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SleeperView {
    /// The deployment; `-` for one of a project that the caller does not see.
    pub deployment: String,
    /// Place of its weights: `cpu` or `disk`.
    pub residency: String,
    /// Start of the sleep, in seconds since 1970.
    pub since: u64,
    /// GPUs that its worker is bound to.
    pub gpus: Vec<u32>,
    /// Bytes of main memory that its weights take, where that is known.
    pub bytes: Option<u64>,
}

/// A deployment that waits for room.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WaiterView {
    /// The deployment; `-` for one of a project that the caller does not see.
    pub deployment: String,
    /// Begin of the wait, in seconds since 1970.
    #[serde(default)]
    pub since: u64,
    /// Reason for the wait, and the deployments that would be moved out, in words.
    pub why: String,
}
