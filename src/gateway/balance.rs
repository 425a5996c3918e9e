//! Which of several takes a request.
//!
//! Power of two choices on the load of each: as good as asking all, without a
//! herd running to the same one.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Spreads the first of the two choices evenly.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// The one to try first; `None` where there is none.
pub fn choose<T>(all: &[T], load: impl Fn(&T) -> u64) -> Option<&T> {
    if let [only] = all {
        return Some(only);
    }
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let first = turn.checked_rem(all.len())?;
    // Any other one, each as often: the step is mixed, so that pairs differ.
    let mixed = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    let second = (first + 1 + mixed % (all.len() - 1)) % all.len();
    let (first, second) = (all.get(first)?, all.get(second)?);
    Some(if load(second) < load(first) {
        second
    } else {
        first
    })
}
