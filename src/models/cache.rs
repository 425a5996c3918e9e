//! The hub's cache: what lies in it, by whomever it was fetched, and how ours is removed.
//!
//! Its form is that of `huggingface_hub`: `models--ORG--NAME` with `blobs`, which are
//! the contents, `snapshots/COMMIT`, which link to them, and `refs/REVISION`, which
//! name a commit. Calls block on the disk.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::directory::look;
use super::hub::is_below;
use super::record::{FetchRecord, KeptModel};

/// Most models and snapshots that are looked at.
const ENTRIES_MAX: usize = 10_000;
/// Most bytes of a file that names a commit.
const REF_BYTES_MAX: u64 = 256;

/// Part of a model that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wholeness {
    /// All of it.
    Whole,
    /// A part: so many bytes of so many.
    Part {
        /// Bytes that are there.
        there: u64,
        /// Bytes of all; `None`: not known.
        total: Option<u64>,
    },
    /// The fault that it has.
    Broken(String),
}

/// A model in the cache, at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedModel {
    /// Its name.
    pub name: String,
    /// Its commit.
    pub commit: String,
    /// The branches and tags that stand for it.
    pub revisions: Vec<String>,
    /// The directory that an engine loads.
    pub path: PathBuf,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Last read of its weights, as far as the disk notes that, in seconds since 1970.
    pub used: u64,
    /// Part of the model that is there.
    pub wholeness: Wholeness,
    /// Our record of the model; `None`: someone else fetched it.
    pub kept: Option<KeptModel>,
}

/// Part of a model that an engine would find in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All that it needs.
    Whole,
    /// A part that we have fetched, and more is to come.
    Begun,
    /// A part that others brought; perhaps all that it needs.
    Part,
    /// No file that its revision names.
    Nothing,
}

/// Looks how much of a model is in a cache, by its own files and by our record. Blocks.
pub fn presence(
    cache: &Path,
    name: &str,
    revision: Option<&str>,
    record: &[KeptModel],
) -> Presence {
    let Some(snapshot) = snapshot(cache, name, revision) else {
        return Presence::Nothing;
    };
    let mut ours = record.iter();
    let ours = ours.find(|kept| kept.snapshot() == snapshot);
    match ours {
        Some(ours) if !ours.is_whole() => Presence::Begun,
        _ if look(&snapshot).is_ok() => Presence::Whole,
        Some(_) => Presence::Begun,
        None => Presence::Part,
    }
}

/// The directory of a model at a revision; `None` where nothing of it is there. Blocks.
pub fn snapshot(cache: &Path, name: &str, revision: Option<&str>) -> Option<PathBuf> {
    let folder = cache.join(format!("models--{}", name.replace('/', "--")));
    let revision = revision.unwrap_or("main");
    let commit = named(&folder.join("refs").join(revision)).unwrap_or_else(|| revision.to_owned());
    let snapshot = folder.join("snapshots").join(&commit);
    (is_below(&commit) && snapshot.is_dir()).then_some(snapshot)
}

/// The commit that a file of `refs` names. Workers write to the cache too: so no more is
/// read than such a file may hold, and nothing else than a file.
fn named(path: &Path) -> Option<String> {
    let facts = fs::symlink_metadata(path).ok()?;
    if !facts.is_file() || facts.len() > REF_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// Directory where the hub's library keeps models, by the variables that it reads.
pub fn place(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = variable("HOME").map(PathBuf::from);
    let path = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        let path = PathBuf::from(value);
        match (path.strip_prefix("~"), &home) {
            (Ok(below), Some(home)) => Some(home.join(below)),
            _ => std::path::absolute(path).ok(),
        }
    };
    let hub = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
    if let Some(cache) = hub.iter().find_map(|name| path(name)) {
        return Some(cache);
    }
    let above = path("HF_HOME").or_else(|| {
        let cache = path("XDG_CACHE_HOME");
        let cache = cache.or_else(|| home.as_ref().map(|home| home.join(".cache")));
        Some(cache?.join("huggingface"))
    });
    Some(above?.join("hub"))
}

/// Everything in a cache, and what is on record elsewhere.
pub fn scan(cache: &Path, record: &[KeptModel]) -> Vec<CachedModel> {
    let mut found = Vec::new();
    for folder in entries(cache) {
        let name = folder.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_prefix("models--")) else {
            continue;
        };
        let name = name.replacen("--", "/", 1);
        for snapshot in entries(&folder.join("snapshots")) {
            let commit = snapshot.file_name().unwrap_or_default();
            let commit = commit.to_string_lossy().into_owned();
            let kept = |kept: &&KeptModel| kept.folder == folder && kept.commit == commit;
            let kept = record.iter().find(kept);
            found.push(cached(&folder, &name, &commit, kept));
        }
    }
    // Those of other caches, and those of which only pieces are there.
    for kept in record {
        let is_known = |known: &CachedModel| known.kept.as_ref() == Some(kept);
        if !found.iter().any(is_known) {
            found.push(cached(&kept.folder, &kept.name, &kept.commit, Some(kept)));
        }
    }
    found.sort_by(|a, b| (&a.name, &a.commit).cmp(&(&b.name, &b.commit)));
    found
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = listed.map(|entry| entry.path()).take(ENTRIES_MAX).collect();
    paths.sort();
    paths
}

fn cached(folder: &Path, name: &str, commit: &str, kept: Option<&KeptModel>) -> CachedModel {
    let path = folder.join("snapshots").join(commit);
    let (mut bytes, mut used) = (0, 0);
    let mut seen = HashSet::new();
    walk(&path, 0, &mut |file| {
        let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        if let (Ok(facts), true) = (fs::metadata(file), seen.insert(real)) {
            bytes += facts.len();
            let accessed = facts.accessed().or_else(|_| facts.modified());
            let accessed = accessed
                .ok()
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            used = used.max(accessed.map_or(0, |at| at.as_secs()));
        }
    });
    let wholeness = match kept {
        Some(kept) if kept.is_whole() => Wholeness::Whole,
        Some(kept) => {
            let there = kept.there();
            bytes = bytes.max(there);
            Wholeness::Part {
                there,
                total: Some(kept.total()),
            }
        }
        None => match look(&path) {
            Ok(_) => Wholeness::Whole,
            Err(_) if is_under_way(folder) => Wholeness::Part {
                there: bytes,
                total: None,
            },
            Err(why) => Wholeness::Broken(why),
        },
    };
    CachedModel {
        name: name.to_owned(),
        commit: commit.to_owned(),
        revisions: revisions(folder, commit),
        path,
        bytes,
        used: used.max(kept.map_or(0, |kept| kept.fetched)),
        wholeness,
        kept: kept.cloned(),
    }
}

/// True if a file of the model is being written, or was when that was broken off.
fn is_under_way(folder: &Path) -> bool {
    let blobs = entries(&folder.join("blobs"));
    blobs
        .iter()
        .any(|path| path.extension().is_some_and(|ext| ext == "incomplete"))
}

/// Calls for every file below, links included.
fn walk(directory: &Path, depth: usize, each: &mut dyn FnMut(&Path)) {
    for path in entries(directory) {
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_dir());
        if !is_directory {
            each(&path);
        } else if depth < 8 {
            walk(&path, depth + 1, each);
        }
    }
}

/// The branches and tags that stand for a commit.
fn revisions(folder: &Path, commit: &str) -> Vec<String> {
    let refs = folder.join("refs");
    let mut found = Vec::new();
    walk(&refs, 0, &mut |file| {
        let is_its = fs::read_to_string(file).is_ok_and(|text| text.trim() == commit);
        if let (true, Ok(name)) = (is_its, file.strip_prefix(&refs)) {
            found.push(name.to_string_lossy().into_owned());
        }
    });
    found
}

/// Removes what we brought of a model, and nothing else; returns the bytes that it took.
/// What another commit links to stays. The caller holds its [`ModelLock`](super::lock::ModelLock).
///
/// # Errors
///
/// The disk refuses; files that are left stay on record.
pub fn remove(kept: &KeptModel, record: &FetchRecord) -> io::Result<u64> {
    let snapshot = kept.snapshot();
    let mut freed = 0;
    for file in kept.files.iter().filter(|file| file.ours) {
        let pointer = snapshot.join(&file.name);
        let facts = fs::symlink_metadata(&pointer);
        if let Ok(facts) = &facts
            && !facts.is_dir()
        {
            fs::remove_file(&pointer)?;
            // A disk without links has the content here.
            freed += if facts.is_symlink() { 0 } else { facts.len() };
            empty_up_to(pointer.parent(), &kept.folder);
        }
    }
    let linked = links(&kept.folder);
    for file in kept.files.iter().filter(|file| file.ours) {
        let paths = [file.content(&kept.folder), file.part(&kept.folder)];
        for path in paths.into_iter().flatten() {
            let facts = fs::symlink_metadata(&path);
            let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            if let Ok(facts) = facts
                && !linked.contains(&real)
            {
                fs::remove_file(&path)?;
                freed += facts.len();
            }
        }
    }
    if !snapshot.exists() {
        let reference = kept.folder.join("refs").join(&kept.revision);
        if fs::read_to_string(&reference).is_ok_and(|text| text.trim() == kept.commit) {
            fs::remove_file(&reference)?;
            empty_up_to(reference.parent(), &kept.folder);
        }
    }
    for directory in ["snapshots", "blobs", "refs"] {
        empty_up_to(Some(&kept.folder.join(directory)), &kept.folder);
    }
    // Only where nothing else is in it.
    fs::remove_dir(&kept.folder).unwrap_or_default();
    record.forget(kept).map_err(io::Error::other)?;
    Ok(freed)
}

/// Contents that the snapshots of a model link to.
fn links(folder: &Path) -> HashSet<PathBuf> {
    let mut linked = HashSet::new();
    walk(&folder.join("snapshots"), 0, &mut |file| {
        linked.extend(fs::canonicalize(file).ok());
    });
    linked
}

/// Removes empty directories upwards, not that one.
fn empty_up_to(from: Option<&Path>, end: &Path) {
    let above = from.into_iter().flat_map(Path::ancestors);
    for directory in above.take_while(|path| *path != end && path.starts_with(end)) {
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
