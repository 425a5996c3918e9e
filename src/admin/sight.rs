//! What a caller may read of texts that name deployments.
//!
//! Decisions name whom they were made for, and that may be another project's. An
//! operator reads that it was another's, and not which.

use super::Admin;
use super::access::Caller;
use super::api::commands::works_on;
use super::view::{EventView, ExplainView};

/// What stands in place of a name that is not the reader's to know.
const ANOTHER: &str = "another project's deployment";

/// The instances that a caller may not know.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    hidden: Vec<String>,
}

impl Sight {
    /// Of this caller, as the files are now.
    pub(super) fn of(admin: &Admin, caller: &Caller) -> Self {
        if caller.is_admin() {
            return Self::default();
        }
        let mut hidden: Vec<String> = admin
            .registry
            .all()
            .iter()
            .map(|handle| handle.spec().instance.to_string())
            .filter(|instance| !works_on(admin, caller, instance))
            .collect();
        hidden.sort_unstable();
        hidden.dedup();
        Self { hidden }
    }

    /// The text, with the names of others' deployments taken out.
    pub(super) fn read(&self, text: &str) -> String {
        if self.hidden.is_empty() {
            return text.to_owned();
        }
        let mut read = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(is_in_name) {
            let (before, from) = rest.split_at(at);
            read.push_str(before);
            let end = from.find(|c| !is_in_name(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            // A sentence may end right after a name.
            let name = word.trim_end_matches([':', '.']);
            let instance = name.split_once('/').map(|(instance, _)| instance);
            let is_hidden = instance.is_some_and(|i| self.hidden.iter().any(|h| h == i));
            if is_hidden {
                read.push_str(ANOTHER);
                read.push_str(&word[name.len()..]);
            } else {
                read.push_str(word);
            }
            rest = after;
        }
        read.push_str(rest);
        read
    }

    /// An event, as the caller may read it.
    pub(super) fn event(&self, event: EventView) -> EventView {
        EventView {
            text: self.read(&event.text),
            ..event
        }
    }

    /// An answer to why, as the caller may read it.
    pub(super) fn explanation(&self, view: ExplainView) -> ExplainView {
        let mut view = view;
        for line in &mut view.lines {
            *line = self.read(line);
        }
        for evicted in &mut view.evicts {
            evicted.deployment = self.read(&evicted.deployment);
            evicted.words = self.read(&evicted.words);
        }
        view
    }
}

/// Whether a name of a deployment may contain this.
fn is_in_name(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '(' | ')' | ',' | ';' | '"' | '`' | '[' | ']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_taken_out_and_nothing_else_is() {
        let sight = Sight {
            hidden: vec!["hers".to_owned()],
        };
        for (text, read) in [
            (
                "needed by hers/qwen3-8b (a request waits, for 3s); idle 12m",
                "needed by another project's deployment (a request waits, for 3s); idle 12m",
            ),
            (
                "waits until mine/a, hers/b made room for it",
                "waits until mine/a, another project's deployment made room for it",
            ),
            (
                "  hers/org/model: idle",
                "  another project's deployment: idle",
            ),
            ("mine/hers/x of nothers/y", "mine/hers/x of nothers/y"),
            ("é hers/a.", "é another project's deployment."),
        ] {
            assert_eq!(sight.read(text), read);
        }
        let admin = Sight::default();
        assert_eq!(admin.read("needed by hers/a"), "needed by hers/a");
    }
}
