//! NVIDIA's management library, loaded at run time.
//!
//! The only module that knows it. A machine without the driver has no such
//! library, and that is no error of ours: the same binary runs there.

use std::path::Path;
use std::sync::Arc;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Gpu, Nvml as Library};

use super::{Device, DeviceKind, Identity, Inventory, Reading, Readings, Using, mig_index};

/// The name by which the driver installs it.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// Reason why the GPUs are not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no driver, as far as can be seen.
    #[error(
        "{library} could not be loaded: install NVIDIA's driver, or start the container with NVIDIA's runtime"
    )]
    Absent {
        /// Library that was to be loaded.
        library: String,
        /// The cause.
        #[source]
        source: NvmlError,
    },
    /// The driver is there and does not work.
    #[error("NVIDIA's driver does not answer: {}", advice(.0))]
    Broken(#[source] NvmlError),
}

/// Advice that helps, as far as it is known.
fn advice(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::DriverNotLoaded => "load its kernel module (`modprobe nvidia`)",
        NvmlError::LibRmVersionMismatch => {
            "its library and its kernel module have different versions: restart the machine, or load the module again"
        }
        NvmlError::NoPermission => "this user may not use /dev/nvidia*: give it the right to",
        NvmlError::GpuLost => "a GPU has fallen off the bus: restart the machine",
        _ => "see what `nvidia-smi` says",
    }
}

/// The library, open.
#[derive(Debug)]
pub struct Nvml(Library);

impl Nvml {
    /// Loads the library from a path, or by its name from where the system looks.
    ///
    /// # Errors
    ///
    /// [`Error`]: no driver, or one that does not work.
    pub fn open(library: &Path) -> Result<Self, Error> {
        match Library::builder().lib_path(library.as_os_str()).init() {
            Ok(library) => Ok(Self(library)),
            Err(source @ (NvmlError::LibloadingError(_) | NvmlError::FailedToLoadSymbol(_))) => {
                Err(Error::Absent {
                    library: library.display().to_string(),
                    source,
                })
            }
            Err(error) => Err(Error::Broken(error)),
        }
    }

    /// Every GPU; where a GPU is divided, its parts instead of it.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`].
    pub fn inventory(&self) -> Result<Inventory, Error> {
        let mut found = Inventory::none();
        for index in 0..self.0.device_count().map_err(Error::Broken)? {
            let gpu = self.0.device_by_index(index).map_err(Error::Broken)?;
            if is_divided(&gpu) {
                for (instance, part) in parts(&gpu) {
                    let (at, kind) = (mig_index(index, instance), DeviceKind::Mig { gpu: index });
                    found.add(at, kind, &part).map_err(Error::Broken)?;
                }
            } else {
                found
                    .add(index, DeviceKind::Gpu, &gpu)
                    .map_err(Error::Broken)?;
            }
        }
        Ok(found)
    }

    /// Reads what these devices say now. Blocks.
    pub(super) fn sample(&self, devices: &[(u32, DeviceKind)]) -> Result<Vec<Reading>, String> {
        let readings = devices.iter().map(|(index, kind)| self.read(*index, *kind));
        let readings: Result<Vec<_>, _> = readings.collect();
        readings.map_err(|error| format!("{error} ({})", advice(&error)))
    }

    fn read(&self, index: u32, kind: DeviceKind) -> Result<Reading, NvmlError> {
        let (device, gpu) = match kind {
            DeviceKind::Mig { gpu } => {
                let instance = index - mig_index(gpu, 0);
                let gpu = self.0.device_by_index(gpu)?;
                (gpu.mig_device_by_index(instance)?, gpu)
            }
            DeviceKind::Gpu | DeviceKind::Simulated => {
                let device = || self.0.device_by_index(index);
                (device()?, device()?)
            }
        };
        let (used, total) = memory(&device)?;
        let whole = kind == DeviceKind::Gpu;
        let rates = || device.utilization_rates().ok().map(|rates| rates.gpu);
        Ok(Reading {
            index,
            memory_used: used,
            memory_total: total,
            utilization: whole.then(rates).flatten(),
            temperature: gpu.temperature(TemperatureSensor::Gpu).ok(),
            power: gpu.power_usage().ok(),
            processes: processes(&device),
        })
    }
}

impl Inventory {
    fn add(&mut self, index: u32, kind: DeviceKind, device: &Gpu<'_>) -> Result<(), NvmlError> {
        let (_, memory) = memory(device)?;
        self.devices.push(Device { index, memory });
        self.identities.push(Identity {
            index,
            kind,
            uuid: Arc::from(device.uuid()?),
            name: Arc::from(device.name().unwrap_or_else(|_| "GPU".to_owned())),
        });
        self.readings = Readings::default();
        Ok(())
    }
}

/// Used and usable bytes; what the driver keeps for itself is neither.
fn memory(device: &Gpu<'_>) -> Result<(u64, u64), NvmlError> {
    let info = device.memory_info()?;
    Ok((info.used, info.total.saturating_sub(info.reserved)))
}

/// True if work runs only in parts of the GPU. Older GPUs do not know the
/// question.
fn is_divided(gpu: &Gpu<'_>) -> bool {
    gpu.mig_mode().is_ok_and(|mode| mode.current == 1)
}

/// The parts, by their number. Numbers without one are left out.
fn parts<'a>(gpu: &Gpu<'a>) -> Vec<(u32, Gpu<'a>)> {
    let most = gpu.mig_device_count().unwrap_or(0);
    let part = |instance| Some((instance, gpu.mig_device_by_index(instance).ok()?));
    (0..most).filter_map(part).collect()
}

/// Processes that compute or draw on it; none where the driver does not tell.
fn processes(device: &Gpu<'_>) -> Vec<Using> {
    let compute = device.running_compute_processes().unwrap_or_default();
    let graphics = device.running_graphics_processes().unwrap_or_default();
    let mut using: Vec<Using> = Vec::new();
    for process in compute.iter().chain(&graphics) {
        if using.iter().any(|known| known.pid == process.pid) {
            continue;
        }
        let memory = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let pid = process.pid;
        using.push(Using { pid, memory });
    }
    using
}
