//! The usual chunk of a stream: a piece of the first choice and of no other, that neither
//! ends the choice nor has usage.
//!
//! Nearly all events of a chat or a completion are such, and differ from the one before in
//! their text alone. So what stands around the text is read once, and compared from then
//! on. Of any other event this tells nothing.

use std::ops::Range;

use super::super::api::Api;
use super::super::json::{Literal, Reader};
use super::event::{DELTA, TEXT, content_of_delta, may_have_usage, starts_with_error};

/// Most bytes around the text that are kept.
const KEPT_MAX: usize = 4 * 1024;

/// Bytes around the text of the last usual chunk.
#[derive(Debug, Default)]
pub(super) struct Usual {
    before: Vec<u8>,
    behind: Vec<u8>,
}

impl Usual {
    /// True if a chunk has content; `None` where it is no usual one.
    pub(super) fn has_content(&mut self, api: Api, data: &[u8]) -> Option<bool> {
        if !self.before.is_empty()
            && let Some(rest) = data.strip_prefix(self.before.as_slice())
            && let Some(value) = rest.strip_suffix(self.behind.as_slice())
        {
            let mut reader = Reader::new(value);
            let found = content(api, &mut reader);
            if found.is_some() && reader.at() == value.len() {
                return found;
            }
        }
        let (found, value) = read(api, data)?;
        let (before, behind) = (data.get(..value.start)?, data.get(value.end..)?);
        if before.len() + behind.len() <= KEPT_MAX {
            self.before.clear();
            self.before.extend_from_slice(before);
            self.behind.clear();
            self.behind.extend_from_slice(behind);
        }
        Some(found)
    }
}

/// Content of a chunk, if it is a usual one: whether there is any, and where it stands.
fn read(api: Api, data: &[u8]) -> Option<(bool, Range<usize>)> {
    const BEFORE: &[u8] = b"\"choices\":[{\"index\":0,";
    let word = match api {
        Api::Chat => &DELTA,
        Api::Completions => &TEXT,
        _ => return None,
    };
    let at = word.find(data)?;
    let before = data.get(..at)?.strip_suffix(BEFORE)?;
    if may_have_usage(before) || starts_with_error(before) {
        return None;
    }
    let begin = at + word.needle().len();
    let mut reader = Reader::of_part(data.get(begin..)?, begin);
    if !reader.eat(b':') {
        return None;
    }
    let start = reader.at();
    let found = content(api, &mut reader)?;
    let value = start..reader.at();
    while reader.more_members().ok()? {
        match reader.key().ok()?.raw() {
            b"finish_reason" if reader.literal() == Some(Literal::Null) => {}
            b"finish_reason" | b"index" | b"delta" | b"text" => return None,
            _ => {
                reader.skip_value(3).ok()?;
            }
        }
    }
    if !reader.eat(b']') {
        return None;
    }
    while reader.more_members().ok()? {
        match reader.key().ok()?.raw() {
            b"usage" | b"choices" | b"error" => return None,
            _ => {
                reader.skip_value(1).ok()?;
            }
        }
    }
    reader.peek().is_none().then_some((found, value))
}

/// Reads the value that has the text, and whether it has any.
fn content(api: Api, reader: &mut Reader<'_>) -> Option<bool> {
    if api == Api::Chat {
        return content_of_delta(reader);
    }
    // Also an empty one is: vLLM 0.32 sends that for a token without text.
    let is_text = reader.peek() == Some(b'"');
    (is_text && reader.string().is_ok()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::super::choices::Choices;
    use super::super::event::{Kind, finder, kind};
    use super::super::found as usage_found;
    use super::*;

    #[test]
    fn a_usual_chunk_tells_what_all_looks_tell() {
        let chat = |begin: &str, delta: &str, end: &str| {
            format!("{{{begin}\"choices\":[{{\"index\":0,\"delta\":{delta}{end}")
        };
        let begins = [
            "",
            "\"id\":\"c\",\"created\":1,",
            "\"usage\":{\"prompt_tokens\":1},",
            "\"error\":{},",
            "\"error\":null,",
        ];
        let deltas = [
            "{}",
            "{\"content\":\"\"}",
            "{\"role\":\"assistant\",\"content\":\"\"}",
            "{\"role\":\"assistant\",\"content\":\"a\"}",
            "{\"content\":null}",
            "{\"content\":\" \\\"delta\\\" \\\"usage\\\"\"}",
            "{\"tool_calls\":[{\"index\":0}]}",
        ];
        let usual_ends = [
            "}]}",
            ",\"logprobs\":null,\"finish_reason\":null}] }",
            ",\"finish_reason\": null,\"x\":[{}]}],\"y\":{\"usage\":1}}",
        ];
        let other_ends = [
            ",\"finish_reason\":\"stop\"}]}",
            ",\"index\":1}]}",
            "},{\"index\":1}]}",
            "}],\"usage\":{}}",
            "}],\"choices\":[]}",
            "}]",
            "}]}}",
            "",
        ];
        let (mut usual, mut kept) = (0, Usual::default());
        for begin in begins {
            for delta in deltas {
                for end in usual_ends.into_iter().chain(other_ends) {
                    let text = chat(begin, delta, end);
                    let data = text.as_bytes();
                    let found = read(Api::Chat, data).map(|(found, _)| found);
                    // The same for whatever was kept before, and again right behind it.
                    for _ in 0..2 {
                        assert_eq!(kept.has_content(Api::Chat, data), found, "{text}");
                    }
                    let Some(has_content) = found else {
                        let is_odd = other_ends.contains(&end) || begin.contains("us");
                        assert!(is_odd || begin.contains("{}"), "{text}");
                        continue;
                    };
                    usual += 1;
                    assert!(usual_ends.contains(&end), "{text}");
                    let is_content = kind(Api::Chat, None, data) == Kind::Content;
                    assert_eq!(has_content, is_content, "{text}");
                    let mut finder = finder(Api::Chat);
                    finder.feed(data);
                    assert!(usage_found(&finder, None).is_none(), "{text}");
                    let (mut choices, mut first) = (Choices::default(), Choices::default());
                    choices.read(data);
                    first.see_first();
                    assert_eq!(choices, first, "{text}");
                }
            }
        }
        assert_eq!(usual, 3 * deltas.len() * usual_ends.len());
    }

    #[test]
    fn what_stands_around_the_text_is_compared_and_the_text_is_read() {
        let mut kept = Usual::default();
        let mut has_content = |text: &str| {
            let chunk = format!("{{\"choices\":[{{\"index\":0,\"text\":{text}");
            kept.has_content(Api::Completions, chunk.as_bytes())
        };
        let end = ",\"finish_reason\":null}]}";
        for text in ["\"\"", "\"a\"", "\"a\\\"b\"", "\"c\""] {
            assert_eq!(has_content(&format!("{text}{end}")), Some(true), "{text}");
        }
        for text in [
            "null",
            "\"a",
            "\"a\",\"finish_reason\":\"stop\"}],\"x\":[{\"y\":\"z\"",
            "\"a\",\"text\":\"b\"",
            "",
        ] {
            assert_eq!(has_content(&format!("{text}{end}")), None, "{text}");
        }
        assert_eq!(
            kept.has_content(Api::Messages, b"{\"type\":\"ping\"}"),
            None
        );
    }
}
