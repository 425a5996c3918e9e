//! The wait for a slot.

use std::sync::Arc;

use crate::gateway::limits::slots::{NoSlot, QueuePatience, Slot, Slots, Turn};
use crate::gateway::record::Record;
use crate::gateway::refusal::Refusal;
use crate::gateway::route::table::Destination;
use crate::time::Instant;

/// Takes a slot, waiting for it as `patience` says and the client's own patience lets it.
///
/// # Errors
///
/// A [`Refusal`] when there was none.
pub(super) async fn slot(
    slots: &Arc<Slots>,
    patience: QueuePatience,
    turn: Turn<'_>,
    record: &mut Record,
    destination: &Destination,
) -> Result<Slot, Refusal> {
    if let Some(slot) = slots.take_free() {
        return Ok(slot);
    }
    let since = Instant::now();
    let target = destination.targets.first();
    let queued = target.map(|target| target.metrics.waiting());
    let patience = QueuePatience {
        wait_max: record.wait_max(patience.wait_max),
        ..patience
    };
    let taken = slots.take(patience, turn).await;
    drop(queued);
    record.waits.queue += since.elapsed();
    taken.map_err(|why| match why {
        NoSlot::Full { limit } => Refusal::Full { limit },
        NoSlot::TimedOut => Refusal::QueueTimeout,
    })
}
