//! Author of an instance's file: `instance.author`, which the admin API sets.

use serde_json::Value as Json;

use super::Exchange;
use crate::config::instance::AUTHOR_BYTES_MAX;

const KEY: &str = "author";

impl Exchange {
    /// States who writes it, instead of the author named before.
    pub fn set_author(&mut self, author: &str) {
        let author = named(author);
        let instance = self.tables.get_mut("instance");
        if let Some(instance) = instance.and_then(Json::as_object_mut) {
            instance.insert(KEY.to_owned(), Json::from(author));
        }
    }

    /// The same without its author.
    #[must_use]
    pub fn without_author(mut self) -> Self {
        let instance = self.tables.get_mut("instance");
        if let Some(instance) = instance.and_then(Json::as_object_mut) {
            instance.remove(KEY);
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
    fn comments_stay() {
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
