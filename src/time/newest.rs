//! The time that tokens are held against: the wall clock's, but never earlier than a
//! time that was known before.
//!
//! ```text
//!  wall goes on            follow it
//!  wall steps back         stay, and go on by the monotonic clock; [`NewestTime::behind`] tells
//!  wall leaps ahead        follow it; remember it once it has stayed there for minutes
//! ```
//!
//! Keeping the newest time over a restart is `store`'s, which gives it back with
//! [`NewestTime::learn`].

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Instant, unix_time};

/// Pause between two calls of [`NewestTime::tick`].
pub const TICK: Duration = Duration::from_secs(1);

/// Longest that the wall clock may lag before anyone is told: as far as the clocks of
/// issuers may differ.
pub const LAG_MAX: Duration = Duration::from_secs(10);

/// A step ahead by more than this is a leap.
const LEAP: Duration = Duration::from_mins(1);

/// Time that a leap must last to be remembered: a clock that is wrong for a moment, as
/// before the first answer of a time server, must not end every token.
const LEAP_LASTS: Duration = Duration::from_mins(5);

/// A wall clock: time since 1970.
type Wall = Box<dyn Fn() -> Duration + Send + Sync>;

/// The newest time that is known. One per process, shared by all that hold tokens
/// against it.
pub struct NewestTime {
    wall: Wall,
    /// Milliseconds since 1970 that the time is not before. Written under `steps`.
    floor: AtomicU64,
    /// Locked for a computation, never over an await.
    steps: Mutex<Steps>,
}

struct Steps {
    /// Time of the last look at `floor`.
    at: Instant,
    /// Moment since which the wall clock is ahead of what it should be.
    leapt: Option<Instant>,
}

impl Default for NewestTime {
    fn default() -> Self {
        Self::of(unix_time)
    }
}

impl NewestTime {
    /// Follows a wall clock that tells the time since 1970.
    pub fn of(wall: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let floor = AtomicU64::new(millis(wall()));
        Self {
            wall: Box::new(wall),
            floor,
            steps: Mutex::new(Steps {
                at: Instant::now(),
                leapt: None,
            }),
        }
    }

    /// The time since 1970.
    pub fn now(&self) -> Duration {
        (self.wall)().max(self.remembered())
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> u64 {
        self.now().as_secs()
    }

    /// Time to keep over a restart, since 1970: not a leap that may be a mistake.
    pub fn remembered(&self) -> Duration {
        Duration::from_millis(self.floor.load(Ordering::Relaxed))
    }

    /// Takes note of a time that was known before, in seconds since 1970.
    pub fn learn(&self, known: u64) {
        let _steps = self.lock();
        let known = known.saturating_mul(1000);
        self.floor.fetch_max(known, Ordering::Relaxed);
    }

    /// Goes on from a time that was known before a restart, in seconds since 1970; zero
    /// for none. That the wall clock is far ahead of it counts as a leap.
    pub fn resume(&self, known: u64) {
        let _steps = self.lock();
        let (known, wall) = (Duration::from_secs(known), (self.wall)());
        let floor = if known.is_zero() || known + LEAP >= wall {
            known.max(wall)
        } else {
            known
        };
        self.floor.store(millis(floor), Ordering::Relaxed);
    }

    /// Follows the clocks. To be called every [`TICK`].
    pub fn tick(&self) {
        let (mut steps, now, wall) = (self.lock(), Instant::now(), (self.wall)());
        let floor = self.remembered();
        let expected = floor + now.saturating_duration_since(steps.at);
        steps.at = now;
        let next = if wall > expected + LEAP {
            let since = *steps.leapt.get_or_insert(now);
            if now.saturating_duration_since(since) < LEAP_LASTS {
                expected
            } else {
                steps.leapt = None;
                wall
            }
        } else {
            steps.leapt = None;
            // A small step back is sat out; by a larger one time must not stand still.
            if expected > wall + LAG_MAX {
                expected
            } else {
                wall.max(floor)
            }
        };
        self.floor.store(millis(next), Ordering::Relaxed);
    }

    /// Time by which the wall clock is behind, if that is more than [`LAG_MAX`].
    pub fn behind(&self) -> Option<Duration> {
        let lag = self.remembered().saturating_sub((self.wall)());
        (lag > LAG_MAX).then_some(lag)
    }

    /// Goes back to what the wall clock says: because a person said that the newest
    /// time was wrong.
    pub fn set_back(&self) {
        let mut steps = self.lock();
        (steps.at, steps.leapt) = (Instant::now(), None);
        self.floor.store(millis((self.wall)()), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for NewestTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewestTime")
            .field("remembered", &self.remembered())
            .finish_non_exhaustive()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const HOUR: u64 = 3_600;

    /// A wall clock that can be set, and the newest time by it.
    fn clocks() -> (Arc<AtomicU64>, NewestTime) {
        let wall = Arc::new(AtomicU64::new(NOW));
        let read = Arc::clone(&wall);
        let newest = NewestTime::of(move || Duration::from_secs(read.load(Ordering::Relaxed)));
        (wall, newest)
    }

    async fn pass(wall: &AtomicU64, newest: &NewestTime, seconds: u64) {
        for _ in 0..seconds {
            tokio::time::advance(TICK).await;
            wall.fetch_add(1, Ordering::Relaxed);
            newest.tick();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_back_is_not_followed_and_told() {
        let (wall, newest) = clocks();
        pass(&wall, &newest, 100).await;
        assert_eq!((newest.seconds(), newest.behind()), (NOW + 100, None));
        wall.fetch_sub(HOUR, Ordering::Relaxed);
        pass(&wall, &newest, 30).await;
        assert_eq!(newest.seconds(), NOW + 130);
        assert_eq!(newest.behind(), Some(Duration::from_secs(HOUR)));
        wall.fetch_add(HOUR, Ordering::Relaxed);
        pass(&wall, &newest, 1).await;
        assert_eq!((newest.seconds(), newest.behind()), (NOW + 131, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_step_back_is_sat_out() {
        let (wall, newest) = clocks();
        wall.fetch_sub(5, Ordering::Relaxed);
        pass(&wall, &newest, 3).await;
        assert_eq!((newest.seconds(), newest.behind()), (NOW, None));
        pass(&wall, &newest, 4).await;
        assert_eq!(newest.seconds(), NOW + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_ahead_is_believed_at_once_and_remembered_after_minutes() {
        let (wall, newest) = clocks();
        wall.fetch_add(1_000 * HOUR, Ordering::Relaxed);
        pass(&wall, &newest, 30).await;
        assert_eq!(newest.seconds(), NOW + 1_000 * HOUR + 30);
        wall.fetch_sub(1_000 * HOUR, Ordering::Relaxed);
        pass(&wall, &newest, 1).await;
        assert_eq!((newest.seconds(), newest.behind()), (NOW + 31, None));
        wall.fetch_add(1_000 * HOUR, Ordering::Relaxed);
        pass(&wall, &newest, 310).await;
        wall.fetch_sub(1_000 * HOUR, Ordering::Relaxed);
        pass(&wall, &newest, 1).await;
        assert_eq!(newest.behind(), Some(Duration::from_secs(1_000 * HOUR)));
        newest.set_back();
        assert_eq!((newest.seconds(), newest.behind()), (NOW + 342, None));
    }

    #[test]
    fn a_time_that_was_known_before_a_restart_counts() {
        let (_, newest) = clocks();
        newest.resume(NOW - HOUR);
        assert_eq!((newest.seconds(), newest.behind()), (NOW, None));
        assert_eq!(
            newest.remembered().as_secs(),
            NOW - HOUR,
            "it may be a mistake"
        );
        newest.resume(NOW - 1);
        assert_eq!(newest.remembered().as_secs(), NOW);
        newest.resume(NOW + HOUR);
        newest.learn(NOW + 1);
        assert_eq!(newest.seconds(), NOW + HOUR);
        assert_eq!(newest.behind(), Some(Duration::from_secs(HOUR)));
    }
}
