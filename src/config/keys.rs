//! Our own keys, each stated once: those of `tidegate.toml` and of route files.
//!
//! Owns names, kinds with their bounds, defaults and one sentence for each. The reader
//! ([`super::reader`]) takes bounds from here and knows no other key; the JSON Schemas,
//! `tidegate options --settings`, the block of README.md and the names of environment
//! variables are made from it. What keys mean together is code beside the readers. The
//! options of vLLM stand in their own table (`vllm::options`).

pub mod environment;
mod instances;
mod machine;
pub mod render;
mod routes;
mod settings;
mod targets;

use std::time::Duration;

pub use routes::ROUTE_FILE;
pub use settings::SETTINGS;
pub(super) use targets::WHEN;

use crate::vllm::options::OptionScope;

/// A table of a file.
#[derive(Debug)]
pub struct KeyTable {
    /// One sentence; empty for a table that only groups others.
    pub help: &'static str,
    /// Its keys, in the order in which they are shown.
    pub keys: &'static [Key],
}

impl KeyTable {
    /// The row of a key.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of its keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }
}

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Values that it takes.
    pub kind: Kind,
    /// Value that holds where it is absent.
    pub default: Default,
    /// One sentence: what it does.
    pub help: &'static str,
    /// The option of `vllm::options` that is written here; its sentence is told there.
    pub option: Option<&'static str>,
    /// True if README.md shows it.
    pub is_common: bool,
}

/// Value that holds where a key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// This value, as TOML writes it.
    Value(&'static str),
    /// Nothing, or what these words say.
    Unset(&'static str),
    /// The file is refused.
    Required,
}

/// Values that a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A text of some form.
    Text(&'static Form),
    /// A list of such texts.
    Texts(&'static Form),
    /// A whole number within bounds.
    Whole(u32, u32),
    /// A number within bounds.
    Number(f64, f64),
    /// A duration within bounds.
    Span(Duration, Duration),
    /// A size within bounds, in bytes.
    Size(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One of these words, or a list of texts of some form.
    ChoiceOr(&'static [&'static str], &'static Form),
    /// Some of these words.
    Choices(&'static [&'static str]),
    /// `[key]`
    Table(&'static KeyTable),
    /// `[[key]]`
    Tables(&'static KeyTable),
    /// `[key.NAME]`, for any name.
    Named(&'static KeyTable),
    /// Any name, as this one, with a text of some form.
    Map(&'static str, &'static Form),
    /// JSON values by top-level or dotted key of a request.
    Values,
    /// The same of numbers.
    Numbers,
    /// Options of vLLM.
    Options(OptionScope),
}

/// A form of texts.
#[derive(Debug)]
pub struct Form {
    /// In words, with their article.
    pub words: &'static str,
    /// A regular expression that every one of them fits; empty for any text.
    pub pattern: &'static str,
    /// Most characters that one has; 0 for no limit of its own.
    pub chars_max: usize,
    /// One that is right.
    pub example: &'static str,
}

impl Form {
    const fn new(words: &'static str, example: &'static str) -> Self {
        Self {
            words,
            pattern: "",
            chars_max: 0,
            example,
        }
    }

    const fn pattern(mut self, pattern: &'static str) -> Self {
        self.pattern = pattern;
        self
    }

    const fn chars_max(mut self, most: usize) -> Self {
        self.chars_max = most;
        self
    }
}

impl Key {
    const fn new(name: &'static str, kind: Kind, default: Default, help: &'static str) -> Self {
        Self {
            name,
            kind,
            default,
            help,
            option: None,
            is_common: false,
        }
    }

    const fn option(mut self, name: &'static str) -> Self {
        self.option = Some(name);
        self
    }

    const fn common(mut self) -> Self {
        self.is_common = true;
        self
    }

    /// Sentence on what it does: its own, or that of the option that it is.
    pub fn sentence(&self) -> &'static str {
        match self.option.and_then(crate::vllm::options::find) {
            Some(row) => row.help,
            None => self.help,
        }
    }
}

const fn flag(name: &'static str, default: bool, help: &'static str) -> Key {
    let default = Default::Value(if default { "true" } else { "false" });
    Key::new(name, Kind::Flag, default, help)
}

const fn text(
    name: &'static str,
    form: &'static Form,
    default: Default,
    help: &'static str,
) -> Key {
    Key::new(name, Kind::Text(form), default, help)
}

const fn texts(
    name: &'static str,
    form: &'static Form,
    default: Default,
    help: &'static str,
) -> Key {
    Key::new(name, Kind::Texts(form), default, help)
}

const fn whole(
    name: &'static str,
    bounds: (u32, u32),
    default: Default,
    help: &'static str,
) -> Key {
    Key::new(name, Kind::Whole(bounds.0, bounds.1), default, help)
}

const fn number(
    name: &'static str,
    bounds: (f64, f64),
    default: Default,
    help: &'static str,
) -> Key {
    Key::new(name, Kind::Number(bounds.0, bounds.1), default, help)
}

const fn span(
    name: &'static str,
    bounds: (Duration, Duration),
    default: Default,
    help: &'static str,
) -> Key {
    Key::new(name, Kind::Span(bounds.0, bounds.1), default, help)
}

const fn size(name: &'static str, bounds: (u64, u64), default: Default, help: &'static str) -> Key {
    Key::new(name, Kind::Size(bounds.0, bounds.1), default, help)
}

const fn choice(
    name: &'static str,
    words: &'static [&'static str],
    default: Default,
    help: &'static str,
) -> Key {
    Key::new(name, Kind::Choice(words), default, help)
}

const fn table(name: &'static str, table: &'static KeyTable) -> Key {
    Key::new(name, Kind::Table(table), Default::Unset(""), table.help)
}

const fn tables(name: &'static str, table: &'static KeyTable) -> Key {
    Key::new(name, Kind::Tables(table), Default::Unset(""), table.help)
}

const fn named(name: &'static str, table: &'static KeyTable) -> Key {
    Key::new(name, Kind::Named(table), Default::Unset(""), table.help)
}

/// No value, and nothing to say about that.
const NONE: Default = Default::Unset("");

const fn is(value: &'static str) -> Default {
    Default::Value(value)
}

const fn unset(words: &'static str) -> Default {
    Default::Unset(words)
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(365 * 24);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// At least a millisecond, at most a day.
const LIMIT: (Duration, Duration) = (MILLISECOND, DAY);
/// At most a day.
const UP_TO_A_DAY: (Duration, Duration) = (Duration::ZERO, DAY);

const NAME: Form = Form::new(
    "a name of 1 to 63 letters, digits, '.', '_' and '-'",
    "research",
)
.pattern("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$");
const WORDS: Form = Form::new("a line of text", "tidegate");
const FILE: Form = Form::new("the path of a file", "certs/ca.pem");
const DIRECTORY: Form = Form::new("the path of a directory", "/models");
const VARIABLE: Form = Form::new("the name of an environment variable", "UPSTREAM_KEY")
    .pattern("^[A-Za-z_][A-Za-z0-9_]*$");
const HEADER: Form = Form::new("the name of a header", "x-session-id");
const MODEL: Form = Form::new("the name of a model", "qwen3-8b")
    .pattern("^[^\\s\"\\\\]+$")
    .chars_max(256);
const REQUESTS: (u32, u32) = (1, 1_000_000);
const BUDGET: Form = Form::new("a share or a size", "50%").pattern("^[0-9.]+ ?(%|([KMGT]i?)?B)$");

#[cfg(test)]
mod tests;
