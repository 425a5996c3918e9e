//! Process trees: which processes belong to one, and what they use together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::parse::{self, Transfer};
use super::{HostUsage, float, rates, read};
use crate::proc::Stat;

/// Ticks of processor time per second: Linux tells user space hundredths,
/// whatever its own timer does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Most processes that are looked at; a machine with more is sampled in part.
const PROCESSES_MAX: usize = 100_000;

/// Processes that belong together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// All of a session, by its id: the process id of the worker that began it.
    Session(u32),
    /// These processes and all that descend from them.
    Roots(Vec<u32>),
}

impl Tree {
    /// Its processes among all.
    pub(super) fn of(&self, all: &BTreeMap<u32, Stat>) -> BTreeMap<u32, Stat> {
        match self {
            Self::Session(session) => all
                .iter()
                .filter(|(_, process)| process.session == *session)
                .map(|(pid, process)| (*pid, *process))
                .collect(),
            Self::Roots(roots) => descendants(roots, all),
        }
    }
}

fn descendants(roots: &[u32], all: &BTreeMap<u32, Stat>) -> BTreeMap<u32, Stat> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, process) in all {
        children.entry(process.parent).or_default().push(*pid);
    }
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut next = roots.to_vec();
    while let Some(pid) = next.pop() {
        // Process ids that were used again can make a ring of what was read.
        if let Some(process) = all.get(&pid)
            && seen.insert(pid)
        {
            found.insert(pid, *process);
            next.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Every process that can be read.
pub(super) fn processes(proc: &Path) -> BTreeMap<u32, Stat> {
    let Ok(entries) = fs::read_dir(proc) else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let process = Stat::below(proc, pid)?;
            Some((pid, process))
        })
        .take(PROCESSES_MAX)
        .collect()
}

/// Counters of each process of a tree, by process id and start.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    processes: BTreeMap<(u32, u64), Used>,
}

#[derive(Clone, Copy, Debug)]
struct Used {
    ticks: u64,
    /// `None` where we may not look.
    io: Option<Transfer>,
}

impl Counters {
    pub(super) fn read(proc: &Path, processes: &BTreeMap<u32, Stat>) -> Self {
        let processes = processes.iter().map(|(pid, process)| {
            let io = read(&proc.join(format!("{pid}/io")));
            let used = Used {
                ticks: process.ticks,
                io: io.and_then(|text| parse::process_io(&text)),
            };
            ((*pid, process.start_time), used)
        });
        Self {
            processes: processes.collect(),
        }
    }
}

/// Use by a tree, with rates when there is an earlier reading, so many seconds
/// ago. A process that began since then counts whole; the use by one that has ended
/// since then is not known.
pub(super) fn usage(proc: &Path, now: &Counters, before: Option<(&Counters, f64)>) -> HostUsage {
    let mut usage = HostUsage {
        processes: u32::try_from(now.processes.len()).unwrap_or(u32::MAX),
        ..HostUsage::default()
    };
    for (pid, _) in now.processes.keys() {
        // A process that is gone by now uses nothing.
        if let Some((proportional, resident)) = memory(&proc.join(pid.to_string())) {
            add(&mut usage.memory, proportional);
            add(&mut usage.memory_resident, resident);
        }
    }
    let Some((before, seconds)) = before else {
        return usage;
    };
    let (mut ticks, mut moved) = (0_u64, None);
    for (key, used) in &now.processes {
        let last = before.processes.get(key);
        let ticks_before = last.map_or(0, |last| last.ticks);
        ticks = ticks.saturating_add(used.ticks.saturating_sub(ticks_before));
        if let Some(io) = used.io {
            let io_before = last.and_then(|last| last.io).unwrap_or_default();
            let sum: Transfer = moved.unwrap_or_default();
            moved = Some(sum.plus(io.since(io_before)));
        }
    }
    usage.cpu = Some(float(ticks) / TICKS_PER_SECOND / seconds);
    usage.disk = moved.map(|moved| rates(moved, seconds));
    usage
}

/// Proportional and resident bytes of a process. Where the first can't be read, as
/// of another user's process, the second stands for it.
fn memory(process: &Path) -> Option<(u64, u64)> {
    let rollup = read(&process.join("smaps_rollup")).and_then(|text| {
        let proportional = parse::kilobytes(&text, "Pss:")?;
        Some((proportional, parse::kilobytes(&text, "Rss:")?))
    });
    rollup.or_else(|| {
        let resident = parse::kilobytes(&read(&process.join("status"))?, "VmRSS:")?;
        Some((resident, resident))
    })
}

fn add(sum: &mut Option<u64>, bytes: u64) {
    *sum = Some(sum.unwrap_or_default().saturating_add(bytes));
}
