//! Guess at the deployment that a client asks next, learned of each client by itself.
//!
//! Pure. An agent that alternates between two models tells after one round what it
//! will ask next; what others do tells nothing of it. Bounded: clients that have
//! not asked for longest are forgotten, and of each the oldest steps.

use std::collections::HashMap;

use crate::lifecycle::decide::ledger::LedgerKey;
use crate::time::Uptime;

/// Clients that are remembered.
const CLIENTS_MAX: usize = 4_096;
/// Different steps, from one deployment to another, that are remembered of each.
const STEPS_MAX: usize = 16;
/// A next one that is less likely is not foretold.
const CHANCE_MIN: f64 = 0.3;

/// A client and what it did.
#[derive(Clone, Debug)]
struct Client {
    last: LedgerKey,
    seen: Uptime,
    /// From, to, how often.
    steps: Vec<(LedgerKey, LedgerKey, u32)>,
}

/// Knowledge of clients. See the module docs.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    clients: HashMap<u64, Client>,
}

impl Follow {
    /// A client asked a deployment: which one it asks next, and how likely.
    pub fn asked(&mut self, client: u64, key: LedgerKey, now: Uptime) -> Option<(LedgerKey, f64)> {
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&client) {
            self.forget_oldest();
        }
        let known = self.clients.entry(client).or_insert_with(|| Client {
            last: key,
            seen: now,
            steps: Vec::new(),
        });
        let first = known.steps.is_empty() && known.last == key && known.seen == now;
        if !first {
            known.step(key);
        }
        (known.last, known.seen) = (key, now);
        known.next().filter(|(next, _)| *next != key)
    }

    /// A deployment is gone.
    pub fn forget(&mut self, key: LedgerKey) {
        for client in self.clients.values_mut() {
            client
                .steps
                .retain(|(from, to, _)| *from != key && *to != key);
        }
    }

    fn forget_oldest(&mut self) {
        let mut seen: Vec<Uptime> = self.clients.values().map(|client| client.seen).collect();
        seen.sort_unstable();
        let middle = seen.get(seen.len() / 2).copied().unwrap_or_default();
        self.clients.retain(|_, client| client.seen > middle);
    }
}

impl Client {
    fn step(&mut self, to: LedgerKey) {
        let from = self.last;
        let known = self
            .steps
            .iter()
            .position(|step| (step.0, step.1) == (from, to));
        let count = known.map_or(0, |at| self.steps.remove(at).2);
        if self.steps.len() >= STEPS_MAX {
            self.steps.remove(0);
        }
        self.steps.push((from, to, count + 1));
    }

    /// The likeliest next one. One that was never seen has a part in it too.
    fn next(&self) -> Option<(LedgerKey, f64)> {
        let from = self.steps.iter().filter(|step| step.0 == self.last);
        let all: u32 = from.clone().map(|step| step.2).sum();
        let most = from.max_by_key(|step| step.2)?;
        let chance = f64::from(most.2) / f64::from(all + 1);
        (chance > CHANCE_MIN).then_some((most.1, chance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn secs(seconds: u64) -> Uptime {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_who_alternates_is_foretold_after_one_round() {
        let (mut follow, a, b) = (Follow::default(), LedgerKey(1), LedgerKey(2));
        assert_eq!(follow.asked(7, a, secs(1)), None);
        assert_eq!(follow.asked(7, b, secs(2)), None);
        assert_eq!(follow.asked(7, a, secs(3)), Some((b, 0.5)));
        assert_eq!(follow.asked(7, b, secs(4)), Some((a, 0.5)));
        let (next, chance) = follow.asked(7, a, secs(5)).unwrap();
        assert!(next == b && chance > 0.6);
        assert_eq!(
            follow.asked(8, a, secs(6)),
            None,
            "of another nothing is known"
        );
        follow.forget(b);
        assert_eq!(follow.asked(7, a, secs(7)), None);
    }

    #[test]
    fn one_who_stays_or_roams_is_not() {
        let mut follow = Follow::default();
        for n in 0..20 {
            assert_eq!(follow.asked(1, LedgerKey(1), secs(n)), None, "it stays");
        }
        for n in 0..40 {
            let roams = follow.asked(2, LedgerKey(n * 7 % 13), secs(u64::from(n)));
            assert!(n >= 13 || roams.is_none());
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut follow = Follow::default();
        for n in 0..10_000 {
            follow.asked(n, LedgerKey(0), secs(n));
            follow.asked(1, LedgerKey(u32::try_from(n).unwrap()), secs(n));
        }
        assert!(follow.clients.len() <= CLIENTS_MAX);
        assert!(
            follow
                .clients
                .values()
                .all(|client| client.steps.len() <= STEPS_MAX)
        );
    }
}
