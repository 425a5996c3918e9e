//! Percentiles of durations without keeping samples.
//!
//! Owns the range and the precision that are asked of the library's histogram, and which
//! percentiles reports show. Does not correct: a load that must not omit anything
//! records latencies from intended starts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest duration that is told from longer ones, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;
/// Digits of a percentile that are exact: it is at most a thousandth too high.
const DIGITS: u8 = 3;

/// Durations counted in nanoseconds.
pub(crate) struct Histogram(hdrhistogram::Histogram<u64>);

/// Quantiles of one histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    /// Number of durations that were recorded.
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
    /// Histogram of nothing yet.
    #[expect(clippy::expect_used, reason = "bounds and digits are constants")]
    pub(crate) fn new() -> Self {
        let counts = hdrhistogram::Histogram::new_with_bounds(1, LONGEST, DIGITS);
        Self(counts.expect("bounds and digits that the library has"))
    }

    /// Counts one duration; one above an hour counts as an hour.
    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos);
    }

    /// The percentiles that reports show; zeros when nothing was recorded.
    pub(crate) fn quantiles(&self) -> Quantiles {
        let micros = |share| to_f64(self.0.value_at_quantile(share)) / 1e3;
        Quantiles {
            count: self.0.len(),
            mean_us: self.0.mean() / 1e3,
            p50_us: micros(0.5),
            p90_us: micros(0.9),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: micros(1.0),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_one_to_a_thousand_are_their_ranks() {
        let mut histogram = Histogram::new();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let said = histogram.quantiles();
        assert_eq!(said.count, 1000);
        for (got, exact) in [
            (said.mean_us, 500.5),
            (said.p50_us, 500.0),
            (said.p90_us, 900.0),
            (said.p99_us, 990.0),
            (said.p999_us, 999.0),
            (said.max_us, 1000.0),
        ] {
            assert!((got / exact - 1.0).abs() < 1e-3, "{got} for {exact}");
        }
    }

    #[test]
    fn an_empty_histogram_says_zero_and_one_of_ages_an_hour() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantiles(), Quantiles::default());
        histogram.record(Duration::MAX);
        let longest = histogram.quantiles().max_us / 3.6e9;
        assert!((longest - 1.0).abs() < 1e-3, "{longest} hours");
    }
}
