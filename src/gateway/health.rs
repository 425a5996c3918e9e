//! Whether a server is to be chosen: what its answers and our questions say.
//!
//! ```text
//!            failures in a row              time is up
//!   in ────────────────────────► ejected ──────────────► on probation
//!    ▲                              ▲                      │      │
//!    │                              └──────── a failure ───┘      │
//!    └──────────────────────── a success ─────────────────────────┘
//! ```
//!
//! A failure is: no connection, a break before the first byte, a silence until the
//! limit of the first byte, or a 5xx. Each ejection is twice as long as the one
//! before, until the server has served for as long as it was last out. On probation
//! one request at a time is let through. Apart from that, an active check may say
//! that the server is down. Whoever is asked last is never ejected: the caller
//! says whether there is another.
//!
//! Does not choose, and does no I/O.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Ejection;
use crate::telemetry::metrics::ServerMetrics;
use crate::time::{Clock, Uptime};

/// What is known of one server's health. Outlives a reload.
#[derive(Debug)]
pub struct Health {
    clock: Clock,
    /// Route and address, for the log.
    label: Arc<str>,
    metrics: ServerMetrics,
    /// Whether there is nothing against it: read for each request.
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
    /// Until when it is ejected; on probation from then until a success.
    out_until: Option<Uptime>,
    /// How long it was out last, and when that ended; until it is forgiven.
    last_out: Option<(Duration, Uptime)>,
    /// Whether a request tries it on probation.
    probed: bool,
    /// What the active check says.
    down: bool,
    /// Answers to the check in a row that speak against `down` as it is.
    contrary: u32,
    /// The last failure, in words.
    why: &'static str,
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Chosen like any other.
    In,
    /// Left out, for so long still.
    Ejected(Duration),
    /// One request at a time tries it.
    Probation,
    /// The active check fails.
    Down,
}

impl Standing {
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
    /// Whether it tries a server on probation.
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

    /// Whether it may be chosen now.
    pub fn is_usable(&self) -> bool {
        if self.clean.load(Ordering::Acquire) {
            return true;
        }
        let state = self.lock();
        match self.standing_of(&state) {
            Standing::In => true,
            Standing::Probation => !state.probed,
            Standing::Ejected(_) | Standing::Down => false,
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        self.standing_of(&self.lock())
    }

    /// The last failure in words, while there is something against it.
    pub fn why(&self) -> Option<&'static str> {
        let state = self.lock();
        (state.failures > 0 || self.standing_of(&state) != Standing::In).then_some(state.why)
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// A request begins.
    pub fn begin(self: &Arc<Self>) -> Attempt {
        let mut probes = false;
        if !self.clean.load(Ordering::Acquire) {
            let mut state = self.lock();
            if self.standing_of(&state) == Standing::Probation && !state.probed {
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
            state.why = why;
            tracing::warn!(upstream = %self.label, "{} is left out: its health check failed {needed} times in a row, the last time: {why}", self.label);
        }
        self.settle(&state);
    }

    /// No check asks any more.
    pub fn unchecked(&self) {
        let mut state = self.lock();
        if state.down {
            state.down = false;
            self.settle(&state);
        }
    }

    fn standing_of(&self, state: &State) -> Standing {
        if state.down {
            return Standing::Down;
        }
        match state.out_until {
            None => Standing::In,
            Some(until) => match until.saturating_sub(self.clock.now()) {
                Duration::ZERO => Standing::Probation,
                left => Standing::Ejected(left),
            },
        }
    }

    fn settle(&self, state: &State) {
        let is_in = !state.down && state.out_until.is_none();
        let clean = is_in && state.failures == 0 && state.last_out.is_none();
        self.clean.store(clean, Ordering::Release);
        self.metrics.is_in(is_in);
    }

    fn succeeded(&self) {
        if self.clean.load(Ordering::Acquire) {
            return;
        }
        let (mut state, now) = (self.lock(), self.clock.now());
        state.failures = 0;
        if state.out_until.is_some_and(|until| until <= now) {
            state.out_until = None;
            tracing::info!(upstream = %self.label, "{} answers again", self.label);
        }
        let forgiven = |(out, ended): (Duration, Uptime)| now >= ended + out;
        if state.out_until.is_none() && state.last_out.is_some_and(forgiven) {
            state.last_out = None;
        }
        self.settle(&state);
    }

    fn failed(&self, why: &'static str, ejection: Ejection, is_last: impl FnOnce() -> bool) {
        if ejection.failures == 0 {
            return;
        }
        let (mut state, now) = (self.lock(), self.clock.now());
        state.failures = state.failures.saturating_add(1);
        state.why = why;
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
            self.settle(&state);
            return;
        }
        let mut state = self.lock();
        if due {
            self.eject(&mut state, ejection, now);
        }
        self.settle(&state);
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
    pub fn failed(self, why: &'static str, ejection: Ejection, is_last: impl FnOnce() -> bool) {
        self.health.failed(why, ejection, is_last);
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
mod tests {
    use super::*;
    use tokio::time::advance;

    const RULES: Ejection = Ejection {
        failures: 3,
        time: Duration::from_secs(5),
        time_max: Duration::from_secs(15),
    };

    fn health() -> Arc<Health> {
        let label = Arc::from("chat/a:80");
        Health::new(Clock::start(), label, ServerMetrics::new("chat", "a:80"))
    }

    fn fail(health: &Arc<Health>) {
        health.begin().failed("no connection", RULES, || false);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_eject_for_a_time_that_doubles_up_to_its_limit() {
        let health = health();
        fail(&health);
        fail(&health);
        health.begin().succeeded();
        fail(&health);
        fail(&health);
        assert!(health.is_usable(), "never three in a row");
        fail(&health);
        for seconds in [5, 10, 15, 15] {
            let time = Duration::from_secs(seconds);
            assert_eq!(health.standing(), Standing::Ejected(time));
            assert!(!health.is_usable());
            advance(time).await;
            assert_eq!(health.standing(), Standing::Probation);
            fail(&health);
        }
        assert_eq!(health.ejections(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn on_probation_one_request_at_a_time_tries_it() {
        let health = health();
        (0..3).for_each(|_| fail(&health));
        advance(RULES.time).await;
        assert!(health.is_usable());
        let attempt = health.begin();
        assert!(!health.is_usable(), "one tries it");
        // The client left: nothing is known, and the next may try.
        drop(attempt);
        let attempt = health.begin();
        assert!(!health.is_usable());
        attempt.succeeded();
        assert_eq!(health.standing(), Standing::In);
        assert!(health.is_usable());
    }

    #[tokio::test(start_paused = true)]
    async fn time_served_is_forgiven_and_the_next_ejection_is_short_again() {
        let health = health();
        for rounds in [1, 2] {
            (0..3).for_each(|_| fail(&health));
            let out = RULES.time * rounds;
            assert_eq!(health.standing(), Standing::Ejected(out));
            advance(out).await;
            health.begin().succeeded();
        }
        advance(RULES.time * 2).await;
        health.begin().succeeded();
        (0..3).for_each(|_| fail(&health));
        assert_eq!(health.standing(), Standing::Ejected(RULES.time));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_is_never_ejected() {
        let health = health();
        for _ in 0..20 {
            health.begin().failed("no connection", RULES, || true);
            assert!(health.is_usable());
        }
        assert_eq!(health.why(), Some("no connection"));
        fail(&health);
        assert!(!health.is_usable(), "there is another now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_health_check_changes_its_mind_after_answers_in_a_row() {
        let health = health();
        for (well, usable) in [
            (false, true),
            (true, true),
            (false, true),
            (false, false),
            (true, false),
            (false, false),
            (true, false),
            (true, true),
        ] {
            health.checked(well, 2, "the answer was 503");
            assert_eq!(health.is_usable(), usable, "after {well}");
        }
        health.checked(false, 1, "the answer was 503");
        health.unchecked();
        assert!(health.is_usable());
    }
}
