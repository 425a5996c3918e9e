//! Things that a request brings along for the engine to fetch or to run: media by their
//! address, and a chat template of its own.
//!
//! An engine fetches from where it stands: an address may lead it to what only this
//! machine or network reaches, and a template is a program. What is allowed is the
//! route's to say ([`Inputs`]); this finds what a body has of either, wherever it stands
//! and however its keys are spelled, and says where.
//!
//! ```text
//! scan ── a key that may be one was seen ── Walk ── a refusal, or hosts to look up
//! ```
//!
//! The scan of every request only notices such keys ([`is_suspect`]); the few bodies that
//! have one are walked again, in the pieces that they came in. Nothing of them is copied
//! but keys and the beginning of addresses. That they are JSON is known by then.
//!
//! As vLLM 0.32 reads them: `image_url`, `audio_url`, `video_url` (an object with `url`,
//! or the address itself), `input_audio`, `source` of Anthropic's parts, `images` of
//! Cohere's embeddings. Any other key that ends in `_url` counts as well, as versions add
//! some; `metadata` at the top is the client's own and is not read.

mod url;

use crate::outbound::dial::media::Media;
use crate::outbound::dial::public::Host;

use super::json::{closing_quote, ends_escaping};
use super::request::ScanError;
use url::{NotMedia, Source};

/// Things that requests of a route may bring along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Places from which media may come.
    pub media: Media,
    /// True if a request may have a chat template of its own.
    pub chat_template: bool,
}

impl Inputs {
    /// True if more may come than where nothing is said: more than an operator may allow.
    pub fn widens(&self) -> bool {
        self.media.widens() || self.chat_template
    }
}

/// True if a key, as it is written in a body, may be one that matters here. A key with an
/// escape, as `is_escaped` says, may be any.
#[inline]
pub(super) fn is_suspect(key: &[u8], is_escaped: bool) -> bool {
    let matters = match key.last() {
        Some(b'l') => key.ends_with(b"_url"),
        Some(b's') => {
            key == b"images" || key == b"chat_template_kwargs" || key.ends_with(b"_embeds")
        }
        Some(b'e') => key == b"source" || key == b"chat_template",
        Some(b'o') => key == b"input_audio",
        _ => false,
    };
    matters || is_escaped
}

/// A host that has to be looked up before an engine may be told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHost {
    /// Path of the host in the body.
    pub place: String,
    /// The host.
    pub host: Host,
}

impl NamedHost {
    /// It is none that the engine may be sent to.
    pub fn refused(&self, why: &str) -> ScanError {
        refused(
            &self.place,
            &format!("the host {} {why}{MAY_ALLOW}", self.host),
        )
    }
}

/// Hosts that a request may name.
const HOSTS_MAX: usize = 16;
/// Of a key or an address so many bytes are kept.
const KEPT_BYTES_MAX: usize = 4096;
/// Of a key so many are shown.
const SHOWN_CHARS_MAX: usize = 40;
/// Longest escape of a character beyond 16 bits.
const ESCAPE_BYTES_MAX: usize = 12;

const MAY_ALLOW: &str = ": send it within the request as data:, or ask whoever runs the gateway, who may name the host in `media` of the route";

/// Meaning of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Nothing here, but what is in it may.
    Plain,
    /// Nothing, whatever is in it.
    Nothing,
    /// An address, or an object with one.
    Address,
    /// Source of Anthropic's parts.
    Source,
    /// Media that lie in the request.
    Inline,
    /// Values for the template.
    Values,
    /// A template.
    Template,
}

/// An open object or array.
#[derive(Debug)]
struct Frame {
    is_object: bool,
    meaning: Meaning,
    /// Of the value that comes next.
    next: Meaning,
    expects_key: bool,
    key: String,
    index: usize,
}

/// An open string.
#[derive(Debug)]
struct Text {
    is_key: bool,
    meaning: Meaning,
    kept: Vec<u8>,
    is_escaped: bool,
}

/// A walk over a body, piece by piece.
#[derive(Debug)]
pub struct Walk<'a> {
    allowed: &'a Inputs,
    open: Vec<Frame>,
    text: Option<Text>,
    named: Vec<NamedHost>,
}

impl<'a> Walk<'a> {
    /// Before the first piece.
    pub fn new(allowed: &'a Inputs) -> Self {
        Self {
            allowed,
            open: Vec::new(),
            text: None,
            named: Vec::new(),
        }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    ///
    /// [`ScanError`] for what is not allowed.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), ScanError> {
        let mut rest = piece;
        while !rest.is_empty() {
            if self.text.is_some() {
                rest = self.string(rest)?;
                continue;
            }
            let Some((byte, behind)) = rest.split_first() else {
                break;
            };
            self.byte(*byte)?;
            rest = behind;
        }
        Ok(())
    }

    /// The hosts that were named and have to be looked up.
    pub fn end(self) -> Vec<NamedHost> {
        self.named
    }

    /// Takes a byte outside of strings.
    fn byte(&mut self, byte: u8) -> Result<(), ScanError> {
        match byte {
            b'"' => {
                let expects_key = self.open.last().is_some_and(|frame| frame.expects_key);
                self.text = Some(Text {
                    is_key: expects_key,
                    meaning: self.meaning(),
                    kept: Vec::new(),
                    is_escaped: false,
                });
            }
            b'{' | b'[' => {
                let meaning = self.meaning();
                self.is_there(meaning)?;
                let is_object = byte == b'{';
                self.open.push(Frame {
                    is_object,
                    meaning,
                    next: if is_object { Meaning::Plain } else { meaning },
                    expects_key: is_object,
                    key: String::new(),
                    index: 0,
                });
            }
            b'}' | b']' => {
                self.open.pop();
            }
            b',' => {
                if let Some(frame) = self.open.last_mut() {
                    frame.expects_key = frame.is_object;
                    frame.index += 1;
                }
            }
            // The first byte of every word but null, and of numbers.
            b't' | b'f' | b'-' | b'0'..=b'9' => self.is_there(self.meaning())?,
            _ => {}
        }
        Ok(())
    }

    /// Of the value that comes next.
    fn meaning(&self) -> Meaning {
        self.open.last().map_or(Meaning::Plain, |frame| frame.next)
    }

    /// Takes more of the string that is open; returns what stands behind it.
    fn string<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], ScanError> {
        let Some(text) = &mut self.text else {
            return Ok(bytes);
        };
        let from = usize::from(text.is_escaped);
        let rest = bytes.get(from..).unwrap_or_default();
        let length = closing_quote(rest);
        let end = from + length.unwrap_or(rest.len());
        if text.is_key || text.meaning == Meaning::Address {
            let room = KEPT_BYTES_MAX.saturating_sub(text.kept.len());
            let taken = bytes.get(..end).unwrap_or_default();
            text.kept
                .extend_from_slice(taken.get(..room.min(taken.len())).unwrap_or_default());
        }
        if length.is_none() {
            text.is_escaped = ends_escaping(rest);
            return Ok(&[]);
        }
        if let Some(text) = self.text.take() {
            self.ended(&text)?;
        }
        Ok(bytes.get(end + 1..).unwrap_or_default())
    }

    fn ended(&mut self, text: &Text) -> Result<(), ScanError> {
        if text.is_key {
            let key = decoded(&text.kept).unwrap_or_default();
            let is_top = self.open.len() == 1;
            if let Some(frame) = self.open.last_mut() {
                frame.next = of_key(frame.meaning, is_top, &key);
                frame.expects_key = false;
                frame.key = key;
            }
            return Ok(());
        }
        match text.meaning {
            Meaning::Address => self.address(&text.kept),
            other => self.is_there(other),
        }
    }

    /// A value of this meaning is there, and is not null.
    fn is_there(&self, meaning: Meaning) -> Result<(), ScanError> {
        match meaning {
            Meaning::Template if !self.allowed.chat_template => Err(ScanError::Template {
                place: self.place(),
            }),
            Meaning::Address | Meaning::Inline if self.allowed.media == Media::None => Err(
                refused(&self.place(), "this model takes no media from requests"),
            ),
            _ => Ok(()),
        }
    }

    fn address(&mut self, raw: &[u8]) -> Result<(), ScanError> {
        // An engine takes an empty one for media that it has seen before.
        if raw.is_empty() || self.allowed.media == Media::Any {
            return Ok(());
        }
        self.is_there(Meaning::Address)?;
        // Without decoding it all, which may be much.
        if raw.starts_with(b"data:") {
            return Ok(());
        }
        let found = match decoded(raw) {
            Some(text) => text.parse(),
            None => Err(NotMedia("must be valid Unicode text")),
        };
        let host = match found {
            Ok(Source::Data) => return Ok(()),
            Ok(Source::Web(host)) => host,
            Err(NotMedia(why)) => {
                let why = format!("the address of media {why}");
                return Err(refused(&self.place(), &why));
            }
        };
        let named = NamedHost {
            place: self.place(),
            host,
        };
        match &self.allowed.media {
            Media::Public => named.host.check().map_err(|why| named.refused(why))?,
            Media::Hosts(hosts) if hosts.contains(&named.host) => return Ok(()),
            _ => return Err(named.refused("is none that this model may fetch media from")),
        }
        if self.named.iter().any(|other| other.host == named.host) {
            return Ok(());
        }
        if self.named.len() >= HOSTS_MAX {
            let why = format!("media may come from at most {HOSTS_MAX} hosts in one request");
            return Err(refused(&named.place, &why));
        }
        self.named.push(named);
        Ok(())
    }

    /// Path at which the walk stands, as `messages[0].content[1].image_url.url`.
    fn place(&self) -> String {
        let mut place = String::new();
        for frame in &self.open {
            if frame.is_object {
                let dot = if place.is_empty() { "" } else { "." };
                let key: String = frame.key.chars().take(SHOWN_CHARS_MAX).collect();
                place.push_str(dot);
                place.push_str(&key);
            } else {
                place.extend(["[", &frame.index.to_string(), "]"]);
            }
        }
        place
    }
}

/// Meaning of the value of a key.
fn of_key(parent: Meaning, is_top: bool, key: &str) -> Meaning {
    match (parent, key) {
        (Meaning::Nothing, _) => Meaning::Nothing,
        (Meaning::Values, "chat_template") => Meaning::Template,
        (_, "chat_template") if is_top => Meaning::Template,
        (_, "chat_template_kwargs") if is_top => Meaning::Values,
        (_, "metadata") if is_top => Meaning::Nothing,
        (Meaning::Address | Meaning::Source | Meaning::Inline, "url") | (_, "images") => {
            Meaning::Address
        }
        (Meaning::Source, "data") | (_, "input_audio") => Meaning::Inline,
        (_, "source") => Meaning::Source,
        _ if key.ends_with("_url") => Meaning::Address,
        _ if key.ends_with("_embeds") => Meaning::Inline,
        _ => Meaning::Plain,
    }
}

/// The text of a string, or of its beginning, which may end within an escape or within a
/// character.
fn decoded(raw: &[u8]) -> Option<String> {
    let is_cut = raw.len() >= KEPT_BYTES_MAX;
    let shortest = raw.len() - if is_cut { ESCAPE_BYTES_MAX } else { 0 };
    (shortest..=raw.len()).rev().find_map(|length| {
        let mut quoted = Vec::with_capacity(length + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(raw.get(..length)?);
        quoted.push(b'"');
        serde_json::from_slice(&quoted).ok()
    })
}

fn refused(place: &str, why: &str) -> ScanError {
    ScanError::NotAllowed {
        place: place.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
