//! Moments before which the tokens of a workspace, or of one subject, are not valid.
//!
//! Owns one table. A cutoff only ever moves forward, and is kept for as long as a
//! token of before it could live.

use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::refusals::{Refusal, Refused};
use super::{Store, StoreError};
use crate::auth::{Cutoffs, RevokedSet, issue};
use crate::names::Workspace;

/// Cutoffs by workspace and subject, which is empty for all: the moment, and until
/// when it must be known; both in seconds since 1970.
pub(super) const CUTOFFS: TableDefinition<'_, (&str, &str), (u64, u64)> =
    TableDefinition::new("cutoffs");

/// Longest subject, in bytes; as long as verification accepts.
const SUBJECT_BYTES_MAX: usize = 800;

impl Store {
    /// Revokes every token of a workspace, or of one of its subjects, that was issued
    /// up to the second `now`. Says from which second on tokens are valid again: `now`
    /// and one, or later if an earlier call said so. Take it over with
    /// [`crate::auth::Revocations::cut_off_workspace`] or `cut_off_subject`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could neither be kept nor held; then nothing is revoked.
    pub fn cut_off(
        &self,
        workspace: &Workspace,
        subject: Option<&str>,
        now: u64,
    ) -> Result<Refused, StoreError> {
        if let Some(subject) = subject {
            check_subject(subject)?;
        }
        self.refuse(Refusal::CutOff {
            workspace: workspace.clone(),
            subject: subject.map(str::to_owned),
            at: now,
        })
    }

    /// Forgets cutoffs before which no living token can have been issued. Returns how many.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be done; then nothing was changed.
    pub fn purge_cutoffs(&self, now: u64) -> Result<usize, StoreError> {
        self.write(|transaction| {
            let mut forgotten = 0;
            transaction.open_table(CUTOFFS)?.retain(|_, (_, until)| {
                let kept = until > now;
                forgotten += usize::from(!kept);
                kept
            })?;
            Ok(forgotten)
        })
    }
}

/// Cuts off within a transaction. Returns the second from which tokens are valid again.
pub(super) fn cut_off(
    transaction: &WriteTransaction,
    workspace: &Workspace,
    subject: Option<&str>,
    now: u64,
) -> Result<u64, StoreError> {
    let mut cutoffs = transaction.open_table(CUTOFFS)?;
    let key = (workspace.as_str(), subject.unwrap_or_default());
    let earlier = cutoffs.get(key)?.map_or(0, |entry| entry.value().0);
    // Issue times are whole seconds: the present one is cut off whole.
    let moment = now.saturating_add(1).max(earlier);
    let until = moment.saturating_add(issue::TTL_MAX.as_secs());
    cutoffs.insert(key, (moment, until))?;
    Ok(moment)
}

pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(CUTOFFS)?;
    Ok(())
}

/// Adds every cutoff to a set of revocations.
pub(super) fn load(transaction: &ReadTransaction, set: &mut RevokedSet) -> Result<(), StoreError> {
    for entry in transaction.open_table(CUTOFFS)?.iter()? {
        let (key, value) = entry?;
        let ((workspace, subject), (moment, _)) = (key.value(), value.value());
        // Only names come in, so only names are here.
        let Ok(workspace) = Workspace::new(workspace) else {
            continue;
        };
        let cutoffs: &mut Cutoffs = set.workspaces.entry(workspace).or_default();
        if subject.is_empty() {
            cutoffs.all = moment;
        } else {
            cutoffs.subjects.insert(Arc::from(subject), moment);
        }
    }
    Ok(())
}

/// The moment before which tokens of a workspace and subject are cut off, zero for none.
pub(super) fn moment(
    transaction: &ReadTransaction,
    workspace: &Workspace,
    subject: &str,
) -> Result<u64, StoreError> {
    let cutoffs = transaction.open_table(CUTOFFS)?;
    let of = |subject| -> Result<u64, StoreError> {
        let entry = cutoffs.get((workspace.as_str(), subject))?;
        Ok(entry.map_or(0, |entry| entry.value().0))
    };
    Ok(of("")?.max(of(subject)?))
}

fn check_subject(subject: &str) -> Result<(), StoreError> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX || subject.chars().any(odd) {
        return Err(StoreError::Subject(subject.chars().take(80).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn name(text: &str) -> Workspace {
        Workspace::new(text).unwrap()
    }

    #[test]
    fn cutoffs_outlive_a_restart_and_only_move_forward() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (acme, other) = (name("acme"), name("other"));
        assert_eq!(store.cut_off(&acme, None, NOW).unwrap().moment, NOW + 1);
        assert_eq!(
            store.cut_off(&acme, None, NOW - 50).unwrap().moment,
            NOW + 1
        );
        let ana = store
            .cut_off(&acme, Some("user:ana"), NOW + 5)
            .unwrap()
            .moment;
        assert_eq!(ana, NOW + 6);
        assert_eq!(
            store.cut_off(&other, Some("x"), NOW).unwrap().moment,
            NOW + 1
        );
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let set = store.revoked_tokens().unwrap();
        assert_eq!(set.workspaces.len(), 2);
        let cutoffs = &set.workspaces[&acme];
        assert_eq!((cutoffs.all, cutoffs.subjects["user:ana"]), (NOW + 1, ana));
        let cutoffs = &set.workspaces[&other];
        assert_eq!((cutoffs.all, cutoffs.subjects["x"]), (0, NOW + 1));
    }

    #[test]
    fn a_cutoff_is_kept_for_as_long_as_any_token_lives() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.cut_off(&name("acme"), None, NOW).unwrap();
        let last = NOW + 1 + issue::TTL_MAX.as_secs();
        assert_eq!(store.purge_cutoffs(last - 1).unwrap(), 0);
        assert_eq!(store.purge_cutoffs(last).unwrap(), 1);
        assert_eq!(store.revoked_tokens().unwrap(), RevokedSet::default());
    }

    #[test]
    fn a_text_that_is_no_subject_is_refused_and_does_not_stand_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for bad in ["", "a b", "a\n", &"x".repeat(801)] {
            let error = store.cut_off(&name("acme"), Some(bad), NOW).unwrap_err();
            assert!(matches!(error, StoreError::Subject(_)), "{bad:?}");
        }
        assert_eq!(store.revoked_tokens().unwrap(), RevokedSet::default());
    }
}
