//! `[instance.options]` and `[deployment.options]`, handed to the options table.
//!
//! The one place that knows how `vllm::options` is called. What an option means
//! stands there; here each error gets its line.

use serde_json::Map;

use super::Levels;
use super::problems::{Problems, cut};
use super::tree::{Entry, Node, Value};
use crate::outbound::dial::media::Media;
use crate::vllm::args::{self, Launch, Listen, Sleep};
use crate::vllm::options::{OptionError, OptionScope, OptionSet, SecretText, shown_key};
use crate::vllm::rules::{self, Allowed, Hardware};
use crate::vllm::versions::{Version, VersionArgs};

const TO_CPU: &str = "automatic_cpu_offloading";
const TO_DISK: &str = "disk_swapping";

/// Options as a file writes them.
#[derive(Clone, Copy)]
pub(super) struct Options<'a> {
    /// The dotted key of their table.
    pub(super) path: &'a str,
    /// Entries of the table.
    pub(super) entries: &'a [Entry],
}

/// The options of a deployment: its own over those of its instance.
pub(super) fn merge(
    instance: Options<'_>,
    deployment: Options<'_>,
    problems: &Problems,
) -> OptionSet {
    let own = set(deployment, OptionScope::Deployment, problems);
    let merged = set(instance, OptionScope::Instance, problems).merge(&own);
    for error in rules::across(&merged) {
        // Two ways to offload at once: `offload_levels` says it.
        if error.key != TO_DISK {
            note(&error, &[deployment, instance], problems);
        }
    }
    merged
}

/// Notes options that the named version of vLLM certainly refuses. What the
/// machine and the admin allow is seen at the start.
pub(super) fn fit_version(
    merged: &OptionSet,
    version: &str,
    tables: &[Options<'_>],
    problems: &Problems,
) {
    let Ok(version) = version.parse::<Version>() else {
        // Its own key says so.
        return;
    };
    let launch = Launch {
        model: "model",
        served_names: &["model"],
        options: merged,
        version: &version,
        knowledge: &VersionArgs::built_in(version),
        listen: Listen::Tcp("127.0.0.1", 8000),
        sleep: Sleep::No,
        allowed: &Allowed::all(),
        media: &Media::default(),
        chat_template: false,
        machine: Hardware {
            amd64: true,
            ..Hardware::default()
        },
        resolve: &|_| Ok(SecretText::new(String::new())),
    };
    let known = rules::across(merged);
    for error in args::command_line(&launch).err().unwrap_or_default() {
        if !known.contains(&error) {
            note(&error, tables, problems);
        }
    }
}

fn set(options: Options<'_>, scope: OptionScope, problems: &Problems) -> OptionSet {
    let mut map = Map::new();
    for entry in options.entries {
        match json(&entry.node) {
            // As an export writes what is unset.
            Ok(serde_json::Value::Null) => {}
            Ok(value) => {
                map.insert(entry.key.clone(), value);
            }
            Err((line, message)) => {
                let path = format!("{}.{}", options.path, cut(&entry.key));
                problems.add(line, path, message);
            }
        }
    }
    OptionSet::parse(scope, &map).unwrap_or_else(|errors| {
        for error in &errors {
            note(error, &[options], problems);
        }
        OptionSet::default()
    })
}

/// Notes what is wrong with an option, at the first table that holds it.
fn note(error: &OptionError, tables: &[Options<'_>], problems: &Problems) {
    for table in tables {
        // `model_overrides.enforce_eager` stands at `model_overrides`.
        let named = |entry: &&Entry| {
            let rest = error.key.strip_prefix(shown_key(&entry.key).as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some(entry) = table.entries.iter().find(named) {
            let path = format!("{}.{}", table.path, error.key);
            problems.add(entry.line, path, error.message.as_str());
            return;
        }
    }
    // Every error has its option in a table; should one not, it still counts.
    problems.add(1, error.key.as_str(), error.message.as_str());
}

/// A value as JSON; else the line and what is wrong with it.
pub(super) fn json(node: &Node) -> Result<serde_json::Value, (usize, &'static str)> {
    let wrong = |message| Err((node.line, message));
    Ok(match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Flag(flag) => (*flag).into(),
        Value::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => return wrong("this number is too large: write one of at most 64 bits"),
        },
        Value::Float(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => number.into(),
            None => return wrong("write a finite number"),
        },
        Value::Text(text) => text.as_str().into(),
        Value::Date => return wrong("write a text in quotes, not a date"),
        Value::List(nodes) => nodes
            .iter()
            .map(json)
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        Value::Table(entries) => {
            let mut map = Map::new();
            for entry in entries {
                map.insert(entry.key.clone(), json(&entry.node)?);
            }
            map.into()
        }
    })
}

/// Places that weights may go to: as `levels` of `[instance.idle]` says, or else as the options
/// permit; notes when they contradict.
pub(super) fn offload_levels(
    levels: Option<Levels>,
    instance: Options<'_>,
    deployment: Options<'_>,
    problems: &Problems,
) -> Option<Levels> {
    let cpu = flag(TO_CPU, instance, deployment, problems);
    let disk = flag(TO_DISK, instance, deployment, problems);
    let both = matches!((cpu, disk), (Some((true, ..)), Some((true, ..))));
    if let Some(levels) = levels.filter(|_| !both) {
        let left_out = [(cpu, TO_CPU, levels.cpu), (disk, TO_DISK, levels.disk)];
        for (flag, key, permitted) in left_out {
            if let (Some((true, line, path)), false) = (flag, permitted) {
                let message = format!(
                    "instance.idle.levels leaves this level out: take {key} out, or name it there"
                );
                problems.add(line, format!("{path}.{key}"), message);
            }
        }
        return Some(levels);
    }
    match (cpu, disk) {
        (Some((true, ..)), Some((true, line, path))) => {
            let path = format!("{path}.{TO_DISK}");
            let message = format!(
                "{TO_CPU} and {TO_DISK} permit one level each: take one out, or set levels = [\"cpu\", \"disk\"] in [instance.idle] for both"
            );
            problems.add(line, path, message);
            None
        }
        (Some((true, ..)), _) => Some(Levels::CPU),
        (_, Some((true, ..))) => Some(Levels::DISK),
        _ => None,
    }
}

/// Value of a switch, its line and its table.
fn flag<'a>(
    key: &str,
    instance: Options<'a>,
    deployment: Options<'a>,
    problems: &Problems,
) -> Option<(bool, usize, &'a str)> {
    let own = |options: Options<'a>| {
        let entry = options.entries.iter().find(|entry| entry.key == key)?;
        match entry.node.value {
            Value::Null => None,
            Value::Flag(flag) => Some((flag, entry.line, options.path)),
            _ => {
                let message = "write true or false without quotes";
                problems.add(entry.line, format!("{}.{key}", options.path), message);
                None
            }
        }
    };
    own(deployment).or_else(|| own(instance))
}
