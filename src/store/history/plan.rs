//! Choice of the resolution that answers a question, and of the one value per step.

use crate::telemetry::history::{Cell, Count, Metric, Series, Sketch};
use crate::units::float;

/// Seconds between two fine cells: the interval of a flush.
pub(super) const FINE: u64 = 10;
/// Seconds between two coarse cells.
pub(super) const COARSE: u64 = 300;
/// Seconds of a fine block.
pub(super) const HOUR: u64 = 3_600;
/// Seconds of a coarse block.
pub(super) const DAY: u64 = 86_400;
/// Seconds for which fine cells answer.
const FINE_ANSWERS: u64 = 2 * DAY + 600;
/// Seconds for which coarse cells are kept.
pub(super) const COARSE_KEPT: u64 = 90 * DAY;

/// Most points of one answer.
pub const POINTS_MAX: u64 = 2_000;

/// A resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    Fine,
    Coarse,
}

impl Tier {
    /// Seconds of one cell.
    pub(super) fn cell_seconds(self) -> u64 {
        match self {
            Self::Fine => FINE,
            Self::Coarse => COARSE,
        }
    }

    /// Seconds of one block.
    pub(super) fn block_seconds(self) -> u64 {
        match self {
            Self::Fine => HOUR,
            Self::Coarse => DAY,
        }
    }

    /// Cells of one block.
    pub(super) fn slots(self) -> u16 {
        match self {
            Self::Fine => 360,
            Self::Coarse => 288,
        }
    }
}

/// Plan of an answer: `steps` values, `step` seconds each, from `from` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) tier: Tier,
    pub(super) step: u64,
    pub(super) from: u64,
    pub(super) steps: u64,
}

impl Plan {
    /// Plans the answer for `since..until`; `None` when nothing can lie there.
    /// `newest` is when the last cell began.
    pub(super) fn new(since: u64, until: u64, step: u64, newest: u64) -> Option<Self> {
        let until = until.min(newest.saturating_add(FINE));
        let since = since.max(newest.saturating_sub(COARSE_KEPT + DAY));
        if since >= until {
            return None;
        }
        // One step more than the span has, as the first begins before it.
        let wanted = step.max((until - since).div_ceil(POINTS_MAX - 1));
        let is_old = since < newest.saturating_sub(FINE_ANSWERS);
        let tier = if is_old || wanted >= COARSE {
            Tier::Coarse
        } else {
            Tier::Fine
        };
        // A step longer than the span is as good as the span.
        let cells = wanted
            .min(COARSE_KEPT + 2 * DAY)
            .div_ceil(tier.cell_seconds());
        let step = cells.max(1) * tier.cell_seconds();
        let from = since / step * step;
        Some(Self {
            tier,
            step,
            from,
            steps: (until - from).div_ceil(step),
        })
    }

    /// End of the last step.
    pub(super) fn end(&self) -> u64 {
        self.from + self.step * self.steps
    }

    /// Starts of the blocks that the steps touch.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> + use<> {
        let block = self.tier.block_seconds();
        (self.from / block..self.end().div_ceil(block)).map(move |number| number * block)
    }

    /// The step in which a moment lies.
    fn step_of(&self, at: u64) -> Option<usize> {
        let step = at.checked_sub(self.from)? / self.step;
        usize::try_from(step).ok().filter(|_| step < self.steps)
    }
}

/// Cells of one series, merged over time into the steps of a plan.
#[derive(Debug)]
pub(super) struct Steps {
    plan: Plan,
    cells: Vec<Option<Cell>>,
}

impl Steps {
    pub(super) fn new(plan: Plan) -> Self {
        let steps = usize::try_from(plan.steps).unwrap_or_default();
        Self {
            plan,
            cells: vec![None; steps],
        }
    }

    /// Adds what was recorded at a moment; outside of the plan it is left out.
    pub(super) fn add(&mut self, at: u64, cell: &Cell) {
        let step = self.plan.step_of(at);
        match step.and_then(|step| self.cells.get_mut(step)) {
            Some(Some(merged)) => merged.merge(cell),
            Some(empty) => *empty = Some(cell.clone()),
            None => {}
        }
    }
}

/// Steps of several series, merged into one value each.
#[derive(Debug)]
pub(super) struct Answer {
    metric: Metric,
    plan: Plan,
    totals: Vec<Total>,
}

#[derive(Clone, Debug, Default)]
struct Total {
    count: u64,
    /// Intervals in which traffic was recorded: of any of the series, the most.
    intervals: u32,
    gauge: Option<f64>,
    sketch: Sketch,
}

impl Answer {
    pub(super) fn new(metric: Metric, plan: Plan) -> Self {
        let steps = usize::try_from(plan.steps).unwrap_or_default();
        Self {
            metric,
            plan,
            totals: vec![Total::default(); steps],
        }
    }

    /// True if the answer needs this series: the one of the metric, and for starts and
    /// errors, which have no cell where there were none, the one of requests.
    pub(super) fn reads(&self, series: Series) -> bool {
        self.metric.reads(series) || (self.is_sparse() && series == Series::Count(Count::Requests))
    }

    /// Adds the steps of one series.
    pub(super) fn add(&mut self, series: Series, steps: &Steps) {
        let counts = self.metric.reads(series);
        for (total, cell) in self.totals.iter_mut().zip(&steps.cells) {
            match cell {
                Some(Cell::Count { sum, intervals }) => {
                    if counts {
                        total.count = total.count.saturating_add(*sum);
                    }
                    total.intervals = total.intervals.max(*intervals);
                }
                Some(Cell::Gauge { sum, samples }) if *samples > 0 => {
                    let mean = float(sum.unsigned_abs()) / f64::from(*samples);
                    let mean = if *sum < 0 { -mean } else { mean };
                    total.gauge = Some(total.gauge.unwrap_or_default() + mean);
                }
                Some(Cell::Times(sketch)) => total.sketch.merge(sketch),
                Some(Cell::Gauge { .. }) | None => {}
            }
        }
    }

    /// The points: when each step begins, in seconds since 1970, and its value.
    /// Steps in which nothing was recorded have none.
    pub(super) fn points(self) -> Vec<(u64, f64)> {
        let metric = self.metric;
        let starts = (0..).map(|step| self.plan.from + step * self.plan.step);
        starts
            .zip(&self.totals)
            .filter_map(|(start, total)| Some((start, value(metric, total, self.plan.step)?)))
            .collect()
    }

    fn is_sparse(&self) -> bool {
        matches!(
            self.metric,
            Metric::Errors | Metric::Count(Count::ColdStarts | Count::Ended(_))
        )
    }
}

fn value(metric: Metric, total: &Total, step: u64) -> Option<f64> {
    match metric {
        Metric::Count(Count::Requests | Count::PromptTokens | Count::CompletionTokens) => {
            // A restart within an interval is recorded twice, and is no longer for that.
            let seconds = (u64::from(total.intervals) * FINE).min(step);
            (seconds > 0).then(|| float(total.count) / float(seconds))
        }
        Metric::Count(_) | Metric::Errors => (total.intervals > 0).then(|| float(total.count)),
        Metric::Gauge(gauge) => total.gauge.map(|mean| mean * gauge.resolution()),
        Metric::Quantile(_, quantile) => total.sketch.quantile(quantile.permille()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::history::Gauge;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn the_resolution_fits_the_span_and_the_step() {
        for (since, step, tier, expected) in [
            (HOUR, 0, Tier::Fine, 10),
            (HOUR, 15, Tier::Fine, 20),
            (2 * DAY, 10, Tier::Fine, 90),
            (2 * DAY, 300, Tier::Coarse, 300),
            (2 * DAY, 400, Tier::Coarse, 600),
            (3 * DAY, 10, Tier::Coarse, 300),
            (90 * DAY, 10, Tier::Coarse, 3_900),
        ] {
            let plan = Plan::new(NOW - since, NOW, step, NOW).unwrap();
            assert_eq!(
                (plan.tier, plan.step),
                (tier, expected),
                "{since} by {step}"
            );
        }
        // Fine cells of an hour that long ago are gone.
        let old = Plan::new(NOW - 4 * DAY, NOW - 4 * DAY + HOUR, 10, NOW).unwrap();
        assert_eq!((old.tier, old.steps), (Tier::Coarse, 12));
    }

    proptest! {
        #[test]
        fn a_plan_is_bounded_and_covers_what_was_asked(
            since in prop_oneof![0_u64..2 * NOW, any::<u64>(), Just(0)],
            until in prop_oneof![0_u64..2 * NOW, any::<u64>(), Just(u64::MAX)],
            step in prop_oneof![0_u64..10_000, any::<u64>()],
            newest in prop_oneof![Just(NOW), 0_u64..2 * NOW],
        ) {
            let Some(plan) = Plan::new(since, until, step, newest) else {
                return Ok(());
            };
            prop_assert!((1..=POINTS_MAX).contains(&plan.steps), "{plan:?}");
            prop_assert_eq!(plan.step % plan.tier.cell_seconds(), 0);
            prop_assert!(plan.from <= since.max(newest.saturating_sub(COARSE_KEPT + DAY)));
            prop_assert!(plan.end() >= until.min(newest));
            prop_assert!(plan.blocks().count() <= 280);
        }
    }

    #[test]
    fn a_rate_counts_only_time_that_was_recorded() {
        let plan = Plan::new(NOW, NOW + 600, 60, NOW + 600).unwrap();
        let metric = Metric::Count(Count::Requests);
        let mut steps = Steps::new(plan);
        // 20 seconds of a minute, with 40 requests: two per second.
        steps.add(NOW, &Cell::count(30));
        steps.add(NOW + 10, &Cell::count(10));
        let mut answer = Answer::new(metric, plan);
        answer.add(Series::Count(Count::Requests), &steps);
        assert_eq!(answer.points(), [(NOW, 2.0)]);
    }

    #[test]
    fn an_interval_that_was_flushed_twice_is_no_longer_for_that() {
        let plan = Plan::new(NOW, NOW + 10, 10, NOW + 600).unwrap();
        let mut steps = Steps::new(plan);
        steps.add(NOW, &Cell::count(30));
        steps.add(NOW, &Cell::count(0));
        let mut answer = Answer::new(Metric::Count(Count::Requests), plan);
        answer.add(Series::Count(Count::Requests), &steps);
        assert_eq!(answer.points(), [(NOW, 3.0)]);
    }

    #[test]
    fn gauges_are_means_over_time_and_sums_over_series() {
        let plan = Plan::new(NOW, NOW + 20, 20, NOW + 600).unwrap();
        let mut answer = Answer::new(Metric::Gauge(Gauge::Cpu), plan);
        for cores in [[1.0, 2.0], [4.0, 6.0]] {
            let mut steps = Steps::new(plan);
            for (at, cores) in [NOW, NOW + 10].into_iter().zip(cores) {
                steps.add(at, &Cell::gauge(Gauge::Cpu, cores));
            }
            answer.add(Series::Gauge(Gauge::Cpu), &steps);
        }
        assert_eq!(answer.points(), [(NOW, 6.5)]);
    }
}
