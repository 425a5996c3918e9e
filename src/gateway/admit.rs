//! From a routed request to a server that takes it, or a refusal.
//!
//! It counts for its token and workspace from its head on. First its token's budgets; then a place in the route, then one in the deployment, then the gate. Whoever
//! holds a place waits at a closed gate for the worker that its demand starts;
//! once the gate opens, it is let in. Everything is held by value: a request
//! that is dropped here, in whatever wait, leaves nothing behind.

mod again;
mod back;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use super::balance::Pick;
use super::error::Refusal;
use super::limits::{Class, NoSlot, Patience, Seat, Seats, Slot, Slots, Turn};
use super::quota;
use super::record::{Phase, Record};
use super::router::{Backend, Destination, Target};
use super::server::{Fleet, Server, is_among};
use crate::auth::Principal;
use crate::config::Route;
use crate::deployment::{Handle, Permit, Refusal as WaitersRefused};
use crate::names::{RouteName, Workspace};
use crate::openai::api::Api;
use crate::openai::request::Scan;
use crate::time::{Instant, timeout};

pub use again::Again;
pub use back::admit_back;

/// All that a request holds while it is at work.
#[derive(Debug)]
pub struct Admission {
    /// The server that takes it.
    pub place: Place,
    /// `None` for one that has to be let in whatever is full.
    _route: Option<Slot>,
    _seats: Seating,
}

/// A place at one server.
#[derive(Debug)]
pub struct Place {
    /// What the server belongs to.
    pub target: Arc<Target>,
    /// The server.
    pub server: Arc<Server>,
    /// Its place among those of the deployment or server, where there is a limit.
    _slot: Option<Slot>,
    /// Where the target is a deployment.
    inside: Option<Inside>,
}

/// Inside the gates of a deployment and of one of its workers. Let out of the
/// worker's first.
#[derive(Debug)]
struct Inside {
    _worker: Permit,
    _deployment: Permit,
}

impl Place {
    /// At a server that someone else runs.
    fn external(target: &Arc<Target>, server: &Arc<Server>, slot: Option<Slot>) -> Self {
        Self {
            target: Arc::clone(target),
            server: Arc::clone(server),
            _slot: slot,
            inside: None,
        }
    }

    /// Longest that a request may be there; `None` for no limit.
    pub fn duration_max(&self) -> Option<Duration> {
        match &self.target.backend {
            Backend::Deployment { handle, .. } => handle.spec().max_request_duration,
            Backend::External(_) => None,
        }
    }

    /// When a request that came here at `began` has to be over.
    pub fn over_at(&self, began: Instant) -> Option<Instant> {
        self.duration_max().map(|max| began + max)
    }

    /// At another server than those that were `tried`, if one has a place right now.
    /// None is started for it.
    pub fn another(
        destination: &Destination,
        pick: Pick<'_>,
        tried: &[Arc<Server>],
    ) -> Option<Self> {
        let mut passed: Vec<&Arc<Target>> = Vec::new();
        // Each turn passes one more by.
        loop {
            let is_out = |target: &Arc<Target>| {
                let known = passed.iter().any(|other| Arc::ptr_eq(other, target));
                known || matches!(&target.backend, Backend::External(s) if is_among(s, tried))
            };
            let target = pick.among(&destination.targets, &destination.turns, is_out)?;
            if let Some(place) = Self::now(target, pick, tried) {
                return Some(place);
            }
            passed.push(target);
        }
    }

    /// A place at `target` that is free now.
    fn now(target: &Arc<Target>, pick: Pick<'_>, tried: &[Arc<Server>]) -> Option<Self> {
        match &target.backend {
            Backend::External(server) => {
                let slots = server.slots();
                let slot = slots.map(|slots| slots.take_free().ok_or(())).transpose();
                Some(Self::external(target, server, slot.ok()?))
            }
            Backend::Deployment {
                handle,
                slots,
                fleet,
            } => {
                let slot = slots.take_free()?;
                let (server, inside) = enter(handle, fleet, pick, tried)?;
                Some(Self {
                    target: Arc::clone(target),
                    server,
                    _slot: Some(slot),
                    inside: Some(inside),
                })
            }
        }
    }
}

/// Requests of a route whose bodies may be on their way beside those that have a place or
/// wait for one.
const ON_THEIR_WAY: u32 = 64;

/// Requests at work by workspace, by token and by route.
#[derive(Debug)]
pub struct Crowd {
    workspaces: Arc<Seats<Workspace>>,
    tokens: Arc<Seats<Arc<str>>>,
    /// On their way to a route, waiting there, or at work.
    routes: Arc<Seats<RouteName>>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self {
            workspaces: Seats::new(),
            tokens: Seats::new(),
            routes: Seats::new(),
        }
    }
}

/// Where a request counts, as far as there are limits.
#[derive(Debug, Default)]
pub struct Seating {
    _workspace: Option<Seat<Workspace>>,
    _token: Option<Seat<Arc<str>>>,
    route: Option<Seat<RouteName>>,
}

impl Crowd {
    /// Counts a request for its workspace and its token, from its head on.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] when one of them has as many as it may have.
    pub fn seat(&self, principal: &Principal, workspace: Option<u32>) -> Result<Seating, Refusal> {
        let full = |limit| Refusal::Full { limit };
        Ok(Seating {
            _workspace: match workspace {
                Some(limit) => {
                    let seat = self.workspaces.take(&principal.workspace, limit);
                    Some(seat.ok_or(full(limit))?)
                }
                None => None,
            },
            _token: match principal.limits.conc {
                Some(limit) => {
                    let seat = self.tokens.take(&principal.token_id, limit);
                    Some(seat.ok_or(full(limit))?)
                }
                None => None,
            },
            route: None,
        })
    }

    /// Counts a request for its route, once that is known: from its head on where its
    /// path says it, else from the `model` in its body. It takes no place yet, so that
    /// one that sends slowly keeps no one from a server.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] when all that could have a place, wait for one, or be on their
    /// way are there.
    pub fn enter(&self, route: &Route, seating: &mut Seating) -> Result<(), Refusal> {
        let limits = &route.limits;
        let Some(limit) = limits.max_concurrent_requests else {
            return Ok(());
        };
        if seating.route.is_some() {
            return Ok(());
        }
        let most = limit
            .saturating_add(limits.queue_requests_max)
            .saturating_add(ON_THEIR_WAY);
        let seat = self.routes.take(&route.name, most);
        seating.route = Some(seat.ok_or(Refusal::Full { limit })?);
        Ok(())
    }
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The holder of the token.
    pub principal: &'a Principal,
    /// The API.
    pub api: Api,
    /// What the body says.
    pub scan: &'a Scan<'a>,
    /// What binds it to one of several servers.
    pub pick: Pick<'a>,
}

/// Lets a request in that counts by `seats`.
///
/// # Errors
///
/// A [`Refusal`] when a limit is reached or no worker comes in time.
pub async fn admit(
    seats: Seating,
    asked: Asked<'_>,
    destination: &Arc<Destination>,
    record: &mut Record,
) -> Result<Admission, Refusal> {
    quota::reserve(destination, asked.principal, asked.api, asked.scan, record)?;
    let turn = Turn {
        workspace: &asked.principal.workspace,
        class: Class::of(asked.principal.limits.prio),
    };
    let limits = &destination.route.limits;
    let patience = Patience {
        queue_max: limits.queue_requests_max,
        wait_max: limits.queue_wait_max,
    };
    record.phase = Phase::Queue;
    let route = place(&destination.slots, patience, turn, record, destination).await?;
    let target = asked
        .pick
        .among(&destination.targets, &destination.turns, |_| false);
    let target = Arc::clone(target.ok_or(Refusal::Unreachable)?);
    record.target = Some(Arc::clone(&target));
    let place = match &target.backend {
        Backend::External(server) => {
            let slot = match server.slots() {
                Some(slots) => Some(place(slots, patience, turn, record, destination).await?),
                None => None,
            };
            Place::external(&target, server, slot)
        }
        Backend::Deployment {
            handle,
            slots,
            fleet,
        } => {
            let slot = if fleet.is_limited() {
                // Boxed: it is seldom set, and every request's future would carry it.
                let at = (handle, fleet.as_ref(), slots);
                Box::pin(workers::place_at(at, patience, turn, record, destination)).await?
            } else {
                place(slots, patience, turn, record, destination).await?
            };
            let entered = enter(handle, fleet, asked.pick, &[]);
            let whom = (handle, fleet.as_ref(), asked.pick);
            let (server, inside) = if let Some(entered) = entered {
                entered
            } else {
                cold_start(whom, &target, destination, record).await?
            };
            Place {
                server,
                _slot: Some(slot),
                inside: Some(inside),
                target: Arc::clone(&target),
            }
        }
    };
    Ok(Admission {
        place,
        _route: Some(route),
        _seats: seats,
    })
}

/// Enters a deployment and one of its workers that is not `tried`; `None` when no
/// such gate is open.
fn enter(
    handle: &Arc<Handle>,
    fleet: &Fleet,
    pick: Pick<'_>,
    tried: &[Arc<Server>],
) -> Option<(Arc<Server>, Inside)> {
    let deployment = handle.gate.enter()?;
    // The conductor publishes a worker before it opens the gate, and does not
    // take it away while a permit is out.
    let (server, worker) = fleet.enter(&handle.snapshot(), pick, tried)?;
    let inside = Inside {
        _worker: worker,
        _deployment: deployment,
    };
    Some((server, inside))
}

async fn place(
    slots: &Arc<Slots>,
    patience: Patience,
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
    let patience = Patience {
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

/// Which gates to wait at, and for which of the workers behind them.
type Whom<'a> = (&'a Arc<Handle>, &'a Fleet, Pick<'a>);

/// Waits at the closed gate for the worker that the demand starts or wakes.
async fn cold_start(
    whom: Whom<'_>,
    target: &Target,
    destination: &Destination,
    record: &mut Record,
) -> Result<(Arc<Server>, Inside), Refusal> {
    record.phase = Phase::ColdStart;
    let started = Instant::now();
    let _queued = target.metrics.waiting();
    let workspace = record.principal.as_deref().map(|by| &by.workspace);
    let _waiting = whom.0.wait(workspace);
    let patience = record.wait_max(destination.route.timeouts.cold_start);
    let refusals = whom.0.snapshot().refusals;
    let result = wait_for_gate(whom, refusals, patience).await;
    record.waits.cold_start = Some(started.elapsed());
    result
}

/// `refusals` is how often those who wait had been refused when this one began to.
async fn wait_for_gate(
    (handle, fleet, pick): Whom<'_>,
    refusals: u64,
    patience: Duration,
) -> Result<(Arc<Server>, Inside), Refusal> {
    let deadline = Instant::now() + patience;
    let mut snapshots = handle.watch();
    let mut demanded_in = None;
    loop {
        if let Some(entered) = enter(handle, fleet, pick, &[]) {
            return Ok(entered);
        }
        // Once in each phase: the conductor answers a demand with a snapshot, and
        // to answer that with a demand would never end.
        let stands = {
            let snapshot = snapshots.borrow_and_update();
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
}
