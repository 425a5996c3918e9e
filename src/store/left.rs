//! Usage that a gateway could not bring into the store itself: of its last requests,
//! while another one has the store, or when the store fails at the end.
//!
//! ```text
//!  gives way: usage-ID.journal, locked, a line each 20 ms ────────┐ unlocked when it ends,
//!  end with a store that fails: the same, one line ───────────────┤ however it does
//!                                                                 ▼
//!  whoever has the store: finds it, locks it, adds it in one transaction with its ID, removes it
//! ```
//!
//! So what is lost by a SIGKILL at any moment is at most what came since the last line.
//! A line that was cut off counts for nothing.

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
use crate::telemetry::usage::{Ledger, Tally};
use crate::time::{sleep, unix_time};

/// Journals that were added already, by id, so that none counts twice.
const ADDED: TableDefinition<'_, &str, ()> = TableDefinition::new("usage_journals");

/// Between two lines of a gateway that has given way.
const PACE: Duration = Duration::from_millis(20);

/// Most ids that are kept.
const ADDED_MAX: u64 = 1_000;

/// Largest journal that is read, in bytes.
const BYTES_MAX: u64 = 256 << 20;

const PREFIX: &str = "usage-";
const SUFFIX: &str = ".journal";

/// A journal that is being written. Others see by its lock that it is.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    is_empty: bool,
}

impl Journal {
    /// Begins a journal in a state directory.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn begin(state: &Path) -> io::Result<Self> {
        let id = ulid(unix_time()).map_err(io::Error::other)?;
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

    /// Takes what the ledger has, and writes it down; what can't be written goes back.
    ///
    /// # Errors
    ///
    /// Those of the file system.
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
    /// Those of the file system.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.is_empty {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Writes a ledger down every [`PACE`] until told to end, and once more then: for a
/// gateway that has given its store away, and may be killed for that.
pub async fn keep(state: PathBuf, ledger: Arc<Ledger>, ending: CancellationToken) {
    let mut journal = None;
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            () = sleep(PACE) => {}
            () = ending.cancelled() => is_last = true,
        }
        let (state, ledger, held) = (state.clone(), Arc::clone(&ledger), journal.take());
        let work = move || {
            let mut journal = match held {
                Some(journal) => journal,
                None => Journal::begin(&state)?,
            };
            journal.take(&ledger)?;
            if is_last {
                journal.sync()?;
            }
            Ok::<_, io::Error>(journal)
        };
        // A task that was cancelled at the end of the runtime has nothing to say.
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(begun)) => journal = Some(begun),
            Ok(Err(error)) if is_last => {
                tracing::error!(error = %error, "the usage of the last requests is lost");
            }
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "the usage of the last requests is held in memory");
            }
            Err(_) => return,
        }
    }
}

impl Store {
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

/// What tokens used, by their ids.
type Sums = Vec<(Arc<str>, Tally)>;

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
        // What can't be read was cut off; what stands before it counts.
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
        let mut journal = Journal::begin(dir.path()).unwrap();
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
        let mut journal = Journal::begin(dir.path()).unwrap();
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
        drop(Journal::begin(dir.path()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
