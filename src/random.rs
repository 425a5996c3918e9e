//! Chance that is replayed by its seed, as `SplitMix64` does.
//!
//! Nothing secret comes from here: keys, codes and token ids are the crypto library's.

use std::f64::consts::TAU;

/// The step of the sequence: odd, so that it passes through every word.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads the bits of a word over all of it; distinct words stay distinct.
pub const fn spread(word: u64) -> u64 {
    let mut mixed = word.wrapping_add(STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The nth word, from 1, of the sequence that a seed begins: none comes twice in 2^64.
pub const fn nth(seed: u64, n: u64) -> u64 {
    spread(seed.wrapping_add(n.wrapping_sub(1).wrapping_mul(STEP)))
}

/// A small generator; its whole state is one word.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        let number = spread(self.0);
        self.0 = self.0.wrapping_add(STEP);
        number
    }

    /// Evenly from 0 to 1, without 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
    pub fn part(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.number() % n.max(1) as u64).unwrap_or_default()
    }

    /// True with this chance.
    pub fn happens(&mut self, chance: f64) -> bool {
        self.part() < chance
    }

    /// Exponentially distributed, with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.part()).ln()
    }

    /// Lognormally distributed, with this median.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.part()).ln()).sqrt();
        let normal = radius * (TAU * self.part()).cos();
        median * (sigma * normal).exp()
    }

    /// The index that this part of a rising sum falls on.
    pub fn weighted(&mut self, sums: &[f64]) -> usize {
        let total = sums.last().copied().unwrap_or_default();
        let at = self.part() * total;
        sums.partition_point(|sum| *sum <= at)
            .min(sums.len().saturating_sub(1))
    }

    /// Brings these into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        // The first words of the reference implementation for the seed 1234567.
        let known = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        let mut dice = Dice::new(1_234_567);
        for (n, word) in (1..).zip(known) {
            assert_eq!((dice.number(), nth(1_234_567, n)), (word, word));
        }
    }
}
