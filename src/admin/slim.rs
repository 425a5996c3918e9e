//! Answers of the API, as few bytes as there is news.
//!
//! ```text
//!  page ── A-IM: tidegate-rows, If-None-Match: "TAG" ─► 304, nothing new
//!                                                      226, the rows that differ
//!                                                      200, all of it, with a TAG
//! ```
//!
//! A client that asks for no differences gets the whole answer, packed if it takes gzip.
//! Streams and errors pass as they are. What was sent is remembered by [`super::sent`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use http::{HeaderValue, Method, StatusCode};

use super::Admin;
use super::access::Caller;
use super::dashboard::takes_gzip;
use super::sent::{Sent, Told};
use crate::time::unix_seconds;

/// Words by which a page asks for differences, after RFC 3229.
const ROWS: &str = "tidegate-rows";
const A_IM: &str = "a-im";
const IM: &str = "im";

/// Least answer that is packed, in bytes.
const PACKED_MIN: usize = 1_000;
/// Largest answer that is looked into, in bytes.
const BODY_MAX: usize = 32 << 20;

/// Form of the answer that a request asks for.
struct Asked {
    wants_rows: bool,
    since: Option<String>,
    packed: bool,
    /// Hash of the caller and of the request.
    of: u64,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let headers = request.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut hasher = DefaultHasher::new();
        (request.uri().path(), request.uri().query()).hash(&mut hasher);
        if let Some(caller) = request.extensions().get::<Caller>() {
            (&caller.name, caller.workspace()).hash(&mut hasher);
            caller.role.as_str().hash(&mut hasher);
        }
        Self {
            wants_rows: text(A_IM) == Some(ROWS),
            since: text(IF_NONE_MATCH.as_str()).map(|tag| tag.trim_matches('"').to_owned()),
            // Programs that say nothing may not unpack.
            packed: headers.contains_key(ACCEPT_ENCODING) && takes_gzip(headers),
            of: hasher.finish(),
        }
    }
}

/// A layer around the calls, inside of the door.
pub(super) async fn answers(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if request.method() != Method::GET {
        return next.run(request).await;
    }
    let asked = Asked::of(&request);
    let response = next.run(request).await;
    let size = response.body().size_hint().exact();
    let size = size.and_then(|size| usize::try_from(size).ok());
    let is_json = response.headers().get(CONTENT_TYPE);
    let is_json = is_json.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let fits = size.is_some_and(|size| size <= BODY_MAX);
    if response.status() != StatusCode::OK || !is_json || !fits {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX).await else {
        return broken();
    };
    // Large answers take milliseconds to look through and to pack.
    let made = tokio::task::spawn_blocking(move || {
        let mut response = Response::from_parts(parts, Body::empty());
        let body = if asked.wants_rows {
            told(&admin.sent, &asked, body, &mut response)
        } else {
            body
        };
        fill(&asked, body, &mut response);
        response
    });
    made.await.unwrap_or_else(|_| broken())
}

fn broken() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// The body that tells what is new, and its status.
fn told(sent: &Sent, asked: &Asked, body: Bytes, response: &mut Response) -> Bytes {
    // An answer with a tag of its own is that of a file.
    if response.headers().contains_key(ETAG) {
        return body;
    }
    let now = i64::try_from(unix_seconds()).unwrap_or_default();
    let Some(news) = sent.news(&body, asked.since.as_deref(), asked.of, now) else {
        return body;
    };
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", news.tag)) {
        response.headers_mut().insert(ETAG, tag);
    }
    match news.told {
        Told::Nothing => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            Bytes::new()
        }
        Told::Rows(rows) => {
            *response.status_mut() = StatusCode::IM_USED;
            let headers = response.headers_mut();
            headers.insert(IM, HeaderValue::from_static(ROWS));
            rows.into()
        }
        Told::All => body,
    }
}

/// Puts the body in, packed where that is welcome and worth it.
fn fill(asked: &Asked, body: Bytes, response: &mut Response) {
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding, a-im"));
    let packed = (asked.packed && body.len() >= PACKED_MIN).then(|| packed(&body));
    *response.body_mut() = match packed {
        Some(Ok(packed)) => {
            let headers = response.headers_mut();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Body::from(packed)
        }
        _ => Body::from(body),
    };
}

fn packed(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    packer.write_all(body)?;
    packer.finish()
}
