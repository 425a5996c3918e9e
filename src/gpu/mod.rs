//! Which devices workers can be placed on.
//!
//! Owns the inventory. It takes no decision and keeps no account: what is free
//! is `lifecycle::placement`'s to know.

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
