//! Changes that refuse someone, held in memory while the store can't be written.
//!
//! A revocation takes effect in any case: one that can't be kept is held here, bounded,
//! and stands in the [`mark`](super::mark) beside the signing key where that can be
//! written. The next transaction that succeeds keeps it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::records::{self, RecordKind};
use super::{META, SERIAL_KEY, Store, StoreError, cutoffs, tokens};
use crate::names::Workspace;

/// Most refusals that are held. One beyond is an error to its caller.
pub const HELD_MAX: usize = 10_000;

/// One change that refuses someone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A token, revoked at a moment in seconds since 1970.
    Token {
        /// Its id.
        jti: String,
        /// The moment.
        at: u64,
    },
    /// The tokens of a workspace, or of one subject of it, that were issued up to a
    /// moment in seconds since 1970.
    CutOff {
        /// The tenant.
        workspace: Workspace,
        /// The subject, where not all are meant.
        subject: Option<String>,
        /// The moment.
        at: u64,
    },
    /// Sessions or links.
    Records {
        /// Kind of the records.
        kind: RecordKind,
        /// Ids of the records.
        ids: Vec<String>,
    },
}

/// Outcome of a change that refuses someone. It is in effect once the caller has
/// told [`crate::auth::Revocations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Moment of the revocation of a token. Of a cutoff: the second from which tokens
    /// are valid again.
    pub moment: u64,
    /// True if a restart keeps it. If not, it is held in memory until the store can
    /// be written.
    pub kept: bool,
    /// True if each gateway that gave way to this one hears of it before it lets anyone
    /// in. If not, that one may still accept what is refused here, until it ends.
    pub told: bool,
}

/// Refusals that are not in the store yet.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Vec<Refusal>>);

impl Held {
    pub(super) fn all(&self) -> Vec<Refusal> {
        self.lock().clone()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Takes one in; whether there was room.
    pub(super) fn put(&self, refusal: Refusal) -> bool {
        let mut held = self.lock();
        if held.contains(&refusal) {
            return true;
        }
        let has_room = held.len() < HELD_MAX;
        if has_room {
            held.push(refusal);
        }
        has_room
    }

    /// Forgets those that were written.
    pub(super) fn forget(&self, written: &[Refusal]) {
        if !written.is_empty() {
            self.lock().retain(|refusal| !written.contains(refusal));
        }
    }

    /// Moment of the revocation of a token that is held here.
    pub(super) fn token(&self, id: &str) -> Option<u64> {
        self.lock().iter().find_map(|refusal| match refusal {
            Refusal::Token { jti, at } if jti == id => Some(*at),
            _ => None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Keeps a refusal, or holds it until it can be kept.
    pub(super) fn refuse(&self, refusal: Refusal) -> Result<Refused, StoreError> {
        let mut news = self.0.news.ours()?;
        // Told first: at worst a gateway that gave way refuses what could not be revoked.
        let told = news.tell(&refusal);
        let (moment, kept) = self.keep_or_hold(refusal)?;
        Ok(Refused { moment, kept, told })
    }

    /// Its moment, and whether a restart keeps it.
    fn keep_or_hold(&self, refusal: Refusal) -> Result<(u64, bool), StoreError> {
        let kept = self.write(|transaction| {
            let moment = keep(transaction, &refusal)?;
            count(transaction)?;
            Ok(moment)
        });
        let moment = match kept {
            Ok(moment) => {
                self.remark();
                return Ok((moment, true));
            }
            Err(error @ (StoreError::Transaction(_) | StoreError::Failing(_))) => {
                let moment = match &refusal {
                    Refusal::Token { at, .. } => *at,
                    Refusal::CutOff { at, .. } => at.saturating_add(1),
                    Refusal::Records { .. } => 0,
                };
                if !self.0.held.put(refusal) {
                    return Err(error);
                }
                moment
            }
            Err(error) => return Err(error),
        };
        // Beside the key it outlives a restart as well.
        Ok((moment, self.remark()))
    }

    /// Shows in a record that it is revoked, where that is not in the store yet.
    pub(super) fn note_held(&self, record: &mut crate::auth::TokenRecord) {
        if record.revoked.is_none() {
            record.revoked = self.0.held.token(&record.jti);
        }
    }
}

/// Keeps a refusal within a transaction. Returns its moment, as [`Refused`] has it.
fn keep(transaction: &WriteTransaction, refusal: &Refusal) -> Result<u64, StoreError> {
    match refusal {
        Refusal::Token { jti, at } => tokens::revoke(transaction, jti, *at),
        Refusal::CutOff {
            workspace,
            subject,
            at,
        } => cutoffs::cut_off(transaction, workspace, subject.as_deref(), *at),
        Refusal::Records { kind, ids } => records::remove(transaction, *kind, ids).map(|()| 0),
    }
}

/// Keeps what was held.
pub(super) fn apply(transaction: &WriteTransaction, held: &[Refusal]) -> Result<(), StoreError> {
    for refusal in held {
        keep(transaction, refusal)?;
        count(transaction)?;
    }
    Ok(())
}

/// Counts a change that an older copy of the store does not have.
pub(super) fn count(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let serial = meta.get(SERIAL_KEY)?.map_or(0, |value| value.value());
    meta.insert(SERIAL_KEY, serial.saturating_add(1))?;
    Ok(())
}
