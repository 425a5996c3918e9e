//! Use of this machine and of the workers' process trees: processors, memory,
//! disks, network, as Linux tells it under `/proc` and in control groups.
//!
//! A [`Sampler`] keeps the last reading of every counter and makes rates of two;
//! the first sample has none. What can't be read is `None`, never an error: a
//! process may be gone at any moment, and a container may hide a file. GPUs are
//! not known here: their inventory records its own gauges.
//!
//! Every call reads many small files and blocks: async callers use
//! `spawn_blocking`. The memory of a tree is counted by the kernel page by page,
//! for a large worker up to tenths of a second.

mod limit;
mod parse;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::history::{Gauge, Recorder, Scope};
use crate::time::Uptime;
use crate::units::float;
use parse::{CpuTimes, Transfer};

pub use limit::own_memory;
pub use tree::Tree;

/// Use of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostSample {
    /// Processors in use, over the time since the last sample.
    pub cpu: Option<f64>,
    /// Number of processors.
    pub processors: Option<u32>,
    /// Bytes of main memory.
    pub memory_total: Option<u64>,
    /// Bytes of it that could not be given to a new process.
    pub memory_used: Option<u64>,
    /// Bytes per second from and to the network, without the loopback.
    pub network: Option<HostRates>,
    /// Bytes per second from and to whole disks.
    pub disk: Option<HostRates>,
}

/// Use by a process tree or a control group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostUsage {
    /// Processors in use, over the time since the last sample.
    pub cpu: Option<f64>,
    /// Bytes of memory: of a tree, its proportional set size where that can be read.
    pub memory: Option<u64>,
    /// Bytes resident in each process, shared ones counted in each; of trees only.
    pub memory_resident: Option<u64>,
    /// Bytes per second from and to disks.
    pub disk: Option<HostRates>,
    /// Number of processes; of trees only.
    pub processes: u32,
}

/// Bytes per second in two directions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostRates {
    /// Received, or read.
    pub taken: f64,
    /// Sent, or written.
    pub given: f64,
}

impl HostSample {
    /// Records what is known as gauges of the host.
    pub fn record(&self, recorder: &Recorder) {
        let disk = self.disk;
        let network = self.network;
        for (gauge, value) in [
            (Gauge::Cpu, self.cpu),
            (Gauge::Memory, self.memory_used.map(float)),
            (Gauge::NetworkReceived, network.map(|rates| rates.taken)),
            (Gauge::NetworkSent, network.map(|rates| rates.given)),
            (Gauge::DiskRead, disk.map(|rates| rates.taken)),
            (Gauge::DiskWritten, disk.map(|rates| rates.given)),
        ] {
            if let Some(value) = value {
                recorder.gauge(&Scope::Host, gauge, value);
            }
        }
    }
}

impl HostUsage {
    /// Records what is known as gauges of a scope: [`Scope::Worker`].
    pub fn record(&self, recorder: &Recorder, scope: &Scope) {
        for (gauge, value) in [
            (Gauge::Cpu, self.cpu),
            (Gauge::Memory, self.memory.map(float)),
            (Gauge::MemoryResident, self.memory_resident.map(float)),
            (Gauge::DiskRead, self.disk.map(|rates| rates.taken)),
            (Gauge::DiskWritten, self.disk.map(|rates| rates.given)),
        ] {
            if let Some(value) = value {
                recorder.gauge(scope, gauge, value);
            }
        }
    }
}

/// Reads counters and makes rates of them.
#[derive(Debug)]
pub struct Sampler {
    proc: PathBuf,
    machine: Option<Reading<MachineCounters>>,
    trees: BTreeMap<Tree, Reading<tree::Counters>>,
    groups: BTreeMap<PathBuf, Reading<GroupCounters>>,
}

/// Counters, and when they were read.
#[derive(Clone, Debug)]
struct Reading<T> {
    at: Uptime,
    counters: T,
}

impl<T> Reading<T> {
    /// Seconds since this reading; `None` when no time has passed.
    fn seconds_until(&self, now: Uptime) -> Option<f64> {
        let passed = now.saturating_sub(self.at);
        (passed > Duration::ZERO).then_some(passed.as_secs_f64())
    }
}

#[derive(Clone, Debug, Default)]
struct MachineCounters {
    cpu: Option<CpuTimes>,
    interfaces: Option<BTreeMap<String, Transfer>>,
    disks: Option<BTreeMap<String, Transfer>>,
}

#[derive(Clone, Debug, Default)]
struct GroupCounters {
    cpu_micros: Option<u64>,
    io: Option<Transfer>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::of("/proc")
    }
}

impl Sampler {
    /// Samples from another place than `/proc`, which looks the same.
    pub fn of(proc: impl Into<PathBuf>) -> Self {
        Self {
            proc: proc.into(),
            machine: None,
            trees: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    /// Samples the machine.
    pub fn machine(&mut self, now: Uptime) -> HostSample {
        let counters = MachineCounters {
            cpu: read(&self.proc.join("stat")).and_then(|text| parse::cpu_times(&text)),
            interfaces: read(&self.proc.join("net/dev")).map(|text| parse::interfaces(&text)),
            disks: read(&self.proc.join("diskstats")).map(|text| parse::disks(&text)),
        };
        let memory = read(&self.proc.join("meminfo")).and_then(|text| parse::main_memory(&text));
        let mut machine = HostSample {
            processors: counters.cpu.map(|cpu| cpu.processors),
            memory_total: memory.map(|memory| memory.total),
            memory_used: memory.map(|memory| memory.total.saturating_sub(memory.available)),
            ..HostSample::default()
        };
        if let Some(before) = &self.machine
            && let Some(seconds) = before.seconds_until(now)
        {
            let last = &before.counters;
            machine.cpu = cores_in_use(last.cpu, counters.cpu);
            machine.network = rates_of(
                last.interfaces.as_ref(),
                counters.interfaces.as_ref(),
                seconds,
            );
            machine.disk = rates_of(last.disks.as_ref(), counters.disks.as_ref(), seconds);
        }
        self.machine = Some(Reading { at: now, counters });
        machine
    }

    /// Samples process trees, in their order; `None` for those without a process.
    /// Trees that are no longer asked for are forgotten.
    pub fn trees(&mut self, now: Uptime, trees: &[Tree]) -> Vec<Option<HostUsage>> {
        let processes = tree::processes(&self.proc);
        let mut readings = BTreeMap::new();
        let usages = trees
            .iter()
            .map(|tree| {
                let found = tree.of(&processes);
                if found.is_empty() {
                    return None;
                }
                let counters = tree::Counters::read(&self.proc, &found);
                let before = self.trees.get(tree);
                let before =
                    before.and_then(|last| Some((&last.counters, last.seconds_until(now)?)));
                let usage = tree::usage(&self.proc, &counters, before);
                readings.insert(tree.clone(), Reading { at: now, counters });
                Some(usage)
            })
            .collect();
        self.trees = readings;
        usages
    }

    /// Samples a control group of version 2, by its directory; `None` when it is gone.
    pub fn group(&mut self, now: Uptime, directory: &Path) -> Option<HostUsage> {
        let counters = GroupCounters {
            cpu_micros: read(&directory.join("cpu.stat")).and_then(|text| parse::group_cpu(&text)),
            io: read(&directory.join("io.stat")).map(|text| parse::group_io(&text)),
        };
        let memory = read(&directory.join("memory.current"));
        let memory = memory.and_then(|text| text.trim().parse().ok());
        if counters.cpu_micros.is_none() && counters.io.is_none() && memory.is_none() {
            self.groups.remove(directory);
            return None;
        }
        let mut usage = HostUsage {
            memory,
            ..HostUsage::default()
        };
        if let Some(before) = self.groups.get(directory)
            && let Some(seconds) = before.seconds_until(now)
        {
            let last = &before.counters;
            if let (Some(last), Some(micros)) = (last.cpu_micros, counters.cpu_micros) {
                usage.cpu = Some(float(micros.saturating_sub(last)) / 1e6 / seconds);
            }
            if let (Some(last), Some(io)) = (last.io, counters.io) {
                usage.disk = Some(rates(io.since(last), seconds));
            }
        }
        let reading = Reading { at: now, counters };
        self.groups.insert(directory.to_owned(), reading);
        Some(usage)
    }
}

/// Processors in use between two readings.
fn cores_in_use(before: Option<CpuTimes>, after: Option<CpuTimes>) -> Option<f64> {
    let (before, after) = (before?, after?);
    let total = after
        .total
        .checked_sub(before.total)
        .filter(|ticks| *ticks > 0)?;
    // The kernel lets idle time go back a little at times.
    let busy = after.busy.saturating_sub(before.busy).min(total);
    Some(float(busy) / float(total) * f64::from(after.processors))
}

/// Rates of all devices together; one that is new, or was reset, adds nothing yet.
fn rates_of(
    before: Option<&BTreeMap<String, Transfer>>,
    after: Option<&BTreeMap<String, Transfer>>,
    seconds: f64,
) -> Option<HostRates> {
    let (before, after) = (before?, after?);
    let moved = after.iter().filter_map(|(name, transfer)| {
        let last = before.get(name)?;
        Some(transfer.since(*last))
    });
    Some(rates(
        moved.fold(Transfer::default(), Transfer::plus),
        seconds,
    ))
}

fn rates(moved: Transfer, seconds: f64) -> HostRates {
    HostRates {
        taken: float(moved.taken) / seconds,
        given: float(moved.given) / seconds,
    }
}

fn read(path: &Path) -> Option<String> {
    // Names of processes need not be UTF-8.
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
