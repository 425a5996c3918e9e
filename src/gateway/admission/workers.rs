//! A place at one of the workers of a deployment, where each takes only so many
//! requests.
//!
//! The places of all workers are given out together, in the deployment's queue: a request
//! with a place finds a worker that is not full. Their number follows the workers, and
//! requests that wait are told when one comes.

use std::pin::pin;
use std::sync::Arc;

use super::queue;
use crate::deployment::{Handle, Snapshot};
use crate::gateway::limits::slots::{QueuePatience, Slot, Slots, Turn};
use crate::gateway::record::Record;
use crate::gateway::refusal::Refusal;
use crate::gateway::route::table::Destination;
use crate::gateway::upstream::server::Fleet;

/// Takes a slot, waiting for it as `patience` says.
///
/// # Errors
///
/// A [`Refusal`] when there was none.
pub(super) async fn slot_at(
    (handle, fleet, slots): (&Arc<Handle>, &Fleet, &Arc<Slots>),
    patience: QueuePatience,
    turn: Turn<'_>,
    record: &mut Record,
    destination: &Destination,
) -> Result<Slot, Refusal> {
    let mut news = handle.news();
    let fit = |snapshot: &Snapshot| {
        slots.set_limit(fleet.places(handle.spec().max_concurrent_requests, snapshot));
    };
    fit(&handle.snapshot());
    if let Some(slot) = slots.take_free() {
        return Ok(slot);
    }
    let _queued = handle.queue();
    let mut taking = pin!(queue::slot(slots, patience, turn, record, destination));
    loop {
        let taken = {
            let news = pin!(news);
            tokio::select! {
                biased;
                taken = &mut taking => Some(taken),
                () = news => None,
            }
        };
        if let Some(taken) = taken {
            return taken;
        }
        // Before it looks, so that none is missed.
        news = handle.news();
        fit(&handle.snapshot());
    }
}
