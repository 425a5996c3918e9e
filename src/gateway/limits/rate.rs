//! Requests and tokens per minute, for each token on each route.
//!
//! A reservation is a [`Hold`]: both budgets are asked under one lock, and either
//! both give or nothing is held. Dropping it gives all back; what was used is
//! charged by [`Hold::sent`] and [`Hold::settle`]. Tokens are charged as they
//! really were, so an account can be in debt, and pays it off with time.
//!
//! A budget is a GCRA word: the time at which all that was charged is paid off,
//! plus the time that is held. It is ours because holding and debt are what the
//! crates for it leave out, and because two of them must answer as one.
//!
//! Owns no limits: they come with each request, so a reload changes them and
//! leaves what was used. Accounts that owe and hold nothing are forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::{Clock, Uptime};

/// A minute, in the nanoseconds of the words: a full budget.
const MINUTE: u64 = 60_000_000_000;

/// Accounts that are kept before the idle ones are looked for.
const ACCOUNTS_MIN: usize = 1024;

/// One of the two budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
}

/// The limits of one request; `None` for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests per minute.
    pub requests: Option<u32>,
    /// Tokens per minute.
    pub tokens: Option<u32>,
}

/// State of one budget, for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStanding {
    /// In a minute.
    pub limit: u32,
    /// Part of the limit that is left.
    pub remaining: u64,
    /// Until all of it is left.
    pub reset: Duration,
}

/// State of both budgets; `None` where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// Requests per minute.
    pub requests: Option<BudgetStanding>,
    /// Tokens per minute.
    pub tokens: Option<BudgetStanding>,
}

/// Reason why nothing was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// The budget that is used up; of two, the one that takes longer.
    pub budget: Budget,
    /// Its limit.
    pub limit: u32,
    /// Time until the request would fit, if nothing that is in flight gives more back.
    pub after: Duration,
    /// State of both budgets.
    pub standings: Standings,
}

/// The budgets of one route.
#[derive(Debug)]
pub struct Rates {
    clock: Clock,
    /// Held for a few instructions, never over an await.
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    of: HashMap<Arc<str>, Account>,
    /// Number of accounts from which on idle ones are looked for.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    requests: Word,
    tokens: Word,
}

/// One budget, in nanoseconds of its own limit.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    /// Time at which all that was charged is paid off.
    paid_at: u64,
    /// Held by requests in flight.
    held: u64,
}

impl Word {
    /// Amount that is charged and held now.
    fn load(self, now: u64) -> u64 {
        self.paid_at.saturating_sub(now).saturating_add(self.held)
    }

    fn charge(&mut self, cost: u64, now: u64) {
        self.paid_at = self.paid_at.max(now).saturating_add(cost);
    }

    fn standing(self, limit: Option<u32>, now: u64) -> Option<BudgetStanding> {
        let limit = limit?;
        let load = self.load(now);
        let left = u128::from(MINUTE.saturating_sub(load)) * u128::from(limit);
        Some(BudgetStanding {
            limit,
            remaining: u64::try_from(left / u128::from(MINUTE)).unwrap_or(u64::MAX),
            reset: Duration::from_nanos(load),
        })
    }

    /// Amount by which `cost` would be too much.
    fn excess(self, cost: u64, now: u64) -> u64 {
        self.load(now).saturating_add(cost).saturating_sub(MINUTE)
    }

    fn is_idle(self, now: u64) -> bool {
        self.load(now) == 0
    }
}

/// Cost of `count` of a budget. Rounded down, so that a full budget holds as
/// many as its limit says.
fn cost(count: u64, limit: u32) -> u64 {
    let cost = u128::from(count) * u128::from(MINUTE) / u128::from(limit.max(1));
    u64::try_from(cost).unwrap_or(u64::MAX)
}

impl Rates {
    /// Budgets that are full.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::start(),
            accounts: Mutex::default(),
        })
    }

    /// Holds one request and an estimate of its tokens. An estimate above the
    /// whole budget is held as the whole: it is no reason to deny for ever.
    ///
    /// # Errors
    ///
    /// [`OverLimit`] when either does not fit; then nothing is held.
    pub fn hold(
        self: &Arc<Self>,
        token: &Arc<str>,
        limits: RateLimits,
        tokens: u64,
    ) -> Result<(Hold, Standings), OverLimit> {
        let now = nanos(self.clock.now());
        let mut accounts = self.lock();
        let mut account = accounts.of.get(token).copied().unwrap_or_default();
        let requests = limits.requests.map_or(0, |limit| cost(1, limit));
        let tokens = limits
            .tokens
            .map_or(0, |limit| cost(tokens, limit).min(MINUTE));
        let late = [
            (
                Budget::Requests,
                limits.requests,
                account.requests.excess(requests, now),
            ),
            (
                Budget::Tokens,
                limits.tokens,
                account.tokens.excess(tokens, now),
            ),
        ]
        .into_iter()
        .filter_map(|(budget, limit, excess)| Some((budget, limit?, excess)))
        .filter(|(_, _, excess)| *excess > 0)
        .max_by_key(|(_, _, excess)| *excess);
        if let Some((budget, limit, excess)) = late {
            return Err(OverLimit {
                budget,
                limit,
                after: Duration::from_nanos(excess),
                standings: account.standings(limits, now),
            });
        }
        account.requests.held = account.requests.held.saturating_add(requests);
        account.tokens.held = account.tokens.held.saturating_add(tokens);
        let standings = account.standings(limits, now);
        accounts.put(token, account, now);
        drop(accounts);
        let hold = Hold {
            rates: Arc::clone(self),
            token: Arc::clone(token),
            request: Part::Held(requests),
            tokens,
            limits,
        };
        Ok((hold, standings))
    }

    /// State of both budgets of a token now.
    pub fn standings(&self, token: &str, limits: RateLimits) -> Standings {
        let now = nanos(self.clock.now());
        let account = self.lock().of.get(token).copied();
        account.unwrap_or_default().standings(limits, now)
    }

    /// Forgets accounts that owe and hold nothing.
    pub fn sweep(&self) {
        let now = nanos(self.clock.now());
        self.lock().sweep(now);
    }

    /// Number of accounts that are kept.
    pub fn len(&self) -> usize {
        self.lock().of.len()
    }

    /// True if no account is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes an account that holds something, and so is there.
    fn with(&self, token: &str, change: impl FnOnce(&mut Account, u64)) {
        let now = nanos(self.clock.now());
        if let Some(account) = self.lock().of.get_mut(token) {
            change(account, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    fn put(&mut self, token: &Arc<str>, account: Account, now: u64) {
        if let Some(known) = self.of.get_mut(token) {
            *known = account;
            return;
        }
        if self.of.len() >= self.sweep_at.max(ACCOUNTS_MIN) {
            self.sweep(now);
        }
        self.of.insert(Arc::clone(token), account);
    }

    fn sweep(&mut self, now: u64) {
        self.of.retain(|_, account| !account.is_idle(now));
        self.sweep_at = self.of.len().saturating_mul(2);
    }
}

impl Account {
    fn standings(self, limits: RateLimits, now: u64) -> Standings {
        Standings {
            requests: self.requests.standing(limits.requests, now),
            tokens: self.tokens.standing(limits.tokens, now),
        }
    }

    fn is_idle(self, now: u64) -> bool {
        self.requests.is_idle(now) && self.tokens.is_idle(now)
    }
}

fn nanos(time: Uptime) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// State of the charge for the request itself.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Held: dropping it gives it back.
    Held(u64),
    /// Charged at this time.
    Charged { cost: u64, at: u64 },
}

/// Part of its budgets that one request holds; dropping it charges nothing more.
#[derive(Debug)]
pub struct Hold {
    rates: Arc<Rates>,
    token: Arc<str>,
    request: Part,
    tokens: u64,
    limits: RateLimits,
}

impl Hold {
    /// The request goes to a server: it counts from now on.
    pub fn sent(&mut self) {
        let Part::Held(cost) = self.request else {
            return;
        };
        let mut at = 0;
        self.rates.with(&self.token, |account, now| {
            account.requests.held = account.requests.held.saturating_sub(cost);
            account.requests.charge(cost, now);
            at = now;
        });
        self.request = Part::Charged { cost, at };
    }

    /// It used so many tokens: charges them in place of the estimate.
    pub fn settle(self, used: u64) {
        let Some(limit) = self.limits.tokens else {
            return;
        };
        self.rates.with(&self.token, |account, now| {
            account.tokens.charge(cost(used, limit), now);
        });
    }

    /// It was refused after all: gives the request back too, but for what time
    /// has paid off since, which would be given twice.
    pub fn refund(self) {
        if let Part::Charged { cost, at } = self.request {
            self.rates.with(&self.token, |account, now| {
                let rest = cost.saturating_sub(now.saturating_sub(at));
                let paid_at = &mut account.requests.paid_at;
                *paid_at = paid_at.saturating_sub(rest);
            });
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let held = match self.request {
            Part::Held(cost) => cost,
            Part::Charged { .. } => 0,
        };
        let tokens = self.tokens;
        self.rates.with(&self.token, |account, _| {
            account.requests.held = account.requests.held.saturating_sub(held);
            account.tokens.held = account.tokens.held.saturating_sub(tokens);
        });
    }
}

#[cfg(test)]
mod tests;
