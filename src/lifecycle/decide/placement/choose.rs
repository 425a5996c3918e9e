//! The plan of one claim: on which devices, and the workers that leave them.

use super::claims::Claimant;
use super::order::Kept;
use super::victims::Victim;
use super::{LedgerKey, Obstacle, Placement, View};
use crate::lifecycle::decide::policy::Seconds;
use crate::time::Uptime;

/// Devices that a claim goes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    /// Devices by place, with the bytes that it takes beside what it holds.
    pub(super) takes: Vec<(usize, u64)>,
    /// Workers that leave.
    pub(super) victims: Vec<Victim>,
}

/// Reason why a claim has no plan yet.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    pub(super) why: Obstacle,
    /// Seconds after which time alone may have helped.
    pub(super) pause: Seconds,
    /// The devices that it would take.
    pub(super) places: Vec<usize>,
}

impl Blocked {
    pub(super) fn new(why: Obstacle, pause: Seconds, places: &[usize]) -> Self {
        Self {
            why,
            pause,
            places: places.to_vec(),
        }
    }
}

impl Placement {
    /// Finds the devices for a claim, and the workers that leave them.
    pub(super) fn choose(
        &self,
        claimant: &Claimant,
        now: Uptime,
        view: &View<'_>,
        kept: &[Kept],
    ) -> Result<Chosen, Blocked> {
        if let Some(lease) = self.ledger.lease(claimant.key) {
            let places = lease.places().to_vec();
            return self.plan_on(claimant, &places, now, view, kept);
        }
        let accounts = self.ledger.accounts();
        if accounts.is_empty() {
            return Ok(Chosen::default());
        }
        let Some(need) = self.slot(claimant.key).map(|slot| slot.profile.need) else {
            return Err(Blocked::new(Obstacle::New, f64::INFINITY, &[]));
        };
        // Best fit among those with room; else where the least harm is done.
        // Replicas of one deployment spread.
        let mut ways: Vec<(f64, usize, u64, usize)> = Vec::new();
        let mut blocked: Vec<Blocked> = Vec::new();
        for (place, account) in accounts.iter().enumerate() {
            if need.awake.on(account.device) > account.device.memory {
                continue;
            }
            match self.plan_on(claimant, &[place], now, view, kept) {
                Ok(chosen) => {
                    let harm = chosen.victims.iter().map(|v| v.harm).sum();
                    let siblings = self.siblings_at(place, claimant.key);
                    ways.push((harm, siblings, account.free(), place));
                }
                Err(new) => blocked.push(new),
            }
        }
        ways.sort_by(|a, b| {
            a.0.total_cmp(&b.0)
                .then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
        });
        let wanted = need.gpus.max(1);
        if ways.len() < wanted {
            let ways: Vec<usize> = ways.iter().map(|way| way.3).collect();
            return Err(self.wait_for(claimant.key, wanted, ways, blocked));
        }
        let mut places: Vec<usize> = ways.iter().take(wanted).map(|way| way.3).collect();
        places.sort_unstable();
        self.plan_on(claimant, &places, now, view, kept)
    }

    /// Obstacle of a claim that finds no room on as many devices as are `wanted`: those
    /// that could be cleared are kept for it too, and none is kept that never could.
    fn wait_for(
        &self,
        key: LedgerKey,
        wanted: usize,
        ways: Vec<usize>,
        blocked: Vec<Blocked>,
    ) -> Blocked {
        let (mut hopeful, hopeless): (Vec<Blocked>, Vec<Blocked>) = blocked
            .into_iter()
            .partition(|blocked| self.can_be_had(key, &blocked.places));
        hopeful.sort_by(|a, b| a.pause.total_cmp(&b.pause));
        if ways.len() + hopeful.len() < wanted {
            let places: Vec<usize> = hopeless.into_iter().flat_map(|b| b.places).collect();
            let why = match places.as_slice() {
                [] => Obstacle::Small,
                places => self.lasting(key, places),
            };
            return Blocked::new(why, f64::INFINITY, &places);
        }
        let soonest = hopeful.first();
        let (why, pause) = soonest.map_or((Obstacle::New, 0.0), |b| (b.why, b.pause));
        let mut places: Vec<usize> = hopeful.into_iter().flat_map(|b| b.places).collect();
        places.extend(ways);
        places.truncate(wanted);
        Blocked::new(why, pause, &places)
    }

    /// Number of other replicas of the same deployment on a device.
    fn siblings_at(&self, place: usize, key: LedgerKey) -> usize {
        let awake = self.ledger.awake_at(place).iter();
        let holders = awake.chain(self.ledger.asleep_at(place));
        holders
            .filter(|other| self.are_siblings(**other, key))
            .count()
    }

    /// True if these are two replicas of one deployment: neither leaves for the
    /// other, which would win nothing.
    pub(super) fn are_siblings(&self, a: LedgerKey, b: LedgerKey) -> bool {
        let ids = self.id(a).zip(self.id(b));
        ids.is_some_and(|(a, b)| a != b && (a.has_replica(b) || b.has_replica(a)))
    }

    /// A plan on exactly these devices.
    fn plan_on(
        &self,
        claimant: &Claimant,
        places: &[usize],
        now: Uptime,
        view: &View<'_>,
        kept: &[Kept],
    ) -> Result<Chosen, Blocked> {
        let key = claimant.key;
        let kept = kept.iter().filter(|kept| places.contains(&kept.place));
        let kept_from = kept.map(|kept| kept.from).min().unwrap_or(Uptime::MAX);
        let (comes_in, moves) = (
            self.comes_in(key, &claimant.stand),
            self.moves_take(key, places, view),
        );
        if now + seconds(moves + comes_in) > kept_from {
            return Err(Blocked::new(Obstacle::Reserved, f64::INFINITY, places));
        }
        if claimant.foreseen.is_some() && self.is_waited_for(places, key, view) {
            return Err(Blocked::new(Obstacle::Unwanted, f64::INFINITY, places));
        }
        if places.iter().any(|p| self.is_starting(*p, key, view)) {
            return Err(Blocked::new(Obstacle::Measuring, f64::INFINITY, places));
        }
        let takes = self.takes(key, places);
        let deficits: Vec<u64> = takes
            .iter()
            .map(|(place, bytes)| {
                let Some(account) = self.ledger.at(*place) else {
                    return *bytes;
                };
                // More may be held than there is: by sleepers that were adopted.
                let gone = account.held + account.foreign + account.promised;
                let freeing = self.leaving_at(*place, view);
                bytes
                    .saturating_add(gone)
                    .saturating_sub(account.device.memory + freeing)
            })
            .collect();
        if deficits.iter().all(|deficit| *deficit == 0) {
            let victims = Vec::new();
            return Ok(Chosen { takes, victims });
        }
        let unwanted = || Blocked::new(Obstacle::Unwanted, f64::INFINITY, places);
        if claimant.is_modest() && claimant.foreseen.is_none() {
            return Err(unwanted());
        }
        let victims = self.victims(claimant, &takes, &deficits, now, view)?;
        if let Some(chance) = claimant.foreseen {
            // It moves only idle workers, for less harm than it is likely to save.
            let harm: Seconds = victims.iter().map(|victim| victim.harm).sum();
            let gain = chance * comes_in;
            if victims.iter().any(|v| v.running > 0) || harm >= gain {
                return Err(unwanted());
            }
        }
        let gone = victims.iter().map(|victim| victim.gone).fold(0.0, f64::max);
        if now + seconds(moves.max(gone) + comes_in) > kept_from {
            return Err(Blocked::new(Obstacle::Reserved, f64::INFINITY, places));
        }
        Ok(Chosen { takes, victims })
    }

    /// Bytes that the claim takes on each device, beside what it holds there.
    pub(super) fn takes(&self, key: LedgerKey, places: &[usize]) -> Vec<(usize, u64)> {
        let lease = self.ledger.lease(key);
        let need = self.slot(key).map(|slot| slot.profile.need);
        let bytes = |place: usize| {
            let (Some(account), Some(need)) = (self.ledger.at(place), need) else {
                return u64::MAX;
            };
            let own = lease.map_or(0, |lease| lease.on(place));
            need.awake.on(account.device).saturating_sub(own)
        };
        places.iter().map(|place| (*place, bytes(*place))).collect()
    }
}

pub(super) fn seconds(seconds: Seconds) -> Uptime {
    Uptime::from_secs_f64(seconds)
}
