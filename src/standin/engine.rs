//! The engine core: who runs, who waits, and when each token is due.
//!
//! Owns the state that sleep, abort and death change (a watch: the transitions
//! in `sleep` and `server` write it, every request reads it), the places of running
//! sequences, and the counters behind `/metrics`. Does not know HTTP or texts.
//!
//! A request is admitted when the engine admits and a place is free; from then on
//! its [`Slot`] says when tokens are due, on a schedule of its own that does not
//! drift. Dropping the slot, or the wait for it, is the abort.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::args::Args;
use super::text::Finish;
use crate::time::{Instant, sleep_until};

/// State that all requests have to heed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts; vLLM's pause and sleep mix them freely"
)]
pub(super) struct State {
    /// True while requests that wait are admitted.
    pub(super) admits: bool,
    /// True while admitted requests go on.
    pub(super) runs: bool,
    /// Requests of an earlier epoch are aborted.
    pub(super) epoch: u64,
    /// The engine crashed: all requests fail.
    pub(super) dead: bool,
    /// A SIGTERM came: nothing moves again.
    pub(super) halted: bool,
    /// The sleep level, while asleep.
    pub(super) level: Option<u8>,
    /// True while the weights are off the GPU.
    pub(super) weights_away: bool,
    /// True while the cache is off the GPU.
    pub(super) cache_away: bool,
    /// True if the weights were dropped and not loaded again.
    pub(super) weights_lost: bool,
    /// True once it has slept.
    pub(super) has_slept: bool,
    /// True while tokens come at half the speed.
    pub(super) slow: bool,
    /// True while no token that is guessed ahead holds.
    pub(super) guesses_lost: bool,
}

const AWAKE: State = State {
    admits: true,
    runs: true,
    epoch: 0,
    dead: false,
    halted: false,
    level: None,
    weights_away: false,
    cache_away: false,
    weights_lost: false,
    has_slept: false,
    slow: false,
    guesses_lost: false,
};

/// Counters behind `/metrics`; each is one atomic word.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Sequences that run.
    pub(super) running: AtomicU32,
    /// Requests that wait.
    pub(super) waiting: AtomicU32,
    /// HTTP requests of inference that are inside.
    pub(super) inside: AtomicU32,
    /// Prompt tokens, once per sequence.
    pub(super) prompt_tokens: AtomicU64,
    /// Tokens made.
    pub(super) generation_tokens: AtomicU64,
    /// Tokens that it pretends to have guessed ahead.
    pub(super) guessed: AtomicU64,
    /// Those of them that held.
    pub(super) held: AtomicU64,
    /// Sequences that ended by themselves.
    pub(super) stopped: AtomicU64,
    /// Sequences that reached their length.
    pub(super) reached_length: AtomicU64,
    /// Sequences that were aborted from outside.
    pub(super) aborted: AtomicU64,
    /// Requests refused because too many waited.
    pub(super) rejected: AtomicU64,
}

/// Reason for which a request was not admitted or did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Too many requests wait.
    QueueFull,
    /// The engine crashed.
    Dead,
}

/// Progress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The tokens that were waited for are due.
    Reached,
    /// It was aborted after this many tokens.
    Aborted(u32),
}

/// Speeds and bounds of the engine.
#[derive(Clone, Copy, Debug)]
struct Pace {
    first_token: Duration,
    tokens_per_second: f64,
}

/// The engine core.
#[derive(Debug)]
pub(super) struct Engine {
    /// State that all requests heed.
    pub(super) state: watch::Sender<State>,
    /// Counters that `/metrics` reports.
    pub(super) counters: Counters,
    places: Arc<Semaphore>,
    places_max: u32,
    waiting_max: u32,
    pace: Pace,
    /// Tokens that are guessed ahead for each that is made.
    guesses: u32,
    emptied: Notify,
}

impl Engine {
    /// An engine that is awake and empty.
    pub(super) fn new(args: &Args) -> Arc<Self> {
        let places = usize::try_from(args.max_num_seqs).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            state: watch::Sender::new(AWAKE),
            counters: Counters::default(),
            places: Arc::new(Semaphore::new(places)),
            places_max: args.max_num_seqs,
            waiting_max: args.max_num_queued_reqs.unwrap_or(u32::MAX),
            pace: Pace {
                first_token: args.first_token.0,
                tokens_per_second: args.tokens_per_second,
            },
            guesses: args.num_speculative_tokens,
            emptied: Notify::new(),
        })
    }

    /// The state of this moment, for reports.
    pub(super) fn now(&self) -> State {
        *self.state.borrow()
    }

    /// Waits for places for `sequences` sequences; for as long as it is asleep.
    ///
    /// # Errors
    ///
    /// [`Failure`] when too many wait already, or the engine is dead.
    pub(super) async fn admit(self: Arc<Self>, sequences: u32) -> Result<Slot, Failure> {
        let mut state = self.state.subscribe();
        let epoch = state.borrow_and_update().epoch;
        let wanted = sequences.clamp(1, self.places_max);
        if let Some(places) = self.place_now(&mut state, wanted)? {
            return Ok(self.slot(Some(places), state, epoch, wanted));
        }
        let waiting = Waiting::begin(&self)?;
        loop {
            let now = *state.borrow_and_update();
            if now.dead {
                return Err(Failure::Dead);
            }
            if now.epoch != epoch {
                drop(waiting);
                return Ok(self.slot(None, state, epoch, wanted));
            }
            if now.halted || !now.admits {
                changed(&mut state).await;
                continue;
            }
            tokio::select! {
                places = Arc::clone(&self.places).acquire_many_owned(wanted) => {
                    // The semaphore is never closed.
                    let Ok(places) = places else { return Err(Failure::Dead) };
                    // A sleep that began meanwhile goes first.
                    if state.borrow().admits {
                        drop(waiting);
                        return Ok(self.slot(Some(places), state, epoch, wanted));
                    }
                }
                () = changed(&mut state) => {}
            }
        }
    }

    /// Places that are free at once, without waiting.
    fn place_now(
        &self,
        state: &mut watch::Receiver<State>,
        wanted: u32,
    ) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let now = *state.borrow();
        if now.dead {
            return Err(Failure::Dead);
        }
        if now.halted || !now.admits {
            return Ok(None);
        }
        Ok(Arc::clone(&self.places).try_acquire_many_owned(wanted).ok())
    }

    fn slot(
        self: &Arc<Self>,
        places: Option<OwnedSemaphorePermit>,
        state: watch::Receiver<State>,
        epoch: u64,
        sequences: u32,
    ) -> Slot {
        self.counters.running.fetch_add(sequences, Ordering::AcqRel);
        Slot {
            engine: Arc::clone(self),
            _places: places,
            state,
            epoch,
            start: Instant::now(),
            sequences,
        }
    }

    /// Resolves once nothing runs.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.counters.running.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// Resolves with the next change of the state; never, once the engine is gone.
async fn changed(state: &mut watch::Receiver<State>) {
    if state.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Counts one request as waiting while it lives.
struct Waiting<'a>(&'a Engine);

impl<'a> Waiting<'a> {
    fn begin(engine: &'a Engine) -> Result<Self, Failure> {
        let counters = &engine.counters;
        if counters.waiting.fetch_add(1, Ordering::AcqRel) >= engine.waiting_max {
            counters.waiting.fetch_sub(1, Ordering::AcqRel);
            counters.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::QueueFull);
        }
        Ok(Self(engine))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.counters.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A running request: its places, and the schedule of its tokens.
#[derive(Debug)]
pub(super) struct Slot {
    engine: Arc<Engine>,
    _places: Option<OwnedSemaphorePermit>,
    state: watch::Receiver<State>,
    epoch: u64,
    /// Moment at which it would have been admitted, had it never been frozen.
    start: Instant,
    sequences: u32,
}

impl Slot {
    /// Resolves when each sequence has `tokens` tokens, or at its abort.
    ///
    /// # Errors
    ///
    /// [`Failure::Dead`] when the engine dies meanwhile.
    pub(super) async fn until(&mut self, tokens: u32) -> Result<Progress, Failure> {
        loop {
            let state = *self.state.borrow_and_update();
            let now = Instant::now();
            if state.dead {
                return Err(Failure::Dead);
            }
            if state.epoch != self.epoch {
                return Ok(Progress::Aborted(self.made_by(now).min(tokens)));
            }
            if state.halted || !state.runs {
                changed(&mut self.state).await;
                self.start += now.elapsed();
                continue;
            }
            let due = self.engine.pace.due(tokens);
            let due = self.start + if state.slow { due * 2 } else { due };
            if due <= now {
                return Ok(Progress::Reached);
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = changed(&mut self.state) => {}
            }
        }
    }

    /// Number of tokens that each sequence has by then.
    fn made_by(&self, now: Instant) -> u32 {
        self.engine.pace.made(now.duration_since(self.start))
    }

    /// Counts prompt tokens as read.
    pub(super) fn read(&self, tokens: u32) {
        let counter = &self.engine.counters.prompt_tokens;
        counter.fetch_add(u64::from(tokens), Ordering::Relaxed);
    }

    /// Counts tokens as made.
    pub(super) fn made(&self, tokens: u32) {
        let counter = &self.engine.counters.generation_tokens;
        counter.fetch_add(u64::from(tokens), Ordering::Relaxed);
        let guessed = u64::from(tokens) * u64::from(self.engine.guesses);
        // Four of five hold.
        let lost = self.state.borrow().guesses_lost;
        let held = if lost { 0 } else { guessed * 4 / 5 };
        let counters = &self.engine.counters;
        counters.guessed.fetch_add(guessed, Ordering::Relaxed);
        counters.held.fetch_add(held, Ordering::Relaxed);
    }

    /// Counts one sequence as ended.
    pub(super) fn ended(&self, finish: Finish) {
        let counters = &self.engine.counters;
        let counter = match finish {
            Finish::Stop => &counters.stopped,
            Finish::Length => &counters.reached_length,
            Finish::Abort => &counters.aborted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let running = &self.engine.counters.running;
        if running.fetch_sub(self.sequences, Ordering::AcqRel) == self.sequences {
            self.engine.emptied.notify_waiters();
        }
    }
}

impl Pace {
    /// Time after the admission at which the token with this number, from 1, is due.
    fn due(&self, token: u32) -> Duration {
        let after_first = f64::from(token.saturating_sub(1)) / self.tokens_per_second;
        self.first_token + Duration::from_secs_f64(after_first)
    }

    /// Number of tokens that are made that long after the admission.
    fn made(&self, elapsed: Duration) -> u32 {
        let Some(after_first) = elapsed.checked_sub(self.first_token) else {
            return 0;
        };
        let more = after_first.as_secs_f64() * self.tokens_per_second;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "never negative, and a float turns into the nearest u32"
        )]
        let more = more as u32;
        more.saturating_add(1)
    }
}

#[cfg(test)]
mod tests;
