//! The table for people, programs and editors; all of it made from the rows.

mod cases;
mod markdown;
mod schema;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value as Json;

pub use cases::cases;
pub use markdown::markdown;
pub use schema::{described, options_schema, size, span};

use super::OPTIONS;
use super::row::{Form, Group, Home, OptionRow, OptionScope, SetBy, Translation, ValueKind};
use crate::vllm::versions::Version;

/// Prints the options as columns, group by group.
///
/// # Errors
///
/// Errors of the writer.
pub fn table(out: &mut dyn Write, version: Version) -> io::Result<()> {
    for group in Group::ALL {
        writeln!(out, "{}", group.title())?;
        for row in OPTIONS.iter().filter(|row| row.group == group) {
            writeln!(
                out,
                "  {:46} {:28} {}",
                name(row),
                values(row),
                state(row, version)
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn name(row: &OptionRow) -> String {
    match row.home {
        Home::Options(_) => row.name.to_owned(),
        Home::Key(key) => key.to_owned(),
        Home::Command(command) => format!("({command})"),
    }
}

/// One option, as programs get it.
#[derive(Serialize)]
struct Entry {
    name: &'static str,
    key: String,
    label: &'static str,
    aliases: Vec<&'static str>,
    numbers: Vec<u8>,
    group: &'static str,
    help: &'static str,
    kind: &'static str,
    unit: &'static str,
    default: &'static str,
    example: Json,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    choices: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    owner: SetBy,
    /// Options table in which it may stand; none where it has a key of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<OptionScope>,
    schema: Json,
    /// True if the version has it, by itself or in another way.
    available: bool,
    /// Fate of it.
    becomes: String,
}

/// The options as a JSON value: `{"vllm_version", "options": […]}`.
pub fn json_value(version: Version) -> Json {
    let entries: Vec<Entry> = OPTIONS.iter().map(|row| entry(row, version)).collect();
    serde_json::json!({ "vllm_version": version.to_string(), "options": entries })
}

/// Prints the options as JSON.
///
/// # Errors
///
/// Errors of the writer.
pub fn json(out: &mut dyn Write, version: Version) -> io::Result<()> {
    pretty(out, &json_value(version))
}

/// Prints a JSON value for people to read.
///
/// # Errors
///
/// Errors of the writer.
pub fn pretty(out: &mut dyn Write, value: &Json) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn entry(row: &'static OptionRow, version: Version) -> Entry {
    let (min, max) = bounds(row.kind);
    let choices = match row.kind {
        ValueKind::Choice(choices) | ValueKind::Open(choices) => choices.to_vec(),
        _ => Vec::new(),
    };
    Entry {
        name: row.name,
        key: row.key(),
        label: row.label,
        aliases: row.aliases().collect(),
        numbers: row.form.iter().map(|(number, _)| *number).collect(),
        group: row.group.title(),
        help: row.help,
        kind: kind(row.kind),
        unit: row.unit,
        default: row.default,
        example: serde_json::from_str(row.example).unwrap_or(Json::Null),
        choices,
        min,
        max,
        owner: row.owner,
        scope: match row.home {
            Home::Options(scope) => Some(scope),
            Home::Key(_) | Home::Command(_) => None,
        },
        schema: schema::of(row),
        available: !is_gone(row, version),
        becomes: state(row, version),
    }
}

fn is_gone(row: &OptionRow, version: Version) -> bool {
    let form = row.span(version).map(|span| span.form);
    matches!(form, Some(Form::Removed { .. }) | None)
}

#[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
fn bounds(kind: ValueKind) -> (Option<f64>, Option<f64>) {
    match kind {
        ValueKind::Integer { min, max } => (Some(min as f64), Some(max as f64)),
        ValueKind::Float { min, max } => (Some(min), Some(max)),
        _ => (None, None),
    }
}

fn kind(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Switch => "switch",
        ValueKind::TriState => "tri-state",
        ValueKind::Integer { .. } => "integer",
        ValueKind::Tokens => "tokens",
        ValueKind::Float { .. } => "number",
        ValueKind::Gibibytes => "gibibytes",
        ValueKind::Text => "text",
        ValueKind::Choice(_) => "choice",
        ValueKind::Open(_) => "word",
        ValueKind::Json => "json",
        ValueKind::List => "list",
        ValueKind::Numbers => "numbers",
        ValueKind::Counts => "counts",
        ValueKind::Adapters => "adapters",
        ValueKind::CommandLine => "command-line",
        ValueKind::Secret => "secret",
        ValueKind::Duration => "duration",
    }
}

/// The values of an option in few words.
fn values(row: &OptionRow) -> String {
    let text = match row.kind {
        ValueKind::Switch | ValueKind::TriState => "true, false".to_owned(),
        ValueKind::Integer { min, max } => format!("{min} to {max}"),
        ValueKind::Float { min, max } => format!("{min} to {max}"),
        ValueKind::Tokens => "tokens, \"32k\", \"auto\"".to_owned(),
        ValueKind::Gibibytes => "GiB, or \"10GiB\"".to_owned(),
        ValueKind::Choice(choices) => choices.join(", "),
        ValueKind::Open(usual) => format!("{}, …", usual.join(", ")),
        other => kind(other).to_owned(),
    };
    match text.char_indices().nth(60) {
        None => text,
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}

/// Fate of an option in a version.
pub(super) fn state(row: &OptionRow, version: Version) -> String {
    match row.span(version) {
        Some(span) => becomes(&span.form),
        None => "unknown".to_owned(),
    }
}

/// Words for what a form writes.
pub(super) fn becomes(form: &Form) -> String {
    match *form {
        Form::Switch(flag) => flag.to_owned(),
        Form::NoSwitch(flag) => {
            format!("{flag}, or --no-{}", flag.trim_start_matches('-'))
        }
        Form::BoolValue(flag) => format!("{flag}=true, or =false"),
        Form::Value(flag) => format!("{flag} VALUE"),
        Form::Json(flag) => format!("{flag} JSON"),
        Form::Counts(flag) => format!("{flag} A=1,B=2"),
        Form::List(flag) => format!("{flag} VALUE…"),
        Form::Append(flag) => format!("{flag} VALUE, each time"),
        Form::Commas(flag) => format!("{flag} A,B"),
        Form::Env(name) => format!("variable {name}"),
        Form::Translated(translation) => translated(translation),
        Form::Removed {
            by, instead: "", ..
        } => format!("removed by {by}"),
        Form::Removed { by, instead, .. } => format!("removed by {by}; {instead}"),
        Form::Tidegate(how) => how.to_owned(),
    }
}

fn translated(translation: Translation) -> String {
    match translation {
        Translation::Reasoning => "nothing: reasoning_parser alone turns it on".to_owned(),
        Translation::Rope => "rope_parameters in --hf-overrides".to_owned(),
        Translation::Speculative(key) => format!("{key} in --speculative-config"),
        Translation::Runner => "--runner and --convert".to_owned(),
        Translation::StructuredOutputs => "backend in --structured-outputs-config".to_owned(),
        Translation::LogRequests => "nothing, or --enable-log-requests for false".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vllm::versions::VersionArgs;

    const LATEST: Version = Version::new(0, 32, 0);

    fn printed(print: impl Fn(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_option_is_in_every_output() {
        let outputs = [
            printed(|out| table(out, LATEST)),
            printed(|out| json(out, LATEST)),
            printed(|out| markdown(out)),
        ];
        for row in OPTIONS {
            for (i, output) in outputs.iter().enumerate() {
                let shown = match row.home {
                    Home::Options(_) => row.name,
                    Home::Key(key) => key.rsplit('.').next().unwrap(),
                    Home::Command(_) if i == 3 => continue,
                    Home::Command(command) => command,
                };
                assert!(output.contains(shown), "{shown} is not in output {i}");
            }
        }
    }

    #[test]
    fn what_a_version_lacks_is_said() {
        let new = json_value(LATEST);
        let old = json_value(Version::new(0, 7, 2));
        let count = |value: &Json| {
            let entries = value["options"].as_array().unwrap();
            entries.iter().filter(|e| e["available"] == false).count()
        };
        assert_eq!(count(&old), 0);
        assert!(count(&new) > 15, "{}", count(&new));
        assert!(printed(|out| table(out, LATEST)).contains("removed by 0.18.0"));
    }

    #[test]
    fn cases_cover_every_option_and_every_argument() {
        for version in [LATEST, Version::new(0, 7, 2)] {
            let knowledge = VersionArgs::built_in(version);
            let text = printed(|out| cases(out, &knowledge));
            let cases: Vec<Json> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            for row in OPTIONS {
                let has = cases.iter().any(|case| case["case"] == row.name);
                assert_eq!(has, matches!(row.home, Home::Options(_)), "{}", row.name);
            }
            let count = |verdict| cases.iter().filter(|c| c["verdict"] == verdict).count();
            assert!(count("accept") > 100 && count("refuse") > 80, "{version}");
        }
    }
}
