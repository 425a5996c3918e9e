//! Meaning of one event of a stream: the words of each API.
//!
//! Owns the names of events and the few looks into their data. Each look is
//! cheap and may be wrong on data that no such API sends; none can fail.

use std::sync::LazyLock;

use memchr::memmem::Finder as Words;

use super::super::api::Api;
use super::super::json::{Literal, Reader};
use super::super::usage::Finder;

// Built once: making a searcher costs more than a search in a short event.
pub(super) static DELTA: LazyLock<Words<'static>> = LazyLock::new(|| Words::new(b"\"delta\""));
pub(super) static TEXT: LazyLock<Words<'static>> = LazyLock::new(|| Words::new(b"\"text\""));
static STOP: LazyLock<Words<'static>> = LazyLock::new(|| Words::new(b"\"stop_reason\""));
static USAGE: LazyLock<Words<'static>> = LazyLock::new(|| Words::new(b"\"usage\""));

/// Data behind the first of `words`.
fn behind<'a>(words: &Words<'_>, data: &'a [u8]) -> Option<&'a [u8]> {
    let at = words.find(data)?;
    data.get(at + words.needle().len()..)
}

/// The name and value of a line; none where it is blank, no name in a comment.
pub(super) fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if line.is_empty() {
        return None;
    }
    // Names are short, so this looks at no more than a few bytes.
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return Some((line, b""));
    };
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.strip_prefix(b":").unwrap_or(value);
    Some((name, value.strip_prefix(b" ").unwrap_or(value)))
}

/// Meaning of an event to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It carries something that the model made.
    Content,
    /// The stream ends well.
    End,
    /// A message tells how it stands, and at its end why it stopped.
    Stop,
    /// The stream ends, and the answer failed.
    Failure,
    /// An error inside the stream.
    Error,
    /// Anything else.
    Other,
}

impl Kind {
    /// Meaning of the name of an event, in the APIs that name them.
    pub(super) fn of_name(name: &[u8]) -> Self {
        match name {
            b"content_block_delta" => Self::Content,
            b"message_stop"
            | b"response.completed"
            | b"response.incomplete"
            | b"image_generation.completed"
            | b"image_edit.completed"
            | b"transcript.text.done"
            | b"speech.audio.done" => Self::End,
            b"message_delta" => Self::Stop,
            b"response.failed" => Self::Failure,
            b"error" => Self::Error,
            _ if name.ends_with(b".delta") => Self::Content,
            _ => Self::Other,
        }
    }
}

/// Meaning of an event of `api`. `named` is what its name told, if it had one.
pub(super) fn kind(api: Api, named: Option<Kind>, data: &[u8]) -> Kind {
    if starts_with_error(data) {
        return Kind::Error;
    }
    match api {
        Api::Responses
        | Api::Messages
        | Api::CountTokens
        | Api::Speech
        | Api::Images
        | Api::ImageEdits => named.or_else(|| kind_of_type(data)).unwrap_or(Kind::Other),
        // OpenAI names the type in the data; vLLM writes chunks like chat's.
        Api::Transcriptions | Api::Translations if named.is_none() => match kind_of_type(data) {
            None if delta_has_content(data).unwrap_or(false) => Kind::Content,
            kind => kind.unwrap_or(Kind::Other),
        },
        _ if named == Some(Kind::Error) => Kind::Error,
        Api::Completions if text_is_there(data) => Kind::Content,
        _ if delta_has_content(data).unwrap_or(false) => Kind::Content,
        _ => Kind::Other,
    }
}

/// Finder of usage in one event of `api`.
pub(super) fn finder(api: Api) -> Finder {
    Finder::usage_in(match api {
        Api::Responses => Some("response"),
        Api::Messages => Some("message"),
        _ => None,
    })
}

/// The id of the response that an event is about.
pub(super) fn response_id(data: &[u8]) -> Option<String> {
    let mut finder = Finder::id_in(Some("response"));
    finder.feed(data);
    finder.id()
}

/// True if an event may have usage: a look that costs little.
pub(super) fn may_have_usage(data: &[u8]) -> bool {
    USAGE.find(data).is_some()
}

/// True if a message says in this event why it stopped.
pub(super) fn has_stop_reason(data: &[u8]) -> bool {
    behind(&STOP, data).is_some_and(|rest| {
        let mut reader = Reader::new(rest);
        reader.eat(b':') && reader.peek() == Some(b'"')
    })
}

/// True if an event with usage has nothing but it: a whole JSON object whose
/// `choices` are empty.
#[inline]
pub(super) fn is_usage_only(api: Api, data: &[u8]) -> bool {
    has_no_choices(api, data).unwrap_or(false)
}

/// True if choices are empty or null; or left out, in a chunk that has nothing else to
/// say.
fn has_no_choices(api: Api, data: &[u8]) -> Option<bool> {
    let mut reader = Reader::new(data);
    let (mut is_there, mut is_empty) = (false, false);
    let mut is_plain = matches!(api, Api::Chat | Api::Completions);
    let mut more = reader.open_object().ok()?;
    while more {
        let key = reader.key().ok()?;
        let span = reader.skip_value(1).ok()?;
        if key.raw() == b"choices" {
            let mut choices = Reader::new(data.get(span)?);
            let is_null = choices.literal() == Some(Literal::Null);
            is_there = true;
            is_empty = is_null || choices.eat(b'[') && choices.eat(b']');
        }
        is_plain &= matches!(
            key.raw(),
            b"id"
                | b"object"
                | b"created"
                | b"model"
                | b"usage"
                | b"system_fingerprint"
                | b"service_tier"
        );
        more = reader.more_members().ok()?;
    }
    let has_none = if is_there { is_empty } else { is_plain };
    Some(has_none && reader.peek().is_none())
}

/// `{"error":…`, as vLLM 0.32 writes into a stream that fails, in every API.
pub(super) fn starts_with_error(data: &[u8]) -> bool {
    let mut reader = Reader::new(data);
    if !reader.eat(b'{') || reader.peek() != Some(b'"') {
        return false;
    }
    let is_error = data
        .get(reader.at()..)
        .is_some_and(|rest| rest.starts_with(b"\"error\""));
    is_error && reader.key().is_ok() && reader.literal() != Some(Literal::Null)
}

/// The event's `type`, for servers that leave the `event:` line out.
fn kind_of_type(data: &[u8]) -> Option<Kind> {
    let mut reader = Reader::new(data);
    let mut more = reader.open_object().ok()?;
    while more {
        let key = reader.key().ok()?;
        if key.raw() == b"type" && reader.peek() == Some(b'"') {
            return Some(Kind::of_name(reader.string().ok()?.raw()));
        }
        reader.skip_value(1).ok()?;
        more = reader.more_members().ok()?;
    }
    None
}

/// True if a chunk of text completions has text, be it an empty one: vLLM 0.32
/// sends that for a token without text.
fn text_is_there(data: &[u8]) -> bool {
    behind(&TEXT, data).is_some_and(|rest| {
        let mut reader = Reader::new(rest);
        reader.eat(b':') && reader.peek() == Some(b'"')
    })
}

fn delta_has_content(data: &[u8]) -> Option<bool> {
    let mut reader = Reader::new(behind(&DELTA, data)?);
    reader.eat(b':').then(|| content_of_delta(&mut reader))?
}

/// True if a chat chunk's delta, which is next, is more than `{}` and more than the
/// opening one, which has the role and an empty content.
pub(super) fn content_of_delta(reader: &mut Reader<'_>) -> Option<bool> {
    let (mut has_role, mut has_member, mut has_value) = (false, false, false);
    let mut more = reader.open_object().ok()?;
    while more {
        let key = reader.key().ok()?;
        if reader.literal() != Some(Literal::Null) {
            let is_role = key.raw() == b"role";
            has_role |= is_role;
            has_member |= !is_role;
            // More than a pair of quotes or brackets.
            has_value |= reader.skip_value(3).ok()?.len() > 2 && !is_role;
        }
        more = reader.more_members().ok()?;
    }
    Some(has_value || (has_member && !has_role))
}
