//! What a stream is read as: its form, the lines in it, and the event that is passing.

use super::event::Kind;

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As server-sent events.
    Events,
    /// Each as a line of JSON, as in `application/x-ndjson`.
    Lines,
}

/// Whether a line feed would belong to what came before it.
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

/// What was read of an event.
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

/// What a line was.
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

    /// Whether it is usage and nothing else, and none of it has gone out.
    pub(super) fn is_cut(&self) -> bool {
        self.stage == Stage::UsageOnly && !self.is_released
    }
}
