//! Memory that is held for clients: one account for the whole gateway.
//!
//! Every request holds a [`Lease`] for what it takes, from its head to its last byte;
//! what a body declares, or brings, is charged before it is read, and given back when
//! it was sent on. A lease that does not fit is refused: then its request is.
//!
//! No peer, token or workspace may hold more than its share, so that no one can hold it
//! all. There is no lock, and no entry to forget: what each holds stands in a [`Sketch`].
//!
//! Owns the counting only. When connections are closed for want of memory is
//! [`super::client::places`]' to say.

pub mod sketch;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::refusal::Refusal;
use crate::auth::Principal;
use crate::config::{Gateway, HostBudget};
use sketch::Sketch;

/// Bytes that a request takes beside its body and those of its head: its state, the
/// buffers on both sides, and what waits for a client that reads slowly.
pub const REQUEST_BYTES: u64 = 64 << 10;

/// Bytes that a connection takes beside its requests: its state and that of TLS.
pub const CONNECTION_BYTES: u64 = 32 << 10;

/// Kinds of holders that a lease is counted for: a peer, a token, a workspace.
const KINDS: usize = 3;

/// The account.
#[derive(Debug)]
pub struct Memory {
    max: u64,
    shares: [u64; KINDS],
    /// Bytes of all leases.
    used: AtomicU64,
    /// Bytes that each peer, token and workspace holds.
    held: Sketch,
    /// Told when more than nine tenths are used.
    pressed: Notify,
    /// Told when that is over.
    relieved: Notify,
}

/// Bytes that HTTP/2 lets a client send before they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Of all streams of a connection, in bytes.
    pub connection: u32,
    /// Of each of them.
    pub stream: u32,
}

/// Bounds of a connection's window in HTTP/2. The lowest is where every one begins, by
/// RFC 9113, whatever we say.
const WINDOW_MIN: u32 = 64 << 10;
const WINDOW_MAX: u32 = 4 << 20;
/// A connection's window is one part of so many of what is free.
const WINDOWS: u64 = 1024;

/// Holders of bytes, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holder([Option<u64>; KINDS]);

/// Bytes that are held, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    memory: Arc<Memory>,
    holder: Holder,
    bytes: u64,
}

impl Memory {
    /// An account as the settings say, of a machine with so many bytes.
    pub fn new(settings: &Gateway, machine: u64) -> Arc<Self> {
        let own = &settings.memory;
        let max = own.budget.of(machine);
        // One request of the largest size must fit, where nothing else is held.
        let largest = settings.request_body_max.saturating_add(2 * REQUEST_BYTES);
        let share = |amount: HostBudget| amount.of(max).max(largest).min(max);
        Arc::new(Self {
            max,
            shares: [own.per_client, own.per_token, own.per_workspace].map(share),
            used: AtomicU64::new(0),
            held: Sketch::new(),
            pressed: Notify::new(),
            relieved: Notify::new(),
        })
    }

    /// Holder of a request of this client and token.
    pub fn holder(&self, client: IpAddr, principal: &Principal) -> Holder {
        Holder([
            Some(self.held.hash((0_u8, block(client)))),
            Some(self.held.hash((1_u8, &*principal.token_id))),
            Some(self.held.hash((2_u8, &principal.workspace))),
        ])
    }

    /// Holder of a connection of this client; `None`: it is of many.
    pub fn connection(&self, client: Option<IpAddr>) -> Holder {
        let client = client.map(|client| self.held.hash((0_u8, block(client))));
        Holder([client, None, None])
    }

    /// Leases `bytes`.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] when they are not to be had.
    pub fn lease(self: &Arc<Self>, holder: Holder, bytes: u64) -> Result<Lease, Refusal> {
        self.charge(holder, bytes)?;
        Ok(Lease {
            memory: Arc::clone(self),
            holder,
            bytes,
        })
    }

    /// A lease of nothing yet.
    pub fn nothing(self: &Arc<Self>, holder: Holder) -> Lease {
        Lease {
            memory: Arc::clone(self),
            holder,
            bytes: 0,
        }
    }

    /// Number of bytes that may be held.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Number of bytes that are held.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// True while more than nine tenths are held.
    pub fn is_short(&self) -> bool {
        self.used() > self.high()
    }

    /// Resolves once more than nine tenths are held.
    pub async fn pressed(&self) {
        until(&self.pressed, || self.is_short()).await;
    }

    /// Resolves once no more than nine tenths are held.
    pub async fn relieved(&self) {
        until(&self.relieved, || !self.is_short()).await;
    }

    /// Bytes that HTTP/2 lets a client send on a connection before they are taken, by what is
    /// free now, and a lease of them: the least where no more is to be had.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] when not even that is.
    pub fn windows(self: &Arc<Self>, holder: Holder) -> Result<(Windows, Lease), Refusal> {
        let free = self.max.saturating_sub(self.used());
        let part = u32::try_from(free / WINDOWS).unwrap_or(u32::MAX);
        let most = part.clamp(WINDOW_MIN, WINDOW_MAX);
        let lease = |connection: u32| {
            let lease = self.lease(holder, u64::from(connection))?;
            let stream = (connection / 4).max(WINDOW_MIN);
            Ok((Windows { connection, stream }, lease))
        };
        lease(most).or_else(|_: Refusal| lease(WINDOW_MIN))
    }

    fn high(&self) -> u64 {
        self.max - self.max / 10
    }

    fn charge(&self, holder: Holder, bytes: u64) -> Result<(), Refusal> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.max {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refusal::Overloaded { by_share: false });
        }
        let mut fits = true;
        for (hash, share) in holder.0.into_iter().zip(self.shares) {
            fits &= hash.is_none_or(|hash| self.held.add(hash, bytes) <= share);
        }
        if fits {
            let high = self.high();
            if before <= high && before + bytes > high {
                self.pressed.notify_waiters();
            }
            return Ok(());
        }
        self.give_back(holder, bytes);
        Err(Refusal::Overloaded { by_share: true })
    }

    fn give_back(&self, holder: Holder, bytes: u64) {
        for hash in holder.0.into_iter().flatten() {
            self.held.take(hash, bytes);
        }
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        let high = self.high();
        if before > high && before - bytes <= high {
            self.relieved.notify_waiters();
        }
    }
}

/// The part of an address that one client has: of IPv6 a network of 64 bits.
pub fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Resolves once `is_so`; each change of that tells `notify`.
async fn until(notify: &Notify, is_so: impl Fn() -> bool) {
    loop {
        let told = notify.notified();
        if is_so() {
            return;
        }
        told.await;
    }
}

impl Holder {
    /// Key by which the holder's client is counted.
    pub fn client(self) -> u64 {
        let [client, ..] = self.0;
        client.unwrap_or_default()
    }

    /// Key by which the holder's token is counted.
    pub fn token(self) -> u64 {
        let [_, token, _] = self.0;
        token.unwrap_or_default()
    }
}

impl Lease {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds `bytes` in all from now on.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] when they are not to be had; what was held stays held.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Refusal> {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            self.memory.charge(self.holder, more)?;
        } else {
            self.memory.give_back(self.holder, self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.memory.give_back(self.holder, less);
            self.bytes = bytes;
        }
    }

    /// A lease of its own for a part of these bytes, or for what there is of it.
    #[must_use]
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            memory: Arc::clone(&self.memory),
            holder: self.holder,
            bytes,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.give_back(self.holder, self.bytes);
        }
    }
}

#[cfg(test)]
pub(in crate::gateway) mod tests;
