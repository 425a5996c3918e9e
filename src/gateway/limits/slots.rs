//! Limits on requests at work at once, and the queue of those that wait for a place.
//!
//! A [`Slot`] is a place; dropping it gives it to the next that waits, or frees it.
//! Higher classes are served first; within one, workspaces take turns, and within
//! a workspace the longest wait is first. A full queue makes room for a workspace
//! with less in it, so that no one can fill it for all. The state outlives a
//! reload: a limit that changes changes here, and places taken stay taken.
//!
//! [`Seats`] count what each key has at work, and never let anyone wait.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::names::Workspace;
use crate::time::{Instant, timeout};

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
    queue: Queue,
}

/// Waiting requests, by class.
#[derive(Debug, Default)]
struct Queue([VecDeque<Line>; CLASSES]);

/// Waiting requests of one workspace and class. Never empty.
#[derive(Debug)]
struct Line {
    workspace: Workspace,
    /// Each gets a place by a message; a receiver that is gone is passed over.
    waiters: VecDeque<oneshot::Sender<()>>,
}

/// One place, taken until it is dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

/// Reason why there was no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// All places are taken, and so is the queue.
    Full {
        /// Number of places.
        limit: u32,
    },
    /// None became free in time.
    TimedOut,
}

/// Bounds on the wait for a place.
#[derive(Clone, Copy, Debug)]
pub struct QueuePatience {
    /// Most that may wait at once; 0 to deny at once.
    pub queue_max: u32,
    /// Longest wait.
    pub wait_max: Duration,
}

const CLASSES: usize = 3;

/// Priority classes: a lower one is served when none of a higher one waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Unless the token says otherwise: `prio` 0.
    #[default]
    First,
    /// `prio` 1.
    Second,
    /// `prio` 2 and above.
    Last,
}

impl Class {
    /// The class of a token with this `prio`. As all limits of a token do, it only
    /// lowers.
    pub fn of(prio: Option<u8>) -> Self {
        match prio {
            None | Some(0) => Self::First,
            Some(1) => Self::Second,
            Some(_) => Self::Last,
        }
    }
}

/// Facts by which a place in the queue is given.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Workspaces take turns.
    pub workspace: &'a Workspace,
    /// Classes do not.
    pub class: Class,
}

impl Slots {
    /// Places for `limit` at once; `None` for no limit.
    pub fn new(limit: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                limit,
                used: 0,
                queue: Queue::default(),
            }),
        })
    }

    /// Changes the limit. Places that are taken beyond it stay taken; requests that
    /// wait get what a higher one adds.
    pub fn set_limit(&self, limit: Option<u32>) {
        let mut state = self.lock();
        state.limit = limit;
        state.hand_out();
    }

    /// Takes a place that is free, without waiting.
    pub fn take_free(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        if !state.has_place() || !state.queue.is_empty() {
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
    pub async fn take(
        self: &Arc<Self>,
        patience: QueuePatience,
        turn: Turn<'_>,
    ) -> Result<Slot, NoSlot> {
        if let Some(slot) = self.take_free() {
            return Ok(slot);
        }
        let waiter = {
            let mut state = self.lock();
            // Waiters that gave up leave their place in the queue here.
            state.queue.forget_gone();
            let full = state.queue.len() >= patience.queue_max as usize;
            if full && (patience.queue_max == 0 || !state.queue.make_room(turn)) {
                let limit = state.limit.unwrap_or_default();
                return Err(NoSlot::Full { limit });
            }
            let (sender, receiver) = oneshot::channel();
            state.queue.join(turn, sender);
            state.hand_out();
            Waiter {
                slots: Arc::clone(self),
                receiver,
            }
        };
        let deadline = Instant::now() + patience.wait_max;
        waiter.wait(deadline).await
    }

    /// True if a place is free. For a choice; to take it, [`Self::take_free`].
    pub fn has_free(&self) -> bool {
        let state = self.lock();
        state.has_place() && state.queue.is_empty()
    }

    /// Number of places that are taken.
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

    /// Gives free places to the waiters whose turn it is.
    fn hand_out(&mut self) {
        while self.has_place() && self.queue.serve() {
            self.used += 1;
        }
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.0.iter().all(VecDeque::is_empty)
    }

    fn len(&self) -> usize {
        self.0.iter().flatten().map(|line| line.waiters.len()).sum()
    }

    fn forget_gone(&mut self) {
        for class in &mut self.0 {
            for line in class.iter_mut() {
                line.waiters.retain(|waiter| !waiter.is_closed());
            }
            class.retain(|line| !line.waiters.is_empty());
        }
    }

    #[expect(clippy::indexing_slicing, reason = "one for each variant of Class")]
    fn class(&mut self, class: Class) -> &mut VecDeque<Line> {
        &mut self.0[class as usize]
    }

    fn join(&mut self, turn: Turn<'_>, waiter: oneshot::Sender<()>) {
        let lines = self.class(turn.class);
        if let Some(line) = lines.iter_mut().find(|l| l.workspace == *turn.workspace) {
            line.waiters.push_back(waiter);
            return;
        }
        lines.push_back(Line {
            workspace: turn.workspace.clone(),
            waiters: VecDeque::from([waiter]),
        });
    }

    /// Sends away the newest of the longest line of a lower class, or of this
    /// class where that line stays no shorter than the newcomer's.
    fn make_room(&mut self, turn: Turn<'_>) -> bool {
        for (index, lines) in self.0.iter_mut().enumerate().rev() {
            if index < turn.class as usize {
                return false;
            }
            let own = lines.iter().find(|line| line.workspace == *turn.workspace);
            let own = own.map_or(0, |line| line.waiters.len());
            let Some(longest) = lines.iter_mut().max_by_key(|line| line.waiters.len()) else {
                continue;
            };
            if index > turn.class as usize || longest.waiters.len() > own + 1 {
                // Its receiver learns by losing the sender.
                drop(longest.waiters.pop_back());
                lines.retain(|line| !line.waiters.is_empty());
                return true;
            }
        }
        false
    }

    /// Gives a place to the next; false when no waiter is left. One that is gone costs
    /// its workspace no turn.
    fn serve(&mut self) -> bool {
        for lines in &mut self.0 {
            while let Some(mut line) = lines.pop_front() {
                let mut served = false;
                while let Some(waiter) = line.waiters.pop_front() {
                    if waiter.send(()).is_ok() {
                        served = true;
                        break;
                    }
                }
                if !line.waiters.is_empty() {
                    lines.push_back(line);
                }
                if served {
                    return true;
                }
            }
        }
        false
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.used -= 1;
        state.hand_out();
    }
}

/// A waiting request. A place that arrives while it is being dropped is passed on.
struct Waiter {
    slots: Arc<Slots>,
    receiver: oneshot::Receiver<()>,
}

impl Waiter {
    async fn wait(mut self, deadline: Instant) -> Result<Slot, NoSlot> {
        let limit = deadline.saturating_duration_since(Instant::now());
        match timeout(limit, &mut self.receiver).await {
            Ok(Ok(())) => Ok(Slot(Arc::clone(&self.slots))),
            // The sender lives in the queue: a waiter that lost it has made room for another.
            Ok(Err(_)) => Err(NoSlot::Full {
                limit: self.slots.lock().limit.unwrap_or_default(),
            }),
            Err(_) => Err(NoSlot::TimedOut),
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

/// Number of requests that each key has at work; a key without any is forgotten.
#[derive(Debug)]
pub struct Seats<K: Eq + Hash>(
    /// Held for a few instructions, never over an await.
    Mutex<HashMap<K, u32>>,
);

/// One of the requests of a key, counted until it is dropped.
#[derive(Debug)]
pub struct Seat<K: Eq + Hash> {
    seats: Arc<Seats<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Seats<K> {
    /// Seats without a request at work.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Counts one more request of `key`, if it has less than `limit`.
    pub fn take(self: &Arc<Self>, key: &K, limit: u32) -> Option<Seat<K>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(key).copied().unwrap_or_default();
        if count >= limit {
            return None;
        }
        taken.insert(key.clone(), count + 1);
        Some(Seat {
            seats: Arc::clone(self),
            key: key.clone(),
        })
    }

    /// Number of keys that have requests at work.
    pub fn keys(&self) -> usize {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.len()
    }
}

impl<K: Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests;
