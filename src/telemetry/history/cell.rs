//! One value of one series, over one interval or several.

use super::series::{Gauge, Scope, Series};
use super::sketch::Sketch;

/// Contents of a series in an interval. Merges without loss of counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A count, and the number of intervals; the latter tells a quiet interval
    /// from one in which nothing was recorded.
    Count {
        /// The count.
        sum: u64,
        /// Number of intervals of a flush.
        intervals: u32,
    },
    /// Samples of a gauge, in multiples of its [`Gauge::resolution`].
    Gauge {
        /// Sum of the samples.
        sum: i64,
        /// Number of samples.
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

/// Contents of one series in one flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The scope.
    pub scope: Scope,
    /// The series.
    pub series: Series,
    /// The contents.
    pub cell: Cell,
}
