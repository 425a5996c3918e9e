//! A stream whose head goes out before its server has answered.
//!
//! A request for a stream that waits longer than `open_after`, be it for a place, a worker
//! or the first byte, is answered with 200 and a comment now and then, where its route
//! allows that, so that no proxy between gives it up; while a worker of ours starts, the
//! comment says how far the start is. The rest
//! of the request's work is the future that this body owns: dropping it is the
//! cancellation, as ever. An error from then on is told in the stream, in
//! the API's own form.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::Sleep;

use super::body::Body;
use super::meter::COMMENT;
use crate::gateway::head::headers;
use crate::openai;
use crate::openai::api::Api;
use crate::openai::error::Broken;
use crate::time::{Instant, sleep_until, timeout};

/// The rest of a request's story, to its response.
type Work = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Words on how far the awaited start is; `None` where there is nothing to say.
pub type Words = Box<dyn Fn() -> Option<String> + Send>;

/// A body that waits for its response.
pub struct HeldBody {
    work: Work,
    api: Api,
    every: Duration,
    next: Pin<Box<Sleep>>,
    words: Words,
    is_greeted: bool,
}

/// Next step of the wait: a comment, or its end.
#[derive(Debug)]
pub enum HeldNext {
    /// A comment, to show that we are there.
    Comment(Bytes),
    /// The body that it has waited for.
    Body(Body),
    /// An error, as the last event.
    Error(Bytes),
}

impl fmt::Debug for HeldBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldBody")
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

/// Waits for `work` for `after`; then opens the stream and leaves the rest to its
/// body, which says a comment `every` so often. `is_open` is set when it does.
pub async fn open(
    api: Api,
    (after, every): (Duration, Duration),
    words: Words,
    is_open: &Arc<AtomicBool>,
    mut work: Work,
) -> Response<Body> {
    if let Ok(response) = timeout(after, &mut work).await {
        return response;
    }
    is_open.store(true, Ordering::Relaxed);
    let held = HeldBody {
        work,
        api,
        every,
        next: Box::pin(sleep_until(Instant::now() + every)),
        words,
        is_greeted: false,
    };
    let mut response = Response::new(Body::Held(Box::new(held)));
    let headers = response.headers_mut();
    let events = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, events);
    let fresh = HeaderValue::from_static("no-cache, no-transform");
    headers.insert(CACHE_CONTROL, fresh);
    headers.insert(headers::ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

impl HeldBody {
    /// Next step of the wait.
    pub(in crate::gateway) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<HeldNext> {
        if let Poll::Ready(response) = self.work.as_mut().poll(cx) {
            return Poll::Ready(self.becomes(response));
        }
        // At once, so that the head does not wait in someone's buffer.
        if !std::mem::replace(&mut self.is_greeted, true) {
            return Poll::Ready(HeldNext::Comment(self.comment()));
        }
        if self.next.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.next.as_mut().reset(Instant::now() + self.every);
        Poll::Ready(HeldNext::Comment(self.comment()))
    }

    /// A comment: one line, whatever the words are.
    fn comment(&self) -> Bytes {
        (self.words)().map_or(COMMENT, |words| {
            let words = words.replace(char::is_control, " ");
            Bytes::from(format!(": {words}\n"))
        })
    }

    fn becomes(&self, response: Response<Body>) -> HeldNext {
        let (head, body) = response.into_parts();
        let media = headers::media_type(&head.headers);
        let is_stream = media.eq_ignore_ascii_case("text/event-stream");
        match body {
            body if head.status == StatusCode::OK && is_stream => HeldNext::Body(body),
            Body::Full(Some(text)) if !head.status.is_success() => {
                HeldNext::Error(openai::error::stream_error_of(self.api, &text))
            }
            _ => {
                let words = "The server of this model did not answer with a stream.";
                let error = openai::error::stream_error(
                    self.api,
                    words,
                    "upstream_error",
                    Broken::default(),
                );
                HeldNext::Error(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_comment_says_in_one_line_how_far_a_start_is() {
        for (words, comment) in [
            (Some("loading, 5 % (a\nb)"), ": loading, 5 % (a b)\n"),
            (None, ":\n"),
        ] {
            let words: Words = Box::new(move || words.map(str::to_owned));
            let every = (Duration::ZERO, Duration::from_secs(10));
            let is_open = Arc::default();
            let work = Box::pin(std::future::pending());
            let response = open(Api::Chat, every, words, &is_open, work).await;
            let mut body = response.into_body();
            let began = Instant::now();
            for after in [Duration::ZERO, every.1] {
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), comment);
                assert_eq!(began.elapsed(), after);
            }
        }
    }
}
