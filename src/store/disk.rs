//! A disk in memory that fails as real ones do, by a seed: for tests.
//!
//! Knows what a process has written, and what of it a loss of power leaves: all before
//! the last flush that succeeded, and any part of what came since.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::mark::Beside;
use super::{FILE, Store, StoreError, file};
use crate::time::NewestTime;

/// Bytes that a disk writes as one.
const SECTOR: usize = 512;

/// Way in which an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done.
    Error,
    /// A part of it is done; a flush is done whole, and fails for all that.
    Half,
}

/// A disk. A clone is another handle.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    /// Content for readers.
    seen: Vec<u8>,
    /// Content after a loss of power.
    safe: Vec<u8>,
    /// Changes since the last flush.
    since: Vec<Change>,
    /// True while there is no room.
    full: bool,
    /// Fault of every change, if every change fails.
    broken: Option<Fault>,
    /// After so many changes one fails.
    next: Option<(u32, Fault)>,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Change {
    fn on(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Bytes(at, written) => {
                let end = at + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(written);
            }
        }
    }
}

impl Disk {
    /// An empty one that works.
    pub(crate) fn new() -> Self {
        Self::of(Vec::new())
    }

    /// A disk that works, with these bytes.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State {
            safe: bytes.clone(),
            seen: bytes,
            ..State::default()
        })))
    }

    /// Takes all room, or gives it back.
    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Lets every change fail, or none.
    pub(crate) fn set_broken(&self, broken: Option<Fault>) {
        self.lock().broken = broken;
    }

    /// Lets one change fail, after so many.
    pub(crate) fn fail_after(&self, changes: u32, fault: Fault) {
        self.lock().next = Some((changes, fault));
    }

    /// Ends every fault.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        (state.full, state.broken, state.next) = (false, None, None);
    }

    /// Content for readers.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().seen.clone()
    }

    /// Content after a loss of power. `part` says of each part that was not flushed whether
    /// it was written.
    pub(crate) fn after_power_loss(&self, mut part: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.lock();
        let mut left = state.safe.clone();
        for change in &state.since {
            match change {
                Change::Length(_) if part() => change.on(&mut left),
                Change::Length(_) => {}
                Change::Bytes(at, bytes) => {
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if part() {
                            Change::Bytes(at + n * SECTOR, sector.to_vec()).on(&mut left);
                        }
                    }
                }
            }
        }
        left
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Fault of the next change.
    fn fault(&mut self) -> Option<Fault> {
        if let Some((left, fault)) = self.next {
            self.next = left.checked_sub(1).map(|left| (left, fault));
            if left == 0 {
                return Some(fault);
            }
        }
        self.broken
    }

    fn change(&mut self, change: Change) {
        change.on(&mut self.seen);
        self.since.push(change);
    }
}

fn failed() -> io::Error {
    // EIO.
    io::Error::from_raw_os_error(5)
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let state = self.lock();
        let bytes = state.seen.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.lock();
        let length = usize::try_from(length).unwrap();
        if state.full && length > state.seen.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.fault().is_some() {
            return Err(failed());
        }
        state.change(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.fault();
        if fault != Some(Fault::Error) {
            state.since.clear();
            state.safe = state.seen.clone();
        }
        fault.map_or(Ok(()), |_| Err(failed()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let offset = usize::try_from(offset).unwrap();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match state.fault() {
            None => state.change(Change::Bytes(offset, data.to_vec())),
            Some(Fault::Error) => return Err(failed()),
            Some(Fault::Half) => {
                let half = data.len() / 2 / SECTOR * SECTOR;
                state.change(Change::Bytes(offset, data[..half].to_vec()));
                return Err(failed());
            }
        }
        Ok(())
    }
}

impl Store {
    /// Opens as [`Self::open_beside`], with its file on this disk, and by this clock.
    pub(crate) fn open_on(
        disk: &Disk,
        state: &Path,
        signing_key: &Path,
        clock: Arc<NewestTime>,
    ) -> Result<Beside, StoreError> {
        let (disk, path) = (disk.clone(), state.join(FILE));
        let open = Box::new(move || file::on(disk.clone(), &path));
        Self::beside_by(state, signing_key, open, clock)
    }
}
