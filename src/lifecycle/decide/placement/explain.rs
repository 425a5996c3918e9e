//! Needs of a start or a wake of a deployment, for people who ask.
//!
//! It decides nothing: the same plan as for a claim, made and thrown away.

use super::claims::eviction;
use super::order::kept_from;
use super::{
    Eviction, Insists, LedgerKey, MemoryNeed, Obstacle, Placement, Profile, Standing, View,
};
use crate::gpu::Device;
use crate::lifecycle::decide::machine::Rest;
use crate::lifecycle::decide::policy::Seconds;
use crate::time::Uptime;
use crate::units::Bytes;

/// Reason why a worker with this need could not fit on these devices, however empty; `None`
/// where it could, and where there are no devices.
pub fn misfit(need: &MemoryNeed, devices: &[Device]) -> Option<String> {
    let wanted = need.gpus.max(1);
    let largest = devices.iter().max_by_key(|device| device.memory)?;
    let fits = |device: &&Device| need.awake.on(**device) <= device.memory;
    if devices.iter().filter(fits).count() >= wanted {
        return None;
    }
    let bytes = Bytes(need.awake.on(*largest));
    let each = match wanted {
        1 => "a GPU".to_owned(),
        n => format!("each of {n} GPUs"),
    };
    let memory = Bytes(largest.memory);
    Some(match devices.len() {
        1 => format!("it needs {bytes} of {each}, and there is one, of {memory}"),
        n => format!("it needs {bytes} of {each}, and there are {n}, the largest of {memory}"),
    })
}

/// Outcome if a request for a deployment came now.
#[derive(Clone, Debug, PartialEq)]
pub struct Prospect {
    /// GPUs that it would go to; none where it would wait, and without GPUs.
    pub gpus: Vec<u32>,
    /// Workers that would leave for it.
    pub evicts: Vec<Eviction>,
    /// Reason why it would have to wait, if it would.
    pub blocked: Option<Obstacle>,
    /// Workers on the GPUs that it waits for.
    pub holders: Vec<Occupant>,
}

/// A worker that holds memory that another waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Occupant {
    /// Key of the worker.
    pub key: LedgerKey,
    /// GPU that it is on.
    pub gpu: u32,
    /// Bytes that it holds.
    pub bytes: u64,
    /// True if it is never made to leave.
    pub pinned: bool,
    /// True if it is another replica of the same deployment.
    pub replica: bool,
    /// Standing of the worker.
    pub standing: Standing,
    /// Requests inside.
    pub running: u32,
    /// Seconds after which it may be asked to leave, as things stand now; `None`
    /// where time alone does not help.
    pub may_leave_in: Option<Seconds>,
}

/// Estimates of a deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Requests per hour.
    pub per_hour: f64,
    /// Seconds that a request takes.
    pub service: Seconds,
    /// Memory that a worker takes, and the costs of its transitions.
    pub profile: Profile,
}

impl Placement {
    /// Outcome if a request for a deployment came now; `None` for one
    /// that is awake or on its way.
    pub fn prospect(&self, key: LedgerKey, now: Uptime, view: &View<'_>) -> Option<Prospect> {
        let mut stand = view(key);
        if !matches!(stand.standing, Standing::Absent | Standing::Asleep(_)) {
            return None;
        }
        let claim = self.slot(key).and_then(|slot| slot.claim.as_ref());
        // Of one that waits already the answer is its own.
        if claim.is_none() {
            if stand.insists == Insists::IfRoom {
                stand.insists = Insists::No;
            }
            stand.held = stand.held.max(1);
        }
        let mean = self.mean_turn(now, view);
        let claimant = self.claimant(key, stand, now, mean);
        let waits = |why: Obstacle, places: &[usize]| {
            let ends = !self.can_be_cleared(key, &self.takes(key, places));
            let holders = places.iter();
            let holders = holders.flat_map(|place| self.on(*place, &claimant, ends, now, view));
            Some(Prospect {
                gpus: Vec::new(),
                evicts: Vec::new(),
                blocked: Some(why),
                holders: holders.collect(),
            })
        };
        if let Some((claim, plan)) = claim.and_then(|c| Some((c, c.plan.as_ref()?))) {
            let places: Vec<usize> = plan.iter().map(|(place, _)| *place).collect();
            return waits(claim.blocked, &places);
        }
        if self.goes_elsewhere(&claimant) {
            let own = self.ledger.lease(key).map_or(&[][..], |l| l.places());
            return waits(Obstacle::Elsewhere, own);
        }
        let kept = kept_from(&claimant, &self.reservations(now, view, mean));
        let chosen = match self.choose(&claimant, now, view, &kept) {
            Ok(chosen) => chosen,
            Err(blocked) => return waits(blocked.why, &blocked.places),
        };
        let places = chosen.takes.iter().map(|(place, _)| *place);
        let accounts = places.filter_map(|place| self.ledger.at(place));
        let victims = chosen.victims.iter();
        Some(Prospect {
            gpus: accounts.map(|account| account.device.index).collect(),
            evicts: victims.map(|v| eviction(&claimant, v, now)).collect(),
            blocked: None,
            holders: Vec::new(),
        })
    }

    /// Workers that hold memory on the device at this place, beside this claimant; `ends` says
    /// that it would be too little if they slept.
    fn on(
        &self,
        place: usize,
        claimant: &super::claims::Claimant,
        ends: bool,
        now: Uptime,
        view: &View<'_>,
    ) -> Vec<Occupant> {
        let awake = self.ledger.awake_at(place).iter();
        let all = awake.chain(self.ledger.asleep_at(place));
        let holder = |key: LedgerKey| {
            let stand = self.stand(key, view);
            let places = &[place];
            let mut leaves = self.candidate(key, claimant, places, now, &stand);
            if ends {
                let end = self.leaver(key, claimant, Rest::Stop, places, now, &stand);
                leaves = leaves.and(end);
            }
            let may_leave_in = match leaves {
                Ok(_) => Some(0.0),
                Err(wait) => wait.is_finite().then_some(wait),
            };
            Some(Occupant {
                key,
                gpu: self.ledger.at(place)?.device.index,
                bytes: self.ledger.lease(key)?.on(place),
                pinned: self.slot(key)?.profile.pinned,
                replica: self.are_siblings(key, claimant.key),
                standing: stand.standing,
                running: stand.running,
                may_leave_in,
            })
        };
        all.copied()
            .filter(|key| *key != claimant.key)
            .filter_map(holder)
            .collect()
    }

    /// Estimates of a deployment.
    pub fn estimate(&self, key: LedgerKey, now: Uptime) -> Option<Estimate> {
        let slot = self.slot(key)?;
        Some(Estimate {
            per_hour: slot.rate.per_second(now) * 3_600.0,
            service: slot.service,
            profile: slot.profile.clone(),
        })
    }

    /// Obstacle that the claim of a deployment waits for.
    pub fn waits_for(&self, key: LedgerKey) -> Option<Obstacle> {
        Some(self.slot(key)?.claim.as_ref()?.blocked)
    }
}
