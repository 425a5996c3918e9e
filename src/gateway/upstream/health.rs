//! Health of a server, by which it is chosen or not: what its answers and our questions say.
//!
//! ```text
//!            failures in a row              time is up
//!   in ────────────────────────► ejected ──────────────► on probation
//!    ▲                              ▲                      │      │
//!    │                              └──────── a failure ───┘      │
//!    └──────────────────────── a success ─────────────────────────┘
//! ```
//!
//! A failure is a [`Fault`]: no connection, a break before the first byte, a silence
//! until the limit of the first byte, a 5xx, a refusal of our key or a redirect. Each
//! ejection is twice as long as the one before, until the server has served for as long as
//! it was last out. On probation one request at a time is let through. Apart from that, an
//! active check may say that the server is down. The last usable server is never ejected:
//! the caller says whether there is another.
//!
//! Does not choose, and does no I/O.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::Fault;
use crate::config::Ejection;
use crate::telemetry::metrics::ServerMetrics;
use crate::time::{Clock, Uptime, unix_seconds};

/// Until the same failure of a server is told again in the log.
const TOLD_AGAIN: Duration = Duration::from_mins(1);
/// And until another one is.
const TOLD_OTHER: Duration = Duration::from_secs(1);

/// Health of one server, as far as it is known. Outlives a reload.
#[derive(Debug)]
pub struct Health {
    clock: Clock,
    /// Route and address, for the log.
    label: Arc<str>,
    metrics: ServerMetrics,
    /// True while nothing is against it: read for each request.
    clean: AtomicBool,
    /// Ejections so far.
    ejections: AtomicU32,
    /// Held for a few instructions, never over an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// End of its ejection; on probation from then until a success.
    out_until: Option<Uptime>,
    /// Length of its last ejection, and when that ended; until it is forgiven.
    last_out: Option<(Duration, Uptime)>,
    /// True while a request tries it on probation.
    probed: bool,
    /// True while the active check says that it is down.
    down: bool,
    /// Answers to the check in a row that speak against `down` as it is.
    contrary: u32,
    /// True if the last failure was one for which it is not left out.
    is_noted: bool,
    /// Since when there is something against it, in seconds since 1970.
    since: Option<u64>,
    /// The last failure, in words.
    why: Cow<'static, str>,
    /// The one that the log was told last, and when.
    told: Option<(&'static str, Uptime)>,
}

/// Standing of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerStanding {
    /// Chosen like any other.
    In,
    /// Left out, for so long still.
    Ejected(Duration),
    /// One request at a time tries it.
    Probation,
    /// The active check fails.
    Down,
}

impl ServerStanding {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Ejected(_) => "ejected",
            Self::Probation => "probation",
            Self::Down => "down",
        }
    }
}

/// One request to a server; dropped without a verdict, it says nothing about it.
#[derive(Debug)]
pub struct Attempt {
    health: Arc<Health>,
    /// True if it tries a server on probation.
    probes: bool,
}

impl Health {
    /// Nothing against it.
    pub fn new(clock: Clock, label: Arc<str>, metrics: ServerMetrics) -> Arc<Self> {
        metrics.is_in(true);
        Arc::new(Self {
            clock,
            label,
            metrics,
            clean: AtomicBool::new(true),
            ejections: AtomicU32::new(0),
            state: Mutex::default(),
        })
    }

    /// True if the server may be chosen now.
    pub fn is_usable(&self) -> bool {
        if self.clean.load(Ordering::Acquire) {
            return true;
        }
        let state = self.lock();
        match self.standing_of(&state) {
            ServerStanding::In => true,
            ServerStanding::Probation => !state.probed,
            ServerStanding::Ejected(_) | ServerStanding::Down => false,
        }
    }

    /// Standing of the server.
    pub fn standing(&self) -> ServerStanding {
        self.standing_of(&self.lock())
    }

    /// The last failure in words, while there is something against it.
    pub fn why(&self) -> Option<String> {
        let state = self.lock();
        let is_in = self.standing_of(&state) == ServerStanding::In;
        let stands = state.failures > 0 || state.is_noted || !is_in;
        stands.then(|| state.why.clone().into_owned())
    }

    /// Since when there is something against it, in seconds since 1970.
    pub fn since(&self) -> Option<u64> {
        self.lock().since
    }

    /// Number of times that it was ejected.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// A request begins.
    pub fn begin(self: &Arc<Self>) -> Attempt {
        let mut probes = false;
        if !self.clean.load(Ordering::Acquire) {
            let mut state = self.lock();
            if self.standing_of(&state) == ServerStanding::Probation && !state.probed {
                (state.probed, probes) = (true, true);
            }
        }
        Attempt {
            health: Arc::clone(self),
            probes,
        }
    }

    /// The active check had this answer; `needed` in a row change its mind.
    pub fn checked(&self, well: bool, needed: u32, why: &'static str) {
        let mut state = self.lock();
        if well != state.down {
            state.contrary = 0;
            return;
        }
        state.contrary += 1;
        if state.contrary < needed {
            return;
        }
        (state.down, state.contrary) = (!well, 0);
        if well {
            tracing::info!(upstream = %self.label, "{} is well again by its health check", self.label);
        } else {
            state.why = Cow::Borrowed(why);
            tracing::warn!(upstream = %self.label, "{} is left out: its health check failed {needed} times in a row, the last time: {why}", self.label);
        }
        self.settle(&mut state);
    }

    /// No check asks any more.
    pub fn unchecked(&self) {
        let mut state = self.lock();
        if state.down {
            state.down = false;
            self.settle(&mut state);
        }
    }

    fn standing_of(&self, state: &State) -> ServerStanding {
        if state.down {
            return ServerStanding::Down;
        }
        match state.out_until {
            None => ServerStanding::In,
            Some(until) => match until.saturating_sub(self.clock.now()) {
                Duration::ZERO => ServerStanding::Probation,
                left => ServerStanding::Ejected(left),
            },
        }
    }

    fn settle(&self, state: &mut State) {
        let is_in = !state.down && state.out_until.is_none();
        let is_blank = state.failures == 0 && !state.is_noted;
        let clean = is_in && is_blank && state.last_out.is_none();
        state.since = (!is_in || !is_blank).then(|| state.since.unwrap_or_else(unix_seconds));
        self.clean.store(clean, Ordering::Release);
        self.metrics.is_in(is_in);
    }

    fn succeeded(&self) {
        if self.clean.load(Ordering::Acquire) {
            return;
        }
        let (mut state, now) = (self.lock(), self.clock.now());
        (state.failures, state.is_noted) = (0, false);
        if state.out_until.is_some_and(|until| until <= now) {
            state.out_until = None;
            tracing::info!(upstream = %self.label, "{} answers again", self.label);
        }
        let forgiven = |(out, ended): (Duration, Uptime)| now >= ended + out;
        if state.out_until.is_none() && state.last_out.is_some_and(forgiven) {
            state.last_out = None;
        }
        self.settle(&mut state);
    }

    fn failed(&self, fault: &Fault<'_>, ejection: Ejection, is_last: impl FnOnce() -> bool) {
        let (mut state, now) = (self.lock(), self.clock.now());
        self.note(&mut state, fault, now);
        if !fault.ejects() || ejection.failures == 0 {
            state.is_noted = true;
            self.settle(&mut state);
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let on_probation = state.out_until.is_some_and(|until| until <= now);
        let due = match state.out_until {
            Some(_) => on_probation,
            None => state.failures >= ejection.failures,
        };
        // Asked with the lock released: it looks at other servers' health.
        drop(state);
        if due && is_last() {
            let mut state = self.lock();
            state.out_until = None;
            self.settle(&mut state);
            return;
        }
        let mut state = self.lock();
        if due {
            self.eject(&mut state, ejection, now);
        }
        self.settle(&mut state);
    }

    /// Keeps what went wrong, counts it and tells it: once, while it stays the same.
    fn note(&self, state: &mut State, fault: &Fault<'_>, now: Uptime) {
        state.why = fault.words();
        let reason = fault.reason();
        self.metrics.failed(reason);
        let since = |then: Uptime| now.saturating_sub(then);
        let is_new = state.told.is_none_or(|(told, then)| {
            let again = if told == reason {
                TOLD_AGAIN
            } else {
                TOLD_OTHER
            };
            since(then) >= again
        });
        if is_new {
            state.told = Some((reason, now));
            tracing::warn!(upstream = %self.label, reason, "{}: a request failed: {}", self.label, state.why);
        }
    }

    fn eject(&self, state: &mut State, ejection: Ejection, now: Uptime) {
        if state.out_until.is_some_and(|until| until > now) {
            // Another request came first.
            return;
        }
        let time = state
            .last_out
            .map_or(ejection.time, |(out, _)| out.saturating_mul(2))
            .min(ejection.time_max);
        state.out_until = Some(now + time);
        state.last_out = Some((time, now + time));
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.metrics.ejected();
        tracing::warn!(
            upstream = %self.label,
            "{} is left out for {time:?}: {} failures in a row, the last: {}",
            self.label, state.failures, state.why
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// The server answered, and not with a failure.
    pub fn succeeded(self) {
        self.health.succeeded();
    }

    /// It failed. `is_last` says whether there is no other to go to.
    pub fn failed(self, fault: &Fault<'_>, ejection: Ejection, is_last: impl FnOnce() -> bool) {
        self.health.failed(fault, ejection, is_last);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.probes {
            self.health.lock().probed = false;
        }
    }
}

#[cfg(test)]
mod tests;
