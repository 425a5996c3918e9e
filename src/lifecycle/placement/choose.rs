//! The plan of one claim: on which devices, and who leaves them.

use super::claims::Claimant;
use super::order::Kept;
use super::turns::Right;
use super::{Insists, Key, Obstacle, Placement, Stand, Standing, View};
use crate::lifecycle::machine::Rest;
use crate::lifecycle::policy::{self, Seconds};
use crate::time::Uptime;

/// Where a claim goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    /// Devices by place, with the bytes that it takes beside what it holds.
    pub(super) takes: Vec<(usize, u64)>,
    /// Who leaves.
    pub(super) victims: Vec<Victim>,
}

/// Why a claim has no plan yet.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    pub(super) why: Obstacle,
    /// Seconds after which time alone may have helped.
    pub(super) pause: Seconds,
    /// The devices that it would take.
    pub(super) places: Vec<usize>,
}

impl Blocked {
    fn new(why: Obstacle, pause: Seconds, places: &[usize]) -> Self {
        Self {
            why,
            pause,
            places: places.to_vec(),
        }
    }
}

/// One who can be made to leave.
#[derive(Clone, Debug)]
pub(super) struct Victim {
    pub(super) key: Key,
    pub(super) rest: Rest,
    pub(super) running: u32,
    pub(super) idle: Option<Seconds>,
    pub(super) back: Seconds,
    pub(super) harm: Seconds,
    /// How long it takes to be gone, with its requests.
    gone: Seconds,
    score: f64,
    /// What its leaving frees, on each of the devices in question.
    frees: Vec<u64>,
}

impl Placement {
    /// Finds the devices for a claim, and who leaves them.
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
        let mut blocked: Option<Blocked> = None;
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
                Err(new) => {
                    let sooner = blocked.as_ref().is_none_or(|old| new.pause < old.pause);
                    blocked = if sooner { Some(new) } else { blocked };
                }
            }
        }
        ways.sort_by(|a, b| {
            a.0.total_cmp(&b.0)
                .then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
        });
        let wanted = need.gpus.max(1);
        if ways.len() < wanted {
            let mut blocked =
                blocked.unwrap_or_else(|| Blocked::new(Obstacle::Small, f64::INFINITY, &[]));
            // Those that could be cleared are kept for it too.
            blocked.places.extend(ways.iter().map(|way| way.3));
            blocked.places.truncate(wanted);
            return Err(blocked);
        }
        let mut places: Vec<usize> = ways.iter().take(wanted).map(|way| way.3).collect();
        places.sort_unstable();
        self.plan_on(claimant, &places, now, view, kept)
    }

    /// How many other replicas of the same deployment are on a device.
    fn siblings_at(&self, place: usize, key: Key) -> usize {
        let awake = self.ledger.awake_at(place).iter();
        let holders = awake.chain(self.ledger.asleep_at(place));
        holders
            .filter(|other| self.are_siblings(**other, key))
            .count()
    }

    /// Whether these are two replicas of one deployment: neither leaves for the
    /// other, which would win nothing.
    fn are_siblings(&self, a: Key, b: Key) -> bool {
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
        let mut ready = now + seconds(self.comes_in(key, &claimant.stand));
        if ready > kept_from {
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
                let account = self.ledger.at(*place);
                let (free, promised) = account.map_or((0, 0), |a| (a.free(), a.promised));
                let freeing = self.leaving_at(*place, view);
                (bytes + promised).saturating_sub(free + freeing)
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
            // It moves only who is idle, for less than it is likely to save.
            let harm: Seconds = victims.iter().map(|victim| victim.harm).sum();
            let gain = chance * self.comes_in(key, &claimant.stand);
            if victims.iter().any(|v| v.running > 0) || harm >= gain {
                return Err(unwanted());
            }
        }
        let gone = victims.iter().map(|victim| victim.gone).fold(0.0, f64::max);
        ready += seconds(gone);
        if ready > kept_from {
            return Err(Blocked::new(Obstacle::Reserved, f64::INFINITY, places));
        }
        Ok(Chosen { takes, victims })
    }

    /// What the claim takes on each device, beside what it holds there.
    pub(super) fn takes(&self, key: Key, places: &[usize]) -> Vec<(usize, u64)> {
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

    fn victims(
        &self,
        claimant: &Claimant,
        takes: &[(usize, u64)],
        deficits: &[u64],
        now: Uptime,
        view: &View<'_>,
    ) -> Result<Vec<Victim>, Blocked> {
        let places: Vec<usize> = takes.iter().map(|(place, _)| *place).collect();
        let places = places.as_slice();
        let mut pause = f64::INFINITY;
        let mut candidates: Vec<Victim> = Vec::new();
        for holder in self.holders(places, deficits, claimant.key, false) {
            match self.candidate(holder, claimant, places, now, &self.stand(holder, view)) {
                Ok(candidate) => candidates.push(candidate),
                Err(wait) => pause = pause.min(wait),
            }
        }
        by_score(&mut candidates);
        let mut chosen = cover(candidates, deficits);
        if chosen.is_none() && !self.can_be_cleared(claimant.key, takes) {
            // Sleepers keep little; but where the rest never does, they end.
            let mut all: Vec<Victim> = Vec::new();
            for holder in self.holders(places, deficits, claimant.key, false) {
                all.extend(self.candidate(
                    holder,
                    claimant,
                    places,
                    now,
                    &self.stand(holder, view),
                ));
            }
            by_score(&mut all);
            let mut sleepers: Vec<Victim> = self
                .holders(places, deficits, claimant.key, true)
                .into_iter()
                .filter_map(|holder| self.sleeper(holder, places, now, &self.stand(holder, view)))
                .collect();
            by_score(&mut sleepers);
            all.extend(sleepers);
            chosen = cover(all, deficits);
        }
        let Some(chosen) = chosen else {
            let why = self.obstacle(claimant.key, places);
            return Err(Blocked::new(why, pause, places));
        };
        let harm: Seconds = chosen.iter().map(|victim| victim.harm).sum();
        let missing = self.params.kappa * harm - claimant.stand.waited;
        let weighs = claimant.stand.insists == Insists::No && claimant.foreseen.is_none();
        if missing > 0.0 && !claimant.overdue && weighs {
            let wait = missing / f64::from(claimant.stand.held.max(1));
            return Err(Blocked::new(Obstacle::Costly, wait.min(pause), places));
        }
        Ok(chosen)
    }

    /// Those who hold memory on a device that lacks some.
    fn holders(&self, places: &[usize], deficits: &[u64], key: Key, asleep: bool) -> Vec<Key> {
        let lacking = places.iter().zip(deficits).filter(|(_, lack)| **lack > 0);
        let mut holders: Vec<Key> = lacking
            .flat_map(|(place, _)| {
                if asleep {
                    self.ledger.asleep_at(*place)
                } else {
                    self.ledger.awake_at(*place)
                }
            })
            .copied()
            .filter(|holder| *holder != key && !self.are_siblings(*holder, key))
            .collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// A resident as a victim; else after how many seconds it may be one.
    pub(super) fn candidate(
        &self,
        holder: Key,
        claimant: &Claimant,
        places: &[usize],
        now: Uptime,
        stand: &Stand,
    ) -> Result<Victim, Seconds> {
        let Standing::Ready(since) = stand.standing else {
            return Err(f64::INFINITY);
        };
        let (Some(slot), Some(newcomer)) = (self.slot(holder), self.slot(claimant.key)) else {
            return Err(f64::INFINITY);
        };
        if slot.profile.pinned {
            return Err(f64::INFINITY);
        }
        let rest = self.way_down(holder);
        let costs = &slot.profile.costs;
        let (leave, back) = (costs.leave(rest), costs.back(rest));
        let arrival = self.comes_in(claimant.key, &claimant.stand);
        let away = leave + arrival + newcomer.profile.costs.leave_min() + back;
        if !claimant.overdue {
            let up = now.saturating_sub(since).as_secs_f64();
            let mut wait = self.params.window(leave + arrival) - up;
            let right = self.right(holder, claimant, now);
            if stand.running > 0 || right == Right::Owed {
                let drain = policy::drain(stand.running, slot.service);
                let window = self.params.quantum * (back + leave + arrival) - up;
                let patience = self.params.patience * (drain + leave + arrival)
                    - claimant.stand.head_wait(now);
                let window = if right == Right::Owes { 0.0 } else { window };
                wait = wait.max(window).max(patience);
            }
            if wait > 0.0 {
                return Err(wait);
            }
        }
        let outlook = self.outlook(holder, now);
        let harm = policy::harm(outlook.as_ref(), stand.held, away, back);
        Ok(self.victim(holder, rest, harm, back, places, stand, now))
    }

    /// A sleeper as a victim: it ends, and must start anew.
    fn sleeper(&self, holder: Key, places: &[usize], now: Uptime, stand: &Stand) -> Option<Victim> {
        let Standing::Asleep(at) = stand.standing else {
            return None;
        };
        let slot = self.slot(holder).filter(|slot| slot.claim.is_none())?;
        if slot.profile.pinned {
            return None;
        }
        let costs = &slot.profile.costs;
        let more = costs.start - costs.back(Rest::Offload(at));
        let outlook = self.outlook(holder, now);
        let harm = policy::harm(outlook.as_ref(), stand.held, 0.0, more.max(0.0));
        Some(self.victim(holder, Rest::Stop, harm, costs.start, places, stand, now))
    }

    #[expect(clippy::too_many_arguments, reason = "the figures of one choice")]
    fn victim(
        &self,
        key: Key,
        rest: Rest,
        harm: Seconds,
        back: Seconds,
        places: &[usize],
        stand: &Stand,
        now: Uptime,
    ) -> Victim {
        let lease = self.ledger.lease(key);
        let frees: Vec<u64> = places
            .iter()
            .map(|place| {
                lease.map_or(0, |lease| {
                    let keeps = match rest {
                        Rest::Offload(_) => lease.asleep_on(*place),
                        Rest::Stop | Rest::Restart => 0,
                    };
                    lease.on(*place).saturating_sub(keeps)
                })
            })
            .collect();
        let most = frees.iter().copied().max().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
        let score = harm / most.max(1) as f64;
        let idle = stand
            .idle_since
            .map(|since| now.saturating_sub(since).as_secs_f64());
        let (down, service) = self.slot(key).map_or((0.0, 0.0), |slot| {
            (slot.profile.costs.leave(rest), slot.service)
        });
        Victim {
            key,
            rest,
            gone: policy::drain(stand.running, service) + down,
            running: stand.running,
            idle,
            back,
            harm,
            score,
            frees,
        }
    }
}

fn seconds(seconds: Seconds) -> Uptime {
    Uptime::from_secs_f64(seconds)
}

fn by_score(candidates: &mut [Victim]) {
    candidates.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.key.cmp(&b.key)));
}

/// The first of these that cover what is missing, less those that proved
/// unnecessary, the dearest first; `None` if all together do not.
fn cover(candidates: Vec<Victim>, deficits: &[u64]) -> Option<Vec<Victim>> {
    let covers = |freed: &[u64]| {
        freed
            .iter()
            .zip(deficits)
            .all(|(freed, lack)| freed >= lack)
    };
    let mut freed = vec![0_u64; deficits.len()];
    let mut chosen: Vec<Victim> = Vec::new();
    for candidate in candidates {
        if covers(&freed) {
            break;
        }
        let helps = candidate
            .frees
            .iter()
            .zip(freed.iter().zip(deficits))
            .any(|(frees, (freed, lack))| *frees > 0 && freed < lack);
        if helps {
            add(&mut freed, &candidate.frees);
            chosen.push(candidate);
        }
    }
    if !covers(&freed) {
        return None;
    }
    let mut dearest: Vec<usize> = (0..chosen.len()).collect();
    dearest.sort_by(|a, b| {
        let harm = |at: &usize| chosen.get(*at).map_or(0.0, |victim| victim.harm);
        harm(b).total_cmp(&harm(a)).then(a.cmp(b))
    });
    let mut spared = vec![false; chosen.len()];
    for at in dearest {
        let Some(victim) = chosen.get(at) else {
            continue;
        };
        let without: Vec<u64> = freed
            .iter()
            .zip(&victim.frees)
            .map(|(f, v)| f - v)
            .collect();
        if covers(&without) {
            freed = without;
            if let Some(spared) = spared.get_mut(at) {
                *spared = true;
            }
        }
    }
    let mut spared = spared.into_iter();
    chosen.retain(|_| !spared.next().unwrap_or_default());
    Some(chosen)
}

fn add(freed: &mut [u64], more: &[u64]) {
    for (freed, more) in freed.iter_mut().zip(more) {
        *freed += more;
    }
}
