//! Rate at which bytes come, and the time that the rest takes.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::time::Uptime;
use crate::units::{Bytes, float};

/// Span that the rate is taken over.
const WINDOW: Duration = Duration::from_secs(15);

/// Progress of the fetch of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that are here.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
    /// Bytes a second, of the last seconds; `None` until some came.
    pub rate: Option<u64>,
    /// Time that the rest takes at that rate.
    pub left: Option<Duration>,
}

impl FetchProgress {
    /// Progress of a fetch of `total` bytes.
    pub fn of(pace: &Pace, done: u64, total: u64) -> Self {
        Self {
            done,
            total,
            rate: pace.whole_rate(),
            left: pace.left(total).map(Duration::from_secs),
        }
    }

    /// Percent that is here.
    pub fn percent(&self) -> u8 {
        let percent = self.done.saturating_mul(100).checked_div(self.total);
        percent.map_or(100, |percent| u8::try_from(percent).unwrap_or(100).min(100))
    }
}

impl fmt::Display for FetchProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", Bytes(self.done), Bytes(self.total))?;
        match self.rate {
            Some(rate) => write!(f, ", {}/s", Bytes(rate)),
            None => Ok(()),
        }
    }
}

/// Bytes that were there at some moments of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Pace(VecDeque<(Uptime, u64)>);

impl Pace {
    /// Notes how many are there.
    pub fn note(&mut self, now: Uptime, done: u64) {
        while let Some((at, _)) = self.0.front()
            && self.0.len() > 2
            && now.saturating_sub(*at) > WINDOW
        {
            self.0.pop_front();
        }
        self.0.push_back((now, done));
    }

    /// Bytes a second; `None` until two moments differ.
    pub fn rate(&self) -> Option<f64> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let seconds = last.0.saturating_sub(first.0).as_secs_f64();
        (seconds > 0.0).then(|| float(last.1.saturating_sub(first.1)) / seconds)
    }

    /// The rate in whole bytes; `None` where nothing comes.
    pub fn whole_rate(&self) -> Option<u64> {
        let rate = self.rate().filter(|rate| *rate >= 1.0)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not below zero, and a float that is too large becomes the largest"
        )]
        Some(rate as u64)
    }

    /// Seconds until `total` are there; `None` where nothing comes.
    pub fn left(&self, total: u64) -> Option<u64> {
        let rate = self.rate().filter(|rate| *rate >= 1.0)?;
        let rest = total.saturating_sub(self.0.back()?.1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not below zero, and a float that is too large becomes the largest"
        )]
        Some((float(rest) / rate).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        assert_eq!((pace.rate(), pace.left(100)), (None, None));
        for second in 0..60_u64 {
            let done = if second < 30 {
                second
            } else {
                30 + (second - 30) * 10
            };
            pace.note(Duration::from_secs(second), done);
        }
        assert_eq!(pace.rate(), Some(10.0));
        assert_eq!(pace.left(420), Some(10));
        for second in 60..90 {
            pace.note(Duration::from_secs(second), 320);
        }
        assert_eq!(pace.left(420), None);
    }
}
