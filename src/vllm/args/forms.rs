//! From options to arguments, by the form that each has in a version.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::Build;
use super::item::Item;
use crate::vllm::options::{Form, Group, OptionError, OptionRow, Translation, Value};
use crate::vllm::versions::{ArgForm, Found, Version};

/// JSON arguments that several options write to, by flag, with those options.
pub(super) type Merged = BTreeMap<&'static str, (Map<String, Json>, Vec<&'static str>)>;

/// First vLLM that takes `--max-model-len -1`, as far as is known.
const AUTO_LEN_SINCE: Version = Version::new(0, 32, 0);

impl Build<'_> {
    /// Turns every option that becomes an argument into one.
    pub(super) fn options(&mut self) {
        let mut merged = Merged::new();
        let options = self.launch.options;
        for (row, value) in options.rows() {
            let speculative = row.group == Group::Speculative || row.name.starts_with("ngram_");
            if speculative && options.get_bool("speculative_decoding") == Some(false) {
                continue;
            }
            self.option(row, value, &mut merged);
        }
        for (flag, (map, keys)) in merged {
            let text = Json::Object(map).to_string();
            self.items.push(Item::value(&keys.join(", "), flag, text));
        }
    }

    fn option(&mut self, row: &'static OptionRow, value: &Value, merged: &mut Merged) {
        let key = row.name;
        match (self.form(row), value) {
            (Form::Switch(flag) | Form::NoSwitch(flag), Value::Bool(true)) => {
                self.items.push(Item::switch(key, flag));
            }
            (Form::NoSwitch(flag), Value::Bool(false)) => self.items.push(Item::off(key, flag)),
            (Form::BoolValue(flag), Value::Bool(on)) => {
                let mut item = Item::value(key, flag, on.to_string());
                item.words = vec![format!("{flag}={on}")];
                self.items.push(item);
            }
            (Form::Value("--max-model-len"), Value::Integer(-1)) => self.auto_len(),
            (Form::Value("--reasoning-parser"), _) if self.reasoning_is_off() => self.note(
                "reasoning_parser is left out, as enable_reasoning is false and the parser alone would turn reasoning on",
            ),
            (Form::Value(flag), value) => {
                self.items.push(Item::value(key, flag, plain(value)));
            }
            (Form::Json(flag), Value::Json(map)) => merge(merged, flag, key, map.clone()),
            (Form::Counts(flag), Value::Json(map)) => {
                let counts: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
                self.items.push(Item::value(key, flag, counts.join(",")));
            }
            (Form::List(flag), Value::List(texts)) => {
                self.items.push(Item::new(key, flag, texts.clone()));
            }
            (Form::Append(flag), Value::List(texts)) => {
                for text in texts {
                    self.items.push(Item::value(key, flag, text));
                }
            }
            (Form::Commas(flag), Value::Numbers(numbers)) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                self.items.push(Item::value(key, flag, numbers.join(",")));
            }
            (Form::Translated(translation), value) => {
                self.translate(row, translation, value, merged);
            }
            (Form::Removed { after, by, instead, neutral }, value) => {
                self.removed(row, value, &Gone { after, by, instead, neutral });
            }
            // Off is what vLLM does anyway; the environment is set elsewhere.
            _ => {}
        }
    }

    /// The form that a row has in this version. Where the version's own list says
    /// that the flag is gone already, the next form holds.
    fn form(&self, row: &OptionRow) -> Form {
        let version = *self.launch.version;
        let open = row.spans.iter().filter(|span| version < span.until);
        let mut last = None;
        for span in open {
            last = Some(span.form);
            let gone = |flag| self.launch.knowledge.find(flag) == Found::Absent;
            if !span.form.flag().is_some_and(gone) {
                return span.form;
            }
        }
        // The list lacks what the table expects: the check of the items says so.
        last.unwrap_or(Form::Tidegate(""))
    }

    fn auto_len(&mut self) {
        let takes = match self.launch.knowledge.find("--max-model-len") {
            Found::Present { arg, .. } => arg.form == ArgForm::Tokens,
            _ => false,
        };
        if takes || *self.launch.version >= AUTO_LEN_SINCE {
            self.items
                .push(Item::value("max_model_len", "--max-model-len", "-1"));
        } else {
            let version = self.launch.version;
            let message =
                format!("vLLM {version} is not known to take \"auto\": write a number of tokens");
            self.fail("max_model_len", message);
        }
    }

    fn reasoning_is_off(&self) -> bool {
        let translated = |row| self.form(row) == Form::Translated(Translation::Reasoning);
        self.launch.options.get_bool("enable_reasoning") == Some(false)
            && crate::vllm::options::find("enable_reasoning").is_some_and(translated)
    }

    fn removed(&mut self, row: &OptionRow, value: &Value, gone: &Gone) {
        let neutral = gone
            .neutral
            .and_then(|neutral| serde_json::from_str::<Json>(neutral).ok());
        if *value == Value::Bool(false) && neutral.is_none() {
            return;
        }
        if neutral == Some(value.to_json()) {
            self.note(format!(
                "{} is left out: {} does that anyway",
                row.name,
                self.version()
            ));
            return;
        }
        let mut message = format!(
            "{} has no such option: it was last in {}, and gone by {}",
            self.version(),
            gone.after,
            gone.by
        );
        if gone.instead.is_empty() {
            message.push_str("; leave it out, nothing took its place");
        } else {
            message.push_str("; ");
            message.push_str(gone.instead);
        }
        self.fail(row.name, message);
    }

    fn translate(
        &mut self,
        row: &'static OptionRow,
        translation: Translation,
        value: &Value,
        merged: &mut Merged,
    ) {
        let key = row.name;
        match translation {
            Translation::Reasoning => {
                if *value == Value::Bool(true) {
                    self.note(
                        "enable_reasoning is left out: reasoning_parser alone turns reasoning on",
                    );
                }
            }
            Translation::Rope => self.rope(key, merged),
            Translation::Speculative(inner) => {
                let mut map = Map::new();
                if inner == "model" && *value == Value::Text("[ngram]".to_owned()) {
                    map.insert("method".to_owned(), "ngram".into());
                } else {
                    map.insert(inner.to_owned(), value.to_json());
                }
                merge(merged, "--speculative-config", key, map);
                self.note(format!("{key} is written as a key of --speculative-config"));
            }
            Translation::Runner => self.runner(value),
            Translation::StructuredOutputs => {
                let mut map = Map::new();
                map.insert("backend".to_owned(), value.to_json());
                merge(merged, "--structured-outputs-config", key, map);
                self.note(format!(
                    "{key} is written as a key of --structured-outputs-config"
                ));
            }
            Translation::LogRequests => {
                if *value == Value::Bool(true) {
                    self.note("disable_log_requests is left out: requests are not logged unless asked for");
                } else {
                    self.items.push(Item::switch(key, "--enable-log-requests"));
                    self.note("disable_log_requests = false is written as --enable-log-requests");
                }
            }
        }
    }

    /// `rope_parameters` replaces the model's own as a whole, so scaling and theta
    /// carry over exactly only together. Called for each of the two.
    fn rope(&mut self, key: &'static str, merged: &mut Merged) {
        let options = self.launch.options;
        let scaling = options.get_json("rope_scaling");
        let (Some(scaling), Some(theta)) = (scaling, options.get_float("rope_theta")) else {
            let other = if key == "rope_theta" {
                "rope_scaling"
            } else {
                "rope_theta"
            };
            let message = format!(
                "{} replaces all of the model's RoPE parameters at once: set {other} too, or write hf_overrides",
                self.version()
            );
            self.fail(key, message);
            return;
        };
        if key == "rope_scaling" {
            let mut inner = scaling.clone();
            if let Some(legacy) = inner.remove("type") {
                inner.entry("rope_type").or_insert(legacy);
            }
            inner.insert("rope_theta".to_owned(), theta.into());
            let mut map = Map::new();
            map.insert("rope_parameters".to_owned(), Json::Object(inner));
            merge(merged, "--hf-overrides", key, map);
            self.note(
                "rope_scaling and rope_theta are written as rope_parameters in --hf-overrides",
            );
        }
    }

    fn runner(&mut self, value: &Value) {
        let (runner, convert) = match plain(value).as_str() {
            "auto" => {
                self.note("task = \"auto\" is left out: vLLM finds the model's task");
                return;
            }
            "generate" => ("generate", None),
            "embedding" | "embed" => ("pooling", Some("embed")),
            "classify" => ("pooling", Some("classify")),
            other => {
                let message = format!(
                    "{} has no --task, and {other:?} has no exact counterpart: write runner and convert, in model_overrides",
                    self.version()
                );
                self.fail("task", message);
                return;
            }
        };
        self.items.push(Item::value("task", "--runner", runner));
        if let Some(convert) = convert {
            self.items.push(Item::value("task", "--convert", convert));
        }
        self.note("task is written as --runner and --convert");
    }

    /// The version as messages name it.
    pub(super) fn version(&self) -> String {
        format!("vLLM {}", self.launch.version)
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(super) fn fail(&mut self, key: &str, message: impl Into<String>) {
        self.errors.push(OptionError::new(key, message));
    }
}

/// Fate of a removed option.
struct Gone {
    after: Version,
    by: Version,
    instead: &'static str,
    neutral: Option<&'static str>,
}

fn merge(merged: &mut Merged, flag: &'static str, key: &'static str, map: Map<String, Json>) {
    let (all, keys) = merged.entry(flag).or_default();
    all.extend(map);
    keys.push(key);
}

/// A value as one word.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Bool(on) => on.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => other.to_json().to_string(),
    }
}
