//! Keys of `tidegate.toml` from the environment: `TIDEGATE_GATEWAY_LISTEN` is
//! `gateway.listen`, and wins over the file.
//!
//! A name is made of the dotted key: capitals, and `_` (or `__`) for each dot. Texts,
//! durations and sizes are written without quotes, lists with commas between or as
//! TOML, everything else as TOML. Tables whose names or number are free, such as
//! `workspaces`, are one variable each. What begins like a table of ours and is no key
//! is an error, but for what Kubernetes sets for its services.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Key, KeyTable, Kind, SETTINGS};
use crate::config::error::FileError;
use crate::config::problems::{cut, nearest};
use crate::config::tree::{Entry, Node, Value, toml_value};

const PREFIX: &str = "TIDEGATE_";

/// Variables of the command line, which begin like keys of `[admin]`.
const OWN: [&str; 4] = [
    "TIDEGATE_ADMIN_CA",
    "TIDEGATE_ADMIN_TOKEN",
    "TIDEGATE_ADMIN_TOKEN_FILE",
    "TIDEGATE_ADMIN_URL",
];

/// The line of what came from the first variable; no file has so many.
const LINES: usize = 1 << 40;

/// A key that a variable can give.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The tables around the key, and the key.
    pub path: Vec<&'static str>,
    /// The row of the key.
    pub key: &'static Key,
}

/// Every variable, in the order of the tables.
pub fn variables() -> Vec<Variable> {
    fn walk(path: &[&'static str], table: &'static KeyTable, to: &mut Vec<Variable>) {
        for key in table.keys {
            let mut path = path.to_vec();
            path.push(key.name);
            if let Kind::Table(inner) = key.kind {
                walk(&path, inner, to);
            } else {
                let name = format!("{PREFIX}{}", path.join("_").to_uppercase());
                to.push(Variable { name, path, key });
            }
        }
    }
    let mut found = Vec::new();
    walk(&[], &SETTINGS, &mut found);
    found
}

/// The variables that gave something, in the order of their lines.
#[derive(Debug, Default)]
pub(in crate::config) struct Given(Vec<String>);

impl Given {
    /// Puts what the environment gives over what the file says; else what is wrong.
    pub(in crate::config) fn over(
        tree: &mut Node,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Self, Vec<FileError>) {
        let known = variables();
        let mut ours: Vec<(String, OsString)> = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX) && !OWN.contains(&name.as_str()))
            .collect();
        ours.sort();
        let (mut given, mut errors, mut seen) = (Self::default(), Vec::new(), Vec::new());
        for (name, value) in ours {
            let plain = name.replace("__", "_");
            let Some(variable) = known.iter().find(|known| known.name == plain) else {
                errors.extend(unknown(&name, &plain, &known));
                continue;
            };
            if seen.contains(&plain) {
                let message = "this key is given twice, with \"_\" and with \"__\": take one out";
                errors.push(wrong(&name, variable, message));
                continue;
            }
            seen.push(plain);
            match read(variable.key, value) {
                Ok(node) => {
                    let line = LINES + given.0.len();
                    given.0.push(name);
                    put(tree, &variable.path, at(node, line), line);
                }
                Err(message) => errors.push(wrong(&name, variable, message)),
            }
        }
        (given, errors)
    }

    /// Names the variable where an error has its line.
    pub(in crate::config) fn located(&self, errors: &mut [FileError]) {
        for error in errors {
            let place = error.line.and_then(|line| line.checked_sub(LINES));
            if let Some(name) = place.and_then(|place| self.0.get(place)) {
                error.file = file(name);
                error.line = None;
            }
        }
    }
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(format!("environment variable {}", cut(name)))
}

fn wrong(name: &str, variable: &Variable, message: impl Into<String>) -> FileError {
    FileError {
        file: file(name),
        line: None,
        key: variable.path.join("."),
        message: message.into(),
    }
}

/// A variable that is no key, where it was meant as one.
fn unknown(name: &str, plain: &str, known: &[Variable]) -> Option<FileError> {
    let rest = plain.strip_prefix(PREFIX)?;
    let is_table = SETTINGS.names().any(|table| {
        let rest = rest.strip_prefix(table.to_uppercase().as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    });
    if !is_table || is_service(rest) {
        return None;
    }
    let names = known
        .iter()
        .filter_map(|known| known.name.strip_prefix(PREFIX));
    let message = match nearest(rest, names) {
        Some(near) => format!("no key is called so: did you mean {PREFIX}{near}?"),
        None => {
            "no key is called so: `tidegate options --settings --format markdown` lists them".into()
        }
    };
    Some(FileError {
        file: file(name),
        line: None,
        key: String::new(),
        message,
    })
}

/// True if Kubernetes sets such a variable, for a service that is called as a table is.
fn is_service(rest: &str) -> bool {
    const ENDS: [&str; 3] = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
    let numbered = rest.split_once("_PORT_").is_some_and(|(_, behind)| {
        let (port, protocol) = behind.split_once('_').unwrap_or((behind, ""));
        !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"]
                .iter()
                .any(|known| protocol.starts_with(known))
    });
    numbered || rest.contains("_SERVICE_PORT_") || ENDS.iter().any(|end| rest.ends_with(end))
}

/// The value of a variable, as its key takes it.
fn read(key: &Key, value: OsString) -> Result<Node, String> {
    let text = value
        .into_string()
        .map_err(|_| "this is not UTF-8: write text".to_owned())?;
    if text.trim().is_empty() {
        return Err("this is empty: write a value, or take the variable out".to_owned());
    }
    let plain = |text: &str| Node {
        line: 0,
        value: Value::Text(text.to_owned()),
    };
    let first = text.trim_start().chars().next();
    match key.kind {
        Kind::Text(_) | Kind::Choice(_) | Kind::Span(..) | Kind::Size(..) => match first {
            Some('"' | '\'') => toml_value(&text),
            _ => Ok(plain(&text)),
        },
        Kind::Texts(_) | Kind::Choices(_) if first != Some('[') => {
            let items = text.split(',').map(str::trim);
            Ok(Node {
                line: 0,
                value: Value::List(items.filter(|item| !item.is_empty()).map(plain).collect()),
            })
        }
        Kind::Flag | Kind::Whole(..) | Kind::Number(..) => {
            // What is none of these is told by the key's own sentence.
            Ok(toml_value(&text).unwrap_or_else(|_| plain(&text)))
        }
        _ => toml_value(&text),
    }
}

/// The same, with one line for all of it.
fn at(node: Node, line: usize) -> Node {
    let value = match node.value {
        Value::List(nodes) => Value::List(nodes.into_iter().map(|node| at(node, line)).collect()),
        Value::Table(entries) => Value::Table(
            entries
                .into_iter()
                .map(|entry| Entry {
                    line,
                    node: at(entry.node, line),
                    ..entry
                })
                .collect(),
        ),
        plain => plain,
    };
    Node { line, value }
}

/// Puts a value at a key; tables on the way are made where they are missing.
fn put(tree: &mut Node, path: &[&str], value: Node, line: usize) {
    let Some((key, below)) = path.split_first() else {
        *tree = value;
        return;
    };
    if tree.value == Value::Null {
        tree.value = Value::Table(Vec::new());
    }
    // What is no table is told by its reader.
    let Value::Table(entries) = &mut tree.value else {
        return;
    };
    let place = entries.iter().position(|entry| entry.key == *key);
    let place = place.unwrap_or_else(|| {
        entries.push(Entry {
            key: (*key).to_owned(),
            line,
            node: Node {
                line,
                value: Value::Null,
            },
        });
        entries.len() - 1
    });
    if let Some(entry) = entries.get_mut(place) {
        if below.is_empty() {
            entry.line = line;
        }
        put(&mut entry.node, below, value, line);
    }
}
