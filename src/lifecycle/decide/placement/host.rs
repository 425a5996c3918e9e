//! The way down: workers that may use host memory, and how each would leave its GPUs.

use std::time::Duration;

use super::{LedgerKey, Placement, Profile};
use crate::config::OffloadTo;
use crate::lifecycle::decide::machine::Rest;
use crate::time::Uptime;

/// Pause between two choices of the workers that may use host memory.
const FAVOUR_PAUSE: Duration = Duration::from_secs(1);
/// Size of the set of workers that may use host memory, as a multiple of it: not all
/// of them sleep at once.
const FAVOUR_SLACK: f64 = 1.1;

impl Placement {
    /// Says whether the host holds this worker's weights, or is about to. One
    /// that keeps its host memory is charged until it ends.
    pub fn keep_on_host(&mut self, key: LedgerKey, keeps: bool) {
        if let Some(Profile {
            need, keeps_host, ..
        }) = self.slot(key).map(|slot| &slot.profile)
        {
            let (bytes, keeps_host) = (need.host, *keeps_host);
            if keeps {
                self.ledger.charge_host(key, bytes);
            } else if !keeps_host {
                self.ledger.charge_host(key, 0);
            }
        }
    }

    /// Way in which this deployment would leave its GPUs now: the level that is permitted,
    /// has room, and takes less time there and back.
    pub fn way_down(&self, key: LedgerKey) -> Rest {
        let Some(slot) = self.slot(key) else {
            return Rest::Stop;
        };
        let Profile {
            need, costs, rungs, ..
        } = &slot.profile;
        let cpu = rungs.cpu && self.ledger.host_has_room(key, need.host);
        let disk = rungs.disk;
        let prefers_cpu = slot.favoured && costs.prefers_cpu();
        if cpu && (prefers_cpu || !disk) {
            Rest::Offload(OffloadTo::Cpu)
        } else if disk {
            Rest::Offload(OffloadTo::Disk)
        } else {
            Rest::Stop
        }
    }

    /// Way in which this deployment would leave its GPUs now, and the reason.
    pub fn way_and_why(&self, key: LedgerKey) -> (Rest, &'static str) {
        let way = self.way_down(key);
        let Some(slot) = self.slot(key) else {
            return (way, "nothing is known of it");
        };
        let Profile {
            need, costs, rungs, ..
        } = &slot.profile;
        let is_full = !self.ledger.host_has_room(key, need.host);
        let why = match way {
            Rest::Offload(OffloadTo::Cpu) if rungs.disk => {
                "both levels are permitted, and this takes less time there and back"
            }
            Rest::Offload(_) if !(rungs.cpu && rungs.disk) => {
                "no other level is permitted and works"
            }
            Rest::Offload(_) if is_full => "both levels are permitted, and host memory is full",
            Rest::Offload(_) if !costs.prefers_cpu() => {
                "both levels are permitted, and this takes less time there and back"
            }
            Rest::Offload(_) => "both levels are permitted, and others gain more by host memory",
            Rest::Stop | Rest::Restart if rungs.cpu => {
                "host memory is full, and no other level is permitted and works"
            }
            Rest::Stop | Rest::Restart => "no level of sleep is permitted and works",
        };
        (way, why)
    }

    /// Place that its weights go to if it goes to sleep by itself or is asked to; `None`
    /// where they may not, or not now.
    pub fn offload_to(&self, key: LedgerKey, permitted: Option<OffloadTo>) -> Option<OffloadTo> {
        let permitted = permitted?;
        let rungs = self.slot(key).map(|slot| slot.profile.rungs);
        match self.way_down_idle(key) {
            Rest::Offload(to) => Some(to),
            // Host memory is full, and nothing else is permitted: it stays.
            _ if rungs.is_some_and(|rungs| rungs.cpu) => None,
            // No rung is left: the machine finds this one broken, and stops it.
            Rest::Stop | Rest::Restart => Some(permitted),
        }
    }

    /// Way in which it would leave because it is idle: by the level that takes less time,
    /// as long as the host has room.
    fn way_down_idle(&self, key: LedgerKey) -> Rest {
        let cpu = self.slot(key).is_some_and(|slot| {
            let Profile {
                need, costs, rungs, ..
            } = &slot.profile;
            let prefers = costs.prefers_cpu() || !rungs.disk;
            rungs.cpu && prefers && self.ledger.host_has_room(key, need.host)
        });
        if cpu {
            return Rest::Offload(OffloadTo::Cpu);
        }
        match self.way_down(key) {
            Rest::Offload(OffloadTo::Cpu) => Rest::Offload(OffloadTo::Disk),
            rest => rest,
        }
    }

    /// Chooses the workers that may use host memory: those that gain most by it for each byte.
    pub(super) fn choose_favoured(&mut self, now: Uptime) {
        let due = self.favoured_at.is_none_or(|at| now >= at + FAVOUR_PAUSE);
        if !due {
            return;
        }
        self.favoured_at = Some(now);
        #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
        let budget = self.ledger.host().1 as f64;
        #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
        let mut gains: Vec<(f64, LedgerKey, f64)> = (0..)
            .map(LedgerKey)
            .zip(&self.slots)
            .filter_map(|(key, slot)| {
                let slot = slot.as_ref()?;
                let (need, costs) = (&slot.profile.need, &slot.profile.costs);
                let saved = costs.wake_disk - costs.wake_cpu;
                let bytes = need.host.max(1) as f64;
                let rate = slot.rate.per_second(now) + 1e-5;
                let gain = rate * saved * need.gpus.max(1) as f64 / bytes;
                // One that is too large for it keeps no other from it.
                let gains = slot.profile.rungs.cpu && saved >= 0.0 && bytes <= budget;
                gains.then_some((gain, key, bytes))
            })
            .collect();
        gains.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let room = FAVOUR_SLACK * budget;
        let mut sum = 0.0;
        for slot in self.slots.iter_mut().flatten() {
            slot.favoured = false;
        }
        for (_, key, bytes) in gains {
            sum += bytes;
            if sum > room {
                break;
            }
            if let Some(slot) = self.slot_mut(key) {
                slot.favoured = true;
            }
        }
    }
}
