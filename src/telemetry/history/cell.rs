//! One value of one series, over one interval or several.

use super::series::{Gauge, Scope, Series};
use super::sketch::Sketch;

/// What a series holds of an interval. Merges without loss of counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// How many, and in how many intervals; the latter tells a quiet interval
    /// from one in which nothing was recorded.
    Count {
        /// How many.
        sum: u64,
        /// In how many intervals of a flush.
        intervals: u32,
    },
    /// Samples of a gauge, in multiples of its [`Gauge::resolution`].
    Gauge {
        /// Sum of the samples.
        sum: i64,
        /// How many samples.
        samples: u32,
    },
    /// A distribution.
    Times(Sketch),
}

impl Cell {
    /// A count of one interval.
    pub fn count(sum: u64) -> Self {
        Self::Count { sum, intervals: 1 }
    }

    /// One sample of a gauge; what is not a number counts as zero.
    pub fn gauge(gauge: Gauge, value: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the cast saturates, and makes zero of what is not a number"
        )]
        let sum = (value / gauge.resolution()).round() as i64;
        Self::Gauge { sum, samples: 1 }
    }

    /// Adds what another cell of the same series holds. A cell of another kind
    /// is of another series, and is left out.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (
                Self::Count { sum, intervals },
                Self::Count {
                    sum: more,
                    intervals: in_more,
                },
            ) => {
                *sum = sum.saturating_add(*more);
                *intervals = intervals.saturating_add(*in_more);
            }
            (
                Self::Gauge { sum, samples },
                Self::Gauge {
                    sum: more,
                    samples: in_more,
                },
            ) => {
                *sum = sum.saturating_add(*more);
                *samples = samples.saturating_add(*in_more);
            }
            (Self::Times(sketch), Self::Times(more)) => sketch.merge(more),
            _ => {}
        }
    }
}

/// What one flush has of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Whose.
    pub scope: Scope,
    /// What.
    pub series: Series,
    /// How much.
    pub cell: Cell,
}
