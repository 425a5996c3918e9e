//! The embedded store: what must outlive a restart and is not configuration.
//!
//! Owns one redb file, `store.redb` in the state directory, and its schema. Every
//! change is one transaction: after a crash it is there whole or not at all. What
//! the records mean belongs to the rooms that write them; `routes.d`, not the
//! store, is the database of routes and instances.
//!
//! A write that fails closes the file; it is opened again ([`health`]), and what
//! refuses a token is held in memory meanwhile ([`refusals`]). A store that was lost,
//! or is older than one that was there, is known by the [`mark`] beside the signing key.
//!
//! Every call blocks on the disk: async callers use `spawn_blocking`. A clone is
//! another handle. One process at a time has the store open; others are told
//! [`StoreError::InUse`] and ask that process over its admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::time::NewestTime;
use file::{Opened, Opener};
use health::Health;
use refusals::Held;
use usage::Batches;

pub mod audit;
pub mod cutoffs;
pub mod export;
pub mod health;
pub mod history;
pub mod holders;
pub mod left;
pub mod mark;
pub mod news;
pub mod owners;
pub mod records;
pub mod refusals;
pub mod secrets;
pub mod timings;
pub mod tokens;
pub mod usage;
pub mod whole;
pub mod workers;

#[cfg(test)]
pub(crate) mod disk;

mod file;
mod forget;
mod warnings;

/// The store's file in the state directory.
pub const FILE: &str = "store.redb";

/// The schema that this version writes. Counted up with every change that an
/// older version would misread.
const SCHEMA: u64 = 1;

/// Facts of the store itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Keys of [`META`]: the schema; a random number by which the store is known; the
/// changes that refuse someone, counted; the moment before which tokens may have been
/// revoked unknown to this store; the newest time, in seconds since 1970.
const SCHEMA_KEY: &str = "schema";
const ID_KEY: &str = "id";
const SERIAL_KEY: &str = "serial";
const LOST_KEY: &str = "lost";
const TIME_KEY: &str = "time";

/// Reason for which the store can't be opened or used.
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
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The file is not a store, or is damaged.
    #[error(
        "{path} is damaged or not a store of tidegate: restore it with `tidegate state import`, \
         or move it away: an empty one is made at the next start, and tokens of before are refused"
    )]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// The error of redb.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record can't be read or written as JSON.
    #[error("the record of {key} in the store can't be read: remove or restore it")]
    Record {
        /// Kind and key of the record.
        key: String,
        /// The error in the value.
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
    /// An earlier transaction failed, and the store is opened again soon.
    #[error("the store can't be written now, and nothing was changed: {0}")]
    Failing(Arc<str>),
    /// The system gives no random bytes.
    #[error(transparent)]
    Random(#[from] crate::auth::NoRandomBytes),
    /// The file beside the signing key that tells which stores there were.
    #[error(
        "{path}, which tells which stores there were, can't be read: restore it, or remove it, and \
         the store is taken as it is"
    )]
    Mark {
        /// The file.
        path: PathBuf,
        /// The error in the file.
        #[source]
        source: io::Error,
    },
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
pub struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    open: Opener,
    /// Held for one transaction, or while the file is opened again.
    file: RwLock<File>,
    health: Health,
    held: Held,
    batches: Batches,
    /// Beside the signing key; none for a store that has no key.
    mark: Option<mark::Mark>,
    news: news::News,
    clock: Arc<NewestTime>,
}

/// State of the file.
enum File {
    Open(Opened),
    /// A transaction failed, and it could not be opened again yet.
    Failing,
    /// Another gateway has it.
    Closed,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.0.path)
            .finish_non_exhaustive()
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
        let file = path.clone();
        Self::with_opener(path, Box::new(move || file::open(&file)), None)
    }

    fn with_opener(
        path: PathBuf,
        open: Opener,
        mark: Option<mark::Mark>,
    ) -> Result<Self, StoreError> {
        let clock = Arc::new(NewestTime::default());
        Self::at_time(path, open, mark, clock)
    }

    fn at_time(
        path: PathBuf,
        open: Opener,
        mark: Option<mark::Mark>,
        clock: Arc<NewestTime>,
    ) -> Result<Self, StoreError> {
        let opened = open()?;
        let state = path.parent().unwrap_or(Path::new(""));
        let store = Self(Arc::new(Inner {
            news: news::News::of(state),
            path,
            open,
            file: RwLock::new(File::Open(opened)),
            health: Health::default(),
            held: Held::default(),
            batches: Batches::default(),
            mark,
            clock,
        }));
        // The time that the store knows is read before the present one is written into it.
        let known = store.transaction(|transaction| {
            prepare(transaction, &store.0.path)?;
            let meta = transaction.open_table(META)?;
            Ok(meta.get(TIME_KEY)?.map_or(0, |value| value.value()))
        })?;
        store.0.clock.resume(known);
        Ok(store)
    }

    /// The time that tokens are held against; the newest that is known is kept here.
    pub fn clock(&self) -> &Arc<NewestTime> {
        &self.0.clock
    }

    /// Closes it for every handle once what is at work is done, so that another
    /// process may open it. Blocking.
    pub fn close(&self) {
        let mut file = self.0.file.write().unwrap_or_else(PoisonError::into_inner);
        *file = File::Closed;
    }

    /// The state directory.
    fn directory(&self) -> Option<&Path> {
        self.0.path.parent()
    }

    fn file(&self) -> RwLockReadGuard<'_, File> {
        self.0.file.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from one consistent state.
    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = {
            let file = self.file();
            let database = &file.opened(&self.0.health)?.database;
            database
                .begin_read()
                .map_err(Into::into)
                .and_then(|t| read(&t))
        };
        result.inspect_err(|error| self.failed(error))
    }

    /// Changes the store as one: all of `change` on success, else nothing. What was
    /// held in memory while nothing could be written is written first.
    fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.0.health.may_try()?;
        self.try_write(change)
    }

    fn try_write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let held = self.0.held.all();
        // The records written now are not older than the time that is written with them.
        self.0.clock.tick();
        let result = self.transaction(|transaction| {
            refusals::apply(transaction, &held)?;
            let done = change(transaction)?;
            let time = self.0.clock.remembered().as_secs();
            transaction.open_table(META)?.insert(TIME_KEY, time)?;
            Ok(done)
        });
        match &result {
            Ok(_) => self.written(&held),
            Err(error) => self.failed(error),
        }
        result
    }

    fn transaction<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let file = self.file();
        let transaction = file.opened(&self.0.health)?.database.begin_write()?;
        // An error drops the transaction, which takes everything back.
        let done = change(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// One of the numbers of [`META`], zero where it is not there.
    fn meta(&self, key: &str) -> Result<u64, StoreError> {
        self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get(key)?.map_or(0, |value| value.value()))
        })
    }
}

impl File {
    fn opened(&self, health: &Health) -> Result<&Opened, StoreError> {
        match self {
            Self::Open(opened) => Ok(opened),
            Self::Failing => Err(StoreError::Failing(health.words())),
            Self::Closed => Err(StoreError::Closed),
        }
    }
}

/// Sets or checks the schema, and makes the tables, so that readers find them.
fn prepare(transaction: &WriteTransaction, path: &Path) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let found = meta.get(SCHEMA_KEY)?.map(|schema| schema.value());
    match found {
        Some(found) if found > SCHEMA => {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found,
            });
        }
        _ => meta.insert(SCHEMA_KEY, SCHEMA)?,
    };
    tokens::prepare(transaction)?;
    cutoffs::prepare(transaction)?;
    records::prepare(transaction)?;
    audit::prepare(transaction)?;
    holders::prepare(transaction)?;
    left::prepare(transaction)?;
    usage::prepare(transaction)
}

#[cfg(test)]
mod tests;
