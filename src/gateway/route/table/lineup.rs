//! The list that a name leads to, and the order in which a request asks its targets.
//!
//! Each target is a destination of its own, with the name, the limits and the places of the
//! route: what holds among the servers of one (affinity, retries) knows nothing of lists.
//! The order is made anew for each request, by what is known at that moment; whether the
//! next one is asked after a failure is [`crate::gateway::retry`]'s to say.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::mirror::Copying;
use super::{Backend, Destination, Target};
use crate::auth::Principal;
use crate::config::{LoadBalancing, Prefer, Sticky, TargetList, TargetRule};
use crate::deployment::Status;
use crate::gateway::upstream::balance::{Candidate as _, hash};
use crate::names::ModelName;
use crate::openai::api::Api;
use crate::random::{Dice, spread};
use crate::units::Span;

/// Targets that the names of a route lead to, in order.
#[derive(Debug)]
pub struct Lineup {
    prefer: Prefer,
    sticky: Option<Sticky>,
    /// In the order of the file.
    listed: Vec<Arc<Listed>>,
    /// Requests that nothing held at one target, so that weights spread them.
    turns: AtomicU64,
    /// Target that gets copies.
    pub mirror: Option<Mirroring>,
}

/// The mirror of a list.
#[derive(Debug)]
pub struct Mirroring {
    /// Requests that are copied.
    pub copying: Copying,
    /// Its servers, under a label of its own.
    pub destination: Arc<Destination>,
}

/// One target of a list.
#[derive(Debug)]
pub struct Listed {
    /// Rule of its file.
    pub rule: TargetRule,
    /// Its servers.
    pub destination: Arc<Destination>,
    /// Header of an answer that it gave, where none was passed over.
    header: Option<HeaderValue>,
}

/// One target as it stands for a request.
#[derive(Clone, Copy, Debug)]
pub struct Ranked<'a> {
    /// The target.
    pub listed: &'a Arc<Listed>,
    /// Place that it would have, could each of them answer at once.
    wish: usize,
    stand: Stand,
}

/// Target that a request is sent to, and the reasons against those before it.
#[derive(Debug)]
pub struct Served {
    by: Arc<Listed>,
    /// Those before it, each with the reason.
    passed: Vec<(Arc<Listed>, &'static str)>,
}

/// Readiness of a target to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// At once.
    Serves,
    /// Its places are taken.
    Busy,
    /// Its worker starts or wakes, and serves after so long, where that is known.
    Loads(Option<Duration>),
    /// Its worker has to be woken first; the same.
    Sleeps(Option<Duration>),
    /// Its worker has to be started first; the same.
    Stopped(Option<Duration>),
    /// It failed, or is left out.
    Fails,
}

impl Lineup {
    /// A list of those for which there are servers, as `servers` finds them; `None` where
    /// there is none.
    pub fn new(
        list: &TargetList,
        servers: impl Fn(&ModelName) -> Option<Destination>,
    ) -> Option<Self> {
        let found = list.targets.iter().filter_map(|rule| {
            let destination = servers(&rule.to)?;
            Some((rule.clone(), destination))
        });
        let found: Vec<_> = found.collect();
        let has_others = found.len() > 1;
        let listed = found.into_iter().map(|(rule, destination)| {
            Arc::new(Listed {
                header: HeaderValue::from_bytes(item(&rule.to).as_bytes()).ok(),
                rule,
                destination: Arc::new(Destination {
                    has_others,
                    ..destination
                }),
            })
        });
        let listed: Vec<Arc<Listed>> = listed.collect();
        (!listed.is_empty()).then_some(Self {
            prefer: list.prefer,
            sticky: list.sticky,
            listed,
            turns: AtomicU64::new(0),
            mirror: None,
        })
    }

    /// The servers of all of them.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        let listed = self.listed.iter();
        let all = listed.flat_map(|listed| &listed.destination.targets);
        all.cloned().collect()
    }

    /// Key that holds a request at one target, hashed.
    pub fn key(
        &self,
        principal: &Principal,
        headers: &HeaderMap,
        rules: &LoadBalancing,
    ) -> Option<u64> {
        match self.sticky? {
            Sticky::Token => Some(hash(&*principal.token_id)),
            Sticky::Session => {
                let session = headers.get(rules.session_header.as_ref()?)?;
                Some(hash(session.as_bytes()))
            }
        }
    }

    /// Those that serve an API, in the order in which they are asked now.
    pub fn ranked(&self, api: Api, key: Option<u64>) -> Vec<Ranked<'_>> {
        self.rank(key, |target| target.apis.serves(api))
    }

    fn rank(&self, key: Option<u64>, is_able: impl Fn(&Target) -> bool) -> Vec<Ranked<'_>> {
        let stands = |(wish, listed): (usize, _)| Ranked::of(listed, wish, &is_able);
        let mut ranked: Vec<Ranked<'_>> = if self.prefer == Prefer::Weight {
            let by_lot = self.by_lot(key).into_iter();
            by_lot.enumerate().filter_map(stands).collect()
        } else {
            self.listed.iter().enumerate().filter_map(stands).collect()
        };
        let by_stand = |ranked: &Ranked<'_>| match self.prefer {
            Prefer::Awake => ranked.stand.rank(),
            Prefer::Order | Prefer::Weight if ranked.is_late() => ranked.stand.rank(),
            Prefer::Order | Prefer::Weight => 0,
        };
        ranked.sort_by_key(|ranked| (ranked.is_late(), by_stand(ranked), ranked.wish));
        ranked
    }

    /// In which order they would be asked now, in words.
    pub fn words(&self) -> Vec<String> {
        let how = match (self.prefer, self.sticky) {
            (Prefer::Order, _) => "in their order",
            (Prefer::Awake, _) => "who serves already first",
            (Prefer::Weight, None) => "by weight, each request by itself",
            (Prefer::Weight, Some(Sticky::Token)) => "by weight, each token at one",
            (Prefer::Weight, Some(Sticky::Session)) => "by weight, each session at one",
        };
        let ranked = self.rank(Some(0), |_| true);
        let lines = ranked.iter().enumerate();
        let lines = lines.map(|(at, ranked)| match self.prefer {
            Prefer::Weight => format!("weight {}: {}", ranked.listed.rule.weight, ranked.words()),
            Prefer::Order | Prefer::Awake => format!("{}. {}", at + 1, ranked.words()),
        });
        let first = format!("leads to a list, asked {how}; now:");
        std::iter::once(first).chain(lines).collect()
    }

    /// The order that weights give them for a key.
    fn by_lot(&self, key: Option<u64>) -> Vec<&Arc<Listed>> {
        let key = key.unwrap_or_else(|| spread(self.turns.fetch_add(1, Ordering::Relaxed)));
        let lots = self.listed.iter();
        let lots = lots.map(|listed| (lot(key, &listed.rule.to, listed.rule.weight), listed));
        let mut lots: Vec<_> = lots.collect();
        lots.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        lots.into_iter().map(|(_, listed)| listed).collect()
    }
}

/// Lot that a target draws for a key: the least is asked first, each as often as its weight
/// says. One that comes or goes moves only its own share.
fn lot(key: u64, name: &ModelName, weight: u32) -> f64 {
    if weight == 0 {
        return f64::INFINITY;
    }
    let mut dice = Dice::new(key ^ hash(name.as_str()));
    dice.exponential(1.0 / f64::from(weight))
}

impl<'a> Ranked<'a> {
    /// One target as it stands now; `None` where it is not able.
    fn of(listed: &'a Arc<Listed>, wish: usize, is_able: impl Fn(&Target) -> bool) -> Option<Self> {
        let stand = Stand::of(&listed.destination, is_able)?;
        Some(Self {
            listed,
            wish,
            stand,
        })
    }

    /// True if it is asked after the others, as it would not answer in its time.
    fn is_late(&self) -> bool {
        let can_in = self.listed.rule.can_in;
        self.stand == Stand::Fails || can_in.is_some_and(|limit| !self.stand.within(limit))
    }

    /// Its readiness, and the reason why it is asked late.
    fn words(&self) -> String {
        let rule = &self.listed.rule;
        let left = self.stand.left().map(Span);
        let left = left.map_or_else(String::new, |left| {
            format!(", about {left} until it serves")
        });
        let late = match (self.is_late(), rule.can_in) {
            (true, Some(limit)) if self.stand != Stand::Fails => {
                format!(
                    "; asked after the others, as that is not known to take {} at most",
                    Span(limit)
                )
            }
            (true, _) => "; asked after the others".to_owned(),
            (false, _) => String::new(),
        };
        format!("{:?} {}{left}{late}", rule.to, self.stand.says())
    }
}

impl Served {
    /// That the one at this place answers, after those that `failed`.
    pub fn at(ranked: &[Ranked<'_>], at: usize, failed: &[&'static str]) -> Option<Self> {
        let one = ranked.get(at)?;
        let tried = ranked.iter().zip(failed).take(at);
        let tried = tried.map(|(ranked, why)| (Arc::clone(ranked.listed), *why));
        let behind = ranked.iter().skip(at + 1);
        let passed = behind.filter(|other| other.wish < one.wish);
        let passed = passed.map(|other| (Arc::clone(other.listed), other.stand.word()));
        Some(Self {
            by: Arc::clone(one.listed),
            passed: tried.chain(passed).collect(),
        })
    }

    /// The target.
    pub fn by(&self) -> &ModelName {
        &self.by.rule.to
    }

    /// Target that answers, and each that was passed over with the reason: a list as
    /// RFC 9651 has it, but for names that are not ASCII.
    pub fn header(&self) -> Option<HeaderValue> {
        if self.passed.is_empty() {
            return self.by.header.clone();
        }
        let mut text = item(self.by()).into_owned();
        for (listed, why) in &self.passed {
            let name = item(&listed.rule.to);
            for part in [", ", &name, ";why=", why] {
                text.push_str(part);
            }
        }
        HeaderValue::from_bytes(text.as_bytes()).ok()
    }

    /// Those that were passed over, for the log; `None` where the first one answers.
    pub fn passed_over(&self) -> Option<String> {
        let passed = self.passed.iter();
        let each = passed.map(|(listed, why)| format!("{}: {why}", listed.rule.to));
        let all: Vec<String> = each.collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// A name as an item of a list of RFC 9651: a token, or a string, in which no name needs
/// anything escaped.
fn item(name: &ModelName) -> Cow<'_, str> {
    let name = name.as_str();
    let is_of_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b);
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
    if begins && name.bytes().all(is_of_token) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("\"{name}\""))
    }
}

impl Stand {
    /// The best of a destination's servers that are able; `None` where none is.
    fn of(destination: &Destination, is_able: impl Fn(&Target) -> bool) -> Option<Self> {
        let targets = destination.targets.iter();
        let able = targets.filter(|target| is_able(target));
        able.map(Self::of_target).min_by_key(|stand| stand.rank())
    }

    fn of_target(target: &Arc<Target>) -> Self {
        let closed = match &target.backend {
            Backend::Deployment { handle, .. } if !handle.gate.is_open() => Some(handle),
            Backend::Deployment { .. } | Backend::External(_) => None,
        };
        match (target.tier(), closed) {
            (0, None) => Self::Serves,
            (0 | 1, Some(handle)) => {
                let snapshot = handle.snapshot();
                match snapshot.status {
                    Status::Loading => Self::Loads(snapshot.ready_in),
                    Status::Offloaded => Self::Sleeps(snapshot.would_take),
                    _ => Self::Stopped(snapshot.would_take),
                }
            }
            (1, None) => Self::Busy,
            (2.., _) => Self::Fails,
        }
    }

    /// The sooner it can answer, the less.
    fn rank(self) -> u8 {
        match self {
            Self::Serves => 0,
            Self::Busy => 1,
            Self::Loads(_) => 2,
            Self::Sleeps(_) => 3,
            Self::Stopped(_) => 4,
            Self::Fails => 5,
        }
    }

    /// True if it is known to answer within so long.
    fn within(self, limit: Duration) -> bool {
        self == Self::Serves || self.left().is_some_and(|left| left <= limit)
    }

    /// Time until its worker serves, where that is known.
    fn left(self) -> Option<Duration> {
        match self {
            Self::Loads(left) | Self::Sleeps(left) | Self::Stopped(left) => left,
            Self::Serves | Self::Busy | Self::Fails => None,
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Busy => "has no free place",
            Self::Loads(_) => "loads",
            Self::Sleeps(_) => "sleeps",
            Self::Stopped(_) => "is stopped",
            Self::Fails => "failed, or is left out for a while",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Busy => "busy",
            Self::Loads(_) => "loading",
            Self::Sleeps(_) => "asleep",
            Self::Stopped(_) => "stopped",
            Self::Fails => "failing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of the one that is first for a key.
    fn first(key: u64, weights: &[u32]) -> usize {
        let lots = weights.iter().enumerate().map(|(n, weight)| {
            let name = ModelName::new(&format!("m{n}")).unwrap();
            (lot(key, &name, *weight), n)
        });
        lots.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1
    }

    #[test]
    fn each_is_first_as_often_as_its_weight_says() {
        let weights = [6, 3, 0, 1];
        let mut seen = [0_u32; 4];
        for key in 0..100_000 {
            seen[first(spread(key), &weights)] += 1;
        }
        for (count, weight) in seen.iter().zip(weights) {
            let expected = weight * 10_000;
            assert!(count.abs_diff(expected) <= 600, "{seen:?} by {weights:?}");
        }
    }

    #[test]
    fn a_target_whose_weight_grows_takes_keys_and_gives_none_away() {
        for key in (0..10_000).map(spread) {
            let before = first(key, &[9, 1]);
            let after = first(key, &[9, 3]);
            assert!(
                before == after || after == 1,
                "a canary that grows keeps its own"
            );
        }
    }

    #[test]
    fn a_name_that_is_no_token_stands_in_quotes() {
        for (name, expected) in [
            ("own", "own"),
            ("org/own-8b:latest", "org/own-8b:latest"),
            ("4b", "\"4b\""),
            ("a,b;c", "\"a,b;c\""),
        ] {
            assert_eq!(item(&ModelName::new(name).unwrap()), expected);
        }
    }

    #[test]
    fn only_what_is_known_to_come_in_time_can_answer_in_it() {
        let limit = Duration::from_secs(5);
        let known = Some(limit);
        let long = Some(limit * 2);
        for (stand, can) in [
            (Stand::Serves, true),
            (Stand::Busy, false),
            (Stand::Loads(known), true),
            (Stand::Loads(long), false),
            (Stand::Loads(None), false),
            (Stand::Sleeps(known), true),
            (Stand::Stopped(long), false),
            (Stand::Stopped(None), false),
            (Stand::Fails, false),
        ] {
            assert_eq!(stand.within(limit), can, "{stand:?}");
        }
    }
}
