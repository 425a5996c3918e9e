//! Addresses of names, looked up once for all that ask.
//!
//! The system's own `getaddrinfo` is asked, so that a name means here what it means to
//! `curl` beside us: `/etc/hosts`, `nsswitch.conf` with whatever it names (mDNS, LDAP,
//! systemd-resolved), search domains and `ndots` are obeyed, which a resolver of our own
//! would each have to do again. It blocks, for half a minute where DNS drops packets, so
//! each look-up has a thread of its own: one a name, for which later callers wait,
//! and never one of the runtime's.
//!
//! `getaddrinfo` tells no TTL. An answer is believed for [`FRESH`], shorter than
//! almost any TTL and long enough that DNS hears little of us (the caches of the system
//! and of its servers go by the TTL); after that it is asked again, and where the
//! answer takes long or does not come, the old one serves for up to [`STALE_MAX`]
//! (RFC 8767). A name without an address is asked for again after [`FAILED`].

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::time::{Instant, timeout};

/// Time for which an answer is believed.
const FRESH: Duration = Duration::from_secs(10);
/// Time for which an old answer serves where no newer one can be had.
const STALE_MAX: Duration = Duration::from_hours(1);
/// Until a name that had no answer, or whose addresses failed, is asked for again.
const FAILED: Duration = Duration::from_secs(1);
/// Time for which a newer answer is waited for where there is an old one.
const PATIENCE: Duration = Duration::from_millis(250);
/// Look-ups at once: each is a thread. Names come from settings and are few.
const THREADS_MAX: usize = 64;
/// Stack of such a thread; `getaddrinfo` takes less than half of it.
const STACK_BYTES: usize = 512 * 1024;
/// Names that are remembered.
const NAMES_MAX: usize = 4096;

/// Reason why there are no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfound {
    /// There is no answer yet.
    Timeout,
    /// There is none, in the system's words.
    No(Arc<str>),
}

type Found = Result<Arc<[IpAddr]>, Arc<str>>;
type Resolve = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Look-ups of names, and their answers.
pub(super) struct Lookups {
    resolve: Box<Resolve>,
    /// Held for a few instructions, never over an await or a look-up.
    names: Mutex<HashMap<Arc<str>, Name>>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Name {
    /// The last addresses, and when they were found.
    good: Option<(Arc<[IpAddr]>, Instant)>,
    /// The last answer, where it was none, and when.
    bad: Option<(Arc<str>, Instant)>,
    /// True if its addresses failed since they were found.
    is_doubted: bool,
    /// The look-up that is open: resolves when it ends.
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    since: Instant,
    ended: watch::Receiver<()>,
}

impl Name {
    /// An answer that needs no look-up.
    fn known(&self) -> Option<Found> {
        let fresh = if self.is_doubted { FAILED } else { FRESH };
        let good = self.good.as_ref();
        if let Some((good, _)) = good.filter(|(_, since)| since.elapsed() < fresh) {
            return Some(Ok(Arc::clone(good)));
        }
        let (why, since) = self.bad.as_ref()?;
        (since.elapsed() < FAILED).then(|| self.stale().ok_or_else(|| Arc::clone(why)))
    }

    /// An answer that serves where there is no newer one.
    fn stale(&self) -> Option<Arc<[IpAddr]>> {
        let (good, since) = self.good.as_ref()?;
        (since.elapsed() < STALE_MAX).then(|| Arc::clone(good))
    }

    fn is_forgotten(&self) -> bool {
        self.open.is_none() && self.stale().is_none()
    }
}

impl Lookups {
    /// Look-ups of this process.
    pub(super) fn of_process() -> &'static Arc<Self> {
        static ALL: LazyLock<Arc<Lookups>> = LazyLock::new(|| {
            Lookups::new(|host| {
                let found = (host, 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            })
        });
        &ALL
    }

    /// With another way to look names up.
    pub(super) fn new(
        resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            resolve: Box::new(resolve),
            names: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of a name, within `limit`.
    pub(super) async fn find(
        self: &Arc<Self>,
        host: &str,
        limit: Duration,
    ) -> Result<Arc<[IpAddr]>, Unfound> {
        let (mut open, stale) = {
            let mut names = self.lock();
            if let Some(known) = names.get(host).and_then(Name::known) {
                return known.map_err(Unfound::No);
            }
            let open = self.open(&mut names, host)?;
            (open, names.get(host).and_then(Name::stale))
        };
        let wait = match &stale {
            Some(_) => PATIENCE.saturating_sub(open.since.elapsed()).min(limit),
            None => limit,
        };
        // An error says that the look-up has ended too, in whatever way.
        if timeout(wait, open.ended.changed()).await.is_err() {
            return stale.ok_or(Unfound::Timeout);
        }
        let names = self.lock();
        let known = names.get(host).and_then(Name::known);
        let lost = || Err(Arc::from("the look-up broke off"));
        known
            .unwrap_or_else(|| stale.map_or_else(lost, Ok))
            .map_err(Unfound::No)
    }

    /// The look-up of a name that is open, or a new one.
    fn open(
        self: &Arc<Self>,
        names: &mut HashMap<Arc<str>, Name>,
        host: &str,
    ) -> Result<Open, Unfound> {
        if let Some(open) = names.get(host).and_then(|name| name.open.clone()) {
            return Ok(open);
        }
        if names.values().filter(|name| name.open.is_some()).count() >= THREADS_MAX {
            return Err(Unfound::No(Arc::from(
                "too many other names are being looked up",
            )));
        }
        if names.len() >= NAMES_MAX {
            names.retain(|_, name| !name.is_forgotten());
        }
        let (ending, ended) = watch::channel(());
        let open = Open {
            since: Instant::now(),
            ended,
        };
        let host: Arc<str> = Arc::from(host);
        names.entry(Arc::clone(&host)).or_default().open = Some(open.clone());
        let job = Job {
            all: Arc::clone(self),
            host: Arc::clone(&host),
            found: None,
            _ending: ending,
        };
        let thread = std::thread::Builder::new()
            .name("lookup".to_owned())
            .stack_size(STACK_BYTES);
        // What can't be started is dropped there, which would lock again what we hold.
        if let Err(error) = thread.spawn(move || job.run()) {
            if let Some(name) = names.get_mut(&host) {
                name.open = None;
            }
            return Err(Unfound::No(Arc::from(error.to_string())));
        }
        Ok(open)
    }

    /// The addresses of this name failed: they may have changed.
    pub(super) fn doubt(&self, host: &str) {
        if let Some(name) = self.lock().get_mut(host) {
            name.is_doubted = true;
        }
    }
}

/// One look-up, in its thread. Dropping it ends the wait for it.
struct Job {
    all: Arc<Lookups>,
    host: Arc<str>,
    found: Option<Found>,
    _ending: watch::Sender<()>,
}

impl Job {
    fn run(mut self) {
        const PREFIX: &str = "failed to lookup address information: ";
        let found = (self.all.resolve)(&self.host).map(without_twice);
        self.found = Some(match found {
            Ok(all) if all.is_empty() => Err(Arc::from("it has no address")),
            Ok(all) => Ok(Arc::from(all)),
            Err(error) => {
                let text = error.to_string();
                Err(Arc::from(text.strip_prefix(PREFIX).unwrap_or(&text)))
            }
        });
    }
}

fn without_twice(all: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut once = Vec::with_capacity(all.len());
    for address in all {
        if !once.contains(&address) {
            once.push(address);
        }
    }
    once
}

impl Drop for Job {
    fn drop(&mut self) {
        let found = match self.found.take() {
            Some(found) => found,
            None if std::thread::panicking() => Err(Arc::from("the look-up broke off")),
            // The thread could not be started, by the holder of the lock.
            None => return,
        };
        let mut names = self.all.lock();
        let name = names.entry(Arc::clone(&self.host)).or_default();
        name.open = None;
        match found {
            Ok(all) => {
                (name.good, name.bad) = (Some((all, Instant::now())), None);
                name.is_doubted = false;
            }
            Err(why) => name.bad = Some((why, Instant::now())),
        }
    }
}

#[cfg(test)]
mod tests;
