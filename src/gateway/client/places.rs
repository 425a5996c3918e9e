//! Connections of clients: how many there are, whose they are, and which one is closed
//! for a new one.
//!
//! No address and no token has more than its share. Where all places are taken, the
//! connection that has been idle for longest is closed, not the newest refused: a client
//! that opens many and says nothing keeps no one out. Behind the places are a few more, the
//! [`EXTRA_MAX`], for connections that come when every place is taken by a request, or
//! while memory is short: there the gateway answers whether it lives, and any other
//! request waits until it gets a place, for so long and no longer. Where those are taken
//! too, the first of them leaves for a new one, which may ask whether we live.
//!
//! The lock is taken when a connection comes or goes. A request only sets two numbers
//! of its own connection ([`Activity`]).

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::shares::Connections;
use crate::gateway::memory::sketch::Sketch;
use crate::gateway::memory::{CONNECTION_BYTES, Holder, Lease, Memory, block};
use crate::gateway::refusal::Refusal;
use crate::time::{Clock, sleep, timeout};

/// Connections beyond the limit, which are answered whether we live.
pub const EXTRA_MAX: usize = 32;
/// Time that a request on a connection beyond the limit waits for a place.
const EXTRA_WAIT: Duration = Duration::from_secs(5);
/// Between two looks for a connection that has become idle meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Time that a connection is idle before it is closed for want of memory: the request of one
/// that was just opened, or just answered, may be on its way.
pub const IDLE_MIN: Duration = Duration::from_secs(1);
/// Connections that are looked at to find one that is idle.
const LOOKS_MAX: usize = 128;

/// All connections.
#[derive(Debug)]
pub struct Places {
    limits: Connections,
    clock: Clock,
    memory: Arc<Memory>,
    /// Held when a connection comes or goes, never over an await.
    crowd: Mutex<Crowd>,
    /// Told when a place becomes free.
    freed: Notify,
    /// Connections that are busy for each token, and requests of each client of a
    /// trusted proxy.
    busy: Sketch,
}

#[derive(Debug, Default)]
struct Crowd {
    number: u64,
    all: HashMap<u64, Member>,
    /// By the time since which they were idle, when that was last looked at.
    places: Line,
    extra: Line,
    clients: HashMap<IpAddr, Line>,
}

/// Connections by the time since which they are idle, and their number.
type Line = BTreeSet<(u64, u64)>;

#[derive(Debug)]
struct Member {
    client: Option<IpAddr>,
    /// Time since which it was idle when last looked at: its rank in its lines.
    seen: u64,
    activity: Arc<Activity>,
    /// Memory that the connection takes, held while it has a place.
    memory: Option<Lease>,
}

/// Activity of a connection.
#[derive(Debug)]
pub struct Activity {
    /// Its requests that have not ended.
    inside: AtomicU32,
    /// Time at which it was opened, or its last request ended: milliseconds of `clock`.
    idle_since: AtomicU64,
    /// True if it has one of the places, and not of those beyond them.
    has_place: AtomicBool,
    number: u64,
    clock: Clock,
    /// Cancelled when it is to leave its place to another.
    pub leave: CancellationToken,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct ConnectionPlace {
    places: Arc<Places>,
    /// Activity of the connection.
    pub activity: Arc<Activity>,
}

/// All places of an address are taken by requests.
#[derive(Debug)]
pub struct Full;

impl Places {
    /// So many places; none is given out while `memory` is short.
    pub fn new(limits: Connections, memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            clock: Clock::start(),
            memory,
            crowd: Mutex::default(),
            freed: Notify::new(),
            busy: Sketch::new(),
        })
    }

    /// A place for a connection from `client`; `None` for a proxy, which brings those of
    /// many.
    ///
    /// # Errors
    ///
    /// [`Full`] when there is none, and none that is idle could be closed for it.
    pub fn take(self: &Arc<Self>, client: Option<IpAddr>) -> Result<ConnectionPlace, Full> {
        let client = client.map(block);
        let mut crowd = self.lock();
        crowd.make_room_for(client, self.limits.of_client())?;
        let is_full = crowd.places.len() >= self.limits.max;
        let mut memory = None;
        if !self.memory.is_short() && (!is_full || crowd.close_idle(&Which::Places)) {
            memory = self.lease(client);
        }
        let has_place = memory.is_some();
        if !has_place && crowd.extra.len() >= EXTRA_MAX {
            crowd.close_extra();
        }
        let now = self.clock.millis();
        crowd.number += 1;
        let activity = Arc::new(Activity::new(crowd.number, self.clock, has_place));
        crowd.add(Member {
            client,
            seen: now,
            activity: Arc::clone(&activity),
            memory,
        });
        Ok(ConnectionPlace {
            places: Arc::clone(self),
            activity,
        })
    }

    /// Number of connections.
    pub fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Closes every connection that has been idle for [`IDLE_MIN`], but for those beyond the
    /// places: they came when memory was short already.
    pub fn close_idle(&self) {
        let mut crowd = self.lock();
        let idle: Vec<u64> = crowd
            .all
            .iter()
            .filter(|(_, member)| {
                let has_place = member.activity.has_place.load(Ordering::Relaxed);
                let idle = member.activity.idle_for();
                has_place && idle.is_some_and(|time| time >= IDLE_MIN)
            })
            .map(|(number, _)| *number)
            .collect();
        for number in idle {
            crowd.close(number);
        }
    }

    /// Waits until a connection beyond the places has one, for a request on it.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] when that takes too long.
    pub async fn admitted(&self, activity: &Activity) -> Result<(), Refusal> {
        if activity.has_place.load(Ordering::Relaxed) {
            return Ok(());
        }
        let waits = async {
            loop {
                let freed = self.freed.notified();
                self.memory.relieved().await;
                if self.promote(activity.number) {
                    return;
                }
                // One that becomes idle tells no one.
                drop(timeout(LOOK_AGAIN, freed).await);
            }
        };
        tokio::select! {
            () = waits => return Ok(()),
            () = sleep(EXTRA_WAIT) => {}
            () = activity.leave.cancelled() => {}
        }
        Err(Refusal::Overloaded { by_share: false })
    }

    /// Counts a request for its token where it is the first on its connection, and for
    /// its client where that comes through a proxy.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] when one of them has its share.
    pub fn busy(
        self: &Arc<Self>,
        holder: Holder,
        is_first: bool,
        through_proxy: bool,
    ) -> Result<Busy, Refusal> {
        let mut busy = Busy {
            places: Arc::clone(self),
            counted: [None, None],
        };
        let [token, client] = &mut busy.counted;
        let counts = [
            (token, is_first, holder.token(), self.limits.of_token()),
            (
                client,
                through_proxy,
                holder.client(),
                self.limits.of_client(),
            ),
        ];
        for (counted, is_counted, hash, limit) in counts {
            if !is_counted {
                continue;
            }
            *counted = Some(hash);
            if self.busy.add(hash, 1) > limit as u64 {
                let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                return Err(Refusal::Full { limit });
            }
        }
        Ok(busy)
    }

    /// Memory that a connection of `client` takes, if it is to be had.
    fn lease(&self, client: Option<IpAddr>) -> Option<Lease> {
        let holder = self.memory.connection(client);
        self.memory.lease(holder, CONNECTION_BYTES).ok()
    }

    /// Gives a connection beyond the places one of them, if there is one.
    fn promote(&self, number: u64) -> bool {
        let mut crowd = self.lock();
        let client = crowd.all.get(&number).and_then(|member| member.client);
        let Some(memory) = self.lease(client) else {
            return false;
        };
        crowd.promote(number, self.limits.max, memory)
    }

    fn lock(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is counted for its token and client, until it is dropped.
#[derive(Debug)]
pub struct Busy {
    places: Arc<Places>,
    counted: [Option<u64>; 2],
}

impl Drop for Busy {
    fn drop(&mut self) {
        for hash in self.counted.into_iter().flatten() {
            self.places.busy.take(hash, 1);
        }
    }
}

/// Connections of which one is closed.
#[derive(Clone, Copy, Debug)]
enum Which {
    Places,
    Of(IpAddr),
}

impl Crowd {
    /// Closes an idle connection of an address that has its share.
    fn make_room_for(&mut self, client: Option<IpAddr>, share: usize) -> Result<(), Full> {
        let Some(client) = client else { return Ok(()) };
        let has_share = self.clients.get(&client).is_some_and(|l| l.len() >= share);
        if has_share && !self.close_idle(&Which::Of(client)) {
            return Err(Full);
        }
        Ok(())
    }

    /// Closes the one of them that has been idle for longest; false where none is.
    fn close_idle(&mut self, which: &Which) -> bool {
        for _ in 0..LOOKS_MAX {
            let line = match which {
                Which::Places => Some(&self.places),
                Which::Of(client) => self.clients.get(client),
            };
            let Some(&(seen, number)) = line.and_then(BTreeSet::first) else {
                return false;
            };
            let Some(member) = self.all.get(&number) else {
                return false;
            };
            let now = member.activity.clock.millis();
            match member.activity.idle_since() {
                Some(since) if since <= seen => {
                    self.close(number);
                    return true;
                }
                // It stood too far in front: it was busy meanwhile, or is.
                Some(since) => self.put_back(number, since),
                None if seen < now => self.put_back(number, now),
                // All behind it are no longer idle than it.
                None => return false,
            }
        }
        false
    }

    /// Closes the first of those beyond the places: it is idle, or its request waits, and is
    /// told that there is no place.
    fn close_extra(&mut self) {
        if let Some(&(_, number)) = self.extra.first() {
            self.close(number);
        }
    }

    fn put_back(&mut self, number: u64, seen: u64) {
        if let Some(member) = self.remove(number) {
            self.add(Member { seen, ..member });
        }
    }

    fn close(&mut self, number: u64) {
        if let Some(member) = self.remove(number) {
            member.activity.leave.cancel();
        }
    }

    fn promote(&mut self, number: u64, max: usize, memory: Lease) -> bool {
        if self.places.len() >= max && !self.close_idle(&Which::Places) {
            return false;
        }
        let Some(mut member) = self.remove(number) else {
            return false;
        };
        member.memory = Some(memory);
        member.activity.has_place.store(true, Ordering::Relaxed);
        self.add(member);
        true
    }

    fn add(&mut self, member: Member) {
        let at = (member.seen, member.activity.number);
        self.line_of(&member.activity).insert(at);
        if let Some(client) = member.client {
            self.clients.entry(client).or_default().insert(at);
        }
        self.all.insert(member.activity.number, member);
    }

    fn remove(&mut self, number: u64) -> Option<Member> {
        let member = self.all.remove(&number)?;
        let at = (member.seen, number);
        self.line_of(&member.activity).remove(&at);
        if let Some(client) = member.client
            && let Entry::Occupied(mut line) = self.clients.entry(client)
        {
            line.get_mut().remove(&at);
            if line.get().is_empty() {
                drop(line.remove());
            }
        }
        Some(member)
    }

    fn line_of(&mut self, activity: &Activity) -> &mut Line {
        if activity.has_place.load(Ordering::Relaxed) {
            &mut self.places
        } else {
            &mut self.extra
        }
    }
}

impl Activity {
    fn new(number: u64, clock: Clock, has_place: bool) -> Self {
        Self {
            inside: AtomicU32::new(0),
            idle_since: AtomicU64::new(clock.millis()),
            has_place: AtomicBool::new(has_place),
            number,
            clock,
            leave: CancellationToken::new(),
        }
    }

    /// A request begins. Returns whether it is the only one.
    pub fn begin(&self) -> bool {
        self.inside.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// A request has ended.
    pub fn end(&self) {
        self.idle_since
            .store(self.clock.millis(), Ordering::Relaxed);
        self.inside.fetch_sub(1, Ordering::Release);
    }

    /// Time since which it is idle: milliseconds of its clock; `None` where it is not.
    fn idle_since(&self) -> Option<u64> {
        let is_idle = self.inside.load(Ordering::Acquire) == 0;
        is_idle.then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// For how long it has been idle; `None` where it is not.
    pub fn idle_for(&self) -> Option<Duration> {
        let since = self.idle_since()?;
        Some(Duration::from_millis(
            self.clock.millis().saturating_sub(since),
        ))
    }
}

impl Default for Activity {
    /// Of a connection that no one counts.
    fn default() -> Self {
        Self::new(0, Clock::start(), true)
    }
}

impl ConnectionPlace {
    /// Counts the connection for `client`, which was not known before.
    ///
    /// # Errors
    ///
    /// [`Full`] as [`Places::take`].
    pub fn is_of(&self, client: IpAddr) -> Result<(), Full> {
        let client = block(client);
        let mut crowd = self.places.lock();
        crowd.make_room_for(Some(client), self.places.limits.of_client())?;
        if let Some(mut member) = crowd.remove(self.activity.number) {
            if member.memory.is_some() {
                member.memory = Some(self.places.lease(Some(client)).ok_or(Full)?);
            }
            crowd.add(Member {
                client: Some(client),
                ..member
            });
        }
        Ok(())
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let removed = self.places.lock().remove(self.activity.number);
        drop(removed);
        self.places.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
