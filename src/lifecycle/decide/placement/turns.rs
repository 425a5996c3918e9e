//! Workspaces take turns: one's flood does not keep another from the GPUs.
//!
//! The GPU time that it takes to bring a deployment up, and that it is at work, is
//! charged to the workspaces whose requests waited for it, and forgotten over ten
//! minutes. A claim for which a workspace waits that was charged no more than the mean
//! goes before the others. Residents of workspaces that were charged more have no window
//! against it, and those of its own workspace have one though they are idle.

use std::collections::HashMap;

use super::claims::Claimant;
use super::{LedgerKey, Placement, View};
use crate::deployment::{Crowd, Tenant};
use crate::lifecycle::decide::policy::Seconds;
use crate::time::Uptime;

/// Seconds over which a charge decays.
const MEMORY: Seconds = 600.0;
/// A charge below this is forgotten.
const LEAST: Seconds = 0.1;
/// Workspaces that are remembered; a further one forgets those charged least.
const TENANTS_MAX: usize = 1_024;

/// Pause between two charges for what is at work.
const CHARGE_PAUSE: Seconds = 1.0;
/// Longest time for which what is at work now is taken to have been.
const CHARGE_MAX: Seconds = 10.0;

/// Charges of each workspace.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    charged: HashMap<Tenant, (Seconds, Uptime)>,
}

impl Turns {
    /// Charges the workspaces that wait for a turn of so many seconds, each by its requests.
    pub(super) fn charge(&mut self, crowd: &Crowd, seconds: Seconds, now: Uptime) {
        let all: u32 = crowd.iter().map(|(_, count)| count).sum();
        for (tenant, count) in crowd.iter() {
            let part = f64::from(count) / f64::from(all.max(1));
            let charged = self.of(tenant, now) + seconds * part;
            self.charged.insert(tenant, (charged, now));
        }
        if self.charged.len() > TENANTS_MAX {
            self.forget(now);
        }
    }

    fn forget(&mut self, now: Uptime) {
        let mut least = LEAST;
        while self.charged.len() > TENANTS_MAX {
            self.charged
                .retain(|_, (charged, at)| decayed(*charged, *at, now) >= least);
            least *= 2.0;
        }
    }

    /// Seconds that this workspace was charged, as far as they are remembered.
    pub(super) fn of(&self, tenant: Tenant, now: Uptime) -> Seconds {
        let charged = self.charged.get(&tenant);
        charged.map_or(0.0, |(charged, at)| decayed(*charged, *at, now))
    }

    /// The mean over all workspaces that wait or were charged of late; with no more than one,
    /// none has to wait for another.
    pub(super) fn mean(&self, waiting: impl Iterator<Item = Tenant>, now: Uptime) -> Seconds {
        let charged = |tenant: &Tenant| self.of(*tenant, now) >= LEAST;
        let charged = self.charged.keys().copied().filter(charged);
        let mut tenants: Vec<Tenant> = waiting.chain(charged).collect();
        tenants.sort_unstable();
        tenants.dedup();
        if tenants.len() < 2 {
            return f64::INFINITY;
        }
        let sum: Seconds = tenants.iter().map(|tenant| self.of(*tenant, now)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand workspaces")]
        let count = tenants.len() as f64;
        sum / count
    }

    /// True if all of these were charged more than the mean.
    pub(super) fn is_after(&self, crowd: &Crowd, mean: Seconds, now: Uptime) -> bool {
        let mut charged = crowd.iter().map(|(tenant, _)| self.of(tenant, now));
        charged.next().is_some_and(|first| first > mean) && charged.all(|next| next > mean)
    }
}

/// Right of a resident against a claim, by whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// The same, or nobody has to wait for a turn.
    Equal,
    /// The resident's workspace had more of late than the claim's.
    Owes,
    /// The claim's workspace had more of late than the resident's.
    Owed,
}

impl Placement {
    /// Charges the workspaces for which workers are at work.
    pub(super) fn charge_for_work(&mut self, now: Uptime, view: &View<'_>) {
        let since = now.saturating_sub(self.charged_at).as_secs_f64();
        if since < CHARGE_PAUSE {
            return;
        }
        self.charged_at = now;
        let since = since.min(CHARGE_MAX);
        let mut charges: Vec<(Crowd, Seconds)> = Vec::new();
        for (place, account) in self.ledger.accounts().iter().enumerate() {
            for key in self.ledger.awake_at(place) {
                let Some(slot) = self.slot(*key) else {
                    continue;
                };
                if slot.came_for == Crowd::default() || view(*key).running == 0 {
                    continue;
                }
                let bytes = self.ledger.lease(*key).map_or(0, |lease| lease.on(place));
                #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
                let share = bytes as f64 / account.device.memory.max(1) as f64;
                charges.push((slot.came_for, since * share));
            }
        }
        for (crowd, seconds) in charges {
            self.turns.charge(&crowd, seconds, now);
        }
    }

    /// Mean of what was charged to workspaces that wait or were charged of late.
    pub(super) fn mean_turn(&self, now: Uptime, view: &View<'_>) -> Seconds {
        let crowds: Vec<Crowd> = self.claims.iter().map(|key| view(*key).crowd).collect();
        let tenants = crowds.iter().flat_map(Crowd::iter);
        self.turns.mean(tenants.map(|(tenant, _)| tenant), now)
    }

    /// Right of a resident against a claim.
    pub(super) fn right(&self, holder: LedgerKey, claimant: &Claimant, now: Uptime) -> Right {
        let waits = claimant.stand.crowd != Crowd::default();
        if claimant.mean.is_infinite() || !waits {
            return Right::Equal;
        }
        let crowd = self.slot(holder).map(|slot| slot.came_for);
        let owes = crowd.is_some_and(|crowd| self.turns.is_after(&crowd, claimant.mean, now));
        match (claimant.after_others, owes) {
            (false, true) => Right::Owes,
            (true, false) if crowd != Some(Crowd::default()) => Right::Owed,
            _ => Right::Equal,
        }
    }
}

fn decayed(charged: Seconds, at: Uptime, now: Uptime) -> Seconds {
    charged * (-now.saturating_sub(at).as_secs_f64() / MEMORY).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn crowd(of: &[u64]) -> Crowd {
        let mut crowd = Crowd::default();
        for tenant in of {
            crowd.add(Tenant(*tenant), 1);
        }
        crowd
    }

    #[test]
    fn who_was_charged_less_than_the_mean_goes_first_until_it_is_forgotten() {
        let (mut turns, now) = (Turns::default(), Duration::from_secs(1_000));
        let waiting = || [Tenant(1), Tenant(2)].into_iter();
        turns.charge(&crowd(&[1]), 60.0, now);
        let mean = turns.mean(waiting(), now);
        assert!((mean - 30.0).abs() < 1e-9);
        assert!(turns.is_after(&crowd(&[1]), mean, now));
        assert!(!turns.is_after(&crowd(&[2]), mean, now));
        // Workspaces that wait together go by the one that had least.
        assert!(!turns.is_after(&crowd(&[1, 2]), mean, now));
        assert!(turns.of(Tenant(1), now + Duration::from_mins(100)) < LEAST);
    }

    #[test]
    fn a_workspace_alone_waits_for_no_turn() {
        let (mut turns, now) = (Turns::default(), Duration::ZERO);
        turns.charge(&crowd(&[1]), 60.0, now);
        let mean = turns.mean([Tenant(1)].into_iter(), now);
        assert!(!turns.is_after(&crowd(&[1]), mean, now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut turns = Turns::default();
        for tenant in 0..3_000 {
            turns.charge(&crowd(&[tenant]), 1.0, Duration::ZERO);
        }
        assert!(turns.charged.len() <= TENANTS_MAX);
    }
}
