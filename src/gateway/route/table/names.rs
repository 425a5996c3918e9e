//! Names of models and what they lead to: each by itself, or by a pattern with `*`
//! for any run of characters.
//!
//! Owns the order: a name's own entry first, then the pattern with most letters.

use std::collections::HashMap;

use crate::auth::Pattern;
use crate::names::ModelName;

/// Entries that names lead to.
#[derive(Debug)]
pub(super) struct Names<T> {
    exact: HashMap<ModelName, T>,
    /// The one that says most about a name first.
    patterns: Vec<(Pattern, T)>,
}

/// Way in which a name was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a, T> {
    /// By itself.
    Exact(&'a T),
    /// By a pattern.
    Pattern(&'a T),
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            patterns: Vec::new(),
        }
    }
}

impl<T> Names<T> {
    /// Entry that a name leads to.
    pub(super) fn get(&self, name: &str) -> Option<Found<'_, T>> {
        if let Some(found) = self.exact.get(name) {
            return Some(Found::Exact(found));
        }
        let mut patterns = self.patterns.iter();
        let (_, found) = patterns.find(|(pattern, _)| pattern.matches(name))?;
        Some(Found::Pattern(found))
    }

    /// Entries that names lead to by themselves.
    pub(super) fn exact(&self) -> impl Iterator<Item = &T> {
        self.exact.values()
    }

    /// Entries that names and patterns lead to.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        let patterns = self.patterns.iter().map(|(_, found)| found);
        self.exact.values().chain(patterns)
    }

    /// Adds a name, or a pattern if it has a `*`. Call [`Self::sort`] after the last.
    pub(super) fn add(&mut self, name: &ModelName, leads_to: T) {
        match Pattern::new(name.as_str()) {
            Ok(pattern) if name.as_str().contains('*') => self.patterns.push((pattern, leads_to)),
            _ => {
                self.exact.insert(name.clone(), leads_to);
            }
        }
    }

    /// Puts the patterns in order.
    pub(super) fn sort(&mut self) {
        let letters = |pattern: &Pattern| pattern.as_str().bytes().filter(|&b| b != b'*').count();
        self.patterns.sort_by(|(a, _), (b, _)| {
            let longest_first = letters(b).cmp(&letters(a));
            longest_first.then_with(|| a.as_str().cmp(b.as_str()))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_its_own_comes_before_the_pattern_with_most_letters() {
        let mut names = Names::default();
        for name in ["*", "qwen-*", "*-8b", "qwen-3-*", "qwen-3-8b", "a*c", "ab*"] {
            names.add(&ModelName::new(name).unwrap(), name);
        }
        names.sort();
        assert_eq!(names.get("qwen-3-8b"), Some(Found::Exact(&"qwen-3-8b")));
        for (name, pattern) in [
            ("qwen-3-4b", "qwen-3-*"),
            ("qwen-2-8b", "qwen-*"),
            ("llama-8b", "*-8b"),
            ("llama", "*"),
            // As long: the order of the alphabet decides, not that of the files.
            ("abc", "a*c"),
        ] {
            assert_eq!(names.get(name), Some(Found::Pattern(&pattern)), "{name}");
        }
        assert_eq!(names.all().count(), 7);
        assert_eq!(names.exact().count(), 1);
    }
}
