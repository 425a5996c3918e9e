//! Serving the claims: their order, plans, promises, grants and reservations.

use super::choose::{Blocked, Chosen, seconds};
use super::order::{Kept, Reserved, kept_from};
use super::victims::Victim;
use super::{
    Claim, Decision, Eviction, Insists, LedgerKey, Obstacle, Placement, Stand, Standing, View,
};
use crate::config::OffloadTo;
use crate::lifecycle::decide::machine::Rest;
use crate::lifecycle::decide::policy::Seconds;
use crate::time::Uptime;

/// Longest pause between two looks at a claim that waits.
const LOOK_PAUSE_MAX: Seconds = 10.0;
/// Shortest one, where a claim waits for time to pass.
const LOOK_PAUSE_MIN: Seconds = 0.01;
/// Seconds beside the wake that a claimant's turn takes.
const TURN_EXTRA: Seconds = 2.0;

/// A claim of this pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimant {
    pub(super) key: LedgerKey,
    pub(super) stand: Stand,
    pub(super) overdue: bool,
    /// True if the workspaces that wait for it had more than others of late.
    pub(super) after_others: bool,
    /// Chance that it is asked for next, while nobody waits for it.
    pub(super) foreseen: Option<f64>,
    /// Mean of what was charged to a workspace of late.
    pub(super) mean: Seconds,
    /// Requests served for each byte and second of its turn.
    density: f64,
}

/// The figures of a victim's leaving for a claim.
pub(super) fn eviction(claimant: &Claimant, victim: &Victim, now: Uptime) -> Eviction {
    Eviction {
        victim: victim.key,
        claimant: claimant.key,
        rest: victim.rest,
        running: victim.running,
        idle: victim.idle,
        back: victim.back,
        harm: victim.harm,
        held: claimant.stand.held,
        head_wait: claimant.stand.head_wait(now),
        overdue: claimant.overdue,
    }
}

impl Claimant {
    /// True if nobody is to leave for it: it starts with the gateway, or the requests that
    /// asked for it are gone already.
    pub(super) fn is_modest(&self) -> bool {
        self.stand.held == 0 && self.stand.insists != Insists::Yes
    }
}

impl Placement {
    /// Serves the claims as far as it goes. Grants are taken down already.
    pub fn plan(&mut self, now: Uptime, view: &View<'_>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        self.told.clear();
        self.spare_orphans(view, &mut decisions);
        self.charge_for_work(now, view);
        if self.claims.is_empty() {
            self.all_touched = false;
            self.touched.fill(false);
            self.look_at = None;
            return decisions;
        }
        self.choose_favoured(now);
        let mean = self.mean_turn(now, view);
        let due = self.due_claims(now, view, mean, &mut decisions);
        let mut reserved = self.reservations(now, view, mean);
        for claimant in due {
            self.serve(&claimant, now, view, &mut reserved, &mut decisions);
        }
        self.all_touched = false;
        self.touched.fill(false);
        let claims = self.claims.iter();
        let looks = claims.filter_map(|key| Some(self.claim(*key)?.look_at));
        self.look_at = looks.min().map(|at| at.max(now));
        decisions
    }

    /// Standing of a deployment now, or once it was told what this pass decided.
    pub(super) fn stand(&self, key: LedgerKey, view: &View<'_>) -> Stand {
        let mut stand = view(key);
        if let Some((_, standing)) = self.told.iter().find(|(told, _)| *told == key) {
            stand.standing = *standing;
        }
        stand
    }

    fn spare_orphans(&mut self, view: &View<'_>, decisions: &mut Vec<Decision>) {
        for victim in std::mem::take(&mut self.orphans) {
            let leaves = self.slot(victim).is_some_and(|s| s.leaves_for.is_some());
            // Once nobody is inside it is as good as gone.
            let stand = self.stand(victim, view);
            let inside = matches!(stand.standing, Standing::Draining(_)) && stand.running > 0;
            if inside && !leaves {
                decisions.push(Decision::Spare(victim));
                self.touch(victim);
            }
        }
    }

    /// The claims for which something may have changed, in their order. Those for
    /// which others leave, and nobody waits any more, are dropped.
    fn due_claims(
        &mut self,
        now: Uptime,
        view: &View<'_>,
        mean: Seconds,
        decisions: &mut Vec<Decision>,
    ) -> Vec<Claimant> {
        let mut due = Vec::new();
        for key in self.claims.iter().copied().collect::<Vec<_>>() {
            if !self.is_due(key, now) {
                continue;
            }
            let stand = self.stand(key, view);
            let planned = self.claim(key).is_some_and(|claim| claim.plan.is_some());
            let foreseen = self
                .claim(key)
                .is_some_and(|claim| claim.foreseen.is_some());
            if planned && stand.held == 0 && stand.insists == Insists::No && !foreseen {
                decisions.push(Decision::Withdraw(key));
                self.cancel(key);
                continue;
            }
            due.push(self.claimant(key, stand, now, mean));
        }
        due.sort_by(|a, b| {
            let overdue = b.overdue.cmp(&a.overdue);
            let turn = a.after_others.cmp(&b.after_others);
            let rank = if a.overdue && b.overdue {
                a.stand.head.cmp(&b.stand.head)
            } else {
                b.density.total_cmp(&a.density)
            };
            overdue.then(turn).then(rank).then(a.key.cmp(&b.key))
        });
        due
    }

    fn is_due(&self, key: LedgerKey, now: Uptime) -> bool {
        let Some(claim) = self.claim(key) else {
            return false;
        };
        if self.all_touched || claim.look_at <= now {
            return true;
        }
        let touched = |place: usize| self.touched.get(place).is_some_and(|t| *t);
        if let Some(plan) = &claim.plan {
            return plan.iter().any(|(place, _)| touched(*place));
        }
        match self.ledger.lease(key) {
            Some(lease) => lease.places().iter().any(|place| touched(*place)),
            None => self.touched.iter().any(|touched| *touched),
        }
    }

    pub(super) fn claimant(
        &self,
        key: LedgerKey,
        stand: Stand,
        now: Uptime,
        mean: Seconds,
    ) -> Claimant {
        let bound = self.params.wait_bound.as_secs_f64();
        let density = self.slot(key).map_or(0.0, |slot| {
            let need = &slot.profile.need;
            let places = self.ledger.accounts().first();
            #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
            let bytes = places.map_or(1, |a| need.awake.on(a.device)).max(1) as f64;
            #[expect(clippy::cast_precision_loss, reason = "a few GPUs")]
            let gpus = need.gpus.max(1) as f64;
            let turn = self.comes_in(key, &stand) + TURN_EXTRA;
            f64::from(stand.held.max(1)) / (turn * bytes * gpus)
        });
        let foreseen = self.claim(key).and_then(|claim| claim.foreseen);
        let foreseen = foreseen.filter(|_| stand.held == 0);
        Claimant {
            key,
            stand,
            overdue: stand.head_wait(now) >= bound,
            after_others: self.turns.is_after(&stand.crowd, mean, now),
            mean,
            foreseen,
            density: if foreseen.is_some() { 0.0 } else { density },
        }
    }

    /// Seconds that a deployment takes to come, once it has its memory.
    pub(super) fn comes_in(&self, key: LedgerKey, stand: &Stand) -> Seconds {
        let Some(slot) = self.slot(key) else {
            return 0.0;
        };
        let rest = match stand.standing {
            Standing::Asleep(at) => Rest::Offload(at),
            _ => Rest::Stop,
        };
        slot.profile.costs.back(rest)
    }

    fn serve(
        &mut self,
        claimant: &Claimant,
        now: Uptime,
        view: &View<'_>,
        reserved: &mut Vec<Reserved>,
        decisions: &mut Vec<Decision>,
    ) {
        let key = claimant.key;
        reserved.retain(|other| other.age.key != key);
        // A sleeper that is to end for one before it starts anew, and asks again.
        if self.told.iter().any(|(told, _)| *told == key) {
            return;
        }
        if let Some(claim) = self.claim_mut(key) {
            claim.age = claimant.age();
        }
        if !self.plan_holds(key, view) {
            self.unplan(key);
        }
        let kept = kept_from(claimant, reserved);
        if self.claim(key).is_some_and(|claim| claim.plan.is_some()) {
            if self.grant_if_room(claimant, &kept, view, decisions, now) {
                return;
            }
            // What it waited for took so long that an older claim needs the devices first.
            self.unplan(key);
        }
        if let Some(why) = self
            .slot(key)
            .and_then(|s| self.never_fits(&s.profile.need))
        {
            self.cancel(key);
            decisions.push(Decision::Refuse(key, why));
            return;
        }
        if self.goes_elsewhere(claimant) {
            self.cancel(key);
            let why = Obstacle::Elsewhere.words().to_owned();
            decisions.push(Decision::Refuse(key, why));
            return;
        }
        let chosen = self.choose(claimant, now, view, &kept).or_else(|blocked| {
            let chosen = self.choose_before_younger(claimant, now, view, &kept);
            chosen.ok_or(blocked)
        });
        match chosen {
            Ok(chosen) => {
                self.promise(claimant, chosen, now, decisions);
                self.grant_if_room(claimant, &kept, view, decisions, now);
            }
            Err(_) if claimant.is_modest() => {
                decisions.push(Decision::Withdraw(key));
                self.cancel(key);
            }
            Err(blocked) => self.block(claimant, &blocked, now, reserved, decisions),
        }
    }

    fn block(
        &mut self,
        claimant: &Claimant,
        blocked: &Blocked,
        now: Uptime,
        reserved: &mut Vec<Reserved>,
        decisions: &mut Vec<Decision>,
    ) {
        let bound = self.params.wait_bound.as_secs_f64();
        let until_overdue = bound - claimant.stand.head_wait(now);
        let mut pause = blocked.pause.min(LOOK_PAUSE_MAX);
        if !claimant.overdue && claimant.stand.head.is_some() {
            pause = pause.min(until_overdue);
        }
        let wait = std::time::Duration::from_secs_f64(pause.max(LOOK_PAUSE_MIN));
        // A claim blocked by an older claim, or by residents that cannot be evicted,
        // reserves nothing.
        let passed = claimant.overdue && blocked.why == Obstacle::Reserved;
        let wants = if passed || !self.can_be_had(claimant.key, &blocked.places) {
            Vec::new()
        } else {
            blocked.places.clone()
        };
        reserved.extend(self.reserves(claimant, &wants));
        let mut told = vec![blocked.why];
        told.extend(claimant.after_others.then_some(Obstacle::Turn));
        if let Some(claim) = self.claim_mut(claimant.key) {
            claim.look_at = now + wait;
            claim.wants = wants;
            claim.blocked = blocked.why;
            told.retain(|why| !claim.said.contains(why));
            claim.said.extend(&told);
            decisions.extend(
                told.into_iter()
                    .map(|why| Decision::Wait(claimant.key, why)),
            );
        }
    }

    /// Takes a plan down: memory is promised, and the victims are told.
    fn promise(
        &mut self,
        claimant: &Claimant,
        chosen: Chosen,
        now: Uptime,
        decisions: &mut Vec<Decision>,
    ) {
        let key = claimant.key;
        self.replan(key, chosen.takes);
        if let Some(claim) = self.claim_mut(key) {
            claim.look_at = now + std::time::Duration::from_secs_f64(LOOK_PAUSE_MAX);
            claim.blocked = Obstacle::Leaving;
        }
        if !chosen.victims.is_empty() {
            decisions.push(Decision::Wait(key, Obstacle::Leaving));
        }
        for victim in chosen.victims {
            if let Some(slot) = self.slot_mut(victim.key) {
                slot.leaves_for = Some(key);
            }
            // Those before it may have taken the host memory that it was to have.
            let rest = match victim.rest {
                Rest::Offload(_) => self.way_down(victim.key),
                rest => rest,
            };
            if rest == Rest::Offload(OffloadTo::Cpu) {
                self.keep_on_host(victim.key, true);
            }
            self.told.push((victim.key, Standing::Draining(rest)));
            decisions.push(Decision::Evict(Eviction {
                rest,
                ..eviction(claimant, &victim, now)
            }));
        }
    }

    /// Forgets a plan and what it promised.
    pub(super) fn unplan(&mut self, key: LedgerKey) -> Vec<(usize, u64)> {
        let plan = self.claim_mut(key).and_then(|claim| claim.plan.take());
        let plan = plan.unwrap_or_default();
        self.planned_starts.retain(|(_, owner)| *owner != key);
        for (place, bytes) in &plan {
            self.ledger.unpromise(*place, *bytes);
            self.touch_place(*place);
        }
        plan
    }

    /// The reverse of [`Self::unplan`].
    pub(super) fn replan(&mut self, key: LedgerKey, takes: Vec<(usize, u64)>) {
        for (place, bytes) in &takes {
            self.ledger.promise(*place, *bytes);
        }
        if self.ledger.lease(key).is_none() {
            let places = takes.iter().map(|(place, _)| (*place, key));
            self.planned_starts.extend(places);
        }
        if let Some(claim) = self.claim_mut(key) {
            claim.plan = Some(takes);
        }
    }

    /// True if what was promised can still come: free memory and what is being
    /// freed, less what others were promised.
    fn plan_holds(&self, key: LedgerKey, view: &View<'_>) -> bool {
        let Some(plan) = self.claim(key).and_then(|claim| claim.plan.as_ref()) else {
            return true;
        };
        plan.iter().all(|(place, bytes)| {
            let Some(account) = self.ledger.at(*place) else {
                return false;
            };
            let others = account.promised.saturating_sub(*bytes);
            account.free() + self.leaving_at(*place, view) >= others + bytes
        })
    }

    /// Grants what is planned once there is room; until then it waits. Returns whether it
    /// may: not where it would be under way still when an older claim has the devices.
    fn grant_if_room(
        &mut self,
        claimant: &Claimant,
        kept: &[Kept],
        view: &View<'_>,
        decisions: &mut Vec<Decision>,
        now: Uptime,
    ) -> bool {
        let key = claimant.key;
        let Some(plan) = self.claim(key).and_then(|claim| claim.plan.clone()) else {
            return true;
        };
        let room = |(place, bytes): &(usize, u64)| {
            self.ledger.at(*place).is_some_and(|a| a.free() >= *bytes)
        };
        let starts = self.ledger.lease(key).is_none();
        let quiet = |(place, _): &(usize, u64)| !starts || self.is_quiet(*place, view);
        let has_room = plan.iter().all(room);
        if !has_room || !plan.iter().all(quiet) {
            if let Some(claim) = self.claim_mut(key) {
                claim.blocked = if has_room {
                    Obstacle::Unsettled
                } else {
                    Obstacle::Leaving
                };
                claim.look_at = now + std::time::Duration::from_secs_f64(LOOK_PAUSE_MAX);
            }
            return true;
        }
        let places: Vec<usize> = plan.iter().map(|(place, _)| *place).collect();
        let comes_in = self.comes_in(key, &claimant.stand);
        let up = now + seconds(self.moves_take(key, &places, view) + comes_in);
        let mut kept = kept.iter().filter(|kept| places.contains(&kept.place));
        if kept.any(|kept| kept.from < up) {
            return false;
        }
        self.unplan(key);
        self.claims.remove(&key);
        if let Some(slot) = self.slot_mut(key) {
            slot.claim = None;
            let need = slot.profile.need;
            self.ledger.take(key, &need, &places, false);
        }
        #[expect(clippy::cast_precision_loss, reason = "a few GPUs")]
        let gpus = places.len().max(1) as f64;
        let turn = comes_in * gpus;
        self.turns.charge(&claimant.stand.crowd, turn, now);
        if let Some(slot) = self.slot_mut(key) {
            slot.came_for = claimant.stand.crowd;
        }
        // Later claims of this pass find it on its way, and its memory measured.
        let comes = if starts {
            Standing::Starting
        } else {
            Standing::Waking
        };
        self.told.push((key, comes));
        decisions.push(Decision::Grant(key));
        true
    }

    pub(super) fn claim(&self, key: LedgerKey) -> Option<&Claim> {
        self.slot(key)?.claim.as_ref()
    }

    pub(super) fn claim_mut(&mut self, key: LedgerKey) -> Option<&mut Claim> {
        self.slot_mut(key)?.claim.as_mut()
    }
}
