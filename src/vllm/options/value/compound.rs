//! Values with parts: JSON, lists, counts, adapters, raw lines and secrets.

use serde_json::{Map, Value as Json};

use super::{SecretSource, SecretText, TEXT_BYTES_MAX, Value, one_line, shown, text};

/// Longest JSON of one value, in bytes; Linux takes 128 KiB in one argument.
const JSON_BYTES_MAX: usize = 64 << 10;
/// Most entries of one list.
const ENTRIES_MAX: usize = 256;

/// A JSON object, given as a table or as a text.
pub(super) fn object(raw: &Json) -> Result<Map<String, Json>, String> {
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

pub(super) fn list(raw: &Json) -> Result<Value, String> {
    let texts = entries(raw)?
        .into_iter()
        .map(|entry| one_line(entry).map(str::to_owned))
        .collect::<Result<_, _>>()?;
    Ok(Value::List(texts))
}

pub(super) fn numbers(raw: &Json) -> Result<Value, String> {
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

pub(super) fn counts(raw: &Json) -> Result<Value, String> {
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
pub(super) fn adapters(raw: &Json) -> Result<Value, String> {
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
    adapter(name, path, None)
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
    // However it was written, it reads back the same.
    let (name, path) = (name.trim(), path.trim());
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

pub(super) fn command_line(raw: &Json) -> Result<Value, String> {
    let line = text(raw)?;
    if line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(format!(
            "the arguments are longer than {COMMAND_LINE_BYTES_MAX} bytes"
        ));
    }
    crate::vllm::args::split(line)?;
    Ok(Value::Text(line.to_owned()))
}

pub(super) fn secret(raw: &Json) -> Result<Value, String> {
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
            SecretSource::Literal(SecretText::new(text.clone()))
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
