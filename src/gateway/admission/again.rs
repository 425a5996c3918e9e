//! On with a request whose worker could not be reached, or ended with it.
//!
//! Between the death of a worker and the moment that it is noticed its gate is open,
//! and no process is behind it, or none that answers, as where vLLM's API server was killed
//! alone and its engine processes hold the socket. The request waits on: for the worker
//! that replaces it, as for any that a demand starts, or for the same one, where it was
//! only a moment. A worker that ended with a request inside may have ended because of it,
//! so a request is let at one further worker then, and no more.

use std::sync::Arc;
use std::time::Duration;

use super::admit::Admission;
use super::cold::wait_for_gate;
use super::place::Inside;
use crate::gateway::record::{Record, RequestPhase};
use crate::gateway::refusal::Refusal;
use crate::gateway::route::table::{Backend, Destination};
use crate::gateway::upstream::balance::Pick;
use crate::time::{Instant, timeout};

/// Pause before a worker that is still said to be there is tried again; each further
/// one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest of these pauses.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Longest that the end of a worker may stay unnoticed after it broke off.
const NOTICE_MAX: Duration = Duration::from_secs(2);

/// State of a request that waits on for its worker.
#[derive(Debug, Default)]
pub struct Again {
    /// End of its wait, and the last pause.
    waits: Option<(Instant, Duration)>,
    /// True once a worker has ended with the request inside.
    is_cut: bool,
}

impl Admission {
    /// True if a worker of ours was to take the request and did not, so that another
    /// will. After an answer that broke off, this first waits for the worker's end.
    pub async fn is_replaced(&self, refusal: &Refusal, again: &mut Again) -> bool {
        let Backend::Deployment { handle, .. } = &self.place.target.backend else {
            return false;
        };
        match refusal {
            Refusal::Unreached(_) => true,
            Refusal::UpstreamBroke if !again.is_cut => {
                let ended = self.place.server.ended(handle);
                again.is_cut = timeout(NOTICE_MAX, ended).await.is_ok();
                again.is_cut
            }
            _ => false,
        }
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
        // Out of the gates first: a worker is replaced only once no request is inside.
        self.place.inside = None;
        record.phase = RequestPhase::ColdStart;
        let _queued = target.metrics.waiting();
        let workspace = record.principal.as_deref().map(|by| &by.workspace);
        let _waiting = handle.wait(workspace);
        let news = handle.news();
        let left = until.saturating_duration_since(began);
        let (refusals, stands) = {
            let snapshot = handle.snapshot();
            let stands = Some(snapshot.generation) == self.place.server.generation();
            (snapshot.refusals, stands)
        };
        if stands && handle.gate.is_open() {
            // Whether it changed or not, it is tried.
            drop(timeout(pause.min(left), news).await);
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
