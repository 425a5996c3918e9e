//! The tables of the history and the transactions on them.
//!
//! ```text
//! series   name of the series     -> its number, when its last block began
//! rows     (moment, sequence)     -> the points of one flush; until its hour is over
//! fine     (start, series number) -> cells of ten seconds over an hour
//! coarse   (start, series number) -> cells of five minutes over a day
//! ```
//!
//! Blocks are sorted by time first: those of one hour are written side by side,
//! and the oldest are at the beginning, where they end. Names of tables carry
//! the version of their layout.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};

use super::block::{self, Cells, Kind};
use super::memory::{Memory, Over, Row, merge};
use super::plan::{COARSE, COARSE_KEPT, DAY, FINE, HOUR, Plan, Steps, Tier};

const SERIES: TableDefinition<'_, &str, (u32, u64)> = TableDefinition::new("series_1");
const ROWS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("rows_1");
const FINE_BLOCKS: Blocks<'_> = TableDefinition::new("fine_1");
const COARSE_BLOCKS: Blocks<'_> = TableDefinition::new("coarse_1");

type Blocks<'a> = TableDefinition<'a, (u64, u32), &'static [u8]>;

/// Seconds for which fine blocks are kept: as long as they answer, and the hour
/// in which they end.
const FINE_KEPT: u64 = 2 * DAY + HOUR;

/// Seconds after the newest cell from which blocks are of a clock that was wrong.
const FUTURE: u64 = 2 * DAY;

/// Bytes of a key and of what redb keeps with each entry, about.
const ENTRY_BYTES: u64 = 20;

/// True once something unreadable was told; once is enough.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Contents of one transaction.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    /// Start of the cells of the last flush.
    pub(super) newest: u64,
    pub(super) series: &'a [(String, u32)],
    pub(super) rows: &'a [Row],
    /// Hours that are over.
    pub(super) over: &'a [Over],
    /// Series that had cells in these hours or have some since.
    pub(super) alive: &'a BTreeSet<u32>,
    /// Most bytes that blocks may take.
    pub(super) bytes_max: u64,
}

fn table_of(tier: Tier) -> Blocks<'static> {
    match tier {
        Tier::Fine => FINE_BLOCKS,
        Tier::Coarse => COARSE_BLOCKS,
    }
}

/// Makes the tables, so that readers find them.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(SERIES)?;
    transaction.open_table(ROWS)?;
    transaction.open_table(FINE_BLOCKS)?;
    transaction.open_table(COARSE_BLOCKS)?;
    Ok(transaction.commit()?)
}

/// Reads what belongs into memory: the numbers of series, and the open hours.
pub(super) fn load(database: &Database) -> Result<Memory, redb::Error> {
    prepare(database)?;
    let transaction = database.begin_read()?;
    let mut memory = Memory::default();
    for entry in transaction.open_table(SERIES)?.iter()? {
        let (name, value) = entry?;
        memory.know(name.value(), value.value().0);
    }
    if let Some((key, _)) = transaction.open_table(FINE_BLOCKS)?.last()? {
        memory.newest = key.value().0 + HOUR - FINE;
    }
    for entry in transaction.open_table(ROWS)?.iter()? {
        let (key, row) = entry?;
        match block::decode_row(row.value()) {
            Ok(cells) => memory.replay(&Row {
                at: key.value().0,
                cells,
            }),
            Err(block::Unreadable) => tell_unreadable("row", key.value().0),
        }
    }
    Ok(memory)
}

/// Writes a batch as one transaction, which is on the disk when this returns.
/// Gives back the series that were forgotten.
pub(super) fn write(database: &Database, batch: &Batch<'_>) -> Result<BTreeSet<u32>, redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut series = transaction.open_table(SERIES)?;
        for (name, id) in batch.series {
            series.insert(name.as_str(), (*id, batch.newest))?;
        }
        let mut rows = transaction.open_table(ROWS)?;
        let last = rows.last()?.map_or(0, |(key, _)| key.value().1);
        for (row, sequence) in batch.rows.iter().zip(last + 1..) {
            let bytes = block::encode_row(row.cells.iter().map(|(id, cell)| (*id, cell)));
            rows.insert((row.at, sequence), bytes.as_slice())?;
        }
    }
    let mut gone = BTreeSet::new();
    if !batch.over.is_empty() {
        for (hour, series) in batch.over {
            seal(&transaction, *hour, series)?;
        }
        expire(&transaction, batch)?;
        gone = forget(&transaction, batch)?;
    }
    transaction.commit()?;
    Ok(gone)
}

/// Turns an hour into blocks, and takes its rows away.
fn seal(
    transaction: &WriteTransaction,
    hour: u64,
    series: &[(u32, Kind, Cells)],
) -> Result<(), redb::Error> {
    let day = hour / DAY * DAY;
    let mut fine = transaction.open_table(FINE_BLOCKS)?;
    let mut coarse = transaction.open_table(COARSE_BLOCKS)?;
    for (id, kind, cells) in series {
        add_to_block(&mut fine, (hour, *id), *kind, Tier::Fine, cells)?;
        let thinned = thin(hour - day, cells);
        add_to_block(&mut coarse, (day, *id), *kind, Tier::Coarse, &thinned)?;
    }
    let mut rows = transaction.open_table(ROWS)?;
    rows.retain_in((hour, 0)..(hour + HOUR, 0), |_, _| false)?;
    Ok(())
}

/// Merges fine cells of an hour into coarse ones of the day that it lies in, from
/// `offset` seconds on.
fn thin(offset: u64, cells: &Cells) -> Cells {
    let mut thinned = Cells::new();
    for (slot, cell) in cells {
        let second = offset + u64::from(*slot) * FINE;
        let coarse = u16::try_from(second / COARSE).unwrap_or(u16::MAX);
        merge(&mut thinned, coarse, cell);
    }
    thinned
}

/// Merges cells into a block; there is an earlier one for each day but its first
/// hour, and for an hour after the clock was set back.
fn add_to_block(
    table: &mut Table<'_, (u64, u32), &'static [u8]>,
    key: (u64, u32),
    kind: Kind,
    tier: Tier,
    cells: &Cells,
) -> Result<(), redb::Error> {
    let before = table
        .get(key)?
        .map(|bytes| block::decode(bytes.value(), kind, tier.slots()));
    let bytes = match before {
        Some(Ok(mut before)) => {
            for (slot, cell) in cells {
                merge(&mut before, *slot, cell);
            }
            block::encode(kind, &before)
        }
        Some(Err(block::Unreadable)) => {
            tell_unreadable("block", key.0);
            block::encode(kind, cells)
        }
        None => block::encode(kind, cells),
    };
    table.insert(key, bytes.as_slice())?;
    Ok(())
}

/// Removes what is too old, of the future, or too much.
fn expire(transaction: &WriteTransaction, batch: &Batch<'_>) -> Result<(), redb::Error> {
    let newest = batch.newest;
    let mut bytes = 0;
    // The coarse are far more, and the first to go when there is too much.
    for (tier, kept) in [(Tier::Fine, FINE_KEPT), (Tier::Coarse, COARSE_KEPT)] {
        let mut table = transaction.open_table(table_of(tier))?;
        let oldest = newest.saturating_sub(kept + tier.block_seconds());
        table.retain_in((0, 0)..(oldest, 0), |_, _| false)?;
        table.retain_in((newest.saturating_add(FUTURE), 0).., |_, _| false)?;
        let stats = table.stats()?;
        bytes += stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
    }
    let mut over = bytes.saturating_sub(batch.bytes_max);
    for tier in [Tier::Coarse, Tier::Fine] {
        let mut table = transaction.open_table(table_of(tier))?;
        while over > 0 {
            let Some((_, block)) = table.pop_first()? else {
                break;
            };
            over = over.saturating_sub(block.value().len() as u64 + ENTRY_BYTES);
        }
    }
    Ok(())
}

/// Notes which series had cells, and forgets those that have had none for as long
/// as anything is kept.
fn forget(transaction: &WriteTransaction, batch: &Batch<'_>) -> Result<BTreeSet<u32>, redb::Error> {
    let oldest = batch.newest.saturating_sub(COARSE_KEPT + 2 * DAY);
    let mut gone = BTreeSet::new();
    let mut kept = Vec::new();
    let mut table = transaction.open_table(SERIES)?;
    for entry in table.iter()? {
        let (name, value) = entry?;
        let (id, last) = value.value();
        if batch.alive.contains(&id) {
            kept.push((name.value().to_owned(), id));
        } else if last < oldest {
            gone.insert(id);
        }
    }
    for (name, id) in kept {
        table.insert(name.as_str(), (id, batch.newest))?;
    }
    table.retain(|_, (id, _)| !gone.contains(&id))?;
    Ok(gone)
}

/// Reads the blocks of some series into their steps. Cells of `open` hours are left
/// out: memory has them.
pub(super) fn read<'a>(
    database: &Database,
    plan: &Plan,
    open: &BTreeSet<u64>,
    wanted: impl Iterator<Item = (u32, Kind, &'a mut Steps)>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(table_of(plan.tier))?;
    for (id, kind, steps) in wanted {
        for start in plan.blocks() {
            let Some(bytes) = table.get((start, id))? else {
                continue;
            };
            let Ok(cells) = block::decode(bytes.value(), kind, plan.tier.slots()) else {
                tell_unreadable("block", start);
                continue;
            };
            for (slot, cell) in &cells {
                let at = start + u64::from(*slot) * plan.tier.cell_seconds();
                if !open.contains(&(at / HOUR * HOUR)) {
                    steps.add(at, cell);
                }
            }
        }
    }
    Ok(())
}

fn tell_unreadable(what: &str, at: u64) {
    if !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            history.at = at,
            "a {what} of the history is damaged or of a later version, and is left out"
        );
    }
}
