//! How many requests may be at work at once, and who waits for a place.
//!
//! A [`Slot`] is a place; dropping it gives it to the one who waits longest, or
//! frees it. The state outlives a reload: a limit that changes changes here, and
//! the places that are taken stay taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::time::{Instant, timeout};
use std::time::Duration;

/// The places of one deployment or route.
#[derive(Debug)]
pub struct Slots {
    /// Held for a few instructions, never over an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` for no limit.
    limit: Option<u32>,
    used: u32,
    /// Each gets a place by a message; a receiver that is gone is passed over.
    waiters: VecDeque<oneshot::Sender<()>>,
}

/// One place, taken until it is dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

/// Why there was no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// All places are taken, and so is the queue.
    Full {
        /// How many places there are.
        limit: u32,
    },
    /// None became free in time.
    TimedOut,
}

/// How long one may wait for a place.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Most that may wait at once; 0 to deny at once.
    pub queue_max: u32,
    /// Longest wait.
    pub wait_max: Duration,
}

impl Slots {
    /// Places for `limit` at once; `None` for no limit.
    pub fn new(limit: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                limit,
                used: 0,
                waiters: VecDeque::new(),
            }),
        })
    }

    /// Changes the limit. Places that are taken beyond it stay taken; those who
    /// wait get what a higher one adds.
    pub fn set_limit(&self, limit: Option<u32>) {
        let mut state = self.lock();
        state.limit = limit;
        state.hand_out();
    }

    /// Takes a place that is free, without waiting.
    pub fn take_free(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        if !state.has_place() || !state.waiters.is_empty() {
            return None;
        }
        state.used += 1;
        Some(Slot(Arc::clone(self)))
    }

    /// Takes a place, waiting for it as `patience` says.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] when there was none.
    pub async fn take(self: &Arc<Self>, patience: Patience) -> Result<Slot, NoSlot> {
        if let Some(slot) = self.take_free() {
            return Ok(slot);
        }
        let waiter = {
            let mut state = self.lock();
            // Those who gave up leave their place in the queue here.
            state.waiters.retain(|waiter| !waiter.is_closed());
            let limit = state.limit.unwrap_or_default();
            if state.waiters.len() >= patience.queue_max as usize {
                return Err(NoSlot::Full { limit });
            }
            let (sender, receiver) = oneshot::channel();
            state.waiters.push_back(sender);
            state.hand_out();
            Waiter {
                slots: Arc::clone(self),
                receiver,
            }
        };
        let deadline = Instant::now() + patience.wait_max;
        waiter.wait(deadline).await
    }

    /// How many places are taken.
    pub fn used(&self) -> u32 {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_place(&self) -> bool {
        self.limit.is_none_or(|limit| self.used < limit)
    }

    /// Gives free places to those who wait longest.
    fn hand_out(&mut self) {
        while self.has_place()
            && let Some(waiter) = self.waiters.pop_front()
        {
            if waiter.send(()).is_ok() {
                self.used += 1;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.used -= 1;
        state.hand_out();
    }
}

/// One who waits. A place that arrives while it is being dropped is passed on.
struct Waiter {
    slots: Arc<Slots>,
    receiver: oneshot::Receiver<()>,
}

impl Waiter {
    async fn wait(mut self, deadline: Instant) -> Result<Slot, NoSlot> {
        let limit = deadline.saturating_duration_since(Instant::now());
        match timeout(limit, &mut self.receiver).await {
            // The sender lives in the queue of `slots`, so it can't be gone.
            Ok(Ok(())) => Ok(Slot(Arc::clone(&self.slots))),
            Ok(Err(_)) | Err(_) => Err(NoSlot::TimedOut),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.receiver.close();
        if self.receiver.try_recv().is_ok() {
            drop(Slot(Arc::clone(&self.slots)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::Poll;

    const DENY: Patience = Patience {
        queue_max: 0,
        wait_max: Duration::ZERO,
    };
    const WAIT: Patience = Patience {
        queue_max: 2,
        wait_max: Duration::from_secs(5),
    };

    #[tokio::test]
    async fn a_full_limit_denies_at_once_where_no_queue_is() {
        let slots = Slots::new(Some(1));
        let first = slots.take(DENY).await.unwrap();
        assert_eq!(
            slots.take(DENY).await.unwrap_err(),
            NoSlot::Full { limit: 1 }
        );
        drop(first);
        assert!(slots.take(DENY).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_gets_the_place_or_its_deadline() {
        let slots = Slots::new(Some(1));
        let first = slots.take(DENY).await.unwrap();
        assert_eq!(slots.take(WAIT).await.unwrap_err(), NoSlot::TimedOut);
        let mut waiting = Box::pin(slots.take(WAIT));
        assert!(poll_once(&mut waiting).await.is_none());
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(slots.used(), 1);
        drop(second);
        assert_eq!(slots.used(), 0);
    }

    #[tokio::test]
    async fn a_raised_limit_lets_waiters_in_and_a_lowered_one_cuts_no_one() {
        let slots = Slots::new(Some(1));
        let first = slots.take(DENY).await.unwrap();
        let mut waiting = Box::pin(slots.take(WAIT));
        assert!(poll_once(&mut waiting).await.is_none());
        slots.set_limit(Some(2));
        let second = waiting.await.unwrap();
        slots.set_limit(Some(1));
        assert_eq!(slots.used(), 2);
        drop(first);
        assert!(slots.take(DENY).await.is_err(), "one is still inside");
        drop(second);
        assert!(slots.take(DENY).await.is_ok());
    }

    async fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            Poll::Ready(match future.as_mut().poll(cx) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            })
        })
        .await
    }

    proptest! {
        #[test]
        fn no_order_of_arrivals_exits_and_aborts_leaks_a_place(
            steps in prop::collection::vec((0..4_u8, 0..8_usize), 1..200),
            limit in 1..4_u32,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let slots = Slots::new(Some(limit));
                let patience = Patience { queue_max: 4, wait_max: Duration::from_secs(1) };
                let mut held = Vec::new();
                let mut waiting = Vec::new();
                for (step, pick) in steps {
                    match step {
                        0 => {
                            let slots = Arc::clone(&slots);
                            let mut future = Box::pin(async move { slots.take(patience).await });
                            match poll_once(&mut future).await {
                                Some(Ok(slot)) => held.push(slot),
                                Some(Err(_)) => {}
                                None => waiting.push(future),
                            }
                        }
                        1 if !held.is_empty() => drop(held.swap_remove(pick % held.len())),
                        2 if !waiting.is_empty() => {
                            let mut future = waiting.swap_remove(pick % waiting.len());
                            match poll_once(&mut future).await {
                                Some(Ok(slot)) => held.push(slot),
                                Some(Err(_)) => {}
                                None => waiting.push(future),
                            }
                        }
                        // Dropped while it waits, with or without a place on its way.
                        3 if !waiting.is_empty() => drop(waiting.swap_remove(pick % waiting.len())),
                        _ => {}
                    }
                    assert!(slots.used() <= limit);
                }
                waiting.clear();
                assert_eq!(slots.used() as usize, held.len());
                held.clear();
                assert_eq!(slots.used(), 0);
            });
        }
    }
}
