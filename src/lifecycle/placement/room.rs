//! Whether there could be room for a claim, once others are gone or asleep.
//!
//! It chooses no one: who leaves is for [`super::choose`].

use super::{Key, Obstacle, Placement};

impl Placement {
    /// Whether there is room once all others sleep, but those that are kept: then
    /// it is a matter of time, and no sleeper need end.
    pub(super) fn can_be_cleared(&self, key: Key, takes: &[(usize, u64)]) -> bool {
        takes.iter().all(|(place, bytes)| {
            let Some(account) = self.ledger.at(*place) else {
                return false;
            };
            let awake = self.ledger.awake_at(*place).iter();
            let holders = awake.chain(self.ledger.asleep_at(*place));
            let stays: u64 = holders
                .filter_map(|holder| {
                    let lease = self.ledger.lease(*holder)?;
                    let pinned = self.slot(*holder).is_some_and(|s| s.profile.pinned);
                    let own = *holder == key;
                    Some(if pinned || own {
                        lease.on(*place)
                    } else {
                        lease.asleep_on(*place)
                    })
                })
                .sum();
            stays + account.foreign + bytes <= account.device.memory
        })
    }

    /// Whether there is room once all are gone, but those that are kept.
    pub(super) fn can_be_had(&self, key: Key, places: &[usize]) -> bool {
        let stays = |place: usize, holder: &Key| {
            let kept = *holder == key || self.slot(*holder).is_some_and(|s| s.profile.pinned);
            let lease = self.ledger.lease(*holder).filter(|_| kept);
            lease.map_or(0, |lease| lease.on(place))
        };
        self.takes(key, places).into_iter().all(|(place, bytes)| {
            let awake = self.ledger.awake_at(place).iter();
            let holders = awake.chain(self.ledger.asleep_at(place));
            let stays: u64 = holders.map(|holder| stays(place, holder)).sum();
            let account = self.ledger.at(place);
            account.is_some_and(|a| stays + a.foreign + bytes <= a.device.memory)
        })
    }

    /// Why nobody on these devices can make room now.
    pub(super) fn obstacle(&self, key: Key, places: &[usize]) -> Obstacle {
        let accounts = places.iter().filter_map(|place| self.ledger.at(*place));
        let foreign = accounts.map(|account| account.foreign).max();
        if foreign > Some(0) && !self.can_be_had(key, places) {
            return Obstacle::Foreign;
        }
        Obstacle::Busy
    }
}
