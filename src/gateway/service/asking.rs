//! Request as a server is asked, and the head of its answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method};

use super::listed::{self, copied, is_too_long, judged};
use crate::auth::Principal;
use crate::config::{GoOn, StreamUsage};
use crate::gateway::Gateway;
use crate::gateway::admission::concurrency::Seating;
use crate::gateway::admission::{Admission, Call, Course, admit, place, seat};
use crate::gateway::answer::meter::Delivery;
use crate::gateway::forward::{Answered, Otherwise, Outgoing, forward, forwarded_headers};
use crate::gateway::record::Record;
use crate::gateway::refusal::Refusal;
use crate::gateway::retrieve::whereabouts;
use crate::gateway::route::stored;
use crate::gateway::route::table::Destination;
use crate::openai::api::Api;
use crate::openai::request::Scan;
use crate::pieces::Pieces;
use crate::time::Instant;

/// The head of a server's answer, the place it has there, and how it goes on to the client.
pub(super) type Theirs = (Answered, Admission, Delivery);

/// Request as a server is to be asked.
pub(super) struct Asking<'a> {
    pub(super) principal: &'a Principal,
    pub(super) destination: &'a Arc<Destination>,
    pub(super) api: Api,
    pub(super) path: &'static str,
    pub(super) body: &'a Pieces,
    pub(super) scan: &'a Scan<'a>,
}

/// A place, a server, the head of its answer.
pub(super) async fn ask(
    gateway: &Gateway,
    asking: Asking<'_>,
    seating: Seating,
    parts: &mut Parts,
    record: &mut Record,
) -> Result<Box<Theirs>, Refusal> {
    let Asking {
        principal,
        destination,
        api,
        scan,
        ..
    } = asking;
    let pick = destination.pick(api, &parts.headers, scan, asking.body);
    let call = Call {
        principal,
        destination,
        api,
        scan,
        pick,
    };
    let Some(list) = &destination.list else {
        let mut admission = admit(seating, call, record).await?;
        let headers = std::mem::take(&mut parts.headers);
        let (outgoing, mut delivery) = prepare(&asking, parts, headers, record);
        record.note_overhead();
        let began = Instant::now();
        let otherwise = Otherwise::Servers(pick);
        let answered = forward(&outgoing, destination, otherwise, &mut admission, record).await?;
        asking.goes_on(gateway, &admission, began, &mut delivery);
        return Ok(Box::new((answered, admission, delivery)));
    };
    let key = list.key(principal, &parts.headers, &destination.route.load_balancing);
    let seated = seat(seating, call, record).await?;
    let mut course = Course::new((call, list), key, seated);
    let is_too_short = |to: &Destination, when: &[GoOn]| is_too_long(&asking, to, when);
    let step = course.turn(is_too_short, record)?;
    let placed = place(step.call, record).await;
    let headers = std::mem::take(&mut parts.headers);
    let (outgoing, mut delivery) = prepare(&asking, parts, headers, record);
    match placed {
        Ok(place) => {
            let mut admission = Admission::admitted(place, course.seated(), record);
            record.note_overhead();
            let began = Instant::now();
            let (to, otherwise) = (step.call.destination, listed::otherwise(&step));
            let result = forward(&outgoing, to, otherwise, &mut admission, record).await;
            match judged(result, &step, &outgoing).await {
                Ok(answered) => {
                    copied(gateway, (&outgoing, &asking), &step, record);
                    asking.goes_on(gateway, &admission, began, &mut delivery);
                    return Ok(Box::new((answered, admission, delivery)));
                }
                Err(failed) => course.leave(admission, failed, record)?,
            }
        }
        Err(refusal) => course.refused(step, refusal)?,
    }
    // Boxed: it is seldom, and every request's future would carry it.
    let rest = listed::rest(gateway, (asking, course), (outgoing, delivery), record);
    Box::pin(rest).await
}

impl Asking<'_> {
    /// Says how the answer goes on to the client, once it is known whose it is.
    pub(super) fn goes_on(
        &self,
        gateway: &Gateway,
        admission: &Admission,
        began: Instant,
        delivery: &mut Delivery,
    ) {
        let route = &self.destination.route;
        delivery.idle_max = route.timeouts.idle;
        delivery.over_at = admission.place.over_at(began);
        delivery.keep_alive = route.stream.keep_alive;
        if self.api == Api::Responses && self.scan.store != Some(false) {
            let at = whereabouts(self.destination, admission);
            let workspace = &self.principal.workspace;
            delivery.stored = Some(stored::Passing::new(&gateway.stored, workspace, at));
        }
    }
}

pub(super) fn prepare<'a>(
    asking: &Asking<'a>,
    parts: &'a Parts,
    headers: HeaderMap,
    record: &mut Record,
) -> (Outgoing<'a>, Delivery) {
    let Asking {
        destination,
        api,
        body,
        scan,
        ..
    } = *asking;
    let asked = scan.usage_was_asked();
    let may_ask = scan.stream && scan.odd.is_none() && api.usage_in_stream_needs_asking();
    let ask_usage = may_ask && !asked;
    let is_exact = destination.route.stream.usage == StreamUsage::Exact;
    let ask_usage_always = may_ask && is_exact;
    let outgoing = Outgoing {
        api,
        method: Method::POST,
        path: Cow::Borrowed(asking.path),
        query: parts.uri.query(),
        headers: forwarded_headers(headers, record),
        body,
        scan: Some(scan),
        ask_usage,
        ask_usage_always,
    };
    let delivery = Delivery {
        api,
        remove_usage_event: ask_usage,
        strip_usage: ask_usage_always && !scan.usage_was_asked_always(),
        shows_apis: outgoing.query.is_none(),
        idle_max: Duration::ZERO,
        over_at: None,
        keep_alive: None,
        stored: None,
    };
    (outgoing, delivery)
}
