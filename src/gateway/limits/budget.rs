//! Budget of a route for retries.
//!
//! Each request earns a part of a retry, so that a time in which all fails does not
//! multiply the load.

use std::sync::atomic::{AtomicU32, Ordering};

/// Retries that can be saved up, and that there are at the start.
const SAVED_MAX: u32 = 20;

/// Cost of one retry.
const COST: u32 = 1_000;

/// Budget of a route for retries. Outlives a reload.
#[derive(Debug)]
pub struct RetryBudget(
    /// Thousandths of a retry.
    AtomicU32,
);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(SAVED_MAX * COST))
    }
}

impl RetryBudget {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_which_all_fails_adds_no_more_than_the_budget() {
        let budget = RetryBudget::default();
        let mut again = 0;
        for _ in 0..1_000 {
            budget.earn(0.2);
            again += u32::from(budget.spend());
        }
        assert_eq!(again, SAVED_MAX + 200 - 1, "what was saved, and a fifth");
        let none = RetryBudget::default();
        (0..SAVED_MAX).for_each(|_| assert!(none.spend()));
        none.earn(0.0);
        assert!(!none.spend());
    }

    #[test]
    fn what_is_saved_up_has_a_bound() {
        let budget = RetryBudget::default();
        (0..100_000).for_each(|_| budget.earn(1.0));
        let spent = (0..1_000).filter(|_| budget.spend()).count();
        assert!(spent <= SAVED_MAX as usize + 1);
    }
}
