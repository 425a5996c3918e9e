//! Texts for people that name deployments.
//!
//! The names stand apart from the words, so that code that shows a text to someone decides
//! for each name if they may know it, and never has to look for names in words.

use std::fmt;
use std::sync::Arc;

use crate::names::DeploymentId;

/// Words in place of a name that a reader may not know.
const ANOTHER: &str = "another project's deployment";

/// A text, and the deployments that it names. A clone shares both.
///
/// Written out whole by `Display`: for the log, and for readers who may know all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling(Arc<[Part]>);

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words that anyone may read.
    Words(Arc<str>),
    /// A name that its project's people may read.
    Deployment(DeploymentId),
}

impl From<&str> for Part {
    fn from(words: &str) -> Self {
        Self::Words(Arc::from(words))
    }
}

impl From<String> for Part {
    fn from(words: String) -> Self {
        Self::Words(Arc::from(words))
    }
}

impl From<&DeploymentId> for Part {
    fn from(id: &DeploymentId) -> Self {
        Self::Deployment(id.clone())
    }
}

impl From<&str> for Telling {
    fn from(words: &str) -> Self {
        Self(Arc::from([words.into()]))
    }
}

impl From<String> for Telling {
    fn from(words: String) -> Self {
        Self(Arc::from([words.into()]))
    }
}

impl FromIterator<Part> for Telling {
    fn from_iter<I: IntoIterator<Item = Part>>(pieces: I) -> Self {
        Self(pieces.into_iter().collect())
    }
}

impl Telling {
    /// Its parts, in their order.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.0.iter()
    }

    /// The text with words before it.
    #[must_use]
    pub fn after(&self, words: impl Into<Part>) -> Self {
        let rest = self.0.iter().cloned();
        std::iter::once(words.into()).chain(rest).collect()
    }

    /// The text with words behind it.
    #[must_use]
    pub fn then(&self, words: impl Into<Part>) -> Self {
        let first = self.0.iter().cloned();
        first.chain(std::iter::once(words.into())).collect()
    }

    /// The text for a reader, with the names left out that they may not know.
    pub fn for_reader(&self, may_know: impl Fn(&DeploymentId) -> bool) -> String {
        let piece = |piece: &Part| match piece {
            Part::Words(words) => words.to_string(),
            Part::Deployment(id) if may_know(id) => id.to_string(),
            Part::Deployment(_) => ANOTHER.to_owned(),
        };
        self.0.iter().map(piece).collect()
    }
}

impl fmt::Display for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.iter() {
            match piece {
                Part::Words(words) => f.write_str(words)?,
                Part::Deployment(id) => write!(f, "{id}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_the_names_that_they_may_know_and_the_words_as_they_are() {
        let [mine, hers] = ["mine/a", "hers/b"].map(|id| DeploymentId::parse(id).unwrap());
        let names = [Part::from(&mine), ", ".into(), Part::from(&hers)];
        let told = names.into_iter().collect::<Telling>();
        // What words say by chance is no name.
        let told = told.after("as hers/c: waits until ").then(" made room");
        let whole = "as hers/c: waits until mine/a, hers/b made room";
        assert_eq!(told.to_string(), whole);
        assert_eq!(told.for_reader(|_| true), whole);
        assert_eq!(
            told.for_reader(|id| *id == mine),
            "as hers/c: waits until mine/a, another project's deployment made room"
        );
        let unknown = told.for_reader(|_| false);
        assert_eq!(unknown.matches(ANOTHER).count(), 2, "{unknown}");
    }
}
