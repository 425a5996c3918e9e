//! Facts about processes from `/proc`.
//!
//! Reads only. A pid alone never identifies a process here: it goes with a start
//! time, a session, or a proof that the process is of our making.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use crate::lifecycle::act::launcher::WorkerActivity;
use crate::proc::Stat;
use crate::store::workers::ProcessId;

/// The variable that carries a worker's nonce in its environment.
pub(crate) const NONCE_VARIABLE: &str = "TIDEGATE_WORKER_NONCE";

/// The variable that carries the identity of the state directory.
pub(crate) const STATE_VARIABLE: &str = "TIDEGATE_WORKER_STATE";

/// Identifies this boot; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim().to_owned()
}

/// Work of a process so far; `None` when there is none to be seen. Its bytes are 0 where
/// we may not read its counters.
pub(crate) fn usage(pid: u32) -> Option<WorkerActivity> {
    let ticks = Stat::of(pid)?.ticks;
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let counter = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        matches!(name, "rchar" | "wchar" | "read_bytes").then_some(())?;
        value.trim().parse::<u64>().ok()
    };
    Some(WorkerActivity {
        // The kernel counts in hundredths for all to see, whatever its own ticks.
        cpu: Duration::from_millis(ticks.saturating_mul(10)),
        bytes: io.lines().filter_map(counter).sum(),
    })
}

/// True if exactly this process lives (an unreaped one does not).
pub(crate) fn lives(process: &ProcessId) -> bool {
    Stat::of(process.pid)
        .is_some_and(|stat| stat.start_time == process.start_time && stat.state != 'Z')
}

/// True if exactly this process is there, ended and not reaped or alive: its pid is
/// no other's.
pub(crate) fn is_there(process: &ProcessId) -> bool {
    Stat::of(process.pid).is_some_and(|stat| stat.start_time == process.start_time)
}

/// Our children, those that have ended and were not reaped among them.
pub(crate) fn own_children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let lists: io::Result<Vec<String>> = tasks
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("children")))
        .collect();
    let numbers: Vec<u32> = if let Ok(lists) = lists {
        let numbers = lists.iter().flat_map(|list| list.split_ascii_whitespace());
        numbers.filter_map(|pid| pid.parse().ok()).collect()
    } else {
        // A kernel without those lists, or a thread that just ended.
        let own = std::process::id();
        let of_ours = |pid: &u32| Stat::of(*pid).is_some_and(|stat| stat.parent == own);
        pids().into_iter().filter(of_ours).collect()
    };
    let pids = numbers.into_iter();
    pids.filter_map(|pid| Pid::from_raw(pid.cast_signed()))
        .collect()
}

/// Every living process that a process started, or that one of those did.
pub(crate) fn descendants(of: u32) -> Vec<u32> {
    let mut parents: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in pids() {
        if let Some(stat) = Stat::of(pid) {
            parents.entry(stat.parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![of]);
    while let Some(parent) = next.pop() {
        // Removed, so that what changed while it was read can't lead in a circle.
        let children = parents.remove(&parent).unwrap_or_default();
        found.extend_from_slice(&children);
        next.extend(children);
    }
    found
}

/// Every process id there is.
pub(crate) fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    names.collect()
}

/// Marks that tell a worker's processes from all others.
#[derive(Clone, Debug)]
pub(crate) struct Marks<'a> {
    /// In the environment of each, unless it overwrote that memory.
    pub(crate) nonce: &'a str,
    /// The standard output or error of each, unless it redirected them: a file, or
    /// a pipe as `/proc` names it.
    pub(crate) output: &'a Path,
    /// The parent of all that lost theirs, which is no member.
    pub(crate) keeper: Option<&'a ProcessId>,
    /// The leader's pid, which is the session's id too; `None` if not known.
    pub(crate) leader: Option<&'a ProcessId>,
    /// True if the leader still holds its pid, so that no other session can have
    /// this id.
    pub(crate) leader_held: bool,
}

impl Marks<'_> {
    /// The processes of the worker, its leader left out. Ended ones that nobody
    /// has reaped are among them, with state `Z`.
    pub(crate) fn members(&self) -> Vec<(ProcessId, Stat)> {
        let own = std::process::id();
        let leader = self.leader.map(|leader| leader.pid);
        let keeper = self.keeper.filter(|keeper| lives(keeper));
        let kept = keeper.map_or_else(Vec::new, |keeper| descendants(keeper.pid));
        let keeper = keeper.map(|keeper| keeper.pid);
        let others = pids()
            .into_iter()
            .filter(|pid| *pid != own && Some(*pid) != leader && Some(*pid) != keeper);
        let found = others.filter_map(|pid| {
            let stat = Stat::of(pid)?;
            let start_time = stat.start_time;
            let is_member = kept.contains(&pid) || self.is_member(pid, &stat);
            is_member.then_some((ProcessId { pid, start_time }, stat))
        });
        found.collect()
    }

    fn is_member(&self, pid: u32, stat: &Stat) -> bool {
        let of_session = self.leader.is_some_and(|leader| {
            stat.session == leader.pid && stat.start_time >= leader.start_time
        });
        // An engine that sets its title overwrites its environment, so where it
        // writes to is the other proof.
        (of_session && (self.leader_held || holds(pid, self.output))) || has_nonce(pid, self.nonce)
    }
}

/// True if the process was started with this nonce.
pub(crate) fn has_nonce(pid: u32, nonce: &str) -> bool {
    has_variable(pid, NONCE_VARIABLE, nonce)
}

/// True if any process was started with this nonce, but not from this state
/// directory.
pub(crate) fn has_strangers(nonce: &str, state: &str) -> bool {
    let mut named = pids().into_iter().filter(|pid| has_nonce(*pid, nonce));
    named.any(|pid| !has_variable(pid, STATE_VARIABLE, state))
}

fn has_variable(pid: u32, name: &str, value: &str) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let wanted = format!("{name}={value}");
    environ
        .split(|byte| *byte == 0)
        .any(|variable| variable == wanted.as_bytes())
}

/// True if the process writes its standard output or error there.
fn holds(pid: u32, output: &Path) -> bool {
    [1, 2].iter().any(|fd| {
        fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|target| target == output)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_only_with_its_own_start_time() {
        let pid = std::process::id();
        let start_time = Stat::of(pid).unwrap().start_time;
        assert!(lives(&ProcessId { pid, start_time }));
        let start_time = start_time + 1;
        assert!(!lives(&ProcessId { pid, start_time }), "a reused pid");
    }
}
