//! Differences between two files of routes, for people who read them later. No secret is
//! told: both are without those before they are compared.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

use super::{Exchange, RouteFile};

/// Most characters of a value.
const VALUE_CHARS_MAX: usize = 60;

impl Exchange {
    /// Differences of this from an earlier file, key by key:
    /// `deployment.chat.options.seed: 7 -> 8`. Empty where both say the same.
    #[must_use]
    pub fn difference(&self, before: &Self) -> String {
        let without_secrets = |exchange: &Self| {
            let mut exchange = exchange.clone().without_author();
            exchange.take_secrets();
            exchange.export()
        };
        let (old, new) = (without_secrets(before), without_secrets(self));
        let mut told = String::new();
        compare(&mut String::new(), Some(&old), Some(&new), &mut told);
        told
    }
}

impl Exchange {
    /// The models that it holds, in words.
    pub fn models(&self) -> String {
        let models = self.tables().get("deployment").and_then(Json::as_array);
        let models = models.into_iter().flatten();
        let models = models.filter_map(|each| each.get("model")?.as_str());
        models.collect::<Vec<_>>().join(", ")
    }
}

impl RouteFile {
    /// Differences of this from an earlier file, as [`Exchange::difference`].
    #[must_use]
    pub fn difference(&self, before: &Self) -> String {
        let mut told = String::new();
        let (old, new) = (before.json(), self.json());
        compare(&mut String::new(), Some(&old), Some(&new), &mut told);
        told
    }
}

fn compare(path: &mut String, old: Option<&Json>, new: Option<&Json>, told: &mut String) {
    let named = |value: Option<&Json>| value.map(by_name);
    let (old_table, new_table) = (named(old).flatten(), named(new).flatten());
    if old == new {
        return;
    }
    let (Some(old_table), Some(new_table)) = (&old_table, &new_table) else {
        let (old, new) = (shown(old), shown(new));
        // Writing to a text does not fail.
        let _ok = write!(
            told,
            "{}{path}: {old} -> {new}",
            if told.is_empty() { "" } else { "; " }
        );
        return;
    };
    let keys = old_table.keys().chain(new_table.keys());
    let keys: std::collections::BTreeSet<&String> = keys.collect();
    for key in keys {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        compare(path, old_table.get(key), new_table.get(key), told);
        path.truncate(length);
    }
}

/// A table, or a list of tables by what each is called.
fn by_name(value: &Json) -> Option<Map<String, Json>> {
    match value {
        Json::Object(table) => Some(table.clone()),
        Json::Array(list) if list.iter().all(Json::is_object) && !list.is_empty() => {
            let named = list.iter().enumerate().map(|(place, each)| {
                let name = ["endpoint_name", "model", "url"].iter();
                let name = name.clone().find_map(|key| each.get(key)?.as_str());
                let name = name.map_or_else(|| place.to_string(), str::to_owned);
                (name, each.clone())
            });
            Some(named.collect())
        }
        _ => None,
    }
}

fn shown(value: Option<&Json>) -> String {
    let Some(value) = value else {
        return "not set".to_owned();
    };
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_by_key_and_no_secret_is() {
        let file = |rest: &str| {
            let text = format!("[instance]\nname = \"a\"\n{rest}");
            Exchange::read(text.as_bytes()).unwrap()
        };
        let old = file(
            "author = \"bob\"\n[[deployment]]\nmodel = \"m\"\n[deployment.options]\nseed = 7\nhuggingface_token = \"hf_topsecret\"\n",
        );
        let new = file(
            "project = \"p\"\n[[deployment]]\nmodel = \"m\"\noptions.seed = 8\noptions.huggingface_token = \"hf_othersecret\"\n[[deployment]]\nmodel = \"n\"\n",
        );
        assert_eq!(
            new.difference(&old),
            "deployment.m.options.seed: 7 -> 8; deployment.n: not set -> {\"model\":\"n\"}; instance.project: not set -> \"p\""
        );
        assert_eq!(new.difference(&new), "");
        assert!(!old.difference(&new).contains("secret"));
        let long = file(&format!("project = \"{}\"\n", "ä".repeat(200)));
        assert!(long.difference(&file("")).ends_with("…"));
    }
}
