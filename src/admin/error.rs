//! A call that failed, and what its caller is told.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::admin::view::{ErrorText, ErrorView};
use crate::store::StoreError;

/// A call that failed: what the caller is told.
#[derive(Debug)]
pub struct ApiError {
    /// Reason, as one of a closed set; the status follows from it.
    pub code: Code,
    /// Text for the caller.
    pub message: String,
}

/// Reason for which a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request can't be read, or asks for what can't be.
    Malformed,
    /// No one is logged in, or the token does not hold.
    Stranger,
    /// The link for a login was used already, or has ended.
    Link,
    /// It is not the caller's to see or to do.
    Forbidden,
    /// The token is of a user, who has no business here.
    Role,
    /// The request came from another site.
    Origin,
    /// Nothing has the given name.
    Unknown,
    /// Something is in the way.
    Conflict,
    /// Someone else changed it meanwhile.
    Changed,
    /// The body is too large.
    Large,
    /// A file would be wrong.
    Wrong,
    /// Something failed here.
    Internal,
    /// The store can't be written for now.
    Failing,
    /// A change did not take effect in time.
    Late,
}

impl Code {
    /// The status of HTTP.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Stranger | Self::Link => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Role | Self::Origin => StatusCode::FORBIDDEN,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Changed => StatusCode::PRECONDITION_FAILED,
            Self::Large => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Wrong => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Failing => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// True where someone known was refused, which the audit tells from a failure.
    pub(super) fn is_refusal(self) -> bool {
        matches!(self, Self::Forbidden | Self::Role | Self::Origin)
    }

    /// The word in the address of the login page, which has a text for each.
    pub(super) fn login_word(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Role => "role",
            Self::Origin => "origin",
            _ => "token",
        }
    }
}

/// Answer of a call.
pub(super) type Answer<T> = Result<Json<T>, ApiError>;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorText {
            message: self.message,
        };
        (self.code.status(), Json(ErrorView { error })).into_response()
    }
}

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub(super) fn bad(message: &dyn std::error::Error) -> Self {
        Self::new(Code::Malformed, message.to_string())
    }

    pub(super) fn bad_text(message: impl Into<String>) -> Self {
        Self::new(Code::Malformed, message)
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        Self::new(Code::Stranger, message)
    }

    pub(super) fn forbidden(message: &str) -> Self {
        Self::new(Code::Forbidden, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %error, "a call of the admin API failed");
        Self::new(Code::Internal, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TokenId(_) | StoreError::Subject(_) => Self::bad(&error),
            StoreError::Failing(_) => Self::new(Code::Failing, error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

/// Runs what waits for the disk.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(&error))
}
