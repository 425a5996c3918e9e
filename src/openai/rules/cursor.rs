//! A position in a body of pieces, as rules walk it.

use std::ops::Range;

use super::plan::Node;
use crate::openai::json::{Skip, closing_quote, has_escape};
use crate::openai::request::ScanError;
use crate::pieces::Pieces;

/// Longest key, as a body spells it, that may be one that is wanted: with escapes, each
/// byte is six.
const KEY_BYTES_MAX: usize = super::PART_BYTES_MAX * 6 + 2;

/// A position in a body of pieces, which is known to be JSON.
pub(super) struct Cursor<'a> {
    body: &'a Pieces,
    /// The piece that it stands in.
    piece: &'a [u8],
    /// Position at which the piece begins.
    begin: usize,
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(body: &'a Pieces, at: usize) -> Self {
        let (piece, begin) = body.holding(at);
        Self {
            body,
            piece,
            begin,
            at,
        }
    }

    /// The bytes of its piece from where it stands; of the next, where that has ended.
    fn rest(&mut self) -> &'a [u8] {
        let rest = self.piece.get(self.at - self.begin..).unwrap_or_default();
        if !rest.is_empty() {
            return rest;
        }
        self.turn()
    }

    /// Goes to the piece that holds what comes next.
    #[cold]
    fn turn(&mut self) -> &'a [u8] {
        *self = Self::new(self.body, self.at);
        self.piece.get(self.at - self.begin..).unwrap_or_default()
    }

    /// The next byte that is not white space, and what stands behind it here.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let (first, behind) = self.rest().split_first()?;
            if !matches!(first, b' ' | b'\n' | b'\r' | b'\t') {
                return Some((*first, behind));
            }
            self.at += 1;
        }
    }

    /// Reads `byte`, after white space, if it is next.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek().is_some_and(|(next, _)| next == byte);
        self.at += usize::from(found);
        found
    }

    /// Goes on behind what was passed over before.
    pub(super) fn go_to(&mut self, at: usize) {
        self.at = at;
        if at < self.begin || at - self.begin >= self.piece.len() {
            self.turn();
        }
    }

    /// Reads a key: where it is, which of the nodes it names, and by which name.
    #[inline]
    pub(super) fn key(
        &mut self,
        nodes: &[Node],
        above: u32,
    ) -> Result<(Range<usize>, Option<At>), ScanError> {
        let next = self.peek();
        let start = self.at;
        if let Some((_, behind)) = next
            && let Some(length) = closing_quote(behind)
            && !has_escape(behind, length)
        {
            self.at += length + 2;
            let name = behind.get(..length).unwrap_or_default();
            return Ok((start..self.at, find(name, nodes)));
        }
        let key = self.long(start, above)?;
        let name = self.decoded(&key);
        let found = name.and_then(|name| find(name.as_bytes(), nodes));
        Ok((key, found))
    }

    /// Passes over any value.
    #[inline]
    pub(super) fn value(&mut self, above: u32) -> Result<Range<usize>, ScanError> {
        let next = self.peek();
        let start = self.at;
        // Where it ends here, and something stands behind it.
        let length = match next {
            Some((b'"', behind)) => closing_quote(behind).map(|length| length + 2),
            Some((b'-' | b'0'..=b'9' | b't' | b'f' | b'n', behind)) => {
                let mut rest = behind.iter();
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                rest.position(ends).map(|length| length + 1)
            }
            _ => None,
        };
        let Some(length) = length else {
            return self.long(start, above);
        };
        self.at += length;
        Ok(start..self.at)
    }

    /// Passes over a value that has others in it, or goes on in another piece.
    #[cold]
    fn long(&mut self, start: usize, above: u32) -> Result<Range<usize>, ScanError> {
        let mut skip = Skip::new(above);
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                skip.end(self.at)?;
                return Ok(start..self.at);
            }
            if let Some(length) = skip.feed(rest, self.at)? {
                self.at += length;
                return Ok(start..self.at);
            }
            self.at += rest.len();
        }
    }

    /// A key that is written with escapes, or lies in two pieces.
    #[cold]
    fn decoded(&self, key: &Range<usize>) -> Option<String> {
        if key.len() > KEY_BYTES_MAX {
            return None;
        }
        let quoted = self.body.part(key.clone()).into_one();
        serde_json::from_slice(&quoted).ok()
    }
}

/// A node, and one of its names.
pub(super) type At = (usize, usize);

#[inline]
fn find(key: &[u8], nodes: &[Node]) -> Option<At> {
    for (at, node) in nodes.iter().enumerate() {
        for (name, known) in node.names.iter().enumerate() {
            if known.as_bytes() == key {
                return Some((at, name));
            }
        }
    }
    None
}
