//! A value of an option, checked against its row.
//!
//! What an option takes is decided here once. Texts that vLLM would read as a
//! flag, control characters and over-long values never become a [`Value`], so
//! whoever builds a command line does not check again.

use std::fmt;

use serde_json::{Map, Value as Json};

use super::row::{Kind, OptionRow};

/// Longest text of one value, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 4 << 10;
/// Longest JSON of one value, in bytes; Linux takes 128 KiB in one argument.
const JSON_BYTES_MAX: usize = 64 << 10;
/// Most entries of one list.
const ENTRIES_MAX: usize = 256;

/// A secret; prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the environment of a process and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// Written in place.
    Literal(Secret),
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
        Kind::Switch | Kind::TriState => switch(raw),
        Kind::Integer { min, max } => integer(raw, min, max),
        Kind::Tokens => tokens(raw),
        Kind::Float { min, max } => float(raw, min, max),
        Kind::Gibibytes => gibibytes(raw),
        Kind::Text => Ok(Value::Text(one_line(text(raw)?)?.to_owned())),
        Kind::Choice(choices) => choice(row, choices, raw),
        Kind::Open(usual) => open(row, usual, raw),
        Kind::Json => Ok(Value::Json(object(raw)?)),
        Kind::List => list(raw),
        Kind::Numbers => numbers(raw),
        Kind::Counts => counts(raw),
        Kind::Adapters => adapters(raw),
        Kind::CommandLine => command_line(raw),
        Kind::Secret => secret(raw),
        Kind::Duration => text(raw)?
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

/// A JSON object, given as a table or as a text.
fn object(raw: &Json) -> Result<Map<String, Json>, String> {
    let parsed = match raw {
        Json::Object(map) => map.clone(),
        Json::String(text) if text.len() > JSON_BYTES_MAX => {
            return Err(format!("the JSON is longer than {JSON_BYTES_MAX} bytes"));
        }
        Json::String(text) => match serde_json::from_str(text) {
            Ok(Json::Object(map)) => map,
            Ok(_) => return Err("the JSON is not an object; write {\"key\": value}".to_owned()),
            Err(error) => return Err(format!("the text is not JSON: {error}")),
        },
        _ => {
            return Err(format!(
                "write a table, or a JSON object as text, instead of {}",
                shown(raw)
            ));
        }
    };
    let written = serde_json::to_string(&parsed).map_err(|error| error.to_string())?;
    if written.len() > JSON_BYTES_MAX {
        return Err(format!("the JSON is longer than {JSON_BYTES_MAX} bytes"));
    }
    Ok(parsed)
}

/// The entries of an array of texts, or of one text separated by commas.
fn entries(raw: &Json) -> Result<Vec<&str>, String> {
    let wrong = || {
        format!(
            "write an array of texts, or one text separated by commas, instead of {}",
            shown(raw)
        )
    };
    let entries: Vec<&str> = match raw {
        Json::String(text) => text.split(',').map(str::trim).collect(),
        Json::Array(array) => array
            .iter()
            .map(|entry| entry.as_str().ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    if entries.is_empty() || entries.len() > ENTRIES_MAX {
        return Err(format!("write 1 to {ENTRIES_MAX} entries"));
    }
    Ok(entries)
}

fn list(raw: &Json) -> Result<Value, String> {
    let texts = entries(raw)?
        .into_iter()
        .map(|entry| one_line(entry).map(str::to_owned))
        .collect::<Result<_, _>>()?;
    Ok(Value::List(texts))
}

fn numbers(raw: &Json) -> Result<Value, String> {
    let wrong = || {
        format!(
            "write an array of positive numbers instead of {}",
            shown(raw)
        )
    };
    let numbers: Vec<f64> = match raw {
        Json::Number(number) => vec![number.as_f64().ok_or_else(wrong)?],
        Json::Array(array) => array
            .iter()
            .map(|entry| entry.as_f64().ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        _ => entries(raw)?
            .into_iter()
            .map(|entry| entry.parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?,
    };
    let good = |number: &f64| number.is_finite() && *number > 0.0;
    if numbers.is_empty() || numbers.len() > ENTRIES_MAX || !numbers.iter().all(good) {
        return Err(wrong());
    }
    Ok(Value::Numbers(numbers))
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.len() <= 63 && text.chars().all(plain)
}

fn counts(raw: &Json) -> Result<Value, String> {
    let wrong = || {
        format!(
            "write counts as {{ image = 16, video = 2 }} or \"image=16,video=2\" instead of {}",
            shown(raw)
        )
    };
    let mut counts = Map::new();
    let mut add = |name: &str, count: Option<u64>| {
        let count = count.filter(|count| *count <= 1_000_000);
        let fresh = is_name(name) && counts.len() < ENTRIES_MAX;
        match count {
            Some(count) if fresh && counts.insert(name.to_owned(), count.into()).is_none() => {
                Ok(())
            }
            _ => Err(wrong()),
        }
    };
    match raw {
        Json::Object(map) => {
            for (name, count) in map {
                add(name, count.as_u64())?;
            }
        }
        Json::String(text) if text.trim_start().starts_with('{') => {
            for (name, count) in &object(raw)? {
                add(name, count.as_u64())?;
            }
        }
        _ => {
            for entry in entries(raw)? {
                let (name, count) = entry.split_once('=').ok_or_else(wrong)?;
                add(name.trim(), count.trim().parse().ok())?;
            }
        }
    }
    if counts.is_empty() {
        return Err(wrong());
    }
    Ok(Value::Json(counts))
}

/// Adapters become `name=path`, or JSON where a base model is named.
fn adapters(raw: &Json) -> Result<Value, String> {
    let mut texts = Vec::new();
    match raw {
        Json::Object(map) => {
            for (name, path) in map {
                let path = path.as_str().ok_or("write each path as a text")?;
                texts.push(adapter(name, path, None)?);
            }
        }
        Json::Array(array) => {
            for entry in array {
                texts.push(match entry {
                    Json::Object(map) => adapter_table(map)?,
                    _ => adapter_text(text(entry)?)?,
                });
            }
        }
        _ => {
            for entry in entries(raw)? {
                texts.push(adapter_text(entry)?);
            }
        }
    }
    if texts.is_empty() || texts.len() > ENTRIES_MAX {
        return Err(format!("write 1 to {ENTRIES_MAX} adapters"));
    }
    Ok(Value::List(texts))
}

fn adapter_text(entry: &str) -> Result<String, String> {
    let (name, path) = entry
        .split_once('=')
        .ok_or_else(|| format!("write each adapter as name=path instead of {entry:?}"))?;
    adapter(name.trim(), path.trim(), None)
}

fn adapter_table(map: &Map<String, Json>) -> Result<String, String> {
    let field = |key: &str| map.get(key).and_then(Json::as_str);
    let known = ["name", "path", "base_model_name"];
    if let Some(other) = map.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!(
            "an adapter has no {other:?}, only name, path and base_model_name"
        ));
    }
    match (field("name"), field("path")) {
        (Some(name), Some(path)) => adapter(name, path, field("base_model_name")),
        _ => Err("an adapter needs a name and a path, both texts".to_owned()),
    }
}

fn adapter(name: &str, path: &str, base: Option<&str>) -> Result<String, String> {
    let name = crate::names::ModelName::new(one_line(name)?).map_err(|error| error.to_string())?;
    if name.as_str().contains(['=', ',', '{']) {
        return Err(format!(
            "the adapter's name {name:?} holds '=', ',' or '{{'"
        ));
    }
    let path = one_line(path)?;
    match base {
        None => Ok(format!("{name}={path}")),
        Some(base) => {
            let base = one_line(base)?;
            let entry = serde_json::json!({
                "name": name, "path": path, "base_model_name": base
            });
            Ok(entry.to_string())
        }
    }
}

/// Name and path of an adapter, as [`Value::List`] keeps it.
pub(crate) fn adapter_parts(entry: &str) -> Option<(String, String)> {
    if entry.starts_with('{') {
        let map: Map<String, Json> = serde_json::from_str(entry).ok()?;
        let field = |key: &str| map.get(key)?.as_str().map(str::to_owned);
        return Some((field("name")?, field("path")?));
    }
    let (name, path) = entry.split_once('=')?;
    Some((name.to_owned(), path.to_owned()))
}

/// Longest raw command line, in bytes.
const COMMAND_LINE_BYTES_MAX: usize = 32 << 10;

fn command_line(raw: &Json) -> Result<Value, String> {
    let line = text(raw)?;
    if line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(format!(
            "the arguments are longer than {COMMAND_LINE_BYTES_MAX} bytes"
        ));
    }
    crate::vllm::args::split(line)?;
    Ok(Value::Text(line.to_owned()))
}

fn secret(raw: &Json) -> Result<Value, String> {
    const HOW: &str =
        "write {env = \"NAME\"}, {file = \"PATH\"} or {secret = \"NAME\"}, or the secret as a text";
    let source = match raw {
        Json::String(text) if text == "***" => {
            return Err("*** stands for a secret that was left out; write it again".to_owned());
        }
        Json::String(text) => {
            let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
            if !plain || text.len() > TEXT_BYTES_MAX {
                return Err("a secret is one word of printable ASCII".to_owned());
            }
            SecretSource::Literal(Secret(text.clone()))
        }
        Json::Object(map) if map.len() == 1 => {
            let (key, value) = map.iter().next().ok_or(HOW)?;
            let value = one_line(value.as_str().ok_or(HOW)?)?.to_owned();
            match key.as_str() {
                "env" => SecretSource::Env(value),
                "file" => SecretSource::File(value),
                "secret" => SecretSource::Named(value),
                _ => return Err(HOW.to_owned()),
            }
        }
        // Not shown: it may hold the secret.
        _ => return Err(HOW.to_owned()),
    };
    Ok(Value::Secret(source))
}

/// A value as an error shows it, cut to a readable length.
pub(crate) fn shown(raw: &Json) -> String {
    let text = raw.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}
