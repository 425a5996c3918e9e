//! The embedded store: what must outlive a restart and is not configuration.
//!
//! Owns one redb file, `store.redb` in the state directory, and its schema. Every
//! change is one transaction: after a crash it is there whole or not at all. What
//! the records mean belongs to the rooms that write them; `routes.d`, not the
//! store, is the database of routes and instances.
//!
//! Every call blocks on the disk: async callers use `spawn_blocking`. A clone is
//! another handle. One process at a time has the store open; others are told
//! [`StoreError::InUse`] and ask that process over its admin socket.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

pub mod audit;
pub mod cutoffs;
pub mod history;
pub mod holders;
pub mod owners;
pub mod records;
pub mod secrets;
pub mod timings;
pub mod tokens;
pub mod usage;
pub mod whole;
pub mod workers;

mod forget;

/// The store's file in the state directory.
pub const FILE: &str = "store.redb";

/// The schema that this version writes. Counted up with every change that an
/// older version would misread.
const SCHEMA: u64 = 1;

/// Facts of the store itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Memory that redb may use for pages, in bytes; its own default is 1 GiB.
const CACHE_BYTES: usize = 16 << 20;

/// Why the store can't be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A running gateway has it open.
    #[error(
        "the store {path} is in use by a running tidegate: stop it, or ask it through its admin socket"
    )]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// A later version of tidegate wrote it.
    #[error(
        "the store {path} has schema {found} and this tidegate knows {SCHEMA}: start the version \
         that wrote it, or a newer one"
    )]
    Newer {
        /// The store's file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// The directory or file can't be made or read.
    #[error(
        "could not open the store {path}: make its directory writable for the user that runs \
         tidegate, or set gateway.state to another one"
    )]
    Open {
        /// The store's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not a store, or is damaged.
    #[error(
        "{path} is damaged or not a store of tidegate: restore it from a backup, or move it away \
         and an empty one is made at the next start, in which no token is revoked"
    )]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What redb said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record can't be read or written as JSON.
    #[error("the record of {key} in the store can't be read: remove or restore it")]
    Record {
        /// Kind and key of the record.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Another gateway has taken over, and the store with it.
    #[error("another tidegate has taken over from this one: ask that one")]
    Closed,
    /// A text that is no token id.
    #[error("{0:?} is not a token id: take it from `tidegate token list`")]
    TokenId(String),
    /// A text that is no subject.
    #[error("{0:?} is not a subject: take it from `tidegate token list` or the access log")]
    Subject(String),
    /// A transaction failed; nothing was changed.
    #[error("the store could not be read or written, and nothing was changed: see to the disk")]
    Transaction(#[source] Box<redb::Error>),
}

macro_rules! transaction_error {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Transaction(Box::new(error.into()))
            }
        }
    )*};
}

transaction_error!(TransactionError, TableError, StorageError, CommitError);

/// The store, open. A clone is another handle.
#[derive(Clone)]
pub struct Store {
    /// `None` once it was closed. Held for one transaction.
    database: Arc<RwLock<Option<Database>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store of a state directory; makes both where they are absent, for
    /// this user only (modes 0700 and 0600). Checks the whole file for damage.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: in use, newer, damaged, or not to be read.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let path = state.join(FILE);
        let open = |source| StoreError::Open {
            path: path.clone(),
            source,
        };
        if !fs::exists(state).map_err(open)? {
            let mut directory = DirBuilder::new();
            directory
                .recursive(true)
                .mode(0o700)
                .create(state)
                .map_err(open)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(open)?;
        let failed = |error| opening(error, &path);
        let backend = FileBackend::new(file).map_err(failed)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(failed)?;
        let store = Self {
            database: Arc::new(RwLock::new(Some(database))),
        };
        store.write(|transaction| prepare(transaction, &path))?;
        Ok(store)
    }

    /// Closes it for every handle once what is at work is done, so that another
    /// process may open it. Blocking.
    pub fn close(&self) {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        drop(database.take());
    }

    fn open_database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from one consistent state.
    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.open_database();
        read(&database.as_ref().ok_or(StoreError::Closed)?.begin_read()?)
    }

    /// Changes the store as one: all of `change` on success, else nothing.
    fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.open_database();
        let transaction = database.as_ref().ok_or(StoreError::Closed)?.begin_write()?;
        // An error drops the transaction, which takes everything back.
        let done = change(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

/// Sets or checks the schema, and makes the tables, so that readers find them.
fn prepare(transaction: &WriteTransaction, path: &Path) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let found = meta.get("schema")?.map(|schema| schema.value());
    match found {
        Some(found) if found > SCHEMA => {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found,
            });
        }
        _ => meta.insert("schema", SCHEMA)?,
    };
    tokens::prepare(transaction)?;
    cutoffs::prepare(transaction)?;
    records::prepare(transaction)?;
    audit::prepare(transaction)?;
    holders::prepare(transaction)?;
    usage::prepare(transaction)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn store_and_directory_are_made_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/.tidegate");
        let _store = Store::open(&state).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn a_store_that_is_open_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        let second = Store::open(dir.path()).unwrap_err();
        assert!(matches!(second, StoreError::InUse { .. }), "{second:?}");
        drop(first);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn a_store_of_a_newer_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .write(|transaction| {
                transaction.open_table(META)?.insert("schema", SCHEMA + 1)?;
                Ok(())
            })
            .unwrap();
        drop(store);
        for _ in 0..2 {
            let error = Store::open(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::Newer { found, .. } if found == SCHEMA + 1));
        }
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for content in [vec![b'x'; 100], vec![0; 100_000]] {
            fs::write(&path, &content).unwrap();
            let error = Store::open(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
            assert!(fs::read(&path).unwrap() == content);
        }
    }

    #[test]
    fn a_store_that_was_damaged_is_refused_or_whole_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let store = Store::open(dir.path()).unwrap();
        store.revoke_token("01A", 1).unwrap();
        drop(store);
        let good = fs::read(&path).unwrap();
        let cut = [1, 100, 4096, good.len() / 2, good.len() - 1].map(|at| good[..at].to_vec());
        let flipped = (0..good.len()).step_by(good.len() / 31).map(|at| {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            bad
        });
        for bad in cut.into_iter().chain(flipped) {
            fs::write(&path, &bad).unwrap();
            match Store::open(dir.path()) {
                Ok(store) => {
                    let set = store.revoked_tokens().unwrap();
                    assert!(set.tokens.contains("01A"), "a revocation was lost unseen");
                }
                Err(StoreError::Damaged { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let failed = store.write(|transaction| {
            transaction.open_table(META)?.insert("half", 1)?;
            Err::<(), _>(StoreError::TokenId(String::new()))
        });
        assert!(failed.is_err());
        let half = store.read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get("half")?.map(|value| value.value()))
        });
        assert_eq!(half.unwrap(), None);
    }
}
