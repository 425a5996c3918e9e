//! Walls around a worker: what it can't reach, though it runs as this process's user.
//!
//! Landlock lets a process give up rights for itself and all that it starts. A worker
//! reads everything but what is the gateway's own (its state, its keys, its route
//! files, the files of other workers), and writes only to its own temporary
//! directory, shared memory, devices of its kind and caches. So code that gets into
//! a worker can't read the key of tokens, write a route file, or leave anything where
//! it is run later.
//!
//! A user of its own for each worker would keep them apart still better, and is not
//! what we do even as root: the hub's cache stands in root's closed home, and the
//! virtual environments, sockets and logs in the closed state directory, none of
//! which another user could enter. Root gives up the capabilities that lead around
//! Landlock instead.
//!
//! Files with secrets that settings, upstreams and options name are hidden wherever they
//! lie, but for those of the worker's own options, which it has in its environment. Where
//! such a file lies among what a worker writes, nothing new is made beside it.
//!
//! Caches are shared by the workers of all tenants, and `ps` says so. One of its own for
//! each would fetch every model again (the hub's cache is most of it) and compile it
//! again; and to share only the hub's, read-only, fails the first load of each model,
//! which the worker does. An admin whose tenants must not trust each other's workers gives
//! each a gateway as a user of its own.
//!
//! Landlock before Linux 7.1 can't keep a process from connecting to a socket
//! by its path. The gateway's own sockets refuse workers (see [`super::peer`]); those
//! of other workers can be reached, which [`Walls::words`] says.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::vllm::environment;

/// The variable that tells `worker-exec` what to give up.
pub(super) const WALLS_VARIABLE: &str = "TIDEGATE_WORKER_WALLS";

/// Most entries of a directory that holds something hidden: each other one needs a
/// rule of its own.
const ENTRIES_MAX: usize = 20_000;

/// Variables that name caches and the like, which a worker writes to.
const CACHE_VARIABLES: [&str; 17] = [
    "CUDA_CACHE_PATH",
    "FLASHINFER_WORKSPACE_BASE",
    "HF_ASSETS_CACHE",
    "HF_DATASETS_CACHE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_MODULES_CACHE",
    "HF_XET_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "NUMBA_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TORCH_HOME",
    "TRANSFORMERS_CACHE",
    "TRITON_CACHE_DIR",
    "TRITON_HOME",
    "XDG_CACHE_HOME",
];

/// The same without such a variable, below the home directory.
const CACHES: [&str; 5] = [".cache", ".config/vllm", ".triton", ".nv", ".torch"];

/// Device files that any process may use, and those of GPUs and fast networks, by
/// how their names begin.
const DEVICES: [&str; 18] = [
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
    "ptmx",
    "pts",
    "shm",
    "mqueue",
    "hugepages",
    "nvidia",
    "dri",
    "kfd",
    "infiniband",
    "gdrdrv",
    "nvshmem",
    "xpmem",
];

/// Reach of a worker: what it may and may not use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Walls {
    /// Neither read nor written, with all that is below.
    pub(super) hidden: Vec<PathBuf>,
    /// Read although what it stands in is hidden.
    pub(super) shown: Vec<PathBuf>,
    /// Read and written; made if absent.
    pub(super) writable: Vec<PathBuf>,
    /// True if the start fails where the kernel can't do it.
    pub(super) required: bool,
}

impl Walls {
    /// The caches that a worker with these variables writes to.
    pub(super) fn caches<'a>(
        variable: impl Fn(&str) -> Option<&'a OsStr>,
    ) -> impl Iterator<Item = PathBuf> {
        let variables = CACHE_VARIABLES.iter().chain(&environment::CACHES);
        let named = variables.filter_map(|name| variable(name));
        let named: Vec<PathBuf> = named.map(PathBuf::from).collect();
        let home = variable("HOME").map(PathBuf::from);
        let usual = home
            .into_iter()
            .flat_map(|home| CACHES.map(|cache| home.join(cache)));
        let all: Vec<PathBuf> = named.into_iter().chain(usual).collect();
        all.into_iter().filter(|path| path.is_absolute())
    }

    /// Gives up what the walls say, for this process and all that it starts.
    ///
    /// # Errors
    ///
    /// Fails where it is required and the kernel can't do it, or a rule can't be made.
    pub(super) fn raise(&self) -> io::Result<()> {
        for dir in &self.writable {
            // One that can't be made can't be written to either.
            fs::create_dir_all(dir).unwrap_or_default();
        }
        let rules = self.rules()?;
        let status = restrict(&rules).map_err(io::Error::other)?;
        if status == RulesetStatus::NotEnforced && self.required {
            return Err(io::Error::new(io::ErrorKind::Unsupported, UNSUPPORTED));
        }
        drop_capabilities()
    }

    /// Rules for what is read, what is written, and what is only listed on the way.
    fn rules(&self) -> io::Result<Rules> {
        let real = |paths: &[PathBuf]| -> Vec<PathBuf> {
            let real = paths.iter().filter_map(|path| fs::canonicalize(path).ok());
            real.collect()
        };
        let mut hidden = real(&self.hidden);
        hidden.push(PathBuf::from("/dev"));
        let mut rules = Rules::default();
        below(Path::new("/"), &hidden, &mut rules.read, &mut rules.listed)?;
        for path in real(&self.shown) {
            below(&path, &hidden, &mut rules.read, &mut rules.listed)?;
        }
        for path in real(&self.writable) {
            below(&path, &hidden, &mut rules.written, &mut rules.listed)?;
        }
        let devices = fs::read_dir("/dev").into_iter().flatten().flatten();
        // A link, as `stdout` is one to a pipe, leads to what has its own place or none.
        let devices =
            devices.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
        let devices = devices.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            DEVICES.iter().any(|known| name.starts_with(known))
        });
        rules.written.extend(devices.map(|entry| entry.path()));
        rules.listed.push(PathBuf::from("/dev"));
        Ok(rules)
    }
}

const UNSUPPORTED: &str = "workers.sandbox is \"required\", but this kernel has no Landlock: boot it with lsm=landlock,…, or write workers.sandbox = \"auto\"";

/// Paths by what is granted on them.
#[derive(Debug, Default)]
struct Rules {
    read: Vec<PathBuf>,
    written: Vec<PathBuf>,
    listed: Vec<PathBuf>,
}

/// The largest parts of `path` that hold nothing hidden. Rights count for all that
/// is below, so a directory that holds something hidden gets its entries one by one,
/// and what is made in it later is not reached.
fn below(
    path: &Path,
    hidden: &[PathBuf],
    parts: &mut Vec<PathBuf>,
    listed: &mut Vec<PathBuf>,
) -> io::Result<()> {
    if hidden.iter().any(|hidden| hidden == path) {
        return Ok(());
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(path)) {
        parts.push(path.to_owned());
        return Ok(());
    }
    listed.push(path.to_owned());
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        // It can't be read without Landlock either.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(error) => return Err(error),
    };
    for (count, entry) in entries.enumerate() {
        let entry = entry?;
        if count >= ENTRIES_MAX {
            let text = format!("{} has more than {ENTRIES_MAX} entries", path.display());
            return Err(io::Error::other(text));
        }
        // A link leads to what has its own place in the tree.
        if !entry.file_type()?.is_symlink() {
            below(&entry.path(), hidden, parts, listed)?;
        }
    }
    Ok(())
}

fn restrict(rules: &Rules) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::ResolveUnix;
    let write: BitFlags<AccessFs> = AccessFs::from_all(ABI::V3) | AccessFs::ResolveUnix;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(write)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules(&rules.read, read))?
        .add_rules(path_beneath_rules(&rules.written, write))?
        .add_rules(path_beneath_rules(&rules.listed, AccessFs::ReadDir))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Gives up what leads around the walls: mounts, modules, raw devices, other
/// processes, files by their handles. Not gained again, as Landlock comes with
/// `no_new_privs`. Where there are none, there is nothing to do.
fn drop_capabilities() -> io::Result<()> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::IPC_LOCK
        | CapabilitySet::SYS_NICE
        | CapabilitySet::SYS_RESOURCE;
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective &= kept;
    sets.permitted &= kept;
    sets.inheritable &= kept;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// True if this kernel raises walls: the rights are asked for and not given up.
pub(super) fn are_possible() -> bool {
    can(AccessFs::ReadFile)
}

/// True if walls keep workers from each other's sockets as well.
pub(super) fn close_sockets() -> bool {
    can(AccessFs::ResolveUnix)
}

fn can(access: AccessFs) -> bool {
    let asked = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(access);
    asked.and_then(Ruleset::create).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_something_hidden_is_granted_entry_by_entry() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for path in ["state/keys", "state/run", "models/a", "certs"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink(root.join("certs"), root.join("link")).unwrap();
        let hidden = [root.join("state"), root.join("certs")];
        let (mut parts, mut listed) = (Vec::new(), Vec::new());
        below(&root, &hidden, &mut parts, &mut listed).unwrap();
        parts.sort();
        assert_eq!(parts, [root.join("file"), root.join("models")]);
        assert_eq!(listed, std::slice::from_ref(&root));
        let mut own = Vec::new();
        below(&root.join("state/run"), &hidden, &mut own, &mut listed).unwrap();
        assert_eq!(own, [root.join("state/run")], "shown although hidden above");
    }

    #[test]
    fn caches_are_those_of_the_variables_and_of_the_home() {
        let caches: Vec<PathBuf> = Walls::caches(|name| match name {
            "HF_HOME" => Some(OsStr::new("/hf")),
            "TORCH_HOME" => Some(OsStr::new("relative")),
            "HOME" => Some(OsStr::new("/home/a")),
            _ => None,
        })
        .collect();
        assert!(caches.contains(&"/hf".into()) && caches.contains(&"/home/a/.cache".into()));
        assert!(caches.iter().all(|path| path.is_absolute()));
    }
}
