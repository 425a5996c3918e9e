//! Use by each token since it was last taken out.
//!
//! Owns the sums in memory, and their bound. The store's keeper takes them out every
//! few seconds ([`Ledger::take`]), and gives them back if they could not be kept. While
//! this process may be killed for another, nothing waits here: use is written
//! down at once ([`WriteDown`]).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Maps that the tokens are spread over, so that requests seldom meet at a lock.
const SHARDS: usize = 16;

/// Most tokens that are held at once.
pub const TOKENS_MAX: usize = 65_536;

/// Use by one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that reached a server.
    pub requests: u64,
    /// Tokens of prompts, as the engines reported them.
    pub prompt_tokens: u64,
    /// Tokens of completions, likewise.
    pub completion_tokens: u64,
    /// Last use, in seconds since 1970.
    pub last_used: u64,
}

impl Tally {
    /// Sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self
                .completion_tokens
                .saturating_add(other.completion_tokens),
            last_used: self.last_used.max(other.last_used),
        }
    }
}

/// A place from which a SIGKILL of this process takes nothing.
pub trait WriteDown: std::fmt::Debug + Send {
    /// Writes down what one token used. Returns whether it stands there.
    fn write_down(&mut self, token_id: &Arc<str>, used: Tally) -> bool;

    /// Forces what stands there to the disk, so that a loss of power takes nothing either.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    fn force(&self) -> io::Result<()>;
}

/// Sums by token id. Shared by all requests; each locks one shard for an addition.
#[derive(Debug)]
pub struct Ledger {
    hasher: RandomState,
    shards: [Mutex<HashMap<Arc<str>, Tally>>; SHARDS],
    lost: AtomicU64,
    /// True while there is a journal in `place`: looked at instead of its lock.
    has_journal: AtomicBool,
    place: Mutex<Place>,
}

/// Place that use goes to at once instead of into the sums.
#[derive(Debug, Default)]
struct Place {
    journal: Option<Box<dyn WriteDown>>,
    /// Number of take-overs that want it so.
    holders: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// No token has used anything.
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Default::default(),
            lost: AtomicU64::new(0),
            has_journal: AtomicBool::new(false),
            place: Mutex::default(),
        }
    }

    /// Writes usage down at once from now on, in the place that there is or else in this
    /// new one, until as many have called [`Self::sum_up`] as this.
    ///
    /// # Errors
    ///
    /// Errors of `begin`; usage is summed up as before then.
    pub fn write_down_in(
        &self,
        begin: impl FnOnce() -> io::Result<Box<dyn WriteDown>>,
    ) -> io::Result<()> {
        let mut place = locked(&self.place);
        if place.journal.is_none() {
            place.journal = Some(begin()?);
        }
        place.holders += 1;
        self.has_journal.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Goes on in another place, if usage is written down at all. Returns the one that
    /// nothing is written to any more.
    pub fn write_on_in(&self, next: Box<dyn WriteDown>) -> Option<Box<dyn WriteDown>> {
        let mut place = locked(&self.place);
        let before = place.journal.take()?;
        place.journal = Some(next);
        Some(before)
    }

    /// Sums usage up again, once nobody else wants it written down. Returns the place that
    /// nothing is written to any more.
    pub fn sum_up(&self) -> Option<Box<dyn WriteDown>> {
        let mut place = locked(&self.place);
        place.holders = place.holders.saturating_sub(1);
        if place.holders > 0 {
            return None;
        }
        self.has_journal.store(false, Ordering::Relaxed);
        place.journal.take()
    }

    /// Writes down what was summed up. Returns whether all of it stands there.
    pub fn write_rest(&self) -> bool {
        let mut is_all = true;
        for (token_id, used) in self.take() {
            if !self.write_down(&token_id, used) {
                self.merge(&token_id, used);
                is_all = false;
            }
        }
        is_all
    }

    /// Forces what was written down to the disk.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub fn force(&self) -> io::Result<()> {
        let place = locked(&self.place);
        place
            .journal
            .as_ref()
            .map_or(Ok(()), |journal| journal.force())
    }

    /// Adds one request. Where too many tokens are held, one that is not among them is
    /// counted as lost.
    pub fn add(&self, token_id: &Arc<str>, prompt: u64, completion: u64, now_unix: u64) {
        let one = Tally {
            requests: 1,
            prompt_tokens: prompt,
            completion_tokens: completion,
            last_used: now_unix,
        };
        if self.has_journal.load(Ordering::Relaxed) && self.write_down(token_id, one) {
            return;
        }
        self.merge(token_id, one);
    }

    /// Writes to the page cache, some microseconds, so that it is there before the client
    /// has the last byte of the answer.
    #[cold]
    fn write_down(&self, token_id: &Arc<str>, used: Tally) -> bool {
        let mut place = locked(&self.place);
        let journal = place.journal.as_mut();
        journal.is_some_and(|journal| journal.write_down(token_id, used))
    }

    /// Use by a token since the last [`Self::take`].
    pub fn pending(&self, token_id: &str) -> Tally {
        let shard = self.shard(token_id);
        shard
            .and_then(|s| s.get(token_id).copied())
            .unwrap_or_default()
    }

    /// Use by every token since the last [`Self::take`].
    pub fn all_pending(&self) -> Vec<(Arc<str>, Tally)> {
        let copy = |shard: &Mutex<HashMap<Arc<str>, Tally>>| {
            let shard = locked(shard);
            let rows = shard.iter().map(|(id, tally)| (Arc::clone(id), *tally));
            rows.collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(copy).collect()
    }

    /// Takes everything out.
    pub fn take(&self) -> Vec<(Arc<str>, Tally)> {
        let lock = |shard: &Mutex<_>| std::mem::take(&mut *locked(shard));
        self.shards.iter().flat_map(lock).collect()
    }

    /// Puts back what was taken and could not be kept.
    pub fn give_back(&self, taken: Vec<(Arc<str>, Tally)>) {
        for (token_id, tally) in taken {
            self.merge(&token_id, tally);
        }
    }

    /// Requests that were not counted, for want of room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn merge(&self, token_id: &Arc<str>, tally: Tally) {
        let Some(mut shard) = self.shard(token_id) else {
            return;
        };
        if let Some(sum) = shard.get_mut(token_id) {
            *sum = sum.plus(tally);
        } else if shard.len() < TOKENS_MAX / SHARDS {
            shard.insert(Arc::clone(token_id), tally);
        } else {
            self.lost.fetch_add(tally.requests, Ordering::Relaxed);
        }
    }

    fn shard(&self, token_id: &str) -> Option<MutexGuard<'_, HashMap<Arc<str>, Tally>>> {
        let index = self.hasher.hash_one(token_id) % SHARDS as u64;
        let shard = self.shards.get(usize::try_from(index).ok()?)?;
        Some(locked(shard))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> Arc<str> {
        Arc::from(format!("01{n}"))
    }

    #[test]
    fn what_threads_add_is_taken_out_once_and_whole() {
        let ledger = Ledger::new();
        std::thread::scope(|scope| {
            for now in 1..=4 {
                let ledger = &ledger;
                scope.spawn(move || {
                    for n in 0..1_000 {
                        ledger.add(&id(n % 10), 2, 3, now);
                    }
                });
            }
        });
        let expected = Tally {
            requests: 400,
            prompt_tokens: 800,
            completion_tokens: 1_200,
            last_used: 4,
        };
        assert_eq!(ledger.pending("010"), expected);
        let taken = ledger.take();
        assert_eq!(taken.len(), 10);
        assert!(taken.iter().all(|(_, tally)| *tally == expected));
        assert_eq!(ledger.take(), []);
        ledger.add(&id(0), 1, 1, 9);
        ledger.give_back(taken);
        assert_eq!(ledger.pending("010").requests, 401);
        assert_eq!(ledger.pending("010").last_used, 9);
    }

    /// Takes one addition, and no more.
    #[derive(Debug)]
    struct Full(Arc<Mutex<Vec<Tally>>>);

    impl WriteDown for Full {
        fn write_down(&mut self, _: &Arc<str>, used: Tally) -> bool {
            let mut written = locked(&self.0);
            written.push(used);
            written.len() == 1
        }

        fn force(&self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn what_can_not_be_written_down_is_summed_up() {
        let (ledger, written) = (Ledger::new(), Arc::<Mutex<Vec<Tally>>>::default());
        let begin =
            || -> io::Result<Box<dyn WriteDown>> { Ok(Box::new(Full(Arc::clone(&written)))) };
        let stand = || (locked(&written).len(), ledger.pending("010").requests);
        ledger.add(&id(0), 1, 1, 1);
        ledger.write_down_in(begin).unwrap();
        ledger
            .write_down_in(|| unreachable!("there is one"))
            .unwrap();
        ledger.add(&id(0), 1, 1, 1);
        assert_eq!(stand(), (1, 1));
        ledger.add(&id(0), 1, 1, 1);
        assert_eq!(stand(), (2, 2), "it is full");
        assert!(!ledger.write_rest());
        assert_eq!(stand(), (3, 2));
        assert!(ledger.sum_up().is_none(), "another holds it");
        ledger.add(&id(0), 1, 1, 1);
        assert_eq!(stand(), (4, 3));
        assert!(ledger.sum_up().is_some());
        ledger.add(&id(0), 1, 1, 1);
        assert_eq!(stand(), (4, 4));
        locked(&written).clear();
        ledger.write_down_in(begin).unwrap();
        assert!(ledger.write_rest());
        assert_eq!(stand(), (1, 0));
        assert!(ledger.force().is_err());
        assert_eq!(locked(&written)[0].requests, 4);
    }

    #[test]
    fn more_tokens_than_fit_are_counted_as_lost() {
        let ledger = Ledger::new();
        let all = TOKENS_MAX + 5_000;
        for n in 0..all {
            ledger.add(&id(n), 0, 0, 1);
        }
        let lost = ledger.lost();
        let taken = ledger.take();
        assert!(lost >= 5_000 && taken.len() <= TOKENS_MAX, "{lost}");
        assert_eq!(taken.len() as u64 + lost, all as u64);
    }
}
