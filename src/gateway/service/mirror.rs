//! Copies of requests for the mirror of a list.
//!
//! One is made once a target began to answer, and runs beside that: nothing waits for it,
//! and nothing of it reaches the client. It needs a place that is free now, and memory
//! while half of the budget is; it is sent once, and its answer is read to the end, so that
//! its tokens are counted, and dropped. It is in no log, and nobody's token pays for it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::gateway::Gateway;
use crate::gateway::admission::{Admission, Place, Seated};
use crate::gateway::answer::meter::Delivery;
use crate::gateway::answer::respond;
use crate::gateway::client::peer::Peer;
use crate::gateway::forward::{Otherwise, Outgoing, forward};
use crate::gateway::head::onward::Onward;
use crate::gateway::memory::{Holder, Lease, REQUEST_BYTES};
use crate::gateway::record::Record;
use crate::gateway::record::holding::Holding;
use crate::gateway::route::table::lineup::{Lineup, Mirroring, Ranked};
use crate::gateway::route::table::{Backend, Destination};
use crate::gateway::upstream::balance::Pick;
use crate::openai::api::Api;
use crate::openai::request::Scan;
use crate::pieces::Pieces;
use crate::telemetry::metrics::mirrored;
use crate::time::{Instant, timeout};

/// Longest that a copy takes; then it is cut off.
const TIME_MAX: Duration = Duration::from_mins(10);

/// A copy of a request, with all that it holds.
struct Duplicate {
    api: Api,
    destination: Arc<Destination>,
    admission: Admission,
    headers: Onward,
    query: Option<String>,
    path: Cow<'static, str>,
    body: Pieces,
    scan: Scan<'static>,
    asks_usage: (bool, bool),
    record: Box<Record>,
    _memory: Lease,
    _permit: OwnedSemaphorePermit,
}

/// Copies a request of a list that one of it began to answer, where there is a mirror that
/// takes it.
pub(super) fn copy(
    gateway: &Gateway,
    (outgoing, listed): (&Outgoing<'_>, &Destination),
    (list, answers): (&Lineup, &Ranked<'_>),
    record: &Record,
) {
    let (Some(mirror), Some(scan)) = (&list.mirror, outgoing.scan) else {
        return;
    };
    // A stored response would exist twice.
    let is_stored = !outgoing.may_replay() && scan.store != Some(false);
    if is_stored || !mirror.copying.takes(&answers.listed.rule.to) {
        return;
    }
    // For workers of ours it would have been looked at.
    let is_seen = listed.is_ours() || scan.odd.is_none() && !scan.brings;
    let route = listed.route.name.as_str();
    match made(gateway, (outgoing, scan), mirror, is_seen, record) {
        Ok(copy) => {
            mirrored(route, "sent");
            gateway.copies.spawn_bare(copy.run());
        }
        Err(why) => mirrored(route, why),
    }
}

fn made(
    gateway: &Gateway,
    (outgoing, scan): (&Outgoing<'_>, &Scan<'_>),
    mirror: &Mirroring,
    is_seen: bool,
    record: &Record,
) -> Result<Duplicate, &'static str> {
    let (api, destination) = (outgoing.api, &mirror.destination);
    if destination.must_serve(api).is_err() || destination.is_ours() && !is_seen {
        return Err("api");
    }
    let permit = mirror.copying.leave().ok_or("copies")?;
    let memory = &gateway.memory;
    if memory.used() > memory.max() / 2 {
        return Err("memory");
    }
    let bytes = REQUEST_BYTES.saturating_add(outgoing.body.len() as u64);
    let memory = memory.lease(Holder::default(), bytes);
    let memory = memory.map_err(|_| "memory")?;
    let pick = Pick {
        rules: &destination.route.load_balancing,
        key: None,
        api,
    };
    let place = Place::another(destination, pick, &[]);
    let place = place.ok_or_else(|| why_none(destination))?;
    let mut record = copied(gateway, record);
    record.destination = Some(Arc::clone(destination));
    record.target = Some(Arc::clone(&place.target));
    Ok(Duplicate {
        api,
        destination: Arc::clone(destination),
        admission: Admission::admitted(place, Seated::default(), &mut record),
        headers: outgoing.headers.clone(),
        query: outgoing.query.map(str::to_owned),
        path: outgoing.path.clone(),
        body: outgoing.body.clone(),
        scan: scan.clone().into_owned(),
        asks_usage: (outgoing.ask_usage, outgoing.ask_usage_always),
        record,
        _memory: memory,
        _permit: permit,
    })
}

/// Reason why no server has a place now.
fn why_none(destination: &Destination) -> &'static str {
    let mut targets = destination.targets.iter();
    let sleep = targets.all(|target| match &target.backend {
        Backend::Deployment { handle, .. } => !handle.gate.is_open(),
        Backend::External(_) => false,
    });
    if sleep { "asleep" } else { "full" }
}

/// The record of a copy: it is nobody's, and ends with the connection of the request that
/// it is a copy of where that must end.
fn copied(gateway: &Gateway, of: &Record) -> Box<Record> {
    let peer = Arc::new(Peer::new(of.origin.client, &[], of.peer.cut.clone()));
    let holding = Holding::begin(&peer);
    let id = Arc::clone(&of.request_id);
    let mut trace = of.trace;
    trace.sampled = false;
    let sink = gateway.sink.clone();
    let mut record = Record::start(sink, id, holding, of.origin.clone(), trace);
    record.is_copy = true;
    (record.api, record.stream) = (of.api, of.stream);
    (record.hops, record.bytes_in) = (of.hops.clone(), of.bytes_in);
    record
}

impl Duplicate {
    async fn run(self) {
        let cut = self.record.peer.cut.clone();
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            // Whether it came to its end makes no difference to anyone.
            _ = timeout(TIME_MAX, self.ask()) => {}
        }
    }

    async fn ask(mut self) {
        let api = self.api;
        let (ask_usage, ask_usage_always) = self.asks_usage;
        let outgoing = Outgoing {
            api,
            method: http::Method::POST,
            path: self.path,
            query: self.query.as_deref(),
            headers: self.headers,
            body: &self.body,
            scan: Some(&self.scan),
            ask_usage,
            ask_usage_always,
        };
        let began = Instant::now();
        let (destination, admission) = (&self.destination, &mut self.admission);
        let nowhere = Otherwise::Nowhere;
        let answered = forward(&outgoing, destination, nowhere, admission, &mut self.record).await;
        let delivery = Delivery {
            api,
            remove_usage_event: false,
            strip_usage: false,
            shows_apis: outgoing.query.is_none(),
            idle_max: destination.route.timeouts.idle,
            over_at: self.admission.place.over_at(began),
            keep_alive: None,
            stored: None,
        };
        match answered {
            Ok(answered) => {
                let (admission, record) = (self.admission, self.record);
                let response = respond::pass_on(answered, admission, delivery, record).await;
                let mut body = response.into_body();
                while let Some(Ok(_)) = body.frame().await {}
            }
            Err(refusal) => {
                let status = refusal.response(Some(api)).status();
                self.record.refused(&refusal, status);
            }
        }
    }
}
