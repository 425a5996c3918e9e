//! Shared memory that a killed worker leaves in `/dev/shm`.
//!
//! vLLM's processes talk through files there, which they remove when they end by
//! themselves; a force-kill leaves them, hundreds of megabytes at a time. What a
//! worker's processes had open is noted while they live, and removed after them
//! unless someone else holds it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::proc;

/// Directory in which the kernel keeps shared memory with names.
const SHARED: &str = "/dev/shm/";

/// Prefixes of the names that Python's `multiprocessing`, NCCL and `PyTorch` give.
/// Others might be meant to outlive their makers.
const NAMES: [&str; 4] = ["psm_", "sem.mp-", "nccl-", "torch_"];

/// Files that these processes have open there.
pub(super) fn of(pids: impl IntoIterator<Item = u32>) -> BTreeSet<PathBuf> {
    pids.into_iter().flat_map(held).collect()
}

/// Removes what is left of these files. One that a living process holds stays, as
/// does one of another user.
pub(super) fn clean(files: &BTreeSet<PathBuf>) {
    let user = rustix::process::getuid().as_raw();
    let ours = |path: &&PathBuf| {
        is_known(path) && fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == user)
    };
    let left: Vec<&PathBuf> = files.iter().filter(ours).collect();
    if left.is_empty() {
        return;
    }
    let in_use = of(proc::pids());
    for path in left.into_iter().filter(|path| !in_use.contains(*path)) {
        match fs::remove_file(path) {
            Ok(()) => tracing::debug!(path = %path.display(), "removed what a worker left"),
            Err(error) => tracing::debug!(path = %path.display(), %error, "shared memory stays"),
        }
    }
}

fn is_known(path: &Path) -> bool {
    let name = path.strip_prefix(SHARED).ok().and_then(Path::to_str);
    name.is_some_and(|name| !name.contains('/') && NAMES.iter().any(|n| name.starts_with(n)))
}

/// Files that a process has open there: mapped, or by a descriptor.
fn held(pid: u32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| {
        let at = line.find(SHARED)?;
        line.get(at..).map(PathBuf::from)
    });
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    let descriptors = descriptors.into_iter().flatten().flatten();
    let open = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    mapped
        .chain(open)
        .filter(|path| is_known(path) && !path.to_string_lossy().ends_with(" (deleted)"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_someone_holds_stays_and_what_no_one_holds_goes() {
        let name = |what: &str| PathBuf::from(format!("{SHARED}{what}{}", std::process::id()));
        let (held, left, other) = (name("psm_held_"), name("psm_left_"), name("mine_"));
        for path in [&held, &left, &other] {
            fs::write(path, "x").unwrap();
        }
        let open = fs::File::open(&held).unwrap();
        assert!(of([std::process::id()]).contains(&held));
        clean(&[held.clone(), left.clone(), other.clone()].into());
        assert!(held.exists() && !left.exists() && other.exists());
        drop(open);
        clean(&[held.clone()].into());
        assert!(!held.exists());
        fs::remove_file(other).unwrap();
    }
}
