//! Devices that workers can be placed on, and the readings of their sensors.
//!
//! Owns the inventory and the readings of its sensors. It takes no decision and
//! keeps no account: what is free is `lifecycle::decide`'s to know, and whose
//! a process is, `lifecycle`'s. [`nvml`] is the only part that knows NVIDIA's
//! library.

mod monitor;
pub mod nvml;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

pub use monitor::{Monitor, Reading, Readings, Sample, Using};

/// Directory in which NVIDIA's driver lists the GPUs of this machine, a directory each.
pub const DRIVER_LIST: &str = "/proc/driver/nvidia/gpus";

/// True if the driver lists a GPU. Without its list there is none that vLLM
/// could use.
pub fn has_any(list: &Path) -> bool {
    fs::read_dir(list).is_ok_and(|mut entries| entries.next().is_some())
}

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index. A GPU has the one that `nvidia-smi` shows; a MIG device has
    /// [`mig_index`].
    pub index: u32,
    /// Its memory, in bytes.
    pub memory: u64,
}

/// The index of a MIG device: the second one of GPU 0 has 101, of GPU 3 401.
pub fn mig_index(gpu: u32, instance: u32) -> u32 {
    (gpu + 1) * 100 + instance
}

/// Kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A whole GPU.
    Gpu,
    /// A part of the GPU with this index, with memory of its own.
    Mig {
        /// Index of the GPU that it is a part of.
        gpu: u32,
    },
    /// Pretended, by configuration.
    Simulated,
}

/// Identity of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its index, as in [`Device`].
    pub index: u32,
    /// Kind of the device.
    pub kind: DeviceKind,
    /// `GPU-…` or `MIG-…`; empty for a simulated one.
    pub uuid: Arc<str>,
    /// The product's name.
    pub name: Arc<str>,
}

impl Identity {
    /// Name of the device in `CUDA_VISIBLE_DEVICES`. A whole GPU is named by its index,
    /// which vLLM reads as a number; a MIG device has no other name than its UUID.
    pub fn visible(&self) -> String {
        match self.kind {
            DeviceKind::Mig { .. } => self.uuid.to_string(),
            DeviceKind::Gpu | DeviceKind::Simulated => self.index.to_string(),
        }
    }
}

/// The devices of this machine.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Devices in the order of their indices; empty on a machine without GPUs, where
    /// workers run on the CPU.
    pub devices: Vec<Device>,
    /// Identity of each, in the same order.
    pub identities: Vec<Identity>,
    /// Last readings of their sensors.
    pub readings: Readings,
}

impl Inventory {
    /// No device: workers run on the CPU.
    pub fn none() -> Self {
        Self::default()
    }

    /// Pretended devices with these memory sizes, in bytes.
    pub fn simulated(memory: &[u64]) -> Self {
        let devices: Vec<Device> = (0..)
            .zip(memory)
            .map(|(index, &memory)| Device { index, memory })
            .collect();
        let identities = devices.iter().map(|device| Identity {
            index: device.index,
            kind: DeviceKind::Simulated,
            uuid: Arc::from(""),
            name: Arc::from("simulated"),
        });
        Self {
            identities: identities.collect(),
            devices,
            readings: Readings::default(),
        }
    }

    /// True if there is a device that is not pretended.
    pub fn is_real(&self) -> bool {
        let mut kinds = self.identities.iter().map(|identity| identity.kind);
        kinds.any(|kind| kind != DeviceKind::Simulated)
    }

    /// Names of these devices in `CUDA_VISIBLE_DEVICES`.
    pub fn visible(&self, indices: &[u32]) -> String {
        let name = |index: &u32| {
            let identity = self.identities.iter().find(|i| i.index == *index);
            identity.map_or_else(|| index.to_string(), Identity::visible)
        };
        indices.iter().map(name).collect::<Vec<_>>().join(",")
    }

    /// Leaves only the devices that `CUDA_VISIBLE_DEVICES` of this process names,
    /// by index or by the beginning of a UUID: whoever set it for us meant our
    /// workers too.
    ///
    /// # Errors
    ///
    /// [`NoSuchDevice`] for a name that fits none.
    pub fn restricted(mut self, visible: Option<&OsStr>) -> Result<Self, NoSuchDevice> {
        let Some(visible) = visible.filter(|names| !names.is_empty()) else {
            return Ok(self);
        };
        let visible = visible.to_string_lossy();
        let mut kept = Vec::new();
        for name in visible.split(',').map(str::trim) {
            let is_meant = |identity: &&Identity| {
                identity.index.to_string() == name
                    || (name.len() > 4 && identity.uuid.starts_with(name))
            };
            match self.identities.iter().find(is_meant) {
                Some(identity) => kept.push(identity.index),
                None => {
                    return Err(NoSuchDevice {
                        name: name.to_owned(),
                        known: self.to_string(),
                    });
                }
            }
        }
        self.devices.retain(|device| kept.contains(&device.index));
        self.identities.retain(|named| kept.contains(&named.index));
        Ok(self)
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.identities.is_empty() {
            return f.write_str("none");
        }
        for (n, (device, identity)) in self.devices.iter().zip(&self.identities).enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            let memory = crate::units::Bytes(device.memory);
            write!(f, "{comma}{} ({}, {memory})", device.index, identity.name)?;
        }
        Ok(())
    }
}

/// `CUDA_VISIBLE_DEVICES` names a device that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "CUDA_VISIBLE_DEVICES names {name:?}, and no device has that index or UUID: take it out, or name some of these: {known}"
)]
pub struct NoSuchDevice {
    name: String,
    known: String,
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

    #[test]
    fn only_the_devices_that_we_may_see_are_kept() {
        let all = || Inventory::simulated(&[1 << 30, 2 << 30, 3 << 30]);
        let kept = |names: &str| {
            let kept = all().restricted(Some(OsStr::new(names))).unwrap();
            kept.devices.iter().map(|d| d.index).collect::<Vec<_>>()
        };
        assert_eq!(kept("2, 0"), [0, 2]);
        assert_eq!(kept(""), [0, 1, 2]);
        let error = all().restricted(Some(OsStr::new("0,7"))).unwrap_err();
        assert!(error.to_string().contains("names \"7\""), "{error}");
        assert!(error.to_string().contains("2 (simulated, 3GiB)"), "{error}");
    }
}
