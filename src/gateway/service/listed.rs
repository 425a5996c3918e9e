//! A request for a name that leads to a list: one target after another, until one answers.

use http::request::Parts;

use super::asking::{Asking, Theirs, prepare, waited};
use super::mirror;
use crate::config::GoOn;
use crate::gateway::Gateway;
use crate::gateway::admission::concurrency::Seating;
use crate::gateway::admission::{Call, Failed, Step, Walk};
use crate::gateway::answer::respond::heard;
use crate::gateway::forward::{Answered, Otherwise, Outgoing, forward};
use crate::gateway::models::context_max;
use crate::gateway::record::Record;
use crate::gateway::refusal::Refusal;
use crate::gateway::retry::{may_be_too_long, onward, too_long};
use crate::gateway::route::table::Destination;
use crate::gateway::route::table::lineup::Lineup;
use crate::openai::api::Api;
use crate::time::Instant;

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
    let mut walk = Walk::begin(seating, (call, list), key, record).await?;
    let headers = std::mem::take(&mut parts.headers);
    let (outgoing, mut delivery) = prepare(&asking, parts, headers, record);
    let is_too_short = |to: &Destination, when: &[GoOn]| is_too_long(&asking, to, when);
    loop {
        let mut step = walk.next(is_too_short, record).await?;
        if record.retries == 0 {
            record.waits.overhead = record.elapsed().saturating_sub(waited(record));
        }
        let began = Instant::now();
        match sent(&outgoing, &mut step, record).await {
            Ok(answered) => {
                let (one, admission) = (step.one, step.admission);
                mirror::copy(gateway, (&outgoing, destination), (list, &one), record);
                asking.goes_on(gateway, &admission, began, &mut delivery);
                return Ok(Box::new((answered, admission, delivery)));
            }
            Err(failed) => walk.leave(step.admission, failed, record)?,
        }
    }
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
    step: &mut Step<'_>,
    record: &mut Record,
) -> Result<Answered, Failed> {
    let (call, when) = (step.call, step.when);
    let otherwise = if when.contains(&GoOn::Unreachable) {
        Otherwise::Targets(call.pick)
    } else {
        Otherwise::Servers(call.pick)
    };
    let result = forward(
        outgoing,
        call.destination,
        otherwise,
        &mut step.admission,
        record,
    )
    .await;
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
