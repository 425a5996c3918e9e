//! Use by a process tree, read from `/proc`.
//!
//! Owns the reading of CPU time and memory of a process with all its descendants. CPU
//! time counts user and system time of living and of reaped processes, in the kernel's
//! ticks (10 ms), so a measurement should take a second or more. Memory is the
//! proportional set size, which shares what is shared; socket buffers in the kernel are
//! not in it, for any contestant. Samples only; never slows what it watches by a signal.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::error::{BenchError, During};

/// Figures of one process in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time of its own and of its reaped children, in ticks.
    ticks: u64,
}

/// User and system time of the tree under `root`, since its processes began.
pub(crate) fn cpu_time(root: u32) -> Result<Duration, BenchError> {
    let stats = stats()?;
    let ticks: u64 = tree(root, &stats)
        .iter()
        .filter_map(|pid| stats.get(pid))
        .map(|stat| stat.ticks)
        .sum();
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(ticks_per_second());
    Ok(Duration::from_nanos(
        u64::try_from(nanos).unwrap_or(u64::MAX),
    ))
}

/// Proportional set size of the tree under `root`, in KiB.
pub(crate) fn memory_kib(root: u32) -> Result<u64, BenchError> {
    let mut sum = 0;
    for pid in tree(root, &stats()?) {
        let path = format!("/proc/{pid}/smaps_rollup");
        match fs::read_to_string(&path) {
            Ok(text) => sum += parse_pss(&text).unwrap_or(0),
            // It ended since the tree was read.
            Err(_) if pid != root => {}
            Err(error) => return Err(error).during(|| format!("read {path}")),
        }
    }
    Ok(sum)
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// The stats of all processes.
fn stats() -> Result<HashMap<u32, Stat>, BenchError> {
    let processes = fs::read_dir("/proc").during(|| "read /proc".to_owned())?;
    Ok(processes
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_stat(&text)?))
        })
        .collect())
}

/// `root` and its descendants.
fn tree(root: u32, stats: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        at += 1;
        let children = stats.iter().filter(|(_, stat)| stat.parent == parent);
        found.extend(children.map(|(pid, _)| *pid));
    }
    found
}

/// Fields after the command, which stands in parentheses and may hold some itself.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(field(4)?).ok()?,
        ticks: field(14)? + field(15)? + field(16)? + field(17)?,
    })
}

fn parse_pss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "71 (nginx: a) (b c) S 70 71 71 0 -1 4194304 99 0 1 0 11 22 33 44 20 0 1 0 9 8";
        let stat = parse_stat(text).unwrap();
        assert_eq!(
            stat,
            Stat {
                parent: 70,
                ticks: 110
            }
        );
        assert_eq!(parse_stat("71 (x) S"), None);
    }

    #[test]
    fn the_tree_holds_descendants_and_nobody_else() {
        let stats: HashMap<u32, Stat> = [(1, 0), (2, 1), (3, 2), (4, 2), (5, 1), (6, 4)]
            .map(|(pid, parent)| (pid, Stat { parent, ticks: 1 }))
            .into();
        let mut found = tree(2, &stats);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4, 6]);
    }

    #[test]
    fn the_proportional_set_size_is_read_in_kib() {
        let text =
            "55e9-7ffc ---p 0 00:00 0 [rollup]\nRss:  1580 kB\nPss:   331 kB\nPss_Dirty: 112 kB\n";
        assert_eq!(parse_pss(text), Some(331));
        assert_eq!(parse_pss("Rss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_cpu_time_that_grows() {
        let own = std::process::id();
        assert!(memory_kib(own).unwrap() > 100);
        let before = cpu_time(own).unwrap();
        let mut sum = 0u64;
        while cpu_time(own).unwrap() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
