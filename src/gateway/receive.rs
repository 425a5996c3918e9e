//! The body of a request, read whole within bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::decode::Coding;
use super::error::Refusal;
use crate::openai::api::Api;
use crate::openai::form;
use crate::openai::request::{self, Scan};
use crate::time::timeout;

/// Room that is made for a body before its bytes are there, at most.
const RESERVE_MAX: u64 = 1 << 20;

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

/// What the body says of itself, as JSON or as a form.
///
/// # Errors
///
/// A [`Refusal`] where it can't be read, or can be read in two ways.
pub fn read<'a>(headers: &HeaderMap, api: Api, body: &'a [u8]) -> Result<Scan<'a>, Refusal> {
    if !api.is_multipart() {
        return request::scan(body).map_err(Refusal::Body);
    }
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let boundary = form::boundary(media.unwrap_or_default()).map_err(Refusal::Body)?;
    form::scan(body, &boundary).map_err(Refusal::Body)
}

/// Reads a body of at most `max` bytes whose pieces come at most `pause` apart.
///
/// # Errors
///
/// A [`Refusal`] when it is too large, too slow, or breaks off.
pub async fn receive(body: &mut Incoming, max: u64, pause: Duration) -> Result<Bytes, Refusal> {
    let hint = body.size_hint();
    if hint.lower() > max {
        return Err(Refusal::TooLarge { max });
    }
    let mut first: Option<Bytes> = None;
    let mut all: Option<BytesMut> = None;
    let mut length = 0_u64;
    loop {
        let frame = timeout(pause, body.frame())
            .await
            .map_err(|_| Refusal::BodyTimeout)?;
        let Some(frame) = frame else { break };
        let Ok(bytes) = frame.map_err(|_| Refusal::BodyTimeout)?.into_data() else {
            continue;
        };
        length += bytes.len() as u64;
        if length > max {
            return Err(Refusal::TooLarge { max });
        }
        // A body that comes in one piece is never copied.
        match (&mut all, first.take()) {
            (Some(all), _) => all.extend_from_slice(&bytes),
            (None, None) => first = Some(bytes),
            (None, Some(begin)) => {
                let room = hint.lower().clamp(length, RESERVE_MAX.max(length));
                let mut joined = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
                joined.extend_from_slice(&begin);
                joined.extend_from_slice(&bytes);
                all = Some(joined);
            }
        }
    }
    Ok(all.map_or_else(|| first.unwrap_or_default(), BytesMut::freeze))
}

/// How much is read of a body that was refused: bytes, and for how long.
pub type Rest = (usize, Duration);

/// An answer of HTTP/2 that comes before the end of its request is followed by a reset
/// of the stream, and there are clients that read only that: curl 7 shows an error of
/// its own instead of the answer.
const REST_OF_HTTP_2: Rest = (8 << 20, Duration::from_secs(2));
/// In HTTP/1.1 what was read to its end leaves the connection of use, and a small body
/// is here already. Of a large one the rest is [`super::linger`]'s.
const REST_OF_HTTP_1: Rest = (64 << 10, Duration::from_millis(50));

/// Reads the rest of a body that was refused, within bounds, for nothing. Returns
/// whether it has ended.
pub async fn read_off(body: &mut Incoming, version: Version, expects: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    // It waits for our word, and will not come.
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
pub async fn read_rest<B>(body: &mut B, (mut left, time): Rest) -> bool
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
