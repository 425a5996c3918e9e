//! Takes keys out of a table, typed, and reports what is wrong or left over.
//!
//! Nothing here stops at the first error: a key that can't be read is noted in
//! [`Problems`] and counts as absent, and the holder of the problems gives the
//! result away only when there are none.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::keys::{Key, KeyTable, Kind};
use super::problems::{Problems, cut, nearest};
use super::tree::{Entry, Node, Value};
use crate::units::{Bytes, Span};

/// One table that is being read.
pub(super) struct Reader<'a> {
    entries: &'a [Entry],
    /// The line of its header.
    pub(super) line: usize,
    /// Its own dotted key; empty at the top.
    pub(super) path: String,
    /// The keys that may stand in it.
    table: &'static KeyTable,
    pub(super) problems: &'a Problems,
}

/// A value that was taken, with where it stands, for errors found later.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found<T> {
    /// The value.
    pub(super) value: T,
    /// The line of its value.
    pub(super) line: usize,
}

impl<'a> Reader<'a> {
    /// Reads the table at the top of a file.
    pub(super) fn top(node: &'a Node, table: &'static KeyTable, problems: &'a Problems) -> Self {
        Self::of(node, node.line, String::new(), table, problems)
    }

    fn of(
        node: &'a Node,
        line: usize,
        path: String,
        table: &'static KeyTable,
        problems: &'a Problems,
    ) -> Self {
        let entries = match &node.value {
            Value::Table(entries) => entries.as_slice(),
            Value::Null => &[],
            other => {
                let message = format!("write a table here, not {}", other.kind());
                problems.add(node.line, path.clone(), message);
                &[]
            }
        };
        Self {
            entries,
            line,
            path,
            table,
            problems,
        }
    }

    /// The dotted name of a key of this table.
    pub(super) fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes a problem with a key of this table.
    pub(super) fn wrong(&self, line: usize, key: &str, message: impl Into<String>) {
        self.problems.add(line, self.dotted(key), message);
    }

    /// The row of a key. One that has none would be read by no document's word: the
    /// file is refused, and a test fails.
    fn row(&self, key: &'static str) -> Option<&'static Key> {
        let row = self.table.key(key);
        if row.is_none() {
            self.fault(key);
        }
        row
    }

    /// Notes that the table of keys and the code differ.
    fn fault(&self, key: &str) {
        let message = "tidegate's own table of keys lacks this: a fault of the program";
        self.wrong(self.line, key, message);
    }

    fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.row(key)?;
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (entry.node.value != Value::Null).then_some(entry)
    }

    /// Length of the list at a key; `None` where there is no list.
    pub(super) fn list_len(&self, key: &str) -> Option<usize> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        match &entry.node.value {
            Value::List(items) => Some(items.len()),
            _ => None,
        }
    }

    /// True if a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Notes that the table itself can't be called so.
    pub(super) fn misnamed(&self, message: impl Into<String>) {
        self.problems.add(self.line, self.path.clone(), message);
    }

    /// The line of a key, that of the table where it is absent.
    pub(super) fn line_of(&self, key: &str) -> usize {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map_or(self.line, |entry| entry.node.line)
    }

    /// Takes a text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Found<&'a str>> {
        self.text_as(key, "a text in quotes")
    }

    fn text_as(&mut self, key: &'static str, wanted: &str) -> Option<Found<&'a str>> {
        let node = &self.entry(key)?.node;
        match &node.value {
            Value::Text(text) => Some(Found {
                value: text,
                line: node.line,
            }),
            other => {
                self.wrong(
                    node.line,
                    key,
                    format!("write {wanted}, not {}", other.kind()),
                );
                None
            }
        }
    }

    /// Takes a text that is not empty and has no control characters.
    pub(super) fn words(&mut self, key: &'static str) -> Option<Found<String>> {
        let text = self.text(key)?;
        if text.value.trim().is_empty() {
            self.wrong(
                text.line,
                key,
                "this is empty: write a text or leave the key out",
            );
            return None;
        }
        if text.value.chars().any(char::is_control) {
            self.wrong(text.line, key, "write one line without control characters");
            return None;
        }
        Some(Found {
            value: text.value.to_owned(),
            line: text.line,
        })
    }

    /// Takes such a text that must be there.
    pub(super) fn required_words(&mut self, key: &'static str) -> Option<Found<String>> {
        let words = self.words(key);
        if words.is_none() {
            self.missing(key, "a text in quotes");
        }
        words
    }

    /// As [`Self::missing`], where nothing was found.
    pub(super) fn missing_unless(&self, found: bool, key: &str, wanted: &str) {
        if !found {
            self.missing(key, wanted);
        }
    }

    /// Notes that a key must be there, unless it is and was noted as wrong.
    pub(super) fn missing(&self, key: &str, wanted: &str) {
        let present = self
            .entries
            .iter()
            .any(|entry| entry.key == key && entry.node.value != Value::Null);
        if !present {
            self.wrong(self.line, key, format!("this is missing: write {wanted}"));
        }
    }

    /// Takes a path.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        Some(PathBuf::from(self.words(key)?.value))
    }

    /// Takes a text that its type can read: a name, an address.
    pub(super) fn parsed<T>(&mut self, key: &'static str) -> Option<Found<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(key)?;
        self.read(&text, key)
    }

    fn read<T>(&self, text: &Found<&str>, key: &str) -> Option<Found<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        match text.value.parse() {
            Ok(value) => Some(Found {
                value,
                line: text.line,
            }),
            Err(error) => {
                self.wrong(text.line, key, error.to_string());
                None
            }
        }
    }

    /// Takes a list of texts that their type can read.
    pub(super) fn parsed_list<T>(&mut self, key: &'static str) -> Option<Found<Vec<T>>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let node = &self.entry(key)?.node;
        let Value::List(nodes) = &node.value else {
            let message = format!("write a list, as [\"…\"], not {}", node.value.kind());
            self.wrong(node.line, key, message);
            return None;
        };
        let mut values = Vec::with_capacity(nodes.len());
        for item in nodes {
            if let Value::Text(text) = &item.value {
                let found = Found {
                    value: text.as_str(),
                    line: item.line,
                };
                values.extend(self.read(&found, key).map(|found| found.value));
            } else {
                let message = format!("write texts in quotes here, not {}", item.value.kind());
                self.wrong(item.line, key, message);
            }
        }
        Some(Found {
            value: values,
            line: node.line,
        })
    }

    /// Takes a duration within its bounds.
    pub(super) fn span(&mut self, key: &'static str) -> Option<Duration> {
        let Kind::Span(least, most) = self.row(key)?.kind else {
            self.fault(key);
            return None;
        };
        let text = self.text_as(key, "a duration in quotes, as \"15s\"")?;
        let span: Found<Span> = self.read(&text, key)?;
        self.bound(key, span, (Span(least), Span(most)))
            .map(|span| span.0)
    }

    /// Takes a size within its bounds, in bytes.
    pub(super) fn size(&mut self, key: &'static str) -> Option<u64> {
        let Kind::Size(least, most) = self.row(key)?.kind else {
            self.fault(key);
            return None;
        };
        let text = self.text_as(key, "a size in quotes, as \"64MiB\"")?;
        let size: Found<Bytes> = self.read(&text, key)?;
        self.bound(key, size, (Bytes(least), Bytes(most)))
            .map(|size| size.0)
    }

    /// Takes a whole number within its bounds.
    pub(super) fn whole(&mut self, key: &'static str) -> Option<u32> {
        let Kind::Whole(least, most) = self.row(key)?.kind else {
            self.fault(key);
            return None;
        };
        let node = &self.entry(key)?.node;
        let Value::Int(number) = node.value else {
            let message = format!("write a whole number, not {}", node.value.kind());
            self.wrong(node.line, key, message);
            return None;
        };
        let found = Found {
            value: number,
            line: node.line,
        };
        let number = self.bound(key, found, (i128::from(least), i128::from(most)))?;
        u32::try_from(number).ok()
    }

    /// Takes a number within its bounds.
    pub(super) fn number(&mut self, key: &'static str) -> Option<f64> {
        let Kind::Number(least, most) = self.row(key)?.kind else {
            self.fault(key);
            return None;
        };
        let node = &self.entry(key)?.node;
        let number = match node.value {
            Value::Float(number) => number,
            #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
            Value::Int(number) => number as f64,
            _ => {
                let message = format!("write a number, not {}", node.value.kind());
                self.wrong(node.line, key, message);
                return None;
            }
        };
        let found = Found {
            value: number,
            line: node.line,
        };
        self.bound(key, found, (least, most))
    }

    fn bound<T: PartialOrd + Display>(
        &self,
        key: &str,
        Found { value, line }: Found<T>,
        (least, most): (T, T),
    ) -> Option<T> {
        if (&least..=&most).contains(&&value) {
            return Some(value);
        }
        let message = format!("{value} is out of bounds: write {least} to {most}");
        self.wrong(line, key, message);
        None
    }

    /// Takes `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<Found<bool>> {
        let node = &self.entry(key)?.node;
        if let Value::Flag(value) = node.value {
            return Some(Found {
                value,
                line: node.line,
            });
        }
        let message = format!(
            "write true or false without quotes, not {}",
            node.value.kind()
        );
        self.wrong(node.line, key, message);
        None
    }

    /// Takes one of these words.
    pub(super) fn choice<T: Clone>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<Found<T>> {
        let known = words.iter().map(|(word, _)| word);
        let is_stated = match self.row(key)?.kind {
            Kind::Choice(stated) | Kind::ChoiceOr(stated, _) => stated.iter().eq(known),
            _ => false,
        };
        if !is_stated {
            self.fault(key);
        }
        let text = self.text(key)?;
        let word = words.iter().find(|(word, _)| *word == text.value);
        if let Some((_, value)) = word {
            return Some(Found {
                value: value.clone(),
                line: text.line,
            });
        }
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let hint = nearest(text.value, words.iter().copied());
        let all = words.join("\", \"");
        let message = match hint {
            Some(near) => format!(
                "{:?} is unknown here: did you mean {near:?}?",
                cut(text.value)
            ),
            None => format!("{:?} is unknown here: write \"{all}\"", cut(text.value)),
        };
        self.wrong(text.line, key, message);
        None
    }

    /// Takes a table; `None` when it is absent.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Reader<'a>> {
        let Kind::Table(table) = self.row(key)?.kind else {
            self.fault(key);
            return None;
        };
        let entry = self.entry(key)?;
        let path = self.dotted(key);
        Some(Reader::of(
            &entry.node,
            entry.line,
            path,
            table,
            self.problems,
        ))
    }

    /// Takes the tables of `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Reader<'a>> {
        let Some(Kind::Tables(table)) = self.row(key).map(|row| row.kind) else {
            self.fault(key);
            return Vec::new();
        };
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let path = self.dotted(key);
        let Value::List(nodes) = &entry.node.value else {
            let kind = entry.node.value.kind();
            self.wrong(entry.line, key, format!("write [[{path}]], not {kind}"));
            return Vec::new();
        };
        let of = |node: &'a Node| Reader::of(node, node.line, path.clone(), table, self.problems);
        nodes.iter().map(of).collect()
    }

    /// Takes the tables of `[key.NAME]`, with their names; what is no table is noted.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(&'a str, Reader<'a>)> {
        let Some(Kind::Named(table)) = self.row(key).map(|row| row.kind) else {
            self.fault(key);
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in self.raw_table(key) {
            let path = self.dotted(&format!("{key}.{}", cut(&entry.key)));
            if matches!(entry.node.value, Value::Table(_)) {
                let reader = Reader::of(&entry.node, entry.line, path, table, self.problems);
                found.push((entry.key.as_str(), reader));
            } else {
                let message = format!("write a table here, as [{key}.NAME]");
                self.problems.add(entry.line, path, message);
            }
        }
        found
    }

    /// Takes a table whole, to be read elsewhere.
    pub(super) fn raw_table(&mut self, key: &'static str) -> &'a [Entry] {
        let Some(entry) = self.entry(key) else {
            return &[];
        };
        match &entry.node.value {
            Value::Table(entries) => entries,
            other => {
                let message = format!("write a table here, not {}", other.kind());
                self.wrong(entry.node.line, key, message);
                &[]
            }
        }
    }

    /// Ends the reading: every key that may not stand here is an error.
    pub(super) fn finish(self) {
        for entry in self.entries {
            if self.table.key(&entry.key).is_some() {
                continue;
            }
            let place = if self.path.is_empty() {
                "at the top of this file".to_owned()
            } else {
                format!("in [{}]", self.path)
            };
            let known = self.table.names();
            let message = if let Some(near) = nearest(&entry.key, known.clone()) {
                format!("this key is unknown {place}: did you mean {near:?}?")
            } else {
                let all = known.collect::<Vec<_>>().join(", ");
                format!("this key is unknown {place}: known are {all}")
            };
            self.wrong(entry.line, &cut(&entry.key), message);
        }
    }
}
