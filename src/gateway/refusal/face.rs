//! Status, code and outcome of each refusal: one table.

use std::time::Duration;

use http::StatusCode;

use super::Refusal;
use crate::auth::Denied;
use crate::telemetry::metrics::Outcome;

/// Public form of a refusal.
pub(super) struct Face {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    pub(super) outcome: Outcome,
    /// Time until another try; `None` for never.
    pub(super) retry: Option<Duration>,
}

impl Face {
    /// The same request may be tried again after that time.
    const fn again_in(self, time: Duration) -> Self {
        Self {
            retry: Some(time),
            ..self
        }
    }
}

/// One row of the table; there is nothing to be had by a second try.
const fn row(status: StatusCode, kind: &'static str, code: &'static str, outcome: Outcome) -> Face {
    Face {
        status,
        kind,
        code,
        outcome,
        retry: None,
    }
}

/// Fault of the request itself.
const fn invalid(status: StatusCode, code: &'static str, outcome: Outcome) -> Face {
    row(status, INVALID, code, outcome)
}

/// Fault of this side.
const fn server(status: StatusCode, code: &'static str, outcome: Outcome) -> Face {
    row(status, SERVER, code, outcome)
}

/// Excess over what may be had.
const fn limited(code: &'static str) -> Face {
    let status = StatusCode::TOO_MANY_REQUESTS;
    row(status, "rate_limit_error", code, Outcome::Limited)
}

pub(super) const INVALID: &str = "invalid_request_error";
pub(super) const SERVER: &str = "server_error";

impl Refusal {
    #[expect(clippy::too_many_lines, reason = "a table: one row for each refusal")]
    pub(super) fn face(&self) -> Face {
        use Outcome as O;
        use StatusCode as S;
        match self {
            Self::Token(denied) => invalid(S::UNAUTHORIZED, token_code(*denied), O::Unauthorized),
            Self::UnknownPath => invalid(S::NOT_FOUND, "unknown_path", O::NotFound),
            Self::Method { .. } => {
                invalid(S::METHOD_NOT_ALLOWED, "method_not_allowed", O::NotFound)
            }
            Self::BadTarget => invalid(S::BAD_REQUEST, "bad_target", O::BadRequest),
            Self::TargetTooLong { .. } => {
                invalid(S::URI_TOO_LONG, "target_too_long", O::BadRequest)
            }
            Self::HeadTooLong { .. } => invalid(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_long",
                O::BadRequest,
            ),
            Self::Loop => server(S::LOOP_DETECTED, "loop_detected", O::BadRequest),
            Self::Misdirected => {
                invalid(S::MISDIRECTED_REQUEST, "misdirected_request", O::BadRequest)
            }
            Self::Origin => invalid(S::FORBIDDEN, "origin_not_allowed", O::BadRequest),
            Self::Host => invalid(S::BAD_REQUEST, "bad_host", O::BadRequest),
            Self::Framing => invalid(S::BAD_REQUEST, "bad_framing", O::BadRequest),
            Self::UnknownModel(_) => invalid(S::NOT_FOUND, "model_not_found", O::NotFound),
            Self::UnknownResponse(_) => invalid(S::NOT_FOUND, "response_not_found", O::NotFound),
            Self::NoModel => invalid(S::BAD_REQUEST, "model_required", O::BadRequest),
            Self::Body(error) => invalid(S::BAD_REQUEST, error.code(), O::BadRequest),
            Self::ContentType { .. } => {
                invalid(S::BAD_REQUEST, "unsupported_content_type", O::BadRequest)
            }
            Self::ContentEncoding => invalid(
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_encoding",
                O::BadRequest,
            ),
            Self::DamagedEncoding => {
                invalid(S::BAD_REQUEST, "damaged_content_encoding", O::BadRequest)
            }
            Self::TooLarge { .. } => {
                invalid(S::PAYLOAD_TOO_LARGE, "request_too_large", O::TooLarge)
            }
            Self::BodyTimeout => invalid(S::BAD_REQUEST, "request_body_incomplete", O::BadRequest),
            Self::Upgrade => invalid(S::UPGRADE_REQUIRED, "websocket_required", O::BadRequest),
            Self::NoWebSocket => invalid(
                S::UPGRADE_REQUIRED,
                "websocket_not_supported",
                O::BadRequest,
            ),
            Self::UnsupportedEndpoint => {
                invalid(S::NOT_FOUND, "unsupported_endpoint", O::UpstreamStatus)
            }
            Self::Unserved(_) => invalid(S::NOT_FOUND, "unsupported_endpoint", O::NotFound),
            Self::Full { .. } => {
                limited("concurrency_limit_exceeded").again_in(Duration::from_secs(1))
            }
            Self::Rate { after, .. } => limited("rate_limit_exceeded").again_in(*after),
            Self::NeverFits { .. } => limited("insufficient_quota"),
            Self::QueueTimeout => server(S::SERVICE_UNAVAILABLE, "queue_timeout", O::QueueTimeout)
                .again_in(Duration::from_secs(5)),
            Self::Loading { ready_in } => {
                server(S::SERVICE_UNAVAILABLE, "model_loading", O::Loading)
                    .again_in(ready_in.unwrap_or(Duration::from_secs(10)))
            }
            Self::Stopped => server(S::SERVICE_UNAVAILABLE, "model_stopped", O::Unavailable),
            // Only an operator mends it. Tried on agents: 503 is repeated for minutes by all,
            // 424, 410 and 403 by Codex (6 times), aider and LangChain (for more than a
            // minute), and `server_error` by opencode whatever the status. 400 is given up
            // at once by every one of them.
            Self::Failed => invalid(S::BAD_REQUEST, "model_failed", O::Unavailable),
            Self::Unreachable | Self::Unreached(_) => server(
                S::SERVICE_UNAVAILABLE,
                "no_healthy_backend",
                O::UpstreamError,
            )
            .again_in(Duration::from_secs(2)),
            Self::KeyRefused { .. } => {
                server(S::BAD_GATEWAY, "upstream_key_refused", O::UpstreamError)
            }
            Self::Redirected { .. } => {
                server(S::BAD_GATEWAY, "upstream_redirect", O::UpstreamError)
            }
            Self::UpstreamBroke => server(S::BAD_GATEWAY, "upstream_error", O::UpstreamError)
                .again_in(Duration::from_secs(1)),
            Self::UpstreamTimeout => {
                server(S::GATEWAY_TIMEOUT, "upstream_timeout", O::UpstreamTimeout)
            }
            Self::TooLong { .. } => {
                server(S::GATEWAY_TIMEOUT, "request_timeout", O::UpstreamTimeout)
            }
            Self::Overloaded { .. } => server(S::SERVICE_UNAVAILABLE, "overloaded", O::Limited)
                .again_in(Duration::from_secs(2)),
            Self::NotForLoading => invalid(S::FORBIDDEN, "loading_not_allowed", O::Unauthorized),
            Self::InUse => invalid(S::CONFLICT, "model_in_use", O::Unavailable),
            Self::KeptUp => invalid(S::CONFLICT, "model_kept_up", O::Unavailable),
            Self::ShuttingDown => server(S::SERVICE_UNAVAILABLE, "shutting_down", O::Unavailable)
                .again_in(Duration::from_secs(2)),
        }
    }
}

fn token_code(denied: Denied) -> &'static str {
    match denied {
        Denied::Missing | Denied::Invalid => "invalid_api_key",
        Denied::Expired => "token_expired",
        Denied::Revoked => "token_revoked",
        Denied::Forgotten => "token_store_lost",
        Denied::Early => "token_not_yet_valid",
    }
}
