//! Holders who have shown a token here, for the record of what they use.
//!
//! Owns the holders that were seen since someone last asked, and their bound. Tokens of
//! other issuers have no record here until one is shown, and usage without a name is of
//! no use to an administrator. A token is noted once, when it is verified afresh; the
//! requests that follow do not come by here. The keeper of the record takes holders out
//! ([`Holders::take`]), and gives them back if they could not be kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::principal::Principal;

/// Most holders that are held at once. A further one is noted when their token is
/// verified afresh again.
pub const HOLDERS_MAX: usize = 65_536;

/// Holders by token id.
#[derive(Debug, Default)]
pub struct Holders(Mutex<HashMap<Arc<str>, Arc<Principal>>>);

impl Holders {
    /// Notes the holder of a token that was shown, by the token of theirs that was issued last.
    pub(super) fn note(&self, principal: &Arc<Principal>) {
        let mut seen = self.locked();
        let id = &principal.token_id;
        let is_new = match seen.get(id) {
            Some(earlier) => earlier.issued_at <= principal.issued_at,
            None => seen.len() < HOLDERS_MAX,
        };
        if is_new {
            seen.insert(Arc::clone(id), Arc::clone(principal));
        }
    }

    /// Takes everyone out.
    pub fn take(&self) -> Vec<Arc<Principal>> {
        std::mem::take(&mut *self.locked()).into_values().collect()
    }

    /// Puts back the holders who were taken and could not be kept.
    pub fn give_back(&self, taken: &[Arc<Principal>]) {
        for principal in taken {
            self.note(principal);
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Principal>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
