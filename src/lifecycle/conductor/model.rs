//! A replica's model, as far as it may have to come to this machine first.
//!
//! Each fetch has a number: what is said of an earlier one is not heard.

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::models::pace::FetchProgress;

/// A model that may have to come here.
#[derive(Debug, Default)]
pub(in crate::lifecycle) struct ModelFetch {
    /// True where the launcher may have something to bring for the spec.
    may: bool,
    /// True once it was found here; looked at again after a start that failed.
    is_here: bool,
    /// True once it was fetched for this spec, well or not.
    tried: bool,
    /// Fetches so far.
    number: u64,
    /// Ends the one under way when dropped.
    under_way: Option<DropGuard>,
    progress: Option<FetchProgress>,
}

impl ModelFetch {
    /// Of a spec of which nothing is known yet.
    pub(in crate::lifecycle) fn new(may: bool) -> Self {
        Self {
            may,
            ..Self::default()
        }
    }

    /// Takes another spec, which may name another model: ends the fetch under way.
    pub(in crate::lifecycle) fn respec(&mut self, may: bool) {
        self.cancel();
        (self.may, self.is_here, self.tried) = (may, false, false);
    }

    /// True where GPUs are asked for only after a fetch.
    pub(in crate::lifecycle) fn comes_first(&self) -> bool {
        self.may && !self.is_here
    }

    /// True where it may be fetched though nobody asks for it.
    pub(in crate::lifecycle) fn may_ahead(&self) -> bool {
        self.comes_first() && !self.tried
    }

    /// Begins one: its number, and what ends it.
    pub(in crate::lifecycle) fn begin(&mut self, token: &CancellationToken) -> u64 {
        self.number += 1;
        self.tried = true;
        self.progress = None;
        self.under_way = Some(token.clone().drop_guard());
        self.number
    }

    /// Ends the one under way.
    pub(in crate::lifecycle) fn cancel(&mut self) {
        (self.under_way, self.progress) = (None, None);
    }

    /// A start failed: perhaps for what is missing of the model.
    pub(in crate::lifecycle) fn doubt(&mut self) {
        self.is_here = false;
    }

    /// True where this is the one under way.
    pub(in crate::lifecycle) fn is(&self, number: u64) -> bool {
        self.number == number && self.under_way.is_some()
    }

    /// True while one is under way.
    pub(in crate::lifecycle) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Takes down how far it is; true the first time.
    pub(in crate::lifecycle) fn progressed(&mut self, progress: FetchProgress) -> bool {
        self.progress.replace(progress).is_none()
    }

    /// It is over, and the model is here or not.
    pub(in crate::lifecycle) fn ended(&mut self, is_here: bool) {
        self.cancel();
        self.is_here = is_here;
    }

    /// Progress of the fetch that is under way.
    pub(in crate::lifecycle) fn progress(&self) -> Option<FetchProgress> {
        self.progress
    }
}
