//! The tokens that come again and again, found without a hash.
//!
//! Stands before [`cache`](super::cache): a small array of places, each with one token
//! in full and what is known of it. The place is chosen by the token's last bytes, which
//! are those of its signature, and the whole token is compared, so that what is found is
//! what was verified. Finding it costs a comparison where the cache's key costs a
//! SHA-256 of the token.
//!
//! Only verified tokens come in. Deliberately forgets at once when keys or revocations
//! have changed: it answers only for the generations that an entry was held against,
//! and leaves the rest to the cache.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::cache::Entry;
use super::principal::Principal;

/// Places: tokens beyond these are found in the cache.
const PLACES: usize = 1024;

/// A token and what is known of it.
struct Known {
    token: Box<str>,
    entry: Entry,
}

/// The array of recent tokens.
pub(super) struct Recent {
    /// Each locked for one comparison.
    places: Box<[RwLock<Option<Known>>]>,
}

impl Recent {
    /// An empty array.
    pub(super) fn new() -> Self {
        let places = (0..PLACES).map(|_| RwLock::new(None)).collect();
        Self { places }
    }

    /// Holder of a token that was verified with these generations of keys and
    /// revocations and has not expired.
    pub(super) fn find(
        &self,
        token: &str,
        keys: u64,
        revocations: u64,
        now: u64,
    ) -> Option<Arc<Principal>> {
        let place = self.place(token)?;
        let place = place.read().unwrap_or_else(PoisonError::into_inner);
        let known = place.as_ref()?;
        let entry = &known.entry;
        let holds = entry.keys == keys
            && entry.revocations == revocations
            && (entry.valid_from..entry.valid_until).contains(&now)
            && *known.token == *token;
        holds.then(|| Arc::clone(&entry.principal))
    }

    /// Remembers a token that was just verified, in place of another one.
    pub(super) fn put(&self, token: &str, entry: Entry) {
        if let Some(place) = self.place(token) {
            let known = Known {
                token: token.into(),
                entry,
            };
            *place.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
        }
    }

    fn place(&self, token: &str) -> Option<&RwLock<Option<Known>>> {
        let end = token.as_bytes().last_chunk().copied().unwrap_or_default();
        // Base64 leaves the low bits of each byte uneven; a product spreads them.
        let mixed = u64::from_le_bytes(end).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = usize::try_from(mixed >> 32).ok()? % self.places.len();
        self.places.get(index)
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent")
            .field("places", &self.places.len())
            .finish_non_exhaustive()
    }
}
