//! Options of one deployment, checked against the table.
//!
//! A set holds only names of the table and values of their kinds. What depends
//! on the vLLM version or on other options is checked later, where those are
//! known.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json};

use super::row::{Home, OptionScope};
use super::value::{self, SecretSource, SecretText, Value};
use super::{OPTIONS, OptionRow, find, find_label};

/// Error of one option, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The option's name, as it was written.
    pub key: String,
    /// The sentence, without a final full stop.
    pub message: String,
}

impl OptionError {
    /// An error at an option.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for OptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl std::error::Error for OptionError {}

/// Options of one deployment by name, checked against the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptionSet {
    values: BTreeMap<&'static str, Value>,
}

impl OptionSet {
    /// Reads an options table. `scope` says which: an option that may not stand
    /// there is refused.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, in the order of the names.
    pub fn parse(scope: OptionScope, raw: &Map<String, Json>) -> Result<Self, Vec<OptionError>> {
        let mut set = Self::default();
        let mut errors = Vec::new();
        for (key, raw) in raw {
            match checked(scope, key, raw) {
                Ok((row, value)) => {
                    set.values.insert(row.name, value);
                }
                Err(message) => errors.push(OptionError::new(shown_key(key), message)),
            }
        }
        errors.sort_by(|a, b| a.key.cmp(&b.key));
        if errors.is_empty() {
            Ok(set)
        } else {
            Err(errors)
        }
    }

    /// These options with those of `other` over them: first the instance's, then
    /// the deployment's.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut values = self.values.clone();
        for (name, value) in &other.values {
            values.insert(name, value.clone());
        }
        Self { values }
    }

    /// True if nothing is set.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Number of options that are set.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True if an option is set.
    pub fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.values.iter().map(|(name, value)| (*name, value))
    }

    /// Rows and values, in the order of the table.
    pub fn rows(&self) -> impl Iterator<Item = (&'static OptionRow, &Value)> {
        OPTIONS
            .iter()
            .filter_map(|row| Some((row, self.values.get(row.name)?)))
    }

    /// The value of a switch; `None` where it is unset.
    pub fn get_bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// True if a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get_bool(name) == Some(true)
    }

    /// The value of a whole number.
    pub fn get_integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of a number.
    pub fn get_float(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of a text, a choice or a span of time.
    pub fn get_text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a JSON option, or of counts.
    pub fn get_json(&self, name: &str) -> Option<&Map<String, Json>> {
        match self.get(name)? {
            Value::Json(value) => Some(value),
            _ => None,
        }
    }

    /// The entries of a list.
    pub fn get_list(&self, name: &str) -> Option<&[String]> {
        match self.get(name)? {
            Value::List(value) => Some(value),
            _ => None,
        }
    }

    /// Source of a secret.
    pub fn get_secret(&self, name: &str) -> Option<&SecretSource> {
        match self.get(name)? {
            Value::Secret(value) => Some(value),
            _ => None,
        }
    }

    /// Names and paths of the adapters in `lora_modules`, in their order. Each
    /// name is one that clients may write in `model`. Empty while `enable_lora` is
    /// off.
    pub fn adapters(&self) -> Vec<(String, String)> {
        if !self.is_on("enable_lora") {
            return Vec::new();
        }
        let entries = self.get_list("lora_modules").unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| value::adapter_parts(entry))
            .collect()
    }

    /// GPUs that a worker needs: tensor times pipeline parallel size.
    pub fn gpus(&self) -> u64 {
        let size = |name| {
            let size = self.get_integer(name).unwrap_or(1);
            u64::try_from(size).unwrap_or(1)
        };
        size("tensor_parallel_size").saturating_mul(size("pipeline_parallel_size"))
    }

    /// Takes secrets that were written in place out of the set, leaving the name
    /// that `name_of` gives to each. What is left can be stored and shown.
    pub fn take_secrets(
        &mut self,
        mut name_of: impl FnMut(&str) -> String,
    ) -> Vec<(String, SecretText)> {
        let mut taken = Vec::new();
        for (option, value) in &mut self.values {
            if let Value::Secret(SecretSource::Literal(secret)) = value {
                let name = name_of(option);
                taken.push((name.clone(), secret.clone()));
                *value = Value::Secret(SecretSource::Named(name));
            }
        }
        taken
    }

    /// The options as a file states them; secrets written in place as `***`.
    pub fn to_json(&self) -> Map<String, Json> {
        let entry = |(name, value): (&&str, &Value)| ((*name).to_owned(), value.to_json());
        self.values.iter().map(entry).collect()
    }
}

impl Serialize for OptionSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

fn checked(
    scope: OptionScope,
    key: &str,
    raw: &Json,
) -> Result<(&'static OptionRow, Value), String> {
    let row = find(key).ok_or_else(|| unknown(key))?;
    match row.home {
        Home::Options(own) if own.allows(scope) => {}
        Home::Options(_) => return Err(format!("write it as {}", row.key())),
        Home::Key(key) => return Err(format!("it is not an engine option: write it as {key}")),
        Home::Command(command) => return Err(format!("it is a command: {command}")),
    }
    Ok((row, value::parse(row, raw)?))
}

/// Likeness from which on another name is worth mentioning.
const LIKENESS_MIN: f64 = 0.75;

fn unknown(key: &str) -> String {
    const ELSE: &str = "any other vLLM option goes into model_overrides";
    if let Some(row) = find_label(key) {
        return format!("write the option's name: {}", row.name);
    }
    let name = key.trim_start_matches('-').replace('-', "_");
    if let Some(row) = find(&name) {
        return format!("write the option's name: {}", row.name);
    }
    let likeness = |row: &&OptionRow| strsim::jaro_winkler(row.name, &name);
    let nearest = OPTIONS
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|row| likeness(row) >= LIKENESS_MIN);
    match nearest {
        Some(row) => format!(
            "there is no such option; did you mean {}? `tidegate options` lists them, and {ELSE}",
            row.name
        ),
        None => format!("there is no such option: `tidegate options` lists them, and {ELSE}"),
    }
}

/// A key as an error shows it: cut, and without control characters.
pub fn shown_key(key: &str) -> String {
    key.chars()
        .take(80)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
