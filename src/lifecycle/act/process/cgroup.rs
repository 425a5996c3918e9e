//! A control group for each worker, where this process may make some.
//!
//! Its members can't leave it unseen, so nothing that a worker starts escapes the
//! kill; the kernel counts their memory and their kills for want of it, and holds
//! them to a limit. Where there is no right to make groups, sessions and marks do
//! what they can (see [`super::proc`]). Groups of version 1 are not used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The variable that tells `worker-exec` which group to enter.
pub(crate) const GROUP_VARIABLE: &str = "TIDEGATE_WORKER_CGROUP";

/// Weight of a worker's processors against the gateway's, which has 100.
const CPU_WEIGHT: &str = "50";

/// Name of the group that this process moves into, so that its own may have
/// groups below it.
const GATEWAY: &str = "gateway";

/// Prefix of our directories' names.
const PREFIX: &str = "tidegate-";

/// Place where the groups of workers are made.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    base: PathBuf,
    memory: bool,
}

impl Groups {
    /// Makes a place for groups below our own, if that is allowed. `tag` tells
    /// the state directory from others.
    ///
    /// # Errors
    ///
    /// Reason why there is none.
    pub(super) fn prepare(tag: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mount = mount_of(&mounts).ok_or("cgroup v2 is not mounted")?;
        let own = own_group(&own).ok_or("this process is in no cgroup v2")?;
        if own == "/" && is_systemd() {
            return Err("the root group is systemd's".to_owned());
        }
        let parent = mount.join(own.trim_start_matches('/'));
        let (parent, place) = place(&parent, own == "/");
        Self::below(&parent, tag, place).map_err(|error| format!("{}: {error}", parent.display()))
    }

    fn below(parent: &Path, tag: &str, place: Own) -> io::Result<Self> {
        let base = parent.join(format!("{PREFIX}{tag}"));
        made(&base)?;
        // A group with processes of its own gives no controllers to those below.
        let offered = has_controllers(parent, "cgroup.controllers");
        if place == Own::Movable && offered && !has_controllers(parent, "cgroup.subtree_control") {
            let own = parent.join(GATEWAY);
            let moved = made(&own).and_then(|()| fs::write(own.join("cgroup.procs"), "0"));
            if let Err(error) = moved {
                tracing::debug!(%error, "controllers stay as they are");
            }
        }
        if place == Own::Kept {
            return Ok(Self {
                base,
                memory: false,
            });
        }
        for group in [parent, &base] {
            for controller in ["+memory", "+cpu"] {
                // What is not to be had shows below.
                fs::write(group.join("cgroup.subtree_control"), controller).unwrap_or_default();
            }
        }
        Ok(Self {
            memory: has_controllers(&base, "cgroup.subtree_control"),
            base,
        })
    }

    /// True if memory can be limited.
    pub(super) fn limits_memory(&self) -> bool {
        self.memory
    }

    /// The path of a worker's group, whether or not it is there.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Makes the group of a worker.
    ///
    /// # Errors
    ///
    /// Fails when the group can't be made, or the limit can't be set.
    pub(super) fn make(&self, name: &str, memory_max: Option<u64>) -> io::Result<PathBuf> {
        let group = self.path(name);
        made(&group)?;
        if let Some(bytes) = memory_max {
            fs::write(group.join("memory.max"), bytes.to_string())?;
            // Swapping weights out and in again is slower than to fail.
            fs::write(group.join("memory.swap.max"), "0").unwrap_or_default();
        }
        fs::write(group.join("cpu.weight"), CPU_WEIGHT).unwrap_or_default();
        Ok(group)
    }
}

/// Fate of the group that this process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// It stays in it: the root, or one beside those of the workers.
    Beside,
    /// It may leave it for one below.
    Movable,
    /// systemd will start the service there again, which the kernel refuses once groups
    /// below have controllers and members, as workers that go on.
    Kept,
}

/// Place of the workers' groups, for a process in `own`, and the fate of `own`.
fn place(own: &Path, is_root: bool) -> (PathBuf, Own) {
    // A process that replaced itself finds itself where it moved, and systemd from 254 on
    // starts it there by `DelegateSubgroup=gateway`.
    let of_service = |group: &Path| group.extension().is_some_and(|kind| kind == "service");
    match own.parent() {
        Some(above) if own.ends_with(GATEWAY) && (has_ours(above) || of_service(above)) => {
            (above.to_owned(), Own::Beside)
        }
        _ if is_root => (own.to_owned(), Own::Beside),
        _ if of_service(own) => (own.to_owned(), Own::Kept),
        _ => (own.to_owned(), Own::Movable),
    }
}

/// The group of one worker, by its path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group<'a>(&'a Path);

impl<'a> Group<'a> {
    /// The group of a record, if it can only be that worker's: a path from a file
    /// is not trusted to name what is to be killed.
    pub(super) fn of(path: Option<&'a Path>, name: &str) -> Option<Self> {
        let path = path?;
        let base = path.parent()?.file_name()?.to_str()?;
        let ours = path.ends_with(name) && base.starts_with(PREFIX);
        (ours && path.join("cgroup.procs").exists()).then_some(Self(path))
    }

    /// Kills every member, also those that are just being made.
    pub(super) fn kill(self) {
        // Kernels before 5.14 have no such file; the marks do it there.
        fs::write(self.0.join("cgroup.kill"), "1").unwrap_or_default();
    }

    /// True if a member lives.
    pub(super) fn is_populated(self) -> bool {
        counter(&self.0.join("cgroup.events"), "populated").is_some_and(|count| count > 0)
    }

    /// The members that live.
    pub(super) fn members(self) -> Vec<u32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// True if the kernel killed a member for want of memory.
    pub(super) fn was_out_of_memory(self) -> bool {
        counter(&self.0.join("memory.events"), "oom_kill").is_some_and(|count| count > 0)
    }

    /// Removes the group, which is empty.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_dir(self.0) {
            tracing::debug!(group = %self.0.display(), %error, "a control group stays");
        }
    }
}

/// Enters a group, as `worker-exec` does before it becomes the engine.
pub(super) fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// True if a process is in the group of a worker, of ours or of another gateway's.
pub(super) fn is_of_worker(pid: u32) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    own_group(&groups).is_some_and(is_below_ours)
}

/// True if a group stands below one of ours.
fn is_below_ours(group: &str) -> bool {
    let mut parts = group
        .split('/')
        .skip_while(|part| !part.starts_with(PREFIX));
    parts.next().is_some() && parts.next().is_some_and(|name| name != GATEWAY)
}

fn made(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn has_ours(group: &Path) -> bool {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with(PREFIX))
}

fn has_controllers(group: &Path, file: &str) -> bool {
    let text = fs::read_to_string(group.join(file)).unwrap_or_default();
    text.split_ascii_whitespace().any(|name| name == "memory")
}

fn counter(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found?.trim().parse().ok()
}

fn mount_of(mounts: &str) -> Option<PathBuf> {
    let fields = mounts.lines().map(|line| line.split_ascii_whitespace());
    let mut found = fields.filter_map(|mut fields| {
        let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    });
    found.next_back()
}

fn own_group(groups: &str) -> Option<&str> {
    let found = groups.lines().find_map(|line| line.strip_prefix("0::"));
    // One that was removed, or is outside of what we see, is no place for others.
    found.filter(|path| !path.ends_with(" (deleted)") && !path.starts_with("/.."))
}

fn is_systemd() -> bool {
    fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "systemd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_place_is_found_in_either_layout() {
        let mounts = "cgroup /sys/fs/cgroup/memory cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            mount_of(mounts),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(mount_of("proc /proc proc rw 0 0\n"), None);
        let groups = "4:memory:/a\n0::/system.slice/tidegate.service\n";
        assert_eq!(own_group(groups), Some("/system.slice/tidegate.service"));
        assert_eq!(own_group("0::/../x\n"), None);
        assert_eq!(own_group("4:memory:/a\n"), None);
    }

    #[test]
    fn the_group_of_a_service_stays_fit_for_its_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let service = dir.path().join("system.slice/tidegate.service");
        let subgroup = service.join(GATEWAY);
        let other = dir.path().join("docker/0123");
        for group in [&subgroup, &other] {
            fs::create_dir_all(group).unwrap();
        }
        let of = |group: &Path| place(group, false);
        assert_eq!(of(&service), (service.clone(), Own::Kept));
        assert_eq!(of(&subgroup), (service.clone(), Own::Beside));
        assert_eq!(of(&other), (other.clone(), Own::Movable));
        assert_eq!(place(dir.path(), true), (dir.path().into(), Own::Beside));
        // One of that name that no one of ours made.
        let chance = other.join(GATEWAY);
        fs::create_dir_all(&chance).unwrap();
        assert_eq!(of(&chance), (chance.clone(), Own::Movable));
        fs::create_dir_all(other.join("tidegate-12ab")).unwrap();
        assert_eq!(of(&chance), (other, Own::Beside));

        let groups = Groups::below(&service, "x", Own::Kept).unwrap();
        assert!(!groups.limits_memory());
        assert!(!service.join("cgroup.subtree_control").exists());
    }

    #[test]
    fn a_worker_is_told_by_its_group() {
        for (group, worker) in [
            ("/a/tidegate-12ab/0123456789ab", true),
            ("/tidegate-12ab/0123456789ab/deeper", true),
            ("/a/gateway", false),
            ("/system.slice/tidegate.service", false),
            ("/system.slice/tidegate-other.service", false),
            ("/", false),
        ] {
            assert_eq!(is_below_ours(group), worker, "{group}");
        }
    }

    #[test]
    fn a_path_that_is_not_that_workers_group_is_never_killed() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("tidegate-x/abc");
        fs::create_dir_all(&group).unwrap();
        assert!(Group::of(Some(&group), "abc").is_none(), "no group at all");
        fs::write(group.join("cgroup.procs"), "").unwrap();
        assert!(Group::of(Some(&group), "abc").is_some());
        assert!(Group::of(Some(&group), "def").is_none());
        let foreign = dir.path().join("system.slice/abc");
        fs::create_dir_all(&foreign).unwrap();
        fs::write(foreign.join("cgroup.procs"), "").unwrap();
        assert!(Group::of(Some(&foreign), "abc").is_none());
        assert!(Group::of(None, "abc").is_none());
    }
}
