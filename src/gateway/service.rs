//! The story of one request, step by step.

mod asking;
mod later;
mod listed;
mod mirror;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::answer::body::Body;
use super::answer::respond;
use super::client::peer::Peer;
use super::head::Head;
use super::head::headers;
use super::head::hops::Hops;
use super::memory::Lease;
use super::realtime::{self, Opening};
use super::record::holding::Holding;
use super::record::trace::Trace;
use super::record::{Record, RequestPhase};
use super::refusal::Refusal;
use super::request::authorize::authorize;
use super::request::cors::Page;
use super::request::decode::decode;
use super::request::entry::Entry;
use super::request::receive::Received;
use super::request::{cors, framing, host, inputs, receive};
use super::retrieve::{Wanted, retrieve};
use super::route::find::find;
use super::route::table::{Destination, Table};
use super::{Gateway, loading, models};
use crate::auth::{Keyring, Principal};
use crate::openai::api::Api;
use crate::openai::keep;
use crate::openai::request::Scan;
use crate::pieces::Pieces;
use asking::{Asking, Theirs, ask};
use later::Job;

/// Answer to a request that nothing refuses.
enum Answer {
    /// We answer it ourselves.
    Ours(Response<Body>),
    /// A server answers it.
    Theirs(Box<Theirs>),
    /// The connection becomes another one.
    Tunnel(Box<Opening>),
    /// A server may answer it, but the client is not to wait for that.
    Later(Box<Job>),
}

/// Serves one request.
///
/// # Errors
///
/// Never: what goes wrong becomes a response.
pub async fn handle(
    gateway: Arc<Gateway>,
    holding: Holding,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let peer = Arc::clone(&holding.peer);
    let request_id = match headers::client_request_id(request.headers()) {
        Some(id) => Arc::from(id),
        None => gateway.ids.next(),
    };
    let id_header = HeaderValue::from_str(&request_id);
    let settings = &gateway.settings;
    let origin = peer.origin(request.headers(), &settings.gateway.proxies.trusted);
    let trace = Trace::read(request.headers(), &gateway.ids, settings.telemetry.sample);
    let page = Page::read(&settings.cors, request.headers());
    let is_last = framing::ends_connection(request.version(), request.headers())
        || gateway.closes_connections() && request.version() <= Version::HTTP_11;
    let sink = gateway.sink.clone();
    let mut record = Record::start(sink, request_id, holding, origin, trace);
    record.head = Head::read(request.method(), request.uri(), request.headers());
    record
        .forwards
        .clone_from(&settings.gateway.forward_headers);
    let version = request.version();
    let method = request.method().clone();
    let (mut parts, mut body) = request.into_parts();
    let answered = {
        // Pinned where it is made: it would be moved into the choice.
        let answering = std::pin::pin!(async {
            let answered = answer(&gateway, (&mut parts, &mut body), &page, &mut record).await;
            let expects = || parts.headers.contains_key(EXPECT);
            let is_read =
                answered.is_ok() || receive::read_off(&mut body, version, expects()).await;
            // A stream of HTTP/2 ends by itself.
            let is_unread = !is_read && version <= Version::HTTP_11;
            peer.unread.store(is_unread, Ordering::Relaxed);
            answered
        });
        tokio::select! {
            biased;
            answered = answering => answered,
            () = peer.cut.cancelled() => Err(Refusal::ShuttingDown),
        }
    };
    let standings = record.standings;
    let mut response = match answered {
        Ok(Answer::Ours(response)) => {
            record.answered_by_us(response.status());
            response
        }
        Ok(Answer::Theirs(theirs)) => {
            let (answered, admission, delivery) = *theirs;
            respond::pass_on(answered, admission, delivery, record).await
        }
        Ok(Answer::Tunnel(opening)) => opening.response(record),
        Ok(Answer::Later(job)) => job.open(record).await,
        Err(refusal) => {
            let response = refusal.response(record.api);
            record.refused(&refusal, response.status());
            response.map(Body::full)
        }
    };
    headers::put_standings(response.headers_mut(), &standings);
    cors::mark(&settings.cors, page, response.headers_mut());
    if let Ok(value) = id_header {
        response.headers_mut().insert(headers::REQUEST_ID, value);
    }
    leave_head(&mut response, &method);
    if version <= Version::HTTP_11 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        mark_connection(response.headers_mut(), is_last, &gateway.keep_alive);
    }
    Ok(response)
}

/// Says whether the connection ends with this answer, or how long it may be idle.
fn mark_connection(map: &mut HeaderMap, is_last: bool, keep_alive: &HeaderValue) {
    if is_last {
        map.insert(CONNECTION, HeaderValue::from_static("close"));
    } else {
        map.insert(headers::KEEP_ALIVE, keep_alive.clone());
    }
}

/// Leaves the head alone of an answer of ours to HEAD, which hyper does over HTTP/1.1
/// only. A server's has no body.
fn leave_head(response: &mut Response<Body>, method: &Method) {
    if *method == Method::HEAD
        && let Body::Full(bytes) = response.body_mut()
        && let Some(bytes) = bytes.take().filter(|bytes| !bytes.is_empty())
    {
        let headers = response.headers_mut();
        headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| bytes.len().into());
    }
}

/// Decision by the head alone: what is asked for, or an answer already.
fn read_head(
    gateway: &Gateway,
    parts: &Parts,
    page: &Page,
    table: &Table,
    peer: &Peer,
) -> Result<Result<Entry, Response<Body>>, Refusal> {
    framing::check(parts)?;
    let max = gateway.settings.gateway.heads.target_bytes_max;
    if headers::target_bytes(&parts.uri) > max as usize {
        return Err(Refusal::TargetTooLong { max });
    }
    let max = gateway.settings.gateway.heads.bytes_max;
    if headers::head_bytes(&parts.uri, &parts.headers) > max as usize {
        return Err(Refusal::HeadTooLong { max });
    }
    if cors::is_preflight(&parts.method, &parts.headers)
        && let Some(response) = cors::preflight(&gateway.settings.cors, page, &parts.headers)?
    {
        return Ok(Err(response.map(Body::full)));
    }
    let own = host::entrance(parts, peer.tls_name.as_deref(), table)?;
    match Entry::read(&parts.method, &parts.uri, parts.version, own, table) {
        Err(Refusal::Method { .. }) if realtime::is_for_responses(parts) => {
            Err(Refusal::NoWebSocket)
        }
        read => read.map(Ok),
    }
}

async fn answer(
    gateway: &Arc<Gateway>,
    (parts, body): (&mut Parts, &mut Incoming),
    page: &Page,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    let table = gateway.table.load_full();
    let entry = match read_head(gateway, parts, page, &table, &record.peer)? {
        Ok(entry) => entry,
        Err(response) => return Ok(Answer::Ours(response)),
    };
    record.api = entry.api();
    record.hops = Hops::read(&parts.headers)?;
    (record.retry, record.patience) = headers::client_says(&parts.headers);
    match entry {
        Entry::Health => return Ok(Answer::Ours(plain(StatusCode::OK, "ok\n"))),
        Entry::Ready if gateway.is_ready() => {
            return Ok(Answer::Ours(plain(StatusCode::OK, gateway.ready_text())));
        }
        Entry::Ready => return Err(Refusal::ShuttingDown),
        _ => record.holding.admitted(&gateway.places).await?,
    }
    if entry == Entry::Jwks {
        return Ok(Answer::Ours(jwks(&gateway.verifier.keys())));
    }
    let since = record.elapsed();
    let principal = authorize(&parts.headers, entry.opens_for(page), &gateway.verifier).await?;
    record.waits.auth = record.elapsed().saturating_sub(since);
    record.principal = Some(Arc::clone(&principal));
    let declared = receive::declared(body, gateway.settings.gateway.request_body_max);
    let shared = (&gateway.memory, &gateway.places);
    let held = record.hold(shared, &principal, &parts.headers, declared)?;
    match entry {
        Entry::Models { .. } | Entry::Model { .. } => {
            models::answer(&table, &entry, &principal, &parts.headers).map(Answer::Ours)
        }
        Entry::Stored { route, id, action } => {
            let wanted = Wanted {
                route: route.as_deref(),
                id: &id,
                action,
            };
            let memory = (&*table, &gateway.stored);
            // Boxed, as it is rare: the room for it would be made for every request.
            Box::pin(retrieve(memory, &principal, wanted, parts, record))
                .await
                .map(|theirs| Answer::Theirs(Box::new(theirs)))
        }
        Entry::Load { route, action } => {
            let wanted = (route.as_deref(), action);
            let asked = (&*parts, body, held);
            let loading = loading::answer((gateway, &table), &principal, wanted, asked, record);
            // Boxed, as it is rare.
            Box::pin(loading).await.map(Answer::Ours)
        }
        Entry::Realtime { route } => {
            let at = (gateway, &table);
            let opened = Box::pin(realtime::open(at, &principal, route, parts, record)).await?;
            Ok(Answer::Tunnel(Box::new(opened)))
        }
        Entry::Api {
            route,
            api,
            upstream_path,
        } => {
            let called = Called {
                table: &table,
                principal: &principal,
                route: route.as_deref(),
                api,
                path: upstream_path,
            };
            infer(gateway, called, (parts, body, held), record).await
        }
        Entry::Health | Entry::Ready | Entry::Jwks => Err(Refusal::UnknownPath),
    }
}

/// Call of an API: by whom, and where.
struct Called<'a> {
    table: &'a Table,
    principal: &'a Arc<Principal>,
    route: Option<&'a str>,
    api: Api,
    path: &'static str,
}

/// Takes a request for a model to its answer: the body, a place, a server.
async fn infer(
    gateway: &Arc<Gateway>,
    called: Called<'_>,
    (parts, body, held): (&mut Parts, &mut Incoming, Lease),
    record: &mut Record,
) -> Result<Answer, Refusal> {
    let Called { principal, api, .. } = called;
    let coding = receive::check_headers(&parts.headers, api)?;
    // It counts before it has sent anything that we would have to keep.
    let mut seating = gateway.seat(principal)?;
    if let Some(route) = called.route.and_then(|path| called.table.route(path)) {
        gateway.concurrency.enter(route, &mut seating)?;
    }
    let head_took = record.elapsed();

    record.phase = RequestPhase::Body;
    let limits = &gateway.settings.gateway;
    let max = limits.request_body_max;
    let Received {
        body,
        scanner,
        mut held,
    } = receive::receive(body, (api, coding), (max, limits.body_times), held).await?;
    record.bytes_in = body.len() as u64;
    let mut body = decode(body, coding, (max, api.is_multipart()), &mut held).await?;
    record.waits.body = record.elapsed().saturating_sub(head_took);

    let mut scan = match scanner {
        Some(scanner) => scanner.end().map_err(Refusal::Body)?,
        None => receive::read(&parts.headers, api, &body)?,
    };
    record.stream = scan.stream;
    let destination = find(called.table, called.route, scan.model.as_deref(), principal)?;
    record.destination = Some(Arc::clone(&destination));
    destination.must_serve(api)?;
    if destination.is_ours() {
        if let Some(odd) = scan.odd {
            return Err(Refusal::Body(odd));
        }
        if scan.brings {
            // Boxed: it is seldom, and every request's future would carry it.
            let inputs = &destination.route.inputs;
            Box::pin(inputs::check(gateway, principal, inputs, &body)).await?;
        }
    }
    if destination.stands_for.is_some() || destination.route.keep_alive_max.is_some() {
        (body, scan) = rewritten(&destination, api, (&body, scan), record)?;
    }
    let route = &destination.route;
    gateway.concurrency.enter(route, &mut seating)?;

    if let Some(open_after) = destination.route.stream.open_after
        && scan.stream
        && api.streams()
    {
        return Ok(Answer::Later(Box::new(Job {
            gateway: Arc::clone(gateway),
            principal: Arc::clone(principal),
            destination,
            api,
            path: called.path,
            parts: std::mem::replace(parts, Request::new(()).into_parts().0),
            body: body.clone(),
            held,
            seating,
            open_after,
        })));
    }
    let asking = Asking {
        principal,
        destination: &destination,
        api,
        path: called.path,
        body: &body,
        scan: &scan,
    };
    // What the body takes is held until it was sent, and given back then.
    ask(gateway, asking, seating, parts, record)
        .await
        .map(Answer::Theirs)
}

/// The request without what it says of its model's staying awake, where the route takes
/// that; and as what its name stands for, where that has parameters of its own.
#[cold]
fn rewritten(
    destination: &Destination,
    api: Api,
    (body, scan): (&Pieces, Scan<'_>),
    record: &mut Record,
) -> Result<(Pieces, Scan<'static>), Refusal> {
    let (mut body, mut scan) = (body.clone(), scan);
    if let Some(max) = destination.route.keep_alive_max {
        let (keep, without, scanned) = keep::take_out(api, &body, scan).map_err(Refusal::Body)?;
        record.keep = keep.map(|span| span.min(max));
        (body, scan) = (without, scanned);
    }
    match &destination.stands_for {
        Some(name) => {
            let made = name.rules.apply(api, name.of.as_str(), &body, scan);
            made.map_err(Refusal::Body)
        }
        None => Ok((body, scan.into_owned())),
    }
}

/// Our public keys. Verifiers of our tokens ask again within minutes, so that a
/// rotation does not have to wait for them.
fn jwks(keys: &Keyring) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::from(keys.jwks_json())));
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/jwk-set+json");
    headers.insert(CONTENT_TYPE, json);
    let minutes = HeaderValue::from_static("public, max-age=300");
    headers.insert(CACHE_CONTROL, minutes);
    response
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    response
}
