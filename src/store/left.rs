//! Usage that a gateway could not bring into the store itself: of its last requests,
//! while another one has the store, or when the store fails at the end.
//!
//! ```text
//!  a take-over, either side: usage-ID.journal, locked, a line each request ─┐ unlocked when it
//!  end with a store that fails: the same, one line ─────────────────────────┤ ends, however it does
//!                                                                           ▼
//!  whoever has the store: finds it, locks it, adds it in one transaction with its ID, removes it
//! ```
//!
//! So a SIGKILL within a take-over loses nothing: a line stands in the page cache before
//! the client has the last byte. A line that was cut off counts for nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::{ReadableTableMetadata, TableDefinition, WriteTransaction};
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError, usage};
use crate::auth::ulid;
use crate::telemetry::usage::{Ledger, Tally, WriteDown};
use crate::time::{Instant, sleep, unix_time};

/// Journals and batches that were added already, by id, so that none counts twice.
pub(super) const ADDED: TableDefinition<'_, &str, ()> = TableDefinition::new("usage_journals");

/// Pause between two looks for usage that could not be written down at once, once given way.
const PACE: Duration = Duration::from_millis(20);

/// Time between two journals of a gateway that has just taken over: as old as usage is seen.
const TURN: Duration = Duration::from_millis(500);

/// Time for which a take-over counts as under way once the new gateway serves.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Most ids that are kept.
const ADDED_MAX: u64 = 1_000;

/// Largest journal that is read, in bytes.
const BYTES_MAX: u64 = 256 << 20;

const PREFIX: &str = "usage-";
const SUFFIX: &str = ".journal";

/// A journal that is being written. Others see by its lock that it is.
#[derive(Debug)]
pub struct UsageJournal {
    path: PathBuf,
    file: File,
    is_empty: bool,
}

impl UsageJournal {
    /// Begins a journal in a state directory.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub fn begin(state: &Path) -> io::Result<Self> {
        let id = ulid(unix_time()).map_err(io::Error::other)?;
        Self::named(state, &id)
    }

    /// Leaves sums in a journal of this id: added once, also where the store has that id
    /// already.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub(super) fn leave(state: &Path, id: &str, used: &[(Arc<str>, Tally)]) -> io::Result<()> {
        let mut journal = Self::named(state, id)?;
        journal.line(used)?;
        journal.sync()
    }

    fn named(state: &Path, id: &str) -> io::Result<Self> {
        let path = state.join(format!("{PREFIX}{id}{SUFFIX}"));
        // Locked before it has its name: whoever finds it unlocked finds it whole.
        let beside = path.with_extension("tmp");
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        let named = file.try_lock().map_err(io::Error::from);
        let named = named.and_then(|()| fs::rename(&beside, &path));
        if let Err(error) = named {
            drop(fs::remove_file(&beside));
            return Err(error);
        }
        Ok(Self {
            path,
            file,
            is_empty: true,
        })
    }

    /// Takes what the ledger has summed up, and writes it down; what can't be written goes
    /// back.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub fn take(&mut self, ledger: &Ledger) -> io::Result<()> {
        let taken = ledger.take();
        if taken.is_empty() {
            return Ok(());
        }
        let written = self.line(&taken);
        if written.is_err() {
            ledger.give_back(taken);
        }
        written
    }

    fn line(&mut self, used: &[(Arc<str>, Tally)]) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        // It begins the line too, so that one that was cut off ends there.
        let mut line = b"\n".to_vec();
        serde_json::to_writer(&mut line, used)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        if written.is_err() {
            drop(self.file.set_len(before));
        }
        written?;
        self.is_empty = false;
        Ok(())
    }

    /// Forces what was written to the disk: a kill takes nothing of it before either, a
    /// loss of power may.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl WriteDown for UsageJournal {
    fn write_down(&mut self, token_id: &Arc<str>, used: Tally) -> bool {
        self.line(&[(Arc::clone(token_id), used)]).is_ok()
    }

    fn force(&self) -> io::Result<()> {
        self.sync()
    }
}

impl Drop for UsageJournal {
    fn drop(&mut self) {
        if self.is_empty {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A ledger whose usage is written down at once, until this is dropped.
#[derive(Debug)]
pub struct AtOnce {
    state: PathBuf,
    ledger: Arc<Ledger>,
}

impl AtOnce {
    /// Begins a journal in a state directory, where usage is not written down already.
    /// Blocking.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub fn begin(state: &Path, ledger: &Arc<Ledger>) -> io::Result<Self> {
        ledger.write_down_in(|| Ok(Box::new(UsageJournal::begin(state)?)))?;
        ledger.write_rest();
        Ok(Self {
            state: state.to_owned(),
            ledger: Arc::clone(ledger),
        })
    }

    /// Goes on in another journal, so that the one before can be added. Blocking.
    fn turn_over(&self) -> io::Result<()> {
        let next = UsageJournal::begin(&self.state)?;
        drop(self.ledger.write_on_in(Box::new(next)));
        Ok(())
    }
}

impl Drop for AtOnce {
    fn drop(&mut self) {
        drop(self.ledger.sum_up());
    }
}

/// Has usage written down at once until told to end, also where that could not be begun
/// before: for a gateway that has given its store away.
pub async fn keep(
    state: PathBuf,
    ledger: Arc<Ledger>,
    begun: Option<AtOnce>,
    ending: CancellationToken,
) {
    let (mut at_once, mut is_last) = (begun, false);
    while !is_last {
        tokio::select! {
            () = sleep(PACE) => {}
            () = ending.cancelled() => is_last = true,
        }
        let (state, sums, held) = (state.clone(), Arc::clone(&ledger), at_once.take());
        let work = move || {
            let at_once = match held {
                Some(at_once) => at_once,
                None => AtOnce::begin(&state, &sums)?,
            };
            sums.write_rest();
            if is_last {
                sums.force()?;
            }
            Ok::<_, io::Error>(at_once)
        };
        // A task that was cancelled at the end of the runtime has nothing to say.
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(begun)) => at_once = Some(begun),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the usage of the last requests is held in memory");
            }
            Err(_) => return,
        }
    }
    if !ledger.take().is_empty() {
        tracing::error!(
            "the usage of the last requests is lost: the state directory can't be written"
        );
    }
}

/// Brings what is written down at once into the store, until the take-over is over: for
/// the gateway that has just taken over.
pub async fn settle(store: Store, at_once: AtOnce, ending: CancellationToken) {
    let until = Instant::now() + SETTLED_AFTER;
    let at_once = Arc::new(at_once);
    while Instant::now() < until && !ending.is_cancelled() {
        tokio::select! {
            () = sleep(TURN) => {}
            () = ending.cancelled() => {}
        }
        let (store, at_once) = (store.clone(), Arc::clone(&at_once));
        let work = move || {
            at_once.turn_over()?;
            store.add_left().map_err(io::Error::other)
        };
        // A task that was cancelled at the end of the runtime has nothing to say.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
            tracing::debug!(%error, "usage stays in its journal for now");
        }
    }
}

impl Store {
    /// Has usage written down at once from here on. What is on its way into the store is
    /// there when this returns. Blocking.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub fn write_usage_at_once(&self, ledger: &Arc<Ledger>) -> io::Result<AtOnce> {
        let state = self.directory().ok_or(io::ErrorKind::NotFound)?;
        let _none_on_its_way = self.0.batches.lock();
        AtOnce::begin(state, ledger)
    }

    /// Adds the journals of gateways that have ended. Returns how many there were.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when one could not be added; it stays there.
    pub fn add_left(&self) -> Result<usize, StoreError> {
        let Some(state) = self.directory() else {
            return Ok(0);
        };
        let mut added = 0;
        for path in journals(state) {
            let Some((id, used)) = read(&path) else {
                continue;
            };
            self.add_journal(&id, &used)?;
            drop(fs::remove_file(&path));
            added += 1;
        }
        Ok(added)
    }

    fn add_journal(&self, id: &str, used: &[(Arc<str>, Tally)]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut added = transaction.open_table(ADDED)?;
            if added.insert(id, ())?.is_some() {
                return Ok(());
            }
            while added.len()? > ADDED_MAX {
                added.pop_first()?;
            }
            usage::add(transaction, used, usage::KEPT_MAX)
        })
    }
}

/// Use by tokens, by their ids.
pub(super) type Sums = Vec<(Arc<str>, Tally)>;

/// Makes the table.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(ADDED)?;
    Ok(())
}

fn journals(state: &Path) -> Vec<PathBuf> {
    // A directory that can't be read is told of where the store is written.
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| id_of(path).is_some();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    paths.sort();
    paths
}

fn id_of(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)
}

/// A journal that no one writes any more: its id, and its sums.
fn read(path: &Path) -> Option<(String, Sums)> {
    let id = id_of(path)?.to_owned();
    let file = File::open(path).ok()?;
    file.try_lock().ok()?;
    let sums = Ledger::new();
    for line in BufReader::new(file.take(BYTES_MAX)).split(b'\n') {
        // A line that can't be read was cut off; those before it count.
        let Ok(line) = line else { break };
        if let Ok(used) = serde_json::from_slice::<Sums>(&line) {
            sums.give_back(used);
        }
    }
    Some((id, sums.take()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(ledger: &Ledger, requests: usize) {
        for _ in 0..requests {
            ledger.add(&Arc::from("01A"), 2, 3, 9);
        }
    }

    fn requests(store: &Store) -> u64 {
        store.usage("01A").unwrap().map_or(0, |used| used.requests)
    }

    #[test]
    fn a_journal_is_added_once_and_not_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ledger = Ledger::new();
        let mut journal = UsageJournal::begin(dir.path()).unwrap();
        for n in 1..=3 {
            used(&ledger, n);
            journal.take(&ledger).unwrap();
        }
        assert_eq!((store.add_left().unwrap(), requests(&store)), (0, 0));
        let copy = fs::read(&journal.path).unwrap();
        let path = journal.path.clone();
        drop(journal);
        assert_eq!((store.add_left().unwrap(), requests(&store)), (1, 6));
        assert!(!path.exists());
        // As after a crash between the transaction and the removal.
        fs::write(&path, copy).unwrap();
        assert_eq!((store.add_left().unwrap(), requests(&store)), (1, 6));
        assert!(!path.exists());
    }

    #[test]
    fn a_line_that_was_cut_off_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ledger = Ledger::new();
        let mut journal = UsageJournal::begin(dir.path()).unwrap();
        used(&ledger, 1);
        journal.take(&ledger).unwrap();
        journal
            .file
            .write_all(b"\n[[\"01A\",{\"requests\":7")
            .unwrap();
        used(&ledger, 2);
        journal.take(&ledger).unwrap();
        drop(journal);
        store.add_left().unwrap();
        assert_eq!(requests(&store), 3);
    }

    #[test]
    fn a_journal_of_nothing_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        drop(UsageJournal::begin(dir.path()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
