//! Choice of a list's requests that are copied, and a bound on the copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Mirror;
use crate::names::ModelName;

/// Copies of one route that are under way at once.
pub const COPIES_MAX: usize = 64;

/// Requests that are copied for a mirror.
#[derive(Debug)]
pub struct Copying {
    rule: Mirror,
    /// Requests that could have been copied.
    turns: AtomicU64,
    /// Outlives a reload, so that the bound holds over it.
    copies: Arc<Semaphore>,
}

impl Copying {
    /// As a file says.
    pub fn new(rule: Mirror, copies: Arc<Semaphore>) -> Self {
        Self {
            rule,
            turns: AtomicU64::new(0),
            copies,
        }
    }

    /// True if a request that a target answers is to be copied: as many as the share says,
    /// evenly.
    pub fn takes(&self, answers: &ModelName) -> bool {
        if *answers == self.rule.to {
            return false;
        }
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests take years")]
        let whole = |turn: u64| (turn as f64 * self.rule.share).floor();
        whole(turn + 1) > whole(turn)
    }

    /// Leave for one more copy; `None` where too many are under way.
    pub fn leave(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.copies).try_acquire_owned().ok()
    }
}
