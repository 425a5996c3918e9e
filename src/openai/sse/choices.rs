//! Choices of a stream: those that there are, and those that have finished.
//!
//! Each choice of a chat or a completion ends with a `finish_reason`. Once all have
//! theirs the answer is whole, whether or not the server says `[DONE]` behind it.

use std::sync::LazyLock;

use memchr::memmem::Finder as Words;

use super::super::json::{Fault, Literal, Reader};

// Built once: making a searcher costs more than a search in a short event.
static FINISH: LazyLock<Words<'static>> = LazyLock::new(|| Words::new(b"\"finish_reason\""));
static FIRST: LazyLock<Words<'static>> = LazyLock::new(|| Words::new(b"\"index\":0"));

/// Choices, by their index.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Choices {
    seen: u128,
    finished: u128,
    /// There was one that has no bit.
    is_lost: bool,
}

impl Choices {
    /// True if there were any, and each had its reason to finish.
    pub(super) fn have_finished(&self) -> bool {
        !self.is_lost && self.seen != 0 && self.seen == self.finished
    }

    /// There is a first one.
    pub(super) fn see_first(&mut self) {
        self.seen |= 1;
    }

    /// The only one has said why it stopped, as Anthropic's messages do.
    pub(super) fn stop(&mut self) {
        (self.seen, self.finished) = (1, 1);
    }

    /// Looks at one event. Most are of the first choice, and finish nothing.
    pub(super) fn read(&mut self, data: &[u8]) {
        if FIRST.find(data).is_some() && !finishes(data) {
            self.see_first();
            return;
        }
        let mut found = Self::default();
        // Of half an event nothing is believed.
        if found.walk(data).is_ok() {
            self.seen |= found.seen;
            self.finished |= found.finished;
            self.is_lost |= found.is_lost;
        }
    }

    fn walk(&mut self, data: &[u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(data);
        let mut more = reader.open_object()?;
        while more {
            let key = reader.key()?;
            if key.raw() == b"choices" && reader.eat(b'[') {
                let mut more = !reader.eat(b']');
                while more {
                    self.choice(&mut reader)?;
                    more = reader.eat(b',');
                    if !more && !reader.eat(b']') {
                        return reader.fault("',' or ']'");
                    }
                }
            } else {
                reader.skip_value(1)?;
            }
            more = reader.more_members()?;
        }
        match reader.peek() {
            None => Ok(()),
            Some(_) => reader.fault("the end"),
        }
    }

    fn choice(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let (mut index, mut is_finished) = (Some(0), false);
        let mut more = reader.open_object()?;
        while more {
            let key = reader.key()?;
            match key.raw() {
                b"index" => index = reader.number()?.parse().ok(),
                b"finish_reason" if reader.literal() != Some(Literal::Null) => {
                    is_finished = true;
                    reader.skip_value(3)?;
                }
                b"finish_reason" => {}
                _ => {
                    reader.skip_value(3)?;
                }
            }
            more = reader.more_members()?;
        }
        match index.and_then(|index: u32| 1_u128.checked_shl(index)) {
            Some(bit) => {
                self.seen |= bit;
                self.finished |= if is_finished { bit } else { 0 };
            }
            None => self.is_lost = true,
        }
        Ok(())
    }
}

/// True if a choice in this event has a reason to finish.
fn finishes(data: &[u8]) -> bool {
    FINISH.find_iter(data).any(|at| {
        let rest = data.get(at + FINISH.needle().len()..).unwrap_or_default();
        let mut reader = Reader::new(rest);
        reader.eat(b':') && reader.literal() != Some(Literal::Null)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(events: &[&str]) -> bool {
        let mut choices = Choices::default();
        for event in events {
            choices.read(event.as_bytes());
        }
        choices.have_finished()
    }

    #[test]
    fn all_have_finished_once_each_has_its_reason() {
        let text = |index: u32| {
            format!(
                "{{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"\\\"finish_reason\\\":\\\"stop\\\"\"}},\"finish_reason\":null}}]}}"
            )
        };
        let end = |index: u32| {
            format!(
                "{{\"choices\":[{{\"delta\":{{}}, \"finish_reason\": \"stop\", \"index\": {index}}}]}}"
            )
        };
        let usage = "{\"choices\":[],\"usage\":{}}";
        assert!(!after(&[]) && !after(&[usage]));
        assert!(!after(&[&text(0), usage]));
        assert!(after(&[&text(0), &end(0), usage]));
        assert!(after(&[&text(0), &text(1), &end(1), &text(0), &end(0)]));
        assert!(!after(&[&text(0), &text(1), &end(0), &text(1)]));
        assert!(!after(&[&text(0), &end(0), &text(127)]) && !after(&[&end(128)]));
        let both = "{\"choices\":[{\"index\":0,\"finish_reason\":null},{\"index\":1,\"finish_reason\":\"length\"}]}";
        assert!(!after(&[both]) && after(&[both, &end(0)]));
        // llama.cpp writes the reason first; one without an index is the first.
        assert!(after(&[
            "{\"choices\":[{\"finish_reason\":\"stop\",\"text\":\"\"}]}"
        ]));
        let half = end(0);
        for length in 0..half.len() {
            assert!(!after(&[&text(0), &half[..length]]), "{length}");
        }
    }
}
