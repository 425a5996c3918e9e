//! From a routed request to a server that takes it, or a refusal.
//!
//! First a place in the route, then one in the deployment, then the gate. Whoever
//! holds a place waits at a closed gate for the worker that its demand starts;
//! once the gate opens, it is let in. Everything is held by value: a request
//! that is dropped here, in whatever wait, leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use super::error::Refusal;
use super::limits::{NoSlot, Patience, Slot, Slots};
use super::record::{Phase, Record};
use super::router::{Backend, Destination, Target};
use crate::deployment::{Handle, Permit, Refusal as WaitersRefused, Worker};
use crate::telemetry::metrics::Counted;
use crate::time::{Instant, timeout};

/// All that a request holds while it is at work.
#[derive(Debug)]
pub struct Admission {
    /// The server that takes it.
    pub target: Arc<Target>,
    /// The worker, where the target is a deployment.
    pub worker: Option<Arc<Worker>>,
    _permit: Option<Permit>,
    _deployment: Option<Slot>,
    _route: Slot,
}

/// Lets a request in.
///
/// # Errors
///
/// A [`Refusal`] when a limit is reached or no worker comes in time.
pub async fn admit(
    destination: &Arc<Destination>,
    record: &mut Record,
) -> Result<Admission, Refusal> {
    let limits = &destination.route.limits;
    let patience = Patience {
        queue_max: limits.queue_requests_max,
        wait_max: limits.queue_wait_max,
    };
    record.phase = Phase::Queue;
    let route = place(&destination.slots, patience, record, destination).await?;
    let target = Arc::clone(super::balance::choose(&destination.targets));
    record.target = Some(Arc::clone(&target));
    let Backend::Deployment { handle, slots, .. } = &target.backend else {
        return Ok(Admission {
            target,
            worker: None,
            _permit: None,
            _deployment: None,
            _route: route,
        });
    };
    let deployment = place(slots, patience, record, destination).await?;
    let permit = match handle.gate.enter() {
        Some(permit) => permit,
        None => cold_start(handle, &target, destination, record).await?,
    };
    // The conductor publishes the worker before it opens the gate, and does not
    // take it away while a permit is out.
    let worker = handle
        .snapshot()
        .worker
        .clone()
        .ok_or(Refusal::Unreachable)?;
    Ok(Admission {
        worker: Some(worker),
        _permit: Some(permit),
        _deployment: Some(deployment),
        _route: route,
        target,
    })
}

async fn place(
    slots: &Arc<Slots>,
    patience: Patience,
    record: &mut Record,
    destination: &Destination,
) -> Result<Slot, Refusal> {
    if let Some(slot) = slots.take_free() {
        return Ok(slot);
    }
    let since = Instant::now();
    let target = destination.targets.first();
    let queued = target.map(|target| Counted::on(&target.metrics.queued));
    let taken = slots.take(patience).await;
    drop(queued);
    record.waits.queue += since.elapsed();
    taken.map_err(|why| match why {
        NoSlot::Full { limit } => Refusal::Full { limit },
        NoSlot::TimedOut => Refusal::QueueTimeout,
    })
}

/// Waits at the closed gate for the worker that the demand starts or wakes.
async fn cold_start(
    handle: &Arc<Handle>,
    target: &Target,
    destination: &Destination,
    record: &mut Record,
) -> Result<Permit, Refusal> {
    record.phase = Phase::ColdStart;
    let started = Instant::now();
    let _queued = Counted::on(&target.metrics.queued);
    let _waiting = handle.wait();
    let result = wait_for_gate(handle, destination.route.timeouts.cold_start).await;
    record.waits.cold_start = Some(started.elapsed());
    result
}

async fn wait_for_gate(handle: &Arc<Handle>, patience: Duration) -> Result<Permit, Refusal> {
    let deadline = Instant::now() + patience;
    let mut snapshots = handle.watch();
    let refusals = snapshots.borrow_and_update().refusals;
    let mut demanded_in = None;
    loop {
        if let Some(permit) = handle.gate.enter() {
            return Ok(permit);
        }
        // Once in each phase: the conductor answers a demand with a snapshot, and
        // to answer that with a demand would never end.
        let stands = {
            let snapshot = snapshots.borrow_and_update();
            if snapshot.refusals > refusals {
                return Err(match snapshot.refusal {
                    Some(WaitersRefused::Stopped) => Refusal::Stopped,
                    Some(WaitersRefused::Failed) | None => Refusal::Failed,
                });
            }
            Some((snapshot.phase, snapshot.generation))
        };
        if demanded_in != stands {
            demanded_in = stands;
            handle.demand();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(changed) = timeout(left, snapshots.changed()).await else {
            let ready_in = handle.snapshot().ready_in;
            return Err(Refusal::Loading { ready_in });
        };
        if changed.is_err() {
            return Err(Refusal::ShuttingDown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Deployment, Engine, Idle, Sim, Start};
    use crate::deployment::Registry;
    use crate::names::{DeploymentId, InstanceName, ModelName};
    use crate::time::Clock;

    fn spec() -> Arc<Deployment> {
        let instance = InstanceName::new("lab").unwrap();
        let endpoint_name = ModelName::new("chat").unwrap();
        Arc::new(Deployment {
            id: DeploymentId::new(&instance, &endpoint_name),
            instance,
            endpoint_name,
            model: "m".to_owned(),
            max_concurrent_requests: None,
            start: Start::OnDemand,
            keep: false,
            idle: Idle {
                time_limit: None,
                offload: None,
                last_action_report_interval: Duration::from_secs(10),
            },
            engine: Engine::Sim(Sim::default()),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_demand_that_is_answered_by_a_snapshot_is_not_repeated() {
        let (registry, mut demands) = Registry::new(Clock::start());
        let handle = registry.insert(spec());
        let mut demanded = 0;
        let conductor = async {
            while demands.recv().await.is_some() {
                demanded += 1;
                assert!(demanded < 10, "the same demand again and again");
                handle.take_demand();
                handle.publish((*handle.snapshot()).clone());
            }
        };
        let waited = tokio::select! {
            waited = wait_for_gate(&handle, Duration::from_secs(1)) => waited,
            () = conductor => unreachable!("the registry lives"),
        };
        assert!(matches!(waited, Err(Refusal::Loading { .. })), "{waited:?}");
        assert_eq!(demanded, 1);
    }
}
