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

use super::refusals::{Refusal, Refused};
use super::{Store, StoreError, cutoffs, holders};
use crate::auth::{RevokedSet, TokenRecord, issue};
use crate::names::Workspace;

/// Records as JSON, by `jti`, which sorts by the time of issue.
pub(super) const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");

/// Revocations by `jti`: the moment, and until when that must be known; both in
/// seconds since 1970.
pub(super) const REVOKED: TableDefinition<'_, &str, (u64, u64)> =
    TableDefinition::new("revoked_tokens");

/// Time that records and revocations are kept after the token's end, in seconds: 30 days.
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
    /// Start of the next page: pass it as `before`. `None`: this is the last.
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
        let mut record = self.read(|transaction| find(transaction, jti))?;
        if let Some(record) = &mut record {
            self.note_held(record);
        }
        Ok(record)
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
        let mut page = self.read(|transaction| {
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
        })?;
        for record in &mut page.records {
            self.note_held(record);
        }
        Ok(page)
    }

    /// Revokes a token from `now` on, also one without a record. Says since when it is
    /// revoked, earlier than `now` if it already was, and whether a restart keeps that.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could neither be kept nor held; then it is not revoked.
    pub fn revoke_token(&self, jti: &str, now: u64) -> Result<Refused, StoreError> {
        check_id(jti)?;
        self.refuse(Refusal::Token {
            jti: jti.to_owned(),
            at: now,
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

/// Revokes a token within a transaction. Returns since when it is revoked.
pub(super) fn revoke(
    transaction: &WriteTransaction,
    jti: &str,
    now: u64,
) -> Result<u64, StoreError> {
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
mod tests;
