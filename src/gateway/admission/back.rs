//! The way back in, to the very server that knows what a request is about.

use std::sync::Arc;

use super::admit::{Admission, Call, Seated};
use super::cold::cold_start;
use super::place::{Inside, Place};
use crate::auth::Principal;
use crate::deployment::Handle;
use crate::gateway::record::{Record, RequestPhase};
use crate::gateway::refusal::Refusal;
use crate::gateway::route::stored::Whereabouts;
use crate::gateway::route::table::{Backend, Destination};
use crate::gateway::upstream::balance::Pick;
use crate::gateway::upstream::server::{Fleet, Server};
use crate::names::Generation;
use crate::openai::api::Api;
use crate::openai::request::Scan;

/// Lets a request in to the very server that knows what it is about. It takes no
/// place, as what it asks for costs nothing, and may be what makes one free.
///
/// # Errors
///
/// [`Refusal::UnknownResponse`] when that server is no more, and what
/// [`Call::reserve`] refuses.
pub async fn admit_back(
    principal: &Principal,
    destination: &Arc<Destination>,
    (at, id): (&Whereabouts, &str),
    record: &mut Record,
) -> Result<Admission, Refusal> {
    let gone = || Refusal::UnknownResponse(id.to_owned());
    let nothing = Scan::of_nothing();
    record.phase = RequestPhase::Queue;
    let pick = Pick {
        rules: &destination.route.load_balancing,
        key: None,
        api: Api::Responses,
    };
    let call = Call {
        principal,
        destination,
        api: Api::Responses,
        scan: &nothing,
        pick,
    };
    call.reserve(record)?;
    let mut targets = destination.targets.iter();
    let target = targets.find(|target| target.label == at.target);
    let target = Arc::clone(target.ok_or_else(gone)?);
    record.target = Some(Arc::clone(&target));
    let place = match &target.backend {
        Backend::External(server) => Place::external(&target, server, None),
        Backend::Deployment { handle, fleet, .. } => {
            let entered = match enter_again(handle, fleet, at.worker) {
                Some(entered) => entered,
                // Asleep, it still has the response.
                None if Some(handle.snapshot().generation) == at.worker => {
                    let whom = (handle, fleet.as_ref(), pick);
                    drop(cold_start(whom, &target, destination, record).await?);
                    enter_again(handle, fleet, at.worker).ok_or_else(gone)?
                }
                None => return Err(gone()),
            };
            Place::worker(&target, None, entered)
        }
    };
    Ok(Admission::admitted(place, Seated::default(), record))
}

/// Enters a deployment and one worker of it; `None` when that is not there.
fn enter_again(
    handle: &Arc<Handle>,
    fleet: &Fleet,
    worker: Option<Generation>,
) -> Option<(Arc<Server>, Inside)> {
    let deployment = handle.gate.enter()?;
    let servers = fleet.follow(&handle.snapshot());
    let server = servers
        .iter()
        .find(|server| server.generation() == worker)?;
    let inside = Inside::new(deployment, server.enter()?);
    Some((Arc::clone(server), inside))
}
