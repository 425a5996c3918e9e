//! Small files that are whole or absent.
//!
//! Whole for every process that reads them, also after this one was killed. They
//! are not forced to the disk: what they tell of, workers and their times, does
//! not survive a loss of power either, and a file that such a loss tears is set
//! aside by whoever reads it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file whole or not at all: beside it first, then renamed. Readable by
/// the owner only.
///
/// # Errors
///
/// Those of the file system; the old file is then still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&beside, path)
}
