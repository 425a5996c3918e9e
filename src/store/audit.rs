//! Changes and tries of changes, with the people who made them.
//!
//! Owns a ring by number: the newest [`KEPT_MAX`] are kept. What was refused to
//! someone without a name is kept in a ring of its own, so that a stranger can't push
//! out what others did; so are the texts of changed files, as they are long.

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

/// Texts of changed files, by the numbers of their events.
pub(super) const TEXTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit_texts");

/// Most changes whose texts are kept.
pub const TEXTS_MAX: u64 = 500;
/// Most bytes of both texts of a change; longer ones are not kept.
pub const TEXT_BYTES_MAX: usize = 128 << 10;
/// Most events that are kept.
pub const KEPT_MAX: u64 = 20_000;
/// Most refusals to strangers that are kept.
pub const STRANGERS_MAX: u64 = 1_000;
/// Most events of one page.
pub const PAGE_MAX: usize = 500;

/// A thing that was done or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Seconds since 1970.
    pub at: u64,
    /// Person who did it; `-` for a stranger.
    pub who: String,
    /// Their tenant, which is part of who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Their role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Way in which they came in.
    pub via: String,
    /// Address that they came from.
    pub peer: Option<String>,
    /// Maker of the one-time link that they came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_by: Option<String>,
    /// The action.
    pub action: String,
    /// Target of the action.
    pub target: String,
    /// `done`, `refused`, `failed`.
    pub outcome: String,
    /// Reason, or the things that changed.
    pub detail: String,
}

/// A file before a change and after it, without its secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedText {
    /// Before; none of what was new.
    pub before: Option<String>,
    /// After; none of what was deleted.
    pub after: Option<String>,
}

impl ChangedText {
    fn fits(&self) -> bool {
        let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        bytes(&self.before) + bytes(&self.after) <= TEXT_BYTES_MAX
    }
}

impl AuditEvent {
    /// True if no one knows who it was.
    fn is_of_stranger(&self) -> bool {
        self.who == "-"
    }
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Its number.
    pub number: u64,
    /// The deed.
    pub event: AuditEvent,
    /// True if [`Store::audit_text`] has a text.
    pub has_text: bool,
}

impl Store {
    /// Keeps an event, and the text that it changed. Returns its number.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be kept.
    pub fn put_audit(
        &self,
        event: &AuditEvent,
        text: Option<&ChangedText>,
    ) -> Result<u64, StoreError> {
        let unwritable = |source| StoreError::Record {
            key: "audit event".to_owned(),
            source,
        };
        let json = serde_json::to_vec(event).map_err(unwritable)?;
        let text = text.filter(|text| text.fits()).map(serde_json::to_vec);
        let text = text.transpose().map_err(unwritable)?;
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
            if let Some(text) = &text {
                let mut texts = transaction.open_table(TEXTS)?;
                texts.insert(number, text.as_slice())?;
                while texts.len()? > TEXTS_MAX {
                    texts.pop_first()?;
                }
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
    ) -> Result<Vec<Audited>, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let end = before.unwrap_or(u64::MAX);
        self.read(|transaction| {
            let mut page = Vec::new();
            let texts = transaction.open_table(TEXTS)?;
            for table in [EVENTS, STRANGERS] {
                let table = transaction.open_table(table)?;
                let mut taken = 0;
                for entry in table.range(..end)?.rev() {
                    let (number, json) = entry?;
                    let event = serde_json::from_slice::<AuditEvent>(json.value());
                    if let Ok(event) = event
                        && wanted(&event)
                    {
                        let number = number.value();
                        let has_text = texts.get(number)?.is_some();
                        page.push(Audited {
                            number,
                            event,
                            has_text,
                        });
                        taken += 1;
                        if taken == limit {
                            break;
                        }
                    }
                }
            }
            page.sort_by_key(|audited| std::cmp::Reverse(audited.number));
            page.truncate(limit);
            Ok(page)
        })
    }

    /// An event that someone did, with the text that it changed, while that is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    pub fn audit_text(&self, number: u64) -> Result<Option<(AuditEvent, ChangedText)>, StoreError> {
        self.read(|transaction| {
            let event = transaction.open_table(EVENTS)?.get(number)?;
            let text = transaction.open_table(TEXTS)?.get(number)?;
            let (Some(event), Some(text)) = (event, text) else {
                return Ok(None);
            };
            let event = serde_json::from_slice(event.value()).ok();
            Ok(event.zip(serde_json::from_slice(text.value()).ok()))
        })
    }
}

/// Makes the tables, so that readers find them.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(EVENTS)?;
    transaction.open_table(STRANGERS)?;
    transaction.open_table(TEXTS)?;
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
            link_by: None,
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
        let first = store.put_audit(&event("user:ana", "a"), None).unwrap();
        for _ in 0..5 {
            store.put_audit(&event("-", "x"), None).unwrap();
        }
        let last = store.put_audit(&event("user:ana", "b"), None).unwrap();
        assert_eq!((first, last), (1, 7));
        let all = store.audit(None, 100, |_| true).unwrap();
        let numbers: Vec<u64> = all.iter().map(|audited| audited.number).collect();
        assert_eq!(numbers, [7, 6, 5, 4, 3, 2, 1]);
        let hers = store.audit(Some(7), 100, |event| event.who != "-").unwrap();
        assert_eq!(hers.len(), 1);
        assert_eq!(store.audit(None, 2, |_| true).unwrap().len(), 2);
    }

    #[test]
    fn texts_of_changes_are_kept_as_far_as_they_fit_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let of = |bytes: usize| ChangedText {
            before: Some("x".repeat(bytes)),
            after: None,
        };
        let put = |bytes| store.put_audit(&event("user:ana", "a"), Some(&of(bytes)));
        let first = put(TEXT_BYTES_MAX).unwrap();
        let kept = store.audit_text(first).unwrap();
        assert_eq!(kept.map(|(_, text)| text), Some(of(TEXT_BYTES_MAX)));
        let long = put(TEXT_BYTES_MAX + 1).unwrap();
        assert_eq!(store.audit_text(long).unwrap(), None);
        for _ in 0..TEXTS_MAX {
            put(1).unwrap();
        }
        assert_eq!(store.audit_text(first).unwrap(), None);
        let newest = store.audit(None, 1, |_| true).unwrap();
        assert!(newest[0].has_text && newest[0].number > long);
    }
}
