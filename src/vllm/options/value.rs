//! A value of an option, checked against its row.
//!
//! Values that an option takes are decided here once. Texts that vLLM would read as a
//! flag, control characters and over-long values never become a [`Value`], so
//! the builder of a command line does not check again.

use std::fmt;

use serde_json::{Map, Value as Json};

use super::row::{OptionRow, ValueKind};
use compound::{adapters, command_line, counts, list, numbers, object, secret};

mod compound;

pub(crate) use compound::adapter_parts;

/// Longest text of one value, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 4 << 10;

/// A secret; prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the environment of a process and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Source of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// Written in place.
    Literal(SecretText),
    /// A variable of Tidegate's environment.
    Env(String),
    /// A file; surrounding white space is cut.
    File(String),
    /// A secret of the store, by its name.
    Named(String),
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// On or off.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// A text on one line.
    Text(String),
    /// A JSON object.
    Json(Map<String, Json>),
    /// Texts.
    List(Vec<String>),
    /// Numbers.
    Numbers(Vec<f64>),
    /// A secret.
    Secret(SecretSource),
}

impl Value {
    /// The value as a file states it. Secrets written in place print as `***`.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Bool(value) => Json::Bool(*value),
            Self::Integer(value) => Json::from(*value),
            Self::Float(value) => Json::from(*value),
            Self::Text(text) => Json::from(text.as_str()),
            Self::Json(map) => Json::Object(map.clone()),
            Self::List(texts) => Json::from(texts.clone()),
            Self::Numbers(numbers) => Json::from(numbers.clone()),
            Self::Secret(source) => match source {
                SecretSource::Literal(_) => Json::from("***"),
                SecretSource::Env(name) => serde_json::json!({ "env": name }),
                SecretSource::File(path) => serde_json::json!({ "file": path }),
                SecretSource::Named(name) => serde_json::json!({ "secret": name }),
            },
        }
    }
}

/// Checks a value against a row. The error says what to write instead.
pub(super) fn parse(row: &OptionRow, raw: &Json) -> Result<Value, String> {
    match row.kind {
        ValueKind::Switch | ValueKind::TriState => switch(raw),
        ValueKind::Integer { min, max } => integer(raw, min, max),
        ValueKind::Tokens => tokens(raw),
        ValueKind::Float { min, max } => float(raw, min, max),
        ValueKind::Gibibytes => gibibytes(raw),
        ValueKind::Text => Ok(Value::Text(one_line(text(raw)?)?.to_owned())),
        ValueKind::Choice(choices) => choice(row, choices, raw),
        ValueKind::Open(usual) => open(row, usual, raw),
        ValueKind::Json => Ok(Value::Json(object(raw)?)),
        ValueKind::List => list(raw),
        ValueKind::Numbers => numbers(raw),
        ValueKind::Counts => counts(raw),
        ValueKind::Adapters => adapters(raw),
        ValueKind::CommandLine => command_line(raw),
        ValueKind::Secret => secret(raw),
        ValueKind::Duration => text(raw)?
            .parse::<crate::units::Span>()
            .map(|span| Value::Text(span.to_string()))
            .map_err(|error| error.to_string()),
    }
}

fn switch(raw: &Json) -> Result<Value, String> {
    raw.as_bool()
        .map(Value::Bool)
        .ok_or_else(|| format!("write true or false instead of {}", shown(raw)))
}

fn integer(raw: &Json, min: i64, max: i64) -> Result<Value, String> {
    match raw.as_i64() {
        Some(value) if (min..=max).contains(&value) => Ok(Value::Integer(value)),
        _ => Err(format!(
            "write a whole number from {min} to {max} instead of {}",
            shown(raw)
        )),
    }
}

/// Most tokens that a context may have.
const TOKENS_MAX: f64 = 1e9;

fn tokens(raw: &Json) -> Result<Value, String> {
    let wrong = || {
        format!(
            "write a number of tokens, as 4096, \"32k\" (thousands) or \"32K\" (1024s), or \"auto\", instead of {}",
            shown(raw)
        )
    };
    if raw.as_str() == Some("auto") || raw.as_i64() == Some(-1) {
        return Ok(Value::Integer(-1));
    }
    let count = match raw {
        Json::Number(_) => raw.as_i64().ok_or_else(wrong)?,
        Json::String(text) => scaled(text).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    #[expect(clippy::cast_precision_loss, reason = "only compared with a bound")]
    let fits = count >= 1 && count as f64 <= TOKENS_MAX;
    fits.then_some(Value::Integer(count)).ok_or_else(wrong)
}

/// Reads `32k`, `32K`, `25.6k` as vLLM 0.32 does: small letters are thousands,
/// capital ones 1024s, and only thousands take a fraction.
pub(crate) fn scaled(text: &str) -> Option<i64> {
    let (number, scale) = match text.char_indices().last()? {
        (at, 'k') => (text.get(..at)?, 1e3),
        (at, 'K') => (text.get(..at)?, 1024.0),
        (at, 'm') => (text.get(..at)?, 1e6),
        (at, 'M') => (text.get(..at)?, 1_048_576.0),
        _ => (text, 1.0),
    };
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    let binary = text.ends_with(['K', 'M']) || number.len() == text.len();
    if number.is_empty() || !number.chars().all(plain) || (binary && number.contains('.')) {
        return None;
    }
    let count = number.parse::<f64>().ok()? * scale;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "between 1 and 10^9; vLLM cuts the fraction too"
    )]
    (1.0..=TOKENS_MAX)
        .contains(&count)
        .then_some(count.trunc() as i64)
}

fn float(raw: &Json, min: f64, max: f64) -> Result<Value, String> {
    match raw.as_f64() {
        Some(value) if (min..=max).contains(&value) => Ok(Value::Float(value)),
        _ => Err(format!(
            "write a number from {min} to {max} instead of {}",
            shown(raw)
        )),
    }
}

/// Largest amount of memory, in GiB.
const GIB_MAX: f64 = 1_048_576.0;

fn gibibytes(raw: &Json) -> Result<Value, String> {
    let wrong = || {
        format!(
            "write a number of GiB from 0 to {GIB_MAX}, or a size as \"10GiB\", instead of {}",
            shown(raw)
        )
    };
    let gib = match raw {
        Json::String(text) => {
            let bytes: crate::units::Bytes = text.parse().map_err(|_| wrong())?;
            #[expect(clippy::cast_precision_loss, reason = "at most 2^53 bytes, exact")]
            let bytes = bytes.0 as f64;
            bytes / 1_073_741_824.0
        }
        _ => raw.as_f64().ok_or_else(wrong)?,
    };
    (0.0..=GIB_MAX)
        .contains(&gib)
        .then_some(Value::Float(gib))
        .ok_or_else(wrong)
}

fn text(raw: &Json) -> Result<&str, String> {
    raw.as_str()
        .ok_or_else(|| format!("write a text instead of {}", shown(raw)))
}

/// A text that may stand alone as an argument's value.
pub(crate) fn one_line(text: &str) -> Result<&str, String> {
    if text.trim().is_empty() {
        Err("the text is empty; leave the option out instead".to_owned())
    } else if text.len() > TEXT_BYTES_MAX {
        Err(format!("the text is longer than {TEXT_BYTES_MAX} bytes"))
    } else if text.chars().any(char::is_control) {
        Err("the text holds a line break or another control character; write one plain line".into())
    } else if text.starts_with('-') {
        let shown: String = text.chars().take(40).collect();
        Err(format!(
            "{shown:?} begins with '-': vLLM would read it as a flag"
        ))
    } else {
        Ok(text)
    }
}

fn canonical<'a>(row: &OptionRow, text: &'a str) -> &'a str {
    row.synonyms
        .iter()
        .find(|(other, _)| *other == text)
        .map_or(text, |(_, meant)| meant)
}

fn choice(row: &OptionRow, choices: &[&str], raw: &Json) -> Result<Value, String> {
    let word = canonical(row, text(raw)?);
    if choices.contains(&word) {
        return Ok(Value::Text(word.to_owned()));
    }
    Err(format!(
        "write one of {} instead of {}",
        choices.join(", "),
        shown(raw)
    ))
}

fn open(row: &OptionRow, usual: &[&str], raw: &Json) -> Result<Value, String> {
    let word = one_line(canonical(row, text(raw)?))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if word.chars().all(plain) {
        return Ok(Value::Text(word.to_owned()));
    }
    Err(format!(
        "write one word, as {}, instead of {}",
        usual.join(", "),
        shown(raw)
    ))
}

/// A value as an error shows it, cut to a readable length.
pub(crate) fn shown(raw: &Json) -> String {
    let text = raw.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}
