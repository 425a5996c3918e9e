//! A stream of server-sent events, watched as it passes.
//!
//! Owns the finding of event boundaries, whatever the frames, and of what the
//! gateway must know: how many events, the first content, the token counts, the
//! mark of the end, an error inside the stream. Frames go out as they came in;
//! nothing is copied, and nothing that is not understood can stop the stream.
//!
//! An event whose end has not come is held back, up to a bound: half an event is
//! of no use to a client, and where the stream breaks off within one, no half of
//! it has gone out that would spoil the error event that follows.
//!
//! One thing can be cut out, and only on demand: the extra usage event that we
//! asked for and the client did not. The `system_fingerprint`, which vLLM 0.32
//! moves from the last chunk into that event, goes with it. Where usage was asked for in
//! every event, [`strip`] takes it out of each behind this.
//!
//! A whole answer is whole however its last bytes are written: without a last line
//! feed or blank line, and without `[DONE]` where every choice has said why it finished.
//! Servers that write their events as lines of JSON are read in the same way.
//!
//! Does not read text or tool calls, and does not write events of its own.

use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

use super::api::Api;
use super::usage::{Finder, Usage, found};

use choices::Choices;
use event::Kind;
use parts::{Event, Form, LastByte, Line, Stage};
use strip::Strip;
use usual::Usual;

mod choices;
mod event;
mod parts;
mod strip;
mod usual;

/// Longest part of a line that is kept for a look at it; longer lines are only
/// searched for usage as they pass.
const LINE_KEPT_MAX: usize = 64 * 1024;
/// Events in which the id of a response is looked for: it stands in the first.
const ID_EVENTS_MAX: u64 = 4;
/// Longest incomplete event that is held back.
const EVENT_HELD_MAX: usize = 64 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Watches one response stream.
pub struct StreamTap {
    api: Api,
    removes_usage_event: bool,
    /// Filter that takes usage out of every event; `None` where that is not to be.
    strip: Option<Box<Strip>>,
    form: Form,
    /// The start of a line whose end has not come, at most [`LINE_KEPT_MAX`].
    line: Vec<u8>,
    /// The search in a line that outgrew `line`.
    long_line: Option<Finder>,
    last_byte: LastByte,
    event: Event,
    /// Bytes of the incomplete event that have not gone out.
    held: BytesMut,
    usage: Option<Usage>,
    /// The id of the response, in the one API whose clients come back with it.
    response_id: Option<String>,
    events: u64,
    content_events: u64,
    choices: Choices,
    usual: Usual,
    is_done: bool,
    is_errored: bool,
}

impl StreamTap {
    /// A tap at the start of a stream. `removes_usage_event` cuts out events
    /// that have `"choices":[]` and a usage object.
    pub fn new(api: Api, removes_usage_event: bool) -> Self {
        Self {
            api,
            removes_usage_event,
            strip: None,
            form: Form::Events,
            line: Vec::new(),
            long_line: None,
            last_byte: LastByte::Other,
            event: Event::default(),
            held: BytesMut::new(),
            usage: None,
            response_id: None,
            events: 0,
            content_events: 0,
            choices: Choices::default(),
            usual: Usual::default(),
            is_done: false,
            is_errored: false,
        }
    }

    /// The same of a stream whose every line is the JSON of an event.
    pub fn of_lines(api: Api, removes_usage_event: bool) -> Self {
        Self {
            form: Form::Lines,
            ..Self::new(api, removes_usage_event)
        }
    }

    /// The same, but usage is taken out of every event that has choices.
    #[must_use]
    pub fn stripping(self) -> Self {
        let strip = match self.form {
            Form::Events => Strip::default(),
            Form::Lines => Strip::of_lines(),
        };
        Self {
            strip: Some(Box::new(strip)),
            ..self
        }
    }

    /// Looks at the next frame and hands on what goes to the client: in most
    /// cases that very frame.
    pub fn feed(&mut self, frame: Bytes, out: &mut impl FnMut(Bytes)) {
        let Some(mut strip) = self.strip.take() else {
            return self.watch(frame, out);
        };
        self.watch(frame, &mut |part| strip.feed(&part));
        let left = strip.take();
        if !left.is_empty() {
            out(left);
        }
        self.strip = Some(strip);
    }

    fn watch(&mut self, mut frame: Bytes, out: &mut impl FnMut(Bytes)) {
        if frame.is_empty() {
            return;
        }
        let last_byte = mem::replace(&mut self.last_byte, LastByte::Other);
        // A line feed may belong to the line that ended before this frame.
        let is_late_feed = last_byte != LastByte::Other && frame.first() == Some(&b'\n');
        let mut at = usize::from(is_late_feed);
        // Bytes before this have gone out, are held or were cut.
        let mut gone = 0;
        if is_late_feed && last_byte == LastByte::CutReturn {
            gone = at;
        } else if is_late_feed && !self.held.is_empty() {
            self.held.extend_from_slice(b"\n");
            gone = at;
        }
        let mut emit = |part: Bytes| {
            if !part.is_empty() {
                out(part);
            }
        };
        while at < frame.len() {
            let start = at;
            let (read, ended) = self.read_event(frame.get(at..).unwrap_or_default());
            at += read;
            match ended {
                Some(event) if self.removes_usage_event && event.is_cut() => {
                    emit(frame.slice(gone..start));
                    self.held.clear();
                    if self.last_byte == LastByte::Return {
                        self.last_byte = LastByte::CutReturn;
                    }
                    gone = at;
                }
                Some(_) => emit(self.unheld()),
                None if self.may_hold(frame.len() - start) => {
                    emit(frame.slice(gone..start));
                    self.held
                        .extend_from_slice(frame.get(start..).unwrap_or_default());
                    gone = at;
                }
                None => {
                    self.event.is_released = true;
                    emit(self.unheld());
                }
            }
        }
        if gone > 0 {
            frame.advance(gone);
        }
        emit(frame);
    }

    /// Reads what has no end yet as if it had: no more will come.
    pub fn read_unended(&mut self) {
        if self.line.is_empty() && self.event.stage == Stage::Start {
            return;
        }
        if !self.line.is_empty() {
            let line = mem::take(&mut self.line);
            let finder = self.long_line.take();
            self.end_line(&line, finder.as_ref());
        }
        self.events += u64::from(self.event.has_data());
        if self.event.stage == Stage::Start {
            // Behind half a comment no event may start.
            self.event.stage = Stage::Fields;
        }
    }

    /// Ends the stream: what was held back goes out after all, but for what is cut.
    pub fn finish(&mut self) -> Bytes {
        if self.removes_usage_event && self.event.is_cut() {
            self.held.clear();
        }
        self.event.is_released = true;
        let rest = self.unheld();
        match &mut self.strip {
            Some(strip) => {
                strip.feed(&rest);
                strip.finish()
            }
            None => rest,
        }
    }

    /// True if nothing is missing of a stream that ended in order.
    pub fn is_whole(&self) -> bool {
        let has_ended = self.is_done || self.is_errored || self.choices.have_finished();
        has_ended || self.events == 0 || self.form == Form::Lines
    }

    /// True if events of our own can be told in the stream.
    pub fn takes_events(&self) -> bool {
        self.form == Form::Events
    }

    /// Bytes that were held back, to go out now.
    #[inline]
    fn unheld(&mut self) -> Bytes {
        if self.held.is_empty() {
            return Bytes::new();
        }
        self.held.split().freeze()
    }

    /// The tokens so far; the last report wins.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The id of the response, once it has passed. Only of [`Api::Responses`].
    pub fn response_id(&self) -> Option<&str> {
        self.response_id.as_deref()
    }

    /// Events with data, without the mark of the end.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Events that carry something the model made. vLLM 0.32 sends one for each
    /// step, so this is about the number of tokens where no usage came.
    pub fn content_events(&self) -> u64 {
        self.content_events
    }

    /// True once the mark of the end has passed: `[DONE]`, `message_stop`,
    /// `response.completed`, `response.incomplete` or `response.failed`.
    pub fn done(&self) -> bool {
        self.is_done
    }

    /// True once an error event has passed.
    pub fn errored(&self) -> bool {
        self.is_errored
    }

    /// True if what went out ends between two events, so that a comment or an
    /// event of our own may follow. False behind a lone carriage return, whose
    /// line feed may still come.
    pub fn at_event_boundary(&self) -> bool {
        let is_between = self.event.stage == Stage::Start && self.line.is_empty();
        let is_all_held = !self.held.is_empty() && !self.event.is_released;
        self.last_byte == LastByte::Other && (is_between || is_all_held)
    }

    /// Reads to the end of an event, of a comment before one, or of `rest`:
    /// how many bytes that was, and the event if it ended.
    fn read_event(&mut self, rest: &[u8]) -> (usize, Option<Event>) {
        let mut read = 0;
        while let Some(text) = rest.get(read..).filter(|text| !text.is_empty()) {
            let (length, line) = self.read_line(text);
            read += length;
            match line {
                Some(Line::Blank) => {
                    self.events += u64::from(self.event.has_data());
                    return (read, Some(mem::take(&mut self.event)));
                }
                // It is no part of an event and goes out at once.
                Some(Line::Comment) if self.event.stage == Stage::Start => {
                    return (read, Some(mem::take(&mut self.event)));
                }
                Some(Line::Field) if self.form == Form::Lines => {
                    self.events += u64::from(self.event.has_data());
                    return (read, Some(mem::take(&mut self.event)));
                }
                Some(Line::Field) if self.event.stage == Stage::Start => {
                    self.event.stage = Stage::Fields;
                }
                Some(Line::Comment | Line::Field) | None => {}
            }
        }
        (read, None)
    }

    /// Reads to the end of a line or of `rest`.
    fn read_line(&mut self, rest: &[u8]) -> (usize, Option<Line>) {
        let Some(end) = memchr2(b'\n', b'\r', rest) else {
            self.keep(rest);
            return (rest.len(), None);
        };
        let mut read = end + 1;
        if rest.get(end) == Some(&b'\r') {
            match rest.get(read) {
                Some(b'\n') => read += 1,
                Some(_) => {}
                None => self.last_byte = LastByte::Return,
            }
        }
        let text = rest.get(..end).unwrap_or_default();
        if self.line.is_empty() {
            return (read, Some(self.end_line(text, None)));
        }
        self.keep(text);
        let mut line = mem::take(&mut self.line);
        let finder = self.long_line.take();
        let is = self.end_line(&line, finder.as_ref());
        line.clear();
        self.line = line;
        (read, Some(is))
    }

    /// Keeps a part of a line whose end has not come.
    fn keep(&mut self, part: &[u8]) {
        if let Some(finder) = &mut self.long_line {
            finder.feed(part);
        } else if self.line.len() + part.len() <= LINE_KEPT_MAX {
            self.line.extend_from_slice(part);
        } else {
            let room = LINE_KEPT_MAX.saturating_sub(self.line.len());
            self.line
                .extend_from_slice(part.get(..room).unwrap_or_default());
            let mut finder = event::finder(self.api);
            if let Some((b"data", value)) = self.field(&self.line) {
                finder.feed(value);
                finder.feed(part.get(room..).unwrap_or_default());
            }
            self.long_line = Some(finder);
        }
    }

    /// Takes in a line without its end. Of a long one, `line` is the start and
    /// `finder` has seen all.
    fn end_line(&mut self, line: &[u8], finder: Option<&Finder>) -> Line {
        let Some((mut name, value)) = self.field(line) else {
            return Line::Blank;
        };
        if self.events == 0 {
            // It may stand before a stream, and is no part of the first name.
            name = name.strip_prefix(BYTE_ORDER_MARK).unwrap_or(name);
        }
        match name {
            b"" => return Line::Comment,
            b"data" => self.end_data(value, finder),
            b"event" => self.event.kind = Some(Kind::of_name(value)),
            _ => {}
        }
        Line::Field
    }

    #[inline]
    fn end_data(&mut self, data: &[u8], finder: Option<&Finder>) {
        if data.trim_ascii_start().starts_with(b"[DONE]") {
            self.is_done = true;
            return;
        }
        if finder.is_none()
            && self.event.kind.is_none()
            && let Some(has_content) = self.usual.has_content(self.api, data)
        {
            self.choices.see_first();
            self.content_events += u64::from(has_content);
            self.event.stage = Stage::Data;
            return;
        }
        if self.api == Api::Responses && self.response_id.is_none() && self.events < ID_EVENTS_MAX {
            self.response_id = event::response_id(data);
        }
        let kind = event::kind(self.api, self.event.kind, data);
        if self.api.has_choices() {
            self.choices.read(data);
        }
        if kind == Kind::Stop && event::has_stop_reason(data) {
            self.choices.stop();
        }
        self.content_events += u64::from(kind == Kind::Content);
        self.is_done |= matches!(kind, Kind::End | Kind::Failure);
        self.is_errored |= matches!(kind, Kind::Error | Kind::Failure);
        let has_usage = self.end_usage(data, finder);
        let is_usage_only = self.removes_usage_event
            && has_usage
            && matches!(self.event.stage, Stage::Start | Stage::Fields)
            && event::is_usage_only(self.api, data);
        self.event.stage = if is_usage_only {
            Stage::UsageOnly
        } else {
            Stage::Data
        };
    }

    /// The name and value of a line; none where it is blank, no name in a comment.
    fn field<'l>(&self, line: &'l [u8]) -> Option<(&'l [u8], &'l [u8])> {
        match line {
            [] => None,
            line if self.form == Form::Lines => Some((b"data", line)),
            line => event::field(line),
        }
    }

    /// Takes in the usage of an event. `true`: it had one.
    fn end_usage(&mut self, data: &[u8], finder: Option<&Finder>) -> bool {
        let reported = match finder {
            Some(finder) => found(finder, self.usage),
            None if event::may_have_usage(data) => {
                let mut finder = event::finder(self.api);
                finder.feed(data);
                found(&finder, self.usage)
            }
            None => None,
        };
        self.usage = reported.or(self.usage);
        reported.is_some()
    }

    /// True if the incomplete event may wait for its end, when `fresh` of its
    /// bytes stand in the frame at hand.
    fn may_hold(&self, fresh: usize) -> bool {
        !self.event.is_released && self.held.len() + fresh <= EVENT_HELD_MAX
    }
}

#[cfg(test)]
pub(super) mod tests;
