//! The store as lines of JSON: to be backed up, and to be made again from them.
//!
//! A backup begins with [`Row::State`] and ends with [`Row::End`], which counts the
//! lines before it: one that was cut off is refused whole. Files beside the store, as
//! the signing key, are [`Row::File`]s that whoever makes the backup adds. Sessions are
//! left out: people log in again. History and what is known of workers too.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::records::RecordKind;
use super::{
    ID_KEY, LOST_KEY, META, SERIAL_KEY, Store, StoreError, TIME_KEY, audit, cutoffs, holders,
    tokens, usage,
};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// One line of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// Head of the backup: the state that it is of.
    State(ExportHead),
    /// A token's record.
    Token(String, Value),
    /// A revoked token: since when, and until when that must be known.
    Revoked(String, u64, u64),
    /// A cutoff of a workspace and subject: its moment, and until when it must be known.
    CutOff(String, String, u64, u64),
    /// Holder of tokens of another issuer: the end of the newest, and the record.
    Holder(String, u64, Value),
    /// Use by a token: requests, tokens of prompts and completions, the last use.
    Usage(String, u64, u64, u64, u64),
    /// A link that shows a plot.
    Embed(String, Value),
    /// An event of the audit.
    Audit(u64, Value),
    /// A refusal to a stranger.
    Stranger(u64, Value),
    /// A file that stood beside the store.
    File(String, String),
    /// The number of lines before this one.
    End(u64),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportHead {
    /// The format: [`FORMAT`].
    pub format: u32,
    /// The version that wrote it.
    pub version: String,
    /// Time of the export, in seconds since 1970.
    pub at: u64,
    pub(super) id: u64,
    pub(super) serial: u64,
    pub(super) lost: u64,
    pub(super) time: u64,
}

impl Store {
    /// Gives every row of one moment, from the first to the end, until `give` says no.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store or a record can't be read.
    pub fn export(&self, mut give: impl FnMut(&Row) -> bool) -> Result<(), StoreError> {
        let at = self.clock().seconds();
        self.read(|transaction| {
            let mut rows = Rows {
                give: &mut give,
                count: 0,
            };
            // It was said why no more is wanted.
            if rows.all(transaction, at)?.is_some() {
                let end = Row::End(rows.count);
                (rows.give)(&end);
            }
            Ok(())
        })
    }

    /// Puts rows into a store that is empty, all of them or none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when they can't be kept.
    pub fn put_rows(&self, rows: &[Row]) -> Result<(), StoreError> {
        if let Some(Row::State(head)) = rows.first() {
            self.clock().learn(head.time);
        }
        self.try_write(|transaction| {
            for row in rows {
                put(transaction, row)?;
            }
            Ok(())
        })
    }
}

struct Rows<'a> {
    give: &'a mut dyn FnMut(&Row) -> bool,
    count: u64,
}

impl Rows<'_> {
    /// Gives one; `None` where no more is wanted.
    fn put(&mut self, row: &Row) -> Option<()> {
        self.count += 1;
        (self.give)(row).then_some(())
    }

    fn all(&mut self, from: &ReadTransaction, at: u64) -> Result<Option<()>, StoreError> {
        let meta = from.open_table(META)?;
        let number = |key| -> Result<u64, StoreError> {
            Ok(meta.get(key)?.map_or(0, |value| value.value()))
        };
        let mut rows = vec![Row::State(ExportHead {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at,
            id: number(ID_KEY)?,
            serial: number(SERIAL_KEY)?,
            lost: number(LOST_KEY)?,
            time: number(TIME_KEY)?.max(at),
        })];
        macro_rules! table {
            ($table:expr, $key:ident, $value:ident => $row:expr) => {
                for entry in from.open_table($table)?.iter()? {
                    let (key, value) = entry?;
                    let ($key, $value) = (key.value(), value.value());
                    rows.push($row);
                    if rows.len() == 1_000 && rows.drain(..).any(|row| self.put(&row).is_none()) {
                        return Ok(None);
                    }
                }
            };
        }
        table!(tokens::TOKENS, id, json => Row::Token(id.to_owned(), parsed(id, json)?));
        table!(tokens::REVOKED, id, at => Row::Revoked(id.to_owned(), at.0, at.1));
        table!(cutoffs::CUTOFFS, whose, at => {
            Row::CutOff(whose.0.to_owned(), whose.1.to_owned(), at.0, at.1)
        });
        table!(holders::HOLDERS, id, row => {
            Row::Holder(id.to_owned(), row.0, parsed(id, row.1)?)
        });
        table!(usage::USAGE, id, u => Row::Usage(id.to_owned(), u.0, u.1, u.2, u.3));
        table!(RecordKind::Embed.table(), id, json => Row::Embed(id.to_owned(), parsed(id, json)?));
        table!(audit::EVENTS, n, json => Row::Audit(n, parsed("an event", json)?));
        table!(audit::STRANGERS, n, json => Row::Stranger(n, parsed("an event", json)?));
        Ok(rows.iter().try_for_each(|row| self.put(row)))
    }
}

fn parsed(key: &str, json: &[u8]) -> Result<Value, StoreError> {
    serde_json::from_slice(json).map_err(|source| unreadable(key, source))
}

fn unreadable(key: &str, source: serde_json::Error) -> StoreError {
    StoreError::Record {
        key: key.to_owned(),
        source,
    }
}

fn put(to: &WriteTransaction, row: &Row) -> Result<(), StoreError> {
    let bytes = |key: &str, value: &Value| {
        serde_json::to_vec(value).map_err(|source| unreadable(key, source))
    };
    match row {
        Row::State(head) => {
            let mut meta = to.open_table(META)?;
            for (key, value) in [
                (ID_KEY, head.id),
                (SERIAL_KEY, head.serial),
                (LOST_KEY, head.lost),
            ] {
                meta.insert(key, value)?;
            }
        }
        Row::Token(id, value) => {
            let json = bytes(id, value)?;
            to.open_table(tokens::TOKENS)?
                .insert(id.as_str(), json.as_slice())?;
        }
        Row::Revoked(id, at, until) => {
            to.open_table(tokens::REVOKED)?
                .insert(id.as_str(), (*at, *until))?;
        }
        Row::CutOff(workspace, subject, moment, until) => {
            to.open_table(cutoffs::CUTOFFS)?
                .insert((workspace.as_str(), subject.as_str()), (*moment, *until))?;
        }
        Row::Holder(id, end, value) => {
            let json = bytes(id, value)?;
            to.open_table(holders::HOLDERS)?
                .insert(id.as_str(), (*end, json.as_slice()))?;
        }
        Row::Usage(id, requests, prompt, completion, last) => {
            let row = (*requests, *prompt, *completion, *last);
            to.open_table(usage::USAGE)?.insert(id.as_str(), row)?;
        }
        Row::Embed(id, value) => {
            let json = bytes(id, value)?;
            to.open_table(RecordKind::Embed.table())?
                .insert(id.as_str(), json.as_slice())?;
        }
        Row::Audit(number, value) => {
            let json = bytes("an event", value)?;
            to.open_table(audit::EVENTS)?
                .insert(*number, json.as_slice())?;
        }
        Row::Stranger(number, value) => {
            let json = bytes("an event", value)?;
            to.open_table(audit::STRANGERS)?
                .insert(*number, json.as_slice())?;
        }
        Row::File(..) | Row::End(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Workspace;
    use crate::telemetry::usage::Tally;

    fn rows(store: &Store) -> Vec<Row> {
        let mut rows = Vec::new();
        store
            .export(|row| {
                rows.push(row.clone());
                true
            })
            .unwrap();
        rows
    }

    #[test]
    fn what_was_exported_makes_the_same_store_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a")).unwrap();
        store.revoke_token("01A", 7).unwrap();
        let acme = Workspace::new("acme").unwrap();
        store.cut_off(&acme, Some("ana"), 9).unwrap();
        for n in 0..1_500 {
            let used = Tally {
                requests: n,
                ..Tally::default()
            };
            let id = format!("{n:04}").into();
            store.add_usage(&[(id, used)]).unwrap();
            if n == 20 {
                break;
            }
        }
        let exported = rows(&store);
        assert!(matches!(exported.first(), Some(Row::State(head)) if head.serial == 2));
        assert!(matches!(exported.last(), Some(Row::End(n)) if *n + 1 == exported.len() as u64));
        let lines: Vec<String> = exported
            .iter()
            .map(|row| serde_json::to_string(row).unwrap())
            .collect();
        let read: Vec<Row> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let again = Store::open(&dir.path().join("b")).unwrap();
        again.put_rows(&read).unwrap();
        assert_eq!(rows(&again)[1..], exported[1..]);
        assert_eq!(
            again.revoked_tokens().unwrap(),
            store.revoked_tokens().unwrap()
        );
    }

    #[test]
    fn whoever_has_enough_is_given_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut given = 0;
        store
            .export(|_| {
                given += 1;
                false
            })
            .unwrap();
        assert_eq!(given, 1);
    }
}
