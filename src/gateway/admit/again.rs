//! On with a request whose worker could not be reached.
//!
//! Between the death of a worker and the moment that it is noticed its gate is open,
//! and nobody is behind it. Nothing was sent, so the request waits on: for the worker
//! that replaces it, as for any that a demand starts, or for the same one, where it was
//! only a moment.

use std::sync::Arc;
use std::time::Duration;

use super::super::balance::Pick;
use super::super::error::Refusal;
use super::super::record::{Phase, Record};
use super::super::router::{Backend, Destination};
use super::{Admission, Inside, wait_for_gate};
use crate::time::{Instant, timeout};

/// Pause before a worker that is still said to be there is tried again; each further
/// one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest of these pauses.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a request has waited on for its worker.
#[derive(Debug, Default)]
pub struct Again {
    /// Until when it waits, and the last pause.
    waits: Option<(Instant, Duration)>,
}

impl Admission {
    /// Whether a worker of ours was to take the request, so that another will.
    pub fn is_replaced(&self) -> bool {
        matches!(self.place.target.backend, Backend::Deployment { .. })
    }

    /// Leaves the worker that could not be reached, and enters the one that serves next.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when none comes in time, or it is no worker of ours.
    pub async fn again(
        &mut self,
        again: &mut Again,
        pick: Pick<'_>,
        destination: &Destination,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        let target = Arc::clone(&self.place.target);
        let Backend::Deployment { handle, fleet, .. } = &target.backend else {
            return Err(Refusal::Unreachable);
        };
        let whom = (handle, fleet.as_ref(), pick);
        let began = Instant::now();
        let patience = destination.route.timeouts.cold_start;
        let first = || (began + record.wait_max(patience), PAUSE_MIN);
        let longer = |(until, pause): (Instant, Duration)| (until, (pause * 2).min(PAUSE_MAX));
        let (until, pause) = again.waits.map_or_else(first, longer);
        again.waits = Some((until, pause));
        // Out of the gates first: who replaces a worker waits for those inside.
        self.place.inside = None;
        record.phase = Phase::ColdStart;
        let _queued = target.metrics.waiting();
        let workspace = record.principal.as_deref().map(|by| &by.workspace);
        let _waiting = handle.wait(workspace);
        let mut snapshots = handle.watch();
        let left = until.saturating_duration_since(began);
        let (refusals, stands) = {
            let snapshot = snapshots.borrow_and_update();
            let stands = Some(snapshot.generation) == self.place.server.generation();
            (snapshot.refusals, stands)
        };
        if stands && handle.gate.is_open() {
            // Whether it changed or not, it is tried.
            drop(timeout(pause.min(left), snapshots.changed()).await);
        }
        let left = until.saturating_duration_since(Instant::now());
        let entered = if left.is_zero() {
            let ready_in = handle.snapshot().ready_in;
            Err(Refusal::Loading { ready_in })
        } else {
            wait_for_gate(whom, refusals, left).await
        };
        let waited = record.waits.cold_start.unwrap_or_default();
        record.waits.cold_start = Some(waited + began.elapsed());
        let (server, inside): (_, Inside) = entered?;
        (self.place.server, self.place.inside) = (server, Some(inside));
        Ok(())
    }
}
