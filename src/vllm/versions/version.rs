//! A version number, as far as options depend on it.

use std::fmt;
use std::str::FromStr;

/// A version as far as options depend on it: three numbers. Suffixes, as in
/// `0.32.0+cpu` or `0.11.0rc1`, are read over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

/// Not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a vLLM version: write it as \"0.32.0\"")]
pub struct InvalidVersion(String);

impl Version {
    /// Below every version.
    pub const MIN: Self = Self::new(0, 0, 0);
    /// Above every version.
    pub const MAX: Self = Self::new(u32::MAX, u32::MAX, u32::MAX);

    /// The version of three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// The share of each GPU's memory that this version takes where none is named. vLLM
    /// 0.15.0 still takes 0.9, and 0.25.0 takes 0.92; one in between is taken for the more.
    pub fn memory_share(self) -> f64 {
        if self <= Self::new(0, 15, 0) {
            0.9
        } else {
            0.92
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let wrong = || InvalidVersion(text.chars().take(40).collect());
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_');
        let text = text.strip_prefix('v').unwrap_or(text);
        if text.len() > 64 || !text.chars().all(allowed) {
            return Err(wrong());
        }
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (numbers, suffix) = text.split_at(end);
        // "0.11.0.dev3" leaves a dot before its suffix.
        let numbers = if suffix.is_empty() {
            numbers
        } else {
            numbers.strip_suffix('.').unwrap_or(numbers)
        };
        let mut parts = [0; 3];
        let mut count = 0;
        for (i, part) in numbers.split('.').enumerate() {
            let number = part.parse().map_err(|_| wrong())?;
            // A fourth number, as in 0.8.5.1, changes no option.
            if let Some(place) = parts.get_mut(i) {
                *place = number;
            }
            count = i + 1;
        }
        let [major, minor, patch] = parts;
        if (2..=4).contains(&count) {
            Ok(Self::new(major, minor, patch))
        } else {
            Err(wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_and_are_in_order() {
        for (text, version) in [
            ("0.7.2", Version::new(0, 7, 2)),
            ("v0.32.0+cpu", Version::new(0, 32, 0)),
            ("0.11.0rc1", Version::new(0, 11, 0)),
            ("0.8.5.post1", Version::new(0, 8, 5)),
            ("0.9.2.dev3+gabc", Version::new(0, 9, 2)),
            ("1.0", Version::new(1, 0, 0)),
        ] {
            assert_eq!(text.parse(), Ok(version), "{text}");
        }
        for bad in [
            "",
            "7",
            "latest",
            "0..2",
            "0.7.2;id",
            "--0.7",
            "1.2.3.4.5",
            "a.b.c",
            "0.7.99999999999",
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
        assert!(Version::new(0, 9, 2) < Version::new(0, 11, 0));
    }

    #[test]
    fn newer_versions_take_more_of_a_gpu() {
        for (version, share) in [
            ("0.7.2", 0.9),
            ("0.15.0", 0.9),
            ("0.15.1", 0.92),
            ("0.32.0", 0.92),
        ] {
            let version: Version = version.parse().unwrap();
            assert!((version.memory_share() - share).abs() < 1e-9, "{version}");
        }
    }
}
