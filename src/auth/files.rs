//! Files that are whole or absent, with their mode from the first byte on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Readable by the owner only: keys.
pub(super) const PRIVATE: u32 = 0o600;
/// Readable by all: certificates.
pub(super) const PUBLIC: u32 = 0o644;

/// A file written beside its place, and removed again unless it is put there.
pub(super) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
}

impl Staged {
    /// Writes `content` to disk beside `target`, whose directories are made.
    pub(super) fn write(target: &Path, content: &[u8], mode: u32) -> io::Result<Self> {
        let directory = directory(target);
        fs::create_dir_all(directory)?;
        let mut random = [0_u8; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(io::Error::other)?;
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let unique = u64::from_ne_bytes(random);
        let temporary = directory.join(format!(".{}.{unique:016x}.tmp", name.display()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        // From here on the temporary file is removed, whatever fails.
        let staged = Self {
            temporary,
            target: target.to_owned(),
        };
        file.write_all(content)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Puts the file in its place unless one is there; whether it did.
    pub(super) fn place(self) -> io::Result<bool> {
        match fs::hard_link(&self.temporary, &self.target) {
            Ok(()) => sync_directory(&self.target).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts the file in its place, over whatever is there.
    pub(super) fn replace(self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)?;
        sync_directory(&self.target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What can't be removed is left: it has the mode of the file, and no reader.
        drop(fs::remove_file(&self.temporary));
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}
