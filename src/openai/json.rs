//! Reading JSON where it lies: structure is checked, nothing is built.
//!
//! Owns the walk over a document in memory, whole or piece by piece, with a bound on
//! its depth. It checks structure, literals and numbers. Inside strings that nobody
//! asked for it looks only for their end; bad escapes there are left to the worker.

mod quotes;
mod skip;

use std::borrow::Cow;
use std::ops::Range;

pub(super) use quotes::{closing_quote, ends_escaping, has_escape};
use skip::Number;
pub(super) use skip::Skip;

/// Deepest nesting that is accepted; vLLM's own readers stop near 200.
pub(super) const DEPTH_MAX: u32 = 128;

/// Reason why a document could not be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something else was expected at this byte.
    Unexpected { at: usize, expected: &'static str },
    /// Nested deeper than [`DEPTH_MAX`] at this byte.
    TooDeep { at: usize },
}

/// A position in a document, or in a part of it.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// In `bytes`.
    at: usize,
    /// Position in the document at which `bytes` begins.
    base: usize,
}

/// A word of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
}

/// A string as it lies in the document.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    /// From its opening quote on; what lies behind its closing one is there to be read as
    /// well.
    rest: &'a [u8],
    /// Range of the string in the document, with its quotes.
    pub(super) span: Range<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self::of_part(bytes, 0)
    }

    /// Of `bytes`, which lie at `base` of the document.
    pub(super) fn of_part(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, at: 0, base }
    }

    /// Position in the document.
    pub(super) fn at(&self) -> usize {
        self.base + self.at
    }

    /// Passes over a byte order mark, if one is next.
    pub(super) fn skip_mark(&mut self) -> bool {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let found = rest.starts_with(MARK);
        self.at += if found { MARK.len() } else { 0 };
        found
    }

    /// Goes back to a position where it stood before.
    pub(super) fn back_to(&mut self, at: usize) {
        self.at = at.saturating_sub(self.base);
    }

    pub(super) fn fault<T>(&self, expected: &'static str) -> Result<T, Fault> {
        Err(Fault::Unexpected {
            at: self.at(),
            expected,
        })
    }

    /// The next byte that is not white space, left unread.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Reads `byte`, after white space, if it is next.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Reads the opening of an object. `false`: it was empty, and is read.
    pub(super) fn open_object(&mut self) -> Result<bool, Fault> {
        if !self.eat(b'{') {
            return self.fault("'{'");
        }
        Ok(!self.eat(b'}'))
    }

    /// Reads a key and its colon.
    pub(super) fn key(&mut self) -> Result<Text<'a>, Fault> {
        if self.peek() != Some(b'"') {
            return self.fault("a key in double quotes");
        }
        let key = self.string()?;
        if !self.eat(b':') {
            return self.fault("':'");
        }
        Ok(key)
    }

    /// Reads what follows a member. `true`: a comma, so another one follows.
    pub(super) fn more_members(&mut self) -> Result<bool, Fault> {
        if self.eat(b',') {
            return Ok(true);
        }
        if self.eat(b'}') {
            return Ok(false);
        }
        self.fault("',' or '}'")
    }

    /// Reads a string; its opening quote must be next.
    pub(super) fn string(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.at;
        let text = self.bytes.get(start + 1..).unwrap_or_default();
        let Some(length) = closing_quote(text) else {
            return Err(Fault::Unexpected {
                at: self.base + self.bytes.len(),
                expected: "the end of a string",
            });
        };
        self.at = start + length + 2;
        Ok(Text {
            rest: self.bytes.get(start..).unwrap_or_default(),
            span: self.base + start..self.at(),
        })
    }

    /// Reads `true`, `false` or `null` if one is next.
    pub(super) fn literal(&mut self) -> Option<Literal> {
        self.peek();
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        for (word, value) in [
            (&b"true"[..], Literal::Bool(true)),
            (b"false", Literal::Bool(false)),
            (b"null", Literal::Null),
        ] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Some(value);
            }
        }
        None
    }

    /// Reads a number, as JSON spells it, if one is next.
    pub(super) fn number(&mut self) -> Result<&'a str, Fault> {
        self.peek();
        // Only ASCII is read.
        Ok(std::str::from_utf8(self.digits()?).unwrap_or_default())
    }

    /// The same, as bytes, where no white space is next.
    #[inline]
    fn digits(&mut self) -> Result<&'a [u8], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (number, length) = Number::Start.read(rest);
        self.at += length;
        if !number.is_whole() {
            return self.fault("a digit");
        }
        Ok(rest.get(..length).unwrap_or_default())
    }

    /// Reads a string, a number or a word, if one is next and here whole.
    #[inline]
    pub(super) fn scalar(&mut self) -> Result<bool, Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| true),
            Some(b'-' | b'0'..=b'9') => self.digits().map(|_| true),
            _ => Ok(self.literal().is_some()),
        }
    }

    /// Passes over a value as far as there are bytes of it. Whether it has ended.
    pub(super) fn skip(&mut self, skip: &mut Skip) -> Result<bool, Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let ended = skip.feed(rest, self.base + self.at)?;
        self.at += ended.unwrap_or(rest.len());
        Ok(ended.is_some())
    }

    /// Passes over any value, which must be here whole, and gives the span of it.
    /// `above` counts the containers that it lies in.
    pub(super) fn skip_value(&mut self, above: u32) -> Result<Range<usize>, Fault> {
        self.peek();
        let start = self.at();
        if !self.scalar()? {
            let mut skip = Skip::new(above);
            if !self.skip(&mut skip)? {
                skip.end(self.at())?;
            }
        }
        Ok(start..self.at())
    }
}

impl<'a> Text<'a> {
    /// The string, with its quotes.
    fn quoted(&self) -> &'a [u8] {
        self.rest.get(..self.span.len()).unwrap_or_default()
    }

    /// Bytes between the quotes, as they were written.
    pub(super) fn raw(&self) -> &'a [u8] {
        let length = self.span.end - self.span.start;
        self.rest.get(1..length - 1).unwrap_or_default()
    }

    /// True if the string is written with escapes.
    pub(super) fn has_escapes(&self) -> bool {
        let behind = self.rest.get(1..).unwrap_or_default();
        has_escape(behind, self.span.len() - 2)
    }

    /// Bytes between the quotes, where they are what the string stands for.
    pub(super) fn plain(&self) -> Option<&'a [u8]> {
        (!self.has_escapes()).then(|| self.raw())
    }

    /// The text that it stands for; none where it is not valid Unicode, has a
    /// bad escape, half a surrogate pair or a control character.
    pub(super) fn decode(&self) -> Option<Cow<'a, str>> {
        if self.has_escapes() {
            return serde_json::from_slice(self.quoted()).ok().map(Cow::Owned);
        }
        if self.raw().iter().any(|&byte| byte < 0x20) {
            return None;
        }
        std::str::from_utf8(self.raw()).ok().map(Cow::Borrowed)
    }
}
