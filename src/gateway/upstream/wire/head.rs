//! Heads of requests, written, and of answers, read.

use std::io;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use memchr::memchr_iter;

/// Headers of an answer.
const HEADERS_MAX: usize = 100;

/// Room for the headers that the gateway adds to an answer, so that the map need not grow.
const HEADERS_ADDED: usize = 4;

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// True if the server lets the connection stand.
    pub(super) keeps: bool,
}

/// End of the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// At the end of its chunks.
    Chunked,
    /// With the connection.
    UntilEnd,
}

/// The head of a request as bytes.
pub(super) fn write<'a>(
    method: &Method,
    target: &PathAndQuery,
    headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) -> Bytes {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(method.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(target.as_str().as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\n");
    // A loop would ask each part of a chain again for every header.
    headers.for_each(|(name, value)| {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    });
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// Takes the head of an answer off what was read, if it is there whole. `seen` bytes of
/// it were looked at before, so that one that trickles in is not read again and again.
///
/// # Errors
///
/// Fails if it is no head, is too large, or the end of its body could be read in two ways.
pub(super) fn read(bytes: &mut BytesMut, seen: &mut usize) -> io::Result<Option<Head>> {
    let Some(length) = end(bytes, *seen)? else {
        if *seen == 0 {
            // A server that speaks something else is known from its first bytes.
            parse(bytes, |_| Ok(()))?;
        }
        *seen = bytes.len();
        return Ok(None);
    };
    *seen = 0;
    let head = bytes.split_to(length).freeze();
    let read = parse(&head, |answer| {
        let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or_else(|| bad("its status is none"))?;
        let mut headers = HeaderMap::with_capacity(answer.headers.len() + HEADERS_ADDED);
        for header in answer.headers.iter() {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let name = name.map_err(|_| bad("a header's name is none"))?;
            let value = HeaderValue::from_maybe_shared(head.slice_ref(header.value));
            headers.append(name, value.map_err(|_| bad("a header's value is none"))?);
        }
        let is_new = answer.version == Some(1);
        let framing = framing(status, is_new, &mut headers)?;
        let keeps = keeps(is_new, &headers) && framing != Framing::UntilEnd;
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(Head {
            response,
            framing,
            keeps,
        })
    })?;
    read.map(Some)
        .ok_or_else(|| bad("its head is no head of HTTP/1.1"))
}

/// Length of the head, once its empty line has come. Every line must end in CR LF:
/// what others take for two lines, or for one, is refused.
fn end(bytes: &[u8], seen: usize) -> io::Result<Option<usize>> {
    let fresh = bytes.get(seen..).unwrap_or_default();
    for at in memchr_iter(b'\n', fresh) {
        let line = bytes.get(..=seen + at).unwrap_or_default();
        if line.ends_with(b"\r\n\r\n") {
            return Ok(Some(line.len()));
        }
        if !line.ends_with(b"\r\n") {
            return Err(bad("a line of its head has no proper end"));
        }
    }
    if bytes.len() >= HEAD_BYTES_MAX {
        return Err(bad("its head is too large"));
    }
    Ok(None)
}

/// Gives the parts of a head to `make`; `None` where it is not whole.
fn parse<T>(
    bytes: &[u8],
    make: impl FnOnce(&httparse::Response<'_, '_>) -> io::Result<T>,
) -> io::Result<Option<T>> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut answer,
        bytes,
        &mut room,
    );
    match parsed {
        Ok(httparse::Status::Complete(_)) => make(&answer).map(Some),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(bad("its head has too many headers")),
        Err(_) => Err(bad("its head is no head of HTTP/1.1")),
    }
}

fn framing(status: StatusCode, is_new: bool, headers: &mut HeaderMap) -> io::Result<Framing> {
    let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_none || status.is_informational() {
        return Ok(Framing::None);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // Both: someone on the way may go by the other one.
        if length.is_some() {
            return Err(bad("it has a length and chunks"));
        }
        if !is_new {
            return Err(bad("it has chunks, which HTTP/1.0 does not know"));
        }
        // We ask for no other coding, and could not tell the client of one.
        let only = codings.next().is_none();
        return match coding.as_bytes() {
            word if only && word.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            word if only && word.eq_ignore_ascii_case(b"identity") => Ok(Framing::UntilEnd),
            _ => Err(bad("it has a coding that we did not ask for")),
        };
    }
    let Some(length) = length else {
        return Ok(Framing::UntilEnd);
    };
    if lengths.any(|other| other != length) {
        return Err(bad("it has two lengths"));
    }
    let digits = length.as_bytes();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = length.to_str().ok().filter(|_| is_number);
    let number = number.and_then(|digits| digits.parse().ok());
    let number = number.ok_or_else(|| bad("its length is none"))?;
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        // Said twice, it goes on once.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(number));
    }
    Ok(Framing::Length(number))
}

fn keeps(is_new: bool, headers: &HeaderMap) -> bool {
    let says = |word: &[u8]| {
        let values = headers.get_all(CONNECTION).iter();
        let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        words.any(|said| said.trim_ascii().eq_ignore_ascii_case(word))
    };
    if is_new {
        !says(b"close")
    } else {
        says(b"keep-alive")
    }
}

/// An answer that is none.
pub(super) fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
