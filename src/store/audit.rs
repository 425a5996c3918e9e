//! Who changed what, and who tried to.
//!
//! Owns one table, a ring by number: the newest [`KEPT_MAX`] are kept. What was
//! refused to someone without a name is kept in a ring of its own, so that a
//! stranger can't push out what others did.

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::auth::Role;
use crate::names::Workspace;

/// Events by number.
pub(super) const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// Refusals to strangers by number, out of the same count.
pub(super) const STRANGERS: TableDefinition<'_, u64, &[u8]> =
    TableDefinition::new("audit_strangers");

/// Most events that are kept.
pub const KEPT_MAX: u64 = 20_000;
/// Most refusals to strangers that are kept.
pub const STRANGERS_MAX: u64 = 1_000;
/// Most events of one page.
pub const PAGE_MAX: usize = 500;

/// One thing that was done or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Seconds since 1970.
    pub at: u64,
    /// Who did it; `-` for a stranger.
    pub who: String,
    /// Their tenant, which is part of who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Their role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// How they came.
    pub via: String,
    /// From where.
    pub peer: Option<String>,
    /// What.
    pub action: String,
    /// To what.
    pub target: String,
    /// `done`, `refused`, `failed`.
    pub outcome: String,
    /// Why, or what changed.
    pub detail: String,
}

impl AuditEvent {
    /// Whether no one knows who it was.
    fn is_of_stranger(&self) -> bool {
        self.who == "-"
    }
}

impl Store {
    /// Keeps an event. Returns its number.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be kept.
    pub fn put_audit(&self, event: &AuditEvent) -> Result<u64, StoreError> {
        let json = serde_json::to_vec(event).map_err(|source| StoreError::Record {
            key: "audit event".to_owned(),
            source,
        })?;
        self.write(|transaction| {
            let mut events = transaction.open_table(EVENTS)?;
            let mut strangers = transaction.open_table(STRANGERS)?;
            let last_event = events.last()?.map_or(0, |(number, _)| number.value());
            let last_stranger = strangers.last()?.map_or(0, |(number, _)| number.value());
            let number = last_event.max(last_stranger) + 1;
            let (table, most) = if event.is_of_stranger() {
                (&mut strangers, STRANGERS_MAX)
            } else {
                (&mut events, KEPT_MAX)
            };
            table.insert(number, json.as_slice())?;
            while table.len()? > most {
                table.pop_first()?;
            }
            Ok(number)
        })
    }

    /// Events with their numbers, the newest first: those before the number
    /// `before` that `wanted` accepts, at most `limit` and [`PAGE_MAX`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    pub fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
        wanted: impl Fn(&AuditEvent) -> bool,
    ) -> Result<Vec<(u64, AuditEvent)>, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let end = before.unwrap_or(u64::MAX);
        self.read(|transaction| {
            let mut page = Vec::new();
            for table in [EVENTS, STRANGERS] {
                let table = transaction.open_table(table)?;
                let mut taken = 0;
                for entry in table.range(..end)?.rev() {
                    let (number, json) = entry?;
                    let event = serde_json::from_slice::<AuditEvent>(json.value());
                    if let Ok(event) = event
                        && wanted(&event)
                    {
                        page.push((number.value(), event));
                        taken += 1;
                        if taken == limit {
                            break;
                        }
                    }
                }
            }
            page.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
            page.truncate(limit);
            Ok(page)
        })
    }
}

/// Makes the tables, so that readers find them.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(EVENTS)?;
    transaction.open_table(STRANGERS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(who: &str, target: &str) -> AuditEvent {
        AuditEvent {
            at: 1,
            who: who.to_owned(),
            workspace: None,
            role: None,
            via: "token".to_owned(),
            peer: None,
            action: "stop".to_owned(),
            target: target.to_owned(),
            outcome: "done".to_owned(),
            detail: String::new(),
        }
    }

    #[test]
    fn events_come_back_by_pages_and_strangers_push_no_one_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = store.put_audit(&event("user:ana", "a")).unwrap();
        for _ in 0..5 {
            store.put_audit(&event("-", "x")).unwrap();
        }
        let last = store.put_audit(&event("user:ana", "b")).unwrap();
        assert_eq!((first, last), (1, 7));
        let all = store.audit(None, 100, |_| true).unwrap();
        let numbers: Vec<u64> = all.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [7, 6, 5, 4, 3, 2, 1]);
        let hers = store.audit(Some(7), 100, |event| event.who != "-").unwrap();
        assert_eq!(hers.len(), 1);
        assert_eq!(store.audit(None, 2, |_| true).unwrap().len(), 2);
    }
}
