//! Readings of the devices' sensors, taken now and then.
//!
//! One task asks, on a thread for blocking calls, one call at a time: a driver
//! that hangs holds up that thread and nothing else. The last good sample stays
//! until the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::nvml::Nvml;
use super::{DeviceKind, Inventory};
use crate::time::{sleep, timeout, unix_seconds};

/// Time that a round of calls may take before it counts as failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// One process that uses a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Using {
    /// Its id, in the namespace of the driver.
    pub pid: u32,
    /// Memory that it holds, in bytes; `None` where the driver does not tell.
    pub memory: Option<u64>,
}

/// Reading of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Its index, as in [`super::Device`].
    pub index: u32,
    /// Bytes of its memory in use, by any process.
    pub memory_used: u64,
    /// Bytes of its memory that can be used.
    pub memory_total: u64,
    /// Share of the time that it computed, in percent; not of a MIG device.
    pub utilization: Option<u32>,
    /// Degrees Celsius; of a MIG device, those of its GPU.
    pub temperature: Option<u32>,
    /// Milliwatts; of a MIG device, those of its GPU.
    pub power: Option<u32>,
    /// Processes that use it.
    pub processes: Vec<Using>,
}

/// Readings of all devices at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Seconds since 1970; 0 before the first.
    pub at: u64,
    /// In the order of indices; empty where nothing can be read.
    pub devices: Vec<Reading>,
    /// Reason why the devices could not be read since then, in words.
    pub fault: Option<Arc<str>>,
}

/// Follows the samples. A clone is another reader.
#[derive(Clone, Debug)]
pub struct Readings {
    samples: watch::Receiver<Arc<Sample>>,
    /// Asks for a sample before its time.
    hurry: Arc<Notify>,
}

impl Default for Readings {
    /// Of devices that have no sensors: there is never a sample.
    fn default() -> Self {
        Self {
            samples: watch::channel(Arc::default()).1,
            hurry: Arc::default(),
        }
    }
}

impl Readings {
    /// The newest sample.
    pub fn latest(&self) -> Arc<Sample> {
        Arc::clone(&self.samples.borrow())
    }

    /// Asks for a sample now, not at its time.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Resolves with the next sample; never where no monitor runs.
    pub async fn next(&mut self) -> Arc<Sample> {
        if self.samples.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.samples.borrow_and_update())
    }
}

/// Reads the sensors of an inventory.
#[derive(Debug)]
pub struct Monitor {
    nvml: Arc<Nvml>,
    kinds: Arc<[(u32, DeviceKind)]>,
    interval: Duration,
    /// Wish for a look before the interval is over.
    hurry: Arc<Notify>,
    /// One writer: this.
    samples: watch::Sender<Arc<Sample>>,
}

impl Monitor {
    /// Reads for the first time, and makes the readings of `inventory` its own.
    pub fn new(nvml: Nvml, inventory: &mut Inventory, interval: Duration) -> Self {
        let kinds = inventory.identities.iter().map(|i| (i.index, i.kind));
        let kinds: Arc<[_]> = kinds.collect();
        let (samples, readings) = watch::channel(Arc::default());
        let hurry = Arc::<Notify>::default();
        inventory.readings = Readings {
            samples: readings,
            hurry: Arc::clone(&hurry),
        };
        let monitor = Self {
            nvml: Arc::new(nvml),
            kinds,
            interval,
            hurry,
            samples,
        };
        let first = monitor.nvml.sample(&monitor.kinds);
        monitor.publish(first);
        monitor
    }

    /// Reads every interval until told to end.
    pub async fn run(self, ending: CancellationToken) {
        let mut open: Option<tokio::task::JoinHandle<_>> = None;
        loop {
            tokio::select! {
                () = sleep(self.interval) => {}
                () = self.hurry.notified() => {}
                () = ending.cancelled() => return,
            }
            let call = open.get_or_insert_with(|| {
                let (nvml, kinds) = (Arc::clone(&self.nvml), Arc::clone(&self.kinds));
                tokio::task::spawn_blocking(move || nvml.sample(&kinds))
            });
            match timeout(ANSWER_LIMIT, call).await {
                Ok(read) => {
                    open = None;
                    self.publish(read.unwrap_or_else(|error| Err(error.to_string())));
                }
                // It stays open: no second call is made into a driver that hangs.
                Err(_) => self.publish(Err(format!("no answer within {ANSWER_LIMIT:?}"))),
            }
        }
    }

    fn publish(&self, read: Result<Vec<Reading>, String>) {
        let before = Arc::clone(&self.samples.borrow());
        let sample = match read {
            Ok(devices) => {
                if before.fault.is_some() {
                    tracing::info!("the GPUs can be read again");
                }
                Sample {
                    at: unix_seconds(),
                    devices,
                    fault: None,
                }
            }
            Err(why) => {
                if before.fault.is_none() {
                    tracing::warn!(
                        "the GPUs can't be read: {why}; what was read last stays in use, and memory that others take since is not seen"
                    );
                }
                Sample {
                    fault: Some(Arc::from(why)),
                    ..(*before).clone()
                }
            }
        };
        self.samples.send_replace(Arc::new(sample));
    }
}
