//! A request for a stream whose answer may begin before its server has answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};

use super::asking::{Asking, Theirs, ask};
use crate::auth::Principal;
use crate::config::Streams;
use crate::gateway::Gateway;
use crate::gateway::admission::concurrency::Seating;
use crate::gateway::answer::body::Body;
use crate::gateway::answer::{held, respond};
use crate::gateway::head::headers;
use crate::gateway::memory::Lease;
use crate::gateway::record::Record;
use crate::gateway::refusal::Refusal;
use crate::gateway::request::receive;
use crate::gateway::route::table::Destination;
use crate::openai::api::Api;
use crate::pieces::Pieces;

/// A request for a stream that may be opened before its server has answered.
pub(super) struct Job {
    pub(super) gateway: Arc<Gateway>,
    pub(super) principal: Arc<Principal>,
    pub(super) destination: Arc<Destination>,
    pub(super) api: Api,
    pub(super) path: &'static str,
    pub(super) parts: Parts,
    pub(super) body: Pieces,
    /// Memory that is held for the body.
    pub(super) held: Lease,
    pub(super) seating: Seating,
    pub(super) open_after: Duration,
}

impl Job {
    /// Asks, and opens the stream when that takes too long.
    pub(super) async fn open(self: Box<Self>, record: Box<Record>) -> Response<Body> {
        let streams = &self.destination.route.stream;
        let every = streams.keep_alive.unwrap_or(Streams::HELD_KEEP_ALIVE);
        let (api, after) = (self.api, self.open_after);
        let is_open = Arc::new(AtomicBool::new(false));
        let destination = Arc::clone(&self.destination);
        let words = Box::new(move || destination.loading());
        let work = Box::pin(self.run(record, Arc::clone(&is_open)));
        held::open(api, (after, every), words, &is_open, work).await
    }

    async fn run(
        mut self: Box<Self>,
        mut record: Box<Record>,
        is_open: Arc<AtomicBool>,
    ) -> Response<Body> {
        let cut = record.peer.cut.clone();
        let asked = tokio::select! {
            biased;
            asked = self.ask(&mut record) => asked,
            () = cut.cancelled() => Err(Refusal::ShuttingDown),
        };
        // The answer may take minutes, and the body was sent.
        self.body = Pieces::default();
        self.held.shrink(0);
        let standings = record.standings;
        let mut response = match asked {
            Ok(theirs) => {
                let (answered, admission, delivery) = *theirs;
                respond::pass_on(answered, admission, delivery, record).await
            }
            Err(refusal) => {
                let response = refusal.response(record.api);
                let told = is_open.load(Ordering::Relaxed);
                let status = if told {
                    StatusCode::OK
                } else {
                    response.status()
                };
                record.refused(&refusal, status);
                response.map(Body::full)
            }
        };
        headers::put_standings(response.headers_mut(), &standings);
        response
    }

    async fn ask(&mut self, record: &mut Record) -> Result<Box<Theirs>, Refusal> {
        let scan = receive::read(&self.parts.headers, self.api, &self.body)?;
        let asking = Asking {
            principal: &self.principal,
            destination: &self.destination,
            api: self.api,
            path: self.path,
            body: &self.body,
            scan: &scan,
        };
        let seating = std::mem::take(&mut self.seating);
        ask(&self.gateway, asking, seating, &mut self.parts, record).await
    }
}
