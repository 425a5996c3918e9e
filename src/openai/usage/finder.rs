//! The search for one member of a JSON document while it passes in pieces.
//!
//! Owns the walk over bytes that arrive in any cut. Remembers only what it looks
//! for, within a bound; what is not JSON is searched in vain and harms no one.

use memchr::{memchr2, memchr3};

use super::super::json::{closing_quote, ends_escaping};

/// Longest object that is kept.
pub const CAPTURE_BYTES_MAX: usize = 4096;
/// Longest id that is kept.
const ID_BYTES_MAX: usize = 128;

/// Finds an object of a JSON document that comes in pieces, as `usage`, at its top
/// level or in one member of it that is named; or the string `id`.
///
/// ```text
/// Start ─{→ Key ─"→ InKey ─"→ Colon ─:→ Value ─┬─ scalar ─→ Scalar ─,→ Key
///             ↑                                ├─ string ─→ InString ──→ Scalar
///             │                                ├─ "id":" ─→ InId ─→ Done
///             └────────────,───────────────────┼─ [ or { ─→ Skip ──────→ Scalar
///                                              ├─ "usage":{ → Capture ─→ Done
///                                              └─ parent:{  → Key, one level down
/// ```
#[derive(Debug, Default)]
pub(in crate::openai) struct Finder {
    at: At,
    /// The name of the object to find; none while the id is.
    wanted: Option<&'static str>,
    /// The member that may hold it as well, as `response` or `message`. An id
    /// is looked for there only.
    parent: Option<&'static str>,
    in_parent: bool,
    /// The last byte was a backslash in a string.
    escaped: bool,
    /// Inside a string of a container that is skipped or captured.
    in_string: bool,
    /// The key being read, as far as it may match.
    key: KeyText,
    pub(super) captured: Vec<u8>,
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
    InId,
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
    bytes: [u8; 16],
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
    /// A finder of usage that also looks into the member `parent`.
    pub(in crate::openai) fn usage_in(parent: Option<&'static str>) -> Self {
        Self::object_in("usage", parent)
    }

    /// A finder of the object `wanted`, at the top or in the member `parent`.
    pub(in crate::openai) fn object_in(wanted: &'static str, parent: Option<&'static str>) -> Self {
        Self {
            wanted: Some(wanted),
            parent,
            ..Self::default()
        }
    }

    /// A finder of the id, at the top or else in the member `parent`.
    pub(in crate::openai) fn id_in(parent: Option<&'static str>) -> Self {
        Self {
            parent,
            ..Self::default()
        }
    }

    pub(in crate::openai) fn feed(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() && self.at != At::Done {
            let read = match self.at {
                At::InKey => self.key(rest),
                At::InString => self.string(rest, At::Scalar),
                At::InId => self.read_id(rest),
                At::Skip { depth, open, close } => self.skip(rest, depth, open, close),
                At::Capture { depth } => self.capture(rest, depth),
                At::Scalar => self.scalar(rest),
                At::Start | At::Key | At::Colon | At::Value => self.token(rest),
                At::Done => return,
            };
            rest = rest.get(read..).unwrap_or_default();
        }
    }

    /// The object that was found, as it was written.
    pub(in crate::openai) fn object(&self) -> Option<&[u8]> {
        let is_found = self.at == At::Done && self.wanted.is_some();
        (is_found && !self.captured.is_empty()).then_some(&self.captured)
    }

    /// The id that was found: one of plain characters.
    pub(in crate::openai) fn id(&self) -> Option<String> {
        let is_found = self.at == At::Done && self.wanted.is_none();
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let fits = !self.captured.is_empty() && self.captured.iter().all(plain);
        (is_found && fits).then(|| String::from_utf8_lossy(&self.captured).into_owned())
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
            (At::Value, b'"') if self.is_id() => At::InId,
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

    /// State within an object that stands as the value of `key`.
    fn enter(&mut self) -> At {
        if self.wanted.is_some_and(|wanted| self.key.is(wanted)) {
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

    /// True if a string that begins is the id.
    fn is_id(&self) -> bool {
        let here = self.parent.is_none() || self.in_parent;
        self.wanted.is_none() && here && self.key.is("id")
    }

    fn read_id(&mut self, rest: &[u8]) -> usize {
        let read = self.string(rest, At::Done);
        let ended = usize::from(self.at == At::Done);
        let part = rest.get(..read - ended).unwrap_or_default();
        if self.captured.len() + part.len() > ID_BYTES_MAX {
            self.captured.clear();
            self.at = At::Done;
        } else {
            self.captured.extend_from_slice(part);
        }
        read
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
        let read = usize::from(self.escaped);
        let text = rest.get(read..).unwrap_or_default();
        if let Some(length) = closing_quote(text) {
            self.escaped = false;
            return (read + length + 1, true);
        }
        // The escaped byte may stand in the next frame.
        self.escaped = ends_escaping(text);
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
