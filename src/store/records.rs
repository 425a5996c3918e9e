//! Small JSON records by id: sessions of the dashboard, and links that show a plot.
//!
//! Owns one table for each [`RecordKind`], and the bound of it. What the records mean
//! belongs to the rooms that write them. One that can't be read back is left out
//! of a listing, and told of in the log: it must not lock everyone out.

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::refusals::{Refusal, Refused};
use super::{Store, StoreError};

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// Sessions of the dashboard.
    Session,
    /// Links that show a plot elsewhere.
    Embed,
}

/// Most records of a kind; the oldest id goes first, ids sort by time.
pub const RECORDS_MAX: u64 = 5_000;

impl RecordKind {
    const ALL: [Self; 2] = [Self::Session, Self::Embed];

    pub(super) const fn table(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Session => "sessions",
            Self::Embed => "embeds",
        })
    }
}

impl Store {
    /// Keeps a record, over an earlier one of the same id.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be kept; then nothing was changed.
    pub fn put_record(
        &self,
        kind: RecordKind,
        id: &str,
        record: &impl Serialize,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_vec(record).map_err(|source| StoreError::Record {
            key: format!("{kind:?} {id}"),
            source,
        })?;
        self.write(|transaction| {
            let mut table = transaction.open_table(kind.table())?;
            table.insert(id, json.as_slice())?;
            while table.len()? > RECORDS_MAX {
                table.pop_first()?;
            }
            Ok(())
        })
    }

    /// Forgets records: what they allowed is refused from now on. Says whether a restart
    /// keeps that; the moment says nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could neither be kept nor held.
    pub fn remove_records(&self, kind: RecordKind, ids: &[String]) -> Result<Refused, StoreError> {
        self.refuse(Refusal::Records {
            kind,
            ids: ids.to_vec(),
        })
    }

    /// Every record of a kind with its id, the oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    pub fn records<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
    ) -> Result<Vec<(String, T)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(kind.table())?;
            let mut records = Vec::new();
            for entry in table.iter()? {
                let (id, json) = entry?;
                match serde_json::from_slice(json.value()) {
                    Ok(record) => records.push((id.value().to_owned(), record)),
                    Err(error) => {
                        let id = id.value();
                        tracing::warn!(error = %error, "the record {kind:?} {id} can't be read and is left out");
                    }
                }
            }
            Ok(records)
        })
    }
}

/// Forgets records within a transaction.
pub(super) fn remove(
    transaction: &WriteTransaction,
    kind: RecordKind,
    ids: &[String],
) -> Result<(), StoreError> {
    let mut table = transaction.open_table(kind.table())?;
    for id in ids {
        table.remove(id.as_str())?;
    }
    Ok(())
}

/// Forgets every record of every kind.
pub(super) fn clear(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for kind in RecordKind::ALL {
        transaction.open_table(kind.table())?.retain(|_, _| false)?;
    }
    Ok(())
}

/// Makes the tables, so that readers find them.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for kind in RecordKind::ALL {
        transaction.open_table(kind.table())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_outlive_a_restart_and_one_that_is_odd_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put_record(RecordKind::Session, "a", &1).unwrap();
        store.put_record(RecordKind::Session, "b", &"text").unwrap();
        store.put_record(RecordKind::Embed, "c", &3).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let kept: Vec<(String, u32)> = store.records(RecordKind::Session).unwrap();
        assert_eq!(kept, [("a".to_owned(), 1)]);
        let gone = store.remove_records(RecordKind::Session, &["a".to_owned(), "x".to_owned()]);
        assert!(gone.unwrap().kept);
        assert_eq!(store.records::<u32>(RecordKind::Session).unwrap(), []);
        assert_eq!(store.records::<u32>(RecordKind::Embed).unwrap().len(), 1);
    }
}
