//! The series behind the plots: collected here, kept by the store.
//!
//! The gateway tells an [`Account`] of each request once, at its end; the sampler
//! of gauges tells the [`Recorder`]. Every [`INTERVAL`] someone calls
//! [`Recorder::flush`], which empties both into [`Point`]s for the store. All of
//! it is memory of bounded size; nothing here reads a disk or decides anything.
//!
//! Tokens and times count in the interval in which their request ends: a long
//! answer shows as one step there, not spread over its time.

mod cell;
pub mod series;
pub mod sketch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::outcome::Outcome;
use crate::time::Clock;

pub use cell::{Cell, Point};
pub use series::{Count, Gauge, Metric, Quantile, Scope, Series, Times};
pub use sketch::Sketch;

/// Time between two flushes.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Seconds over which live values are taken.
const LIVE_SECONDS: u8 = 10;

/// Most scopes, and most gauges, that are kept between two flushes; what comes
/// beyond is not recorded.
const SCOPES_MAX: usize = 10_000;

/// Figures of one request when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Way in which it ended.
    pub outcome: Outcome,
    /// Time from its head to the last byte.
    pub total: Duration,
    /// Time from its head to the first token.
    pub first_token: Option<Duration>,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Completion tokens.
    pub completion_tokens: u64,
}

/// Rates of now: the mean of the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Live {
    /// Requests that ended, per second.
    pub requests: f64,
    /// Prompt tokens per second.
    pub prompt_tokens: f64,
    /// Completion tokens per second.
    pub completion_tokens: f64,
}

/// Collects the points of the next flush.
#[derive(Debug)]
pub struct Recorder {
    clock: Clock,
    /// Locked for a look-up, and once per flush; never over an await.
    accounts: Mutex<HashMap<Scope, Arc<Account>>>,
    /// Locked for one addition.
    gauges: Mutex<HashMap<(Scope, Gauge), Cell>>,
}

impl Recorder {
    /// Records nothing yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            accounts: Mutex::default(),
            gauges: Mutex::default(),
        }
    }

    /// The account of a scope, made when there is none: look it up once, when
    /// routes are compiled. It is flushed for as long as someone holds it.
    pub fn account(&self, scope: &Scope) -> Arc<Account> {
        let mut accounts = lock(&self.accounts);
        if let Some(account) = accounts.get(scope) {
            return Arc::clone(account);
        }
        let account = Arc::new(Account::new(self.clock));
        if accounts.len() < SCOPES_MAX {
            accounts.insert(scope.clone(), Arc::clone(&account));
        }
        account
    }

    /// Adds one sample of a gauge; the flush takes the mean of all since the last.
    pub fn gauge(&self, scope: &Scope, gauge: Gauge, value: f64) {
        let sample = Cell::gauge(gauge, value);
        let mut gauges = lock(&self.gauges);
        let key = (scope.clone(), gauge);
        if let Some(cell) = gauges.get_mut(&key) {
            cell.merge(&sample);
        } else if gauges.len() < SCOPES_MAX {
            gauges.insert(key, sample);
        }
    }

    /// Samples how many requests each account has inside and waiting.
    pub fn levels(&self) {
        let levels: Vec<_> = lock(&self.accounts)
            .iter()
            .map(|(scope, account)| (scope.clone(), account.in_flight.now(), account.queued.now()))
            .collect();
        for (scope, in_flight, queued) in levels {
            self.gauge(&scope, Gauge::InFlight, f64::from(in_flight));
            self.gauge(&scope, Gauge::Queued, f64::from(queued));
        }
    }

    /// Counts since the start of all accounts that a scope covers.
    pub fn totals(&self, scope: &Scope) -> Totals {
        let traffic = Series::Count(Count::Requests);
        let accounts = lock(&self.accounts);
        accounts
            .iter()
            .filter(|(stored, _)| scope.covers(stored, traffic))
            .map(|(_, account)| account.totals())
            .fold(Totals::default(), Totals::plus)
    }

    /// Takes everything since the last flush.
    ///
    /// Every account gives its counts, zero or not: a missing point means that
    /// nothing was recorded. Only starts and errors are left out when zero, and
    /// a distribution of nothing. An account that no one holds ends with this.
    pub fn flush(&self) -> Vec<Point> {
        let mut points = Vec::new();
        lock(&self.accounts).retain(|scope, account| {
            // Looked at under the lock, without which no one can get a second one.
            let held = Arc::strong_count(account) > 1;
            account.take().into_points(scope, &mut points);
            held
        });
        let gauges = std::mem::take(&mut *lock(&self.gauges));
        points.extend(gauges.into_iter().map(|((scope, gauge), cell)| Point {
            scope,
            series: Series::Gauge(gauge),
            cell,
        }));
        points
    }

    /// Rates of now of all that a scope covers.
    pub fn live(&self, scope: &Scope) -> Live {
        let traffic = Series::Count(Count::Requests);
        let accounts = lock(&self.accounts);
        accounts
            .iter()
            .filter(|(stored, _)| scope.covers(stored, traffic))
            .map(|(_, account)| account.live())
            .fold(Live::default(), |sum, live| Live {
                requests: sum.requests + live.requests,
                prompt_tokens: sum.prompt_tokens + live.prompt_tokens,
                completion_tokens: sum.completion_tokens + live.completion_tokens,
            })
    }
}

/// A number of requests at this moment. A clone is another handle on the same.
#[derive(Clone, Debug, Default)]
pub struct Level(Arc<AtomicU32>);

impl Level {
    /// Number at present.
    pub fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more.
    pub fn rise(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less; it rose before.
    pub fn fall(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests that ended, however they did.
    pub requests: u64,
    /// Whole answers among these.
    pub answered: u64,
    /// Seconds of those answers together.
    pub answer_seconds: f64,
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            answered: self.answered + other.answered,
            answer_seconds: self.answer_seconds + other.answer_seconds,
        }
    }
}

/// Figures of one deployment or route since the last flush.
#[derive(Debug)]
pub struct Account {
    clock: Clock,
    /// Requests with a worker or upstream.
    pub in_flight: Level,
    /// Requests that wait.
    pub queued: Level,
    /// Locked for a few additions per request; never over an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sums: Sums,
    totals: Totals,
    /// The last seconds, by second modulo their number.
    recent: [Second; LIVE_SECONDS as usize],
}

#[derive(Debug, Default)]
struct Sums {
    traffic: Traffic,
    cold_starts: u64,
    outcomes: [u64; Outcome::ALL.len()],
    latency: Sketch,
    first_token: Sketch,
}

#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    requests: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Traffic {
    fn add(&mut self, ended: &Ended) {
        self.requests += 1;
        self.prompt_tokens = self.prompt_tokens.saturating_add(ended.prompt_tokens);
        self.completion_tokens = self
            .completion_tokens
            .saturating_add(ended.completion_tokens);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Number of the second, since the clock's start.
    at: u64,
    traffic: Traffic,
}

impl Account {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            in_flight: Level::default(),
            queued: Level::default(),
            state: Mutex::default(),
        }
    }

    /// Counts since the start.
    pub fn totals(&self) -> Totals {
        lock(&self.state).totals
    }

    /// Counts a request, once, at its end.
    pub fn ended(&self, ended: &Ended) {
        let second = self.clock.now().as_secs();
        let mut state = lock(&self.state);
        state.totals.requests += 1;
        if ended.outcome == Outcome::Ok {
            state.totals.answered += 1;
            state.totals.answer_seconds += ended.total.as_secs_f64();
        }
        let sums = &mut state.sums;
        sums.traffic.add(ended);
        if let Some(count) = sums.outcomes.get_mut(ended.outcome as usize) {
            *count += 1;
        }
        // A refusal in a millisecond says nothing of how fast answers are.
        if ended.outcome == Outcome::Ok {
            sums.latency.add(ended.total);
        }
        if let Some(first) = ended.first_token {
            sums.first_token.add(first);
        }
        let place = usize::try_from(second % u64::from(LIVE_SECONDS)).unwrap_or_default();
        if let Some(slot) = state.recent.get_mut(place) {
            if slot.at != second {
                *slot = Second {
                    at: second,
                    traffic: Traffic::default(),
                };
            }
            slot.traffic.add(ended);
        }
    }

    /// Counts a start or a wake of the worker.
    pub fn cold_start(&self) {
        lock(&self.state).sums.cold_starts += 1;
    }

    /// Rates of now.
    pub fn live(&self) -> Live {
        let now = self.clock.now().as_secs();
        let mut sum = Traffic::default();
        let state = lock(&self.state);
        for second in &state.recent {
            if second.at + u64::from(LIVE_SECONDS) > now {
                sum.requests += second.traffic.requests;
                sum.prompt_tokens += second.traffic.prompt_tokens;
                sum.completion_tokens += second.traffic.completion_tokens;
            }
        }
        Live {
            requests: per_second(sum.requests),
            prompt_tokens: per_second(sum.prompt_tokens),
            completion_tokens: per_second(sum.completion_tokens),
        }
    }

    fn take(&self) -> Sums {
        std::mem::take(&mut lock(&self.state).sums)
    }
}

impl Sums {
    fn into_points(self, scope: &Scope, points: &mut Vec<Point>) {
        let mut point = |series, cell| {
            points.push(Point {
                scope: scope.clone(),
                series,
                cell,
            });
        };
        let Traffic {
            requests,
            prompt_tokens,
            completion_tokens,
        } = self.traffic;
        for (count, sum) in [
            (Count::Requests, requests),
            (Count::PromptTokens, prompt_tokens),
            (Count::CompletionTokens, completion_tokens),
        ] {
            point(Series::Count(count), Cell::count(sum));
        }
        let outcomes = series::errors().map(|outcome| {
            let count = self.outcomes.get(outcome as usize);
            (Count::Ended(outcome), count.copied().unwrap_or_default())
        });
        for (count, sum) in outcomes.chain([(Count::ColdStarts, self.cold_starts)]) {
            if sum > 0 {
                point(Series::Count(count), Cell::count(sum));
            }
        }
        for (times, sketch) in [
            (Times::Latency, self.latency),
            (Times::FirstToken, self.first_token),
        ] {
            if !sketch.is_empty() {
                point(Series::Times(times), Cell::Times(sketch));
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for display; beyond 2^53 the last digit does not matter"
)]
fn per_second(sum: u64) -> f64 {
    sum as f64 / f64::from(LIVE_SECONDS)
}

/// No one panics while holding one of these locks, and sums have no half state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
