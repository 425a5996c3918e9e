//! A call that failed, and what its caller is told.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::admin::view::{ErrorText, ErrorView};
use crate::store::StoreError;

/// A call that failed: what the caller is told.
#[derive(Debug)]
pub struct ApiError(pub(in crate::admin) StatusCode, pub(in crate::admin) String);

/// What a call answers.
pub(in crate::admin) type Answer<T> = Result<Json<T>, ApiError>;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorText { message: self.1 };
        (self.0, Json(ErrorView { error })).into_response()
    }
}

impl ApiError {
    pub(in crate::admin) fn bad(message: &dyn std::error::Error) -> Self {
        Self(StatusCode::BAD_REQUEST, message.to_string())
    }

    pub(in crate::admin) fn bad_text(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    pub(in crate::admin) fn unauthorized(message: &str) -> Self {
        Self(StatusCode::UNAUTHORIZED, message.to_owned())
    }

    pub(in crate::admin) fn forbidden(message: &str) -> Self {
        Self(StatusCode::FORBIDDEN, message.to_owned())
    }

    pub(in crate::admin) fn not_found(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }

    pub(in crate::admin) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %error, "a call of the admin API failed");
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TokenId(_) | StoreError::Subject(_) => Self::bad(&error),
            StoreError::Failing(_) => Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

/// Runs what waits for the disk.
pub(in crate::admin) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(&error))
}
