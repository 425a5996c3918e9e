//! Parts of a stream: its form, the lines in it, and the event that is passing.

use super::event::Kind;

/// Form in which events are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As server-sent events.
    Events,
    /// Each as a line of JSON, as in `application/x-ndjson`.
    Lines,
}

/// Last byte that passed, to which a line feed may belong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LastByte {
    Other,
    /// A carriage return: yes.
    Return,
    /// One that ended an event that was cut: yes, and it is cut too.
    CutReturn,
}

/// The event that is passing.
#[derive(Default)]
pub(super) struct Event {
    pub(super) stage: Stage,
    pub(super) kind: Option<Kind>,
    /// Some of its bytes have gone out, so it cannot be cut any more.
    pub(super) is_released: bool,
}

/// Part of an event that was read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// No field.
    #[default]
    Start,
    /// A field, but no data.
    Fields,
    /// Data.
    Data,
    /// Data that is usage and nothing else.
    UsageOnly,
}

/// Kind of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Blank,
    Comment,
    Field,
}

impl Event {
    pub(super) fn has_data(&self) -> bool {
        matches!(self.stage, Stage::Data | Stage::UsageOnly)
    }

    /// True if the event is usage and nothing else, and none of it has gone out.
    pub(super) fn is_cut(&self) -> bool {
        self.stage == Stage::UsageOnly && !self.is_released
    }
}
