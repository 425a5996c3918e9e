//! A request for a name that leads to a list: one target after another, until one answers.
//!
//! Each is asked at most once, so the length of the list bounds what one request costs;
//! the budget of retries is for the servers of one target. Nothing is passed over once an
//! answer began.

use http::request::Parts;

use super::asking::{Asking, Theirs, prepare, waited};
use super::mirror;
use crate::config::GoOn;
use crate::gateway::Gateway;
use crate::gateway::admission::concurrency::Seating;
use crate::gateway::admission::{Admission, Call, place, seat};
use crate::gateway::answer::respond::heard;
use crate::gateway::forward::{Answered, Otherwise, Outgoing, forward};
use crate::gateway::models::context_max;
use crate::gateway::record::{Record, RequestPhase};
use crate::gateway::refusal::Refusal;
use crate::gateway::retry::{may_be_too_long, onward, too_long};
use crate::gateway::route::table::Destination;
use crate::gateway::route::table::lineup::{Lineup, Served};
use crate::openai::api::Api;
use crate::telemetry::metrics::retried;
use crate::time::Instant;

/// Reason why a target does not answer.
enum Failed {
    /// The next one is asked, for this reason.
    Onward(&'static str),
    /// The request ends here.
    Here(Refusal),
}

/// A place, a server, the head of its answer.
pub(super) async fn ask(
    gateway: &Gateway,
    (asking, list): (Asking<'_>, &Lineup),
    seating: Seating,
    parts: &mut Parts,
    record: &mut Record,
) -> Result<Box<Theirs>, Refusal> {
    let Asking {
        principal,
        destination,
        api,
        scan,
        ..
    } = asking;
    let rules = &destination.route.load_balancing;
    let key = list.key(principal, &parts.headers, rules);
    let call = Call {
        principal,
        destination,
        api,
        scan,
        pick: destination.pick(api, &parts.headers, scan, asking.body),
    };
    let mut seated = seat(seating, call, record).await?;
    // What is known now, and not before the wait for a place of the route.
    let ranked = list.ranked(api, key);
    let headers = std::mem::take(&mut parts.headers);
    let (outgoing, mut delivery) = prepare(&asking, parts, headers, record);
    let mut failed = Vec::new();
    for (at, one) in ranked.iter().enumerate() {
        record.served = Served::at(&ranked, at, &failed).map(Box::new);
        let when = if at + 1 < ranked.len() {
            one.listed.rule.when.as_slice()
        } else {
            &[]
        };
        let call = Call {
            destination: &one.listed.destination,
            ..call
        };
        if is_too_long(&asking, call.destination, when) {
            failed.push("too_long");
            continue;
        }
        record.phase = RequestPhase::Queue;
        let place = match place(call, record).await {
            Ok(place) => place,
            Err(refusal) => {
                failed.push(onward(Err(&refusal), when, false).ok_or(refusal)?);
                continue;
            }
        };
        let mut admission = Admission::admitted(place, seated, record);
        if record.retries == 0 {
            record.waits.overhead = record.elapsed().saturating_sub(waited(record));
        }
        let began = Instant::now();
        match sent(&outgoing, (call, when), &mut admission, record).await {
            Ok(answered) => {
                mirror::copy(gateway, (&outgoing, destination), (list, one), record);
                asking.goes_on(gateway, &admission, began, &mut delivery);
                return Ok(Box::new((answered, admission, delivery)));
            }
            Err(Failed::Here(refusal)) => return Err(refusal),
            Err(Failed::Onward(why)) => {
                retried(destination.route.name.as_str(), why);
                record.retries += 1;
                failed.push(why);
            }
        }
        // Out of this one's place before it waits for another.
        seated = admission.leave();
    }
    // All that served it have left while the request waited.
    let unserved = destination.must_serve(api).err();
    Err(unserved.unwrap_or(Refusal::Unreachable))
}

/// Bytes of a body that are one token at least: of words of any language, each letter
/// written as an escape of six bytes.
const TOKEN_BYTES_MAX: usize = 48;
/// No model takes fewer tokens.
const CONTEXT_MIN: u64 = 128;

/// True if the prompt is longer than the target's context, by so much that it is not worth
/// asking: that may take a start. Where it is less sure, the server says it.
fn is_too_long(asking: &Asking<'_>, destination: &Destination, when: &[GoOn]) -> bool {
    let tokens_min = (asking.body.len() / TOKEN_BYTES_MAX) as u64;
    // Other APIs take many prompts at once or cut them, and media many bytes for few tokens.
    let is_one = matches!(asking.api, Api::Chat | Api::Messages) && !asking.scan.brings;
    let may_be = tokens_min > CONTEXT_MIN && is_one && when.contains(&GoOn::TooLong);
    may_be && context_max(destination).is_some_and(|context| tokens_min > context)
}

/// Sends it to the target that has a place for it, and reads the head of the answer.
async fn sent(
    outgoing: &Outgoing<'_>,
    (call, when): (Call<'_>, &[GoOn]),
    admission: &mut Admission,
    record: &mut Record,
) -> Result<Answered, Failed> {
    let otherwise = if when.contains(&GoOn::Unreachable) {
        Otherwise::Targets(call.pick)
    } else {
        Otherwise::Servers(call.pick)
    };
    let result = forward(outgoing, call.destination, otherwise, admission, record).await;
    let status = result.as_ref().map(|answered| answered.head.status);
    if let Some(why) = onward(status, when, outgoing.may_replay()) {
        return Err(Failed::Onward(why));
    }
    let answered = result.map_err(Failed::Here)?;
    if !may_be_too_long(answered.head.status, when) {
        return Ok(answered);
    }
    let answered = heard(answered).await;
    let said = answered.said.as_deref().unwrap_or_default();
    match too_long(answered.head.status, said) {
        Some(why) => Err(Failed::Onward(why)),
        None => Ok(answered),
    }
}
