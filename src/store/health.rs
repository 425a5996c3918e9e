//! Health of the store: if writes to it are kept.
//!
//! After an I/O error redb answers every call with one, so the file is closed and
//! opened again: at once, so that it can at least be read, and then with growing
//! pauses up to [`PAUSE_MAX`] until a transaction succeeds. In the pauses nothing is
//! tried. [`Store::tend`] does all that, and is to be called every second; it also
//! sees when the file was deleted or replaced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::file::Place;
use super::refusals::Refusal;
use super::{File, Store, StoreError};
use crate::time::Instant;

/// Pause between two calls of [`Store::tend`].
pub const TEND: Duration = Duration::from_secs(1);
/// First pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause: within a minute it is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause between two purges of ended records, and before the first: not at the start,
/// when a wrong clock may not be set right yet.
const PURGE: Duration = Duration::from_hours(24);
const PURGE_FIRST: Duration = Duration::from_hours(1);
/// Pause between two writes of the newest time, where nothing else is written.
const TIME_KEPT: Duration = Duration::from_mins(1);

/// Written by calls that fail or succeed, for moments; never over the disk.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    /// Time of the last write.
    written: Option<Instant>,
    /// Next time at which records that have ended are forgotten.
    purge: Option<Instant>,
}

#[derive(Debug)]
struct Fault {
    words: Arc<str>,
    pause: Duration,
    again: Instant,
    /// True if another file stands where ours was: then there is nothing to try.
    misplaced: bool,
}

impl Health {
    /// Refuses while it is not time to try again.
    pub(super) fn may_try(&self) -> Result<(), StoreError> {
        match &self.lock().fault {
            Some(fault) if fault.misplaced || Instant::now() < fault.again => {
                Err(StoreError::Failing(Arc::clone(&fault.words)))
            }
            _ => Ok(()),
        }
    }

    /// The fault, in words.
    pub(super) fn words(&self) -> Arc<str> {
        let state = self.lock();
        let fault = state.fault.as_ref();
        fault.map_or_else(|| "it is opened again".into(), |f| Arc::clone(&f.words))
    }

    fn fault(&self) -> Option<Arc<str>> {
        self.lock().fault.as_ref().map(|f| Arc::clone(&f.words))
    }

    /// Notes a failure; whether there was none before.
    fn fail(&self, words: &str) -> bool {
        let mut state = self.lock();
        let before = state.fault.take();
        let pause = before
            .as_ref()
            .map_or(PAUSE, |fault| (fault.pause * 2).min(PAUSE_MAX));
        let is_news = before.is_none_or(|fault| *fault.words != *words);
        state.fault = Some(Fault {
            words: words.into(),
            pause,
            again: Instant::now() + pause,
            misplaced: false,
        });
        is_news
    }

    /// Notes whether another file stands where ours was; whether that is news.
    fn misplace(&self, is_misplaced: bool) -> bool {
        let mut state = self.lock();
        if state.fault.as_ref().is_some_and(|f| f.misplaced) == is_misplaced {
            return false;
        }
        state.fault = Some(Fault {
            words: "another file was put in its place while it is open; stop the gateway, put the \
                    right one there, and start it"
                .into(),
            pause: PAUSE,
            again: Instant::now(),
            misplaced: is_misplaced,
        });
        true
    }

    /// Notes a success; whether there was a fault before.
    fn recover(&self) -> bool {
        let mut state = self.lock();
        state.written = Some(Instant::now());
        state.fault.take().is_some()
    }

    /// True if it is time to forget records that have ended; then the next time is set.
    fn is_purge_due(&self) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let due = *state.purge.get_or_insert(now + PURGE_FIRST);
        let is_due = now >= due;
        if is_due {
            state.purge = Some(now + PURGE);
        }
        is_due
    }

    fn is_time_due(&self) -> bool {
        self.lock()
            .written
            .is_none_or(|at| at.elapsed() >= TIME_KEPT)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Things that are not kept and the reason, in words; `None` while everything is kept.
    pub fn fault(&self) -> Option<String> {
        let words = self.0.health.fault()?;
        let path = self.0.path.display();
        let held = match self.0.held.len() {
            0 => String::new(),
            1 => " 1 revocation is in effect and held in memory.".to_owned(),
            n => format!(" {n} revocations are in effect and held in memory."),
        };
        Some(format!(
            "The store {path} can't be written: {words}.{held} New tokens, sessions and audit \
             events can't be kept, usage is held in memory; it is tried again within half a minute, \
             and a restart before that loses what is held."
        ))
    }

    /// Number of revocations that are in effect, and not in the store yet.
    pub fn held(&self) -> usize {
        self.0.held.len()
    }

    /// Opens the file again where that is due, writes what was held, and the newest
    /// time now and then. Blocking; to be called every [`TEND`].
    pub fn tend(&self) {
        self.0.clock.tick();
        if matches!(*self.file(), File::Closed) {
            return;
        }
        self.look();
        let health = &self.0.health;
        if health.is_purge_due() {
            self.purge();
        }
        if health.may_try().is_err() || (health.fault().is_none() && !health.is_time_due()) {
            return;
        }
        self.reopen();
        // It says itself how it went.
        drop(self.try_write(|_| Ok(())));
    }

    /// Forgets what ended long ago by the time that is sure.
    fn purge(&self) {
        let now = self.0.clock.remembered().as_secs();
        let purged = self.purge_expired_tokens(now);
        if let Err(error) = purged.and_then(|_| self.purge_cutoffs(now)) {
            tracing::warn!(error = %error, "tokens that ended long ago could not be forgotten");
        }
    }

    /// Sees to a file that was deleted or replaced while it is open.
    fn look(&self) {
        let place = match &*self.file() {
            File::Open(opened) => opened.place(&self.0.path),
            File::Failing | File::Closed => return,
        };
        match place {
            Place::Deleted => self.write_again(),
            there => {
                let is_replaced = there == Place::Replaced;
                if self.0.health.misplace(is_replaced) && is_replaced {
                    let path = self.0.path.display();
                    tracing::error!(
                        "the store {path} can't be written: {}",
                        self.0.health.words()
                    );
                }
            }
        }
    }

    fn write_again(&self) {
        let mut file = self.lock_file();
        let File::Open(opened) = std::mem::replace(&mut *file, File::Failing) else {
            return;
        };
        let again = opened.write_again(&self.0.path);
        drop(file);
        match again {
            Ok(()) => {
                tracing::error!(
                    "the store {} was deleted while it was open: it is written again; what else \
                     stood in its directory is gone until the next start",
                    self.0.path.display()
                );
                self.reopen();
            }
            Err(error) => self.fail(&format!(
                "it was deleted while it was open, and can't be written again ({error})"
            )),
        }
    }

    /// Opens the file where a failure closed it.
    fn reopen(&self) {
        let mut file = self.lock_file();
        if !matches!(*file, File::Failing) {
            return;
        }
        match (self.0.open)() {
            Ok(opened) => *file = File::Open(opened),
            Err(error) => {
                drop(file);
                self.fail(&described(&error));
            }
        }
    }

    /// Notes what a transaction met. An error of the disk closes the file and opens it
    /// again, so that it can be read.
    pub(super) fn failed(&self, error: &StoreError) {
        if !matches!(error, StoreError::Transaction(_)) {
            return;
        }
        {
            let mut file = self.lock_file();
            if let File::Open(_) = *file {
                *file = File::Failing;
            }
        }
        self.fail(&described(error));
        self.reopen();
    }

    fn fail(&self, words: &str) {
        if self.0.health.fail(words) {
            tracing::error!(
                "the store {} can't be written: {words}",
                self.0.path.display()
            );
        }
    }

    /// Notes that a transaction was written, and with it what was held.
    pub(super) fn written(&self, held: &[Refusal]) {
        self.0.held.forget(held);
        if !held.is_empty() {
            self.remark();
        }
        if self.0.health.recover() {
            tracing::warn!(
                "the store {} is written again{}",
                self.0.path.display(),
                match held.len() {
                    0 => String::new(),
                    n => format!(", with what was held in memory ({n} revocations)"),
                }
            );
        }
    }

    fn lock_file(&self) -> std::sync::RwLockWriteGuard<'_, File> {
        self.0.file.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes.
fn described(error: &StoreError) -> String {
    let full = "the disk is full: make room";
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = match error {
        StoreError::Transaction(error) => Some(error),
        other => Some(other),
    };
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::StorageFull
        {
            return full.to_owned();
        }
        let said = error.to_string();
        if said.contains("No space left on device") {
            return full.to_owned();
        }
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        next = error.source();
    }
    text
}
