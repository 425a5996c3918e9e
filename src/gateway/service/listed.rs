//! A request for a name that leads to a list: one target after another, until one answers.
//!
//! The first is asked as any destination is ([`super::asking`]); here stands what is more to
//! it, and what follows where it fails.

use super::asking::{Asking, Theirs};
use super::mirror;
use crate::config::GoOn;
use crate::gateway::Gateway;
use crate::gateway::admission::{Course, Failed, Step};
use crate::gateway::answer::meter::Delivery;
use crate::gateway::answer::respond::heard;
use crate::gateway::forward::{Answered, Otherwise, Outgoing, forward};
use crate::gateway::models::context_max;
use crate::gateway::record::Record;
use crate::gateway::refusal::Refusal;
use crate::gateway::retry::{may_be_too_long, onward, too_long};
use crate::gateway::route::table::Destination;
use crate::openai::api::Api;
use crate::time::Instant;

/// Asks those that are left of a list.
pub(super) async fn rest(
    gateway: &Gateway,
    (asking, mut course): (Asking<'_>, Course<'_>),
    (outgoing, mut delivery): (Outgoing<'_>, Delivery),
    record: &mut Record,
) -> Result<Box<Theirs>, Refusal> {
    let is_too_short = |to: &Destination, when: &[GoOn]| is_too_long(&asking, to, when);
    loop {
        let (step, mut admission) = course.next(is_too_short, record).await?;
        if record.retries == 0 {
            record.note_overhead();
        }
        let began = Instant::now();
        let otherwise = otherwise(&step);
        let to = step.call.destination;
        let result = forward(&outgoing, to, otherwise, &mut admission, record).await;
        match judged(result, &step, &outgoing).await {
            Ok(answered) => {
                copied(gateway, (&outgoing, &asking), &step, record);
                asking.goes_on(gateway, &admission, began, &mut delivery);
                return Ok(Box::new((answered, admission, delivery)));
            }
            Err(failed) => course.leave(admission, failed, record)?,
        }
    }
}

/// Copies what one of a list answers, where there is a mirror that takes it.
pub(super) fn copied(
    gateway: &Gateway,
    (outgoing, asking): (&Outgoing<'_>, &Asking<'_>),
    step: &Step<'_>,
    record: &Record,
) {
    if let Some(list) = &asking.destination.list {
        let of = (outgoing, &**asking.destination);
        mirror::copy(gateway, of, (list, &step.one), record);
    }
}

/// Bytes of a body that are one token at least: of words of any language, each letter
/// written as an escape of six bytes.
const TOKEN_BYTES_MAX: usize = 48;
/// No model takes fewer tokens.
const CONTEXT_MIN: u64 = 128;

/// True if the prompt is longer than the target's context, by so much that it is not worth
/// asking: that may take a start. Where it is less sure, the server says it.
pub(super) fn is_too_long(asking: &Asking<'_>, destination: &Destination, when: &[GoOn]) -> bool {
    let tokens_min = (asking.body.len() / TOKEN_BYTES_MAX) as u64;
    // Other APIs take many prompts at once or cut them, and media many bytes for few tokens.
    let is_one = matches!(asking.api, Api::Chat | Api::Messages) && !asking.scan.brings;
    let may_be = tokens_min > CONTEXT_MIN && is_one && when.contains(&GoOn::TooLong);
    may_be && context_max(destination).is_some_and(|context| tokens_min > context)
}

/// Places where a target's request may go when its server fails.
pub(super) fn otherwise<'a>(step: &Step<'a>) -> Otherwise<'a> {
    if step.when.contains(&GoOn::Unreachable) {
        Otherwise::Targets(step.call.pick)
    } else {
        Otherwise::Servers(step.call.pick)
    }
}

/// The head of a target's answer, if the request ends with it.
pub(super) async fn judged(
    result: Result<Answered, Refusal>,
    step: &Step<'_>,
    outgoing: &Outgoing<'_>,
) -> Result<Answered, Failed> {
    let status = result.as_ref().map(|answered| answered.head.status);
    if let Some(why) = onward(status, step.when, outgoing.may_replay()) {
        return Err(Failed::Onward(why));
    }
    let answered = result.map_err(Failed::Here)?;
    if !may_be_too_long(answered.head.status, step.when) {
        return Ok(answered);
    }
    let answered = heard(answered).await;
    let said = answered.said.as_deref().unwrap_or_default();
    match too_long(answered.head.status, said) {
        Some(why) => Err(Failed::Onward(why)),
        None => Ok(answered),
    }
}
