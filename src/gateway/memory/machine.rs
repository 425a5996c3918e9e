//! How much memory there is for this process: the machine's, or what its control
//! groups leave of it.

use std::fs;
use std::path::Path;

/// What is taken for the machine's where it does not say.
const UNKNOWN: u64 = 1 << 30;

/// Bytes of main memory that this process may come to.
pub fn memory() -> u64 {
    memory_in(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

fn memory_in(proc: &Path, groups: &Path) -> u64 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let total = read(&proc.join("meminfo")).and_then(|text| total(&text));
    let own = read(&proc.join("self/cgroup"));
    // Version 2 has one line, `0::/a/b`. In a container the path may be the host's, so
    // what is not there is passed over, and the root is asked too.
    let own = own.as_deref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("0::/"));
        line.map(|path| groups.join(path))
    });
    let own = own.unwrap_or_else(|| groups.to_owned());
    let limits = own
        .ancestors()
        .take_while(|group| group.starts_with(groups))
        .filter_map(|group| read(&group.join("memory.max")))
        // Without a limit it says `max`.
        .filter_map(|text| text.trim().parse().ok());
    limits.chain(total).min().unwrap_or(UNKNOWN)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_above_us_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, groups) = (dir.path().join("proc"), dir.path().join("groups"));
        fs::create_dir_all(proc.join("self")).unwrap();
        fs::create_dir_all(groups.join("a/b")).unwrap();
        assert_eq!(memory_in(&proc, &groups), UNKNOWN);
        fs::write(proc.join("meminfo"), "MemTotal:  1000 kB\nMemFree: 1 kB\n").unwrap();
        assert_eq!(memory_in(&proc, &groups), 1_024_000);
        fs::write(proc.join("self/cgroup"), "0::/a/b\n").unwrap();
        fs::write(groups.join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(memory_in(&proc, &groups), 1_024_000);
        fs::write(groups.join("a/memory.max"), "5000\n").unwrap();
        assert_eq!(memory_in(&proc, &groups), 5_000);
        // Of a container that sees its own group as the root.
        fs::write(proc.join("self/cgroup"), "0::/host/path\n").unwrap();
        fs::write(groups.join("memory.max"), "7000\n").unwrap();
        assert_eq!(memory_in(&proc, &groups), 7_000);
    }
}
