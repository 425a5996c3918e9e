//! Damaged corpora: what the parsers of foreign bytes are tried with.
//!
//! Owns the strategy that damages good inputs (words of a grammar put where they do
//! not belong, parts cut, doubled, crossed with another input) and the number of
//! executions. Each target stands beside its parser, as a test whose name begins with
//! `fuzz_`, and holds the parser against an oracle: a second reader, or itself with the
//! bytes in other pieces. A plain `cargo test` runs each target for a moment; for hours:
//!
//! ```sh
//! TIDEGATE_FUZZ=100000000 cargo test --release --lib fuzz_
//! ```
//!
//! Failures are kept in `proptest-regressions/` and tried first from then on.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;

/// Executions of a target in a plain `cargo test`.
const CASES: u32 = 512;

/// Executions of each target, `TIDEGATE_FUZZ` of them if it is set.
pub(crate) fn config() -> Config {
    let cases = std::env::var("TIDEGATE_FUZZ").map_or(CASES, |text| {
        text.parse().expect("TIDEGATE_FUZZ must be a whole number")
    });
    Config {
        cases,
        max_global_rejects: u32::MAX,
        ..Config::default()
    }
}

/// One thing done to an input.
#[derive(Clone, Debug)]
enum Damage {
    Put(Index, Vec<u8>),
    Set(Index, u8),
    Cut(Index, usize),
    Double(Index, usize),
    Cross(Index, Vec<u8>, Index),
    End(Index),
}

impl Damage {
    fn on(self, input: &mut Vec<u8>) {
        let at = |index: &Index, input: &[u8]| index.index(input.len() + 1);
        match self {
            Self::Put(index, word) => {
                let at = at(&index, input);
                drop(input.splice(at..at, word));
            }
            Self::Set(index, byte) if !input.is_empty() => {
                let at = index.index(input.len());
                input[at] = byte;
            }
            Self::Set(_, byte) => input.push(byte),
            Self::Cut(index, length) => {
                let at = at(&index, input);
                drop(input.drain(at..(at + length).min(input.len())));
            }
            Self::Double(index, length) => {
                let at = at(&index, input);
                let part = input[at..(at + length).min(input.len())].to_vec();
                drop(input.splice(at..at, part));
            }
            Self::Cross(index, other, from) => {
                input.truncate(at(&index, input));
                input.extend_from_slice(&other[at(&from, &other)..]);
            }
            Self::End(index) => input.truncate(at(&index, input)),
        }
    }
}

/// One of the `seeds`, whole or damaged, with `words` of their grammar.
pub(crate) fn damaged<T: AsRef<[u8]>>(
    seeds: &[T],
    words: &[&'static str],
) -> impl Strategy<Value = Vec<u8>> + use<T> {
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_ref().to_vec()).collect();
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let seed = proptest::sample::select(seeds);
    let index = any::<Index>;
    let damage = prop_oneof![
        4 => (index(), proptest::sample::select(words)).prop_map(|(at, word)| Damage::Put(at, word)),
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => (index(), 1..24_usize).prop_map(|(at, length)| Damage::Cut(at, length)),
        1 => (index(), 1..40_usize).prop_map(|(at, length)| Damage::Double(at, length)),
        1 => (index(), seed.clone(), index())
            .prop_map(|(at, other, from)| Damage::Cross(at, other, from)),
        1 => index().prop_map(Damage::End),
    ];
    (seed, vec(damage, 0..6)).prop_map(|(mut input, damages)| {
        for damage in damages {
            damage.on(&mut input);
        }
        input
    })
}

/// Lengths of the pieces that an input arrives in.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(1..48_usize, 1..8)
}

/// The pieces of `input` that have these lengths in turn.
pub(crate) fn pieces<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut lengths: VecDeque<usize> = cuts.iter().copied().collect();
    let (mut pieces, mut rest) = (Vec::new(), input);
    while !rest.is_empty() {
        lengths.rotate_left(1);
        let length = lengths.back().map_or(rest.len(), |length| *length);
        let (piece, after) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
