//! Content of a file, before anything is known of it: values with their lines.
//!
//! TOML and JSON both become this tree, so the rest of the room reads one
//! shape and every error can name a line. It knows no key.

mod json;
mod toml_text;

use std::path::Path;

use super::error::FileError;

/// Deepest nesting of tables and lists that is accepted.
pub(super) const DEPTH_MAX: usize = 32;
/// Largest file that is read, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// A value, and the line where it starts, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Its line.
    pub(super) line: usize,
    /// The value.
    pub(super) value: Value,
}

/// Value behind a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// JSON's null: as if the key were not there.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A text.
    Text(String),
    /// A TOML date or time; no key takes one.
    Date,
    /// A list.
    List(Vec<Node>),
    /// A table, or JSON object.
    Table(Vec<Entry>),
}

impl Value {
    /// Kind of the value, in words for an error.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// The line of the key, from 1.
    pub(super) line: usize,
    /// Its value.
    pub(super) node: Node,
}

/// Reason why a text is not a tree: a line and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// The line, from 1.
    line: usize,
    /// The error and what to write instead; no final full stop.
    message: String,
}

/// Offsets where the lines of a text begin, to turn offsets into lines.
struct Lines {
    /// Offset of each line feed.
    ends: Vec<usize>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let ends = memchr::memchr_iter(b'\n', text.as_bytes()).collect();
        Self { ends }
    }

    /// The line that holds this offset, from 1.
    fn at(&self, offset: usize) -> usize {
        self.ends.partition_point(|&end| end < offset) + 1
    }
}

/// Reads the content of a file into a tree: JSON if its name ends so, else TOML.
///
/// # Errors
///
/// Each place where it is not text, not TOML or not JSON.
pub(super) fn parse(file: &Path, content: &[u8]) -> Result<Node, Vec<FileError>> {
    let in_file = |error: SyntaxError| FileError {
        file: file.to_owned(),
        line: Some(error.line),
        key: String::new(),
        message: error.message,
    };
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") {
        let message = "this file is UTF-16: save it as UTF-8".to_owned();
        return Err(vec![in_file(SyntaxError { line: 1, message })]);
    }
    let text = std::str::from_utf8(content).map_err(|error| {
        let before = content.get(..error.valid_up_to()).unwrap_or_default();
        vec![in_file(SyntaxError {
            line: memchr::memchr_iter(b'\n', before).count() + 1,
            message: "there is a byte here that is not UTF-8: save the file as UTF-8".to_owned(),
        })]
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if file
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        json::parse(text).map_err(|error| vec![in_file(error)])
    } else {
        toml_text::parse(text).map_err(|errors| errors.into_iter().map(in_file).collect())
    }
}

/// Reads one value as TOML writes it behind a key.
///
/// # Errors
///
/// Words for what is wrong with it.
pub(super) fn toml_value(text: &str) -> Result<Node, String> {
    let tree = toml_text::parse(&format!("value = {}", text.trim()));
    let node = tree.map_err(|errors| {
        let first = errors.into_iter().next();
        first.map_or_else(String::new, |error| error.message)
    })?;
    match node.value {
        Value::Table(mut entries) if entries.len() == 1 => Ok(entries.pop().map_or(
            Node {
                line: 1,
                value: Value::Null,
            },
            |entry| entry.node,
        )),
        _ => Err("this is more than one value: write one".to_owned()),
    }
}
