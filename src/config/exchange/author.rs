//! Whose file an instance's is: `instance.author`, which the admin API sets.

use serde_json::Value as Json;

use super::{Exchange, read_tables};
use crate::config::instance::AUTHOR_BYTES_MAX;

const KEY: &str = "author";

impl Exchange {
    /// States who writes it, instead of whoever it named before. Comments stay where
    /// the table is written plainly.
    pub fn set_author(&mut self, author: &str) {
        let author = named(author);
        let Some(instance) = self
            .tables
            .get_mut("instance")
            .and_then(Json::as_object_mut)
        else {
            return;
        };
        instance.insert(KEY.to_owned(), Json::from(author.as_str()));
        let source = self
            .source
            .take()
            .and_then(|source| written(&source, &author));
        // A text that would say something else is not kept.
        self.source = source.filter(|source| {
            read_tables(source.as_bytes()).is_ok_and(|(_, tables)| tables == self.tables)
        });
    }

    /// The same without its author.
    #[must_use]
    pub fn without_author(mut self) -> Self {
        let instance = self.tables.get_mut("instance");
        if let Some(instance) = instance.and_then(Json::as_object_mut)
            && instance.remove(KEY).is_some()
        {
            self.source = None;
        }
        self
    }
}

/// A name as a file states it: one line, cut, never empty.
fn named(author: &str) -> String {
    let mut name = String::new();
    for c in author.chars().map(|c| if c.is_control() { '?' } else { c }) {
        if name.len() + c.len_utf8() > AUTHOR_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    if name.trim().is_empty() {
        "an operator".clone_into(&mut name);
    }
    name
}

/// The text with the author as the first key of `[instance]`; `None` where that table
/// has no line of its own.
fn written(source: &str, author: &str) -> Option<String> {
    let header = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let inner = line.strip_prefix('[')?.strip_suffix(']')?;
        Some(inner.trim().to_owned())
    };
    let is_author = |line: &str| {
        let rest = line.trim_start().strip_prefix(KEY);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let author = toml::Value::String(author.to_owned());
    let (mut text, mut inside, mut set) = (String::new(), false, false);
    for line in source.split_inclusive('\n') {
        let name = header(line);
        if inside && is_author(line) {
            continue;
        }
        text.push_str(line);
        if let Some(name) = name {
            inside = name == "instance";
            if inside && !set {
                let end = if line.ends_with('\n') { "" } else { "\n" };
                text.extend([end, KEY, " = ", &author.to_string(), "\n"]);
                set = true;
            }
        }
    }
    set.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authored(text: &str) -> Exchange {
        let mut exchange = Exchange::read(text.as_bytes()).unwrap();
        exchange.set_author("ana \"of\" acme");
        exchange
    }

    fn author(exchange: &Exchange) -> Option<String> {
        let (_, text) = exchange.file();
        let read = Exchange::read(text.as_bytes()).unwrap();
        let author = read.tables().get("instance")?.get(KEY)?.as_str()?;
        Some(author.to_owned())
    }

    #[test]
    fn the_author_is_set_in_every_way_of_writing_and_what_was_named_before_goes() {
        for text in [
            "# mine\n[instance] # x\nname = \"a\"\n",
            "[instance]\nauthor = \"bob\"\nname = \"a\" # keep\n[[deployment]]\nmodel = \"m\"\n",
            "[ instance ]\nname = \"a\"",
            "instance = { name = \"a\", author = \"bob\" }\n",
            "instance.name = \"a\"\n",
            "[instance]\nname = \"a\"\n\"author\" = \"bob\"\n",
            "{\"instance\": {\"name\": \"a\", \"author\": null}}",
        ] {
            let exchange = authored(text);
            assert_eq!(
                author(&exchange).as_deref(),
                Some("ana \"of\" acme"),
                "{text}"
            );
            assert_eq!(author(&exchange.without_author()), None, "{text}");
        }
    }

    #[test]
    fn comments_stay_where_the_table_has_a_line_of_its_own() {
        let (_, text) = authored("# mine\n[instance] # x\nname = \"a\" # keep\n").file();
        assert!(text.contains("# mine") && text.contains("# keep"), "{text}");
    }

    #[test]
    fn a_long_name_is_cut_and_holds_no_control_characters() {
        let mut exchange = Exchange::read(b"[instance]\nname = \"a\"\n").unwrap();
        exchange.set_author(&format!("a\n{}", "ä".repeat(400)));
        let author = author(&exchange).unwrap();
        assert!(
            author.len() <= AUTHOR_BYTES_MAX && !author.contains('\n'),
            "{author}"
        );
    }
}
