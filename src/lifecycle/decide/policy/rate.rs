//! Rate at which a deployment is asked for: popularity, cut down as silence grows.
//!
//! The geometric mean of two estimates: a count that decays over twenty minutes,
//! which knows how popular it is, and the time between arrivals or since the
//! last one, which knows whether a burst is over. It goes on over a restart, the
//! time that passed meanwhile being silence.

use super::Seconds;
use crate::store::timings::Popularity;
use crate::time::Uptime;

/// Seconds over which the count decays. The study's ten minutes forget what is asked
/// seldom: with twenty, loads of steady popularity wait 4 to 8 % less, others the same.
const MEMORY: Seconds = 1_200.0;
/// The time between arrivals before there were two.
const GAP_FIRST: Seconds = 600.0;
/// Shortest time that the count is taken to stand for.
const SPAN_MIN: Seconds = 30.0;
/// Weight of the newest gap.
const GAP_WEIGHT: f64 = 0.3;
/// Shortest gap that counts.
const GAP_MIN: Seconds = 0.1;
/// Arrivals of one report that are taken one by one.
const ONE_BY_ONE_MAX: u32 = 64;

/// The estimate. See the module docs.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    born: Seconds,
    count: f64,
    counted: Seconds,
    gap: Seconds,
    last: Option<Seconds>,
}

impl Rate {
    /// Of a deployment that is known from now on.
    pub fn new(now: Uptime) -> Self {
        let born = now.as_secs_f64();
        Self {
            born,
            count: 0.0,
            counted: born,
            gap: GAP_FIRST,
            last: None,
        }
    }

    /// The estimate of an earlier process, after so many seconds in which nobody
    /// counted.
    pub fn recalled(kept: &Popularity, away: Seconds, now: Uptime) -> Self {
        let then = now.as_secs_f64() - away;
        Self {
            born: then - kept.watched,
            count: kept.count,
            counted: then,
            gap: kept.gap,
            last: Some(then - kept.silent),
        }
    }

    /// The estimate, to be kept with what a request takes; `None` where none came.
    pub fn kept(&self, service: Seconds, at: u64, now: Uptime) -> Option<Popularity> {
        let now = now.as_secs_f64();
        Some(Popularity {
            watched: now - self.born,
            count: self.decayed(now),
            gap: self.gap,
            silent: (now - self.last?).max(0.0),
            service,
            at,
        })
    }

    /// A request came.
    pub fn arrived(&mut self, now: Uptime) {
        self.arrived_at(now.as_secs_f64(), 1.0);
    }

    /// So many came between these times, evenly as far as is known.
    pub fn arrived_many(&mut self, n: u32, since: Uptime, now: Uptime) {
        let steps = n.min(ONE_BY_ONE_MAX);
        let weight = f64::from(n) / f64::from(steps.max(1));
        let (since, now) = (since.as_secs_f64(), now.as_secs_f64());
        for step in 1..=steps {
            let part = f64::from(step) / f64::from(steps);
            self.arrived_at(since + (now - since) * part, weight);
        }
    }

    fn arrived_at(&mut self, now: Seconds, weight: f64) {
        self.count = self.decayed(now) + weight;
        self.counted = now;
        if let Some(last) = self.last {
            let gap = (now - last).max(0.0) / weight;
            self.gap = (1.0 - GAP_WEIGHT) * self.gap + GAP_WEIGHT * gap;
        }
        self.last = Some(now);
    }

    fn decayed(&self, now: Seconds) -> f64 {
        self.count * (-(now - self.counted).max(0.0) / MEMORY).exp()
    }

    /// Requests per second, as far as is known.
    pub fn per_second(&self, now: Uptime) -> f64 {
        let now = now.as_secs_f64();
        let Some(last) = self.last else {
            return 0.0;
        };
        let popular = self.decayed(now) / (now - self.born).clamp(SPAN_MIN, MEMORY);
        let silent = self.gap.max(now - last).max(GAP_MIN);
        (popular / silent).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_steady_rate_is_found_and_silence_cuts_it_down() {
        let mut rate = Rate::new(Duration::ZERO);
        assert!(rate.per_second(Duration::from_secs(5)).abs() < 1e-12);
        for n in 1..=1_000 {
            rate.arrived(Duration::from_secs(2 * n));
        }
        let at = |seconds| rate.per_second(Duration::from_secs(seconds));
        assert!((at(2_000) - 0.5).abs() < 0.05, "{}", at(2_000));
        assert!(at(2_060) < at(2_000) / 3.0, "{}", at(2_060));
    }

    #[test]
    fn an_estimate_goes_on_after_a_restart_as_if_there_had_been_none() {
        let mut whole = Rate::new(Duration::ZERO);
        assert_eq!(whole.kept(3.0, 0, Duration::from_secs(9)), None);
        for n in 1..=100 {
            whole.arrived(Duration::from_secs(7 * n));
        }
        let stopped = Duration::from_secs(710);
        let kept = whole.kept(3.0, 0, stopped).unwrap();
        // Down for 90 s; the new process has its own clock, and runs for 5 s.
        let (down, up) = (Duration::from_secs(90), Duration::from_secs(5));
        let mut again = Rate::recalled(&kept, down.as_secs_f64(), up);
        let began = stopped + down.checked_sub(up).unwrap();
        for seconds in [5, 20, 400] {
            let now = Duration::from_secs(seconds);
            let (a, b) = (whole.per_second(began + now), again.per_second(now));
            assert!((a - b).abs() < 1e-9 * a, "{a} {b}");
            whole.arrived(began + now);
            again.arrived(now);
        }
    }

    #[test]
    fn arrivals_reported_together_count_like_those_reported_one_by_one() {
        let (mut one, mut many) = (Rate::new(Duration::ZERO), Rate::new(Duration::ZERO));
        for second in 0..100_u64 {
            for part in 1..=4 {
                one.arrived(Duration::from_millis(second * 1_000 + part * 250));
            }
            let since = Duration::from_secs(second);
            many.arrived_many(4, since, since + Duration::from_secs(1));
        }
        let now = Duration::from_secs(100);
        let (a, b) = (one.per_second(now), many.per_second(now));
        assert!((a - b).abs() < 0.01 * a, "{a} {b}");
    }
}
