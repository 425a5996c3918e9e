//! Cells that are not in blocks yet, and the numbers of the series.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::block::{Cells, Kind};
use super::plan::{FINE, HOUR};
use crate::telemetry::history::{Cell, Point, Scope, Series};

/// Most series that are kept; points of others are left out.
const SERIES_MAX: usize = 50_000;

/// Most hours that wait to become blocks while the disk can't be written; then
/// the oldest is given up.
const HOURS_MAX: usize = 3;

/// Most rows that wait to be written while the disk can't be; the hours above
/// have their content too.
const ROWS_MAX: usize = 360;

/// The points of one flush, with the numbers of their series.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Start of the interval.
    pub(super) at: u64,
    pub(super) cells: Vec<(u32, Cell)>,
}

/// A series that has a number.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: u32,
    pub(super) series: Series,
}

/// An hour that is over: when it began, and the cells of each series.
pub(super) type Over = (u64, Vec<(u32, Kind, Cells)>);

/// Cells of one hour by series.
type Hour = HashMap<u32, (Kind, Cells)>;

/// Memory of the store: the hours that are still open, and what is to be written.
#[derive(Debug, Default)]
pub(super) struct Memory {
    ids: HashMap<(Scope, Series), u32>,
    /// The greatest number that was given.
    id_last: u32,
    hours: BTreeMap<u64, Hour>,
    /// Start of the cells of the last flush. Not the greatest: after a clock that
    /// was wrong, the later one is right.
    pub(super) newest: u64,
    /// Series whose numbers are to be written, by name.
    pub(super) new_series: Vec<(String, u32)>,
    /// Rows that are to be written, the oldest first.
    pub(super) rows: Vec<Row>,
}

/// The name of a series in the store.
pub(super) fn name(scope: &Scope, series: Series) -> String {
    format!("{scope} {series}")
}

impl Memory {
    /// Takes up a series of the store. A name that this version does not know
    /// keeps its number.
    pub(super) fn know(&mut self, name: &str, id: u32) {
        self.id_last = self.id_last.max(id);
        let parsed = name
            .rsplit_once(' ')
            .and_then(|(scope, series)| Some((scope.parse().ok()?, series.parse().ok()?)));
        if let Some(key) = parsed {
            self.ids.insert(key, id);
        }
    }

    /// Forgets series that the store has forgotten.
    pub(super) fn forget(&mut self, gone: &BTreeSet<u32>) {
        if !gone.is_empty() {
            self.ids.retain(|_, id| !gone.contains(id));
        }
    }

    /// Takes up a row that the store has.
    pub(super) fn replay(&mut self, row: &Row) {
        let kinds: HashMap<u32, Kind> = self
            .ids
            .iter()
            .map(|((_, series), id)| (*id, Kind::of(*series)))
            .collect();
        for (id, cell) in &row.cells {
            if let Some(kind) = kinds.get(id) {
                self.add(row.at, *id, *kind, cell);
            }
        }
    }

    /// Takes up the points of a flush, whose interval began at `at`.
    pub(super) fn record(&mut self, at: u64, points: &[Point]) {
        let mut cells = Vec::with_capacity(points.len());
        for point in points {
            if let Some(id) = self.number(&point.scope, point.series) {
                self.add(at, id, Kind::of(point.series), &point.cell);
                cells.push((id, point.cell.clone()));
            }
        }
        if self.rows.len() == ROWS_MAX {
            self.rows.remove(0);
        }
        self.rows.push(Row { at, cells });
        while self.hours.len() > HOURS_MAX {
            self.hours.pop_first();
        }
    }

    /// The number of a series, a new one if need be; `None` when there are too many.
    fn number(&mut self, scope: &Scope, series: Series) -> Option<u32> {
        let key = (scope.clone(), series);
        if let Some(id) = self.ids.get(&key) {
            return Some(*id);
        }
        if self.ids.len() >= SERIES_MAX {
            return None;
        }
        let id = self.id_last.checked_add(1)?;
        self.id_last = id;
        self.new_series.push((name(scope, series), id));
        self.ids.insert(key, id);
        Some(id)
    }

    fn add(&mut self, at: u64, id: u32, kind: Kind, cell: &Cell) {
        self.newest = at;
        let hour = at / HOUR * HOUR;
        let slot = u16::try_from((at - hour) / FINE).unwrap_or_default();
        let series = self.hours.entry(hour).or_default().entry(id);
        merge(&mut series.or_insert((kind, Vec::new())).1, slot, cell);
    }

    /// The series that a question reads.
    pub(super) fn matching(&self, scope: &Scope, reads: impl Fn(Series) -> bool) -> Vec<Known> {
        let matching = self
            .ids
            .iter()
            .filter(|((stored, series), _)| reads(*series) && scope.covers(stored, *series));
        matching
            .map(|((_, series), id)| Known {
                id: *id,
                series: *series,
            })
            .collect()
    }

    /// Starts of the open hours.
    pub(super) fn open_hours(&self) -> BTreeSet<u64> {
        self.hours.keys().copied().collect()
    }

    /// Cells of a series in the open hours, with the moments at which they began.
    pub(super) fn cells(&self, id: u32) -> impl Iterator<Item = (u64, &Cell)> {
        self.hours.iter().flat_map(move |(hour, series)| {
            let cells = series.get(&id).map(|(_, cells)| cells.as_slice());
            cells
                .unwrap_or_default()
                .iter()
                .map(move |(slot, cell)| (hour + u64::from(*slot) * FINE, cell))
        })
    }

    /// Hours other than that of the last flush, to be written as blocks.
    pub(super) fn over(&self) -> Vec<Over> {
        let now = self.newest / HOUR * HOUR;
        self.hours
            .iter()
            .filter(|(hour, _)| **hour != now)
            .map(|(hour, series)| {
                let series = series
                    .iter()
                    .map(|(id, (kind, cells))| (*id, *kind, cells.clone()));
                (*hour, series.collect())
            })
            .collect()
    }

    /// Series that have cells in any hour here.
    pub(super) fn alive(&self) -> BTreeSet<u32> {
        self.hours
            .values()
            .flat_map(HashMap::keys)
            .copied()
            .collect()
    }

    /// Lets go of what has been written.
    pub(super) fn written(&mut self, sealed: impl Iterator<Item = u64>) {
        self.new_series.clear();
        self.rows.clear();
        for hour in sealed {
            self.hours.remove(&hour);
        }
    }
}

/// Merges a cell into those of a block.
pub(super) fn merge(cells: &mut Cells, slot: u16, cell: &Cell) {
    match cells.binary_search_by_key(&slot, |entry| entry.0) {
        Ok(at) => {
            if let Some((_, merged)) = cells.get_mut(at) {
                merged.merge(cell);
            }
        }
        Err(at) => cells.insert(at, (slot, cell.clone())),
    }
}
