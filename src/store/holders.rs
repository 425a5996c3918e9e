//! Holders of tokens that were issued elsewhere: a name for the use by these tokens.
//!
//! Owns one table of records by token id, as [`super::tokens`] keeps those that we
//! issued; it holds no id that stands there. A record says what the newest token of its
//! holder said. It is forgotten 30 days after that token's end.

use std::ops::Bound;
use std::sync::Arc;

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use super::forget::Forget;
use super::tokens::{
    KEPT_AFTER_END, REVOKED, TOKENS, TokenPage, decode, note_cutoff, page_of, unreadable,
};
use super::{Store, StoreError};
use crate::auth::holders::Holders;
use crate::auth::{Principal, TokenRecord};
use crate::names::Workspace;

/// Holders by token id: end of the newest token, in seconds since 1970, and record as JSON.
pub(super) const HOLDERS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("holders");

/// Most holders that are kept. Beyond, those whose tokens ended first are forgotten.
pub const KEPT_MAX: usize = 100_000;

/// Begins the cursor of a page of holders. No id of ours does.
pub(super) const CURSOR: &str = "holders:";

impl Store {
    /// Takes who was seen from `holders`, and keeps them; who can't be kept goes back.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be kept.
    pub fn note_seen(&self, holders: &Holders) -> Result<(), StoreError> {
        let seen = holders.take();
        let noted = self.note_holders(&seen, self.clock().seconds());
        if noted.is_err() {
            holders.give_back(&seen);
        }
        noted
    }

    /// Keeps who showed tokens here, but those whose tokens have a record already.
    /// All of it is kept, or nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be kept.
    pub fn note_holders(&self, seen: &[Arc<Principal>], now: u64) -> Result<(), StoreError> {
        self.note_holders_within(seen, now, KEPT_MAX)
    }

    fn note_holders_within(
        &self,
        seen: &[Arc<Principal>],
        now: u64,
        kept_max: usize,
    ) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let tokens = transaction.open_table(TOKENS)?;
            let mut holders = transaction.open_table(HOLDERS)?;
            for holder in seen {
                let id = &*holder.token_id;
                if tokens.get(id)?.is_some() {
                    continue;
                }
                let record = TokenRecord::seen(holder, now);
                let json = serde_json::to_vec(&record).map_err(|source| unreadable(id, source))?;
                holders.insert(id, (record.expires, json.as_slice()))?;
            }
            if holders.len()? > kept_max as u64 {
                let mut ends = Vec::new();
                for entry in holders.iter()? {
                    ends.push(entry?.1.value().0);
                }
                let mut forget = Forget::over(ends, kept_max);
                holders.retain(|_, (end, _)| forget.keeps(end))?;
            }
            Ok(())
        })
    }
}

/// The record of one holder.
pub(super) fn find(
    transaction: &ReadTransaction,
    id: &str,
) -> Result<Option<TokenRecord>, StoreError> {
    let holders = transaction.open_table(HOLDERS)?;
    let Some(row) = holders.get(id)? else {
        return Ok(None);
    };
    read(transaction, id, row.value().1).map(Some)
}

/// True if there is any holder.
pub(super) fn are_there(transaction: &ReadTransaction) -> Result<bool, StoreError> {
    Ok(!transaction.open_table(HOLDERS)?.is_empty()?)
}

/// One page, by id from the last on, of one workspace or of all; `before` is a cursor
/// without [`CURSOR`].
pub(super) fn page(
    transaction: &ReadTransaction,
    workspace: Option<&Workspace>,
    before: &str,
    limit: usize,
) -> Result<TokenPage, StoreError> {
    let holders = transaction.open_table(HOLDERS)?;
    let end = match before {
        "" => Bound::Unbounded,
        id => Bound::Excluded(id),
    };
    let range = holders.range::<&str>((Bound::Unbounded, end))?;
    let records = range.rev().map(|entry| {
        let (id, row) = entry?;
        read(transaction, id.value(), row.value().1)
    });
    let mut page = page_of(records, workspace, limit)?;
    page.next = page.next.map(|id| format!("{CURSOR}{id}"));
    Ok(page)
}

/// Forgets those whose newest token ended 30 days before `now`.
pub(super) fn purge(transaction: &WriteTransaction, now: u64) -> Result<(), StoreError> {
    let mut holders = transaction.open_table(HOLDERS)?;
    holders.retain(|_, (end, _)| end.saturating_add(KEPT_AFTER_END) > now)?;
    Ok(())
}

pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(HOLDERS)?;
    Ok(())
}

fn read(transaction: &ReadTransaction, id: &str, json: &[u8]) -> Result<TokenRecord, StoreError> {
    let revoked = transaction.open_table(REVOKED)?;
    let mut record = decode(id, json, &revoked)?;
    note_cutoff(transaction, &mut record)?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Role, TokenKind, TokenLimits};

    const NOW: u64 = 1_800_000_000;

    fn holder(id: &str, workspace: &str, issued_at: u64, expires_at: u64) -> Arc<Principal> {
        Arc::new(Principal {
            workspace: Workspace::new(workspace).unwrap(),
            subject: Arc::from("auth0|ana"),
            token_id: Arc::from(id),
            kind: TokenKind::User,
            role: Role::User,
            projects: Vec::new(),
            endpoints: Vec::new(),
            limits: TokenLimits::default(),
            may_load: false,
            label: Some(Arc::from("ana@example.org")),
            metadata: None,
            issued_at,
            expires_at,
            issuer: Arc::from("https://idp.example.org"),
            hash8: *b"00000000",
        })
    }

    fn ids(page: &TokenPage) -> Vec<&str> {
        page.records.iter().map(|r| r.jti.as_str()).collect()
    }

    #[test]
    fn a_holder_is_known_by_the_newest_token_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .note_holders(&[holder("sub-a", "acme", 0, NOW + 60)], NOW)
            .unwrap();
        assert_eq!(store.token("sub-a").unwrap().unwrap().created, NOW);
        store
            .note_holders(&[holder("sub-a", "acme", NOW + 9, NOW + 90)], NOW + 10)
            .unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let record = store.token("sub-a").unwrap().unwrap();
        assert_eq!((record.created, record.expires), (NOW + 9, NOW + 90));
        assert_eq!(record.issuer.as_deref(), Some("https://idp.example.org"));
        assert_eq!(record.label.as_deref(), Some("ana@example.org"));
        store.revoke_token("sub-a", NOW + 20).unwrap();
        assert_eq!(
            store.token("sub-a").unwrap().unwrap().revoked,
            Some(NOW + 20)
        );
        store
            .purge_expired_tokens(NOW + 89 + KEPT_AFTER_END)
            .unwrap();
        assert!(store.token("sub-a").unwrap().is_some());
        store
            .purge_expired_tokens(NOW + 90 + KEPT_AFTER_END)
            .unwrap();
        assert_eq!(store.token("sub-a").unwrap(), None);
    }

    #[test]
    fn holders_stand_behind_the_tokens_that_were_issued_here() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let own = TokenRecord {
            issuer: None,
            ..TokenRecord::seen(&holder("01A", "acme", NOW, NOW + 60), NOW)
        };
        store.put_token(&own).unwrap();
        let seen = ["01A", "sub-a", "sub-b", "sub-c"];
        let seen = seen.map(|id| {
            holder(
                id,
                if id == "sub-b" { "blue" } else { "acme" },
                NOW,
                NOW + 60,
            )
        });
        store.note_holders(&seen, NOW).unwrap();
        let mut pages = Vec::new();
        let mut before = None;
        loop {
            let page = store.tokens(None, before.as_deref(), 2).unwrap();
            pages.push(ids(&page).join(" "));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(pages, ["01A", "sub-c sub-b", "sub-a"]);
        // Tokens that we issued keep their record.
        assert_eq!(store.token("01A").unwrap().unwrap().issuer, None);
        let blue = Workspace::new("blue").unwrap();
        assert_eq!(
            ids(&store.tokens(Some(&blue), Some(CURSOR), 9).unwrap()),
            ["sub-b"]
        );
    }

    #[test]
    fn beyond_the_bound_those_whose_tokens_ended_first_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let seen: Vec<_> = (0..21)
            .map(|n| holder(&format!("sub-{n:02}"), "acme", NOW, NOW + n))
            .collect();
        store.note_holders_within(&seen, NOW, 20).unwrap();
        let kept = |n: u64| store.token(&format!("sub-{n:02}")).unwrap().is_some();
        assert!((3..21).all(kept) && !(0..3).any(kept));
    }
}
