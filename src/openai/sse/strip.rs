//! Takes usage out of the events of a stream that has it in every one, where we asked for
//! that and the client did not.
//!
//! Works on whole lines: the member `usage` is cut out of the JSON of an event that has
//! choices, with one comma, and every other byte stays. A line whose end has not come is
//! held, up to a bound; one that outgrows it passes as it came. What is no such JSON
//! passes too.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use super::super::json::Reader;
use super::event::{field, may_have_usage};

/// Longest incomplete line that is held.
const LINE_HELD_MAX: usize = 64 * 1024;

/// The bytes behind the tap, on their way to the client.
#[derive(Debug, Default)]
pub(super) struct Strip {
    /// The start of a line whose end has not come, at most [`LINE_HELD_MAX`].
    line: BytesMut,
    /// True if the line at hand was too long, and its start has gone out.
    is_passing: bool,
    /// Bytes that are to go out of the piece at hand.
    out: BytesMut,
    /// True if each line is the JSON of an event.
    are_lines: bool,
}

impl Strip {
    /// Of a stream whose every line is the JSON of an event.
    pub(super) fn of_lines() -> Self {
        Self {
            are_lines: true,
            ..Self::default()
        }
    }

    /// Takes the next bytes in.
    pub(super) fn feed(&mut self, mut rest: &[u8]) {
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            let (line, behind) = rest.split_at(end + 1);
            rest = behind;
            if self.is_passing {
                self.is_passing = false;
                self.out.extend_from_slice(line);
            } else if self.line.is_empty() {
                cut(line, self.are_lines, &mut self.out);
            } else {
                self.line.extend_from_slice(line);
                cut(&self.line, self.are_lines, &mut self.out);
                self.line.clear();
            }
        }
        if self.is_passing {
            self.out.extend_from_slice(rest);
        } else if self.line.len() + rest.len() <= LINE_HELD_MAX {
            self.line.extend_from_slice(rest);
        } else {
            self.is_passing = true;
            self.out.extend_from_slice(&self.line);
            self.out.extend_from_slice(rest);
            self.line.clear();
        }
    }

    /// Bytes that may go out now.
    pub(super) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// The rest, of a stream that has ended.
    pub(super) fn finish(&mut self) -> Bytes {
        cut(&self.line, self.are_lines, &mut self.out);
        self.line.clear();
        self.take()
    }
}

/// Writes a line without the usage that it may have.
fn cut(line: &[u8], is_json: bool, out: &mut BytesMut) {
    let cuts = if may_have_usage(line) {
        usage_in(line, is_json).unwrap_or_default()
    } else {
        Vec::new()
    };
    let mut from = 0;
    for cut in cuts {
        out.extend_from_slice(line.get(from..cut.start).unwrap_or_default());
        from = cut.end;
    }
    out.extend_from_slice(line.get(from..).unwrap_or_default());
}

/// Ranges of usage in a line whose event has choices, each with one comma.
fn usage_in(line: &[u8], is_json: bool) -> Option<Vec<Range<usize>>> {
    let json = if is_json {
        line
    } else {
        let (b"data", value) = field(line)? else {
            return None;
        };
        value
    };
    let mut reader = Reader::of_part(json, line.len() - json.len());
    let mut cuts = Vec::new();
    let (mut has_choices, mut is_first) = (false, true);
    // Behind the last value.
    let mut behind = 0;
    let mut more = reader.open_object().ok()?;
    while more {
        reader.peek();
        let start = reader.at();
        let key = reader.key().ok()?;
        let is_object = reader.peek() == Some(b'{');
        let is_list = reader.peek() == Some(b'[');
        let value = reader.skip_value(1).ok()?;
        more = reader.more_members().ok()?;
        let is_usage = key.raw() == b"usage" && is_object;
        if key.raw() == b"choices" && is_list {
            let mut list = Reader::new(line.get(value.start + 1..value.end)?);
            has_choices = list.peek() != Some(b']');
        }
        if !is_usage {
            is_first = false;
        } else if !is_first {
            cuts.push(behind..value.end);
        } else if more {
            reader.peek();
            cuts.push(start..reader.at());
        } else {
            cuts.push(start..value.end);
        }
        behind = value.end;
    }
    (has_choices && reader.peek().is_none()).then_some(cuts)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const USAGE: &str = r#""usage":{"prompt_tokens":6,"total_tokens":8,"completion_tokens":2,"completion_tokens_details":null}"#;

    fn stripped(strip: &mut Strip, frames: &[&[u8]]) -> String {
        let mut sent = Vec::new();
        for frame in frames {
            strip.feed(frame);
            sent.extend_from_slice(&strip.take());
        }
        sent.extend_from_slice(&strip.finish());
        String::from_utf8(sent).unwrap()
    }

    fn once(line: &str) -> String {
        stripped(&mut Strip::default(), &[line.as_bytes()])
    }

    #[test]
    fn usage_goes_with_one_comma_wherever_it_stands() {
        let choices = r#""choices":[{"index":0,"delta":{"content":"a \"usage\":{}"}}]"#;
        for (event, left) in [
            (
                format!(r#"{{"id":"a",{choices},{USAGE},"x":null}}"#),
                format!(r#"{{"id":"a",{choices},"x":null}}"#),
            ),
            (
                format!(r"{{ {choices} , {USAGE} }}"),
                format!("{{ {choices} }}"),
            ),
            (
                format!(r"{{ {USAGE} , {choices} }}"),
                format!("{{ {choices} }}"),
            ),
            (
                format!("{{{USAGE},{USAGE},{choices},{USAGE},{USAGE}}}"),
                format!("{{{choices}}}"),
            ),
        ] {
            for end in ["\n\n", "\r\n\r\n", "\r\r"] {
                let sent = once(&format!("data: {event}{end}"));
                assert_eq!(sent, format!("data: {left}{end}"));
            }
            let mut lines = Strip::of_lines();
            let sent = stripped(&mut lines, &[event.as_bytes(), b"\n"]);
            assert_eq!(sent, format!("{left}\n"));
        }
    }

    #[test]
    fn what_is_no_event_with_choices_passes_as_it_came() {
        for line in [
            format!("data: {{\"choices\":[],{USAGE}}}\n\n"),
            format!("data: {{\"choices\":[ ],{USAGE}}}\n\n"),
            format!("data: {{{USAGE}}}\n\n"),
            format!("data: {{\"choices\":null,{USAGE}}}\n\n"),
            "data: {\"choices\":[{}],\"usage\":null}\n\n".to_owned(),
            format!("data: {{\"choices\":[{{}}],{USAGE}\n\n"),
            format!("data: {{\"choices\":[{{}}],{USAGE}}} x\n\n"),
            format!(": {{\"choices\":[{{}}],{USAGE}}}\n"),
            format!("event: {{\"choices\":[{{}}],{USAGE}}}\n"),
            "data: [DONE]\n\n".to_owned(),
            "data: {\"choices\":[{\"usage\":{}}],\"y\":{\"usage\":{}}}\n\n".to_owned(),
        ] {
            assert_eq!(once(&line), line);
        }
    }

    #[test]
    fn a_line_that_is_too_long_passes_and_the_next_one_is_cut_again() {
        let long = format!(
            "data: {{\"choices\":[{{\"text\":\"{}\"}}],{USAGE}}}\n",
            "x".repeat(2 * LINE_HELD_MAX)
        );
        let next = format!("data: {{\"choices\":[{{}}],{USAGE}}}\n");
        let whole = [long.as_bytes(), next.as_bytes()].concat();
        let frames: Vec<_> = whole.chunks(4096).collect();
        let mut strip = Strip::default();
        let sent = stripped(&mut strip, &frames);
        let cut = "data: {\"choices\":[{}]}\n";
        assert!(sent == format!("{long}{cut}"), "{} bytes", sent.len());
        assert!(strip.line.capacity() <= 2 * LINE_HELD_MAX);
    }

    proptest! {
        #[test]
        fn every_other_byte_stays_whatever_the_frames(
            events in vec(
                (
                    proptest::sample::select(vec!["", " ", "\t "]),
                    proptest::sample::select(vec!["\n", "\r\n", "\r"]),
                    ".{0,12}",
                    0..4_usize,
                ),
                0..8,
            ),
            lengths in vec(1..80_usize, 1..12),
        ) {
            let (mut given, mut left) = (String::new(), String::new());
            for (gap, end, text, place) in &events {
                let text = serde_json::to_string(text).unwrap();
                let choices = format!("\"choices\":{gap}[{{\"delta\":{{\"content\":{text}}}}}]");
                let without = format!("{{{gap}\"id\":{text},{gap}{choices},\"n\":1}}");
                let with = match place {
                    0 => without.clone(),
                    1 => format!("{{{gap}{USAGE},{gap}\"id\":{text},{gap}{choices},\"n\":1}}"),
                    2 => format!("{{{gap}\"id\":{text}{gap},{USAGE},{gap}{choices},\"n\":1}}"),
                    _ => format!("{{{gap}\"id\":{text},{gap}{choices},\"n\":1,{USAGE}}}"),
                };
                for (to, event) in [(&mut given, with), (&mut left, without)] {
                    write!(to, "data:{gap}{event}{end}{end}").unwrap();
                }
            }
            let mut frames = Vec::new();
            let mut rest = given.as_bytes();
            for length in lengths.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (frame, behind) = rest.split_at((*length).min(rest.len()));
                frames.push(frame);
                rest = behind;
            }
            prop_assert_eq!(stripped(&mut Strip::default(), &frames), left);
        }

        #[test]
        fn bytes_without_usage_are_not_touched(frames in vec(vec(any::<u8>(), 0..60), 0..10)) {
            let mut strip = Strip::default();
            let mut sent = Vec::new();
            for frame in &frames {
                strip.feed(frame);
                sent.extend_from_slice(&strip.take());
            }
            sent.extend_from_slice(&strip.finish());
            prop_assert_eq!(sent, frames.concat());
        }
    }
}
