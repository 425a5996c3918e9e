//! Rules for the files of operators beside what the admin allows: the options
//! of the table, words that are nothing but words, and inside JSON only keys that
//! are known to be harmless.

use serde_json::Value as Json;

use super::Launch;
use super::item::Item;
use super::owned::{self, Leads};
use crate::vllm::options::{OptionError, OptionRow, SecretSource, Value, ValueKind};
use crate::vllm::rules::{Allowed, harmless, is_plain};
use crate::vllm::versions::{ArgForm, Found, VersionArgs};

/// Errors of the options that are for admins.
pub(super) fn options(launch: &Launch<'_>) -> Vec<OptionError> {
    if launch.allowed.operator.is_none() {
        return Vec::new();
    }
    let wrong = |(row, value): (&OptionRow, &Value)| {
        let message = option(launch.allowed, row, value).err()?;
        Some(OptionError::new(row.name, message))
    };
    launch.options.rows().filter_map(wrong).collect()
}

fn option(allowed: &Allowed, row: &OptionRow, value: &Value) -> Result<(), String> {
    match (row.name, row.kind, value) {
        ("cli" | "config_overrides" | "model_overrides", ..) => allowed.raw(row.name),
        ("revision" | "code_revision" | "tokenizer_revision", _, Value::Text(text)) => {
            allowed.revision(text)
        }
        // Other formats are read by loaders that fetch from where they like.
        ("load_format", ValueKind::Open(words), Value::Text(text)) if !words.contains(&text.as_str()) => {
            Err(format!(
                "an operator writes one of {} here, instead of {text:?}",
                words.join(", ")
            ))
        }
        (_, ValueKind::Open(_), Value::Text(text)) if !is_plain(text) => Err(format!(
            "an operator writes a word of letters, digits, '_' and '-' here, instead of {text:?}"
        )),
        (_, _, Value::Secret(SecretSource::Env(_) | SecretSource::File(_))) => Err(
            "a secret from a file or a variable of this machine is for admins: write the secret itself"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// Checks that an argument holds nothing that only an admin may write.
pub(super) fn item(launch: &Launch<'_>, item: &Item) -> Result<(), String> {
    let allowed = launch.allowed;
    if allowed.operator.is_none() || allowed.code {
        return Ok(());
    }
    let is_raw = item.key == "cli" || item.key.contains("_overrides.");
    if is_raw && !VersionArgs::is_classified(&item.flag) {
        return Err(format!(
            "{} is for admins: it is not known yet what it leads to",
            item.flag
        ));
    }
    if matches!(
        owned::leads(&item.flag),
        Some(Leads::Template | Leads::Adapters | Leads::Model)
    ) && item.path.is_empty()
    {
        // Judged by what they lead to.
        return Ok(());
    }
    if item.path.contains('+') {
        return Err(format!("write the keys of {} as JSON", item.flag));
    }
    let check =
        |path: &str, value: &Json| harmless(allowed, *launch.version, &item.flag, path, value);
    let is_json = match launch.knowledge.find(&item.flag) {
        Found::Present { arg, .. } | Found::Perhaps(Some(arg)) => arg.form == ArgForm::Json,
        _ => false,
    };
    for text in &item.values {
        let parsed = serde_json::from_str::<Json>(text);
        match (&parsed, text.trim_start().starts_with('{')) {
            _ if !item.path.is_empty() => {
                let value = parsed.unwrap_or_else(|_| Json::from(text.as_str()));
                check(&item.path, &value)?;
            }
            (Ok(value @ Json::Object(_)), _) => check("", value)?,
            (Ok(Json::Array(entries)), _)
                if entries.iter().any(|e| e.is_object() || e.is_array()) =>
            {
                return Err(format!("a list of tables in {} is for admins", item.flag));
            }
            (Err(_), true) => return Err(format!("{} takes JSON", item.flag)),
            (Ok(Json::Number(_) | Json::Bool(_)), _) => {}
            (_, _) if is_json => check("", &Json::from(text.as_str()))?,
            (_, _) if is_raw && item.flag.ends_with("revision") => allowed.revision(text)?,
            // An address, a path or a module is none.
            (_, _) if is_raw && !is_plain(text) => {
                return Err(format!(
                    "an operator writes a word of letters, digits, '_' and '-' in {}, instead of {text:?}",
                    item.flag
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
