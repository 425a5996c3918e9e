//! Faults that speak against a server: one closed set, for `ps`, log and metrics.

use std::borrow::Cow;

use http::StatusCode;

use crate::outbound::dial::Failure;

/// Reason why a request to a server failed.
#[derive(Debug)]
pub enum Fault<'a> {
    /// There is no connection.
    Unreached(&'a Failure),
    /// It broke off before its answer.
    Broke,
    /// It did not begin its answer in time.
    Silent,
    /// It answered with this status.
    Status(StatusCode),
    /// It refuses the gateway's key with this status.
    Key(StatusCode),
    /// It answered with the address of another server.
    Redirect(StatusCode),
}

impl Fault<'_> {
    /// In words, with what is known of the cause.
    pub fn words(&self) -> Cow<'static, str> {
        match self {
            Self::Unreached(failure) => failure.to_string().into(),
            Self::Broke => "it broke off before its answer".into(),
            Self::Silent => "it did not begin its answer in time".into(),
            Self::Status(status) => format!("it answered {}", status.as_u16()).into(),
            Self::Key(status) => {
                format!("it refuses the gateway's key ({}): see api_key_file or api_key_env of its [[upstream]]", status.as_u16()).into()
            }
            Self::Redirect(status) => {
                format!("it answered with a redirect ({}): write the address that it leads to in the url of its [[upstream]]", status.as_u16()).into()
            }
        }
    }

    /// One word: the label of metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreached(failure) => failure.reason(),
            Self::Broke => "broken",
            Self::Silent => "first_byte_timeout",
            Self::Status(_) => "status",
            Self::Key(_) => "key_refused",
            Self::Redirect(_) => "redirect",
        }
    }

    /// True if servers are left out for the fault. What a client may have brought about with
    /// its own request is no reason: some answer 403 to a prompt that they don't like.
    pub fn ejects(&self) -> bool {
        !matches!(self, Self::Key(StatusCode::FORBIDDEN))
    }
}
