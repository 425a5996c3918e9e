//! Which GPUs a worker gets: an exact account of their memory, and a queue.
//!
//! Pure: it does no I/O and reads no clock. Claims are served in their order; a
//! claim that does not fit yet keeps its GPUs reserved, so younger ones pass it
//! only elsewhere and nobody starves. All of a claim's GPUs are granted or none.
//! Memory is taken when it is granted and given back only when told so: who asks
//! for a release has seen the worker gone.
//!
//! On a machine without GPUs every claim is granted at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::gpu::Device;
use crate::names::DeploymentId;
use crate::time::Uptime;
use crate::units::Bytes;

/// Memory on one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// This many bytes.
    Bytes(u64),
    /// This part of whichever device it is, 0 to 1.
    Share(f64),
}

impl Amount {
    fn on(self, device: Device) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "memory sizes are far below 2^53, and a share is at most 1"
            )]
            Self::Share(share) => (share.clamp(0.0, 1.0) * device.memory as f64).ceil() as u64,
        }
    }
}

/// What a worker needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// How many GPUs; at least one.
    pub gpus: usize,
    /// On each, while awake.
    pub awake: Amount,
    /// On each, while asleep.
    pub asleep: u64,
}

/// How easily a holder of memory can be made to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It serves, and no request is inside since then.
    Idle(Uptime),
    /// It serves requests.
    Busy,
    /// It sleeps; what it keeps can be had by ending it.
    Asleep,
    /// It is on its way out already.
    Leaving,
    /// It is not to be touched: pinned, or just coming up.
    Fixed,
}

/// What to do about the claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The memory is taken for this deployment.
    Grant(DeploymentId),
    /// It can never fit; why, with figures.
    Refuse(DeploymentId, String),
    /// The first must leave, for the second.
    Evict(DeploymentId, DeploymentId),
}

/// Memory that is held.
#[derive(Clone, Debug)]
struct Lease {
    need: Need,
    gpus: Arc<[u32]>,
    asleep: bool,
}

/// A wish for memory.
#[derive(Clone, Debug)]
struct Claim {
    id: DeploymentId,
    need: Need,
    /// The GPUs that it is bound to, if it sleeps on some.
    bound: Option<Arc<[u32]>>,
    since: Uptime,
}

/// The account.
#[derive(Clone, Debug)]
pub struct Placement {
    devices: Vec<Device>,
    leases: BTreeMap<DeploymentId, Lease>,
    /// What others use, by device.
    foreign: BTreeMap<u32, u64>,
    queue: VecDeque<Claim>,
    /// How long a claim waits before a busy one must leave for it.
    patience: Duration,
}

impl Placement {
    /// Nothing is held.
    pub fn new(devices: Vec<Device>, patience: Duration) -> Self {
        Self {
            devices,
            leases: BTreeMap::new(),
            foreign: BTreeMap::new(),
            queue: VecDeque::new(),
            patience,
        }
    }

    /// Asks for memory; a sleeper asks for what it had. Answered by
    /// [`Self::plan`].
    pub fn ask(&mut self, id: &DeploymentId, need: Need, now: Uptime) {
        self.cancel(id);
        let held = self.leases.get(id);
        self.queue.push_back(Claim {
            id: id.clone(),
            need: held.map_or(need, |lease| lease.need),
            bound: held.map(|lease| Arc::clone(&lease.gpus)),
            since: now,
        });
    }

    /// Withdraws the question.
    pub fn cancel(&mut self, id: &DeploymentId) {
        self.queue.retain(|claim| claim.id != *id);
    }

    /// The worker sleeps: it keeps only what a sleeper does.
    pub fn shrink(&mut self, id: &DeploymentId) {
        if let Some(lease) = self.leases.get_mut(id) {
            lease.asleep = true;
        }
    }

    /// The worker is gone.
    pub fn release(&mut self, id: &DeploymentId) {
        self.leases.remove(id);
    }

    /// Takes down what an adopted worker holds, whether it fits or not.
    pub fn adopt(&mut self, id: &DeploymentId, need: Need, gpus: Arc<[u32]>, asleep: bool) {
        let lease = Lease { need, gpus, asleep };
        self.leases.insert(id.clone(), lease);
    }

    /// Takes down what others than our workers use of each device, as seen: so
    /// much less can be granted.
    pub fn observe(&mut self, foreign: impl IntoIterator<Item = (u32, u64)>) {
        self.foreign.extend(foreign);
    }

    /// What others use of a device, in bytes.
    fn foreign_on(&self, device: Device) -> u64 {
        self.foreign.get(&device.index).copied().unwrap_or(0)
    }

    /// The GPUs that this deployment holds.
    pub fn gpus_of(&self, id: &DeploymentId) -> Arc<[u32]> {
        let lease = self.leases.get(id);
        lease.map_or_else(|| Arc::from([]), |lease| Arc::clone(&lease.gpus))
    }

    /// Whether a claim waits. Time alone can help it: others become idle, and it
    /// loses its patience.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Memory that is held on each device, in bytes, in the order of devices.
    pub fn held(&self) -> Vec<(Device, u64)> {
        let held = |device: &Device| self.leases.values().map(|l| held_by(l, *device)).sum();
        self.devices.iter().map(|d| (*d, held(d))).collect()
    }

    /// Serves the queue as far as it goes. Grants are taken down already.
    pub fn plan(
        &mut self,
        now: Uptime,
        standing: &dyn Fn(&DeploymentId) -> Standing,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut reserved: Vec<u32> = Vec::new();
        let mut asked: Vec<DeploymentId> = Vec::new();
        for claim in std::mem::take(&mut self.queue) {
            if self.devices.is_empty() {
                self.grant(&claim, &[]);
                decisions.push(Decision::Grant(claim.id));
                continue;
            }
            if let Some(why) = self.never_fits(&claim) {
                decisions.push(Decision::Refuse(claim.id, why));
                continue;
            }
            if let Some(gpus) = self.fitting(&claim, &reserved) {
                self.grant(&claim, &gpus);
                decisions.push(Decision::Grant(claim.id));
                continue;
            }
            let patient = now < claim.since + self.patience;
            if let Some((gpus, victims)) = self.clearing(&claim, &reserved, patient, standing) {
                reserved.extend(gpus);
                for victim in victims {
                    let new = standing(&victim) != Standing::Leaving && !asked.contains(&victim);
                    if new {
                        asked.push(victim.clone());
                        decisions.push(Decision::Evict(victim, claim.id.clone()));
                    }
                }
            }
            self.queue.push_back(claim);
        }
        decisions
    }

    fn grant(&mut self, claim: &Claim, gpus: &[u32]) {
        let lease = Lease {
            need: claim.need,
            gpus: Arc::from(gpus),
            asleep: false,
        };
        self.leases.insert(claim.id.clone(), lease);
    }

    /// Why the claim does not fit even on an empty machine.
    fn never_fits(&self, claim: &Claim) -> Option<String> {
        let (wanted, have) = (claim.need.gpus.max(1), self.devices.len());
        let fits = |device: &&Device| claim.need.awake.on(**device) <= device.memory;
        if self.devices.iter().filter(fits).count() >= wanted {
            return None;
        }
        let largest = self.devices.iter().max_by_key(|device| device.memory)?;
        let need = Bytes(claim.need.awake.on(*largest));
        Some(format!(
            "needs {need} on each of {wanted} GPU(s), but there are {have} and the largest has {}",
            Bytes(largest.memory)
        ))
    }

    /// Free memory of a device, as `id` sees it: what it holds itself counts.
    fn free(&self, device: Device, id: &DeploymentId) -> u64 {
        let others = self.leases.iter().filter(|(holder, _)| *holder != id);
        let held: u64 = others.map(|(_, lease)| held_by(lease, device)).sum();
        let taken = held.saturating_add(self.foreign_on(device));
        device.memory.saturating_sub(taken)
    }

    /// Devices that the claim may use now.
    fn eligible(&self, claim: &Claim, reserved: &[u32]) -> Vec<Device> {
        let bound = |device: &Device| {
            let bound = claim.bound.as_ref();
            bound.is_none_or(|gpus| gpus.contains(&device.index))
        };
        let devices = self.devices.iter().copied();
        devices
            .filter(|device| bound(device) && !reserved.contains(&device.index))
            .filter(|device| claim.need.awake.on(*device) <= device.memory)
            .collect()
    }

    /// The GPUs on which the claim fits now, the fullest first: best fit.
    fn fitting(&self, claim: &Claim, reserved: &[u32]) -> Option<Vec<u32>> {
        let mut fit: Vec<(usize, u64, u32)> = self
            .eligible(claim, reserved)
            .into_iter()
            .filter_map(|device| {
                let free = self.free(device, &claim.id);
                let left = free.checked_sub(claim.need.awake.on(device))?;
                Some((self.siblings_on(device, &claim.id), left, device.index))
            })
            .collect();
        fit.sort_unstable();
        take_exactly(fit.into_iter().map(|(_, _, index)| index), claim)
    }

    /// How many other replicas of the same deployment are on a device.
    fn siblings_on(&self, device: Device, id: &DeploymentId) -> usize {
        let others = self.leases.iter().filter(|(other, lease)| {
            let related = other.has_replica(id) || id.has_replica(other);
            related && *other != id && lease.gpus.contains(&device.index)
        });
        others.count()
    }

    /// The GPUs that can be cleared for the claim with the least harm, and who
    /// must leave them.
    fn clearing(
        &self,
        claim: &Claim,
        reserved: &[u32],
        patient: bool,
        standing: &dyn Fn(&DeploymentId) -> Standing,
    ) -> Option<(Vec<u32>, Vec<DeploymentId>)> {
        let mut ways: Vec<(Harm, u32, Vec<DeploymentId>)> = Vec::new();
        for device in self.eligible(claim, reserved) {
            let others = self.leases.iter().filter(|(id, _)| **id != claim.id);
            let held: u64 = others.clone().map(|(_, l)| held_by(l, device)).sum();
            let wanted = claim.need.awake.on(device) + held + self.foreign_on(device);
            let missing = wanted.saturating_sub(device.memory);
            let candidates: Vec<_> = others
                .filter_map(|(id, lease)| {
                    let bytes = held_by(lease, device);
                    (bytes > 0).then(|| Candidate {
                        id: id.clone(),
                        standing: standing(id),
                        bytes,
                    })
                })
                .collect();
            if let Some((harm, victims)) = choose_victims(missing, candidates, patient) {
                ways.push((harm, device.index, victims));
            }
        }
        ways.sort_by_key(|(harm, index, _)| (*harm, *index));
        let gpus = take_exactly(ways.iter().map(|(_, index, _)| *index), claim)?;
        let chosen = ways
            .into_iter()
            .filter(|(_, index, _)| gpus.contains(index));
        let mut victims: Vec<_> = chosen.flat_map(|(_, _, victims)| victims).collect();
        victims.sort();
        victims.dedup();
        Some((gpus, victims))
    }
}

fn held_by(lease: &Lease, device: Device) -> u64 {
    if !lease.gpus.contains(&device.index) {
        0
    } else if lease.asleep {
        lease.need.asleep
    } else {
        lease.need.awake.on(device)
    }
}

fn take_exactly(gpus: impl Iterator<Item = u32>, claim: &Claim) -> Option<Vec<u32>> {
    let wanted = claim.need.gpus.max(1);
    let mut gpus: Vec<_> = gpus.take(wanted).collect();
    gpus.sort_unstable();
    (gpus.len() == wanted).then_some(gpus)
}

/// Someone who holds memory on the device in question.
#[derive(Clone, Debug)]
struct Candidate {
    id: DeploymentId,
    standing: Standing,
    /// At most what its leaving frees. A sleeper may keep some of it; then the
    /// next plan asks again.
    bytes: u64,
}

/// How bad a choice of victims is; the least is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Harm {
    busy: usize,
    victims: usize,
    /// When the last used of them was used.
    used: Uptime,
}

/// Who leaves so that `missing` bytes become free; `None` when they can't. Those
/// that leave already count first, then the idle, the longest idle first, then
/// sleepers, and busy ones only for a claim that has lost its patience.
fn choose_victims(
    missing: u64,
    mut candidates: Vec<Candidate>,
    patient: bool,
) -> Option<(Harm, Vec<DeploymentId>)> {
    let rank = |standing: Standing| match standing {
        Standing::Leaving => Some((0, Uptime::ZERO)),
        Standing::Idle(since) => Some((1, since)),
        Standing::Asleep => Some((2, Uptime::ZERO)),
        Standing::Busy if !patient => Some((3, Uptime::MAX)),
        Standing::Busy | Standing::Fixed => None,
    };
    candidates.retain(|candidate| rank(candidate.standing).is_some());
    candidates.sort_by(|a, b| (rank(a.standing), &a.id).cmp(&(rank(b.standing), &b.id)));
    let mut freed = 0_u64;
    let mut chosen: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if freed >= missing {
            break;
        }
        freed += candidate.bytes;
        chosen.push(candidate);
    }
    if freed < missing {
        return None;
    }
    // Those that proved unnecessary stay, the dearest first.
    for index in (0..chosen.len()).rev() {
        let spare = chosen.get(index).map_or(u64::MAX, |c| c.bytes);
        if freed.saturating_sub(spare) >= missing {
            freed -= spare;
            chosen.remove(index);
        }
    }
    let harm = Harm {
        busy: chosen
            .iter()
            .filter(|c| c.standing == Standing::Busy)
            .count(),
        victims: chosen.len(),
        used: chosen
            .iter()
            .filter_map(|c| rank(c.standing))
            .map(|r| r.1)
            .max()
            .unwrap_or_default(),
    };
    Some((harm, chosen.into_iter().map(|c| c.id).collect()))
}

#[cfg(test)]
mod tests;
