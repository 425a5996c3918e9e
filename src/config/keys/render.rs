//! The keys for people, editors and README.md; all of it made from the rows.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Map, Value as Json, json};

use super::environment::{Variable, variables};
use super::{Default, Form, Key, KeyTable, Kind, ROUTE_FILE, SETTINGS};
use crate::units::{Bytes, Span};
use crate::vllm::options::render::{described, options_schema, size, span};
use crate::vllm::versions::Version;

/// The two files, with what they are called in headings.
const FILES: [(&str, &KeyTable); 2] = [("tidegate.toml", &SETTINGS), ("Route files", &ROUTE_FILE)];

/// Prints the keys of both files as columns, table by table.
///
/// # Errors
///
/// Errors of the writer.
pub fn table(out: &mut dyn Write) -> io::Result<()> {
    for (title, file) in FILES {
        writeln!(out, "{title}")?;
        for (path, table, keys) in listed(file) {
            writeln!(out, "\n  {path}  {}", table.help)?;
            for key in keys {
                writeln!(
                    out,
                    "    {:28} {:34} {}",
                    key.name,
                    default(key),
                    key.sentence()
                )?;
                writeln!(out, "    {:28} {}", "", values(key.kind))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Prints the reference of both files.
///
/// # Errors
///
/// Errors of the writer.
pub fn markdown(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "# Settings\n\nMade by `tidegate options --settings --format markdown`. Every key of tidegate.toml \
         can be given in an environment variable as well, which wins."
    )?;
    let variables = variables();
    for (title, file) in FILES {
        writeln!(out, "\n## {title}")?;
        for (path, table, keys) in listed(file) {
            writeln!(out, "\n### `{path}`\n\n{}\n", table.help)?;
            for key in keys {
                let default = match key.default {
                    Default::Required => "required".to_owned(),
                    Default::Value(_) => format!("default `{}`", default(key)),
                    Default::Unset("") => "unset by default".to_owned(),
                    Default::Unset(words) => format!("unset: {words}"),
                };
                write!(
                    out,
                    "- `{}`: {} {}; {default}",
                    key.name,
                    key.sentence(),
                    capital(&values(key.kind))
                )?;
                match variable(&variables, key) {
                    Some(name) => writeln!(out, "; `{name}`.")?,
                    None => writeln!(out, ".")?,
                }
            }
        }
    }
    Ok(())
}

/// The keys of both files for programs: a list.
pub fn json() -> Json {
    let variables = variables();
    let mut rows = Vec::new();
    for (file, top) in FILES {
        for (table, _, keys) in listed(top) {
            for key in keys {
                let value = match key.default {
                    Default::Value(value) => Some(value),
                    Default::Unset(_) | Default::Required => None,
                };
                rows.push(json!({
                    "file": file,
                    "table": table,
                    "key": key.name,
                    "values": values(key.kind),
                    "default": value,
                    "required": key.default == Default::Required,
                    "help": key.sentence(),
                    "variable": variable(&variables, key),
                }));
            }
        }
    }
    rows.into()
}

/// The block of README.md: the common keys of `tidegate.toml`, as they would be written.
pub fn readme() -> String {
    let mut text = String::new();
    for (path, table) in flat(&SETTINGS) {
        let mut keys = table.keys.iter().filter(|key| key.is_common).peekable();
        if keys.peek().is_none() {
            continue;
        }
        let off = if path.contains("NAME") || path.ends_with("allowed]") {
            "# "
        } else {
            ""
        };
        let gap = if text.is_empty() { "" } else { "\n" };
        _ = writeln!(text, "{gap}{off}{path}");
        for key in keys {
            let line = match key.default {
                Default::Value(value) => format!("{off}{} = {value}", key.name),
                _ => format!("# {} = {}", key.name, example(key)),
            };
            _ = writeln!(text, "{line:34} # {}", key.sentence().trim_end_matches('.'));
        }
    }
    text
}

/// The schema of `tidegate.toml`: JSON Schema, draft 7, which editors of TOML know.
pub fn settings_schema() -> Json {
    let mut schema = table_schema(&SETTINGS, None);
    if let Some(map) = schema.as_object_mut() {
        map.insert("$schema".to_owned(), DRAFT.into());
        map.insert("title".to_owned(), "tidegate.toml".into());
        insert(map, "properties", "$schema", json!({ "type": "string" }));
    }
    schema
}

/// The schema of route files; options that the version lacks are marked as deprecated.
pub fn route_schema(version: Version) -> Json {
    let mut schema = table_schema(&ROUTE_FILE, Some(version));
    let Some(map) = schema.as_object_mut() else {
        return schema;
    };
    map.insert("$schema".to_owned(), DRAFT.into());
    map.insert("title".to_owned(), "Tidegate route file".into());
    let words = format!("{} Options as of vLLM {version}.", ROUTE_FILE.help);
    map.insert("description".to_owned(), words.into());
    map.insert(
        "anyOf".to_owned(),
        json!([{ "required": ["route"] }, { "required": ["instance"] }]),
    );
    map.insert(
        "dependencies".to_owned(),
        json!({ "upstream": ["route"], "deployment": ["instance"], "instance": ["deployment"] }),
    );
    insert(map, "properties", "$schema", json!({ "type": "string" }));
    schema
}

const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

fn insert(map: &mut Map<String, Json>, into: &str, key: &str, value: Json) {
    if let Some(inner) = map.get_mut(into).and_then(Json::as_object_mut) {
        inner.insert(key.to_owned(), value);
    }
}

/// The tables of a file that have keys of their own, with these.
fn listed(
    file: &'static KeyTable,
) -> impl Iterator<Item = (String, &'static KeyTable, Vec<&'static Key>)> {
    flat(file).into_iter().filter_map(|(path, table)| {
        let keys: Vec<_> = table.keys.iter().filter(|key| !is_table(key)).collect();
        (!keys.is_empty()).then_some((path, table, keys))
    })
}

/// The name of the variable that gives a key.
fn variable<'v>(variables: &'v [Variable], key: &Key) -> Option<&'v str> {
    let found = variables
        .iter()
        .find(|variable| std::ptr::eq(variable.key, key));
    Some(found?.name.as_str())
}

/// Every table of a file with its heading, the file itself left out.
pub(super) fn flat(file: &'static KeyTable) -> Vec<(String, &'static KeyTable)> {
    fn walk(path: &str, table: &'static KeyTable, to: &mut Vec<(String, &'static KeyTable)>) {
        for key in table.keys {
            let dotted = dotted(path, key.name);
            let (heading, below, inner) = match key.kind {
                Kind::Table(inner) => (format!("[{dotted}]"), dotted, inner),
                Kind::Tables(inner) => (format!("[[{dotted}]]"), dotted, inner),
                Kind::Named(inner) => {
                    let below = format!("{dotted}.NAME");
                    (format!("[{below}]"), below, inner)
                }
                _ => continue,
            };
            to.push((heading, inner));
            walk(&below, inner, to);
        }
    }
    let mut found = Vec::new();
    walk("", file, &mut found);
    found
}

fn dotted(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn is_table(key: &Key) -> bool {
    matches!(key.kind, Kind::Table(_) | Kind::Tables(_) | Kind::Named(_))
}

fn default(key: &Key) -> &'static str {
    match key.default {
        Default::Value(value) => value,
        Default::Unset("") => "unset",
        Default::Unset(words) => words,
        Default::Required => "(required)",
    }
}

/// A value that is right, as TOML writes it.
pub(super) fn example(key: &Key) -> String {
    if let Default::Value(value) = key.default {
        return value.to_owned();
    }
    match key.kind {
        Kind::Flag => "true".to_owned(),
        Kind::Text(form) => format!("{:?}", form.example),
        Kind::Texts(form) => format!("[{:?}]", form.example),
        Kind::Whole(least, most) => 1000.clamp(least, most).to_string(),
        Kind::Number(least, _) => format!("{least:?}"),
        Kind::Span(least, most) => {
            let minute = std::time::Duration::from_mins(1);
            format!("\"{}\"", Span(minute.clamp(least, most)))
        }
        Kind::Size(least, most) => format!("\"{}\"", Bytes((64 << 30).clamp(least, most))),
        Kind::Choice(words) | Kind::ChoiceOr(words, _) => {
            format!("{:?}", words.first().unwrap_or(&""))
        }
        Kind::Choices(words) => format!("[{:?}]", words.first().unwrap_or(&"")),
        Kind::Map(name, form) => format!("{{ {name:?} = {:?} }}", form.example),
        Kind::Values => "{ temperature = 0.2 }".to_owned(),
        Kind::Numbers => "{ max_tokens = 4096 }".to_owned(),
        Kind::Table(_) | Kind::Named(_) | Kind::Options(_) => "{}".to_owned(),
        Kind::Tables(_) => "[]".to_owned(),
    }
}

/// Words for the values that a kind takes.
fn values(kind: Kind) -> String {
    match kind {
        Kind::Flag => "true or false".to_owned(),
        Kind::Text(form) => form.words.to_owned(),
        Kind::Texts(form) => format!("a list, each {}", form.words),
        Kind::Whole(least, most) => format!("a whole number, {least} to {most}"),
        Kind::Number(least, most) => format!("a number, {least} to {most}"),
        Kind::Span(least, most) => format!("a duration, {} to {}", Span(least), Span(most)),
        Kind::Size(least, most) => format!("a size, {} to {}", Bytes(least), Bytes(most)),
        Kind::Choice(words) => format!("\"{}\"", words.join("\", \"")),
        Kind::ChoiceOr(words, form) => {
            format!(
                "\"{}\", or a list, each {}",
                words.join("\", \""),
                form.words
            )
        }
        Kind::Choices(words) => format!("a list of \"{}\"", words.join("\", \"")),
        Kind::Map(_, form) => format!("a table, each {}", form.words),
        Kind::Values => "a table of JSON values by top-level or dotted key".to_owned(),
        Kind::Numbers => "a table of numbers by top-level or dotted key".to_owned(),
        Kind::Table(_) | Kind::Named(_) => "a table".to_owned(),
        Kind::Tables(_) => "tables".to_owned(),
        Kind::Options(_) => "a table, as `tidegate options` lists".to_owned(),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

fn table_schema(table: &KeyTable, version: Option<Version>) -> Json {
    let properties: Map<_, _> = table
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), key_schema(key, version)))
        .collect();
    let required: Vec<&str> = table
        .keys
        .iter()
        .filter(|key| key.default == Default::Required)
        .map(|key| key.name)
        .collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties
    })
}

fn key_schema(key: &Key, version: Option<Version>) -> Json {
    let mut schema = match key.option {
        // Some options take further forms, as a number of seconds.
        Some(name) if matches!(key.kind, Kind::Span(..)) => described(name),
        _ => kind_schema(key, version),
    };
    let Some(map) = schema.as_object_mut() else {
        return schema;
    };
    let mut words = key.sentence().to_owned();
    if let Default::Unset(unset) = key.default
        && !unset.is_empty()
    {
        _ = write!(words, " Unset: {unset}.");
    }
    if !words.is_empty() {
        map.insert("description".to_owned(), words.into());
    }
    if let Default::Value(value) = key.default
        && let Ok(table) = format!("value = {value}").parse::<toml::Table>()
        && let Some(Ok(value)) = table.get("value").map(serde_json::to_value)
    {
        map.insert("default".to_owned(), value);
    }
    schema
}

fn kind_schema(key: &Key, version: Option<Version>) -> Json {
    match key.kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Text(form) => form_schema(form),
        Kind::Texts(form) => json!({ "type": "array", "items": form_schema(form) }),
        Kind::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Span(least, most) => {
            between(span(), &[Span(least).to_string(), Span(most).to_string()])
        }
        Kind::Size(least, most) => {
            between(size(), &[Bytes(least).to_string(), Bytes(most).to_string()])
        }
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::ChoiceOr(words, form) => json!({ "anyOf": [
            { "enum": words },
            { "type": "array", "items": form_schema(form), "minItems": 1 }
        ] }),
        Kind::Choices(words) => json!({
            "type": "array", "items": { "enum": words }, "uniqueItems": true
        }),
        Kind::Table(inner) => table_schema(inner, version),
        Kind::Tables(inner) => {
            json!({ "type": "array", "items": table_schema(inner, version), "minItems": 1 })
        }
        Kind::Named(inner) => {
            json!({ "type": "object", "additionalProperties": table_schema(inner, version) })
        }
        Kind::Map(_, form) => {
            json!({ "type": "object", "additionalProperties": form_schema(form) })
        }
        Kind::Values => json!({ "type": "object" }),
        Kind::Numbers => json!({
            "type": "object",
            "additionalProperties": { "type": ["number", "object"] }
        }),
        Kind::Options(scope) => {
            version.map_or(Json::Bool(true), |version| options_schema(scope, version))
        }
    }
}

/// A schema with these examples in place of its own.
fn between(mut schema: Json, bounds: &[String; 2]) -> Json {
    if let Some(map) = schema.as_object_mut() {
        map.insert("examples".to_owned(), json!(bounds));
    }
    schema
}

fn form_schema(form: &Form) -> Json {
    let mut schema = json!({ "type": "string", "minLength": 1, "examples": [form.example] });
    if let Some(map) = schema.as_object_mut() {
        if !form.pattern.is_empty() {
            map.insert("pattern".to_owned(), form.pattern.into());
        }
        if form.chars_max > 0 {
            map.insert("maxLength".to_owned(), form.chars_max.into());
        }
    }
    schema
}
