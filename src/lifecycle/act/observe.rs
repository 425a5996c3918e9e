//! Owners of the memory on the GPUs: readings of the devices, told apart by owner.
//!
//! Runs beside the conductor, as it looks into `/proc`. It judges nothing: what
//! follows from an observation is the conductor's and placement's to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::launcher::{Launcher, ProcessOwner};
use crate::gpu::{Reading, Readings, Sample};
use crate::names::{DeploymentId, Generation};
use crate::time::{sleep, timeout};
use crate::units::Bytes;

/// Devices as they were seen at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::lifecycle) struct Observation {
    /// In the order of their indices.
    pub(in crate::lifecycle) devices: Vec<Seen>,
}

/// One device as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) struct Seen {
    index: u32,
    used: u64,
    /// Bytes that others hold; `None` where the owners of some memory can't be told.
    foreign: Option<u64>,
    /// Bytes that each worker holds.
    workers: BTreeMap<(DeploymentId, Generation), u64>,
}

impl Observation {
    fn new(sample: &Sample, owners: &BTreeMap<u32, ProcessOwner>) -> Self {
        let devices = sample.devices.iter();
        Self {
            devices: devices.map(|reading| Seen::new(reading, owners)).collect(),
        }
    }

    /// Bytes of each device that others than our workers use. Where owners can't be
    /// told, as in a container that does not see the host's processes, they are what
    /// exceeds what our workers hold by our own account.
    pub(in crate::lifecycle) fn foreign(&self, held: impl Fn(u32) -> u64) -> Vec<(u32, u64)> {
        let foreign = |seen: &Seen| match seen.foreign {
            Some(bytes) => bytes,
            None => seen.used.saturating_sub(held(seen.index)),
        };
        let devices = self.devices.iter();
        devices.map(|seen| (seen.index, foreign(seen))).collect()
    }

    /// Bytes of each device that a worker holds, as far as they were seen.
    pub(in crate::lifecycle) fn of_worker(
        &self,
        id: &DeploymentId,
        generation: Generation,
    ) -> Vec<(u32, u64)> {
        let key = (id.clone(), generation);
        let devices = self.devices.iter();
        let held = devices.filter_map(|seen| Some((seen.index, *seen.workers.get(&key)?)));
        held.collect()
    }
}

impl Seen {
    fn new(reading: &Reading, owners: &BTreeMap<u32, ProcessOwner>) -> Self {
        let mut foreign = Some(0_u64);
        let mut workers = BTreeMap::new();
        for process in &reading.processes {
            match (owners.get(&process.pid), process.memory) {
                (Some(ProcessOwner::Worker(id, generation)), memory) => {
                    let key = (id.clone(), *generation);
                    *workers.entry(key).or_default() += memory.unwrap_or(0);
                    if memory.is_none() {
                        foreign = None;
                    }
                }
                (Some(ProcessOwner::Foreign), Some(memory)) => {
                    foreign = foreign.map(|sum| sum.saturating_add(memory));
                }
                _ => foreign = None,
            }
        }
        // Memory in use without any process: its users are hidden from us.
        if reading.processes.is_empty() {
            foreign = None;
        }
        Self {
            index: reading.index,
            used: reading.memory_used,
            foreign,
            workers,
        }
    }
}

/// Sends an observation for each sample; the conductor takes them in its turns.
pub(in crate::lifecycle) async fn watch(
    mut readings: Readings,
    launcher: Arc<dyn Launcher>,
    observed: mpsc::Sender<Observation>,
) {
    loop {
        let sample = readings.next().await;
        if observed.send(of(sample, &launcher).await).await.is_err() {
            return;
        }
    }
}

/// Bytes of a GPU that a worker that sleeps may hold, however little it held awake: the
/// context of CUDA, graphs, and the buffers of its ranks.
const RESIDUE_BYTES_MAX: u64 = 3 << 30;
/// Time that a worker may take to give its memory back once it says that it sleeps.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks at it.
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// The most that a worker is seen to hold on one GPU; `None` where it can't be
/// told.
pub(in crate::lifecycle) async fn held(
    sample: Arc<Sample>,
    launcher: &Arc<dyn Launcher>,
    (id, generation): (&DeploymentId, Generation),
) -> Option<(u32, u64)> {
    let seen = of(sample, launcher).await.of_worker(id, generation);
    let seen = seen.into_iter().filter(|(_, bytes)| *bytes > 0);
    seen.max_by_key(|(_, bytes)| *bytes)
}

/// Makes sure that a worker which says that it sleeps gave its memory back. Where
/// no sensor tells, it is believed.
pub(in crate::lifecycle) async fn released(
    mut readings: Readings,
    launcher: &Arc<dyn Launcher>,
    whose: (&DeploymentId, Generation),
    before: u64,
) -> Result<(), String> {
    let most = RESIDUE_BYTES_MAX.max(before / 2);
    let mut last = None;
    let look = async {
        loop {
            readings.hurry();
            let sample = readings.next().await;
            // What was read before a failure says nothing of now.
            if sample.fault.is_none() {
                last = held(sample, launcher, whose).await;
                if last.is_none_or(|(_, bytes)| bytes <= most) {
                    return;
                }
            }
            sleep(RELEASE_PAUSE).await;
        }
    };
    if timeout(RELEASE_LIMIT, look).await.is_ok() {
        return Ok(());
    }
    match last {
        Some((gpu, bytes)) => Err(format!(
            "it says that it sleeps, and still holds {} of the {} that it held on GPU {gpu}",
            Bytes(bytes),
            Bytes(before)
        )),
        None => Ok(()),
    }
}

/// Observation of a sample; empty where no device was read yet.
pub(in crate::lifecycle) async fn of(
    sample: Arc<Sample>,
    launcher: &Arc<dyn Launcher>,
) -> Observation {
    let launcher = Arc::clone(launcher);
    let look = tokio::task::spawn_blocking(move || look(&sample, launcher.as_ref()));
    // It fails only when the runtime ends.
    look.await.unwrap_or_default()
}

fn look(sample: &Sample, launcher: &dyn Launcher) -> Observation {
    let processes = sample.devices.iter().flat_map(|device| &device.processes);
    let pids: Vec<u32> = processes.map(|process| process.pid).collect();
    let owners = launcher.owners(&pids);
    Observation::new(sample, &pids.into_iter().zip(owners).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Using;

    fn reading(used: u64, processes: &[(u32, Option<u64>)]) -> Sample {
        let using = |&(pid, memory)| Using { pid, memory };
        Sample {
            at: 1,
            devices: vec![Reading {
                index: 3,
                memory_used: used,
                memory_total: 100,
                processes: processes.iter().map(using).collect(),
                ..Reading::default()
            }],
            fault: None,
        }
    }

    fn id() -> DeploymentId {
        DeploymentId::parse("t/a").unwrap()
    }

    fn seen(used: u64, processes: &[(u32, Option<u64>)]) -> Observation {
        let owners = BTreeMap::from([
            (1, ProcessOwner::Worker(id(), Generation(2))),
            (2, ProcessOwner::Foreign),
            (3, ProcessOwner::Unknown),
        ]);
        Observation::new(&reading(used, processes), &owners)
    }

    #[test]
    fn what_strangers_hold_is_told_from_what_workers_hold() {
        let observation = seen(70, &[(1, Some(40)), (2, Some(25))]);
        assert_eq!(observation.foreign(|_| 0), [(3, 25)]);
        assert_eq!(observation.of_worker(&id(), Generation(2)), [(3, 40)]);
        assert_eq!(observation.of_worker(&id(), Generation(1)), []);
    }

    #[test]
    fn where_owners_are_hidden_what_exceeds_our_account_is_foreign() {
        for hidden in [
            seen(70, &[(1, Some(40)), (3, Some(25))]),
            seen(70, &[(1, None)]),
            seen(70, &[(2, None)]),
            seen(70, &[]),
        ] {
            assert_eq!(hidden.foreign(|_| 40), [(3, 30)], "{hidden:?}");
            assert_eq!(hidden.foreign(|_| 90), [(3, 0)], "{hidden:?}");
        }
    }
}
