//! Choice of one among several to take a request.
//!
//! Power of two choices on the load of each: as good as asking all, without a
//! herd running to the same one. What binds requests to one (the value of a
//! header, the beginning of a prompt) is hashed with each candidate, and the
//! highest hash wins: a consistent ring without the ring, which takes no memory,
//! and where a candidate that comes or goes moves only its own share. One that
//! has more than its share of the requests is passed over for the next highest.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{LoadBalancing, Policy};
use crate::openai::api::Api;
use crate::random::spread;

/// Turn among some candidates: spreads the first of the two choices
/// evenly. Each set of candidates has its own: with one for all, two clients that
/// ask in turns would each meet the same candidate every time.
#[derive(Debug, Default)]
pub struct Turns(AtomicUsize);

/// One of those that a request may go to.
pub trait Candidate {
    /// Rank by what speaks against it: 0 for nothing. Only those with the least are
    /// looked at.
    fn tier(&self) -> u8;
    /// Load, in any unit.
    fn load(&self) -> u64;
    /// Requests that it has.
    fn requests(&self) -> u32;
    /// Number that tells it from the others, over restarts if it can be.
    fn seed(&self) -> u64;
    /// True if it takes requests of an API.
    fn serves(&self, _: Api) -> bool {
        true
    }
}

/// Rules and key by which one is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// The route's rules.
    pub rules: &'a LoadBalancing,
    /// Key that binds the request to one of them, hashed.
    pub key: Option<u64>,
    /// The API of the request.
    pub api: Api,
}

impl Pick<'_> {
    /// The one to go to among those that serve the API and are not `tried`; `None` where
    /// none is left.
    pub fn among<'t, T: Candidate>(
        &self,
        all: &'t [T],
        turns: &Turns,
        tried: impl Fn(&T) -> bool,
    ) -> Option<&'t T> {
        if let [only] = all {
            return (!tried(only) && only.serves(self.api)).then_some(only);
        }
        let is_out = |one: &T| tried(one) || !one.serves(self.api);
        let tier = |one: &T| if is_out(one) { u8::MAX } else { one.tier() };
        let best = all.iter().map(tier).min().filter(|best| *best < u8::MAX)?;
        let open = || all.iter().filter(|one| tier(one) == best);
        if let Some(key) = self.key {
            return bound(open, key, self.rules.load_factor);
        }
        let count = open().count();
        let turn = turns.0.fetch_add(1, Ordering::Relaxed);
        let first = open().nth(turn.checked_rem(count)?)?;
        if self.rules.policy == Policy::RoundRobin || count == 1 {
            return Some(first);
        }
        // Any other one, each as often: the step is mixed, so that pairs differ.
        let step = usize::try_from(spread(turn as u64) >> 33).unwrap_or(0) % (count - 1);
        let second = open().nth((turn % count + 1 + step) % count)?;
        Some(if second.load() < first.load() {
            second
        } else {
            first
        })
    }
}

/// The candidate that a key is bound to, of those that have room for one more.
fn bound<'t, T: Candidate + 't, I: Iterator<Item = &'t T>>(
    open: impl Fn() -> I,
    key: u64,
    load_factor: f64,
) -> Option<&'t T> {
    let (mut count, mut requests) = (0_u32, 1_u32);
    for one in open() {
        count += 1;
        requests = requests.saturating_add(one.requests());
    }
    let share = f64::from(requests) * load_factor / f64::from(count.max(1));
    let has_room = |one: &&T| f64::from(one.requests()) + 1.0 <= share.ceil();
    let weight = |one: &&'t T| spread(key ^ one.seed());
    // The least loaded has room, as the share is no less than the mean; only while
    // the counts change under our eyes no one may have any.
    let roomy = open().filter(has_room).max_by_key(weight);
    roomy.or_else(|| open().max_by_key(weight))
}

/// Hash of text, the same in every process.
pub fn hash(text: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct One {
        seed: u64,
        tier: u8,
        load: Cell<u32>,
        asked: Cell<u32>,
    }

    impl Candidate for One {
        fn tier(&self) -> u8 {
            self.tier
        }
        fn load(&self) -> u64 {
            u64::from(self.load.get())
        }
        fn requests(&self) -> u32 {
            self.load.get()
        }
        fn seed(&self) -> u64 {
            self.seed
        }
    }

    fn some(count: u64) -> Vec<One> {
        let one = |n: u64| One {
            seed: hash(n),
            tier: 0,
            load: Cell::new(0),
            asked: Cell::new(0),
        };
        (0..count).map(one).collect()
    }

    fn never(_: &One) -> bool {
        false
    }

    fn pick(rules: &LoadBalancing, key: Option<u64>) -> Pick<'_> {
        let api = Api::Chat;
        Pick { rules, key, api }
    }

    #[test]
    fn the_less_loaded_of_two_keeps_all_nearly_even() {
        let (all, turns, rules) = (some(16), Turns::default(), LoadBalancing::default());
        for _ in 0..1_600 {
            let one = pick(&rules, None).among(&all, &turns, never).unwrap();
            one.load.set(one.load.get() + 1);
        }
        let loads: Vec<_> = all.iter().map(|one| one.load.get()).collect();
        assert!(
            loads.iter().all(|load| (97..=103).contains(load)),
            "{loads:?}"
        );
    }

    #[test]
    fn one_that_is_slow_gets_less() {
        let (all, turns, rules) = (some(4), Turns::default(), LoadBalancing::default());
        all[2].load.set(1_000);
        for _ in 0..1_000 {
            let one = pick(&rules, None).among(&all, &turns, never).unwrap();
            assert!(!std::ptr::eq(one, &raw const all[2]));
            one.load.set(one.load.get() + 1);
        }
    }

    #[test]
    fn only_the_best_tier_is_looked_at_and_the_last_is_still_found() {
        let (mut all, turns, rules) = (some(4), Turns::default(), LoadBalancing::default());
        for one in &mut all {
            one.tier = 2;
        }
        all[1].tier = 1;
        for _ in 0..10 {
            let one = pick(&rules, None).among(&all, &turns, never).unwrap();
            assert_eq!(one.tier, 1);
        }
        let others = pick(&rules, None).among(&all, &turns, |one| one.tier == 1);
        assert_eq!(others.unwrap().tier, 2);
        assert!(pick(&rules, None).among(&all, &turns, |_| true).is_none());
    }

    #[test]
    fn a_key_stays_where_it_was_when_another_candidate_leaves() {
        let (mut all, turns, rules) = (some(8), Turns::default(), LoadBalancing::default());
        let home = |all: &[One], key| {
            pick(&rules, Some(key))
                .among(all, &turns, never)
                .unwrap()
                .seed
        };
        let before: Vec<_> = (0..1_000_u64).map(|key| home(&all, hash(key))).collect();
        let gone = all.remove(3).seed;
        let mut moved = 0;
        for (key, before) in (0..1_000_u64).zip(&before) {
            let now = home(&all, hash(key));
            if *before == gone {
                moved += 1;
            } else {
                assert_eq!(now, *before);
            }
        }
        assert!((80..=170).contains(&moved), "{moved} of 1000 had to move");
    }

    #[test]
    fn a_key_that_all_write_does_not_fill_one_candidate() {
        let (all, turns, rules) = (some(8), Turns::default(), LoadBalancing::default());
        for _ in 0..800 {
            let one = pick(&rules, Some(7)).among(&all, &turns, never).unwrap();
            one.load.set(one.load.get() + 1);
        }
        let most = all.iter().map(|one| one.load.get()).max().unwrap();
        assert!(
            most <= 126,
            "{most} of 800 on one of 8, with a factor of 1.25"
        );
    }

    #[test]
    fn taking_turns_takes_each_as_often() {
        let (all, turns) = (some(5), Turns::default());
        let rules = LoadBalancing {
            policy: Policy::RoundRobin,
            ..LoadBalancing::default()
        };
        all[0].load.set(100);
        for _ in 0..50 {
            let one = pick(&rules, None).among(&all, &turns, never).unwrap();
            one.load.set(one.load.get() + 1);
        }
        let loads: Vec<_> = all.iter().map(|one| one.load.get()).collect();
        assert_eq!(loads, [110, 10, 10, 10, 10]);
    }

    #[test]
    fn two_that_are_asked_in_turns_spread_each_their_own() {
        let rules = LoadBalancing::default();
        let (here, there) = ((some(2), Turns::default()), (some(2), Turns::default()));
        for _ in 0..10 {
            for (all, turns) in [&here, &there] {
                // It is over before the next: no load tells the two apart.
                let one = pick(&rules, None).among(all, turns, never).unwrap();
                one.asked.set(one.asked.get() + 1);
            }
        }
        for (all, _) in [here, there] {
            assert!(all.iter().all(|one| one.asked.get() == 5));
        }
    }
}
