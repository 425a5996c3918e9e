//! The console of an instance, whole or followed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::error::ApiError;
use crate::admin::scope::{self, Which};
use crate::admin::view::ErrorView;
use crate::deployment::Handle;
use crate::time::sleep;

/// Pause between two signs of life on a followed log: a proxy in between keeps it open,
/// and a client that has left is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(logs))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct LogsQuery {
    /// Lines to begin with, at most 2,000; default 200.
    tail: Option<usize>,
    /// 1: go on as lines come, as server-sent events.
    follow: u8,
    /// One deployment of the instance, by its endpoint name.
    deployment: Option<String>,
}

/// The console: a JSON list of lines, or server-sent events when followed.
///
/// An event is `id: N` and `data: "line"`, a JSON text. With several deployments or
/// replicas a line begins with `[deployment] ` or `[deployment#2] `. A client that comes back with `Last-Event-ID`
/// gets what it missed, as far as that is still in memory.
#[utoipa::path(get, path = "/instances/{name}/logs", tag = "instances",
    params(("name" = String, Path, description = "The instance, or INSTANCE%2FMODEL"), LogsQuery),
    responses((status = 200, description = "With follow=1 `text/event-stream`", body = Vec<String>),
        (status = 403, body = ErrorView), (status = 404, body = ErrorView)))]
async fn logs(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let which = Which {
        deployment: query.deployment,
    };
    let handles = scope::deployments(&admin, &caller, &name, &which)?.into_iter();
    // Each replica has a console of its own.
    let handles: Vec<Arc<Handle>> = handles
        .flat_map(|first| {
            let others = first.replicas();
            let others = others.iter().cloned().collect::<Vec<_>>();
            std::iter::once(first).chain(others)
        })
        .collect();
    let several = handles.len() > 1;
    let tail = query.tail.unwrap_or(200);
    if query.follow == 0 {
        let line = |handle: &Arc<Handle>| {
            let (lines, _) = handle.console.tail(tail);
            let lines = lines.iter().map(|line| prefixed(handle, line, several));
            lines.collect::<Vec<_>>()
        };
        let lines: Vec<String> = handles.iter().flat_map(line).collect();
        return Ok(Json(lines).into_response());
    }
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let seen: Vec<u64> = seen
        .map(|id| id.split('.').filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    let resumed = seen.len() == handles.len();
    let followers = handles.into_iter().enumerate().map(|(place, handle)| {
        let from = seen.get(place).copied().filter(|_| resumed);
        Follower::new(handle, tail, from, several)
    });
    let body = Body::new(Followed {
        followers: followers.collect(),
        ready: VecDeque::new(),
        silence: Box::pin(sleep(KEEP_ALIVE)),
    });
    let headers = [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, body).into_response())
}

fn prefixed(handle: &Handle, line: &str, several: bool) -> String {
    if several {
        // The replica's number is in the id, not in its spec.
        let name = handle.id.as_str();
        let name = name.split_once('/').map_or(name, |(_, name)| name);
        format!("[{name}] {line}")
    } else {
        line.to_owned()
    }
}

/// A console that is followed.
struct Follower {
    handle: Arc<Handle>,
    next: u64,
    several: bool,
    fresh: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Follower {
    fn new(handle: Arc<Handle>, tail: usize, from: Option<u64>, several: bool) -> Self {
        let (_, end) = handle.console.tail(0);
        // A number that is not reached yet is of another process's console.
        let from = from.filter(|from| *from <= end);
        Self {
            next: from.unwrap_or_else(|| end.saturating_sub(tail as u64)),
            fresh: Box::pin(std::future::ready(())),
            several,
            handle,
        }
    }

    /// Resolves once there are lines from number `from` on.
    fn wait(handle: &Handle, from: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut count = handle.console.watch();
        Box::pin(async move {
            // The console lives as long as the handle; its end ends the wait.
            drop(count.wait_for(|count| *count > from).await);
        })
    }
}

/// A body of server-sent events, one a line. It ends when the client leaves.
struct Followed {
    followers: Vec<Follower>,
    ready: VecDeque<Bytes>,
    silence: Pin<Box<tokio::time::Sleep>>,
}

impl Followed {
    /// Takes the lines of the follower at `place` that are new.
    fn take(&mut self, place: usize) {
        let Some(follower) = self.followers.get_mut(place) else {
            return;
        };
        let (lines, next) = follower.handle.console.since(follower.next);
        let first = next.saturating_sub(lines.len() as u64);
        follower.fresh = Follower::wait(&follower.handle, next);
        for (line, number) in lines.iter().zip(first..) {
            let Some(follower) = self.followers.get_mut(place) else {
                return;
            };
            follower.next = number + 1;
            let text = prefixed(&follower.handle, line, follower.several);
            let ids: Vec<String> = self.followers.iter().map(|f| f.next.to_string()).collect();
            let event = format!("id: {}\ndata: {}\n\n", ids.join("."), json!(text));
            self.ready.push_back(Bytes::from(event));
        }
        if let Some(follower) = self.followers.get_mut(place) {
            follower.next = next;
        }
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.ready.pop_front() {
                this.silence
                    .as_mut()
                    .reset(crate::time::Instant::now() + KEEP_ALIVE);
                return Poll::Ready(Some(Ok(http_body::Frame::data(event))));
            }
            let mut moved = false;
            for place in 0..this.followers.len() {
                let fresh = this
                    .followers
                    .get_mut(place)
                    .map(|f| f.fresh.as_mut().poll(cx));
                if fresh.is_some_and(|fresh| fresh.is_ready()) {
                    moved = true;
                    this.take(place);
                }
            }
            if !moved {
                if this.silence.as_mut().poll(cx).is_ready() {
                    this.ready.push_back(Bytes::from_static(b": \n\n"));
                    continue;
                }
                return Poll::Pending;
            }
        }
    }
}
