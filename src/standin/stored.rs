//! Responses that are kept, as vLLM keeps them where
//! `VLLM_ENABLE_RESPONSES_API_STORE` is set: in memory, gone with the process.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;

/// Most responses kept; vLLM has no bound.
const KEPT_MAX: usize = 4096;

/// The responses of one server, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Store(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    id: String,
    body: String,
    running: Option<Running>,
}

/// A response that is made in the background.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Ends it.
    pub(super) cancel: CancellationToken,
    /// The response once it is cancelled.
    pub(super) cancelled: String,
}

impl Store {
    /// Keeps a response, in the place of an earlier state of it.
    pub(super) fn keep(&self, id: &str, body: String, running: Option<Running>) {
        let mut all = self.lock();
        all.retain(|kept| kept.id != id);
        all.push_back(Kept {
            id: id.to_owned(),
            body,
            running,
        });
        if all.len() > KEPT_MAX {
            all.pop_front();
        }
    }

    /// A response.
    ///
    /// # Errors
    ///
    /// vLLM's words for one that is not there.
    pub(super) fn get(&self, id: &str) -> Result<String, ApiError> {
        let all = self.lock();
        let kept = all.iter().find(|kept| kept.id == id);
        kept.map(|kept| kept.body.clone())
            .ok_or_else(|| missing(id))
    }

    /// Ends a response that is made in the background.
    ///
    /// # Errors
    ///
    /// vLLM's words for one that is not there, or is whole.
    pub(super) fn cancel(&self, id: &str) -> Result<String, ApiError> {
        let mut all = self.lock();
        let kept = all.iter_mut().find(|kept| kept.id == id);
        let kept = kept.ok_or_else(|| missing(id))?;
        let Some(running) = kept.running.take() else {
            return Err(ApiError::Error {
                status: StatusCode::BAD_REQUEST,
                kind: "invalid_request_error",
                message: "Cannot cancel a synchronous response.".to_owned(),
                param: Some("response_id".to_owned()),
            });
        };
        running.cancel.cancel();
        kept.body.clone_from(&running.cancelled);
        Ok(running.cancelled)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(id: &str) -> ApiError {
    ApiError::Error {
        status: StatusCode::NOT_FOUND,
        kind: "invalid_request_error",
        message: format!("Response with id '{id}' not found."),
        param: Some("response_id".to_owned()),
    }
}
