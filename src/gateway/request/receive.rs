//! The body of a request, received whole within bounds.
//!
//! Nothing of it goes on before its last byte. An engine begins with that byte anyway;
//! until then a client that sends slowly would hold a place at it, and a body that turns
//! out to be broken, or to need an edit, could not be taken back. OpenAI's SDK for Python
//! writes `model` behind the messages, so most bodies could not go on earlier in any case.
//! What it would save is at most what a bare proxy saves that sends on whatever comes: see
//! `body-1m` among the scenarios of `benches/`.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};

use super::decode::{Coding, no_memory};
use crate::config::shares::BodyTimes;
use crate::gateway::memory::Lease;
use crate::gateway::refusal::Refusal;
use crate::openai::api::Api;
use crate::openai::form;
use crate::openai::request::{self, Scan, Scanner};
use crate::pieces::{Gathering, Pieces};
use crate::time::{Instant, timeout};

/// Checks what the headers say of the body, before any of it is read. Returns how
/// it is packed.
///
/// # Errors
///
/// A [`Refusal`] for another type than `api` takes, or a packing that we can't
/// undo.
pub fn check_headers(headers: &HeaderMap, api: Api) -> Result<Coding, Refusal> {
    let expected = if api.is_multipart() {
        "multipart/form-data"
    } else {
        "application/json"
    };
    let given = headers.get(CONTENT_TYPE);
    let is_expected = |value: &HeaderValue| {
        // Nearly always it is spelled just so.
        value.as_bytes() == expected.as_bytes()
            || value
                .to_str()
                .ok()
                .and_then(|text| text.split(';').next())
                .is_some_and(|text| text.trim().eq_ignore_ascii_case(expected))
    };
    if !given.is_some_and(is_expected) {
        return Err(Refusal::ContentType { expected });
    }
    Coding::read(headers)
}

/// Facts in the body, read as JSON or as a form.
///
/// # Errors
///
/// A [`Refusal`] where it can't be read, or can be read in two ways.
pub fn read<'a>(headers: &HeaderMap, api: Api, body: &'a Pieces) -> Result<Scan<'a>, Refusal> {
    let one = body.as_one();
    if !api.is_multipart() {
        let in_pieces = || {
            let mut scanner = Scanner::default();
            body.iter().for_each(|piece| scanner.feed(piece));
            scanner.end()
        };
        let scan = one.map_or_else(in_pieces, |whole| request::scan(whole));
        return scan.map_err(Refusal::Body);
    }
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let boundary = form::boundary(media.unwrap_or_default()).map_err(Refusal::Body)?;
    // A form was put together when it was received.
    let whole = one.map_or(&[][..], |whole| whole);
    form::scan(whole, &boundary).map_err(Refusal::Body)
}

/// Length of the body that the head declares; 0 where it declares none, or more than `max`.
pub fn declared(body: &Incoming, max: u64) -> u64 {
    body.size_hint()
        .exact()
        .filter(|length| *length <= max)
        .unwrap_or_default()
}

/// A body, and what was read in it as it came.
#[derive(Debug)]
pub struct Received {
    /// The body; of a form in one piece.
    pub body: Pieces,
    /// `None` where nothing was read yet. Boxed: most bodies come in one piece, and the
    /// room for it would be made for every request.
    pub scanner: Option<Box<Scanner>>,
    /// Memory that is held for the body.
    pub held: Lease,
}

/// True if a body is read as it comes.
fn is_read_as_it_comes(api: Api, coding: Coding) -> bool {
    !api.is_multipart() && coding == Coding::Identity
}

/// Receives a body of at most `max` bytes that comes as `times` say, and is held by
/// `held`: what its head declares already, what it does not before it is read. JSON that
/// comes in several pieces is read piece by piece, while the processor still holds them.
///
/// # Errors
///
/// A [`Refusal`] when it is too large, too slow, or breaks off, or memory is short.
pub async fn receive(
    body: &mut Incoming,
    (api, coding): (Api, Coding),
    (max, times): (u64, BodyTimes),
    mut held: Lease,
) -> Result<Received, Refusal> {
    let size = body.size_hint();
    if size.lower() > max {
        return Err(Refusal::TooLarge { max });
    }
    let began = Instant::now();
    let declared = size.exact().and_then(|size| usize::try_from(size).ok());
    let mut gathering = Gathering::expecting(declared, api.is_multipart());
    let mut scanner: Option<Box<Scanner>> = None;
    loop {
        if declared.is_none() {
            hold_ahead(&mut held, gathering.len() as u64)?;
        }
        let frame = next_frame(body, &times, began, gathering.len() as u64).await?;
        let Some(frame) = frame else { break };
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        if (gathering.len() + bytes.len()) as u64 > max {
            return Err(Refusal::TooLarge { max });
        }
        // One that comes in one piece is read without a copy of what matters in it.
        let is_one = gathering.is_empty() && body.is_end_stream();
        if !is_one && is_read_as_it_comes(api, coding) {
            scanner.get_or_insert_default().feed(&bytes);
        }
        gathering.push(bytes).map_err(|error| no_memory(&error))?;
    }
    let body = gathering.end();
    held.shrink(body.len() as u64);
    Ok(Received {
        body,
        scanner,
        held,
    })
}

/// The next frame of a body that has brought so many bytes since it `began`; `None` at
/// its end.
async fn next_frame(
    body: &mut Incoming,
    times: &BodyTimes,
    began: Instant,
    bytes: u64,
) -> Result<Option<Frame<Bytes>>, Refusal> {
    let left = times.over_at(bytes).saturating_sub(began.elapsed());
    let limit = left.min(times.pause_max);
    let frame = timeout(limit, body.frame())
        .await
        .map_err(|_| Refusal::BodyTimeout)?;
    frame.transpose().map_err(|_| Refusal::BodyTimeout)
}

/// Holds what the next frames may bring, before one is read.
fn hold_ahead(held: &mut Lease, came: u64) -> Result<(), Refusal> {
    /// hyper gives out no more at once.
    const FRAME_BYTES_MAX: u64 = 64 << 10;
    if held.bytes() < came + FRAME_BYTES_MAX {
        // In ever larger steps: no more than a quarter ahead.
        held.resize(came + FRAME_BYTES_MAX + came / 4)?;
    }
    Ok(())
}

/// Most that is read of a body that was refused: bytes, and for how long.
pub type Unread = (usize, Duration);

/// An answer of HTTP/2 that comes before the end of its request is followed by a reset
/// of the stream, and there are clients that read only that: curl 7 shows an error of
/// its own instead of the answer.
const REST_OF_HTTP_2: Unread = (8 << 20, Duration::from_secs(2));
/// In HTTP/1.1 what was read to its end leaves the connection of use, and a small body
/// is here already. Of a large one the rest is [`crate::gateway::client::stream::linger`]'s.
const REST_OF_HTTP_1: Unread = (64 << 10, Duration::from_millis(50));

/// Reads the rest of a body that was refused, within bounds, for nothing. Returns
/// whether it has ended.
pub async fn read_off(body: &mut Incoming, version: Version, expects: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    // The client sent `Expect: 100-continue` and we never said 100, so it sends no body.
    if expects {
        return false;
    }
    let rest = match version {
        Version::HTTP_2 => REST_OF_HTTP_2,
        _ => REST_OF_HTTP_1,
    };
    read_rest(body, rest).await
}

/// Reads what is left of a body for nothing: so many bytes at most, and for so long.
/// Returns whether it has ended.
pub async fn read_rest<B>(body: &mut B, (mut left, time): Unread) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    };
    timeout(time, reading).await.unwrap_or(false)
}
