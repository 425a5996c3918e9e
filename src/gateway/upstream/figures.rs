//! The latest figures of a server's own load. Those that are old count for nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Clock;
use crate::vllm::figures::EngineLoad;

/// Figures older than this are not believed.
const FRESH: Duration = Duration::from_secs(10);

/// The latest figures of one server. Each is one atomic word; they need not be of
/// one moment.
#[derive(Debug)]
pub struct Figures {
    clock: Clock,
    waiting: AtomicU32,
    /// Thousandths.
    cache: AtomicU32,
    /// Milliseconds of the clock until which they are believed; 0 before the first.
    fresh_until: AtomicU64,
}

impl Figures {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            waiting: AtomicU32::new(0),
            cache: AtomicU32::new(0),
            fresh_until: AtomicU64::new(0),
        }
    }

    /// Takes what was found.
    pub fn set(&self, look: EngineLoad) {
        self.waiting.store(look.waiting, Ordering::Relaxed);
        self.cache.store(look.cache, Ordering::Relaxed);
        let fresh = u64::try_from(FRESH.as_millis()).unwrap_or(u64::MAX);
        self.fresh_until
            .store(self.clock.millis() + fresh, Ordering::Release);
    }

    /// Load that is believed now; `None` where there is nothing recent.
    pub fn now(&self) -> Option<EngineLoad> {
        let until = self.fresh_until.load(Ordering::Acquire);
        (until > 0 && self.clock.millis() < until).then(|| EngineLoad {
            waiting: self.waiting.load(Ordering::Relaxed),
            cache: self.cache.load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn old_figures_are_not_believed() {
        let figures = Figures::new(Clock::start());
        assert_eq!(figures.now(), None);
        let look = EngineLoad {
            waiting: 1,
            cache: 2,
        };
        figures.set(look);
        tokio::time::advance(FRESH / 2).await;
        assert_eq!(figures.now(), Some(look));
        tokio::time::advance(FRESH).await;
        assert_eq!(figures.now(), None);
    }
}
