//! Clients that load and unload models, as llama.cpp's router has it.
//!
//! A load waits at the closed gate as a request does: it is weighed as one, shown as one
//! and dropped as one, but for that it has its answer once the worker has its memory and
//! comes up. An unload takes nothing from others: it is refused while a request of anyone
//! is inside or waits, and where the model is kept up. Both count against the limits of the
//! token and the route.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use super::Gateway;
use super::admission::load;
use super::answer::body::Body;
use super::limits::quota;
use super::memory::Lease;
use super::models;
use super::record::{Record, RequestPhase};
use super::refusal::Refusal;
use super::request::decode::decode;
use super::request::entry::LoadAction;
use super::request::receive;
use super::route::find::find;
use super::route::table::{Backend, Destination, Table};
use crate::auth::Principal;
use crate::deployment::Handle;
use crate::openai::api::Api;
use crate::time::{Instant, timeout};

/// Longest body: it names one model.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// Longest time for the conductor to begin an unloading; it never waits for a worker.
const UNLOAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// Loads or unloads the model that the body names.
///
/// # Errors
///
/// A [`Refusal`]: of a token without that right, of a model that it may not use as of one
/// that there is not, and where the model is in use or does not come.
pub async fn answer(
    (gateway, table): (&Gateway, &Table),
    principal: &Principal,
    (route, action): (Option<&str>, LoadAction),
    (parts, body, held): (&Parts, &mut Incoming, Lease),
    record: &mut Record,
) -> Result<Response<Body>, Refusal> {
    if !principal.may_load {
        return Err(Refusal::NotForLoading);
    }
    let mut seating = gateway.seat(principal)?;
    let destination = named(
        (gateway, table),
        principal,
        route,
        (parts, body, held),
        record,
    );
    let destination = destination.await?;
    record.destination = Some(Arc::clone(&destination));
    gateway
        .concurrency
        .enter(&destination.route, &mut seating)?;
    record.charge = quota::reserve_bare(
        (&destination.route.limits, &destination.rates),
        principal,
        &mut record.standings,
    )?;
    let handles: Vec<&Arc<Handle>> = ours(&destination).collect();
    let first = handles.first().ok_or(Refusal::UnsupportedEndpoint)?;
    record.phase = RequestPhase::ColdStart;
    match action {
        LoadAction::Load => {
            let patience = record.wait_max(destination.route.timeouts.cold_start);
            let is_up = handles.iter().any(|handle| handle.snapshot().is_coming());
            if !is_up {
                load(first, &principal.workspace, patience).await?;
            }
        }
        LoadAction::Unload => unload_all(&handles).await?,
    }
    if let Some(charge) = &mut record.charge {
        charge.sent();
    }
    Ok(models::json(Bytes::from_static(b"{\"success\":true}")))
}

/// Destination of the model that the body names, if this token may use it.
async fn named(
    (gateway, table): (&Gateway, &Table),
    principal: &Principal,
    route: Option<&str>,
    (parts, body, held): (&Parts, &mut Incoming, Lease),
    record: &mut Record,
) -> Result<Arc<Destination>, Refusal> {
    /// Any that takes JSON.
    const API: Api = Api::Chat;
    let coding = receive::check_headers(&parts.headers, API)?;
    record.phase = RequestPhase::Body;
    let limits = &gateway.settings.gateway;
    let max = limits.request_body_max.min(BODY_BYTES_MAX);
    let times = limits.body_times;
    let mut received = receive::receive(body, (API, coding), (max, times), held).await?;
    record.bytes_in = received.body.len() as u64;
    let body = decode(received.body, coding, (max, false), &mut received.held).await?;
    let scan = receive::read(&parts.headers, API, &body)?;
    if let Some(odd) = scan.odd {
        return Err(Refusal::Body(odd));
    }
    find(table, route, scan.model.as_deref(), principal)
}

/// Deployments of the destination that run here.
fn ours(destination: &Destination) -> impl Iterator<Item = &Arc<Handle>> {
    let targets = destination.targets.iter();
    targets.filter_map(|target| match &target.backend {
        Backend::Deployment { handle, .. } => Some(handle),
        Backend::External(_) => None,
    })
}

/// All of them, or none where one must stay.
async fn unload_all(handles: &[&Arc<Handle>]) -> Result<(), Refusal> {
    for handle in handles {
        if handle.is_kept() {
            return Err(Refusal::KeptUp);
        }
        if handle.is_in_use() {
            return Err(Refusal::InUse);
        }
    }
    for handle in handles {
        unload(handle).await?;
    }
    Ok(())
}

/// Waits until its worker is told to leave. The conductor looks again whether it is used,
/// and then does nothing.
async fn unload(handle: &Handle) -> Result<(), Refusal> {
    let deadline = Instant::now() + UNLOAD_WAIT_MAX;
    let mut is_told = false;
    loop {
        let news = handle.news();
        if !handle.snapshot().has_worker() {
            return Ok(());
        }
        if !std::mem::replace(&mut is_told, true) && !handle.unload() {
            return Err(Refusal::ShuttingDown);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if timeout(left, news).await.is_err() {
            return Err(Refusal::InUse);
        }
    }
}
