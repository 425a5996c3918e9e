//! Whether a request that failed may be sent to a further server.
//!
//! Only before a byte of an answer went out, for the reasons that the route names,
//! and within its [`RetryBudget`](super::limits::budget::RetryBudget). What an engine says of the
//! request itself (400, 422) or of its load (429, 500) is never asked of another.

use http::StatusCode;

use super::refusal::Refusal;
use crate::config::{Retries, RetryOn};

/// Why this outcome may be tried on another server; `None` where it may not.
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
