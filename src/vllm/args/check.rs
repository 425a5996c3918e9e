//! The checks that every argument passes, wherever it comes from.

use serde_json::Value as Json;

use super::Build;
use super::item::Item;
use super::operator;
use super::owned::{self, Leads};
use crate::vllm::options::{OptionError, adapter_parts, scaled};
use crate::vllm::rules::Allowed;
use crate::vllm::versions::{Arg, ArgForm, Found, VersionArgs};

impl Build<'_> {
    /// Checks all arguments, and the GPUs that they ask for.
    pub(super) fn check(&mut self) {
        let mut errors = Vec::new();
        for item in &self.items {
            let mut fail = |message| errors.push(OptionError::new(item.key.as_str(), message));
            if let Err(message) = known(self.launch.knowledge, item) {
                fail(message);
            }
            let may = allowed(self.launch.allowed, item);
            if let Err(message) = may.and_then(|()| operator::item(self.launch, item)) {
                fail(message);
            }
        }
        errors.extend(self.launch.machine.fits(self.gpus()).err());
        self.errors.extend(errors);
    }

    /// GPUs that the arguments ask for.
    pub(super) fn gpus(&self) -> u64 {
        let size = |flag: &str| {
            let mut items = self.items.iter().rev();
            let value = items.find(|item| item.flag == flag)?.values.first()?;
            value.parse::<u64>().ok()
        };
        let tensor = size("--tensor-parallel-size").unwrap_or(1);
        tensor.saturating_mul(size("--pipeline-parallel-size").unwrap_or(1))
    }
}

/// Checks that the version has the argument and takes its values.
fn known(knowledge: &VersionArgs, item: &Item) -> Result<(), String> {
    let version = knowledge.version();
    match knowledge.find(&item.flag) {
        Found::Absent => Err(format!("vLLM {version} has no {}", item.flag)),
        // Its keys are a JSON argument's.
        Found::Present { .. } if !item.path.is_empty() => Ok(()),
        Found::Present { arg, .. } => {
            let wrong = item.values.iter().find_map(|value| fits(arg, value).err());
            wrong.map_or(Ok(()), |what| Err(format!("vLLM {version}: {what}")))
        }
        Found::Perhaps(_) => Ok(()),
    }
}

/// Checks that an argument takes a value, as far as vLLM's parser would say.
fn fits(arg: &Arg, value: &str) -> Result<(), String> {
    let flag = arg.flag();
    if !arg.choices.is_empty() && !arg.choices.iter().any(|choice| choice == value) {
        return Err(format!(
            "{flag} takes one of {} instead of {value:?}",
            arg.choices.join(", ")
        ));
    }
    let good = match arg.form {
        ArgForm::Integer => value.parse::<i64>().is_ok(),
        ArgForm::Float => value.parse::<f64>().is_ok(),
        ArgForm::Tokens => {
            let auto = flag == "--max-model-len" && value == "auto";
            auto || value.parse::<i64>().is_ok() || scaled(value).is_some()
        }
        ArgForm::Json => serde_json::from_str::<Json>(value).is_ok(),
        ArgForm::Bool => matches!(value, "true" | "false"),
        _ => true,
    };
    if good {
        return Ok(());
    }
    Err(format!(
        "{flag} takes {} instead of {value:?}",
        match arg.form {
            ArgForm::Integer => "a whole number",
            ArgForm::Float => "a number",
            ArgForm::Tokens => "a number of tokens",
            ArgForm::Json => "JSON",
            _ => "true or false",
        }
    ))
}

/// Checks that the admin allows what an argument leads to.
fn allowed(allowed: &Allowed, item: &Item) -> Result<(), String> {
    let all = |check: &dyn Fn(&str) -> Result<(), String>| {
        item.values.iter().try_for_each(|value| check(value))
    };
    let is_off = item
        .words
        .first()
        .is_some_and(|word| word.starts_with("--no-"));
    match owned::leads(&item.flag) {
        Some(Leads::RemoteCode) if !is_off => allowed.remote_code(),
        Some(Leads::Model) => all(&|value| match (item.flag.as_str(), value) {
            ("--generation-config", "auto" | "vllm") | ("--speculative-model", "[ngram]") => Ok(()),
            _ => allowed.model(value),
        }),
        Some(Leads::Path) => all(&|value| allowed.path(value)),
        Some(Leads::Template) => all(&|value| {
            // vLLM takes what holds braces and is no file for the template itself.
            if value.contains("{{") || value.contains("{%") {
                Ok(())
            } else {
                allowed.path(value)
            }
        }),
        Some(Leads::Plugin) => all(&|value| allowed.plugin(value)),
        Some(Leads::Code) => allowed.code(&item.flag),
        Some(Leads::Adapters) => all(&|value| {
            let (_, path) = adapter_parts(value)
                .ok_or_else(|| format!("write each adapter as name=path instead of {value:?}"))?;
            allowed.model(&path)
        }),
        Some(Leads::RemoteCode) | None => inside(allowed, item),
    }
}

/// Most levels of a JSON argument that are looked into; serde reads no more.
const DEPTH_MAX: u32 = 128;

/// Looks into JSON values and dotted keys for what names code or a model.
fn inside(allowed: &Allowed, item: &Item) -> Result<(), String> {
    if item.flag == "--distributed-executor-backend" {
        let builtin = |value: &String| !value.contains('.');
        if !item.values.iter().all(builtin) {
            return allowed.code(&item.flag);
        }
    }
    let coded = |key: &str| owned::CODE_KEYS.contains(&key);
    if item.path.split(['.', '+']).any(coded) {
        return allowed.code(&item.path);
    }
    for value in &item.values {
        let parsed = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value.as_str()));
        // `--speculative-config.model X` says the same as {"model": "X"}.
        let nested = item.path.rsplit('.').filter(|key| !key.is_empty());
        let parsed = nested.fold(parsed, |inner, key| {
            Json::Object(std::iter::once((key.to_owned(), inner)).collect())
        });
        walk(allowed, item, &parsed, DEPTH_MAX)?;
    }
    Ok(())
}

fn walk(allowed: &Allowed, item: &Item, value: &Json, depth: u32) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("the JSON is nested too deeply".to_owned());
    };
    match value {
        Json::Object(map) => {
            for (key, inner) in map {
                if owned::CODE_KEYS.contains(&key.as_str()) {
                    allowed.code(key)?;
                }
                let text = inner.as_str().unwrap_or_default();
                match (item.flag.as_str(), key.as_str()) {
                    ("--speculative-config", "model" | "tokenizer")
                        if text != "[ngram]" && text != "ngram" =>
                    {
                        allowed.model(text)?;
                    }
                    ("--speculative-config", "method") if text == "custom_class" => {
                        allowed.code(text)?;
                    }
                    ("--compilation-config", "backend") if text.contains('.') => {
                        allowed.code(text)?;
                    }
                    _ => {}
                }
                walk(allowed, item, inner, depth)?;
            }
            Ok(())
        }
        Json::Array(entries) => entries
            .iter()
            .try_for_each(|inner| walk(allowed, item, inner, depth)),
        _ => Ok(()),
    }
}
