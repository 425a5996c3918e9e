//! Counts of durations in logarithmic buckets, for percentiles without keeping samples.
//!
//! Owns the bucket layout: exact below 256 ns, above it 128 buckets for each doubling, so
//! a percentile is at most 1/128 too high and never too low. Does not merge, decay or
//! correct: a load that must not omit anything records latencies from intended starts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets of one doubling; a power of two.
const STEPS_LOG2: u32 = 7;
const STEPS: u64 = 1 << STEPS_LOG2;
/// Enough for every `u64`.
const BUCKETS: usize = (64 - STEPS_LOG2 as usize + 1) << STEPS_LOG2;

/// Durations counted in nanoseconds.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

/// What one histogram says, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    /// How many durations were recorded.
    pub(crate) count: u64,
    /// Their mean.
    pub(crate) mean_us: f64,
    /// The median.
    pub(crate) p50_us: f64,
    /// 90 of 100 are at most this.
    pub(crate) p90_us: f64,
    /// 99 of 100 are at most this.
    pub(crate) p99_us: f64,
    /// 999 of 1,000 are at most this.
    pub(crate) p999_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

impl Histogram {
    /// Nothing recorded yet.
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
            sum: 0,
            max: 0,
        }
    }

    /// Counts one duration; those above 584 years count as that.
    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    /// The smallest bucket bound in nanoseconds that `share` (0 to 1) of the durations
    /// do not exceed; 0 when nothing was recorded.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let mut left = rank(self.count, share);
        for (index, &count) in self.buckets.iter().enumerate() {
            if count >= left && left > 0 {
                return upper_bound(index).min(self.max);
            }
            left -= count.min(left);
        }
        self.max
    }

    /// The percentiles that reports show.
    pub(crate) fn quantiles(&self) -> Quantiles {
        let mean = if self.count == 0 {
            0.0
        } else {
            to_f64(u64::try_from(self.sum / u128::from(self.count)).unwrap_or(u64::MAX))
        };
        let micros = |share| to_f64(self.quantile(share)) / 1e3;
        Quantiles {
            count: self.count,
            mean_us: mean / 1e3,
            p50_us: micros(0.5),
            p90_us: micros(0.9),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: to_f64(self.max) / 1e3,
        }
    }
}

/// A count or nanoseconds as a float; exact up to 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people need no more than 15 digits"
)]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}

/// The place, counted from 1, of the sample that `share` of `count` samples do not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count lies between 0 and the count"
)]
fn rank(count: u64, share: f64) -> u64 {
    ((to_f64(count) * share.clamp(0.0, 1.0)).ceil() as u64).clamp(count.min(1), count)
}

/// Values below two doublings of steps have a bucket each; above, the leading bit tells
/// the doubling and the next seven the step.
fn bucket_of(nanos: u64) -> usize {
    let bits = 64 - nanos.leading_zeros();
    let shift = bits.saturating_sub(STEPS_LOG2 + 1);
    let index = u64::from(shift) * STEPS + (nanos >> shift);
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

/// The largest value of a bucket; the inverse of [`bucket_of`].
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let step = index % STEPS + STEPS;
    ((u128::from(step) + 1) << shift)
        .saturating_sub(1)
        .try_into()
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_that_ends_at_most_a_128th_above_it() {
        let mut value = 0u64;
        while value < u64::MAX / 8 {
            for near in [value.saturating_sub(1), value, value + 1] {
                let bound = upper_bound(bucket_of(near));
                assert!(bound >= near, "{near} above its bucket's bound {bound}");
                assert!(bound - near <= near / 128, "{near} far below {bound}");
            }
            value = value * 5 / 4 + 1;
        }
        assert!(bucket_of(u64::MAX) < BUCKETS);
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for index in 0..BUCKETS - 1 {
            let bound = upper_bound(index);
            if bound == u64::MAX {
                break;
            }
            assert_eq!(bucket_of(bound), index);
            assert_eq!(bucket_of(bound + 1), index + 1);
        }
    }

    #[test]
    fn quantiles_of_one_to_a_thousand_are_their_ranks() {
        let mut histogram = Histogram::new();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, exact) in [
            (0.5, 500_000),
            (0.9, 900_000),
            (0.99, 990_000),
            (1.0, 1_000_000),
        ] {
            let got = histogram.quantile(share);
            assert!(got >= exact && got <= exact + exact / 128, "{share}: {got}");
        }
        let said = histogram.quantiles();
        assert_eq!(said.count, 1000);
        assert!((said.mean_us - 500.5).abs() < 1e-9);
        assert!((said.max_us - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::new().quantiles(), Quantiles::default());
    }

    #[test]
    fn one_sample_is_every_quantile() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::from_nanos(77_777));
        for share in [0.0, 0.5, 1.0] {
            assert_eq!(histogram.quantile(share), 77_777);
        }
    }
}
