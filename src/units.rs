//! Durations and sizes as people write them: `"15s"`, `"1h30m"`, `"64MiB"`.
//!
//! Config, the command line and error messages all read and print through here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reason for which a text is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// The text is not a duration.
    #[error(
        "{0:?} is not a duration: write a number and a unit, as \"300ms\", \"15s\", \"5m\", \"4h\", \"30d\""
    )]
    Duration(String),
    /// The text is not a size.
    #[error("{0:?} is not a size: write a number and a unit, as \"64MiB\", \"16GiB\", \"500MB\"")]
    Size(String),
}

/// A count or a size as a float, for plots, metrics and ratios.
#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 the last digit does not matter there"
)]
pub fn float(value: u64) -> f64 {
    value as f64
}

/// Reads a share of 0 to 1, as `"50%"`, or a size; `None`: the text is neither.
pub fn share_or_size<T>(text: &str, share: fn(f64) -> T, size: fn(u64) -> T) -> Option<T> {
    if let Some(percent) = text.trim().strip_suffix('%') {
        let percent: f64 = percent.trim_end().parse().ok()?;
        let is_share = (0.0..=100.0).contains(&percent);
        return is_share.then(|| share(percent / 100.0));
    }
    let bytes: Bytes = text.parse().ok()?;
    Some(size(bytes.0))
}

/// A share of so many bytes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the whole"
)]
pub fn share_of(total: u64, share: f64) -> u64 {
    (float(total) * share) as u64
}

/// A size in gibibytes.
pub fn gibibytes(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 30)
}

/// So many gibibytes in bytes; of numbers that no size has, the nearest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive size far below 2^53"
)]
pub fn of_gibibytes(gib: f64) -> u64 {
    (gib.clamp(0.0, 1e6) * f64::from(1 << 30)) as u64
}

/// A number of things, as `1 request` or `3 requests`.
pub fn counted<N: fmt::Display + Copy + PartialEq + From<u8>>(n: N, thing: &str) -> String {
    let plural = if n == N::from(1) { "" } else { "s" };
    format!("{n} {thing}{plural}")
}

/// A span of time: `"15s"`, `"1h30m"`, `"1.5h"`; at most 100 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

const SPAN_UNITS: [(&str, f64); 6] = [
    ("ms", 1e-3),
    ("us", 1e-6),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
];

/// Longest span that is accepted, in seconds: 100 years.
const SPAN_SECONDS_MAX: f64 = 100.0 * 365.0 * 86_400.0;

impl FromStr for Span {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let wrong = || InvalidUnit::Duration(text.chars().take(40).collect());
        let mut rest = text.trim();
        let mut seconds = 0.0;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (number, unit, after) = split_quantity(rest).ok_or_else(wrong)?;
            let (_, scale) = SPAN_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(wrong)?;
            seconds += number * scale;
            rest = after;
        }
        if !(0.0..=SPAN_SECONDS_MAX).contains(&seconds) {
            return Err(wrong());
        }
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

/// Splits `"1.5h30m"` into 1.5, `"h"` and `"30m"`.
fn split_quantity(text: &str) -> Option<(f64, &str, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let letters = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, after.trim_start()))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return match self.0.as_micros() {
                0 => f.write_str("0s"),
                us => write!(f, "{us}us"),
            };
        }
        for (unit, size) in [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
            ("ms", 1),
        ] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A number of bytes: `"64MiB"`, `"500MB"`, `"1024B"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const SIZE_UNITS: [(&str, f64); 9] = [
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

/// Largest size that is accepted: 2^53 bytes, exact in a float.
const SIZE_MAX: f64 = 9_007_199_254_740_992.0;

impl FromStr for Bytes {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let wrong = || InvalidUnit::Size(text.chars().take(40).collect());
        let (number, unit, after) = split_quantity(text.trim()).ok_or_else(wrong)?;
        let (_, scale) = SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        let bytes = number * scale;
        if !after.is_empty() || !(0.0..=SIZE_MAX).contains(&bytes) {
            return Err(wrong());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 2^53, checked above"
        )]
        let whole = bytes.round() as u64;
        Ok(Self(whole))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = ("B", 1);
        for larger in [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1_u64 << 40),
        ] {
            if self.0 >= larger.1 {
                unit = larger;
            }
        }
        let (name, size) = unit;
        let (whole, rest) = (self.0 / size, self.0 % size);
        if rest == 0 {
            write!(f, "{whole}{name}")
        } else {
            write!(f, "{whole}.{}{name}", rest * 10 / size)
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! serde_as_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(Span);
serde_as_text!(Bytes);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, millis) in [
            ("0s", 0),
            ("300ms", 300),
            ("15s", 15_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("30d", 2_592_000_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_millis(), millis, "{text}");
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        for bad in [
            "",
            "15",
            "s",
            "15 seconds",
            "-1s",
            "1e3s",
            "NaNs",
            "999999999d",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("500MB", 500_000_000),
            ("0B", 0),
        ] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes, "{text}");
        }
        assert_eq!(Bytes(80 << 30).to_string(), "80GiB");
        assert_eq!(Bytes((3 << 29) + 1).to_string(), "1.5GiB");
        for bad in ["", "64", "MiB", "-1GiB", "64mb", "1GiB2MiB", "99999999TiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
    }
}
