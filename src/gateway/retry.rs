//! Choice of the failed requests that may be sent to a further server or the next target of
//! a list.
//!
//! Only before a byte of an answer went out, for the reasons that the route names,
//! and within its [`RetryBudget`](super::limits::budget::RetryBudget). What an engine says of the
//! request itself (400, 422) or of its load (429, 500) is never asked of another; but of the
//! next target, whose context may be longer, where it says that the prompt is too long.

use http::StatusCode;

use super::refusal::{Refusal, overlong};
use crate::config::{GoOn, Retries, RetryOn};

/// Reason why this outcome may be tried on another server; `None` where it may not.
pub fn reason(
    result: Result<StatusCode, &Refusal>,
    retries: &Retries,
    may_replay: bool,
) -> Option<&'static str> {
    let (on, why) = match result {
        Err(Refusal::Unreached(_)) => (RetryOn::Unreachable, "unreachable"),
        // It was not served: to the client it would be a 502.
        Err(Refusal::KeyRefused { .. }) => (RetryOn::Status(502), "key_refused"),
        Err(Refusal::Redirected { .. }) => (RetryOn::Status(502), "redirect"),
        Err(Refusal::UpstreamBroke) if may_replay => (RetryOn::Broken, "broken"),
        Ok(status) if may_replay => match status.as_u16() {
            502 => (RetryOn::Status(502), "502"),
            503 => (RetryOn::Status(503), "503"),
            504 => (RetryOn::Status(504), "504"),
            _ => return None,
        },
        _ => return None,
    };
    retries.on.contains(&on).then_some(why)
}

/// Reason to try the next target of a list after this outcome; `None` where there is none.
/// Whether a prompt is too long, [`too_long`] says.
pub fn onward(
    result: Result<StatusCode, &Refusal>,
    when: &[GoOn],
    may_replay: bool,
) -> Option<&'static str> {
    let (on, why) = match result {
        Err(Refusal::Unreached(_) | Refusal::Unreachable) => (GoOn::Unreachable, "unreachable"),
        // It was not served: to the client it would be a 502.
        Err(Refusal::KeyRefused { .. }) => (GoOn::Status(502), "key_refused"),
        Err(Refusal::Redirected { .. }) => (GoOn::Status(502), "redirect"),
        Err(Refusal::Full { .. } | Refusal::QueueTimeout) => (GoOn::Status(503), "busy"),
        Err(Refusal::Failed) => (GoOn::ModelFailed, "failed"),
        Err(Refusal::Stopped) => (GoOn::ModelFailed, "stopped"),
        Err(Refusal::Loading { .. }) => (GoOn::ModelFailed, "loading"),
        // It was found out on the way: whatever the file says, it can't answer.
        Err(Refusal::Unserved(_)) => return Some("no_such_api"),
        Ok(status) if may_replay => match status.as_u16() {
            502 => (GoOn::Status(502), "502"),
            503 => (GoOn::Status(503), "503"),
            _ => return None,
        },
        _ => return None,
    };
    when.contains(&on).then_some(why)
}

/// True if an answer may say that the prompt is too long, so that it is worth reading.
pub fn may_be_too_long(status: StatusCode, when: &[GoOn]) -> bool {
    overlong::has_status(status) && when.contains(&GoOn::TooLong)
}

/// Reason to try the next target after what a server said.
pub fn too_long(status: StatusCode, said: &[u8]) -> Option<&'static str> {
    overlong::is_of_prompt(status, said).then_some("too_long")
}
