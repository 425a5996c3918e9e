//! Verified tokens, remembered.
//!
//! A signature costs 50 to 150 µs to check, finding the same token again about one
//! ([`recent`](super::recent) spares the most used ones even that).
//! The map is set-associative: an array of small sets, each with its lock and
//! [`WAYS`] places, so that its memory is bounded and eviction looks at one set
//! only. Sets are made in groups, the first time that one of a group is needed, so
//! an idle gateway pays for none. The way that gives place is taken from the key's
//! own bits, which nobody outside can predict: when more tokens are in use than fit,
//! a share of them hits in proportion, where least-recently-used order would miss
//! every time.
//!
//! Only verified tokens come in, so that garbage displaces none.

use std::array;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use aws_lc_rs::digest::{Context, SHA256};

use super::principal::Principal;
use super::ulid::NoRandomBytes;

/// Places of one set.
const WAYS: usize = 8;

/// Sets that are made at once: 25 KiB.
const GROUP: usize = 64;

/// Stands for a token: 128 bits of SHA-256 over a random prefix and the token.
///
/// Two tokens with one key can't be made on purpose: the prefix is chosen by this
/// process and never leaves it, so a key can't be computed outside, and of 2^128
/// keys at most some hundred thousand are taken, which leaves nothing to be guessed.
/// Two rounds of the standard hasher would take 0.5 µs for a usual token where this
/// takes 0.8; but which algorithm that is, the standard library leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheKey(u128);

/// Facts about a token that was verified.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) principal: Arc<Principal>,
    /// Before this second it is not valid yet, leeway included.
    pub(super) valid_from: u64,
    /// From this second on it is expired, leeway included.
    pub(super) valid_until: u64,
    /// Generation of the revocations that it was last held against.
    pub(super) revocations: u64,
    /// Generation of the keys that its signature was checked with.
    pub(super) keys: u64,
}

type Set = [Option<(CacheKey, Entry)>; WAYS];

/// Sets that are made together.
type Group = Box<[RwLock<Set>]>;

/// The map of verified tokens.
pub(super) struct Cache {
    /// SHA-256 that has taken in one block of random bytes.
    prefixed: Context,
    /// A set is locked for a scan of its places, never over anything slow.
    groups: Box<[OnceLock<Group>]>,
    /// Number of sets that there can be; a power of two.
    sets: usize,
}

impl Cache {
    /// An empty map of `capacity` places, rounded up to whole sets and a power of two.
    pub(super) fn new(capacity: usize) -> Result<Self, NoRandomBytes> {
        let mut prefix = [0; 64];
        aws_lc_rs::rand::fill(&mut prefix).map_err(|_| NoRandomBytes)?;
        let mut prefixed = Context::new(&SHA256);
        prefixed.update(&prefix);
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        let groups = (0..sets.div_ceil(GROUP)).map(|_| OnceLock::new());
        Ok(Self {
            prefixed,
            groups: groups.collect(),
            sets,
        })
    }

    /// The key of a token.
    pub(super) fn key(&self, token: &[u8]) -> CacheKey {
        let mut context = self.prefixed.clone();
        context.update(token);
        let hash = context.finish();
        let half = hash.as_ref().first_chunk().copied().unwrap_or_default();
        CacheKey(u128::from_ne_bytes(half))
    }

    /// Entry that is remembered under a key.
    pub(super) fn get(&self, key: CacheKey) -> Option<Entry> {
        let set = self
            .set(key)?
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        set.iter()
            .flatten()
            .find_map(|(k, entry)| (*k == key).then(|| entry.clone()))
    }

    /// Remembers an entry: over its own older one, in a free place, over an expired
    /// one, or over any.
    pub(super) fn put(&self, key: CacheKey, entry: Entry, now: u64) {
        let Some(set) = self.set(key) else { return };
        let mut set = set.write().unwrap_or_else(PoisonError::into_inner);
        let any = usize::try_from((key.0 >> 64) % WAYS as u128).unwrap_or_default();
        let is_own =
            |place: &Option<(CacheKey, Entry)>| place.as_ref().is_some_and(|(k, _)| *k == key);
        let is_free = |place: &Option<(CacheKey, Entry)>| {
            place.as_ref().is_none_or(|(_, old)| old.valid_until <= now)
        };
        let chosen = set
            .iter()
            .position(is_own)
            .or_else(|| set.iter().position(is_free))
            .unwrap_or(any);
        if let Some(place) = set.get_mut(chosen) {
            *place = Some((key, entry));
        }
    }

    /// Forgets what is remembered under a key.
    pub(super) fn remove(&self, key: CacheKey) {
        let Some(set) = self.set(key) else { return };
        let mut set = set.write().unwrap_or_else(PoisonError::into_inner);
        for place in set.iter_mut() {
            if place.as_ref().is_some_and(|(k, _)| *k == key) {
                *place = None;
            }
        }
    }

    fn set(&self, key: CacheKey) -> Option<&RwLock<Set>> {
        let index = usize::try_from(key.0 % self.sets as u128).ok()?;
        let group = self.groups.get(index / GROUP)?.get_or_init(|| {
            let empty = || RwLock::new(array::from_fn(|_| None));
            std::iter::repeat_with(empty)
                .take(GROUP.min(self.sets))
                .collect()
        });
        group.get(index % GROUP)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let count = |set: &RwLock<Set>| set.read().unwrap().iter().flatten().count();
        let made = self.groups.iter().filter_map(OnceLock::get);
        made.flatten().map(count).sum()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("sets", &self.sets)
            .finish_non_exhaustive()
    }
}
