//! Token counts, read out of responses as they pass.
//!
//! Owns the shapes of `usage` and the finding of it in JSON that arrives in
//! pieces. Nothing here can fail or hold back a response: whatever is not
//! understood is no usage. Memory is bounded by [`CAPTURE_BYTES_MAX`].
//!
//! Does not count anything by itself, and knows no event streams (see
//! [`sse`](super::sse)).

use memchr::{memchr2, memchr3};
use serde::Deserialize;

/// Longest `usage` object that is read.
pub const CAPTURE_BYTES_MAX: usize = 4096;

/// The tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, those of the cache included.
    pub prompt: u64,
    /// Tokens written.
    pub completion: u64,
    /// Tokens read that came out of the prefix cache.
    pub cached: u64,
}

impl Usage {
    /// Reads the value of a `usage` field in OpenAI's or Anthropic's form. None
    /// where it counts no tokens: null, audio seconds, another type.
    pub fn parse(json: &[u8]) -> Option<Self> {
        RawUsage::parse(json).and_then(|raw| raw.onto(None))
    }
}

/// All spellings of usage at once; each API fills some.
#[derive(Deserialize)]
struct RawUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<RawDetails>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<RawDetails>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct RawDetails {
    cached_tokens: Option<u64>,
}

impl RawUsage {
    fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// These counts, with what they leave out taken from an `earlier` report of
    /// the same request.
    fn onto(&self, earlier: Option<Usage>) -> Option<Usage> {
        let reads = self.prompt_tokens.or(self.input_tokens);
        let writes = self.completion_tokens.or(self.output_tokens);
        if reads.is_none() && writes.is_none() {
            return None;
        }
        let mut usage = earlier.unwrap_or_default();
        if let Some(reads) = reads {
            // Anthropic's input_tokens leave out what came from or went to the
            // cache; so do vLLM's in that form.
            let from_cache = self.cache_read_input_tokens.unwrap_or(0);
            let to_cache = self.cache_creation_input_tokens.unwrap_or(0);
            let details = self.prompt_tokens_details.as_ref();
            usage.prompt = reads.saturating_add(from_cache).saturating_add(to_cache);
            usage.cached = details
                .or(self.input_tokens_details.as_ref())
                .and_then(|details| details.cached_tokens)
                .unwrap_or(from_cache);
        }
        usage.completion = writes.unwrap_or(usage.completion);
        Some(usage)
    }
}

/// Reads the usage of a JSON response while its frames pass.
#[derive(Debug, Default)]
pub struct JsonTap {
    finder: Finder,
}

impl JsonTap {
    /// A tap at the start of a response.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the next frame.
    pub fn feed(&mut self, frame: &[u8]) {
        self.finder.feed(frame);
    }

    /// The usage, once it has passed.
    pub fn usage(&self) -> Option<Usage> {
        self.finder.usage(None)
    }
}

/// Finds the `usage` object of a JSON document that comes in pieces, at its top
/// level or in one member of it that is named.
///
/// ```text
/// Start ─{→ Key ─"→ InKey ─"→ Colon ─:→ Value ─┬─ scalar ─→ Scalar ─,→ Key
///             ↑                                ├─ string ─→ InString ──→ Scalar
///             └────────────,───────────────────┼─ [ or { ─→ Skip ──────→ Scalar
///                                              ├─ "usage":{ → Capture ─→ Done
///                                              └─ parent:{  → Key, one level down
/// ```
#[derive(Debug, Default)]
pub(super) struct Finder {
    at: At,
    /// The member that may hold the usage as well, as `response` or `message`.
    parent: Option<&'static str>,
    in_parent: bool,
    /// The last byte was a backslash in a string.
    escaped: bool,
    /// Inside a string of a container that is skipped or captured.
    in_string: bool,
    /// The key being read, as far as it may match.
    key: KeyText,
    captured: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    Key,
    InKey,
    Colon,
    Value,
    InString,
    Scalar,
    /// In a container of no interest; well-formed JSON needs only its own
    /// brackets counted.
    Skip {
        depth: u32,
        open: u8,
        close: u8,
    },
    Capture {
        depth: u32,
    },
    Done,
}

/// A key, kept while it is short.
#[derive(Clone, Copy, Debug, Default)]
struct KeyText {
    bytes: [u8; 8],
    len: usize,
}

impl KeyText {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
            }
            self.len = self.len.saturating_add(1);
        }
    }

    fn is(&self, name: &str) -> bool {
        self.bytes.get(..self.len) == Some(name.as_bytes())
    }
}

impl Finder {
    /// A finder that also looks into the member `parent` of the document.
    pub(super) fn within(parent: Option<&'static str>) -> Self {
        Self {
            parent,
            ..Self::default()
        }
    }

    pub(super) fn feed(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() && self.at != At::Done {
            let read = match self.at {
                At::InKey => self.key(rest),
                At::InString => self.string(rest, At::Scalar),
                At::Skip { depth, open, close } => self.skip(rest, depth, open, close),
                At::Capture { depth } => self.capture(rest, depth),
                At::Scalar => self.scalar(rest),
                At::Start | At::Key | At::Colon | At::Value => self.token(rest),
                At::Done => return,
            };
            rest = rest.get(read..).unwrap_or_default();
        }
    }

    /// The usage that was found, on top of an `earlier` report.
    pub(super) fn usage(&self, earlier: Option<Usage>) -> Option<Usage> {
        if self.at != At::Done {
            return None;
        }
        RawUsage::parse(&self.captured)?.onto(earlier)
    }

    /// Reads one byte of the structure.
    fn token(&mut self, rest: &[u8]) -> usize {
        let byte = rest.first().copied().unwrap_or(b' ');
        self.at = match (self.at, byte) {
            (at, b' ' | b'\n' | b'\r' | b'\t') => at,
            (At::Start, b'{') => At::Key,
            (At::Key, b'"') => {
                self.key = KeyText::default();
                At::InKey
            }
            // An empty object, or the end of one that was entered.
            (At::Key, b'}') => self.leave(),
            (At::Colon, b':') => At::Value,
            (At::Value, b'"') => At::InString,
            (At::Value, b'{') => self.enter(),
            (At::Value, b'[') => At::Skip {
                depth: 1,
                open: b'[',
                close: b']',
            },
            (At::Value, _) => At::Scalar,
            // Not JSON: nothing will be found.
            _ => At::Done,
        };
        1
    }

    /// What an object means that stands as the value of `key`.
    fn enter(&mut self) -> At {
        if self.key.is("usage") {
            self.captured.push(b'{');
            return At::Capture { depth: 1 };
        }
        if !self.in_parent && self.parent.is_some_and(|parent| self.key.is(parent)) {
            self.in_parent = true;
            return At::Key;
        }
        At::Skip {
            depth: 1,
            open: b'{',
            close: b'}',
        }
    }

    fn leave(&mut self) -> At {
        if self.in_parent {
            self.in_parent = false;
            return At::Scalar;
        }
        At::Done
    }

    fn key(&mut self, rest: &[u8]) -> usize {
        let read = self.string(rest, At::Colon);
        let ended = usize::from(self.at == At::Colon);
        self.key.push(rest.get(..read - ended).unwrap_or_default());
        read
    }

    /// Reads a string up to its end; then goes to `next`.
    fn string(&mut self, rest: &[u8], next: At) -> usize {
        let (read, ended) = self.string_part(rest);
        if ended {
            self.at = next;
        }
        read
    }

    /// Reads a string, or as much of it as there is. `true`: its end was read.
    fn string_part(&mut self, rest: &[u8]) -> (usize, bool) {
        let mut read = usize::from(self.escaped);
        self.escaped = false;
        while let Some(found) = rest.get(read..).and_then(|text| memchr2(b'"', b'\\', text)) {
            read += found + 1;
            if rest.get(read - 1) == Some(&b'"') {
                return (read, true);
            }
            // The escaped byte may stand in the next frame.
            if read == rest.len() {
                self.escaped = true;
                return (read, false);
            }
            read += 1;
        }
        (rest.len(), false)
    }

    fn scalar(&mut self, rest: &[u8]) -> usize {
        let Some(found) = memchr2(b',', b'}', rest) else {
            return rest.len();
        };
        self.at = if rest.get(found) == Some(&b',') {
            At::Key
        } else {
            self.leave()
        };
        found + 1
    }

    fn skip(&mut self, rest: &[u8], mut depth: u32, open: u8, close: u8) -> usize {
        let mut read = 0;
        while let Some(text) = rest.get(read..).filter(|text| !text.is_empty()) {
            if self.in_string {
                let (length, ended) = self.string_part(text);
                self.in_string = !ended;
                read += length;
                continue;
            }
            let Some(found) = memchr3(b'"', open, close, text) else {
                read = rest.len();
                break;
            };
            read += found + 1;
            match text.get(found) {
                Some(b'"') => self.in_string = true,
                Some(&byte) if byte == open => depth = depth.saturating_add(1),
                _ => depth -= 1,
            }
            if depth == 0 {
                self.at = At::Scalar;
                return read;
            }
        }
        self.at = At::Skip { depth, open, close };
        read
    }

    fn capture(&mut self, rest: &[u8], depth: u32) -> usize {
        let read = self.skip(rest, depth, b'{', b'}');
        let part = rest.get(..read).unwrap_or_default();
        if self.captured.len() + part.len() > CAPTURE_BYTES_MAX {
            self.captured.clear();
            self.at = At::Done;
            return read;
        }
        self.captured.extend_from_slice(part);
        self.at = match self.at {
            At::Skip { depth, .. } => At::Capture { depth },
            _ => At::Done,
        };
        read
    }
}

#[cfg(test)]
mod tests;
