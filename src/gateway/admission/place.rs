//! A place at one server, behind the gates of a deployment where it is one of its workers.

use std::sync::Arc;
use std::time::Duration;

use crate::deployment::{Handle, Permit};
use crate::gateway::limits::slots::Slot;
use crate::gateway::route::table::{Backend, Destination, Target};
use crate::gateway::upstream::balance::Pick;
use crate::gateway::upstream::server::{Fleet, Server, is_among};
use crate::time::Instant;

/// A place at one server.
#[derive(Debug)]
pub struct Place {
    /// Target that the server belongs to.
    pub target: Arc<Target>,
    /// The server.
    pub server: Arc<Server>,
    /// Its place among those of the deployment or server, where there is a limit.
    _slot: Option<Slot>,
    /// Place inside the gates, if the target is a deployment.
    pub(super) inside: Option<Inside>,
}

/// Inside the gates of a deployment and of one of its workers. Let out of the
/// worker's first.
#[derive(Debug)]
pub(super) struct Inside {
    _worker: Permit,
    _deployment: Permit,
}

impl Inside {
    pub(super) fn new(deployment: Permit, worker: Permit) -> Self {
        Self {
            _worker: worker,
            _deployment: deployment,
        }
    }
}

impl Place {
    /// At a worker of ours, inside its gates.
    pub(super) fn worker(
        target: &Arc<Target>,
        slot: Option<Slot>,
        (server, inside): (Arc<Server>, Inside),
    ) -> Self {
        Self {
            target: Arc::clone(target),
            server,
            _slot: slot,
            inside: Some(inside),
        }
    }

    /// At a server that someone else runs.
    pub(super) fn external(target: &Arc<Target>, server: &Arc<Server>, slot: Option<Slot>) -> Self {
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

    /// Time at which a request that came here at `began` has to be over, if that is limited.
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
                let entered = enter(handle, fleet, pick, tried)?;
                Some(Self::worker(target, Some(slot), entered))
            }
        }
    }
}

/// Enters a deployment and one of its workers that is not `tried`; `None` when no
/// such gate is open.
pub(super) fn enter(
    handle: &Arc<Handle>,
    fleet: &Fleet,
    pick: Pick<'_>,
    tried: &[Arc<Server>],
) -> Option<(Arc<Server>, Inside)> {
    let deployment = handle.gate.enter()?;
    // The conductor publishes a worker before it opens the gate, and does not
    // take it away while a permit is out.
    let (server, worker) = fleet.enter(&handle.snapshot(), pick, tried)?;
    Some((server, Inside::new(deployment, worker)))
}
