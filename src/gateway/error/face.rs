//! What each refusal is to the outside: one table.

use std::time::Duration;

use http::StatusCode;

use super::Refusal;
use crate::auth::Denied;
use crate::telemetry::metrics::Outcome;

/// What a refusal is to the outside.
pub(super) struct Face {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    pub(super) outcome: Outcome,
    /// When to try again; `None` for never.
    pub(super) retry: Option<Duration>,
}

pub(super) const INVALID: &str = "invalid_request_error";
pub(super) const SERVER: &str = "server_error";

impl Refusal {
    #[expect(clippy::too_many_lines, reason = "a table: one row for each refusal")]
    pub(super) fn face(&self) -> Face {
        use StatusCode as S;
        let (status, kind, code, outcome, retry) = match self {
            Self::Token(denied) => (
                S::UNAUTHORIZED,
                INVALID,
                token_code(*denied),
                Outcome::Unauthorized,
                None,
            ),
            Self::UnknownPath => (
                S::NOT_FOUND,
                INVALID,
                "unknown_path",
                Outcome::NotFound,
                None,
            ),
            Self::Method { .. } => (
                S::METHOD_NOT_ALLOWED,
                INVALID,
                "method_not_allowed",
                Outcome::NotFound,
                None,
            ),
            Self::BadTarget => (
                S::BAD_REQUEST,
                INVALID,
                "bad_target",
                Outcome::BadRequest,
                None,
            ),
            Self::TargetTooLong { .. } => (
                S::URI_TOO_LONG,
                INVALID,
                "target_too_long",
                Outcome::BadRequest,
                None,
            ),
            Self::HeadTooLong { .. } => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                INVALID,
                "head_too_long",
                Outcome::BadRequest,
                None,
            ),
            Self::Misdirected => (
                S::MISDIRECTED_REQUEST,
                INVALID,
                "misdirected_request",
                Outcome::BadRequest,
                None,
            ),
            Self::Origin => (
                S::FORBIDDEN,
                INVALID,
                "origin_not_allowed",
                Outcome::BadRequest,
                None,
            ),
            Self::Host => (
                S::BAD_REQUEST,
                INVALID,
                "bad_host",
                Outcome::BadRequest,
                None,
            ),
            Self::Framing => (
                S::BAD_REQUEST,
                INVALID,
                "bad_framing",
                Outcome::BadRequest,
                None,
            ),
            Self::UnknownModel(_) => (
                S::NOT_FOUND,
                INVALID,
                "model_not_found",
                Outcome::NotFound,
                None,
            ),
            Self::UnknownResponse(_) => (
                S::NOT_FOUND,
                INVALID,
                "response_not_found",
                Outcome::NotFound,
                None,
            ),
            Self::NoModel => (
                S::BAD_REQUEST,
                INVALID,
                "model_required",
                Outcome::BadRequest,
                None,
            ),
            Self::Body(error) => (
                S::BAD_REQUEST,
                INVALID,
                error.code(),
                Outcome::BadRequest,
                None,
            ),
            Self::ContentType { .. } => (
                S::BAD_REQUEST,
                INVALID,
                "unsupported_content_type",
                Outcome::BadRequest,
                None,
            ),
            Self::ContentEncoding => (
                S::UNSUPPORTED_MEDIA_TYPE,
                INVALID,
                "unsupported_content_encoding",
                Outcome::BadRequest,
                None,
            ),
            Self::DamagedEncoding => (
                S::BAD_REQUEST,
                INVALID,
                "damaged_content_encoding",
                Outcome::BadRequest,
                None,
            ),
            Self::TooLarge { .. } => (
                S::PAYLOAD_TOO_LARGE,
                INVALID,
                "request_too_large",
                Outcome::TooLarge,
                None,
            ),
            Self::BodyTimeout => (
                S::BAD_REQUEST,
                INVALID,
                "request_body_incomplete",
                Outcome::BadRequest,
                None,
            ),
            Self::Upgrade => (
                S::UPGRADE_REQUIRED,
                INVALID,
                "websocket_required",
                Outcome::BadRequest,
                None,
            ),
            Self::UnsupportedEndpoint => (
                S::NOT_FOUND,
                INVALID,
                "unsupported_endpoint",
                Outcome::UpstreamStatus,
                None,
            ),
            Self::Full { .. } => (
                S::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "concurrency_limit_exceeded",
                Outcome::Limited,
                Some(Duration::from_secs(1)),
            ),
            Self::Rate { after, .. } => (
                S::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "rate_limit_exceeded",
                Outcome::Limited,
                Some(*after),
            ),
            Self::NeverFits { .. } => (
                S::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "insufficient_quota",
                Outcome::Limited,
                None,
            ),
            Self::QueueTimeout => (
                S::SERVICE_UNAVAILABLE,
                SERVER,
                "queue_timeout",
                Outcome::QueueTimeout,
                Some(Duration::from_secs(5)),
            ),
            Self::Loading { ready_in } => (
                S::SERVICE_UNAVAILABLE,
                SERVER,
                "model_loading",
                Outcome::Loading,
                Some(ready_in.unwrap_or(Duration::from_secs(10))),
            ),
            Self::Stopped => (
                S::SERVICE_UNAVAILABLE,
                SERVER,
                "model_stopped",
                Outcome::Unavailable,
                None,
            ),
            // Not 503, which clients repeat for minutes: only an operator mends it.
            Self::Failed => (
                S::FAILED_DEPENDENCY,
                SERVER,
                "model_failed",
                Outcome::Unavailable,
                None,
            ),
            Self::Unreachable | Self::Unreached(_) => (
                S::SERVICE_UNAVAILABLE,
                SERVER,
                "no_healthy_backend",
                Outcome::UpstreamError,
                Some(Duration::from_secs(2)),
            ),
            Self::KeyRefused { .. } => (
                S::BAD_GATEWAY,
                SERVER,
                "upstream_key_refused",
                Outcome::UpstreamError,
                None,
            ),
            Self::Redirected { .. } => (
                S::BAD_GATEWAY,
                SERVER,
                "upstream_redirect",
                Outcome::UpstreamError,
                None,
            ),
            Self::UpstreamBroke => (
                S::BAD_GATEWAY,
                SERVER,
                "upstream_error",
                Outcome::UpstreamError,
                Some(Duration::from_secs(1)),
            ),
            Self::UpstreamTimeout => (
                S::GATEWAY_TIMEOUT,
                SERVER,
                "upstream_timeout",
                Outcome::UpstreamTimeout,
                None,
            ),
            Self::TooLong { .. } => (
                S::GATEWAY_TIMEOUT,
                SERVER,
                "request_timeout",
                Outcome::UpstreamTimeout,
                None,
            ),
            Self::Overloaded { .. } => (
                S::SERVICE_UNAVAILABLE,
                SERVER,
                "overloaded",
                Outcome::Limited,
                Some(Duration::from_secs(2)),
            ),
            Self::ShuttingDown => (
                S::SERVICE_UNAVAILABLE,
                SERVER,
                "shutting_down",
                Outcome::Unavailable,
                Some(Duration::from_secs(2)),
            ),
        };
        Face {
            status,
            kind,
            code,
            outcome,
            retry,
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
