//! Patterns that an endpoint token lists: names with `*` for any run of characters.
//!
//! Matching costs one pass over the name for each text between stars, and never
//! backtracks, so that no pattern in a token can be made slow.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::{InvalidName, MODEL_BYTES_MAX};

/// A route or model name, or a pattern for several: `chat`, `qwen3-*`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when it is empty, longer than a model name, or has
    /// characters that no name has.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\');
        if text.is_empty() || text.len() > MODEL_BYTES_MAX || text.chars().any(odd) {
            return Err(InvalidName {
                kind: "endpoint pattern",
                text: text.chars().take(80).collect(),
                rule: "write a route or model name of 1 to 256 printable characters \
                       without spaces, with '*' for any run of characters",
            });
        }
        Ok(Self(Arc::from(text)))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the whole of `name` fits.
    pub fn matches(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
        let Some(mut rest) = pieces.next().and_then(|first| name.strip_prefix(first)) else {
            return false;
        };
        let Some(last) = pieces.next_back() else {
            return rest.is_empty();
        };
        for piece in pieces {
            // The leftmost place leaves the most room for what follows.
            let Some((_, after)) = rest.split_once(piece) else {
                return false;
            };
            rest = after;
        }
        rest.ends_with(last)
    }
}

impl FromStr for Pattern {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, as slow as it is plain.
    fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|cut| by_definition(rest, &name[cut..])),
            Some((byte, rest)) => name
                .split_first()
                .is_some_and(|(first, tail)| first == byte && by_definition(rest, tail)),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_definition_says(
            pattern in "[ab*]{1,8}",
            name in "[ab]{0,12}",
        ) {
            let expected = by_definition(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(Pattern::new(&pattern).unwrap().matches(&name), expected);
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_not_slow() {
        let pattern = Pattern::new(&"a*".repeat(128)).unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(100))));
        assert!(pattern.matches(&"a".repeat(100_000)));
    }

    #[test]
    fn a_text_that_no_name_fits_is_not_a_pattern() {
        for bad in ["", "a b", "a\n", "\"x\"", &"x".repeat(257)] {
            assert!(Pattern::new(bad).is_err(), "{bad:?}");
        }
    }
}
