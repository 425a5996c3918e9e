//! The walk over a request's top-level fields, which can stop wherever its bytes do.

use std::ops::Range;

use bytes::{Buf, BytesMut};

use super::super::json::{Reader, Skip};
use super::super::media::is_suspect;
use super::fault::ScanError;
use super::field::{Field, Seen};
use super::{Scan, text};

/// Progress of reading a body.
#[derive(Debug, Default)]
pub(super) struct Walk<'a> {
    found: Scan<'a>,
    seen: Seen,
    next: Next,
}

/// Part of the body that comes next.
#[derive(Debug, Default)]
enum Next {
    #[default]
    Object,
    Member,
    /// A value that does not matter, or more of it.
    Skipped(Skipped),
    /// A comma, or the end of the object.
    Comma,
    /// Nothing but white space.
    Nothing,
}

#[derive(Debug)]
struct Skipped {
    skip: Skip,
    start: usize,
    is_prompt: bool,
}

impl<'a> Walk<'a> {
    /// Reads as far as the reader's bytes go. Where it fails, `reader` stands before the
    /// step that failed, which may be taken again with more bytes behind it.
    pub(super) fn run(&mut self, reader: &mut Reader<'a>) -> Result<(), ScanError> {
        while !matches!(self.next, Next::Nothing) {
            let (before, seen) = (reader.at(), self.seen);
            match self.step(reader) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    reader.back_to(before);
                    self.seen = seen;
                    return Err(error);
                }
            }
        }
        if reader.peek().is_some() {
            reader.fault("the end of the body")?;
        }
        Ok(())
    }

    /// Takes one step. `false`: the bytes have ended within a value that is skipped.
    fn step(&mut self, reader: &mut Reader<'a>) -> Result<bool, ScanError> {
        self.next = match &mut self.next {
            Next::Object => self.open(reader)?,
            Next::Member => self.member(reader)?,
            Next::Skipped(skipped) => {
                if !reader.skip(&mut skipped.skip)? {
                    return Ok(false);
                }
                let (is_prompt, start) = (skipped.is_prompt, skipped.start);
                self.found.brings |= skipped.skip.is_suspect();
                self.skipped(is_prompt, start..reader.at());
                Next::Comma
            }
            Next::Comma if reader.more_members()? => Next::Member,
            Next::Comma | Next::Nothing => Next::Nothing,
        };
        Ok(true)
    }

    fn open(&mut self, reader: &mut Reader<'a>) -> Result<Next, ScanError> {
        // Python's reader takes it as well; it is not passed on.
        if reader.at() == 0 && reader.skip_mark() {
            self.found.layout.begin = reader.at();
        }
        match reader.peek() {
            Some(b'{') => {}
            Some(b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                return Err(ScanError::NotAnObject);
            }
            _ => reader.fault("a JSON object")?,
        }
        self.found.layout.inside = reader.at() + 1;
        let more = reader.open_object()?;
        self.found.layout.is_empty = !more;
        if !more {
            return Ok(Next::Nothing);
        }
        if reader.peek().is_none() {
            reader.fault("a key in double quotes")?;
        }
        Ok(Next::Member)
    }

    fn member(&mut self, reader: &mut Reader<'a>) -> Result<Next, ScanError> {
        let at = reader.at();
        let name = reader.key()?;
        match Field::of(&name, at)? {
            // These matter only inside stream_options.
            None | Some(Field::IncludeUsage | Field::ContinuousUsageStats) => {
                let is_prompt = matches!(name.raw(), b"messages" | b"prompt" | b"input");
                self.found.brings |= is_suspect(name.raw(), name.has_escapes());
                // The value begins behind white space, also where a piece ends within that.
                if reader.peek().is_none() {
                    reader.fault("a value")?;
                }
                let start = reader.at();
                // Most values are short. A number ends only where something follows.
                let is_scalar = reader.scalar() == Ok(true);
                let end = reader.at();
                if is_scalar && reader.peek().is_some() {
                    self.skipped(is_prompt, start..end);
                    return Ok(Next::Comma);
                }
                reader.back_to(start);
                Ok(Next::Skipped(Skipped {
                    skip: Skip::new(1),
                    start,
                    is_prompt,
                }))
            }
            Some(key) => {
                self.seen.add(key)?;
                let odd = self.found.odd.clone();
                self.found.read(key, reader)?;
                // A number ends only where something else stands behind it.
                if reader.peek().is_none() {
                    self.found.odd = odd;
                    reader.fault("',' or '}'")?;
                }
                Ok(Next::Comma)
            }
        }
    }

    fn skipped(&mut self, is_prompt: bool, span: Range<usize>) {
        if is_prompt && self.found.prompt.is_empty() {
            self.found.prompt = span;
        }
    }

    /// The body has ended where `reader` stands.
    pub(super) fn end(mut self, reader: &mut Reader<'a>) -> Result<Scan<'a>, ScanError> {
        if let Next::Skipped(skipped) = &self.next {
            skipped.skip.end(reader.at())?;
            reader.fault("',' or '}'")?;
        }
        self.found.layout.body_len = reader.at();
        Ok(self.found)
    }

    /// True if what failed now fails however many bytes follow.
    fn has_failed(&self, error: &ScanError) -> bool {
        match self.next {
            Next::Skipped(_) | Next::Nothing => true,
            Next::Object => *error == ScanError::NotAnObject,
            Next::Member | Next::Comma => false,
        }
    }
}

/// Reads a body as it comes, piece by piece, with the result of [`scan`](super::scan).
///
/// Bytes that are only skipped are never copied; a field that matters is, where a piece ends
/// within it.
#[derive(Debug, Default)]
pub struct Scanner {
    walk: Walk<'static>,
    /// Bytes that were not understood yet: the beginning of a field.
    held: BytesMut,
    /// Position in the body at which `held` begins.
    at: usize,
    /// Bytes that must be held before they are looked at again: twice as many as last
    /// time, so that a body in many pieces is not read over and over.
    again_at: usize,
    failed: Option<ScanError>,
    is_no_text: Option<ScanError>,
    /// The begin of a character that the last piece ended in.
    half: Vec<u8>,
    /// Bytes that have come.
    came: usize,
}

impl Scanner {
    /// Reads the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        // Also behind what is no JSON: what is no text is said first, however it came.
        if self.is_no_text.is_none() {
            self.is_no_text = self.check(piece).err();
        }
        if self.failed.is_some() || self.is_no_text.is_some() {
            return;
        }
        if self.held.is_empty() {
            let read = self.read(piece);
            self.held
                .extend_from_slice(piece.get(read..).unwrap_or_default());
        } else {
            self.held.extend_from_slice(piece);
            if self.held.len() < self.again_at {
                return;
            }
            let held = std::mem::take(&mut self.held);
            let read = self.read(&held);
            self.held = held;
            self.held.advance(read);
        }
        self.again_at = self.held.len() * 2;
    }

    /// Checks that the characters go on.
    fn check(&mut self, mut piece: &[u8]) -> Result<(), ScanError> {
        /// Of a character.
        const BYTES_MAX: usize = 4;
        let begin = self.came - self.half.len();
        self.came += piece.len();
        while !self.half.is_empty() && self.half.len() < BYTES_MAX {
            let Some((next, rest)) = piece.split_first() else {
                return Ok(());
            };
            self.half.push(*next);
            piece = rest;
            if text::part(&self.half, begin).map_err(ScanError::no_text)? == self.half.len() {
                self.half.clear();
            }
        }
        let read = text::part(piece, self.came - piece.len()).map_err(ScanError::no_text)?;
        self.half
            .extend_from_slice(piece.get(read..).unwrap_or_default());
        Ok(())
    }

    /// Reads what lies at `at`; returns how much of it is done with.
    fn read(&mut self, bytes: &[u8]) -> usize {
        let mut reader = Reader::of_part(bytes, self.at);
        let mut walk: Walk<'_> = std::mem::take(&mut self.walk);
        let result = walk.run(&mut reader);
        self.failed = result.err().filter(|error| walk.has_failed(error));
        self.walk = Walk {
            found: walk.found.into_owned(),
            ..walk
        };
        let read = reader.at() - self.at;
        self.at = reader.at();
        read
    }

    /// Facts in the body, which has come whole.
    ///
    /// # Errors
    ///
    /// As [`scan`](super::scan).
    pub fn end(self) -> Result<Scan<'static>, ScanError> {
        if let Some(failed) = self.is_no_text {
            return Err(failed);
        }
        text::whole(&self.half, self.came - self.half.len()).map_err(ScanError::no_text)?;
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let mut reader = Reader::of_part(&self.held, self.at);
        let mut walk: Walk<'_> = self.walk;
        walk.run(&mut reader)?;
        walk.end(&mut reader).map(Scan::into_owned)
    }
}
