//! A client that comes back for a response: get, delete, cancel.
//!
//! The path names no model; where the response is was remembered when it was
//! made. What the token may use is asked again, as it may have changed.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method};

use super::admission::{Admission, admit_back};
use super::answer::meter::Delivery;
use super::forward::{Answered, Otherwise, Outgoing, forward, forwarded_headers};
use super::record::Record;
use super::refusal::Refusal;
use super::request::entry::StoredAction;
use super::route::find::may_use;
use super::route::stored::{self, Stored, Whereabouts};
use super::route::table::{Destination, Table};
use crate::auth::Principal;
use crate::openai::api::Api;
use crate::pieces::Pieces;
use crate::time::Instant;

/// Response that is asked for, and what to do with it.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The route whose path it was asked on.
    pub route: Option<&'a str>,
    /// Its id.
    pub id: &'a str,
    /// Action on the response.
    pub action: StoredAction,
}

/// Asks the server that made the response.
///
/// # Errors
///
/// A [`Refusal`]: the same for an id that never was, that is of another
/// workspace, or whose server is no more.
pub async fn retrieve(
    (table, memory): (&Table, &Arc<Stored>),
    principal: &Principal,
    wanted: Wanted<'_>,
    parts: &mut Parts,
    record: &mut Record,
) -> Result<(Answered, Admission, Delivery), Refusal> {
    let gone = || Refusal::UnknownResponse(wanted.id.to_owned());
    let at = memory
        .find(&principal.workspace, wanted.id)
        .filter(|at| wanted.route.is_none_or(|route| route == at.path))
        .ok_or_else(gone)?;
    let destination = table
        .by_entrance(&at.path, Some(at.model.as_str()))
        .filter(|destination| may_use(principal, destination))
        .ok_or_else(gone)?;
    record.destination = Some(Arc::clone(&destination));
    let mut admission = admit_back(principal, &destination, (&at, wanted.id), record).await?;
    let mut headers: HeaderMap = std::mem::take(&mut parts.headers);
    // It has no body.
    headers.remove(CONTENT_TYPE);
    let body = Pieces::default();
    let (method, tail) = match wanted.action {
        StoredAction::Get => (Method::GET, ""),
        StoredAction::Delete => (Method::DELETE, ""),
        StoredAction::Cancel => (Method::POST, "/cancel"),
    };
    let outgoing = Outgoing {
        api: Api::Responses,
        method,
        path: Cow::Owned(format!("/v1/responses/{}{tail}", wanted.id)),
        query: parts.uri.query(),
        headers: forwarded_headers(headers, record),
        body: &body,
        scan: None,
        ask_usage: false,
        ask_usage_always: false,
    };
    let began = Instant::now();
    let answered = forward(
        &outgoing,
        &destination,
        Otherwise::Nowhere,
        &mut admission,
        record,
    )
    .await?;
    let delivery = Delivery {
        api: Api::Responses,
        remove_usage_event: false,
        strip_usage: false,
        shows_apis: false,
        idle_max: destination.route.timeouts.idle,
        over_at: admission.place.over_at(began),
        keep_alive: destination.route.stream.keep_alive,
        stored: Some(stored::Passing::again(
            memory,
            &principal.workspace,
            wanted.id,
        )),
    };
    Ok((answered, admission, delivery))
}

/// Place of the response that the admitted server makes.
pub fn whereabouts(destination: &Destination, admission: &Admission) -> Whereabouts {
    Whereabouts {
        path: destination.route.path.clone(),
        model: destination.name.clone(),
        target: Arc::clone(&admission.place.target.label),
        worker: admission.place.server.generation(),
    }
}
