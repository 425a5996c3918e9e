//! A JSON Schema of the options, for editors.
//!
//! Draft 7, which editors of TOML understand. The keys around the options are
//! `config::keys`'s.

use serde_json::{Map, Value as Json, json};

use super::super::OPTIONS;
use super::super::row::{Home, OptionRow, OptionScope, ValueKind};
use super::{is_gone, state};
use crate::vllm::versions::Version;

/// The schema of the options that may stand in one table; those that the version lacks
/// are marked as deprecated.
pub fn options_schema(scope: OptionScope, version: Version) -> Json {
    let mut properties = Map::new();
    for row in OPTIONS {
        let Home::Options(own) = row.home else {
            continue;
        };
        if !own.allows(scope) {
            continue;
        }
        let mut property = said(of(row), &format!("{}\n\n{}", row.help, state(row, version)));
        if let Some(map) = property.as_object_mut() {
            map.insert("title".to_owned(), row.label.into());
            if is_gone(row, version) {
                map.insert("deprecated".to_owned(), true.into());
            }
        }
        properties.insert(row.name.to_owned(), property);
    }
    table(&[], &Json::Object(properties))
}

/// The schema of one option, with its sentence.
pub fn described(name: &str) -> Json {
    super::super::find(name).map_or(Json::Bool(true), |row| said(of(row), row.help))
}

fn table(required: &[&str], properties: &Json) -> Json {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties
    })
}

fn said(schema: Json, description: &str) -> Json {
    let mut schema = schema;
    if let Some(map) = schema.as_object_mut() {
        map.insert("description".to_owned(), description.into());
    }
    schema
}

/// The schema of a duration.
pub fn span() -> Json {
    json!({ "type": "string", "pattern": "^([0-9.]+ ?(ms|us|s|m|h|d) ?)+$", "examples": ["15s", "1h30m"] })
}

/// The schema of a size.
pub fn size() -> Json {
    json!({ "type": "string", "pattern": "^[0-9.]+ ?([KMGT]i?)?B$", "examples": ["64MiB"] })
}

/// The schema of one option's values.
pub(super) fn of(row: &OptionRow) -> Json {
    let text = || json!({ "type": "string", "minLength": 1 });
    let plain = || json!({ "type": "string", "pattern": "^[^-]" });
    match row.kind {
        ValueKind::Switch | ValueKind::TriState => json!({ "type": "boolean" }),
        ValueKind::Integer { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        ValueKind::Tokens => json!({ "anyOf": [
            { "type": "integer", "minimum": -1 },
            { "type": "string", "pattern": "^(auto|[0-9]+(\\.[0-9]+)?[km]|[0-9]+[KM]?)$" }
        ] }),
        ValueKind::Float { min, max } => {
            json!({ "type": "number", "minimum": min, "maximum": max })
        }
        ValueKind::Gibibytes => json!({ "anyOf": [{ "type": "number", "minimum": 0 }, size()] }),
        ValueKind::Text => plain(),
        ValueKind::Choice(choices) => {
            let others = row.synonyms.iter().map(|(other, _)| *other);
            let all: Vec<&str> = choices.iter().copied().chain(others).collect();
            json!({ "enum": all })
        }
        ValueKind::Open(usual) => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:][A-Za-z0-9_.:-]*$", "examples": usual })
        }
        ValueKind::Json => json!({ "type": ["object", "string"] }),
        ValueKind::List => {
            json!({ "anyOf": [{ "type": "array", "items": plain(), "minItems": 1 }, plain()] })
        }
        ValueKind::Numbers => json!({ "anyOf": [
            { "type": "array", "items": { "type": "number", "exclusiveMinimum": 0 }, "minItems": 1 },
            { "type": "number", "exclusiveMinimum": 0 },
            text()
        ] }),
        ValueKind::Counts => json!({ "anyOf": [
            { "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } },
            text()
        ] }),
        ValueKind::Adapters => json!({ "anyOf": [
            { "type": "array", "minItems": 1, "items": { "anyOf": [text(), adapter()] } },
            { "type": "object", "additionalProperties": text() },
            text()
        ] }),
        ValueKind::CommandLine => json!({ "type": "string" }),
        ValueKind::Secret => {
            json!({ "anyOf": [secret("env"), secret("file"), secret("secret"), text()] })
        }
        ValueKind::Duration => span(),
    }
}

fn adapter() -> Json {
    let text = json!({ "type": "string", "minLength": 1 });
    table(
        &["name", "path"],
        &json!({ "name": text, "path": text, "base_model_name": text }),
    )
}

fn secret(key: &str) -> Json {
    table(
        &[key],
        &json!({ key: { "type": "string", "minLength": 1 } }),
    )
}
