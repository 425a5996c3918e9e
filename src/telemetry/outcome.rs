//! Outcomes of requests: a closed set, of which logs, metrics and figures are made.

/// Outcome of a request: a label of metrics and a field of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered by the upstream, whole.
    Ok,
    /// Answered by the upstream with an error: its status, or an event of its stream.
    UpstreamStatus,
    /// Answered by us: health, models.
    Local,
    /// Refused: what the client sent makes no sense.
    BadRequest,
    /// Refused: no valid token.
    Unauthorized,
    /// Refused: no such model or path for this token.
    NotFound,
    /// Refused: too large.
    TooLarge,
    /// Refused: a limit was reached.
    Limited,
    /// Refused: waited too long for a place.
    QueueTimeout,
    /// Refused: the worker was not ready in time.
    Loading,
    /// Refused: stopped, failed, or shutting down.
    Unavailable,
    /// The upstream could not be reached or broke off before its first byte.
    UpstreamError,
    /// The upstream was silent for too long.
    UpstreamTimeout,
    /// The upstream broke off within its answer.
    UpstreamTruncated,
    /// The client left before the end.
    ClientGone,
}

impl Outcome {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::UpstreamStatus,
        Self::Local,
        Self::BadRequest,
        Self::Unauthorized,
        Self::NotFound,
        Self::TooLarge,
        Self::Limited,
        Self::QueueTimeout,
        Self::Loading,
        Self::Unavailable,
        Self::UpstreamError,
        Self::UpstreamTimeout,
        Self::UpstreamTruncated,
        Self::ClientGone,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamStatus => "upstream_status",
            Self::Local => "local",
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::Limited => "limited",
            Self::QueueTimeout => "queue_timeout",
            Self::Loading => "loading",
            Self::Unavailable => "unavailable",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamTruncated => "upstream_truncated",
            Self::ClientGone => "client_gone",
        }
    }
}
