//! Whether a request that failed may be sent to a further server.
//!
//! Only before a byte of an answer went out, for the reasons that the route names,
//! and within a budget: each request earns a part of a retry, so that a time in
//! which all fails does not multiply the load. What an engine says of the request
//! itself (400, 422) or of its load (429, 500) is never asked of another.

use std::sync::atomic::{AtomicU32, Ordering};

use super::error::Refusal;
use super::forward::Answered;
use crate::config::{Retries, RetryOn};

/// Retries that can be saved up, and that there are at the start.
const SAVED_MAX: u32 = 20;

/// What one retry costs.
const COST: u32 = 1_000;

/// What a route may spend on retries. Outlives a reload.
#[derive(Debug)]
pub struct Budget(
    /// Thousandths of a retry.
    AtomicU32,
);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(SAVED_MAX * COST))
    }
}

impl Budget {
    /// A request came: it earns a `share` of a retry.
    pub fn earn(&self, share: f64) {
        let saved = self.0.load(Ordering::Relaxed);
        if saved >= SAVED_MAX * COST {
            return;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 0 to 1 of a thousand"
        )]
        let earned = (share * f64::from(COST)) as u32;
        // Two at once may go a little above the most: the next stops at the check.
        self.0.fetch_add(earned, Ordering::Relaxed);
    }

    /// Takes one retry, if there is one.
    pub fn spend(&self) -> bool {
        let less = |saved: u32| saved.checked_sub(COST);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

/// Why this outcome may be tried on another server; `None` where it may not.
pub fn reason(
    result: &Result<Answered, Refusal>,
    retries: &Retries,
    may_replay: bool,
) -> Option<&'static str> {
    let (on, why) = match result {
        Err(Refusal::Unreached(_)) => (RetryOn::Unreachable, "unreachable"),
        // It was not served: to the client it would be a 502.
        Err(Refusal::KeyRefused { .. }) => (RetryOn::Status(502), "key_refused"),
        Err(Refusal::Redirected { .. }) => (RetryOn::Status(502), "redirect"),
        Err(Refusal::UpstreamBroke) if may_replay => (RetryOn::Broken, "broken"),
        Ok(answered) if may_replay => match answered.response.status().as_u16() {
            502 => (RetryOn::Status(502), "502"),
            503 => (RetryOn::Status(503), "503"),
            504 => (RetryOn::Status(504), "504"),
            _ => return None,
        },
        _ => return None,
    };
    retries.on.contains(&on).then_some(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_which_all_fails_adds_no_more_than_the_budget() {
        let budget = Budget::default();
        let mut again = 0;
        for _ in 0..1_000 {
            budget.earn(0.2);
            again += u32::from(budget.spend());
        }
        assert_eq!(again, SAVED_MAX + 200 - 1, "what was saved, and a fifth");
        let none = Budget::default();
        (0..SAVED_MAX).for_each(|_| assert!(none.spend()));
        none.earn(0.0);
        assert!(!none.spend());
    }

    #[test]
    fn what_is_saved_up_has_a_bound() {
        let budget = Budget::default();
        (0..100_000).for_each(|_| budget.earn(1.0));
        let spent = (0..1_000).filter(|_| budget.spend()).count();
        assert!(spent <= SAVED_MAX as usize + 1);
    }
}
