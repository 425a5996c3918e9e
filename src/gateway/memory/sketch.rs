//! Bytes that each of any number of keys holds, in counters of a fixed number.
//!
//! A count-min sketch: each key has two counters, of which the lower is what it holds,
//! or a little more where both are shared with keys that hold much too. The two are known
//! only to those who know the keys of the hash. So there is no lock, no entry
//! to forget, and nothing that grows with the addresses that someone comes from.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters in each of the two rows.
const ROW: usize = 8 * 1024;

/// The counters.
#[derive(Debug)]
pub struct Sketch {
    /// Both rows, one behind the other.
    cells: Box<[AtomicU64]>,
    /// Of the hash; no one outside sees anything that is made of them.
    keys: [u64; 2],
}

impl Sketch {
    /// Sketch in which no key holds anything.
    pub fn new() -> Self {
        let cells = std::iter::repeat_with(AtomicU64::default);
        Self {
            cells: cells.take(2 * ROW).collect(),
            keys: [0_u8, 1].map(|number| RandomState::new().hash_one(number)),
        }
    }

    /// Number by which a key is counted.
    pub fn hash(&self, key: impl Hash) -> u64 {
        let [state, multiplier] = self.keys;
        let mut folded = Folded { state, multiplier };
        key.hash(&mut folded);
        folded.finish()
    }

    /// Adds to what the key of this hash holds, and returns how much that is now.
    pub fn add(&self, hash: u64, amount: u64) -> u64 {
        let [one, other] = self.cells_of(hash).map(|cell| {
            let before = cell.map(|cell| cell.fetch_add(amount, Ordering::Relaxed));
            before.unwrap_or_default()
        });
        one.min(other).saturating_add(amount)
    }

    /// Takes back what was added.
    pub fn take(&self, hash: u64, amount: u64) {
        for cell in self.cells_of(hash).into_iter().flatten() {
            cell.fetch_sub(amount, Ordering::Relaxed);
        }
    }

    /// True if no key holds anything.
    pub fn is_empty(&self) -> bool {
        let mut cells = self.cells.iter();
        cells.all(|cell| cell.load(Ordering::Relaxed) == 0)
    }

    /// The two counters of a hash; both are there.
    fn cells_of(&self, hash: u64) -> [Option<&AtomicU64>; 2] {
        let index = |bits: u64| usize::try_from(bits % ROW as u64).unwrap_or_default();
        [
            self.cells.get(index(hash)),
            self.cells.get(ROW + index(hash >> 32)),
        ]
    }
}

/// A hash by multiplication with secret numbers, for a request's few short keys. The
/// standard library's takes longer, and holds against those who see hashes, too.
struct Folded {
    state: u64,
    multiplier: u64,
}

impl Folded {
    fn take(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.multiplier | 1);
        let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
        self.state = u64::try_from(low ^ high).unwrap_or_default();
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.take(u64::from_le_bytes(*word));
        }
        let rest = rest.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        // Its length makes a key that ends in zeros another one.
        self.take(rest ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, byte: u8) {
        self.take(u64::from(byte));
    }

    fn write_isize(&mut self, number: isize) {
        self.take(number.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        // Once more, so that all bits of the last word reach all of these.
        let mut last = Self { ..*self };
        last.take(self.multiplier.rotate_left(32));
        last.state
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_holds_much_does_not_stand_for_others() {
        let sketch = Sketch::new();
        for key in 0..8 {
            sketch.add(sketch.hash(("much", key)), 1 << 30);
        }
        let wrong = (0..10_000)
            .map(|key| sketch.hash(("little", key)))
            .filter(|hash| {
                let held = sketch.add(*hash, 1);
                sketch.take(*hash, 1);
                held > 1
            })
            .count();
        // Both of one's counters are among sixteen in 8,192 once in 4 million.
        assert!(wrong <= 1, "{wrong}");
        for key in 0..8 {
            sketch.take(sketch.hash(("much", key)), 1 << 30);
        }
        assert!(sketch.is_empty());
    }
}
