//! Records of tokens, and which of them are revoked.
//!
//! Owns two tables: records by `jti`, and revocations by `jti`. A record never
//! holds the token. Whether a token is revoked stands in the second table only,
//! as a token that was issued elsewhere, or whose record is gone, can be revoked
//! too; [`TokenRecord::revoked`] is filled in from there when a record is read.
//! Tokens that were issued elsewhere are known by their holders ([`super::holders`]),
//! who are listed behind those that were issued here.

use std::ops::Bound;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::{Store, StoreError, cutoffs, holders};
use crate::auth::{RevokedSet, TokenRecord, issue};
use crate::names::Workspace;

/// Records as JSON, by `jti`, which sorts by the time of issue.
pub(super) const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");

/// By `jti`: when it was revoked, and until when that must be known; both in
/// seconds since 1970.
pub(super) const REVOKED: TableDefinition<'_, &str, (u64, u64)> =
    TableDefinition::new("revoked_tokens");

/// How long records and revocations are kept after the token's end, in seconds: 30 days.
pub(super) const KEPT_AFTER_END: u64 = 30 * 86_400;

/// Most records of one page.
pub const PAGE_MAX: usize = 500;

/// Most records that are looked at for one page, when few belong to the workspace asked for.
const LOOKED_AT_MAX: usize = 10_000;

/// Longest `jti`, in bytes; as long as verification accepts.
const TOKEN_ID_BYTES_MAX: usize = 800;

/// Records of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenPage {
    /// The records.
    pub records: Vec<TokenRecord>,
    /// Where the next page begins: pass it as `before`. `None`: this is the last.
    pub next: Option<String>,
}

impl Store {
    /// Keeps a record, over an earlier one of the same `jti`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be kept; then nothing was changed.
    pub fn put_token(&self, record: &TokenRecord) -> Result<(), StoreError> {
        check_id(&record.jti)?;
        let json = serde_json::to_vec(record).map_err(|source| unreadable(&record.jti, source))?;
        self.write(|transaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            tokens.insert(record.jti.as_str(), json.as_slice())?;
            Ok(())
        })
    }

    /// The record of one token, also of one that was issued elsewhere and shown here.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    pub fn token(&self, jti: &str) -> Result<Option<TokenRecord>, StoreError> {
        self.read(|transaction| find(transaction, jti))
    }

    /// One page of records, of one workspace or of all, at most `limit` and
    /// [`PAGE_MAX`]: those that were issued here, the newest first, then who showed
    /// others. `before` is the `next` of the page before.
    ///
    /// A page can be short, or empty, and still have a next one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store or a record can't be read.
    pub fn tokens(
        &self,
        workspace: Option<&Workspace>,
        before: Option<&str>,
        limit: usize,
    ) -> Result<TokenPage, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|transaction| {
            if let Some(before) = before.and_then(|before| before.strip_prefix(holders::CURSOR)) {
                return holders::page(transaction, workspace, before, limit);
            }
            let tokens = transaction.open_table(TOKENS)?;
            let revoked = transaction.open_table(REVOKED)?;
            let range = tokens.range::<&str>((Bound::Unbounded, end))?;
            let records = range.rev().map(|entry| {
                let (jti, json) = entry?;
                decode(jti.value(), json.value(), &revoked)
            });
            let mut page = page_of(records, workspace, limit)?;
            for record in &mut page.records {
                note_cutoff(transaction, record)?;
            }
            if page.next.is_none() && holders::are_there(transaction)? {
                page.next = Some(holders::CURSOR.to_owned());
            }
            Ok(page)
        })
    }

    /// Revokes a token from `now` on, also one without a record. Returns since when
    /// it is revoked: earlier than `now` if it already was.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be kept; then the token is not revoked.
    pub fn revoke_token(&self, jti: &str, now: u64) -> Result<u64, StoreError> {
        check_id(jti)?;
        self.write(|transaction| {
            let tokens = transaction.open_table(TOKENS)?;
            let mut revoked = transaction.open_table(REVOKED)?;
            if let Some(earlier) = revoked.get(jti)?.map(|entry| entry.value().0) {
                return Ok(earlier);
            }
            // Without a record, or a readable one, it may live as long as any token.
            let expires = tokens
                .get(jti)?
                .and_then(|json| decode(jti, json.value(), &revoked).ok())
                .map_or(now.saturating_add(issue::TTL_MAX.as_secs()), |r| r.expires);
            let until = expires.saturating_add(KEPT_AFTER_END);
            revoked.insert(jti, (now, until))?;
            Ok(now)
        })
    }

    /// All that is revoked, for [`crate::auth::Revocations`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read. A gateway must not go on without.
    pub fn revoked_tokens(&self) -> Result<RevokedSet, StoreError> {
        self.read(|transaction| {
            let mut set = RevokedSet::default();
            for entry in transaction.open_table(REVOKED)?.iter()? {
                set.tokens.insert(Arc::from(entry?.0.value()));
            }
            cutoffs::load(transaction, &mut set)?;
            Ok(set)
        })
    }

    /// Forgets records and revocations of tokens that ended 30 days before `now`.
    /// Returns how many records.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when a record can't be read, or it could not be done; then
    /// nothing was changed.
    pub fn purge_expired_tokens(&self, now: u64) -> Result<usize, StoreError> {
        self.write(|transaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            let mut revoked = transaction.open_table(REVOKED)?;
            let mut ended = Vec::new();
            for entry in tokens.iter()? {
                let (jti, json) = entry?;
                let record = decode(jti.value(), json.value(), &revoked)?;
                if record.expires.saturating_add(KEPT_AFTER_END) <= now {
                    ended.push(record.jti);
                }
            }
            for jti in &ended {
                tokens.remove(jti.as_str())?;
            }
            revoked.retain(|_, (_, until)| until > now)?;
            holders::purge(transaction, now)?;
            Ok(ended.len())
        })
    }
}

/// The record of a token, wherever it was issued.
pub(super) fn find(
    transaction: &ReadTransaction,
    jti: &str,
) -> Result<Option<TokenRecord>, StoreError> {
    let tokens = transaction.open_table(TOKENS)?;
    let Some(json) = tokens.get(jti)? else {
        return holders::find(transaction, jti);
    };
    let revoked = transaction.open_table(REVOKED)?;
    let mut record = decode(jti, json.value(), &revoked)?;
    note_cutoff(transaction, &mut record)?;
    Ok(Some(record))
}

/// Makes the tables, so that readers find them.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(TOKENS)?;
    transaction.open_table(REVOKED)?;
    Ok(())
}

pub(super) fn decode(
    jti: &str,
    json: &[u8],
    revoked: &impl ReadableTable<&'static str, (u64, u64)>,
) -> Result<TokenRecord, StoreError> {
    let mut record: TokenRecord =
        serde_json::from_slice(json).map_err(|source| unreadable(jti, source))?;
    record.revoked = revoked.get(jti)?.map(|entry| entry.value().0);
    Ok(record)
}

/// A record shows the cutoff of its workspace or subject too.
pub(super) fn note_cutoff(
    transaction: &ReadTransaction,
    record: &mut TokenRecord,
) -> Result<(), StoreError> {
    let moment = cutoffs::moment(transaction, &record.workspace, &record.subject)?;
    if record.revoked.is_none() && record.created < moment {
        record.revoked = Some(moment);
    }
    Ok(())
}

pub(super) fn unreadable(jti: &str, source: serde_json::Error) -> StoreError {
    StoreError::Record {
        key: format!("token {jti}"),
        source,
    }
}

fn check_id(jti: &str) -> Result<(), StoreError> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if jti.is_empty() || jti.len() > TOKEN_ID_BYTES_MAX || jti.chars().any(odd) {
        return Err(StoreError::TokenId(jti.chars().take(80).collect()));
    }
    Ok(())
}

/// One page of these records, of one workspace or of all; a bounded number is looked at.
pub(super) fn page_of(
    records: impl Iterator<Item = Result<TokenRecord, StoreError>>,
    workspace: Option<&Workspace>,
    limit: usize,
) -> Result<TokenPage, StoreError> {
    let mut page = TokenPage::default();
    let mut last = None;
    for (looked_at, record) in records.enumerate() {
        if page.records.len() == limit || looked_at == LOOKED_AT_MAX {
            page.next = last;
            break;
        }
        let record = record?;
        last = Some(record.jti.clone());
        if workspace.is_none_or(|workspace| *workspace == record.workspace) {
            page.records.push(record);
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::{Pattern, Role, TokenKind, TokenLimits};
    use crate::names::Project;

    const NOW: u64 = 1_800_000_000;

    fn record(jti: &str, workspace: &str) -> TokenRecord {
        TokenRecord {
            jti: jti.to_owned(),
            workspace: Workspace::new(workspace).unwrap(),
            subject: "user:ana".to_owned(),
            kind: TokenKind::Endpoint,
            role: Role::User,
            projects: vec![Project::new("research").unwrap()],
            endpoints: vec![Pattern::new("qwen3-*").unwrap()],
            label: Some("nightly".to_owned()),
            metadata: json!({"team": {"name": "nlp"}}).as_object().cloned(),
            limits: TokenLimits {
                rpm: Some(3),
                ..TokenLimits::default()
            },
            created: NOW,
            expires: NOW + 60,
            created_by: Some("admin.sock".to_owned()),
            revoked: None,
            issuer: None,
        }
    }

    fn ids(page: &TokenPage) -> Vec<&str> {
        page.records.iter().map(|r| r.jti.as_str()).collect()
    }

    #[test]
    fn records_and_revocations_outlive_a_store_that_was_only_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put_token(&record("01A", "acme")).unwrap();
        assert_eq!(store.revoke_token("01A", NOW).unwrap(), NOW);
        assert_eq!(store.revoke_token("unknown", NOW + 1).unwrap(), NOW + 1);
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let expected = TokenRecord {
            revoked: Some(NOW),
            ..record("01A", "acme")
        };
        assert_eq!(store.token("01A").unwrap(), Some(expected));
        assert_eq!(store.token("unknown").unwrap(), None);
        let set = store.revoked_tokens().unwrap();
        assert!(set.tokens.contains("01A") && set.tokens.contains("unknown"));
        assert_eq!(set.tokens.len(), 2);
    }

    #[test]
    fn a_revocation_keeps_its_first_time_and_survives_a_new_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.revoke_token("01A", NOW).unwrap();
        assert_eq!(store.revoke_token("01A", NOW + 9).unwrap(), NOW);
        store.put_token(&record("01A", "acme")).unwrap();
        assert_eq!(store.token("01A").unwrap().unwrap().revoked, Some(NOW));
    }

    #[test]
    fn a_record_shows_that_its_workspace_or_subject_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let acme = Workspace::new("acme").unwrap();
        store.put_token(&record("01A", "acme")).unwrap();
        store.put_token(&record("01B", "other")).unwrap();
        let revoked = |jti: &str| store.token(jti).unwrap().unwrap().revoked;
        store.cut_off(&acme, Some("user:bob"), NOW).unwrap();
        assert_eq!(revoked("01A"), None);
        store.cut_off(&acme, Some("user:ana"), NOW).unwrap();
        assert_eq!((revoked("01A"), revoked("01B")), (Some(NOW + 1), None));
        let later = TokenRecord {
            created: NOW + 1,
            ..record("01C", "acme")
        };
        store.put_token(&later).unwrap();
        assert_eq!(revoked("01C"), None);
        store.cut_off(&acme, None, NOW + 9).unwrap();
        let page = store.tokens(Some(&acme), None, 9).unwrap();
        assert!(page.records.iter().all(|r| r.revoked == Some(NOW + 10)));
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for (jti, workspace) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "a"), ("5", "b")] {
            store.put_token(&record(jti, workspace)).unwrap();
        }
        let first = store.tokens(None, None, 2).unwrap();
        assert_eq!(
            (ids(&first), first.next.as_deref()),
            (vec!["5", "4"], Some("4"))
        );
        let second = store.tokens(None, first.next.as_deref(), 2).unwrap();
        assert_eq!(
            (ids(&second), second.next.as_deref()),
            (vec!["3", "2"], Some("2"))
        );
        let third = store.tokens(None, second.next.as_deref(), 2).unwrap();
        assert_eq!((ids(&third), third.next.as_deref()), (vec!["1"], None));
        let a = Workspace::new("a").unwrap();
        let own = store.tokens(Some(&a), None, 500).unwrap();
        assert_eq!(
            (ids(&own), own.next.as_deref()),
            (vec!["4", "3", "1"], None)
        );
    }

    #[test]
    fn what_ended_is_forgotten_after_thirty_days_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put_token(&record("01A", "acme")).unwrap();
        store.revoke_token("01A", NOW).unwrap();
        store.revoke_token("unknown", NOW).unwrap();
        let end = NOW + 60 + KEPT_AFTER_END;
        assert_eq!(store.purge_expired_tokens(end - 1).unwrap(), 0);
        assert_eq!(store.revoked_tokens().unwrap().tokens.len(), 2);
        assert_eq!(store.purge_expired_tokens(end).unwrap(), 1);
        assert_eq!(store.token("01A").unwrap(), None);
        let set = store.revoked_tokens().unwrap();
        assert!(set.tokens.len() == 1 && set.tokens.contains("unknown"));
    }

    #[test]
    fn a_text_that_is_no_token_id_is_not_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for bad in ["", "a b", "a\n", &"x".repeat(801)] {
            let error = store.revoke_token(bad, NOW).unwrap_err();
            assert!(matches!(error, StoreError::TokenId(_)), "{bad:?}");
        }
        assert_eq!(store.revoked_tokens().unwrap(), RevokedSet::default());
    }

    #[test]
    fn a_record_that_can_not_be_read_is_named_and_can_be_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .write(|transaction| {
                transaction
                    .open_table(TOKENS)?
                    .insert("01A", b"{}".as_slice())?;
                Ok(())
            })
            .unwrap();
        let error = store.tokens(None, None, 9).unwrap_err().to_string();
        assert!(error.contains("token 01A"), "{error}");
        assert_eq!(store.revoke_token("01A", NOW).unwrap(), NOW);
    }
}
