//! A place at one of the workers of a deployment, where each takes only so many
//! requests.
//!
//! The places of all workers are given out together, in the deployment's queue: whoever
//! has one finds a worker that is not full. How many there are follows the workers, and
//! those who wait are told when one comes.

use std::pin::pin;
use std::sync::Arc;

use super::super::error::Refusal;
use super::super::limits::{Patience, Slot, Slots, Turn};
use super::super::record::Record;
use super::super::router::Destination;
use super::super::server::Fleet;
use super::place;
use crate::deployment::{Handle, Snapshot};

/// Takes a place, waiting for it as `patience` says.
///
/// # Errors
///
/// A [`Refusal`] when there was none.
pub(super) async fn place_at(
    (handle, fleet, slots): (&Arc<Handle>, &Fleet, &Arc<Slots>),
    patience: Patience,
    turn: Turn<'_>,
    record: &mut Record,
    destination: &Destination,
) -> Result<Slot, Refusal> {
    let mut snapshots = handle.watch();
    let fit = |snapshot: &Snapshot| {
        slots.set_limit(fleet.places(handle.spec().max_concurrent_requests, snapshot));
    };
    fit(&snapshots.borrow_and_update());
    if let Some(slot) = slots.take_free() {
        return Ok(slot);
    }
    let _queued = handle.queue();
    let mut taking = pin!(place(slots, patience, turn, record, destination));
    loop {
        tokio::select! {
            taken = &mut taking => return taken,
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return Err(Refusal::ShuttingDown);
                }
                fit(&snapshots.borrow_and_update());
            }
        }
    }
}
