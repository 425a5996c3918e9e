//! Latencies of the endpoints table, of the last hour, remembered for half a minute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::history::History;
use crate::telemetry::history::{Metric, Quantile, Scope, Times};
use crate::time::unix_seconds;

/// Seconds for which a latency of the last hour is shown again.
const LATENCY_KEPT: u64 = 30;
/// Most scopes that are remembered; beyond, all are asked for again.
const SCOPES_MAX: usize = 10_000;

/// The 95th percentiles of the last hour, each asked of the history now and then:
/// many dashboards may look at many endpoints every few seconds.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    /// Time and result of the last reading; locked for a look-up, never over the disk.
    known: Mutex<HashMap<Scope, (u64, Option<f64>)>>,
}

impl Latencies {
    /// The percentile of a scope. May block on the disk.
    pub(super) fn p95(&self, history: &History, scope: &Scope) -> Option<f64> {
        let now = unix_seconds();
        let known = self.lock().get(scope).copied();
        if let Some((at, value)) = known
            && now.saturating_sub(at) < LATENCY_KEPT
        {
            return value;
        }
        let metric = Metric::Quantile(Times::Latency, Quantile::P95);
        let since = now.saturating_sub(3_600);
        // Two steps at most, as they begin at multiples of their length.
        let asked = history.query(scope, metric, since, now, 3_600);
        let value = asked
            .ok()
            .and_then(|points| points.last().map(|(_, value)| *value));
        let mut known = self.lock();
        if known.len() >= SCOPES_MAX {
            known.clear();
        }
        known.insert(scope.clone(), (now, value));
        value
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, (u64, Option<f64>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
