//! The store's file: opened, looked at, and written again where it was deleted.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};

use super::StoreError;

/// Memory that redb may use for pages, in bytes; its own default is 1 GiB.
const CACHE_BYTES: usize = 16 << 20;

/// Opens the store's file, or another place in tests.
pub(super) type Opener = Box<dyn Fn() -> Result<Opened, StoreError> + Send + Sync>;

/// A database, and the file that it is in.
pub(super) struct Opened {
    pub(super) database: Database,
    /// Another handle on the same file; none where a test has no file.
    file: Option<fs::File>,
}

/// Place of the file that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The path where it was opened.
    There,
    /// Nowhere: it was deleted.
    Deleted,
    /// Another file stands there.
    Replaced,
}

/// Opens the file of a store; makes it and its directory where they are absent.
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    let failed = |source| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    let state = path.parent().unwrap_or(Path::new("."));
    make_directory(state).map_err(failed)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let other = file.try_clone().map_err(failed)?;
    let backend = FileBackend::new(file).map_err(|error| opening(error, path))?;
    Ok(Opened {
        file: Some(other),
        ..on(backend, path)?
    })
}

/// Opens a database on whatever keeps its bytes.
pub(super) fn on(backend: impl StorageBackend, path: &Path) -> Result<Opened, StoreError> {
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
        .map_err(|error| opening(error, path))?;
    Ok(Opened {
        database,
        file: None,
    })
}

impl Opened {
    /// Tells whether the file still stands where it was opened. If that can't be told, it counts
    /// as yes: a transaction will tell.
    pub(super) fn place(&self, path: &Path) -> Place {
        let Some(own) = self.file.as_ref().and_then(|file| file.metadata().ok()) else {
            return Place::There;
        };
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => Place::There,
            Ok(_) => Place::Replaced,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Place::Deleted,
            Err(_) => Place::There,
        }
    }

    /// Closes a database whose file was deleted, and writes the file again.
    pub(super) fn write_again(self, path: &Path) -> io::Result<()> {
        let Self { database, file } = self;
        // Everything is in the file once it is closed.
        drop(database);
        let mut file = file.ok_or(io::ErrorKind::NotFound)?;
        make_directory(path.parent().unwrap_or(Path::new(".")))?;
        let beside = path.with_extension("again");
        let mut again = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        io::Seek::rewind(&mut file)?;
        io::copy(&mut file, &mut again)?;
        again.sync_all()?;
        fs::rename(&beside, path)
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if fs::exists(path)? {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn opening(error: DatabaseError, path: &Path) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { path }
        }
        // These two kinds mean that the content is wrong or cut off, not the access.
        DatabaseError::Storage(redb::StorageError::Io(source))
            if !matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Open { path, source }
        }
        other => StoreError::Damaged {
            path,
            source: Box::new(other.into()),
        },
    }
}
