//! Beside the signing key: which stores there were, so that one that is lost, or an
//! older copy put in its place, is noticed.
//!
//! Owns the file `tokens.key.stores` beside `tokens.key`. It names each store by its
//! number and state directory, counts the changes that refuse someone, and holds those
//! that the store could not keep. A store that the file does not know, or that counts
//! less than the file, may lack revocations: tokens of before are refused from then on
//! (`tokens.lost_store` of the settings), and sessions end.
//!
//! Several state directories may share a key: each has its line. Deliberately knows
//! nothing of a store and file that were both put back from the same old copy.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::refusals::{self, Refusal};
use super::whole::write_durable;
use super::{FILE, ID_KEY, LOST_KEY, META, SERIAL_KEY, Store, StoreError, file, records};
use crate::auth::NoRandomBytes;
use crate::time::NewestTime;

/// Most stores that one key knows; the one that was written longest ago is forgotten.
const STORES_MAX: usize = 16;

/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 32 << 20;

/// Path of the file: `tokens.key.stores` beside `tokens.key`.
pub fn beside(signing_key: &Path) -> PathBuf {
    let mut name = signing_key.as_os_str().to_owned();
    name.push(".stores");
    PathBuf::from(name)
}

/// True if a key knows of any store: where one is missing, it was lost.
///
/// # Errors
///
/// [`StoreError::Mark`] when that can't be read.
pub fn is_known(signing_key: &Path) -> Result<bool, StoreError> {
    Ok(!read(&beside(signing_key))?.is_empty())
}

/// The file, and the line of our own store.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    /// Line as it was written last. Held over a write of the file.
    own: Mutex<Known>,
}

/// One store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Its number.
    id: u64,
    /// Changes that refused someone.
    serial: u64,
    /// The newest time that it knew, in seconds since 1970.
    time: u64,
    /// Its directory.
    state: PathBuf,
    /// Refusals that it could not keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<Refusal>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    stores: Vec<Known>,
}

/// A store that was opened beside its key.
#[derive(Debug)]
pub struct Beside {
    /// The store.
    pub store: Store,
    /// Notes for a person: whole sentences.
    pub notes: Vec<String>,
}

impl Store {
    /// Opens the store of a state directory, and holds it against what stands beside
    /// the signing key. Makes what is absent.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as of [`Self::open`], or the file beside the key can't be read.
    pub fn open_beside(state: &Path, signing_key: &Path) -> Result<Beside, StoreError> {
        let place = state.join(FILE);
        let open = Box::new(move || file::open(&place));
        Self::beside_by(state, signing_key, open, Arc::default())
    }

    /// The same, of a file that is opened so, and by this clock.
    pub(super) fn beside_by(
        state: &Path,
        signing_key: &Path,
        open: file::Opener,
        clock: Arc<NewestTime>,
    ) -> Result<Beside, StoreError> {
        let mark = Mark::of(signing_key, state);
        let store = Self::at_time(state.join(FILE), open, Some(mark), clock)?;
        let mut notes = Vec::new();
        notes.extend(store.settle_beside(signing_key)?);
        if !store.remark() {
            notes.push(format!(
                "{} can't be written: a store that is lost or put back from an older copy will not be noticed; make the directory of tokens.signing_key writable for this user",
                beside(signing_key).display()
            ));
        }
        Ok(Beside { store, notes })
    }

    /// Opens a store that was made from a backup, and takes it for the one of this key.
    /// Unless `is_trusted`, or the key knows that nothing was refused since, what was
    /// refused since is held for lost.
    ///
    /// # Errors
    ///
    /// Errors of [`Self::open_beside`].
    pub fn open_restored(
        state: &Path,
        signing_key: &Path,
        is_trusted: bool,
    ) -> Result<Beside, StoreError> {
        let known = read(&beside(signing_key))?;
        if !is_trusted && !known.is_empty() {
            return Self::open_beside(state, signing_key);
        }
        let store = {
            let (mark, place) = (Mark::of(signing_key, state), state.join(FILE));
            let opened = place.clone();
            let open = Box::new(move || file::open(&opened));
            Self::with_opener(place, open, Some(mark))?
        };
        let (id, now) = (store.meta(ID_KEY)?, store.clock().seconds() + 1);
        let serial = known.iter().find(|known| known.id == id);
        let serial = serial.map_or(0, |known| known.serial);
        store.try_write(|transaction| {
            if !is_trusted {
                return lose(transaction, now, serial);
            }
            let mut meta = transaction.open_table(META)?;
            let own = meta.get(SERIAL_KEY)?.map_or(0, |value| value.value());
            meta.insert(SERIAL_KEY, own.max(serial))?;
            Ok(())
        })?;
        store.remark();
        let notes = Vec::new();
        Ok(Beside { store, notes })
    }

    /// The moment before which tokens may have been revoked without this store knowing,
    /// in seconds since 1970; zero for none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    pub fn lost_at(&self) -> Result<u64, StoreError> {
        self.meta(LOST_KEY)
    }

    /// Holds the store against those that its key knows. Returns what is wrong.
    pub(super) fn settle_beside(&self, signing_key: &Path) -> Result<Option<String>, StoreError> {
        let stores = &read(&beside(signing_key))?;
        let (id, serial) = (self.meta(ID_KEY)?, self.meta(SERIAL_KEY)?);
        let verdict = Verdict::of(stores, id, serial);
        let own = stores.iter().find(|known| id != 0 && known.id == id);
        let newest = match own {
            Some(own) => own.time,
            None => stores
                .iter()
                .map(|known| known.time)
                .max()
                .unwrap_or_default(),
        };
        self.clock().learn(newest);
        let held = own.map(|known| known.held.clone()).unwrap_or_default();
        // Issue times are whole seconds: the present one is refused whole.
        let now = self.clock().seconds().saturating_add(1);
        let new_id = if id == 0 { random()? } else { id };
        let known_serial = own.map_or(0, |known| known.serial);
        self.try_write(|transaction| {
            transaction.open_table(META)?.insert(ID_KEY, new_id)?;
            refusals::apply(transaction, &held)?;
            if verdict != Verdict::Good {
                lose(transaction, now, known_serial)?;
            }
            Ok(())
        })?;
        if verdict != Verdict::Good {
            self.0.news.ours()?.tell_unknown();
            // Tokens that are issued from now on are not of before.
            self.clock().learn(now);
        }
        Ok(verdict.told(self))
    }

    /// Writes our line beside the key. Returns whether it stands there.
    pub(super) fn remark(&self) -> bool {
        let Some(mark) = &self.0.mark else {
            return false;
        };
        let (id, serial) = (self.meta(ID_KEY), self.meta(SERIAL_KEY));
        let mut own = mark.own.lock().unwrap_or_else(PoisonError::into_inner);
        // While the store can't be read, what was read last holds.
        own.id = id.unwrap_or(own.id);
        own.serial = serial.unwrap_or(own.serial).max(own.serial);
        own.time = self.clock().remembered().as_secs();
        own.held = self.0.held.all();
        match mark.write(&own) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %error, "{} can't be written", mark.path.display());
                false
            }
        }
    }
}

impl Mark {
    /// The one beside this key, for the store of this state directory.
    pub(super) fn of(signing_key: &Path, state: &Path) -> Self {
        Self {
            path: beside(signing_key),
            own: Mutex::new(Known {
                state: std::path::absolute(state).unwrap_or_else(|_| state.to_owned()),
                ..Known::default()
            }),
        }
    }

    fn write(&self, own: &Known) -> io::Result<()> {
        let others = read(&self.path).map_err(io::Error::other)?;
        let mut stores: Vec<Known> = others
            .into_iter()
            .filter(|known| known.id != own.id && known.state != own.state)
            .collect();
        stores.push(own.clone());
        let beyond = stores.len().saturating_sub(STORES_MAX);
        stores.drain(..beyond);
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        write_durable(&self.path, &serde_json::to_vec_pretty(&Content { stores })?)
    }
}

/// State of a store against those that its key knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is known, or there was none before.
    Good,
    /// There was one, and it is not this one.
    Another,
    /// It lacks changes that were made.
    Older,
}

impl Verdict {
    fn of(stores: &[Known], id: u64, serial: u64) -> Self {
        match stores.iter().find(|known| id != 0 && known.id == id) {
            Some(known) if serial < known.serial => Self::Older,
            Some(_) => Self::Good,
            None if stores.is_empty() => Self::Good,
            None => Self::Another,
        }
    }

    fn told(self, store: &Store) -> Option<String> {
        let what = match self {
            Self::Good => return None,
            Self::Another => "is not the one that was used with this signing key before",
            Self::Older => "is an older copy of the one that was used with this signing key",
        };
        Some(format!(
            "the store {} {what}: which tokens were revoked is not known any more, and all sessions have ended",
            store.0.path.display()
        ))
    }
}

/// Takes note that revocations may be missing. Sessions and links that had ended
/// must not come back.
fn lose(transaction: &WriteTransaction, now: u64, serial: u64) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let read =
        |key| -> Result<u64, StoreError> { Ok(meta.get(key)?.map_or(0, |value| value.value())) };
    let lost = read(LOST_KEY)?.max(now);
    let serial = read(SERIAL_KEY)?.max(serial).saturating_add(1);
    meta.insert(LOST_KEY, lost)?;
    meta.insert(SERIAL_KEY, serial)?;
    drop(meta);
    records::clear(transaction)
}

pub(super) fn random() -> Result<u64, NoRandomBytes> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomBytes)?;
    Ok(u64::from_ne_bytes(bytes).max(1))
}

/// The stores of a file; none where it is absent.
fn read(path: &Path) -> Result<Vec<Known>, StoreError> {
    let content = || -> io::Result<Vec<Known>> {
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(BYTES_MAX).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice::<Content>(&text)?.stores)
    };
    content().map_err(|source| StoreError::Mark {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
