//! Small files that are whole or absent.
//!
//! Whole for every process that reads them, also after this one was killed. Most
//! are not forced to the disk: what they tell of, workers and their times, does
//! not survive a loss of power either, and a file that such a loss tears is set
//! aside by its reader. Secrets and route files are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a file whole or not at all: beside it first, then renamed. Readable by
/// the owner only.
///
/// # Errors
///
/// Errors of the file system; the old file is then still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (beside, file) = beside(path, bytes)?;
    drop(file);
    or_removed(&beside, fs::rename(&beside, path))
}

/// Writes as [`write_whole`], and forces to the disk: for what a loss of power must not
/// take away.
///
/// # Errors
///
/// Errors of the file system; the old file is then still there, or the new one.
pub fn write_durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (beside, file) = beside(path, bytes)?;
    let moved = file.sync_all().and_then(|()| fs::rename(&beside, path));
    or_removed(&beside, moved)?;
    // A bare name is in the working directory.
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
    let beside = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    or_removed(&beside, file.write_all(bytes))?;
    Ok((beside, file))
}

/// Leaves no half of a file behind: on a full disk each try would leave one more.
fn or_removed(beside: &Path, done: io::Result<()>) -> io::Result<()> {
    if done.is_err() {
        drop(fs::remove_file(beside));
    }
    done
}
