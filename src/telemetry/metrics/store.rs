//! Metrics of the store of tokens.

use std::time::Duration;

use metrics::gauge;

use super::names::{CLOCK_BEHIND, STORE_DEGRADED, STORE_HELD, STORE_LOST};
use crate::units::float;

/// Health of the store of tokens.
#[derive(Clone, Copy, Debug)]
pub struct StoreHealth {
    /// True while the store can't be written.
    pub degraded: bool,
    /// Revocations that are in effect and held in memory only.
    pub held: usize,
    /// The moment of a loss, in seconds since 1970; zero for none.
    pub lost_at: u64,
    /// Time by which the wall clock is behind the newest time.
    pub clock_behind: Duration,
}

/// Reports how the store stands.
pub fn store(health: &StoreHealth) {
    gauge!(STORE_DEGRADED).set(if health.degraded { 1.0 } else { 0.0 });
    gauge!(STORE_HELD).set(float(health.held as u64));
    gauge!(STORE_LOST).set(float(health.lost_at));
    gauge!(CLOCK_BEHIND).set(health.clock_behind.as_secs_f64());
}
