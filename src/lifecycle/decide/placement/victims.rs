//! Workers that leave for a claim: by going to sleep, and where that is too little, by ending.

use super::choose::Blocked;
use super::claims::Claimant;
use super::turns::Right;
use super::{Insists, LedgerKey, Obstacle, Placement, Stand, Standing, View};
use crate::lifecycle::decide::machine::Rest;
use crate::lifecycle::decide::policy;
use crate::lifecycle::decide::policy::Seconds;
use crate::time::Uptime;

/// A worker that can be made to leave.
#[derive(Clone, Debug)]
pub(super) struct Victim {
    pub(super) key: LedgerKey,
    pub(super) rest: Rest,
    pub(super) running: u32,
    pub(super) idle: Option<Seconds>,
    pub(super) back: Seconds,
    pub(super) harm: Seconds,
    /// Seconds until it is gone, with its requests.
    pub(super) gone: Seconds,
    score: f64,
    /// Bytes that its leaving frees, on each of the devices in question.
    frees: Vec<u64>,
}

/// Claim for which others are to leave, and where.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    claimant: &'a Claimant,
    places: &'a [usize],
    /// Bytes that are missing on each of them.
    deficits: &'a [u64],
    now: Uptime,
    view: &'a View<'a>,
}

impl Placement {
    /// Workers that leave so that these devices have what is missing on them.
    pub(super) fn victims(
        &self,
        claimant: &Claimant,
        takes: &[(usize, u64)],
        deficits: &[u64],
        now: Uptime,
        view: &View<'_>,
    ) -> Result<Vec<Victim>, Blocked> {
        let places: Vec<usize> = takes.iter().map(|(place, _)| *place).collect();
        let wanted = Wanted {
            claimant,
            places: &places,
            deficits,
            now,
            view,
        };
        let (mut candidates, mut waits) = (Vec::new(), Vec::new());
        for holder in self.holders(wanted, false) {
            let stand = self.stand(holder, view);
            match self.candidate(holder, claimant, &places, now, &stand) {
                Ok(candidate) => candidates.push(candidate),
                Err(wait) => waits.push(wait),
            }
        }
        by_score(&mut candidates);
        let mut chosen = cover(candidates.clone(), deficits);
        // Where it is a matter of time until enough sleep, nobody need end.
        if chosen.is_none() && !self.can_be_cleared(claimant.key, takes) {
            chosen = self.enders(wanted, &candidates, &mut waits);
        }
        let pause = waits.iter().copied().fold(f64::INFINITY, f64::min);
        let Some(chosen) = chosen else {
            let why = match () {
                () if !self.can_be_had(claimant.key, &places) => {
                    self.lasting(claimant.key, &places)
                }
                () if waits.is_empty() => Obstacle::Promised,
                () => Obstacle::Busy,
            };
            return Err(Blocked::new(why, pause, &places));
        };
        let harm: Seconds = chosen.iter().map(|victim| victim.harm).sum();
        let missing = self.params.kappa * harm - claimant.stand.waited;
        let weighs = claimant.stand.insists == Insists::No && claimant.foreseen.is_none();
        if missing > 0.0 && !claimant.overdue && weighs {
            let wait = missing / f64::from(claimant.stand.held.max(1));
            return Err(Blocked::new(Obstacle::Costly, wait.min(pause), &places));
        }
        Ok(chosen)
    }

    /// Workers that leave where what sleepers keep is too much: residents go to sleep as far
    /// as that helps; then some of them end instead, and sleepers do, those first
    /// whose end does least harm for what it frees.
    fn enders(
        &self,
        wanted: Wanted<'_>,
        candidates: &[Victim],
        waits: &mut Vec<Seconds>,
    ) -> Option<Vec<Victim>> {
        let Wanted {
            claimant,
            places,
            deficits,
            now,
            view,
        } = wanted;
        // Residents that would end, and what that brings beside their sleep.
        let (mut ended, mut more) = (Vec::new(), Vec::new());
        for asleep in candidates {
            if !matches!(asleep.rest, Rest::Offload(_)) {
                continue;
            }
            let stand = self.stand(asleep.key, view);
            match self.leaver(asleep.key, claimant, Rest::Stop, places, now, &stand) {
                Ok(end) => {
                    more.push(end.beside(asleep));
                    ended.push(end);
                }
                Err(wait) => waits.push(wait),
            }
        }
        let sleepers = self.holders(wanted, true).into_iter();
        more.extend(sleepers.filter_map(|holder| {
            let stand = self.stand(holder, view);
            self.sleeper(holder, claimant, places, now, &stand)
        }));
        by_score(&mut more);
        let mut all = candidates.to_vec();
        all.extend(more);
        let chosen = cover(all, deficits)?;
        let is_ended = |key: LedgerKey| {
            let mut ends = chosen.iter().filter(|victim| victim.rest == Rest::Stop);
            ends.any(|victim| victim.key == key)
        };
        ended.retain(|end| is_ended(end.key));
        let as_before = chosen.iter();
        let as_before = as_before.filter(|victim| !ended.iter().any(|end| end.key == victim.key));
        let mut whole: Vec<Victim> = as_before.cloned().collect();
        whole.extend(ended);
        // A victim that ends brings more than was counted: others may be spared.
        spare(whole, deficits)
    }

    /// Workers that hold memory on a device that lacks some. A replica does not leave
    /// for another of its deployment, which would win nothing; one that sleeps may end
    /// for it.
    fn holders(&self, wanted: Wanted<'_>, asleep: bool) -> Vec<LedgerKey> {
        let (places, key) = (wanted.places.iter(), wanted.claimant.key);
        let lacking = places.zip(wanted.deficits).filter(|(_, lack)| **lack > 0);
        let mut holders: Vec<LedgerKey> = lacking
            .flat_map(|(place, _)| {
                if asleep {
                    self.ledger.asleep_at(*place)
                } else {
                    self.ledger.awake_at(*place)
                }
            })
            .copied()
            .filter(|holder| *holder != key && (asleep || !self.are_siblings(*holder, key)))
            .collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// A resident as a victim that leaves as it would by itself; else after how many
    /// seconds it may be one.
    pub(super) fn candidate(
        &self,
        holder: LedgerKey,
        claimant: &Claimant,
        places: &[usize],
        now: Uptime,
        stand: &Stand,
    ) -> Result<Victim, Seconds> {
        self.leaver(holder, claimant, self.way_down(holder), places, now, stand)
    }

    /// A resident as a victim that leaves in this way; else after how many seconds it
    /// may be one.
    pub(super) fn leaver(
        &self,
        holder: LedgerKey,
        claimant: &Claimant,
        rest: Rest,
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
        let costs = &slot.profile.costs;
        let (leave, back) = (costs.leave(rest), costs.back(rest));
        let arrival = self.comes_in(claimant.key, &claimant.stand);
        let away = leave + arrival + newcomer.profile.costs.leave_min() + back;
        if !claimant.overdue {
            let up = now.saturating_sub(since).as_secs_f64();
            let mut wait = self.params.window(leave + arrival) - up;
            let right = self.right(holder, claimant, now);
            if stand.running > 0 || stand.is_kept || right == Right::Owed {
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
        let held = stand.held.saturating_add(stand.is_kept.into());
        let harm = policy::harm(outlook.as_ref(), held, away, back);
        Ok(self.victim(holder, rest, harm, back, places, stand, now))
    }

    /// A sleeper as a victim: it ends, and must start anew. One that is to wake ends
    /// only for a claim that goes before its own.
    fn sleeper(
        &self,
        holder: LedgerKey,
        claimant: &Claimant,
        places: &[usize],
        now: Uptime,
        stand: &Stand,
    ) -> Option<Victim> {
        let Standing::Asleep(at) = stand.standing else {
            return None;
        };
        let slot = self.slot(holder).filter(|slot| !slot.profile.pinned)?;
        if let Some(claim) = &slot.claim {
            let other = self.claimant(holder, *stand, now, claimant.mean);
            if claim.plan.is_some() || other.age() < claimant.age() {
                return None;
            }
        }
        let costs = &slot.profile.costs;
        let more = (costs.start - costs.back(Rest::Offload(at))).max(0.0);
        let outlook = self.outlook(holder, now);
        let harm = policy::harm(outlook.as_ref(), 0, 0.0, more) + f64::from(stand.held) * more;
        Some(self.victim(holder, Rest::Stop, harm, costs.start, places, stand, now))
    }

    #[expect(clippy::too_many_arguments, reason = "the figures of one choice")]
    fn victim(
        &self,
        key: LedgerKey,
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
            score: score(harm, &frees),
            frees,
        }
    }
}

impl Victim {
    /// Effect of this end beside that of `asleep`, the sleep of the same resident.
    fn beside(&self, asleep: &Self) -> Self {
        let both = self.frees.iter().zip(&asleep.frees);
        let frees: Vec<u64> = both.map(|(all, some)| all.saturating_sub(*some)).collect();
        let harm = (self.harm - asleep.harm).max(0.0);
        Self {
            score: score(harm, &frees),
            harm,
            frees,
            ..self.clone()
        }
    }
}

/// Harm for each byte that is freed on a device.
fn score(harm: Seconds, frees: &[u64]) -> f64 {
    let most = frees.iter().copied().max().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
    let bytes = most.max(1) as f64;
    harm / bytes
}

fn by_score(candidates: &mut [Victim]) {
    candidates.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.key.cmp(&b.key)));
}

fn covers(freed: &[u64], deficits: &[u64]) -> bool {
    let mut each = freed.iter().zip(deficits);
    each.all(|(freed, lack)| freed >= lack)
}

/// The first of these that cover what is missing, less those that proved
/// unnecessary; `None` if all together do not.
fn cover(candidates: Vec<Victim>, deficits: &[u64]) -> Option<Vec<Victim>> {
    let mut freed = vec![0_u64; deficits.len()];
    let mut chosen: Vec<Victim> = Vec::new();
    for candidate in candidates {
        if covers(&freed, deficits) {
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
    spare(chosen, deficits)
}

/// These less those that are not needed, the dearest first; `None` if all together
/// do not cover what is missing.
fn spare(mut chosen: Vec<Victim>, deficits: &[u64]) -> Option<Vec<Victim>> {
    let mut freed = vec![0_u64; deficits.len()];
    for victim in &chosen {
        add(&mut freed, &victim.frees);
    }
    if !covers(&freed, deficits) {
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
        if covers(&without, deficits) {
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
