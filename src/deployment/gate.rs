//! Admission gate of one deployment: open or closed, and how many are inside.
//!
//! One atomic word holds both, so that no caller can read one and act on the
//! other. The gate sets no limit; that is `gateway`'s to decide before it
//! comes here. It remembers when the last request left: that is the idle clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::time::{Clock, Uptime};

/// Bit 31 of the word: set while the gate is closed.
const CLOSED: u32 = 1 << 31;

/// Lets requests in while it is open; can be closed atomically.
#[derive(Debug)]
pub struct Gate {
    clock: Clock,
    word: AtomicU32,
    /// Milliseconds of the clock at the last entry, exit or opening.
    touched: AtomicU64,
    /// Notified when the last request leaves a closed gate.
    drained: Notify,
    /// Requests that ever entered; for estimates only.
    entered: AtomicU64,
    /// Milliseconds that those that left were inside; for estimates only.
    inside_millis: AtomicU64,
}

/// Counts of a gate since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that entered.
    pub entered: u64,
    /// Requests that left.
    pub left: u64,
    /// Milliseconds that those that left were inside, all together.
    pub inside_millis: u64,
}

/// Proof that one request is inside the gate. Dropping it lets the request out.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    /// Milliseconds of the gate's clock when it entered.
    since: u64,
}

impl Gate {
    /// A closed gate.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            word: AtomicU32::new(CLOSED),
            touched: AtomicU64::new(clock.millis()),
            drained: Notify::new(),
            entered: AtomicU64::new(0),
            inside_millis: AtomicU64::new(0),
        })
    }

    /// An open gate: that of a worker among those of its deployment.
    pub fn opened(clock: Clock) -> Arc<Self> {
        let gate = Self::new(clock);
        gate.open();
        gate
    }

    /// The clock that it goes by.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Lets one request in; `None` while the gate is closed.
    pub fn enter(self: &Arc<Self>) -> Option<Permit> {
        // 2^31 requests inside can't be: each holds memory and a socket.
        self.enter_below(CLOSED - 1)
    }

    /// Lets one request in if fewer than `max` are inside; `None` while the gate is
    /// closed.
    pub fn enter_below(self: &Arc<Self>, max: u32) -> Option<Permit> {
        let max = max.min(CLOSED - 1);
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            // A closed gate has a bit above every limit.
            if word >= max {
                return None;
            }
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    self.entered.fetch_add(1, Ordering::Relaxed);
                    return Some(Permit {
                        since: self.clock.millis(),
                        gate: Arc::clone(self),
                    });
                }
                Err(seen) => word = seen,
            }
        }
    }

    /// Opens the gate; idle time counts from here. Requests still inside keep
    /// their permits.
    pub fn open(&self) {
        self.touch();
        self.word.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// Closes the gate and returns how many requests are still inside.
    pub fn close(&self) -> u32 {
        self.word.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED
    }

    /// Closes the gate only when it is open and empty. Returns whether it did.
    pub fn close_if_idle(&self) -> bool {
        self.word
            .compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Resolves once the gate is closed and no request is inside.
    pub async fn drained(&self) {
        loop {
            let left = self.drained.notified();
            if self.word.load(Ordering::Acquire) == CLOSED {
                return;
            }
            left.await;
        }
    }

    /// Number of requests inside.
    pub fn in_flight(&self) -> u32 {
        self.word.load(Ordering::Acquire) & !CLOSED
    }

    /// True if the gate is open. For display; to act, [`Self::enter`].
    pub fn is_open(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED == 0
    }

    /// Time since which no request has been inside; `None` while one is.
    pub fn idle_since(&self) -> Option<Uptime> {
        // Read in this order, a request that enters between the two reads makes
        // the time too old only while `close_if_idle` would fail anyway.
        let inside = self.in_flight();
        let touched = Uptime::from_millis(self.touched.load(Ordering::Acquire));
        (inside == 0).then_some(touched)
    }

    /// Time when a request was last inside, by the clock of the gate.
    pub fn last_activity(&self) -> Uptime {
        if self.in_flight() > 0 {
            return self.clock.now();
        }
        Uptime::from_millis(self.touched.load(Ordering::Acquire))
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        let inside = u64::from(self.in_flight());
        let entered = self.entered.load(Ordering::Relaxed);
        Counts {
            entered,
            left: entered.saturating_sub(inside),
            inside_millis: self.inside_millis.load(Ordering::Relaxed),
        }
    }

    /// Returns the time by the clock of the gate.
    fn touch(&self) -> u64 {
        let now = self.clock.millis();
        self.touched.fetch_max(now, Ordering::AcqRel);
        now
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Touched first: a task that sees the gate empty sees the newer time too.
        let now = self.gate.touch();
        let inside = now.saturating_sub(self.since);
        let gate = &self.gate;
        gate.inside_millis.fetch_add(inside, Ordering::Relaxed);
        if self.gate.word.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.gate.drained.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[tokio::test]
    async fn a_closed_gate_lets_no_one_in_even_under_race() {
        let gate = Gate::new(Clock::start());
        for _ in 0..2_000 {
            gate.open();
            let entrants: Vec<_> = (0..4)
                .map(|_| {
                    let gate = Arc::clone(&gate);
                    thread::spawn(move || gate.enter())
                })
                .collect();
            let closed_idle = gate.close_if_idle();
            let inside: Vec<_> = entrants
                .into_iter()
                .filter_map(|t| t.join().unwrap())
                .collect();
            if closed_idle {
                assert!(
                    inside.is_empty(),
                    "closed as idle, yet {} got in",
                    inside.len()
                );
            }
            drop(inside);
            gate.close();
            assert_eq!(gate.in_flight(), 0);
        }
    }

    #[test]
    fn a_limit_lets_in_so_many_and_no_one_through_a_closed_gate() {
        let gate = Gate::new(Clock::start());
        assert!(gate.enter_below(2).is_none() && gate.enter_below(u32::MAX).is_none());
        gate.open();
        let inside = [gate.enter_below(2).unwrap(), gate.enter_below(2).unwrap()];
        assert!(gate.enter_below(2).is_none());
        assert!(gate.enter_below(3).is_some() && gate.enter().is_some());
        drop(inside);
        assert!(gate.enter_below(1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_counts_from_the_last_exit_and_never_while_one_is_inside() {
        let clock = Clock::start();
        let gate = Gate::new(clock);
        tokio::time::advance(Duration::from_secs(5)).await;
        gate.open();
        assert_eq!(gate.idle_since(), Some(Duration::from_secs(5)));
        let permit = gate.enter().unwrap();
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(gate.idle_since(), None);
        assert!(!gate.close_if_idle());
        drop(permit);
        assert_eq!(gate.idle_since(), Some(Duration::from_secs(65)));
    }

    #[tokio::test]
    async fn drained_waits_for_the_last_one_out() {
        let gate = Gate::new(Clock::start());
        gate.open();
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert_eq!(gate.close(), 2);
        let drained = gate.drained();
        tokio::pin!(drained);
        drop(first);
        assert!(
            futures_poll_once(drained.as_mut()).await.is_none(),
            "one is still inside"
        );
        drop(second);
        drained.await;
        gate.drained().await;
    }

    async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
