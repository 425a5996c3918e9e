//! The exact account of memory: each device's, and the host's for sleepers.
//!
//! Pure arithmetic. Memory is taken when it is granted and given back only when
//! told so. It decides nothing; [`super::placement`] does, with these figures.
//! What others hold on a device, outside of our workers, is entered as foreign.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gpu::Device;

/// Memory on one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// This many bytes.
    Bytes(u64),
    /// This part of whichever device it is, 0 to 1.
    Share(f64),
}

impl Amount {
    /// Bytes on this device.
    pub fn on(self, device: Device) -> u64 {
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

/// Memory that a worker needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryNeed {
    /// Number of GPUs; at least one.
    pub gpus: usize,
    /// On each, while awake.
    pub awake: Amount,
    /// On each, while asleep.
    pub asleep: u64,
    /// In host memory, while its weights are there; of all its GPUs together.
    pub host: u64,
}

/// One deployment, as placement numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerKey(pub u32);

impl LedgerKey {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Memory that is held.
#[derive(Clone, Debug)]
pub struct GpuLease {
    /// The devices, by their indices.
    pub gpus: Arc<[u32]>,
    /// The same, by their places in the account.
    places: Vec<usize>,
    /// Bytes on each of them while awake.
    awake: Vec<u64>,
    /// Bytes on each of them while asleep.
    asleep: u64,
    /// True if it sleeps.
    pub sleeps: bool,
    /// Bytes of host memory that are charged.
    host: u64,
}

impl GpuLease {
    /// The places of its devices in the account.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// Bytes that it holds on the device at this place.
    pub fn on(&self, place: usize) -> u64 {
        match self.places.iter().position(|own| *own == place) {
            Some(_) if self.sleeps => self.asleep,
            Some(at) => self.awake.get(at).copied().unwrap_or_default(),
            None => 0,
        }
    }

    /// Bytes that it would keep there asleep.
    pub fn asleep_on(&self, place: usize) -> u64 {
        if self.places.contains(&place) {
            self.asleep
        } else {
            0
        }
    }
}

/// One device's account.
#[derive(Clone, Debug)]
pub struct GpuAccount {
    /// Device of the account.
    pub device: Device,
    /// Bytes that our workers hold.
    pub held: u64,
    /// Bytes that others hold.
    pub foreign: u64,
    /// Bytes that claims with a plan will take.
    pub promised: u64,
    /// Holders that are awake, or on their way up or down.
    awake: Vec<LedgerKey>,
    /// Holders that sleep.
    asleep: Vec<LedgerKey>,
}

impl GpuAccount {
    /// Bytes that nobody holds.
    pub fn free(&self) -> u64 {
        self.device.memory.saturating_sub(self.held + self.foreign)
    }
}

/// Every account.
#[derive(Clone, Debug)]
pub struct GpuLedger {
    accounts: Vec<GpuAccount>,
    places: HashMap<u32, usize>,
    leases: Vec<Option<GpuLease>>,
    host_budget: u64,
    host_held: u64,
}

impl GpuLedger {
    /// Nothing is held.
    pub fn new(devices: Vec<Device>, host_budget: u64) -> Self {
        let place_of = |(place, device): (usize, &Device)| (device.index, place);
        let places = devices.iter().enumerate().map(place_of).collect();
        let account = |device| GpuAccount {
            device,
            held: 0,
            foreign: 0,
            promised: 0,
            awake: Vec::new(),
            asleep: Vec::new(),
        };
        Self {
            accounts: devices.into_iter().map(account).collect(),
            places,
            leases: Vec::new(),
            host_budget,
            host_held: 0,
        }
    }

    /// Every device's account, in the order of the devices.
    pub fn accounts(&self) -> &[GpuAccount] {
        &self.accounts
    }

    /// The account at this place.
    pub fn at(&self, place: usize) -> Option<&GpuAccount> {
        self.accounts.get(place)
    }

    /// The place of the device with this index.
    pub fn place(&self, index: u32) -> Option<usize> {
        self.places.get(&index).copied()
    }

    /// Lease of this deployment.
    pub fn lease(&self, key: LedgerKey) -> Option<&GpuLease> {
        self.leases.get(key.index())?.as_ref()
    }

    /// Workers that are awake there, or on their way up or down, in a fixed order.
    pub fn awake_at(&self, place: usize) -> &[LedgerKey] {
        self.at(place).map_or(&[], |account| &account.awake)
    }

    /// Workers that sleep there, in a fixed order.
    pub fn asleep_at(&self, place: usize) -> &[LedgerKey] {
        self.at(place).map_or(&[], |account| &account.asleep)
    }

    /// Takes the memory on the devices at these places, all at once, and all of
    /// it: an earlier lease of the same deployment is replaced.
    pub fn take(&mut self, key: LedgerKey, need: &MemoryNeed, places: &[usize], sleeps: bool) {
        let host = self.release(key).map_or(0, |lease| lease.host);
        let devices = places.iter().filter_map(|place| self.accounts.get(*place));
        let (gpus, awake): (Vec<u32>, Vec<u64>) = devices
            .map(|account| (account.device.index, need.awake.on(account.device)))
            .unzip();
        let lease = GpuLease {
            gpus: gpus.into(),
            places: places.to_vec(),
            awake,
            asleep: need.asleep,
            sleeps,
            host,
        };
        if self.leases.len() <= key.index() {
            self.leases.resize(key.index() + 1, None);
        }
        self.host_held += host;
        self.enter(key, lease);
    }

    /// The worker sleeps: it keeps only what a sleeper does.
    pub fn shrink(&mut self, key: LedgerKey) {
        self.change(key, |lease| lease.sleeps = true);
    }

    /// Notes what the worker was seen to hold on each device. Awake it may take as much
    /// as was declared, so less is not believed.
    pub fn observe(&mut self, key: LedgerKey, bytes: u64) {
        self.change(key, |lease| {
            if lease.sleeps {
                lease.asleep = bytes;
            } else {
                for awake in &mut lease.awake {
                    *awake = bytes.max(*awake);
                }
            }
        });
    }

    /// The worker is gone. Returns what it held.
    pub fn release(&mut self, key: LedgerKey) -> Option<GpuLease> {
        let lease = self.leases.get_mut(key.index())?.take()?;
        for place in &lease.places {
            let bytes = lease.on(*place);
            if let Some(account) = self.accounts.get_mut(*place) {
                account.held = account.held.saturating_sub(bytes);
                account.awake.retain(|other| *other != key);
                account.asleep.retain(|other| *other != key);
            }
        }
        self.host_held = self.host_held.saturating_sub(lease.host);
        Some(lease)
    }

    fn change(&mut self, key: LedgerKey, change: impl FnOnce(&mut GpuLease)) {
        if let Some(mut lease) = self.release(key) {
            change(&mut lease);
            self.host_held += lease.host;
            self.enter(key, lease);
        }
    }

    fn enter(&mut self, key: LedgerKey, lease: GpuLease) {
        for place in &lease.places {
            let bytes = lease.on(*place);
            if let Some(account) = self.accounts.get_mut(*place) {
                account.held += bytes;
                let list = if lease.sleeps {
                    &mut account.asleep
                } else {
                    &mut account.awake
                };
                let at = list.partition_point(|other| *other < key);
                list.insert(at, key);
            }
        }
        if let Some(slot) = self.leases.get_mut(key.index()) {
            *slot = Some(lease);
        }
    }

    /// Notes what others hold on a device.
    pub fn set_foreign(&mut self, index: u32, bytes: u64) {
        let place = self.place(index);
        if let Some(account) = place.and_then(|place| self.accounts.get_mut(place)) {
            account.foreign = bytes;
        }
    }

    /// Counts or discounts what a claim with a plan will take.
    pub fn promise(&mut self, place: usize, bytes: u64) {
        if let Some(account) = self.accounts.get_mut(place) {
            account.promised += bytes;
        }
    }

    /// The reverse of [`Self::promise`].
    pub fn unpromise(&mut self, place: usize, bytes: u64) {
        if let Some(account) = self.accounts.get_mut(place) {
            account.promised = account.promised.saturating_sub(bytes);
        }
    }

    /// True if the host has room for these weights beside what is charged; the weights
    /// of a worker that is charged already have it.
    pub fn host_has_room(&self, key: LedgerKey, bytes: u64) -> bool {
        let own = self.lease(key).map_or(0, |lease| lease.host);
        own > 0 || self.host_held + bytes <= self.host_budget
    }

    /// Charges the host for a worker's weights, or no longer.
    pub fn charge_host(&mut self, key: LedgerKey, bytes: u64) {
        let Some(Some(lease)) = self.leases.get_mut(key.index()) else {
            return;
        };
        self.host_held = self.host_held.saturating_sub(lease.host) + bytes;
        lease.host = bytes;
    }

    /// Bytes of host memory that are charged, and the budget.
    pub fn host(&self) -> (u64, u64) {
        (self.host_held, self.host_budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Inventory;

    const GIB: u64 = 1 << 30;

    fn need(gib: u64, host: u64) -> MemoryNeed {
        MemoryNeed {
            gpus: 1,
            awake: Amount::Bytes(gib * GIB),
            asleep: GIB,
            host: host * GIB,
        }
    }

    #[test]
    fn what_is_taken_comes_back_to_the_byte() {
        let mut ledger = GpuLedger::new(Inventory::simulated(&[80 * GIB]).devices, 32 * GIB);
        let (a, b) = (LedgerKey(0), LedgerKey(1));
        ledger.take(a, &need(30, 20), &[0], false);
        ledger.take(b, &need(40, 20), &[0], false);
        assert_eq!(ledger.accounts()[0].free(), 10 * GIB);
        ledger.charge_host(a, 20 * GIB);
        ledger.shrink(a);
        assert_eq!(ledger.accounts()[0].free(), 39 * GIB);
        assert_eq!(
            (ledger.awake_at(0), ledger.asleep_at(0)),
            (&[b][..], &[a][..])
        );
        assert!(!ledger.host_has_room(b, 20 * GIB) && ledger.host_has_room(a, 20 * GIB));
        ledger.observe(a, 3 * GIB);
        ledger.observe(b, 41 * GIB);
        assert_eq!(ledger.accounts()[0].free(), 36 * GIB);
        ledger.set_foreign(0, 5 * GIB);
        assert_eq!(ledger.accounts()[0].free(), 31 * GIB);
        ledger.release(a);
        ledger.release(b);
        assert_eq!(ledger.accounts()[0].held, 0);
        assert_eq!(ledger.host(), (0, 32 * GIB));
    }
}
