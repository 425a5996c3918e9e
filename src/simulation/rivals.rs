//! Decisions of other schedulers, in the same world and with the same account of memory.
//!
//! They serve claims in the order in which they came. A worker that is chosen
//! to leave leaves, however busy it is and however short it was there.

use std::collections::{BTreeMap, VecDeque};

use super::scheduler::{Scheduler, need};
use super::trace::Workload;
use crate::config::OffloadTo;
use crate::gpu::Inventory;
use crate::lifecycle::decide::ledger::{GpuLedger, LedgerKey, MemoryNeed};
use crate::lifecycle::decide::machine::Rest;
use crate::lifecycle::decide::placement::{Decision, Eviction, Standing, View};
use crate::lifecycle::decide::policy::Seconds;
use crate::lifecycle::decide::policy::costs::Costs;
use crate::time::Uptime;

/// Choice of the workers that leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Everyone.
    Exclusive,
    /// The least recently used, until there is room.
    Lru {
        /// True if a claim passes one that can't be served yet.
        passing: bool,
    },
    /// No worker.
    Never,
}

#[derive(Clone, Debug)]
struct Known {
    need: MemoryNeed,
    costs: Costs,
    home: Vec<usize>,
}

/// One of the others.
#[derive(Debug)]
pub(super) struct Rival {
    manner: Manner,
    /// True if workers that leave are ended, not put to sleep.
    cold: bool,
    ledger: GpuLedger,
    known: Vec<Known>,
    queue: VecDeque<LedgerKey>,
    /// Claims for which others leave, with what was promised to them.
    planned: BTreeMap<LedgerKey, u64>,
    /// Workers that were told to leave in this pass.
    told: Vec<LedgerKey>,
}

impl Rival {
    pub(super) fn new(trace: &Workload, manner: Manner, cold: bool) -> Self {
        let devices = Inventory::simulated(&vec![trace.gpu_memory; trace.gpus]).devices;
        let known = trace.fleet.iter().enumerate().map(|(number, model)| Known {
            need: need(trace, number),
            costs: model.costs,
            home: model.home.clone(),
        });
        Self {
            manner,
            cold,
            ledger: GpuLedger::new(devices, trace.host_memory),
            known: known.collect(),
            queue: VecDeque::new(),
            planned: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    fn known(&self, key: LedgerKey) -> Option<&Known> {
        self.known.get(key.index())
    }

    /// Bytes that the claim takes on each of its GPUs, beside what it holds.
    fn takes(&self, key: LedgerKey) -> u64 {
        let Some(known) = self.known(key) else {
            return 0;
        };
        let device = self.ledger.accounts().first().map(|a| a.device);
        let awake = device.map_or(0, |device| known.need.awake.on(device));
        let own = known.home.first().and_then(|place| {
            let lease = self.ledger.lease(key)?;
            Some(lease.on(*place))
        });
        awake.saturating_sub(own.unwrap_or_default())
    }

    fn way_down(&self, key: LedgerKey) -> Rest {
        let Some(known) = self.known(key).filter(|_| !self.cold) else {
            return Rest::Stop;
        };
        let room = self.ledger.host_has_room(key, known.need.host);
        Rest::Offload(if room && known.costs.prefers_cpu() {
            OffloadTo::Cpu
        } else {
            OffloadTo::Disk
        })
    }

    /// Workers that must leave now for this claim; `None` while those that would are not
    /// there yet or on their way.
    fn victims(&self, key: LedgerKey, view: &View<'_>) -> Option<Vec<LedgerKey>> {
        let (known, takes) = (self.known(key)?, self.takes(key));
        if self.manner == Manner::Exclusive
            && self.planned.keys().any(|other| self.meets(*other, key))
        {
            return None;
        }
        let mut victims: Vec<LedgerKey> = Vec::new();
        for place in &known.home {
            let account = self.ledger.at(*place)?;
            let mut room = account.free() + self.leaving_at(*place, view);
            room = room.saturating_sub(account.promised);
            let mut holders: Vec<(Uptime, LedgerKey)> = Vec::new();
            for holder in self.ledger.awake_at(*place) {
                let stand = view(*holder);
                match stand.standing {
                    _ if self.told.contains(holder) => {}
                    Standing::Ready(_) if !victims.contains(holder) => {
                        holders.push((stand.idle_since.unwrap_or(Uptime::MAX), *holder));
                    }
                    Standing::Ready(_) => room += self.frees(*holder, *place),
                    // Just granted, or on its way up.
                    Standing::Asleep(_)
                    | Standing::Absent
                    | Standing::Starting
                    | Standing::Waking
                        if self.manner == Manner::Exclusive =>
                    {
                        return None;
                    }
                    _ => {}
                }
            }
            holders.sort_unstable();
            for (_, holder) in holders {
                match self.manner {
                    Manner::Never => break,
                    Manner::Lru { .. } if room >= takes => break,
                    Manner::Lru { .. } | Manner::Exclusive => {
                        room += self.frees(holder, *place);
                        victims.push(holder);
                    }
                }
            }
            if room < takes {
                return None;
            }
        }
        Some(victims)
    }

    /// True if these two are bound to a GPU in common.
    fn meets(&self, a: LedgerKey, b: LedgerKey) -> bool {
        let home = |key: LedgerKey| self.known(key).map_or(&[][..], |known| &known.home);
        home(a).iter().any(|place| home(b).contains(place))
    }

    fn frees(&self, holder: LedgerKey, place: usize) -> u64 {
        let keeps = |lease: &crate::lifecycle::decide::ledger::GpuLease| match self.way_down(holder)
        {
            Rest::Offload(_) => lease.asleep_on(place),
            Rest::Stop | Rest::Restart => 0,
        };
        let lease = self.ledger.lease(holder);
        lease.map_or(0, |lease| lease.on(place) - keeps(lease))
    }

    fn leaving_at(&self, place: usize, view: &View<'_>) -> u64 {
        let holders = self.ledger.awake_at(place).iter();
        holders
            .filter(|holder| {
                let standing = view(**holder).standing;
                let leaves = matches!(standing, Standing::Draining(_) | Standing::Leaving(_));
                leaves || self.told.contains(holder)
            })
            .map(|holder| self.frees(*holder, place))
            .sum()
    }

    fn grant_if_room(&mut self, key: LedgerKey, promised: u64) -> bool {
        let Some(home) = self.known(key).map(|known| known.home.clone()) else {
            return false;
        };
        let takes = self.takes(key);
        let fits = |place: &usize| self.ledger.at(*place).is_some_and(|a| a.free() >= takes);
        // One at a time means that the others have left, whatever the room.
        let alone = |place: &usize| {
            let mut others = self.ledger.awake_at(*place).iter();
            self.manner != Manner::Exclusive || others.all(|other| *other == key)
        };
        if !home.iter().all(fits) || !home.iter().all(alone) {
            return false;
        }
        self.unpromise(&home, promised);
        if let Some(need) = self.known(key).map(|known| known.need) {
            self.ledger.take(key, &need, &home, false);
        }
        true
    }

    fn unpromise(&mut self, home: &[usize], promised: u64) {
        for place in home {
            self.ledger.unpromise(*place, promised);
        }
    }
}

impl Scheduler for Rival {
    fn arrived(&mut self, _key: LedgerKey, _now: Uptime) {}
    fn served(&mut self, _key: LedgerKey, _took: Seconds) {}

    fn adopt(&mut self, key: LedgerKey, gpus: &[u32], asleep: OffloadTo) {
        let places: Vec<usize> = gpus.iter().filter_map(|i| self.ledger.place(*i)).collect();
        if let Some(need) = self.known(key).map(|known| known.need) {
            self.ledger.take(key, &need, &places, true);
            self.keep_on_host(key, asleep == OffloadTo::Cpu);
        }
    }

    fn ask(&mut self, key: LedgerKey) {
        self.cancel(key);
        self.queue.push_back(key);
    }

    fn cancel(&mut self, key: LedgerKey) {
        self.queue.retain(|other| *other != key);
        if let Some(promised) = self.planned.remove(&key) {
            let home = self.known(key).map(|known| known.home.clone());
            self.unpromise(&home.unwrap_or_default(), promised);
        }
    }

    fn shrink(&mut self, key: LedgerKey) {
        self.ledger.shrink(key);
    }

    fn release(&mut self, key: LedgerKey) {
        self.ledger.release(key);
    }

    fn keep_on_host(&mut self, key: LedgerKey, keeps: bool) {
        let host = self.known(key).map_or(0, |known| known.need.host);
        self.ledger.charge_host(key, if keeps { host } else { 0 });
    }

    fn touch(&mut self, _key: LedgerKey) {}

    fn plan(&mut self, _now: Uptime, view: &View<'_>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut stuck = false;
        self.told.clear();
        for key in std::mem::take(&mut self.queue) {
            if let Some(promised) = self.planned.get(&key).copied() {
                if self.grant_if_room(key, promised) {
                    self.planned.remove(&key);
                    decisions.push(Decision::Grant(key));
                } else {
                    self.queue.push_back(key);
                }
                continue;
            }
            let home = self.known(key).map(|known| known.home.clone());
            let home = home.unwrap_or_default();
            let victims = if stuck { None } else { self.victims(key, view) };
            let Some(victims) = victims else {
                match self.manner {
                    Manner::Never => {
                        decisions.push(Decision::Refuse(key, "it does not fit".to_owned()));
                        continue;
                    }
                    Manner::Lru { passing: true } => {}
                    Manner::Exclusive | Manner::Lru { .. } => stuck = true,
                }
                self.queue.push_back(key);
                continue;
            };
            let takes = self.takes(key);
            for place in &home {
                self.ledger.promise(*place, takes);
            }
            for victim in victims {
                let rest = self.way_down(victim);
                self.keep_on_host(victim, rest == Rest::Offload(OffloadTo::Cpu));
                self.told.push(victim);
                decisions.push(Decision::Evict(eviction(victim, key, rest)));
            }
            if self.grant_if_room(key, takes) {
                decisions.push(Decision::Grant(key));
            } else {
                self.planned.insert(key, takes);
                self.queue.push_back(key);
            }
        }
        decisions
    }

    fn look_at(&self) -> Option<Uptime> {
        None
    }
}

fn eviction(victim: LedgerKey, claimant: LedgerKey, rest: Rest) -> Eviction {
    Eviction {
        victim,
        claimant,
        rest,
        running: 0,
        idle: None,
        back: 0.0,
        harm: 0.0,
        held: 0,
        head_wait: 0.0,
        overdue: false,
    }
}
