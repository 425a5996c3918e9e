//! Which of several servers takes a request.
//!
//! Power of two choices on the requests that each has in flight: as good as
//! asking all, without a herd running to the same one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::router::{Backend, Target};

/// Spreads the first of the two choices evenly.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// The server to try first. `targets` is never empty.
///
/// # Panics
///
/// If `targets` is empty; the router makes no such destination.
pub fn choose(targets: &[Arc<Target>]) -> &Arc<Target> {
    assert!(!targets.is_empty(), "a destination has a target");
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    // A step that is coprime to most counts, so that pairs differ over time.
    let pick = |n: usize| targets.get(n % targets.len());
    let (first, second) = (pick(turn), pick(turn.wrapping_mul(31).wrapping_add(7)));
    let less = match (first, second) {
        (Some(a), Some(b)) if load(b) < load(a) => second,
        _ => first,
    };
    less.unwrap_or_else(|| unreachable!("an index below the length"))
}

/// The servers to try when `failed` can't be reached: each other one, once.
pub fn others<'a>(
    targets: &'a [Arc<Target>],
    failed: &'a Arc<Target>,
) -> impl Iterator<Item = &'a Arc<Target>> {
    targets
        .iter()
        .filter(move |target| !Arc::ptr_eq(target, failed))
}

/// Requests in flight; a worker that must be woken first counts as far more.
fn load(target: &Target) -> u32 {
    match &target.backend {
        Backend::External { pool, .. } => pool.active(),
        Backend::Deployment { handle, .. } if handle.gate.is_open() => handle.gate.in_flight(),
        Backend::Deployment { handle, .. } => 1_000_000 + handle.waiting(),
    }
}
