//! The lock of a model in the hub's cache: one fetch or removal of it at a time.
//!
//! Beside the library's own locks, in `.locks` of the cache; processes of several
//! gateways hold off each other too. Calls block on the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Held while a model is fetched or removed, by one process at a time. The kernel frees
/// it when that ends.
#[derive(Debug)]
pub struct ModelLock(#[expect(dead_code, reason = "held for its lock")] File);

impl ModelLock {
    /// Lock of a model's directory; `None` while another has it.
    ///
    /// # Errors
    ///
    /// The cache can't be written.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let path = Self::path(folder).ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(locks) = path.parent() {
            fs::create_dir_all(locks)?;
        }
        let lock = File::options().create(true).append(true).open(path)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(lock))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// True while a process, this one included, fetches or removes the model. Makes no
    /// file: the cache may be long gone.
    pub fn is_taken(folder: &Path) -> bool {
        let Some(Ok(lock)) = Self::path(folder).map(File::open) else {
            return false;
        };
        let tried = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        tried == Err(rustix::io::Errno::WOULDBLOCK)
    }

    fn path(folder: &Path) -> Option<PathBuf> {
        let locks = folder.parent()?.join(".locks").join(folder.file_name()?);
        Some(locks.join("tidegate.lock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_fetched_or_removed_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("hub/models--acme--tiny");
        assert!(!ModelLock::is_taken(&folder));
        assert!(!dir.path().join("hub").exists());
        let first = ModelLock::take(&folder).unwrap();
        assert!(first.is_some());
        assert!(ModelLock::take(&folder).unwrap().is_none());
        assert!(ModelLock::is_taken(&folder));
        drop(first);
        assert!(!ModelLock::is_taken(&folder));
        assert!(ModelLock::take(&folder).unwrap().is_some());
    }
}
