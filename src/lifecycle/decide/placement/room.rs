//! Room that there could be for a claim, once others are gone or asleep.
//!
//! It chooses no victims: that is for [`super::victims`].

use super::claims::Claimant;
use super::{LedgerKey, Obstacle, Placement};

impl Placement {
    /// True if there is room once all others sleep, but those that are kept: then
    /// it is a matter of time, and no sleeper need end.
    pub(super) fn can_be_cleared(&self, key: LedgerKey, takes: &[(usize, u64)]) -> bool {
        self.has_room(key, takes, |holder, place| {
            let lease = self.ledger.lease(holder)?;
            let slot = self.slot(holder)?;
            let rungs = slot.profile.rungs;
            Some(if lease.sleeps || rungs.cpu || rungs.disk {
                lease.asleep_on(place)
            } else {
                0
            })
        })
    }

    /// True if there is room once all are gone, but those that are kept.
    pub(super) fn can_be_had(&self, key: LedgerKey, places: &[usize]) -> bool {
        self.has_room(key, &self.takes(key, places), |_, _| Some(0))
    }

    /// True if there is room on these devices once each of the others keeps so much
    /// there, but for those that never leave for it.
    fn has_room(
        &self,
        key: LedgerKey,
        takes: &[(usize, u64)],
        keeps: impl Fn(LedgerKey, usize) -> Option<u64>,
    ) -> bool {
        takes.iter().all(|(place, bytes)| {
            let Some(account) = self.ledger.at(*place) else {
                return false;
            };
            let stays = self.others_keep(key, *place, &keeps);
            let all = stays.saturating_add(account.foreign).saturating_add(*bytes);
            all <= account.device.memory
        })
    }

    fn others_keep(
        &self,
        key: LedgerKey,
        place: usize,
        keeps: &impl Fn(LedgerKey, usize) -> Option<u64>,
    ) -> u64 {
        let awake = self.ledger.awake_at(place).iter();
        let holders = awake.chain(self.ledger.asleep_at(place));
        let stays = |holder: &LedgerKey| {
            let lease = self.ledger.lease(*holder)?;
            let pinned = self.slot(*holder).is_some_and(|s| s.profile.pinned);
            let sibling = !lease.sleeps && self.are_siblings(*holder, key);
            if pinned || sibling || *holder == key {
                return Some(lease.on(place));
            }
            keeps(*holder, place)
        };
        holders.filter_map(stays).sum()
    }

    /// Obstacle for which a claim will not have these devices, whatever time brings.
    pub(super) fn lasting(&self, key: LedgerKey, places: &[usize]) -> Obstacle {
        let without_foreign = |(place, bytes): (usize, u64)| {
            let stays = self.others_keep(key, place, &|_, _| Some(0));
            let account = self.ledger.at(place);
            account.is_some_and(|a| stays.saturating_add(bytes) <= a.device.memory)
        };
        let mut takes = self.takes(key, places).into_iter();
        if takes.all(without_foreign) {
            return Obstacle::Foreign;
        }
        Obstacle::Kept
    }

    /// True if a sleeper should end, to start on other GPUs: those of its own will not
    /// have room for it, and others could.
    pub(super) fn goes_elsewhere(&self, claimant: &Claimant) -> bool {
        let key = claimant.key;
        let Some(lease) = self.ledger.lease(key) else {
            return false;
        };
        let own = lease.places();
        if claimant.is_modest() || self.can_be_had(key, own) {
            return false;
        }
        // What other programs use may be given back, and a start is dear.
        if self.lasting(key, own) == Obstacle::Foreign && !claimant.overdue {
            return false;
        }
        let wanted = own.len();
        let places = 0..self.ledger.accounts().len();
        places.filter(|p| self.can_be_had(key, &[*p])).count() >= wanted
    }
}
