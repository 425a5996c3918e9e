use proptest::prelude::*;

use super::*;
use crate::fuzz;

fn number(kind: Kind, sum: i64, weight: u32) -> Cell {
    match kind {
        Kind::Count => Cell::Count {
            sum: sum.cast_unsigned(),
            intervals: weight,
        },
        // A multiple of the weight, so that the mean loses nothing.
        _ => Cell::Gauge {
            sum: sum % 1_000_000 * i64::from(weight),
            samples: weight,
        },
    }
}

fn sketch() -> impl Strategy<Value = Cell> {
    prop::collection::vec((0..BUCKETS, 1_u64..1_000_000), 0..20).prop_map(|counts| {
        let mut sketch = Sketch::default();
        for (bucket, count) in counts {
            sketch.add_to(bucket, count);
        }
        Cell::Times(sketch)
    })
}

fn cell(kind: Kind) -> BoxedStrategy<Cell> {
    let value = prop_oneof![-3_i64..3, any::<i64>()];
    let weight = prop_oneof![Just(1_u32), Just(30), 1_u32..1_000];
    match kind {
        Kind::Times => sketch().boxed(),
        _ => (value, weight)
            .prop_map(move |(value, weight)| number(kind, value, weight))
            .boxed(),
    }
}

/// Runs of equal cells, lone cells and gaps.
fn cells(kind: Kind) -> impl Strategy<Value = Cells> {
    prop::collection::vec((cell(kind), 1_u16..4, 0_u16..3), 0..60).prop_map(|runs| {
        let mut cells = Vec::new();
        let mut slot = 0;
        for (cell, times, gap) in runs {
            slot += gap;
            for _ in 0..times {
                cells.push((slot, cell.clone()));
                slot += 1;
            }
        }
        cells
    })
}

proptest! {
    #[test]
    fn a_block_reads_back(
        (kind, cells) in prop_oneof![Just(Kind::Count), Just(Kind::Gauge), Just(Kind::Times)]
            .prop_flat_map(|kind| (Just(kind), cells(kind)))
    ) {
        let bytes = encode(kind, &cells);
        prop_assert_eq!(decode(&bytes, kind, 360), Ok(cells));
    }

    #[test]
    fn a_row_reads_back(cells in prop::collection::vec(
        (any::<u32>(), prop_oneof![cell(Kind::Count), cell(Kind::Gauge), cell(Kind::Times)]), 0..50,
    )) {
        let bytes = encode_row(cells.iter().map(|(id, cell)| (*id, cell)));
        prop_assert_eq!(decode_row(&bytes), Ok(cells));
    }

    #[test]
    fn garbage_with_a_good_checksum_is_no_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let bytes = seal(bytes);
        for kind in [Kind::Count, Kind::Gauge, Kind::Times] {
            if let Ok(cells) = decode(&bytes, kind, 360) {
                prop_assert!(cells.is_sorted_by(|a, b| a.0 < b.0));
                prop_assert!(cells.last().is_none_or(|(slot, _)| *slot < 360));
            }
        }
        drop(decode_row(&bytes));
    }

    #[test]
    fn a_changed_or_cut_block_is_told(cells in cells(Kind::Count), at: prop::sample::Index, bit in 0..8) {
        let good = encode(Kind::Count, &cells);
        let at = at.index(good.len());
        let mut bad = good.clone();
        bad[at] ^= 1_u8 << bit;
        prop_assert_eq!(decode(&bad, Kind::Count, 360), Err(Unreadable));
        prop_assert_eq!(decode(&good[..at], Kind::Count, 360), Err(Unreadable));
    }
}

#[test]
fn quiet_hours_take_a_few_bytes() {
    let quiet: Cells = (0..360).map(|slot| (slot, Cell::count(0))).collect();
    let bytes = encode(Kind::Count, &quiet);
    assert!(bytes.len() <= 10, "{}", bytes.len());
}

#[test]
fn a_later_version_or_another_kind_is_not_read() {
    let cells = vec![(0, Cell::count(7))];
    let bytes = encode(Kind::Count, &cells);
    assert_eq!(decode(&bytes, Kind::Gauge, 360), Err(Unreadable));
    let mut later = bytes[..bytes.len() - 4].to_vec();
    later[0] = VERSION + 1;
    assert_eq!(decode(&seal(later), Kind::Count, 360), Err(Unreadable));
    let slot_360 = encode(Kind::Count, &[(360, Cell::count(7))]);
    assert_eq!(decode(&slot_360, Kind::Count, 360), Err(Unreadable));
}

/// A sealed page holds a checksum, which would hide what comes behind it: so the
/// damage is done before the page is sealed.
fn damaged_page() -> impl Strategy<Value = Vec<u8>> {
    let counts = [
        (0, number(Kind::Count, 5, 1)),
        (1, number(Kind::Count, 5, 1)),
        (9, number(Kind::Count, 8, 30)),
    ];
    let gauges = [
        (3, number(Kind::Gauge, -7, 1)),
        (4, number(Kind::Gauge, 12, 2)),
    ];
    let mut sketch = Sketch::default();
    sketch.add_to(3, 9);
    sketch.add_to(40, 1);
    let times = [(0, Cell::Times(sketch.clone())), (5, Cell::Times(sketch))];
    let row: Vec<Cell> = [&counts[0].1, &gauges[0].1, &times[0].1]
        .map(Clone::clone)
        .into();
    let rows = encode_row((0..).zip(&row));
    let seeds = [
        encode(Kind::Count, &counts),
        encode(Kind::Gauge, &gauges),
        encode(Kind::Times, &times),
        rows,
    ];
    let bare = seeds.map(|page| page[..page.len() - size_of::<u32>()].to_vec());
    fuzz::damaged(
        &bare,
        &["\0", "\u{1}", "\u{2}", "\u{3}", "\u{7f}", "\u{fff}\u{fff}"],
    )
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_history_page(
        bare in damaged_page(),
        kind in prop::sample::select(vec![Kind::Count, Kind::Gauge, Kind::Times]),
        sealed: bool,
    ) {
        let page = if sealed { seal(bare) } else { bare };
        if let Ok(cells) = decode(&page, kind, 64) {
            prop_assert!(cells.iter().all(|(slot, cell)| *slot < 64 && Kind::of_cell(cell) == kind));
            prop_assert!(cells.is_sorted_by(|a, b| a.0 < b.0));
        }
        drop(decode_row(&page));
    }
}
