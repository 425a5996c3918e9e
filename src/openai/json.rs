//! Reading JSON where it lies: structure is checked, nothing is built.
//!
//! Owns the walk over a document in memory, whole or piece by piece, with a bound on
//! its depth. It checks structure, literals and numbers. Inside strings that nobody
//! asked for it looks only for their end; bad escapes there are left to the worker.

mod skip;

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;

use skip::Number;
pub(super) use skip::Skip;

/// Deepest nesting that is accepted; vLLM's own readers stop near 200.
pub(super) const DEPTH_MAX: u32 = 128;

/// Why a document could not be walked.
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
    /// Where in the document `bytes` begins.
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
    /// With its quotes.
    quoted: &'a [u8],
    /// Where `quoted` lies in the document.
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

    /// Where it stands in the document.
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
            quoted: self.bytes.get(start..self.at).unwrap_or_default(),
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
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (number, length) = Number::Start.read(rest);
        self.at += length;
        if !number.is_whole() {
            return self.fault("a digit");
        }
        let text = rest.get(..length).unwrap_or_default();
        // Only ASCII was read.
        Ok(std::str::from_utf8(text).unwrap_or_default())
    }

    /// Reads a string, a number or a word, if one is next and here whole.
    pub(super) fn scalar(&mut self) -> Result<bool, Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| true),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| true),
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
    /// What stands between the quotes, as it was written.
    pub(super) fn raw(&self) -> &'a [u8] {
        let inner = self.quoted.len().saturating_sub(1);
        self.quoted.get(1..inner).unwrap_or_default()
    }

    fn has_escapes(&self) -> bool {
        memchr(b'\\', self.quoted).is_some()
    }

    /// What stands between the quotes, where that is what it stands for.
    pub(super) fn plain(&self) -> Option<&'a [u8]> {
        (!self.has_escapes()).then(|| self.raw())
    }

    /// The text that it stands for; none where it is not valid Unicode, has a
    /// bad escape, half a surrogate pair or a control character.
    pub(super) fn decode(&self) -> Option<Cow<'a, str>> {
        if self.has_escapes() {
            return serde_json::from_slice(self.quoted).ok().map(Cow::Owned);
        }
        if self.raw().iter().any(|&byte| byte < 0x20) {
            return None;
        }
        std::str::from_utf8(self.raw()).ok().map(Cow::Borrowed)
    }
}

/// Where the string whose text begins here has its closing quote, if it is here: the
/// first quote behind an even number of backslashes. Only quotes are searched for, as
/// most escapes are of line ends.
pub(super) fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let quote = at + first_quote(rest)?;
        // What stands before `at` is a quote, or nothing of this string.
        let before = text.get(at..quote).unwrap_or_default();
        if !ends_escaping(before) {
            return Some(quote);
        }
        at = quote + 1;
    }
}

/// Whether what follows this part of a string is escaped by it.
pub(super) fn ends_escaping(text: &[u8]) -> bool {
    let backslashes = text.iter().rev().take_while(|&&byte| byte == b'\\');
    backslashes.count() % 2 == 1
}

/// Where the first quote stands. Most strings are short, and many long ones have a quote
/// every other line, so the first bytes are looked at block by block: a vector search of
/// the whole takes longer to begin than they last.
fn first_quote(text: &[u8]) -> Option<usize> {
    const NEAR: usize = 4;
    if let Some(found) = text
        .first_chunk()
        .and_then(|word| first_quote_of_word(*word))
    {
        return Some(found);
    }
    let (blocks, rest) = text.as_chunks::<32>();
    for (at, block) in blocks.iter().take(NEAR).enumerate() {
        // Without a branch, so that the compiler makes a vector of it.
        let is_quote = block.iter().map(|&byte| u8::from(byte == b'"'));
        if is_quote.fold(0, |any, one| any | one) != 0 {
            return first_quote_by_words(block).map(|found| at * 32 + found);
        }
    }
    let seen = blocks.len().min(NEAR) * 32;
    let found = if blocks.len() > NEAR {
        memchr(b'"', text.get(seen..).unwrap_or_default())
    } else {
        first_quote_by_words(rest)
    };
    found.map(|at| at + seen)
}

fn first_quote_by_words(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks();
    for (at, word) in words.iter().enumerate() {
        if let Some(found) = first_quote_of_word(*word) {
            return Some(at * 8 + found);
        }
    }
    let found = rest.iter().position(|&byte| byte == b'"');
    found.map(|at| at + words.len() * 8)
}

fn first_quote_of_word(word: [u8; 8]) -> Option<usize> {
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    let hits = zero_bytes(u64::from_le_bytes(word) ^ QUOTES);
    (hits != 0).then(|| hits.trailing_zeros() as usize / 8)
}

/// The top bit of each byte that is zero; above the lowest such byte others may be set.
fn zero_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    word.wrapping_sub(ONES) & !word & TOPS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The closing quote, found byte by byte.
    fn slowly(text: &[u8]) -> Option<usize> {
        let mut is_escaped = false;
        text.iter().position(|&byte| {
            let closes = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            closes
        })
    }

    proptest! {
        #[test]
        fn the_closing_quote_is_found_wherever_it_stands(
            text in proptest::collection::vec(
                prop_oneof![
                    20 => any::<u8>(),
                    // What a search by words could take for them.
                    20 => proptest::sample::select(&b"!#[]\xa2\xdc\x22\x23\x5d\x00\x80"[..]),
                    10 => Just(b'\\'),
                ],
                0..300,
            ),
            spared in 0..300_usize,
        ) {
            let mut text = text;
            for byte in text.iter_mut().take(spared) {
                if *byte == b'"' {
                    *byte += 1;
                }
            }
            prop_assert_eq!(closing_quote(&text), slowly(&text));
        }
    }

    #[test]
    fn an_escaped_quote_closes_nothing_and_an_escaped_backslash_escapes_nothing() {
        for (text, at) in [
            (&br#"a""#[..], Some(1)),
            (br#"a\"b""#, Some(4)),
            (br#"\\""#, Some(2)),
            (br#"\"\"""#, Some(4)),
            (br#"\""#, None),
            (b"", None),
        ] {
            assert_eq!(closing_quote(text), at, "{}", text.escape_ascii());
            assert_eq!(slowly(text), at, "{}", text.escape_ascii());
        }
    }
}
