//! Moves of workers on some devices, and the time that they take.

use super::{LedgerKey, Placement, Standing, View};
use crate::config::OffloadTo;
use crate::lifecycle::decide::machine::Rest;
use crate::lifecycle::decide::policy::{self, Seconds};

impl Placement {
    /// Seconds until the others that come to these devices or leave them have done so, as
    /// if each had just begun. Moves on a device take their turns, and a start begins only
    /// where nothing moves.
    pub(super) fn moves_take(&self, key: LedgerKey, places: &[usize], view: &View<'_>) -> Seconds {
        let awake = places.iter().flat_map(|place| self.ledger.awake_at(*place));
        let asleep = places
            .iter()
            .flat_map(|place| self.ledger.asleep_at(*place));
        let others = awake.chain(asleep).filter(|other| **other != key);
        others
            .map(|other| self.move_takes(*other, view))
            .fold(0.0, f64::max)
    }

    fn move_takes(&self, key: LedgerKey, view: &View<'_>) -> Seconds {
        let (Some(slot), stand) = (self.slot(key), self.stand(key, view)) else {
            return 0.0;
        };
        let costs = &slot.profile.costs;
        match stand.standing {
            Standing::Starting => costs.start,
            Standing::Waking => {
                let back = |at| costs.back(Rest::Offload(at));
                back(OffloadTo::Cpu).max(back(OffloadTo::Disk))
            }
            Standing::Draining(rest) => {
                policy::drain(stand.running, slot.service) + costs.leave(rest)
            }
            Standing::Leaving(rest) => costs.leave(rest),
            Standing::Absent | Standing::Asleep(_) | Standing::Ready(_) => 0.0,
        }
    }

    /// Memory that is being freed on the device at this place.
    pub(super) fn leaving_at(&self, place: usize, view: &View<'_>) -> u64 {
        let holders = self.ledger.awake_at(place).iter();
        let asleep = self.ledger.asleep_at(place).iter();
        holders
            .chain(asleep)
            .filter_map(|holder| {
                let lease = self.ledger.lease(*holder)?;
                let keeps = match self.stand(*holder, view).standing {
                    Standing::Draining(rest) | Standing::Leaving(rest) => match rest {
                        Rest::Offload(_) => lease.asleep_on(place),
                        Rest::Stop | Rest::Restart => 0,
                    },
                    _ => return None,
                };
                Some(lease.on(place).saturating_sub(keeps))
            })
            .sum()
    }

    /// True if no worker comes or goes on the device at this place, so that a start
    /// can measure its free memory.
    pub(super) fn is_quiet(&self, place: usize, view: &View<'_>) -> bool {
        let holders = self.ledger.awake_at(place).iter();
        holders.copied().all(|holder| {
            !matches!(
                self.stand(holder, view).standing,
                Standing::Starting
                    | Standing::Waking
                    | Standing::Draining(_)
                    | Standing::Leaving(_)
            )
        })
    }

    /// True if a start is under way on the device at this place, or about to be.
    pub(super) fn is_starting(&self, place: usize, claimant: LedgerKey, view: &View<'_>) -> bool {
        let holders = self.ledger.awake_at(place).iter();
        let starts = holders
            .copied()
            .any(|holder| self.stand(holder, view).standing == Standing::Starting);
        let planned =
            |(planned, owner): &(usize, LedgerKey)| *planned == place && *owner != claimant;
        starts || self.planned_starts.iter().any(planned)
    }
}
