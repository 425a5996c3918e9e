//! Limit of memory for us: the machine's, or the rest that control groups leave of it.

use std::fs;
use std::path::{Path, PathBuf};

use super::parse;

/// Bytes of main memory that this process and its workers may come to; `None` where
/// nothing tells.
pub fn own_memory() -> Option<u64> {
    own_memory_in(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

fn own_memory_in(proc: &Path, groups: &Path) -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let memory = read(&proc.join("meminfo")).and_then(|text| parse::main_memory(&text));
    let own = read(&proc.join("self/cgroup")).unwrap_or_default();
    let (mut files, mut second) = (Vec::new(), false);
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            second = true;
            files.extend(above(groups, path, "memory.max"));
        } else if controllers.split(',').any(|name| name == "memory") {
            let groups = groups.join("memory");
            files.extend(above(&groups, path, "memory.limit_in_bytes"));
        }
    }
    if !second {
        files.push(groups.join("memory.max"));
    }
    // Without a limit it says `max`, or in version 1 more than any machine has.
    let limits = files
        .iter()
        .filter_map(|file| read(file)?.trim().parse().ok());
    limits.chain(memory.map(|memory| memory.total)).min()
}

/// The file of this name of a group and of all above it. In a container the path may be the
/// host's: what is not there is passed over.
fn above(groups: &Path, path: &str, file: &str) -> Vec<PathBuf> {
    let own = groups.join(path.trim_start_matches('/'));
    let all = own
        .ancestors()
        .take_while(|group| group.starts_with(groups));
    all.map(|group| group.join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_any_group_above_us_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, groups) = (dir.path().join("proc"), dir.path().join("groups"));
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = || own_memory_in(&proc, &groups);
        assert_eq!(found(), None);
        write(
            proc.join("meminfo"),
            "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 9 kB\n",
        );
        assert_eq!(found(), Some(1_024_000));
        for (own, file, limit, wanted) in [
            ("0::/a/b\n", "a/b/memory.max", "max", 1_024_000),
            ("0::/a/b\n", "a/memory.max", "9000", 9_000),
            // Of a container that sees its own group as the root.
            ("0::/host/path\n", "memory.max", "7000", 7_000),
            (
                "4:cpu:/x\n3:memory:/x\n",
                "memory/x/memory.limit_in_bytes",
                "5000",
                5_000,
            ),
        ] {
            write(proc.join("self/cgroup"), own);
            write(groups.join(file), limit);
            assert_eq!(found(), Some(wanted), "{own}");
        }
    }
}
