//! Use by the label of the tokens that made it.
//!
//! Owns no table: it reads those of usage, of tokens and of their holders together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redb::ReadableTable;

use super::usage::{USAGE, tally_of};
use super::{Store, StoreError, tokens};
use crate::auth::TokenRecord;
use crate::telemetry::usage::Tally;

/// Owner of one sum of use. All fields are empty for tokens whose records are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The tenant.
    pub workspace: Option<String>,
    /// Issuer of the tokens, where this gateway did not issue them.
    pub issuer: Option<String>,
    /// Their label.
    pub label: Option<String>,
    /// Subject of the tokens, where they have no label.
    pub subject: Option<String>,
}

impl Owner {
    fn of(record: &TokenRecord) -> Self {
        let subject = record.label.is_none().then(|| record.subject.clone());
        Self {
            workspace: Some(record.workspace.to_string()),
            issuer: record.issuer.clone(),
            label: record.label.clone(),
            subject,
        }
    }
}

/// Use by one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerUse {
    /// The owner.
    pub owner: Owner,
    /// Tokens that were used.
    pub tokens: u64,
    /// Their use together.
    pub used: Tally,
}

impl Store {
    /// Use by each owner, the largest first. `pending` is the use that the ledger
    /// holds beyond what is kept here; usage of a token counts where `counts` says so
    /// of its record, `None` for one whose record is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store or a record can't be read.
    pub fn usage_by_owner(
        &self,
        pending: &[(Arc<str>, Tally)],
        counts: impl Fn(Option<&TokenRecord>) -> bool,
    ) -> Result<Vec<OwnerUse>, StoreError> {
        let unkept: HashMap<&str, Tally> = pending.iter().map(|(id, t)| (&**id, *t)).collect();
        let mut sums: HashMap<Owner, (u64, Tally)> = HashMap::new();
        self.read(|transaction| {
            let mut add = |id: &str, used: Tally| -> Result<(), StoreError> {
                let record = tokens::find(transaction, id)?;
                if counts(record.as_ref()) {
                    let owner = record.as_ref().map(Owner::of).unwrap_or_default();
                    let (tokens, sum) = sums.entry(owner).or_default();
                    *tokens += 1;
                    *sum = sum.plus(used);
                }
                Ok(())
            };
            let usage = transaction.open_table(USAGE)?;
            let mut kept = HashSet::new();
            for entry in usage.iter()? {
                let (id, row) = entry?;
                let id = id.value();
                let mut used = tally_of(row.value());
                if let Some((id, more)) = unkept.get_key_value(id) {
                    used = used.plus(*more);
                    kept.insert(*id);
                }
                add(id, used)?;
            }
            for (id, used) in &unkept {
                if !kept.contains(id) {
                    add(id, *used)?;
                }
            }
            Ok(())
        })?;
        let uses = sums.into_iter().map(|(owner, (tokens, used))| OwnerUse {
            owner,
            tokens,
            used,
        });
        let mut uses: Vec<OwnerUse> = uses.collect();
        let total = |used: &Tally| used.prompt_tokens.saturating_add(used.completion_tokens);
        uses.sort_by(|a, b| {
            let most_first = total(&b.used).cmp(&total(&a.used));
            let most_first = most_first.then(b.used.requests.cmp(&a.used.requests));
            most_first.then_with(|| a.owner.cmp(&b.owner))
        });
        Ok(uses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Principal, Role, TokenKind, TokenLimits};
    use crate::names::Workspace;

    const NOW: u64 = 1_800_000_000;

    fn record(jti: &str, label: Option<&str>, issuer: Option<&str>) -> TokenRecord {
        let holder = Principal {
            workspace: Workspace::new("acme").unwrap(),
            subject: Arc::from("ana"),
            token_id: Arc::from(jti),
            kind: TokenKind::User,
            role: Role::User,
            projects: Vec::new(),
            endpoints: Vec::new(),
            limits: TokenLimits::default(),
            may_load: false,
            label: label.map(Arc::from),
            metadata: None,
            issued_at: NOW,
            expires_at: NOW + 60,
            issuer: Arc::from("idp"),
            hash8: *b"00000000",
        };
        TokenRecord {
            issuer: issuer.map(str::to_owned),
            ..TokenRecord::seen(&holder, NOW)
        }
    }

    fn used(requests: u64) -> Tally {
        Tally {
            requests,
            prompt_tokens: 10 * requests,
            completion_tokens: requests,
            last_used: NOW + requests,
        }
    }

    #[test]
    fn usage_is_summed_by_label_kept_or_not_and_none_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for (jti, label, issuer) in [
            ("01A", Some("nightly"), None),
            ("01B", Some("nightly"), None),
            ("01C", None, None),
            ("sub-a", Some("nightly"), Some("idp")),
        ] {
            store.put_token(&record(jti, label, issuer)).unwrap();
        }
        let row = |id: &str, requests| (Arc::from(id), used(requests));
        let kept = [row("01A", 1), row("01C", 2), row("gone", 3)];
        store.add_usage(&kept).unwrap();
        let pending = [row("01A", 4), row("01B", 5), row("sub-a", 20)];
        let uses = store.usage_by_owner(&pending, |_| true).unwrap();
        let told = uses.iter().map(|of| {
            let owner = &of.owner;
            let name = owner.label.as_deref().or(owner.subject.as_deref());
            (name, owner.issuer.as_deref(), of.tokens, of.used.requests)
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                (Some("nightly"), Some("idp"), 1, 20),
                (Some("nightly"), None, 2, 10),
                (None, None, 1, 3),
                (Some("ana"), None, 1, 2),
            ]
        );
        assert_eq!(uses[1].used.last_used, NOW + 5);
        let own = store.usage_by_owner(&pending, |record| {
            record.is_some_and(|r| r.issuer.is_none())
        });
        assert_eq!(own.unwrap().len(), 2);
    }
}
