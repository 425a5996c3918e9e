//! Which devices workers can be placed on.
//!
//! Owns the inventory. It takes no decision and keeps no account: what is free
//! is `lifecycle::placement`'s to know.

use std::fs;
use std::path::Path;

/// Where NVIDIA's driver lists the GPUs of this machine, a directory each.
pub const DRIVER_LIST: &str = "/proc/driver/nvidia/gpus";

/// Whether the driver lists a GPU. Without its list there is none that vLLM
/// could use.
pub fn has_any(list: &Path) -> bool {
    fs::read_dir(list).is_ok_and(|mut entries| entries.next().is_some())
}

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index, as workers are told.
    pub index: u32,
    /// Its memory, in bytes.
    pub memory: u64,
}

/// The devices of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// In the order of their indices; empty on a machine without GPUs, where
    /// workers run on the CPU.
    pub devices: Vec<Device>,
}

impl Inventory {
    /// No device: workers run on the CPU.
    pub fn none() -> Self {
        Self::default()
    }

    /// Pretended devices with these memory sizes, in bytes.
    pub fn simulated(memory: &[u64]) -> Self {
        let devices = (0..)
            .zip(memory)
            .map(|(index, &memory)| Device { index, memory });
        Self {
            devices: devices.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_there_when_the_driver_lists_one() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("gpus");
        assert!(!has_any(&list));
        fs::create_dir(&list).unwrap();
        assert!(!has_any(&list));
        fs::create_dir(list.join("0000:01:00.0")).unwrap();
        assert!(has_any(&list));
    }
}
