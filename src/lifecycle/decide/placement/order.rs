//! Order of claims, and what the earlier keeps from the later.

use super::choose::Chosen;
use super::claims::Claimant;
use super::{LedgerKey, Placement, View};
use crate::lifecycle::decide::policy::Seconds;
use crate::time::Uptime;

/// A device that a claim keeps from younger ones, from when it is overdue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    place: usize,
    pub(super) age: Age,
    from: Uptime,
}

/// A device that another keeps from a claim, from then on: a switch that would
/// still be under way then is not begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) place: usize,
    pub(super) from: Uptime,
}

/// The order in which claims keep devices from each other: the overdue first, then
/// those whose workspace had less of late, then the one that waits longest; last, those
/// that no request waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    in_time: bool,
    after_others: bool,
    head: Uptime,
    pub(super) key: LedgerKey,
}

/// The devices that older claims keep from this one.
pub(super) fn kept_from(claimant: &Claimant, reserved: &[Reserved]) -> Vec<Kept> {
    let own = claimant.age();
    let older = reserved.iter().filter(|other| other.age < own);
    let kept = older.map(|other| Kept {
        place: other.place,
        from: other.from,
    });
    kept.collect()
}

impl Claimant {
    pub(super) fn age(&self) -> Age {
        Age {
            in_time: !self.overdue,
            after_others: self.after_others,
            head: self.stand.head.unwrap_or(Uptime::MAX),
            key: self.key,
        }
    }
}

impl Placement {
    /// Devices that claims without a plan keep from others, from when they are overdue.
    pub(super) fn reservations(
        &self,
        now: Uptime,
        view: &View<'_>,
        mean: Seconds,
    ) -> Vec<Reserved> {
        let mut all = Vec::new();
        for key in &self.claims {
            let Some(claim) = self.claim(*key).filter(|claim| claim.plan.is_none()) else {
                continue;
            };
            if claim.wants.is_empty() {
                continue;
            }
            let claimant = self.claimant(*key, view(*key), now, mean);
            all.extend(self.reserves(&claimant, &claim.wants));
        }
        all
    }

    /// Devices that a claim keeps from others, of those that it waits for.
    pub(super) fn reserves(&self, claimant: &Claimant, wants: &[usize]) -> Vec<Reserved> {
        let Some(head) = claimant.stand.head else {
            return Vec::new();
        };
        let (age, from) = (claimant.age(), head + self.params.wait_bound);
        let reserved = |place: &usize| Reserved {
            place: *place,
            age,
            from,
        };
        wants.iter().map(reserved).collect()
    }

    /// The plan of a claim, if others that were not granted yet are dropped for it:
    /// younger ones for one that is overdue, foreseen ones for any.
    pub(super) fn choose_before_younger(
        &mut self,
        claimant: &Claimant,
        now: Uptime,
        view: &View<'_>,
        kept: &[Kept],
    ) -> Option<Chosen> {
        if claimant.stand.held == 0 {
            return None;
        }
        let own = claimant.age();
        // A claim that no request waits for goes behind all others.
        let is_younger = |key: &LedgerKey| {
            let claim = self.claim(*key).filter(|claim| claim.plan.is_some());
            claim.is_some_and(|claim| {
                let nobody_waits = claim.foreseen.is_some() && claim.age.head == Uptime::MAX;
                nobody_waits || (claimant.overdue && claim.age > own)
            })
        };
        let younger: Vec<LedgerKey> = self.claims.iter().copied().filter(is_younger).collect();
        if younger.is_empty() {
            return None;
        }
        let plans: Vec<_> = younger
            .iter()
            .map(|key| (*key, self.unplan(*key)))
            .collect();
        let chosen = self.choose(claimant, now, view, kept).ok();
        for (key, plan) in plans {
            let meets = chosen.as_ref().is_some_and(|chosen| {
                let places = chosen.takes.iter();
                places
                    .clone()
                    .any(|(place, _)| plan.iter().any(|(p, _)| p == place))
            });
            if !meets {
                self.replan(key, plan);
            } else if let Some(claim) = self.claim_mut(key) {
                claim.look_at = Uptime::ZERO;
            }
        }
        chosen
    }

    /// True if requests wait for one of these devices.
    pub(super) fn is_waited_for(&self, places: &[usize], key: LedgerKey, view: &View<'_>) -> bool {
        self.claims.iter().any(|other| {
            let meets = || {
                let wants = self.wants(*other);
                wants.is_empty() || wants.iter().any(|place| places.contains(place))
            };
            *other != key && view(*other).held > 0 && meets()
        })
    }

    /// The devices that a claim waits for, or was promised; none where that is open.
    fn wants(&self, key: LedgerKey) -> Vec<usize> {
        if let Some(lease) = self.ledger.lease(key) {
            return lease.places().to_vec();
        }
        let claim = self.slot(key).and_then(|slot| slot.claim.as_ref());
        let plan = claim.and_then(|claim| claim.plan.as_ref());
        match (plan, claim) {
            (Some(plan), _) => plan.iter().map(|(place, _)| *place).collect(),
            (None, Some(claim)) => claim.wants.clone(),
            (None, None) => Vec::new(),
        }
    }
}
