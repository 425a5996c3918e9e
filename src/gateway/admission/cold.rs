//! The wait at a closed gate, for the worker that the demand starts or wakes.

use std::sync::Arc;
use std::time::Duration;

use super::place::{Inside, enter};
use crate::deployment::{Handle, Refusal as WaitersRefused};
use crate::gateway::record::{Record, RequestPhase};
use crate::gateway::refusal::Refusal;
use crate::gateway::route::table::{Destination, Target};
use crate::gateway::upstream::balance::Pick;
use crate::gateway::upstream::server::{Fleet, Server};
use crate::names::Workspace;
use crate::time::{Instant, timeout};

/// Deployment whose gates a request waits at, its workers, and the choice among them.
pub(super) type Whom<'a> = (&'a Arc<Handle>, &'a Fleet, Pick<'a>);

/// Waits at the closed gate for the worker that the demand starts or wakes.
pub(super) async fn cold_start(
    whom: Whom<'_>,
    target: &Target,
    destination: &Destination,
    record: &mut Record,
) -> Result<(Arc<Server>, Inside), Refusal> {
    record.phase = RequestPhase::ColdStart;
    let started = Instant::now();
    let _queued = target.metrics.waiting();
    let workspace = record.principal.as_deref().map(|by| &by.workspace);
    let _waiting = whom.0.wait(workspace);
    let patience = record.wait_max(destination.route.timeouts.cold_start);
    let refusals = whom.0.snapshot().refusals;
    let result = wait_for_gate(whom, refusals, patience).await;
    let waited = record.waits.cold_start.unwrap_or_default();
    record.waits.cold_start = Some(waited + started.elapsed());
    result
}

/// Waits as a request does until a worker of it serves or comes up, without one. Dropped,
/// it waits no more: what has no memory yet is then given up.
///
/// # Errors
///
/// A [`Refusal`] where none comes within `patience`.
pub async fn load(
    handle: &Arc<Handle>,
    workspace: &Workspace,
    patience: Duration,
) -> Result<(), Refusal> {
    let comes = || handle.snapshot().is_coming().then_some(());
    if comes().is_some() {
        return Ok(());
    }
    let _waiting = handle.wait(Some(workspace));
    let refusals = handle.snapshot().refusals;
    wait_until(handle, refusals, patience, comes).await
}

/// `refusals` is how often waiting requests had been refused when this one began to wait.
pub(super) async fn wait_for_gate(
    (handle, fleet, pick): Whom<'_>,
    refusals: u64,
    patience: Duration,
) -> Result<(Arc<Server>, Inside), Refusal> {
    let entered = || enter(handle, fleet, pick, &[]);
    wait_until(handle, refusals, patience, entered).await
}

/// Demands a worker until `met` finds what is waited for.
async fn wait_until<T>(
    handle: &Handle,
    refusals: u64,
    patience: Duration,
    met: impl Fn() -> Option<T>,
) -> Result<T, Refusal> {
    let deadline = Instant::now() + patience;
    let mut demanded_in = None;
    loop {
        let news = handle.news();
        if let Some(found) = met() {
            return Ok(found);
        }
        if handle.is_gone() {
            return Err(Refusal::Stopped);
        }
        // Once in each phase: the conductor answers a demand with a snapshot, and
        // to answer that with a demand would never end.
        let stands = {
            let snapshot = handle.snapshot();
            if snapshot.refusals > refusals {
                return Err(match snapshot.refusal {
                    Some(WaitersRefused::PutOff) => Refusal::Loading {
                        ready_in: snapshot.ready_in,
                    },
                    Some(WaitersRefused::Stopped) => Refusal::Stopped,
                    Some(WaitersRefused::Failed) | None => Refusal::Failed,
                });
            }
            Some((snapshot.phase, snapshot.generation))
        };
        if demanded_in != stands {
            demanded_in = stands;
            if !handle.demand() {
                return Err(Refusal::ShuttingDown);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if timeout(left, news).await.is_err() {
            let ready_in = handle.snapshot().ready_in;
            return Err(Refusal::Loading { ready_in });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadBalancing;
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
            max_request_duration: None,
            start: Start::OnDemand,
            replicas: crate::config::Replicas::default(),
            roll: crate::config::Roll::default(),
            author: crate::config::Author::default(),
            inputs: crate::config::Inputs::default(),
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
        let fleet = Fleet::new(handle.id.clone(), registry.clock);
        let rules = LoadBalancing::default();
        let pick = Pick {
            rules: &rules,
            key: None,
            api: crate::openai::api::Api::Chat,
        };
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
            waited = wait_for_gate((&handle, &fleet, pick), 0, Duration::from_secs(1)) => waited,
            () = conductor => unreachable!("the registry lives"),
        };
        assert!(matches!(waited, Err(Refusal::Loading { .. })), "{waited:?}");
        assert_eq!(demanded, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_at_one_that_is_taken_away_is_told_and_who_comes_later_too() {
        let (registry, _demands) = Registry::new(Clock::start());
        let handle = registry.insert(spec());
        let fleet = Fleet::new(handle.id.clone(), registry.clock);
        let rules = LoadBalancing::default();
        let pick = Pick {
            rules: &rules,
            key: None,
            api: crate::openai::api::Api::Chat,
        };
        let wait = || wait_for_gate((&handle, &fleet, pick), 0, Duration::from_mins(10));
        let (waited, ()) = tokio::join!(wait(), async { registry.remove(&handle.id) });
        assert!(matches!(waited, Err(Refusal::Stopped)), "{waited:?}");
        let late = wait().await;
        assert!(matches!(late, Err(Refusal::Stopped)), "{late:?}");
    }
}
