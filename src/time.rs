//! The only clock.
//!
//! Monotonic time is tokio's, so tests can pause it; [`Uptime`] is what the pure
//! parts get. Wall-clock time is for logs and people, never for waiting; tokens are
//! held against [`newest::NewestTime`], which does not go back with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub mod newest;

pub use newest::NewestTime;

pub use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Time since the clock of this process was made; the time of the pure parts.
pub type Uptime = Duration;

/// Turns instants into [`Uptime`] and back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts at zero now.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Time since the start.
    pub fn now(&self) -> Uptime {
        self.origin.elapsed()
    }

    /// The instant at which [`Self::now`] returns `uptime`.
    pub fn instant(&self, uptime: Uptime) -> Instant {
        self.origin
            .checked_add(uptime)
            .unwrap_or_else(|| self.origin + Duration::from_secs(1 << 31))
    }

    /// Milliseconds since the start, for atomic words.
    pub fn millis(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Seconds since 1970, zero before it.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Time since 1970, zero before it.
pub fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
