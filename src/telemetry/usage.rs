//! What each token used since someone last asked.
//!
//! Owns the sums in memory, and their bound. Whoever keeps them takes them out every
//! few seconds ([`Ledger::take`]), and gives them back if they could not be kept.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Maps that the tokens are spread over, so that requests seldom meet at a lock.
const SHARDS: usize = 16;

/// Most tokens that are held at once.
pub const TOKENS_MAX: usize = 65_536;

/// What one token used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that reached a server.
    pub requests: u64,
    /// Tokens of prompts, as the engines reported them.
    pub prompt_tokens: u64,
    /// Tokens of completions, likewise.
    pub completion_tokens: u64,
    /// When it was last used, in seconds since 1970.
    pub last_used: u64,
}

impl Tally {
    /// Both together.
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

/// Sums by token id. Shared by all requests; each locks one shard for an addition.
#[derive(Debug)]
pub struct Ledger {
    hasher: RandomState,
    shards: [Mutex<HashMap<Arc<str>, Tally>>; SHARDS],
    lost: AtomicU64,
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
        }
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
        self.merge(token_id, one);
    }

    /// What a token used since the last [`Self::take`].
    pub fn pending(&self, token_id: &str) -> Tally {
        let shard = self.shard(token_id);
        shard
            .and_then(|s| s.get(token_id).copied())
            .unwrap_or_default()
    }

    /// What every token used since the last [`Self::take`].
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
