//! Reads what is left of a refused body, so that the refusal arrives.
//!
//! A server that answers and closes while its client still sends makes the
//! client's system throw the answer away. Here the rest is read first, within a
//! bound of bytes and of time; a client that sends more is cut off.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::EXPECT;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::gateway::request::receive::read_rest;

/// Most bytes of a refused body that are read.
const BYTES_MAX: usize = 16 << 20;
/// Longest that a refused body is read.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Place for a body that was not read to its end.
type Left = Arc<Mutex<Option<Body>>>;

/// A layer around everything that may answer before it has read the body.
pub(super) async fn rest(request: Request, next: Next) -> Response {
    // A client that waits to be told to send has sent nothing that stands in the way.
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let left = Left::default();
    let request = request.map(|body| {
        Body::new(Lent {
            body,
            left: Arc::clone(&left),
        })
    });
    let response = next.run(request).await;
    let body = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut body) = body {
        // A client that sends too much, or too slowly, does without the answer.
        let _ended = read_rest(&mut body, (BYTES_MAX, TIME_MAX)).await;
    }
    response
}

/// A body that is handed back when it is dropped before its end.
struct Lent {
    body: Body,
    left: Left,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            let body = std::mem::take(&mut self.body);
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::DefaultBodyLimit;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use http::StatusCode;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    /// Megabytes, each counted when it is read.
    struct Megabytes {
        left: usize,
        read: Arc<AtomicUsize>,
    }

    impl HttpBody for Megabytes {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            self.read.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Some(Ok(Frame::data(vec![b'x'; 1 << 20].into()))))
        }
    }

    /// The status, and how many megabytes of so many were read.
    async fn ask(megabytes: usize, expects: bool) -> (StatusCode, usize) {
        let router = Router::new()
            .route(
                "/",
                post(|body: Bytes| async move { body.len().to_string() }),
            )
            .layer(DefaultBodyLimit::max(1 << 10))
            .layer(from_fn(rest));
        let read = Arc::new(AtomicUsize::new(0));
        let mut request = Request::post("/");
        if expects {
            request = request.header(EXPECT, "100-continue");
        }
        let body = Megabytes {
            left: megabytes,
            read: Arc::clone(&read),
        };
        let service = TowerToHyperService::new(router);
        let answer = service.call(request.body(body).unwrap()).await.unwrap();
        (answer.status(), read.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_refused_body_is_read_to_its_end_so_that_the_refusal_arrives() {
        assert_eq!(ask(5, false).await, (StatusCode::PAYLOAD_TOO_LARGE, 5));
    }

    #[tokio::test]
    async fn a_refused_body_without_end_is_read_within_the_bound() {
        let (status, read) = ask(1_000, false).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!((16..20).contains(&read), "{read}");
    }

    #[tokio::test]
    async fn who_waits_to_be_told_to_send_is_not_read() {
        let (status, read) = ask(5, true).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(read <= 1, "{read}");
    }
}
