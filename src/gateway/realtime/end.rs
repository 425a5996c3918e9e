//! The end of a tunnel.

use crate::telemetry::metrics::Outcome;
use crate::websocket::Broken;

/// End of a tunnel.
#[derive(Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    /// Code and reason for the client; none where it was told, or is gone.
    pub(super) words: Option<(u16, &'static str)>,
}

impl End {
    pub(super) const fn new(outcome: Outcome, code: u16, words: &'static str) -> Self {
        Self {
            outcome,
            words: Some((code, words)),
        }
    }

    pub(super) const fn silent(outcome: Outcome) -> Self {
        Self {
            outcome,
            words: None,
        }
    }

    pub(super) const fn of_client(broken: Broken) -> Self {
        Self::new(Outcome::BadRequest, broken.code(), "that is not taken here")
    }
}
