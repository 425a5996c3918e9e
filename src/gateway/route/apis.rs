//! APIs that a target serves: as its file says, or as its answers show.
//!
//! Unless a file says it, a server that answered that it has no such path is not asked
//! for that API for [`MISSING_FOR`]; then one request may find out anew. One bit and one
//! time for each API is all that is kept, and it is forgotten with the table.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::openai::api::{Api, ApiSet};
use crate::time::Clock;

/// Time for which a server is believed that it does not serve an API.
const MISSING_FOR: Duration = Duration::from_mins(1);

/// The APIs of a target.
#[derive(Debug)]
pub struct Apis {
    stated: ApiSet,
    /// True if the file of the target says them, so that its answers change nothing.
    are_stated: bool,
    /// APIs that the target answered; set where the answer is seen.
    answered: AtomicU32,
    /// APIs that the target said it has not; set where that is seen.
    missing: AtomicU32,
    /// Milliseconds of the clock until when that is believed, by number of the bit.
    until: [AtomicU64; 32],
    clock: Clock,
}

impl Apis {
    /// APIs that are `stated`, else all until an answer says otherwise.
    pub fn new(stated: Option<ApiSet>, clock: Clock) -> Self {
        Self {
            stated: stated.unwrap_or(ApiSet::ALL),
            are_stated: stated.is_some(),
            answered: AtomicU32::new(0),
            missing: AtomicU32::new(0),
            until: [const { AtomicU64::new(0) }; 32],
            clock,
        }
    }

    /// The same before any answer.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self::new(self.are_stated.then_some(self.stated), self.clock)
    }

    /// True if requests of an API may go there.
    pub fn serves(&self, api: Api) -> bool {
        let missing = ApiSet::of_bits(self.missing.load(Ordering::Relaxed));
        self.stated.has(api) && (!missing.has(api) || self.is_over(api))
    }

    /// True once what was said of a missing API is over; then it is forgotten.
    fn is_over(&self, api: Api) -> bool {
        let until = self.until.get(api as usize);
        let until = until.map_or(0, |until| until.load(Ordering::Relaxed));
        let is_over = self.clock.millis() >= until;
        if is_over {
            self.missing.fetch_and(!ApiSet::bit(api), Ordering::Relaxed);
        }
        is_over
    }

    /// Takes in that it answered a request of an API well.
    pub fn has_answered(&self, api: Api) {
        let bit = ApiSet::bit(api);
        // Nearly always it is known, and others read the same word.
        if self.answered.load(Ordering::Relaxed) & bit == 0 {
            self.answered.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Takes in that it said it has no path of an API, unless its file says that it has.
    pub fn has_not(&self, api: Api) {
        if self.are_stated {
            return;
        }
        let for_millis = u64::try_from(MISSING_FOR.as_millis()).unwrap_or(u64::MAX);
        if let Some(until) = self.until.get(api as usize) {
            let end = self.clock.millis().saturating_add(for_millis);
            until.store(end, Ordering::Relaxed);
            self.missing.fetch_or(ApiSet::bit(api), Ordering::Relaxed);
        }
    }

    /// APIs that the target is known to serve.
    pub fn known(&self) -> ApiSet {
        if self.are_stated {
            return self.stated;
        }
        let missing = self.missing.load(Ordering::Relaxed);
        ApiSet::of_bits(self.answered.load(Ordering::Relaxed) & !missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn what_a_server_lacks_is_believed_for_a_while() {
        let apis = Apis::new(None, Clock::start());
        assert!(apis.serves(Api::Chat) && apis.serves(Api::Responses));
        assert_eq!(apis.known(), ApiSet::default());
        apis.has_answered(Api::Chat);
        apis.has_not(Api::Responses);
        advance(MISSING_FOR.mul_f64(0.99)).await;
        assert!(apis.serves(Api::Chat) && !apis.serves(Api::Responses));
        assert_eq!(apis.known().iter().collect::<Vec<_>>(), [Api::Chat]);
        advance(MISSING_FOR.mul_f64(0.01)).await;
        assert!(apis.serves(Api::Responses));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_file_says_holds_against_every_answer() {
        let mut stated = ApiSet::default();
        stated.insert(Api::Messages);
        let apis = Apis::new(Some(stated), Clock::start());
        apis.has_not(Api::Messages);
        apis.has_answered(Api::Chat);
        assert!(apis.serves(Api::Messages) && !apis.serves(Api::Chat));
        assert_eq!(apis.known(), stated);
    }
}
