//! Times at which an issuer's key set is fetched again, and the requests that wait for it.
//!
//! One task per issuer fetches: at its start, every [`REFRESH`], sooner after a
//! failure, and at once when a token names a key that nobody knows, though never
//! more than once in [`PAUSE`]. Requests that need the same fetch wait for the one
//! in flight. The last good set is kept whatever happens.
//!
//! Anyone can send a token with an invented key id, so both the requests that wait and the
//! ids that are remembered as unknown are bounded; beyond, a request is refused at once.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::fetch::{FetchError, Fetcher};
use super::jwks::{JwksError, KeySet};
use crate::time::{Instant, sleep, timeout};

/// Between two fetches that nothing asked for. A key that the issuer took out of
/// its set is trusted here for so long at most, while the set can be reached.
pub const REFRESH: Duration = Duration::from_mins(10);
/// Between two tries after a failure.
pub const RETRY: Duration = Duration::from_secs(30);
/// Least time between two fetches, whatever asks for one.
pub const PAUSE: Duration = Duration::from_secs(1);
/// Longest fetch.
pub const FETCH_MAX: Duration = Duration::from_secs(10);
/// Longest wait of a request for a fetch.
pub const WAIT_MAX: Duration = Duration::from_secs(2);
/// Most requests that wait at once for one issuer.
const WAITING_MAX: usize = 64;
/// Most key ids that are remembered as unknown.
const UNKNOWN_MAX: usize = 1024;
/// Time for which a key id is remembered as unknown.
const UNKNOWN_FOR: Duration = Duration::from_mins(1);

/// Standing of the key set of an issuer, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksStatus {
    /// The issuer, as the settings name it.
    pub issuer: Arc<str>,
    /// Time since the set was last fetched whole; `None` before the first time.
    pub age: Option<Duration>,
    /// Number of fetches that gave a usable set.
    pub fetched: u64,
    /// Number of fetches that failed.
    pub failed: u64,
}

/// Reason why a fetch brought no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Set(#[from] JwksError),
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    fetched: u64,
    failed: u64,
    last_good: Option<Instant>,
    last_failed: bool,
}

/// The fetches of one issuer's key set.
pub struct Refetch {
    issuer: Arc<str>,
    fetcher: Fetcher,
    /// Asks the task for a fetch; one permit stands for any number of askers.
    demand: Notify,
    /// Written by the task only.
    progress: watch::Sender<Progress>,
    waiting: Semaphore,
    unknown: Mutex<Unknown>,
}

impl fmt::Debug for Refetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refetch")
            .field("fetcher", &self.fetcher)
            .finish_non_exhaustive()
    }
}

impl Refetch {
    pub(super) fn new(issuer: Arc<str>, fetcher: Fetcher) -> Arc<Self> {
        Arc::new(Self {
            issuer,
            fetcher,
            demand: Notify::new(),
            progress: watch::Sender::default(),
            waiting: Semaphore::new(WAITING_MAX),
            unknown: Mutex::default(),
        })
    }

    /// Standing of the set now.
    pub(super) fn status(&self) -> JwksStatus {
        let progress = *self.progress.borrow();
        JwksStatus {
            issuer: Arc::clone(&self.issuer),
            age: progress.last_good.map(|at| at.elapsed()),
            fetched: progress.fetched,
            failed: progress.failed,
        }
    }

    /// Waits for a fetch because of a key id that is not in the set; whether one was
    /// made, and the token is worth another look.
    pub(super) async fn awaited(&self, kid: Option<&str>) -> bool {
        if self.unknown().contains(kid) {
            return false;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return false;
        };
        let mut progress = self.progress.subscribe();
        let tries = |progress: &Progress| progress.fetched + progress.failed;
        let before = tries(&progress.borrow_and_update());
        self.demand.notify_one();
        let next = progress.wait_for(|progress| tries(progress) > before);
        matches!(
            timeout(WAIT_MAX, next).await,
            Ok(Ok(progress)) if !progress.last_failed
        )
    }

    /// Remembers a key id that a good set did not have.
    pub(super) fn still_unknown(&self, kid: Option<&str>) {
        self.unknown().insert(kid);
    }

    fn unknown(&self) -> std::sync::MutexGuard<'_, Unknown> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches until told to end; `replace` puts a new set in effect for the issuer.
    pub(super) async fn run(
        &self,
        replace: impl Fn(&str, &Arc<KeySet>),
        ending: CancellationToken,
    ) {
        let fetch = async || {
            let fetched = timeout(FETCH_MAX, self.fetcher.fetch()).await;
            let text = fetched.unwrap_or(Err(FetchError::Timeout))?;
            Ok(KeySet::parse(&text)?)
        };
        let serve = pin!(self.run_with(replace, fetch));
        tokio::select! {
            () = ending.cancelled() => {}
            () = serve => {}
        }
    }

    async fn run_with<F: Future<Output = Result<KeySet, Failed>>>(
        &self,
        replace: impl Fn(&str, &Arc<KeySet>),
        fetch: impl Fn() -> F,
    ) {
        loop {
            let result = fetch().await;
            let failed = result.is_err();
            self.tell(&result);
            if let Ok(keys) = result {
                self.unknown().forget_all();
                replace(&self.issuer, &Arc::new(keys));
            }
            // A request that asked until here waits for `progress`, and needs no other fetch.
            pin!(self.demand.notified()).enable();
            self.progress.send_modify(|progress| {
                progress.last_failed = failed;
                if failed {
                    progress.failed += 1;
                } else {
                    progress.fetched += 1;
                    progress.last_good = Some(Instant::now());
                }
            });
            sleep(PAUSE).await;
            let regular = if failed { RETRY } else { REFRESH };
            let regular = regular.saturating_sub(PAUSE);
            tokio::select! {
                () = self.demand.notified() => {}
                () = sleep(regular) => {}
            }
        }
    }

    /// Logs a change between good and bad, and what goes on at debug.
    fn tell(&self, result: &Result<KeySet, Failed>) {
        let (issuer, url) = (&self.issuer, self.fetcher.url());
        let progress = *self.progress.borrow();
        let first = progress.fetched + progress.failed == 0;
        match result {
            Ok(keys) if first || progress.last_failed => tracing::info!(
                jwks.issuer = %issuer, jwks.keys = keys.len(), "fetched the keys of {issuer}"
            ),
            Ok(keys) => tracing::debug!(
                jwks.issuer = %issuer, jwks.keys = keys.len(), "fetched the keys of {issuer} again"
            ),
            Err(error) if first || !progress.last_failed => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(
                    jwks.issuer = %issuer,
                    error = %error,
                    cause = cause.unwrap_or_default(),
                    "could not fetch the keys of {issuer} from {url}: the last good ones stay in use"
                );
            }
            Err(error) => tracing::debug!(jwks.issuer = %issuer, error = %error, "still no keys"),
        }
    }
}

/// Key ids that a good set did not have, by hashes that can't be foreseen.
#[derive(Debug, Default)]
struct Unknown {
    hasher: RandomState,
    until: HashMap<u64, Instant>,
}

impl Unknown {
    fn contains(&self, kid: Option<&str>) -> bool {
        let hash = self.hasher.hash_one(kid);
        self.until
            .get(&hash)
            .is_some_and(|until| Instant::now() < *until)
    }

    /// Full of unexpired ones, it takes no more: those fetch at most once in [`PAUSE`].
    fn insert(&mut self, kid: Option<&str>) {
        let now = Instant::now();
        if self.until.len() >= UNKNOWN_MAX {
            self.until.retain(|_, until| now < *until);
        }
        if self.until.len() < UNKNOWN_MAX {
            self.until
                .insert(self.hasher.hash_one(kid), now + UNKNOWN_FOR);
        }
    }

    fn forget_all(&mut self) {
        self.until.clear();
    }
}

#[cfg(test)]
mod tests;
