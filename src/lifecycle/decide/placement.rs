//! Choice of the worker that gets GPU memory, and of those that leave for it.
//!
//! Pure: it does no I/O and reads no clock. It owns the claims for memory and
//! what is known of each deployment; the account of memory is [`super::ledger`]'s,
//! the arithmetic of harm [`super::policy`]'s. The conductor and `tidegate
//! simulate` drive the same code.
//!
//! ```text
//!  ask -> claim --(plan: GPUs chosen, memory promised, victims told)--> planned
//!           |                                                             |
//!           |  fits nowhere yet: looked at again when something changes   | room
//!           +-------------------------------------------------------------+--> Grant
//! ```
//!
//! No claim blocks another that fits elsewhere; one that is overdue goes first
//! and reserves its GPUs. All of a claim's GPUs are granted or none. A start
//! measures free memory, so on its GPUs nobody else comes, goes or starts.
//! On a machine without GPUs every claim is granted at once.

mod choose;
mod claims;
mod explain;
mod host;
mod moves;
mod order;
mod room;
mod turns;
mod victims;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::ledger::{GpuLedger, LedgerKey};
use super::policy::follow::Follow;
use super::policy::rate::Rate;
use super::policy::{Outlook, Params, Seconds, Steady};
use crate::config::OffloadTo;
use crate::deployment::{Crowd, MemoryHolding};
use crate::gpu::Device;
use crate::names::DeploymentId;
use crate::store::timings::Popularity;
use crate::time::Uptime;

pub use super::ledger::{Amount, MemoryNeed};
pub use explain::{Estimate, Occupant, Prospect, misfit};
pub use words::{
    Decision, Eviction, Insists, Obstacle, Profile, Rungs, Stand, Standing, View, keeps_host,
};

/// Weight of the newest request in the mean of service times.
const SERVICE_WEIGHT: f64 = 0.1;
/// Seconds that a request takes before any was seen.
const SERVICE_GUESS: Seconds = 3.0;
/// Knowledge of a deployment's future, as a clairvoyant has it; the product has none.
pub trait Foresight: std::fmt::Debug {
    /// Its requests after this time.
    fn outlook(&self, key: LedgerKey, now: Uptime) -> Box<dyn Outlook + '_>;
}

/// A wish for memory.
#[derive(Clone, Debug)]
struct Claim {
    /// The devices that were chosen, by place, and the memory promised on each.
    plan: Option<Vec<(usize, u64)>>,
    /// Nothing about it changes by time alone before then.
    look_at: Uptime,
    /// Its place among others, as last seen.
    age: order::Age,
    /// The devices that it waits for, by place: kept from others once it is overdue.
    wants: Vec<usize>,
    /// Chance that a client asks for it next, where none has yet.
    foreseen: Option<f64>,
    /// Obstacle that it waits for.
    blocked: Obstacle,
    /// Obstacles that it was said to wait for so far.
    said: Vec<Obstacle>,
}

/// A deployment, as placement knows it.
#[derive(Clone, Debug)]
struct Slot {
    id: DeploymentId,
    profile: Profile,
    rate: Rate,
    service: Seconds,
    /// True if it may use host memory, by what it gains from it.
    favoured: bool,
    claim: Option<Claim>,
    /// Chance that a client asks for it next; for the claim that is to come.
    foreseen: Option<f64>,
    /// Deployment that it leaves for.
    leaves_for: Option<LedgerKey>,
    /// Workspaces that waited when it last came up.
    came_for: Crowd,
}

/// The claims and what is known. See the module docs.
#[derive(Debug)]
pub struct Placement {
    ledger: GpuLedger,
    params: Params,
    slots: Vec<Option<Slot>>,
    keys: HashMap<DeploymentId, LedgerKey>,
    /// Claims, by key.
    claims: BTreeSet<LedgerKey>,
    /// Devices on which something changed since the last plan, by place.
    touched: Vec<bool>,
    all_touched: bool,
    favoured_at: Option<Uptime>,
    look_at: Option<Uptime>,
    /// Victims whose claimant is gone, to be spared if there is still time.
    orphans: Vec<LedgerKey>,
    /// Standing of workers that were told to leave or to come in this pass.
    told: Vec<(LedgerKey, Standing)>,
    /// Devices that planned starts will measure, by place, with their claims.
    planned_starts: Vec<(usize, LedgerKey)>,
    foresight: Option<Arc<dyn Foresight + Send + Sync>>,
    follow: Follow,
    turns: turns::Turns,
    /// Time when workspaces were last charged for what they have at work.
    charged_at: Uptime,
}

impl Placement {
    /// Nothing is held.
    pub fn new(devices: Vec<Device>, host_budget: u64, params: Params) -> Self {
        Self {
            touched: vec![false; devices.len()],
            ledger: GpuLedger::new(devices, host_budget),
            params,
            slots: Vec::new(),
            keys: HashMap::new(),
            claims: BTreeSet::new(),
            all_touched: true,
            favoured_at: None,
            look_at: None,
            orphans: Vec::new(),
            told: Vec::new(),
            planned_starts: Vec::new(),
            foresight: None,
            follow: Follow::default(),
            turns: turns::Turns::default(),
            charged_at: Uptime::ZERO,
        }
    }

    /// Lets it know the future: for the clairvoyant of the simulation.
    #[must_use]
    pub fn with_foresight(mut self, foresight: Arc<dyn Foresight + Send + Sync>) -> Self {
        self.foresight = Some(foresight);
        self
    }

    /// Takes down what is known of a deployment, new or changed.
    pub fn know(&mut self, id: &DeploymentId, profile: Profile, now: Uptime) -> LedgerKey {
        if let Some(key) = self.key(id) {
            if let Some(slot) = self.slot_mut(key) {
                slot.profile = profile;
            }
            return key;
        }
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or(self.slots.len());
        let key = LedgerKey(u32::try_from(index).unwrap_or(u32::MAX));
        let slot = Slot {
            id: id.clone(),
            profile,
            rate: Rate::new(now),
            service: SERVICE_GUESS,
            favoured: false,
            claim: None,
            foreseen: None,
            leaves_for: None,
            came_for: Crowd::default(),
        };
        match self.slots.get_mut(index) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        self.keys.insert(id.clone(), key);
        key
    }

    /// Forgets a deployment that is gone.
    pub fn forget(&mut self, id: &DeploymentId) {
        if let Some(key) = self.key(id) {
            self.cancel(key);
            self.release(key);
            self.follow.forget(key);
            self.keys.remove(id);
            if let Some(place) = self.slots.get_mut(key.index()) {
                *place = None;
            }
        }
    }

    /// The number of a deployment.
    pub fn key(&self, id: &DeploymentId) -> Option<LedgerKey> {
        self.keys.get(id).copied()
    }

    /// The deployment of a number.
    pub fn id(&self, key: LedgerKey) -> Option<&DeploymentId> {
        self.slot(key).map(|slot| &slot.id)
    }

    /// The deployments by their numbers.
    pub fn ids(&self) -> Vec<Option<DeploymentId>> {
        let id = |slot: &Option<Slot>| slot.as_ref().map(|slot| slot.id.clone());
        self.slots.iter().map(id).collect()
    }

    /// So many requests came between these times.
    pub fn arrived(&mut self, key: LedgerKey, n: u32, since: Uptime, now: Uptime) {
        if let Some(slot) = self.slot_mut(key) {
            match n {
                0 => {}
                1 => slot.rate.arrived(now),
                n => slot.rate.arrived_many(n, since, now),
            }
        }
    }

    /// Requests took this long, on average.
    pub fn served(&mut self, key: LedgerKey, n: u32, seconds: Seconds) {
        if let Some(slot) = self.slot_mut(key) {
            let old = (1.0 - SERVICE_WEIGHT).powi(i32::try_from(n.min(100)).unwrap_or(100));
            slot.service = old * slot.service + (1.0 - old) * seconds;
        }
    }

    /// Goes on from what was estimated of a deployment before a restart.
    pub fn recall(&mut self, key: LedgerKey, kept: &Popularity, away: Seconds, now: Uptime) {
        if let Some(slot) = self.slot_mut(key) {
            slot.rate = Rate::recalled(kept, away, now);
            slot.service = kept.service;
        }
    }

    /// Popularity to be recalled after a restart; `None` of a deployment that nobody asked for.
    /// `at` is the time of day.
    pub fn popularity(&self, key: LedgerKey, at: u64, now: Uptime) -> Option<Popularity> {
        let slot = self.slot(key)?;
        slot.rate.kept(slot.service, at, now)
    }

    /// A client has asked a deployment: which one it is likely to ask next. Nothing
    /// is foretold unless the settings want it.
    pub fn asked(&mut self, client: u64, key: LedgerKey, now: Uptime) -> Option<(LedgerKey, f64)> {
        let wanted = self.params.prefetch;
        wanted.then(|| self.follow.asked(client, key, now))?
    }

    /// The next claim of this sleeper is made because it is expected to be asked.
    pub fn foresee(&mut self, key: LedgerKey, chance: f64) {
        if let Some(slot) = self.slot_mut(key) {
            slot.foreseen = Some(chance);
        }
    }

    /// Asks for memory; a sleeper asks for what it had. Answered by
    /// [`Self::plan`].
    pub fn ask(&mut self, key: LedgerKey) {
        self.cancel(key);
        if let Some(slot) = self.slot_mut(key) {
            slot.claim = Some(Claim {
                plan: None,
                look_at: Uptime::ZERO,
                age: order::Age::default(),
                wants: Vec::new(),
                foreseen: slot.foreseen.take(),
                blocked: Obstacle::New,
                said: Vec::new(),
            });
            self.claims.insert(key);
        }
    }

    /// Withdraws the claim. Victims that were to leave for it may be spared.
    pub fn cancel(&mut self, key: LedgerKey) {
        self.unplan(key);
        self.claims.remove(&key);
        if let Some(slot) = self.slot_mut(key) {
            slot.claim = None;
        }
        for (victim, slot) in (0..).map(LedgerKey).zip(&mut self.slots) {
            if let Some(slot) = slot
                && slot.leaves_for == Some(key)
            {
                slot.leaves_for = None;
                self.orphans.push(victim);
            }
        }
    }

    /// The worker sleeps: it keeps only what a sleeper does.
    pub fn shrink(&mut self, key: LedgerKey) {
        self.ledger.shrink(key);
        self.settled(key);
    }

    /// The worker is gone.
    pub fn release(&mut self, key: LedgerKey) {
        self.touch(key);
        self.settled(key);
        self.ledger.release(key);
    }

    fn settled(&mut self, key: LedgerKey) {
        self.touch(key);
        if let Some(slot) = self.slot_mut(key) {
            slot.leaves_for = None;
        }
    }

    /// Takes down what an adopted worker holds, whether it fits or not.
    pub fn adopt(&mut self, key: LedgerKey, gpus: &[u32], asleep: Option<OffloadTo>) {
        let places: Vec<_> = gpus.iter().filter_map(|i| self.ledger.place(*i)).collect();
        if let Some(need) = self.slot(key).map(|slot| slot.profile.need) {
            self.ledger.take(key, &need, &places, asleep.is_some());
            self.keep_on_host(key, asleep == Some(OffloadTo::Cpu));
        }
    }

    /// Notes what a worker was seen to hold on each of its devices.
    pub fn observe(&mut self, key: LedgerKey, bytes: u64) {
        self.ledger.observe(key, bytes);
        self.touch(key);
    }

    /// Notes what others, none of our workers, were seen to hold on a device.
    pub fn observe_foreign(&mut self, index: u32, bytes: u64) {
        self.ledger.set_foreign(index, bytes);
        if let Some(touched) = self.ledger.place(index) {
            self.touch_place(touched);
        }
    }

    /// Something about this deployment changed that may matter to claims.
    pub fn touch(&mut self, key: LedgerKey) {
        let places = self.ledger.lease(key).map(|lease| lease.places().to_vec());
        for place in places.unwrap_or_default() {
            self.touch_place(place);
        }
    }

    fn touch_place(&mut self, place: usize) {
        if let Some(touched) = self.touched.get_mut(place) {
            *touched = true;
        }
    }

    /// Anything may have changed.
    pub fn touch_all(&mut self) {
        self.all_touched = true;
    }

    /// The GPUs that this deployment holds.
    pub fn gpus_of(&self, key: LedgerKey) -> Arc<[u32]> {
        let lease = self.ledger.lease(key);
        lease.map_or_else(|| Arc::from([]), |lease| Arc::clone(&lease.gpus))
    }

    /// Memory that is held on each device, in bytes, in the order of devices.
    pub fn held(&self) -> Vec<(Device, u64)> {
        let accounts = self.ledger.accounts().iter();
        accounts.map(|a| (a.device, a.held)).collect()
    }

    /// Bytes that each deployment holds, by device.
    pub fn holdings(&self) -> Vec<MemoryHolding> {
        let mut holdings = Vec::new();
        for (key, id) in (0..).map(LedgerKey).zip(self.ids().iter()) {
            let (Some(id), Some(lease)) = (id, self.ledger.lease(key)) else {
                continue;
            };
            for (place, gpu) in lease.places().iter().zip(lease.gpus.iter()) {
                holdings.push(MemoryHolding {
                    deployment: id.clone(),
                    gpu: *gpu,
                    bytes: lease.on(*place),
                });
            }
        }
        holdings
    }

    /// Deployments that leave for this one.
    pub fn leaving_for(&self, key: LedgerKey) -> Vec<&DeploymentId> {
        let leaves = self.slots.iter().flatten();
        let leaves = leaves.filter(|slot| slot.leaves_for == Some(key));
        leaves.map(|slot| &slot.id).collect()
    }

    /// True if this one may go to sleep: no worker measures memory where it is.
    pub fn may_leave(&self, key: LedgerKey, view: &View<'_>) -> bool {
        let places = self.ledger.lease(key).map_or(&[][..], |l| l.places());
        let starts = |other: &LedgerKey| view(*other).standing == Standing::Starting;
        let mut others = places.iter().flat_map(|place| self.ledger.awake_at(*place));
        !others.any(starts)
    }

    /// The account of memory.
    pub fn ledger(&self) -> &GpuLedger {
        &self.ledger
    }

    /// Weights of the figures in decisions.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// True if a claim waits.
    pub fn is_waiting(&self) -> bool {
        !self.claims.is_empty()
    }

    /// Time when a claim is to be looked at again though nothing happened.
    pub fn look_at(&self) -> Option<Uptime> {
        self.look_at
    }

    /// Reason why this deployment could not fit even on an empty machine.
    pub fn never_fits(&self, need: &MemoryNeed) -> Option<String> {
        let accounts = self.ledger.accounts().iter();
        let devices: Vec<Device> = accounts.map(|account| account.device).collect();
        misfit(need, &devices)
    }

    fn slot(&self, key: LedgerKey) -> Option<&Slot> {
        self.slots.get(key.index())?.as_ref()
    }

    fn slot_mut(&mut self, key: LedgerKey) -> Option<&mut Slot> {
        self.slots.get_mut(key.index())?.as_mut()
    }

    fn outlook(&self, key: LedgerKey, now: Uptime) -> Box<dyn Outlook + '_> {
        if let Some(foresight) = &self.foresight {
            return foresight.outlook(key, now);
        }
        let rate = self.slot(key).map_or(0.0, |slot| slot.rate.per_second(now));
        Box::new(Steady(rate))
    }
}

#[cfg(test)]
mod tests;
