//! Arguments that people write themselves: the raw `cli`, and overrides by name.

use serde_json::{Map, Value as Json};

use super::Build;
use super::item::Item;
use super::owned;
use super::split::split;
use crate::vllm::options::{OPTIONS, one_line, shown};
use crate::vllm::versions::{Arg, ArgForm, Found};

impl Build<'_> {
    /// Takes the arguments of the raw command line.
    pub(super) fn cli(&mut self, line: &str) {
        let words = match split(line) {
            Ok(words) => words,
            Err(message) => return self.fail("cli", message),
        };
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            if !is_flag(&word) {
                let message = format!(
                    "{word:?} belongs to no flag; the model is given by deployment.model, and a word with spaces needs quotes"
                );
                self.fail("cli", message);
                continue;
            }
            let mut values = Vec::new();
            while let Some(value) = words.next_if(|word| !is_flag(word)) {
                values.push(value);
            }
            self.cli_flag(&word, values);
        }
    }

    fn cli_flag(&mut self, word: &str, mut values: Vec<String>) {
        let (written, joined) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let mut words = vec![word.to_owned()];
        words.extend(values.iter().cloned());
        let level = written.strip_prefix("-O").filter(|level| is_level(level));
        let takes_level = self.launch.knowledge.has("--optimization-level");
        if let (Some(level), None, true) = (level, &joined, takes_level) {
            // vLLM reads -O3 as --optimization-level 3.
            values.insert(0, level.to_owned());
            self.push_cli("--optimization-level", "", values, words);
            return;
        }
        let (name, path) = match written.split_once('.') {
            Some((name, path)) => (name, path),
            None => (written, ""),
        };
        let name = dashed(name);
        if let Some(value) = joined {
            values.insert(0, value);
            if values.len() > 1 {
                let message = format!(
                    "{:?} stands after {word:?}, which has its value",
                    values.get(1)
                );
                return self.fail("cli", message);
            }
        }
        self.push_cli(&name, path, values, words);
    }

    fn push_cli(&mut self, name: &str, path: &str, values: Vec<String>, words: Vec<String>) {
        let knowledge = self.launch.knowledge;
        let (flag, arg) = match knowledge.find(name) {
            Found::Present { arg, .. } => (arg.flag().to_owned(), Some(arg)),
            Found::Perhaps(arg) => (arg.map_or(name, Arg::flag).to_owned(), arg),
            Found::Absent => (name.to_owned(), None),
        };
        if self.refuse_flag("cli", name, &flag) {
            return;
        }
        let counted = arg.filter(|_| path.is_empty());
        if let Some(Err(message)) = counted.map(|arg| arity(arg, &values)) {
            return self.fail("cli", message);
        }
        if !path.is_empty() && values.len() != 1 {
            return self.fail("cli", format!("{name}.{path} takes one value"));
        }
        self.items.push(Item {
            flag,
            path: path.to_owned(),
            values,
            words,
            key: "cli".to_owned(),
        });
    }

    /// Fails if a flag is Tidegate's own, an abbreviation, or one that the version
    /// lacks. `name` is what was written, `flag` the long name.
    fn refuse_flag(&mut self, key: &str, name: &str, flag: &str) -> bool {
        let knowledge = self.launch.knowledge;
        let positive = flag.strip_prefix("--no-").map(|rest| format!("--{rest}"));
        let own = owned::owner(flag).or_else(|| owned::owner(positive.as_deref()?));
        if let Some(instead) = own {
            self.fail(key, format!("{name} is Tidegate's own: {instead}"));
            return true;
        }
        match knowledge.find(name) {
            Found::Present { .. } => false,
            Found::Perhaps(known) => {
                if known.is_none() && owned::abbreviates_owned(name) {
                    self.fail(
                        key,
                        format!("{name} abbreviates an argument that is Tidegate's own"),
                    );
                    return true;
                }
                let version = self.version();
                self.note(format!(
                    "{name}: whether {version} has it is not known before it is installed"
                ));
                false
            }
            Found::Absent => {
                let message = self.absent(name);
                self.fail(key, message);
                true
            }
        }
    }

    /// Reason why a flag is refused that the version lacks.
    fn absent(&self, name: &str) -> String {
        let knowledge = self.launch.knowledge;
        let version = self.version();
        let mut full = knowledge.completions(name);
        if let Some(first) = full.next().filter(|_| name.len() > 2) {
            return format!("{name} is an abbreviation: write it out, as {first}");
        }
        if owned::abbreviates_owned(name) && name.len() > 2 {
            return format!("{name} abbreviates an argument that is Tidegate's own");
        }
        let row = OPTIONS.iter().find(|row| {
            let first = row.spans.first().and_then(|span| span.form.flag());
            first == Some(name)
        });
        match (row, knowledge.nearest(name)) {
            (Some(row), _) => format!(
                "{version} no longer has {name}: see `tidegate options` for {}",
                row.name
            ),
            (None, Some(near)) => format!("{version} has no {name}; did you mean {near}?"),
            (None, None) => format!("{version} has no {name}"),
        }
    }

    /// Takes arguments by their names: `stream_interval = 2`. They win over
    /// arguments that are there.
    pub(super) fn overrides(&mut self, option: &'static str) {
        let options = self.launch.options;
        let Some(map) = options.get_json(option) else {
            return;
        };
        self.override_each(option, map);
    }

    fn override_each(&mut self, option: &str, map: &Map<String, Json>) {
        for (name, value) in map {
            let key = format!("{option}.{name}");
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if name.is_empty()
                || name.len() > 80
                || !name.chars().all(plain)
                || name.starts_with(['-', '_'])
            {
                let shown: String = name
                    .chars()
                    .take(40)
                    .flat_map(char::escape_default)
                    .collect();
                self.fail(
                    option,
                    format!("{shown:?} is not an option's name: write it as max_num_seqs"),
                );
                continue;
            }
            let written = format!("--{}", name.replace('_', "-"));
            if self.refuse_flag(&key, &written, &written) {
                continue;
            }
            match self.override_item(&key, &written, value) {
                Ok(item) => {
                    let flag = match &item {
                        Some(item) => item.flag.clone(),
                        None => written,
                    };
                    self.items.retain(|other| other.flag != flag);
                    self.items.extend(item);
                }
                Err(message) => self.fail(&key, message),
            }
        }
    }

    fn override_item(
        &self,
        key: &str,
        written: &str,
        value: &Json,
    ) -> Result<Option<Item>, String> {
        let (flag, arg, negated) = match self.launch.knowledge.find(written) {
            Found::Present { arg, negated } => (arg.flag(), Some(arg), negated),
            Found::Perhaps(arg) => (arg.map_or(written, Arg::flag), arg, false),
            Found::Absent => (written, None, false),
        };
        let form = arg.map_or(ArgForm::Value, |arg| arg.form);
        if negated {
            return Err(format!(
                "write {} = false instead",
                flag.trim_start_matches('-').replace('-', "_")
            ));
        }
        let item = match value {
            Json::Bool(on) => return on_off(key, flag, arg, *on),
            Json::Null => return Err("null says nothing: leave it out".to_owned()),
            Json::Number(number) => Item::value(key, flag, number.to_string()),
            Json::String(text) => Item::value(key, flag, one_line(text)?),
            Json::Array(entries) if matches!(form, ArgForm::List | ArgForm::Append) => {
                let values = entries.iter().map(word).collect::<Result<Vec<_>, _>>()?;
                let mut item = Item::new(key, flag, values);
                if form == ArgForm::Append {
                    let pair = |value: &String| [flag.to_owned(), value.clone()];
                    item.words = item.values.iter().flat_map(pair).collect();
                }
                item
            }
            Json::Array(_) | Json::Object(_) => Item::value(key, flag, value.to_string()),
        };
        if let Some(arg) = arg.filter(|arg| arg.form != ArgForm::Append) {
            arity(arg, &item.values)?;
        }
        Ok(Some(item))
    }
}

fn on_off(key: &str, flag: &str, arg: Option<&Arg>, on: bool) -> Result<Option<Item>, String> {
    let form = arg.map(|arg| arg.form);
    match (form, on) {
        (None | Some(ArgForm::Switch | ArgForm::NoSwitch), true) => {
            Ok(Some(Item::switch(key, flag)))
        }
        (Some(ArgForm::NoSwitch), false) => Ok(Some(Item::off(key, flag))),
        // Without the flag it is off.
        (None | Some(ArgForm::Switch), false) => Ok(None),
        (Some(ArgForm::Bool), on) => {
            let mut item = Item::value(key, flag, on.to_string());
            item.words = vec![format!("{flag}={on}")];
            Ok(Some(item))
        }
        (Some(_), on) => Err(format!(
            "{flag} is not a switch: write its value instead of {on}"
        )),
    }
}

/// One entry of a list as a word.
fn word(entry: &Json) -> Result<String, String> {
    match entry {
        Json::String(text) => one_line(text).map(str::to_owned),
        Json::Number(_) | Json::Object(_) => {
            let text = entry.to_string();
            one_line(&text).map(str::to_owned)
        }
        _ => Err(format!(
            "write texts or numbers instead of {}",
            shown(entry)
        )),
    }
}

/// True if a word begins an argument. Numbers below zero do not.
fn is_flag(word: &str) -> bool {
    word.starts_with('-') && word.parse::<f64>().is_err()
}

fn is_level(text: &str) -> bool {
    matches!(text, "0" | "1" | "2" | "3")
}

/// The name as vLLM's parser reads it: `--max_model_len` is `--max-model-len`.
fn dashed(name: &str) -> String {
    match name.strip_prefix("--") {
        Some(rest) => format!("--{}", rest.replace('_', "-")),
        None => name.to_owned(),
    }
}

/// Checks how many values an argument has.
fn arity(arg: &Arg, values: &[String]) -> Result<(), String> {
    let (least, most) = arg.form.values();
    let flag = arg.flag();
    if values.len() < least {
        Err(format!("{flag} needs a value"))
    } else if values.len() > most {
        let extra = values.get(most).map_or("", String::as_str);
        Err(if most == 0 {
            format!("{flag} takes no value, and {extra:?} belongs to no flag")
        } else {
            format!("{flag} takes one value, and {extra:?} belongs to no flag")
        })
    } else {
        Ok(())
    }
}
