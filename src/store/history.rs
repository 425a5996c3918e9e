//! The history: the series behind the plots, kept over restarts.
//!
//! Owns one redb file, `history.redb` in the state directory, apart from the
//! store's own: a full disk or a damaged page here must not touch tokens. Cells
//! of ten seconds are kept for two days, cells of five minutes for ninety.
//!
//! ```text
//! append ─► memory: the open hour ──────────────┐
//!       └─► rows: one per flush, one transaction │  hour over, one transaction
//!                                                ├─► fine blocks, an hour each
//!                                                ├─► coarse blocks, a day each
//!                                                └─► its rows, and what is too old, go
//! ```
//!
//! A power cut loses at most the interval that was not appended yet. Cells merge
//! without loss: counts stay exact, and a quantile of a longer time or of several
//! deployments is taken from their merged distribution. A gauge that is thinned
//! is rounded to its resolution.
//!
//! Nothing here fails its caller: when the file can't be written, memory goes on
//! for three hours, [`History::degraded`] says so, and writing resumes by itself.
//! A file that is damaged is moved aside, and an empty one is begun. What the
//! series mean is decided in `telemetry::history`.
//!
//! Ninety days of fifty deployments with their workers, a third of them busy, take
//! 136 MiB; a question about one takes at most 5 ms (2 days: 1.5 ms), about all of
//! them together at most 300 ms; an interval is on the disk in 1.2 ms, 0.4 s at the
//! end of an hour (`figures.rs`, in release, on two busy cores).
//!
//! Every call blocks, [`History::append`] until the disk has it: async callers use
//! `spawn_blocking`.

mod block;
mod disk;
mod memory;
mod plan;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};

use crate::telemetry::history::{Metric, Point, Scope, Series};
use crate::units::Bytes;

use block::Kind;
use disk::Batch;
use memory::Memory;
use plan::{Answer, Plan, Steps};

pub use plan::POINTS_MAX;

/// The history's file in the state directory.
pub const FILE: &str = "history.redb";

/// Bytes that blocks may take, unless someone says otherwise: 1 GiB. Beyond, the
/// oldest go first.
pub const BYTES_MAX: Bytes = Bytes(1 << 30);

/// Memory that redb may use for pages, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// After a failure, writing is tried again with every sixth flush.
const FLUSHES_LEFT_OUT: u32 = 5;

/// Seconds that a flush may come late or early and still count for its interval.
const FLUSH_TOLERANCE: u64 = plan::FINE / 2;

/// Reason for which a question has no answer.
#[derive(Debug, thiserror::Error)]
#[error("the history could not be read: see to the disk of gateway.state")]
pub struct HistoryError(#[source] Box<redb::Error>);

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The history, open or trying to be.
pub struct History {
    path: PathBuf,
    open: Opener,
    bytes_max: u64,
    /// Held through an append: there is one writer at a time.
    writer: Mutex<Writer>,
    /// Written by the writer only, for moments; taken before `database`.
    memory: RwLock<Memory>,
    /// Written by the writer only, when it opens or closes. Readers hold it while
    /// they read.
    database: RwLock<Option<Database>>,
    /// Written by the writer only.
    degraded: RwLock<Option<String>>,
}

/// State that only the writer knows.
#[derive(Debug, Default)]
struct Writer {
    /// True once memory goes with the file: nothing is recorded before.
    loaded: bool,
    /// Flushes to leave out before the next try.
    waits: u32,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl History {
    /// Opens the history of a state directory, which must be there, or begins one,
    /// for this user only. Checks the whole file; a damaged one is moved aside.
    /// When it can't be opened, [`Self::degraded`] says so, and appends try again.
    pub fn open(state: &Path, bytes_max: Bytes) -> Self {
        let path = state.join(FILE);
        let file = path.clone();
        let open = move || open_file(&file);
        Self::with_opener(path, bytes_max, Box::new(open))
    }

    fn with_opener(path: PathBuf, bytes_max: Bytes, open: Opener) -> Self {
        let history = Self {
            path,
            open,
            bytes_max: bytes_max.0,
            writer: Mutex::default(),
            memory: RwLock::default(),
            database: RwLock::default(),
            degraded: RwLock::default(),
        };
        let mut writer = history
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = history.reopen(&mut writer) {
            history.fail(&mut writer, &error);
        }
        drop(writer);
        history
    }

    /// Closes the file, so that another process may open it; memory goes on.
    pub fn close(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.database).take();
        // It is not opened again in this life.
        writer.waits = u32::MAX;
    }

    /// Keeps the points of one flush, which ended at `now`, in seconds since 1970.
    ///
    /// They count for the ten seconds before `now`; flush at multiples of ten
    /// seconds, give or take five.
    pub fn append(&self, now: u64, points: &[Point]) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.saturating_sub(FLUSH_TOLERANCE) / plan::FINE * plan::FINE;
        if writer.loaded {
            write(&self.memory).record(at, points);
        }
        if writer.waits > 0 {
            writer.waits -= 1;
            return;
        }
        match self.store(&mut writer, at, points) {
            Ok(()) => self.recovered(),
            Err(error) => {
                self.fail(&mut writer, &error);
                // A database that failed once serves no one: a new one can at least read.
                write(&self.database).take();
                if self.reopen(&mut writer).is_err() {
                    tracing::debug!("the history could not be opened again either");
                }
            }
        }
    }

    /// Writes what memory has and the disk has not.
    fn store(&self, writer: &mut Writer, at: u64, points: &[Point]) -> Result<(), redb::Error> {
        if read(&self.database).is_none() {
            let was_loaded = writer.loaded;
            self.reopen(writer)?;
            if !was_loaded {
                write(&self.memory).record(at, points);
            }
        }
        let database = read(&self.database);
        let Some(database) = database.as_ref() else {
            return Err(redb::Error::DatabaseClosed);
        };
        // Readers may read memory meanwhile; there is no other writer.
        let memory = read(&self.memory);
        let over = memory.over();
        let batch = Batch {
            newest: memory.newest,
            series: &memory.new_series,
            rows: &memory.rows,
            over: &over,
            alive: &memory.alive(),
            bytes_max: self.bytes_max,
        };
        let gone = disk::write(database, &batch)?;
        drop(memory);
        let mut memory = write(&self.memory);
        memory.written(over.iter().map(|(hour, _)| *hour));
        memory.forget(&gone);
        Ok(())
    }

    /// Opens the file, over a damaged one an empty one, and loads it if memory does
    /// not go with it yet.
    fn reopen(&self, writer: &mut Writer) -> Result<(), redb::Error> {
        let opened = (self.open)().map_err(redb::Error::from);
        let opened = opened.and_then(|database| {
            let memory = if writer.loaded {
                None
            } else {
                Some(disk::load(&database)?)
            };
            Ok((database, memory))
        });
        let (database, memory) = match opened {
            Err(error) if is_damage(&error) => {
                self.move_aside(&error)?;
                let database = (self.open)().map_err(redb::Error::from)?;
                let memory = disk::load(&database)?;
                (database, Some(memory))
            }
            opened => opened?,
        };
        if let Some(memory) = memory {
            *write(&self.memory) = memory;
        }
        *write(&self.database) = Some(database);
        writer.loaded = true;
        Ok(())
    }

    fn move_aside(&self, error: &redb::Error) -> Result<(), redb::Error> {
        let aside = self.path.with_extension("redb.damaged");
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "the history is damaged: it is moved to {} and begun anew",
            aside.display()
        );
        std::fs::rename(&self.path, &aside).map_err(redb::Error::Io)
    }

    /// Reason for which history is not written, in words; `None` while it is.
    pub fn degraded(&self) -> Option<String> {
        read(&self.degraded).clone()
    }

    fn fail(&self, writer: &mut Writer, error: &redb::Error) {
        writer.waits = FLUSHES_LEFT_OUT;
        let what = match error {
            redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                "the disk is full: make room"
            }
            redb::Error::DatabaseAlreadyOpen => "another process has it open: end that one",
            _ => "see to the disk",
        };
        let text = format!(
            "history is not written to {}: {what}, and it resumes by itself",
            self.path.display()
        );
        let before = write(&self.degraded).replace(text.clone());
        if before.as_ref() != Some(&text) {
            tracing::warn!(error = error as &dyn std::error::Error, "{text}");
        }
    }

    fn recovered(&self) {
        if write(&self.degraded).take().is_some() {
            tracing::info!("history is written again");
        }
    }

    /// Seconds of each step of the answer of [`Self::query`] to the same question.
    pub fn step(&self, since: u64, until: u64, step: u64) -> u64 {
        let plan = Plan::new(since, until, step, read(&self.memory).newest);
        plan.map_or(step.max(plan::FINE), |plan| plan.step)
    }

    /// Values of a metric over time: when each step begins, in seconds since 1970,
    /// and its value; see [`Metric`] for what that is. A step in which nothing was
    /// recorded has no point.
    ///
    /// Steps have at least `step` seconds, and are longer where the resolution is
    /// coarser (beyond two days: five minutes) or the points would be more than
    /// [`POINTS_MAX`]; they begin at multiples of their length. While the file is
    /// closed after a failure, memory answers, with the last hours at most.
    ///
    /// # Errors
    ///
    /// [`HistoryError`] when the disk can't be read.
    pub fn query(
        &self,
        scope: &Scope,
        metric: Metric,
        since: u64,
        until: u64,
        step: u64,
    ) -> Result<Vec<(u64, f64)>, HistoryError> {
        let memory = read(&self.memory);
        let Some(plan) = Plan::new(since, until, step, memory.newest) else {
            return Ok(Vec::new());
        };
        let mut answer = Answer::new(metric, plan);
        let matching = memory.matching(scope, |series| answer.reads(series));
        let open = memory.open_hours();
        let mut all: Vec<(u32, Series, Steps)> = Vec::with_capacity(matching.len());
        for known in matching {
            let mut steps = Steps::new(plan);
            for (at, cell) in memory.cells(known.id) {
                steps.add(at, cell);
            }
            all.push((known.id, known.series, steps));
        }
        drop(memory);
        if let Some(database) = read(&self.database).as_ref() {
            let wanted = all
                .iter_mut()
                .map(|(id, series, steps)| (*id, Kind::of(*series), steps));
            disk::read(database, &plan, &open, wanted)
                .map_err(|error| HistoryError(Box::new(error)))?;
        }
        for (_, series, steps) in &all {
            answer.add(*series, steps);
        }
        Ok(answer.points())
    }
}

fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StorageError::Io)?;
    build(FileBackend::new(file)?)
}

fn build(backend: impl redb::StorageBackend) -> Result<Database, DatabaseError> {
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
}

/// True if the content is wrong, not the access.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        ),
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => true,
        _ => false,
    }
}

/// Takes a lock though it may be poisoned: changes under these locks do not panic.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod figures;
#[cfg(test)]
mod tests;
