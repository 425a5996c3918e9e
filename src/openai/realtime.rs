//! Events of `/v1/realtime`, as vLLM and OpenAI write them.
//!
//! Owns their names and fields. vLLM 0.32 takes the model from the client's
//! `session.update`, where OpenAI's clients name it in the address instead: the
//! event gets the name that the server knows, all other bytes kept.

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;

use super::json::Reader;
use super::request::ScanError;
use super::usage::{Finder, Usage, found};

/// Subject of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client says what it wants.
    SessionUpdate,
    /// The server is there.
    SessionCreated,
    /// A piece of an answer.
    Delta,
    /// An answer is whole; it tells its tokens.
    Done,
    /// Anything else.
    Other,
}

/// Content of one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// Subject of the event.
    pub kind: Kind,
    /// The model that it names: `model`, or else `session.model`.
    pub model: Option<Cow<'a, str>>,
    /// Range of the value of `model`.
    place: Option<Range<usize>>,
    /// Behind the opening brace.
    inside: usize,
}

/// Reads an event.
///
/// # Errors
///
/// [`ScanError`] where it is not one JSON object, or says what matters twice.
pub fn read(text: &[u8]) -> Result<Event<'_>, ScanError> {
    let mut reader = Reader::new(text);
    if reader.peek() != Some(b'{') {
        return Err(ScanError::NotAnObject);
    }
    let inside = reader.at() + 1;
    let (mut kind, mut model, mut session) = (None, None, None);
    let mut more = reader.open_object()?;
    while more {
        let at = reader.at();
        let key = reader.key()?.decode().ok_or(ScanError::Malformed {
            at,
            expected: "a key of valid Unicode text",
        })?;
        match &*key {
            "type" if kind.is_some() => return twice("type"),
            "model" if model.is_some() => return twice("model"),
            "session" if session.is_some() => return twice("session"),
            "type" if reader.peek() == Some(b'"') => {
                let name = reader.string()?.decode().ok_or(ScanError::Model)?;
                kind = Some(kind_of(&name));
            }
            "model" if reader.peek() == Some(b'"') => {
                let name = reader.string()?;
                let text = name.decode().ok_or(ScanError::Model)?;
                model = Some((text, name.span));
            }
            "model" => {
                let span = reader.skip_value(1)?;
                model = Some((Cow::Borrowed(""), span));
            }
            "session" => session = Some(reader.skip_value(1)?),
            _ => {
                reader.skip_value(1)?;
            }
        }
        more = reader.more_members()?;
    }
    if reader.peek().is_some() {
        reader.fault("the end of the event")?;
    }
    let (model, place) = model.unzip();
    let model = model.filter(|name: &Cow<'_, str>| !name.is_empty());
    let nested = session
        .and_then(|span| text.get(span))
        .and_then(nested_model);
    Ok(Event {
        kind: kind.unwrap_or(Kind::Other),
        model: model.or(nested),
        place,
        inside,
    })
}

fn twice<T>(key: &'static str) -> Result<T, ScanError> {
    Err(ScanError::Duplicate { key: key.into() })
}

fn kind_of(name: &str) -> Kind {
    match name {
        "session.update" => Kind::SessionUpdate,
        "session.created" => Kind::SessionCreated,
        "transcription.done" | "response.done" => Kind::Done,
        _ if name.rsplit('.').next() == Some("delta") => Kind::Delta,
        _ => Kind::Other,
    }
}

/// `session.model`, where OpenAI's clients may put it.
fn nested_model(session: &[u8]) -> Option<Cow<'_, str>> {
    let mut reader = Reader::new(session);
    let mut more = reader.open_object().ok()?;
    while more {
        let key = reader.key().ok()?;
        if key.raw() == b"model" && reader.peek() == Some(b'"') {
            let name = reader.string().ok()?.decode()?;
            return Some(name).filter(|name| !name.is_empty());
        }
        reader.skip_value(2).ok()?;
        more = reader.more_members().ok()?;
    }
    None
}

impl Event<'_> {
    /// True if the model stands where vLLM looks for it.
    pub fn is_named(&self) -> bool {
        self.place.is_some()
    }

    /// The event with the name by which the server knows the model; `text` is
    /// what it was read from.
    pub fn with_model(&self, text: &[u8], name: &str) -> Vec<u8> {
        // A string cannot fail to serialise into memory.
        let name = serde_json::to_vec(name).unwrap_or_default();
        let (place, name) = match &self.place {
            Some(place) => (place.clone(), name),
            // There is a `type` behind it, so a comma is right.
            None => (
                self.inside..self.inside,
                [b"\"model\":", name.as_slice(), b","].concat(),
            ),
        };
        let before = text.get(..place.start).unwrap_or_default();
        let behind = text.get(place.end..).unwrap_or_default();
        [before, &name, behind].concat()
    }
}

/// The tokens that an event tells.
pub fn usage(text: &[u8]) -> Option<Usage> {
    let mut finder = Finder::usage_in(Some("response"));
    finder.feed(text);
    found(&finder, None)
}

#[derive(Serialize)]
struct Created<'a> {
    #[serde(rename = "type")]
    class: &'static str,
    id: &'a str,
    #[serde(rename = "created")]
    at: u64,
}

/// The event by which a server says that it is there.
pub fn created(id: &str, at: u64) -> Vec<u8> {
    let class = "session.created";
    let id = &format!("sess-{id}");
    serde_json::to_vec(&Created { class, id, at }).unwrap_or_default()
}

/// The event of an error, from its JSON in OpenAI's form.
pub fn failed(body: &[u8]) -> Vec<u8> {
    let members = body.strip_prefix(b"{").unwrap_or(b"}");
    [b"{\"type\":\"error\",", members].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_read_where_each_client_writes_it() {
        for (text, kind, model) in [
            (
                r#"{"type":"session.update","model":"voxtral"}"#,
                Kind::SessionUpdate,
                Some("voxtral"),
            ),
            (
                r#"{"session":{"type":"realtime","model":"gpt"},"type":"session.update"}"#,
                Kind::SessionUpdate,
                Some("gpt"),
            ),
            (
                r#"{"session":{"model":"b"},"model":"a","type":"session.update"}"#,
                Kind::SessionUpdate,
                Some("a"),
            ),
            (
                r#"{"type":"session.update","model":null}"#,
                Kind::SessionUpdate,
                None,
            ),
            (
                r#"{"\u0074ype":"session.\u0075pdate"}"#,
                Kind::SessionUpdate,
                None,
            ),
            (
                r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#,
                Kind::Other,
                None,
            ),
            (
                r#"{"type":"transcription.delta","delta":"x"}"#,
                Kind::Delta,
                None,
            ),
            (r#"{"type":7}"#, Kind::Other, None),
            ("{}", Kind::Other, None),
        ] {
            let event = read(text.as_bytes()).unwrap();
            assert_eq!(
                (event.kind, event.model.as_deref()),
                (kind, model),
                "{text}"
            );
        }
        for bad in [
            "",
            "[]",
            "\"x\"",
            "{",
            r#"{"a":NaN}"#,
            "{} x",
            r#"{"type":"a","type":"session.update"}"#,
            r#"{"model":"a","mod\u0065l":"b","type":"session.update"}"#,
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_name_is_put_where_vllm_looks_for_it() {
        for (text, expected) in [
            (
                r#"{"type":"session.update", "model" : "a","x":1.50}"#,
                r#"{"type":"session.update", "model" : "b","x":1.50}"#,
            ),
            (
                r#"{"type":"session.update","model":null}"#,
                r#"{"type":"session.update","model":"b"}"#,
            ),
            (
                r#" {"type":"session.update","session":{"model":"a"}}"#,
                r#" {"model":"b","type":"session.update","session":{"model":"a"}}"#,
            ),
        ] {
            let event = read(text.as_bytes()).unwrap();
            let written = event.with_model(text.as_bytes(), "b");
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }

    #[test]
    fn tokens_and_greetings_are_those_of_vllm() {
        let done = br#"{"type":"transcription.done","text":"hi","usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}"#;
        let counted = usage(done).unwrap();
        assert_eq!((counted.prompt, counted.completion), (9, 4));
        let response = br#"{"type":"response.done","response":{"usage":{"input_tokens":2,"output_tokens":3}}}"#;
        assert_eq!(usage(response).unwrap().completion, 3);
        let body = super::super::error::body("no", "x", None, None);
        let event: serde_json::Value = serde_json::from_slice(&failed(&body)).unwrap();
        assert_eq!(
            (&event["type"], &event["error"]["message"]),
            (&"error".into(), &"no".into())
        );
        let hello = created("7", 1);
        assert_eq!(read(&hello).unwrap().kind, Kind::SessionCreated);
    }
}
