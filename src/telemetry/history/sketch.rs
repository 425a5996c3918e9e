//! Distributions of times that merge without loss.
//!
//! A [`Sketch`] counts times in buckets whose borders grow by a fixed ratio, so
//! that the value of a quantile is known to within [`RELATIVE_ERROR`]. Merging
//! adds the counts: a merged sketch is the same as one that saw every time, and
//! its quantiles are those of all times together, never a mean of quantiles.
//! It knows nothing of what the times are of, or of when they were seen.

use std::time::Duration;

/// Largest error of a quantile, as a share of the true value, for times between
/// [`SHORTEST`] and [`LONGEST`] seconds.
pub const RELATIVE_ERROR: f64 = 0.05;

/// Seconds; shorter times are told as this long.
pub const SHORTEST: f64 = 1e-4;

/// Seconds, two hours; longer times are told as about this long.
pub const LONGEST: f64 = 7_200.0;

/// Number of buckets from [`SHORTEST`] to [`LONGEST`]; a test keeps it so.
pub const BUCKETS: u8 = 182;

/// Ratio of the borders of a bucket.
const GAMMA: f64 = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR);

/// Counts of times by bucket. Takes at most [`BUCKETS`] entries of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Counts by bucket, ascending; no count is zero.
    counts: Vec<(u8, u64)>,
}

impl Sketch {
    /// Counts one time.
    pub fn add(&mut self, time: Duration) {
        self.add_to(bucket(time.as_secs_f64()), 1);
    }

    /// Counts `count` times in a bucket; buckets from [`BUCKETS`] on are the last one.
    pub fn add_to(&mut self, bucket: u8, count: u64) {
        if count == 0 {
            return;
        }
        let bucket = bucket.min(BUCKETS - 1);
        // As read from the store: ascending.
        if self.counts.last().is_none_or(|last| last.0 < bucket) {
            self.counts.push((bucket, count));
            return;
        }
        match self.counts.binary_search_by_key(&bucket, |entry| entry.0) {
            Ok(at) => {
                if let Some(entry) = self.counts.get_mut(at) {
                    entry.1 = entry.1.saturating_add(count);
                }
            }
            Err(at) => self.counts.insert(at, (bucket, count)),
        }
    }

    /// Adds all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        // Both ascend: one walk through both, as plots merge millions of entries.
        let mut at = 0;
        for (bucket, count) in &other.counts {
            while self.counts.get(at).is_some_and(|entry| entry.0 < *bucket) {
                at += 1;
            }
            match self.counts.get_mut(at) {
                Some(entry) if entry.0 == *bucket => entry.1 = entry.1.saturating_add(*count),
                _ => self.counts.insert(at, (*bucket, *count)),
            }
        }
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Number of times that were counted.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Counts by bucket, ascending, none of them zero.
    pub fn buckets(&self) -> &[(u8, u64)] {
        &self.counts
    }

    /// Seconds that `permille` thousandths of the times do not exceed, by the
    /// nearest rank; `None` while nothing was counted.
    pub fn quantile(&self, permille: u16) -> Option<f64> {
        let permille = u128::from(permille.min(1_000));
        let rank = (u128::from(self.count()) * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        self.counts
            .iter()
            .find(|(_, count)| {
                seen += u128::from(*count);
                seen >= rank
            })
            .map(|(bucket, _)| value(*bucket))
    }
}

/// The bucket of a time in seconds: bucket `i` ends at `SHORTEST * GAMMA^i`.
fn bucket(seconds: f64) -> u8 {
    if seconds <= SHORTEST {
        return 0;
    }
    let index = ((seconds / SHORTEST).ln() / GAMMA.ln()).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of a bucket"
    )]
    let bucket = index.clamp(0.0, f64::from(BUCKETS - 1)) as u8;
    bucket
}

/// The seconds that stand for a bucket: equally far from both borders, relatively.
fn value(bucket: u8) -> f64 {
    if bucket == 0 {
        return SHORTEST;
    }
    SHORTEST * GAMMA.powi(i32::from(bucket)) * 2.0 / (1.0 + GAMMA)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_reach_from_the_shortest_to_the_longest_time() {
        assert_eq!(bucket(LONGEST), BUCKETS - 1);
        assert!(SHORTEST * GAMMA.powi(i32::from(BUCKETS - 2)) < LONGEST);
        assert_eq!((bucket(0.0), bucket(1e9)), (0, BUCKETS - 1));
        assert_eq!(Sketch::default().quantile(500), None);
    }

    fn sketch(times: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        for time in times {
            sketch.add(Duration::from_secs_f64(*time));
        }
        sketch
    }

    /// Times spread evenly over the orders of magnitude.
    fn times() -> impl Strategy<Value = Vec<f64>> {
        let time = (SHORTEST.ln()..LONGEST.ln()).prop_map(f64::exp);
        prop::collection::vec(time, 1..200)
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_the_relative_error(times in times(), permille in 0_u16..=1_000) {
            let estimate = sketch(&times).quantile(permille).unwrap();
            let mut sorted = times.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = (sorted.len() * usize::from(permille)).div_ceil(1_000).max(1);
            let exact = sorted[rank - 1];
            // Durations are rounded to nanoseconds on the way in.
            let allowed = exact * RELATIVE_ERROR * 1.000_1;
            prop_assert!((estimate - exact).abs() <= allowed, "{estimate} for {exact}");
        }

        #[test]
        fn merging_is_as_if_one_had_seen_all(first in times(), second in times()) {
            let mut merged = sketch(&first);
            merged.merge(&sketch(&second));
            let all: Vec<f64> = first.iter().chain(&second).copied().collect();
            prop_assert_eq!(&merged, &sketch(&all));
            prop_assert_eq!(merged.count(), all.len() as u64);
        }
    }
}
