//! The replicas of one deployment, put together for the senders of requests.
//!
//! Each replica is a member of its own, with its machine, its worker and its
//! console; requests know only the deployment. This opens the deployment's gate
//! while any replica serves, and publishes one snapshot of them all. It decides
//! nothing: how many there are is [`crate::lifecycle::decide::scale`]'s to say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::deployment::{Handle, Snapshot, Status};
use crate::names::DeploymentId;

/// The replicas of one deployment. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub(in crate::lifecycle) struct Fleet {
    /// The handle that requests find.
    lead: Arc<Handle>,
    /// The conductor alone writes; held for a look or a change.
    seats: Arc<Mutex<BTreeMap<u32, Seat>>>,
}

/// One replica.
#[derive(Debug)]
struct Seat {
    id: DeploymentId,
    snapshot: Arc<Snapshot>,
    open: bool,
}

impl Fleet {
    /// That of the deployment with this handle, without replicas yet.
    pub(in crate::lifecycle) fn new(lead: Arc<Handle>) -> Self {
        Self {
            lead,
            seats: Arc::default(),
        }
    }

    /// The handle that requests find.
    pub(in crate::lifecycle) fn lead(&self) -> &Arc<Handle> {
        &self.lead
    }

    /// Publishes how a replica stands, and what follows for the whole.
    pub(in crate::lifecycle) fn publish(
        &self,
        number: u32,
        replica: &Arc<Handle>,
        snapshot: Snapshot,
    ) {
        let mut seats = self.locked();
        let snapshot = Arc::new(snapshot);
        let seat = seats.entry(number).or_insert_with(|| Seat {
            id: replica.id.clone(),
            snapshot: Arc::clone(&snapshot),
            open: false,
        });
        seat.snapshot = Arc::clone(&snapshot);
        if !Arc::ptr_eq(replica, &self.lead) {
            replica.publish(Snapshot::clone(&snapshot));
        }
        if let Some(whole) = together(&seats) {
            self.lead.publish(whole);
        }
    }

    /// Lets requests in, as a replica serves that was published before.
    pub(in crate::lifecycle) fn open(&self, number: u32) {
        if let Some(seat) = self.locked().get_mut(&number) {
            seat.open = true;
            self.lead.gate.open();
        }
    }

    /// A replica serves no more; the gate closes with the last.
    pub(in crate::lifecycle) fn close(&self, number: u32) {
        let mut seats = self.locked();
        if let Some(seat) = seats.get_mut(&number) {
            seat.open = false;
        }
        if !seats.values().any(|seat| seat.open) {
            self.lead.gate.close();
        }
    }

    /// True if a replica serves.
    pub(in crate::lifecycle) fn serves(&self) -> bool {
        self.locked().values().any(|seat| seat.open)
    }

    /// Forgets a replica that is gone.
    pub(in crate::lifecycle) fn leave(&self, number: u32) {
        let mut seats = self.locked();
        seats.remove(&number);
        if let Some(whole) = together(&seats) {
            self.lead.publish(whole);
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One snapshot of all: that of the best, with the workers of every one.
fn together(seats: &BTreeMap<u32, Seat>) -> Option<Snapshot> {
    let first = seats.get(&1)?;
    if seats.len() == 1 {
        return Some(Snapshot::clone(&first.snapshot));
    }
    let best = seats.values().min_by_key(|seat| rank(seat))?;
    let workers = seats.values().flat_map(|seat| seat.snapshot.workers.iter());
    let gpus = seats.values().flat_map(|seat| seat.snapshot.gpus.iter());
    let activity = seats
        .values()
        .filter_map(|seat| seat.snapshot.last_activity);
    let replicas = seats
        .values()
        .map(|seat| (seat.id.clone(), Arc::clone(&seat.snapshot)));
    Some(Snapshot {
        workers: workers.cloned().collect(),
        gpus: gpus.copied().collect(),
        last_activity: activity.max(),
        // Demands go to the first where no other is nearer: it refuses for all.
        refusals: first.snapshot.refusals,
        refusal: first.snapshot.refusal,
        replicas: replicas.collect(),
        ..Snapshot::clone(&best.snapshot)
    })
}

/// Distance of a replica from serving; the nearest one's snapshot stands for all.
fn rank(seat: &Seat) -> u32 {
    match seat.snapshot.status {
        Status::Active | Status::Idle if seat.open => 0,
        Status::Active | Status::Idle => 1,
        Status::Loading => 2,
        Status::Offloaded => 3,
        Status::Stopping => 4,
        // A first one that failed says more than a further one that never ran.
        Status::Failed => 5,
        Status::Stopped => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::Registry;
    use crate::lifecycle::act::process::tests::spec;
    use crate::time::Clock;

    fn snapshot(status: Status) -> Snapshot {
        Snapshot {
            status,
            ..Snapshot::stopped()
        }
    }

    #[tokio::test]
    async fn the_gate_is_open_while_any_replica_serves_and_the_best_one_is_shown() {
        let (registry, _demands) = Registry::new(Clock::start());
        let lead = registry.insert(spec("t/a"));
        let second = registry.insert_replica(&lead, Arc::new(spec("t/a").replica(2)));
        let fleet = Fleet::new(Arc::clone(&lead));
        fleet.publish(1, &lead, snapshot(Status::Idle));
        fleet.publish(2, &second, snapshot(Status::Stopped));
        fleet.open(1);
        assert!(lead.gate.is_open() && lead.snapshot().status == Status::Idle);
        fleet.publish(2, &second, snapshot(Status::Idle));
        fleet.open(2);
        fleet.close(1);
        fleet.publish(1, &lead, snapshot(Status::Failed));
        assert!(lead.gate.is_open(), "the second serves");
        assert_eq!(lead.snapshot().status, Status::Idle);
        assert_eq!(lead.snapshot().replicas.len(), 2);
        assert_eq!(lead.replicas()[0].snapshot().status, Status::Idle);
        fleet.close(2);
        assert!(!lead.gate.is_open());
        registry.remove(&second.id);
        fleet.leave(2);
        assert!(lead.replicas().is_empty());
        assert_eq!(lead.snapshot().status, Status::Failed);
    }
}
