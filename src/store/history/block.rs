//! Form of cells on the disk: blocks of one series, and rows of one flush.
//!
//! A block holds the cells of one series over an hour or a day, by slot:
//!
//! ```text
//! version, kind of cell (a byte each), then tokens, then a checksum (4 bytes)
//! token: varint n << 2 | 0   skip n slots
//!                        | 1   the last cell again, n times
//!                        | 2   n cells follow
//!                        | 3   cells from here on are of n intervals or samples
//! count: zigzag varint of the difference from the last sum
//! gauge: zigzag varint of the difference from the last mean
//! times: varint number of buckets, then varint distance from the bucket before
//!        and varint count of each
//! ```
//!
//! A gauge that is thinned keeps its mean, rounded to its resolution. A row holds
//! one cell of every series that has one, each by itself. Both are checked when
//! read: what is damaged or of a later version is told as [`Unreadable`], and
//! never read as something else.

use crate::telemetry::history::sketch::{BUCKETS, Sketch};
use crate::telemetry::history::{Cell, Series};

/// The encoding that this version writes.
const VERSION: u8 = 1;

/// Cells by slot, ascending.
pub(super) type Cells = Vec<(u16, Cell)>;

/// A block or row that can't be read: damaged, or of a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Kind of the cells of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Count = 1,
    Gauge = 2,
    Times = 3,
}

impl Kind {
    pub(super) fn of(series: Series) -> Self {
        match series {
            Series::Count(_) => Self::Count,
            Series::Gauge(_) => Self::Gauge,
            Series::Times(_) => Self::Times,
        }
    }

    fn of_cell(cell: &Cell) -> Self {
        match cell {
            Cell::Count { .. } => Self::Count,
            Cell::Gauge { .. } => Self::Gauge,
            Cell::Times(_) => Self::Times,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, Unreadable> {
        match byte {
            1 => Ok(Self::Count),
            2 => Ok(Self::Gauge),
            3 => Ok(Self::Times),
            _ => Err(Unreadable),
        }
    }
}

const SKIP: u64 = 0;
const REPEAT: u64 = 1;
const CELLS: u64 = 2;
const WEIGHT: u64 = 3;

/// A cell in the form in which it is compared and written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plain<'a> {
    Number(i64, u32),
    Times(&'a Sketch),
}

impl<'a> Plain<'a> {
    fn of(cell: &'a Cell) -> Self {
        match cell {
            // Sums of a count wrap into the sign and back again.
            Cell::Count { sum, intervals } => Self::Number(sum.cast_signed(), *intervals),
            Cell::Gauge { sum, samples } => Self::Number(mean(*sum, *samples), *samples),
            Cell::Times(sketch) => Self::Times(sketch),
        }
    }

    fn weight(&self) -> Option<u32> {
        match self {
            Self::Number(_, weight) => Some(*weight),
            Self::Times(_) => None,
        }
    }
}

/// The mean, rounded half away from zero.
fn mean(sum: i64, samples: u32) -> i64 {
    let samples = i64::from(samples.max(1));
    let half = (samples / 2) * sum.signum();
    sum.saturating_add(half) / samples
}

/// Writes a block. Slots must ascend, and all cells be of `kind`; a cell that is
/// not is left out.
pub(super) fn encode(kind: Kind, cells: &[(u16, Cell)]) -> Vec<u8> {
    let plain: Vec<_> = cells
        .iter()
        .filter(|(_, cell)| Kind::of_cell(cell) == kind)
        .map(|(slot, cell)| (u64::from(*slot), Plain::of(cell)))
        .collect();
    let mut out = vec![VERSION, kind as u8];
    let (mut next_slot, mut weight, mut last) = (0, 1, None);
    let mut rest = plain.as_slice();
    while let Some((slot, cell)) = rest.first() {
        if *slot > next_slot {
            varint(&mut out, (slot - next_slot) << 2 | SKIP);
        }
        let repeats = run(rest, |_, cell| Some(cell) == last.as_ref());
        if repeats > 0 {
            varint(&mut out, (repeats as u64) << 2 | REPEAT);
            next_slot = slot + repeats as u64;
            rest = rest.get(repeats..).unwrap_or_default();
            continue;
        }
        if let Some(of_cell) = cell.weight()
            && of_cell != weight
        {
            weight = of_cell;
            varint(&mut out, u64::from(weight) << 2 | WEIGHT);
        }
        // A cell that comes again ends the run, for the token above.
        let count = run(rest, |before, cell| {
            cell.weight().is_none_or(|of_cell| of_cell == weight) && before != Some(cell)
        });
        varint(&mut out, (count as u64) << 2 | CELLS);
        for (_, cell) in rest.get(..count).unwrap_or_default() {
            write_cell(&mut out, cell, last.as_ref());
            last = Some(cell.clone());
        }
        next_slot = slot + count as u64;
        rest = rest.get(count..).unwrap_or_default();
    }
    seal(out)
}

/// Number of cells from the first on that lie slot by slot and match, each with the one before.
fn run<'a>(
    cells: &[(u64, Plain<'a>)],
    matches: impl Fn(Option<&Plain<'a>>, &Plain<'a>) -> bool,
) -> usize {
    let Some((first, _)) = cells.first() else {
        return 0;
    };
    let mut before = None;
    cells
        .iter()
        .zip(*first..)
        .take_while(|((slot, cell), expected)| {
            let goes_on = slot == expected && matches(before, cell);
            before = Some(cell);
            goes_on
        })
        .count()
}

fn write_cell(out: &mut Vec<u8>, cell: &Plain<'_>, last: Option<&Plain<'_>>) {
    match cell {
        Plain::Number(value, _) => {
            let before = match last {
                Some(Plain::Number(before, _)) => *before,
                _ => 0,
            };
            varint(out, zigzag(value.wrapping_sub(before)));
        }
        Plain::Times(sketch) => write_sketch(out, sketch),
    }
}

fn write_sketch(out: &mut Vec<u8>, sketch: &Sketch) {
    varint(out, sketch.buckets().len() as u64);
    let mut before = 0;
    for (bucket, count) in sketch.buckets() {
        varint(out, u64::from(bucket - before));
        varint(out, *count);
        before = *bucket;
    }
}

/// Reads a block whose slots are below `slots`.
pub(super) fn decode(bytes: &[u8], kind: Kind, slots: u16) -> Result<Cells, Unreadable> {
    let mut reader = Reader::open(bytes)?;
    if Kind::from_byte(reader.byte()?)? != kind {
        return Err(Unreadable);
    }
    let mut cells: Cells = Vec::new();
    let (mut slot, mut weight, mut value) = (0_u64, 1_u32, 0_i64);
    while !reader.is_at_end() {
        let token = reader.varint()?;
        let (number, what) = (token >> 2, token & 3);
        if what == WEIGHT {
            weight = u32::try_from(number).map_err(|_| Unreadable)?;
            continue;
        }
        let end = slot.checked_add(number).ok_or(Unreadable)?;
        if end > u64::from(slots) {
            return Err(Unreadable);
        }
        if what != SKIP {
            for slot in slot..end {
                let cell = match (what, cells.last()) {
                    (CELLS, _) => reader.cell(kind, weight, &mut value)?,
                    (REPEAT, Some((_, last))) => last.clone(),
                    _ => return Err(Unreadable),
                };
                let slot = u16::try_from(slot).map_err(|_| Unreadable)?;
                cells.push((slot, cell));
            }
        }
        slot = end;
    }
    Ok(cells)
}

/// Writes the row of a flush: cells by the number of their series.
pub(super) fn encode_row<'a>(cells: impl Iterator<Item = (u32, &'a Cell)>) -> Vec<u8> {
    let mut out = vec![VERSION];
    for (id, cell) in cells {
        varint(&mut out, u64::from(id));
        out.push(Kind::of_cell(cell) as u8);
        match cell {
            Cell::Count { sum, intervals } => {
                varint(&mut out, *sum);
                varint(&mut out, u64::from(*intervals));
            }
            Cell::Gauge { sum, samples } => {
                varint(&mut out, zigzag(*sum));
                varint(&mut out, u64::from(*samples));
            }
            Cell::Times(sketch) => write_sketch(&mut out, sketch),
        }
    }
    seal(out)
}

/// Reads the row of a flush.
pub(super) fn decode_row(bytes: &[u8]) -> Result<Vec<(u32, Cell)>, Unreadable> {
    let mut reader = Reader::open(bytes)?;
    let mut cells = Vec::new();
    while !reader.is_at_end() {
        let id = reader.small()?;
        let cell = match Kind::from_byte(reader.byte()?)? {
            Kind::Count => Cell::Count {
                sum: reader.varint()?,
                intervals: reader.small()?,
            },
            Kind::Gauge => Cell::Gauge {
                sum: unzigzag(reader.varint()?),
                samples: reader.small()?,
            },
            Kind::Times => Cell::Times(reader.sketch()?),
        };
        cells.push((id, cell));
    }
    Ok(cells)
}

/// Reader of the rest, without the version and the checksum.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let (content, sum) = bytes.split_last_chunk::<4>().ok_or(Unreadable)?;
        if u32::from_le_bytes(*sum) != checksum(content) {
            return Err(Unreadable);
        }
        match content.split_first() {
            Some((&VERSION, rest)) => Ok(Self { rest }),
            _ => Err(Unreadable),
        }
    }

    fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (byte, rest) = self.rest.split_first().ok_or(Unreadable)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(Unreadable);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    fn small(&mut self) -> Result<u32, Unreadable> {
        u32::try_from(self.varint()?).map_err(|_| Unreadable)
    }

    fn cell(&mut self, kind: Kind, weight: u32, value: &mut i64) -> Result<Cell, Unreadable> {
        if kind == Kind::Times {
            return Ok(Cell::Times(self.sketch()?));
        }
        *value = value.wrapping_add(unzigzag(self.varint()?));
        Ok(match kind {
            Kind::Count => Cell::Count {
                sum: value.cast_unsigned(),
                intervals: weight,
            },
            Kind::Gauge | Kind::Times => Cell::Gauge {
                sum: value.saturating_mul(i64::from(weight)),
                samples: weight,
            },
        })
    }

    fn sketch(&mut self) -> Result<Sketch, Unreadable> {
        let mut sketch = Sketch::default();
        let buckets = self.varint()?;
        let mut bucket = 0_u64;
        for _ in 0..buckets {
            bucket = bucket.checked_add(self.varint()?).ok_or(Unreadable)?;
            let count = self.varint()?;
            let index = u8::try_from(bucket).ok().filter(|index| *index < BUCKETS);
            sketch.add_to(index.ok_or(Unreadable)?, count);
        }
        Ok(sketch)
    }
}

fn seal(mut content: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&content);
    content.extend_from_slice(&sum.to_le_bytes());
    content
}

/// FNV-1a: tells damage, not forgery.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests;
