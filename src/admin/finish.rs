//! Calls that change something, which go on to their end whoever leaves meanwhile.
//!
//! The future of a request is dropped when its client goes, and when the gateway ends.
//! Dropped between its write and its line of the audit, a change would be one that
//! nobody answers for. So each such call is a task of its own, once its body is whole.
//! So many run at once as there are places; further ones wait, and those end with
//! their clients, as nothing of them has begun.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{Semaphore, oneshot};

use super::api::BODY_BYTES_MAX;
use super::door::is_safe;
use super::error::{ApiError, Code};
use crate::tasks::Tasks;

/// Calls at once that change something.
const PLACES: usize = 64;

/// Places of the calls of one door, and the tasks that they become.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    tasks: Tasks,
    places: Arc<Semaphore>,
}

impl Finish {
    /// No call yet; those that come are tasks of this set.
    pub(super) fn new(tasks: &Tasks) -> Self {
        Self {
            tasks: tasks.clone(),
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    async fn run(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let (head, body) = request.into_parts();
        let body = whole(body).await?;
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|closed| ApiError::internal(&closed))?;
        let (tell, told) = oneshot::channel();
        self.tasks.spawn_bare(async move {
            let response = next.run(Request::from_parts(head, body)).await;
            drop(place);
            // A client that left has no use for it.
            drop(tell.send(response));
        });
        // It is lost where the call broke down in a panic.
        told.await.map_err(|lost| ApiError::internal(&lost))
    }
}

/// A layer around calls that may change something.
pub(super) async fn changes(
    State(finish): State<Finish>,
    request: Request,
    next: Next,
) -> Response {
    if is_safe(request.method()) {
        return next.run(request).await;
    }
    let done = finish.run(request, next).await;
    done.unwrap_or_else(IntoResponse::into_response)
}

/// The body once all of it is here.
async fn whole(body: Body) -> Result<Body, ApiError> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(read) => Ok(Body::from(read.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the body is longer than {BODY_BYTES_MAX} bytes");
            Err(ApiError::new(Code::Large, text))
        }
        Err(error) => Err(ApiError::bad(&*error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{get, post};
    use http::StatusCode;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use tokio::sync::Notify;

    use super::*;

    /// Two calls that tell when they begin, and end when they are told to.
    struct Stand {
        service: TowerToHyperService<Router>,
        begun: Arc<Notify>,
        go: Arc<Semaphore>,
        done: Arc<Semaphore>,
        tasks: Tasks,
    }

    fn stand() -> Stand {
        let (begun, tasks) = (Arc::new(Notify::new()), Tasks::new());
        let (go, done) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let call = {
            let (begun, go, done) = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&done));
            move |body: String| {
                let (begun, go, done) = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&done));
                async move {
                    begun.notify_one();
                    go.acquire().await.unwrap().forget();
                    done.add_permits(1);
                    body.len().to_string()
                }
            }
        };
        let router = Router::new()
            .route("/", post(call.clone()))
            .route("/seen", get(call))
            .layer(from_fn_with_state(Finish::new(&tasks), changes));
        Stand {
            service: TowerToHyperService::new(router),
            begun,
            go,
            done,
            tasks,
        }
    }

    /// Asks, and leaves once the call has begun.
    async fn leave(stand: &Stand, request: Request) {
        tokio::select! {
            _ = stand.service.call(request) => panic!("it waits for the word"),
            () = stand.begun.notified() => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_though_its_client_has_left_and_a_look_does_not() {
        let stand = stand();
        leave(&stand, Request::post("/").body(Body::from("abc")).unwrap()).await;
        leave(&stand, Request::get("/seen").body(Body::empty()).unwrap()).await;
        stand.go.add_permits(2);
        stand.done.acquire().await.unwrap().forget();
        assert!(stand.tasks.join(Duration::from_secs(1)).await);
        assert_eq!(stand.done.available_permits(), 0, "the look went on too");
    }

    #[tokio::test]
    async fn an_answer_arrives_and_what_is_too_long_is_refused_before_it_begins() {
        let stand = stand();
        stand.go.add_permits(1);
        let answer = |body: Vec<u8>| {
            let request = Request::post("/").body(Body::from(body)).unwrap();
            stand.service.call(request)
        };
        let whole = answer(vec![b'a'; BODY_BYTES_MAX]).await.unwrap();
        assert_eq!(whole.status(), StatusCode::OK);
        let long = answer(vec![b'a'; BODY_BYTES_MAX + 1]).await.unwrap();
        assert_eq!(long.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(stand.go.try_acquire().is_err(), "the first took the word");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_run_at_once_than_there_are_places_and_who_waits_and_leaves_never_begins() {
        let stand = stand();
        for _ in 0..PLACES {
            leave(&stand, Request::post("/").body(Body::empty()).unwrap()).await;
        }
        let request = Request::post("/").body(Body::empty()).unwrap();
        let waiting = stand.service.call(request);
        let waited = crate::time::timeout(Duration::from_mins(1), waiting).await;
        assert!(waited.is_err(), "it began without a place");
        assert_eq!(stand.tasks.len(), PLACES);
        stand.go.add_permits(PLACES + 1);
        assert!(stand.tasks.join(Duration::from_secs(1)).await);
        assert_eq!(stand.done.available_permits(), PLACES);
    }
}
