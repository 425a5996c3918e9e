//! The way in: budgets, slots, a server.

use std::sync::Arc;

use super::cold::cold_start;
use super::concurrency::Seating;
use super::place::{Place, enter};
use super::{queue, workers};
use crate::auth::Principal;
use crate::gateway::limits::quota;
use crate::gateway::limits::slots::{Class, QueuePatience, Slot, Turn};
use crate::gateway::record::{Record, RequestPhase};
use crate::gateway::refusal::Refusal;
use crate::gateway::route::table::{Backend, Destination};
use crate::gateway::upstream::balance::Pick;
use crate::openai::api::Api;
use crate::openai::request::Scan;

/// All that a request holds while it is at work.
#[derive(Debug)]
pub struct Admission {
    /// The server that takes it.
    pub place: Place,
    seated: Seated,
}

/// Places that a request holds of its route, its token and its workspace.
#[derive(Debug, Default)]
pub struct Seated {
    /// `None` for one that has to be let in whatever is full.
    _route: Option<Slot>,
    _seats: Seating,
}

/// A request for a model, as far as it is known before it is let in.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The holder of the token.
    pub principal: &'a Principal,
    /// Destination that the model's name led to.
    pub destination: &'a Arc<Destination>,
    /// The API.
    pub api: Api,
    /// Facts that were read in the body.
    pub scan: &'a Scan<'a>,
    /// Rules and key by which one of several servers is chosen.
    pub pick: Pick<'a>,
}

impl<'a> Call<'a> {
    fn turn(&self) -> Turn<'a> {
        Turn {
            workspace: &self.principal.workspace,
            class: Class::of(self.principal.limits.prio),
        }
    }

    fn patience(&self) -> QueuePatience {
        let limits = &self.destination.route.limits;
        QueuePatience {
            queue_max: limits.queue_requests_max,
            wait_max: limits.queue_wait_max,
        }
    }

    /// Holds what it is expected to cost of its token's budgets.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] as of [`quota::reserve`].
    pub(super) fn reserve(&self, record: &mut Record) -> Result<(), Refusal> {
        let destination = self.destination;
        record.charge = quota::reserve(
            (&destination.route.limits, &destination.rates),
            self.principal,
            (self.api, self.scan, record.bytes_in),
            &mut record.standings,
        )?;
        Ok(())
    }
}

impl Admission {
    /// Lets a request in at a place: it goes to a server, so it counts from now on.
    pub fn admitted(place: Place, seated: Seated, record: &mut Record) -> Self {
        if let Some(charge) = &mut record.charge {
            charge.sent();
        }
        Self { place, seated }
    }

    /// Leaves the place, for one elsewhere.
    pub fn leave(self) -> Seated {
        self.seated
    }
}

/// Lets a request in that counts by `seats`.
///
/// # Errors
///
/// A [`Refusal`] when a limit is reached or no worker comes in time.
pub async fn admit(
    seats: Seating,
    call: Call<'_>,
    record: &mut Record,
) -> Result<Admission, Refusal> {
    let seated = seat(seats, call, record).await?;
    let place = place(call, record).await?;
    Ok(Admission::admitted(place, seated, record))
}

/// Takes from the token's budgets, and one of the places of the route.
///
/// # Errors
///
/// A [`Refusal`] when a limit is reached.
pub async fn seat(seats: Seating, call: Call<'_>, record: &mut Record) -> Result<Seated, Refusal> {
    call.reserve(record)?;
    let (turn, patience) = (call.turn(), call.patience());
    let destination = call.destination;
    record.phase = RequestPhase::Queue;
    let route = queue::slot(&destination.slots, patience, turn, record, destination).await?;
    Ok(Seated {
        _route: Some(route),
        _seats: seats,
    })
}

/// Takes a place at one of the destination's servers.
///
/// # Errors
///
/// A [`Refusal`] when none has one or no worker comes in time.
pub async fn place(call: Call<'_>, record: &mut Record) -> Result<Place, Refusal> {
    let (turn, patience) = (call.turn(), call.patience());
    let Call {
        destination, pick, ..
    } = call;
    let target = pick.among(&destination.targets, &destination.turns, |_| false);
    // None is left only where what they serve has changed while the request waited.
    let target = target.ok_or_else(|| {
        let unserved = destination.must_serve(call.api);
        unserved.err().unwrap_or(Refusal::Unreachable)
    });
    let target = Arc::clone(target?);
    record.target = Some(Arc::clone(&target));
    Ok(match &target.backend {
        Backend::External(server) => {
            let slot = match server.slots() {
                Some(slots) => Some(queue::slot(slots, patience, turn, record, destination).await?),
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
                Box::pin(workers::slot_at(at, patience, turn, record, destination)).await?
            } else {
                queue::slot(slots, patience, turn, record, destination).await?
            };
            let entered = enter(handle, fleet, pick, &[]);
            let whom = (handle, fleet.as_ref(), pick);
            let entered = if let Some(entered) = entered {
                entered
            } else {
                cold_start(whom, &target, destination, record).await?
            };
            Place::worker(&target, Some(slot), entered)
        }
    })
}
