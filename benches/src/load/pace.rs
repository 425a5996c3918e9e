//! The clock of an open loop.
//!
//! Owns when requests fall due, to some 50 µs: tokio's timers round up to a millisecond,
//! which would count as latency, so a thread sleeps by the kernel's timer instead. Does
//! not know whether anyone is free to send; a request that waits for a free connection is
//! late, and its latency says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::BenchError;

/// The shortest sleep; several requests may fall due in it.
const SLEEP_MIN: Duration = Duration::from_micros(50);

/// A fixed rate.
pub(super) struct Pace {
    interval: Duration,
    /// A permit for each request that is due and not begun.
    due: Arc<Semaphore>,
}

impl Pace {
    /// `rate` requests a second.
    pub(super) fn new(rate: f64) -> Result<Self, BenchError> {
        if !(0.01..=1e6).contains(&rate) {
            return Err(BenchError::said("--rate must lie between 0.01 and 1000000"));
        }
        Ok(Self {
            interval: Duration::from_secs_f64(1.0 / rate),
            due: Arc::new(Semaphore::new(0)),
        })
    }

    /// Time at which the request of this number is due, from the start.
    pub(super) fn offset(&self, number: u64) -> Duration {
        let nanos = self.interval.as_nanos() * u128::from(number);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Waits until one more request is due.
    pub(super) async fn wait(&self) {
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
    }

    /// Starts the thread that lets requests go as they fall due, until `duration` is over.
    pub(super) fn release(&self, start: Instant, duration: Duration) {
        let (due, interval) = (self.due.clone(), self.interval);
        drop(tokio::task::spawn_blocking(move || {
            let mut released = 0u64;
            while start.elapsed() < duration {
                let fallen_due = start.elapsed().as_nanos() / interval.as_nanos().max(1) + 1;
                let fallen_due = u64::try_from(fallen_due).unwrap_or(u64::MAX);
                let more = usize::try_from(fallen_due.saturating_sub(released)).unwrap_or(0);
                due.add_permits(more);
                released = fallen_due;
                std::thread::sleep(interval.clamp(SLEEP_MIN, Duration::from_millis(100)));
            }
            // Requests that fell due in the last sleep; nobody waits for those left over.
            due.add_permits(usize::from(u16::MAX));
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fall_due_at_even_intervals_and_odd_rates_are_refused() {
        let pace = Pace::new(2000.0).unwrap();
        assert_eq!(pace.offset(0), Duration::ZERO);
        assert_eq!(pace.offset(3), Duration::from_micros(1500));
        assert_eq!(pace.offset(2000), Duration::from_secs(1));
        for rate in [0.0, -1.0, f64::NAN, 1e7] {
            assert!(Pace::new(rate).is_err(), "{rate}");
        }
    }
}
