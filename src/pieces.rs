//! A body in the pieces that it came in: passed on, cut and added to without being
//! copied together.
//!
//! Owns the bound on what a piece costs: what comes in more than one piece is copied into
//! room of its own, so that neither a body that is sent byte by byte nor one whose pieces
//! are slices of larger buffers takes more memory than one that is sent at once.

use std::collections::TryReserveError;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Room for the first pieces of a body whose length is not known.
const ROOM_MIN: usize = 16 * 1024;
/// Most that is copied into one piece, but for a body that has to be one.
const ROOM_MAX: usize = 1024 * 1024;

/// Bytes in pieces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// Most have only this one.
    first: Bytes,
    /// Further pieces, none of them empty.
    rest: Vec<Bytes>,
    length: usize,
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Self {
        Self {
            length: whole.len(),
            first: whole,
            rest: Vec::new(),
        }
    }
}

impl Pieces {
    /// Bytes in all pieces together.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True if there is no byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All of it, where it is one piece.
    pub fn as_one(&self) -> Option<&Bytes> {
        self.rest.is_empty().then_some(&self.first)
    }

    /// All of it in one piece, copied together where it is not.
    pub fn into_one(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut all = BytesMut::with_capacity(self.length);
        self.iter().for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }

    /// The piece that holds a byte, from its beginning, and where that lies; the end of
    /// all where there is no such byte.
    pub fn holding(&self, at: usize) -> (&[u8], usize) {
        let mut begin = 0;
        for piece in self.iter() {
            if at < begin + piece.len() {
                return (piece, begin);
            }
            begin += piece.len();
        }
        (&[], begin)
    }

    /// The pieces in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The first piece, and those behind it.
    pub fn split(self) -> (Bytes, std::vec::IntoIter<Bytes>) {
        (self.first, self.rest.into_iter())
    }

    /// Adds a piece.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.length += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push(piece);
        }
    }

    /// Adds a part of others.
    pub fn push_part(&mut self, others: &Self, part: Range<usize>) {
        let mut from = 0;
        for piece in others.iter() {
            let end = from + piece.len();
            let (start, stop) = (part.start.max(from), part.end.min(end));
            if start < stop {
                self.push(piece.slice(start - from..stop - from));
            }
            from = end;
        }
    }

    /// A part, or what there is of it.
    #[must_use]
    pub fn part(&self, part: Range<usize>) -> Self {
        let mut found = Self::default();
        found.push_part(self, part);
        found
    }
}

/// A body that is coming.
#[derive(Debug, Default)]
pub struct Gathering {
    /// The first piece, as it came, until another comes.
    first: Bytes,
    pieces: Pieces,
    /// Bytes that are copied together.
    room: Vec<u8>,
    /// Length of the body, where that is known.
    expected: Option<usize>,
    /// True if the body has to be one piece.
    is_one: bool,
}

impl Gathering {
    /// A body of `expected` bytes, where that is known; `is_one` to have it in one piece.
    pub fn expecting(expected: Option<usize>, is_one: bool) -> Self {
        Self {
            expected,
            is_one,
            ..Self::default()
        }
    }

    /// Adds what came next.
    ///
    /// # Errors
    ///
    /// The system has no memory for it.
    pub fn push(&mut self, piece: Bytes) -> Result<(), TryReserveError> {
        if self.is_empty() {
            self.first = piece;
            return Ok(());
        }
        let first = std::mem::take(&mut self.first);
        self.copy(&first)?;
        drop(first);
        self.copy(&piece)
    }

    /// Adds a copy of these bytes.
    ///
    /// # Errors
    ///
    /// The system has no memory for it.
    pub fn copy(&mut self, mut bytes: &[u8]) -> Result<(), TryReserveError> {
        while !bytes.is_empty() {
            if self.room.len() == self.room.capacity() {
                self.make_room(bytes.len())?;
            }
            let free = self.room.capacity() - self.room.len();
            let (now, later) = bytes.split_at(free.min(bytes.len()));
            self.room.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Makes room for the next bytes: as much as will come, or as has come already.
    fn make_room(&mut self, least: usize) -> Result<(), TryReserveError> {
        let came = self.len();
        let wanted = match self.expected {
            Some(all) => all.saturating_sub(came).max(least),
            None => came.max(ROOM_MIN).max(least),
        };
        if self.is_one {
            return self.room.try_reserve_exact(wanted);
        }
        self.close();
        self.room.try_reserve_exact(wanted.min(ROOM_MAX))
    }

    /// Bytes that have come.
    pub fn len(&self) -> usize {
        self.first.len() + self.pieces.len() + self.room.len()
    }

    /// True if no byte has come.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that came.
    pub fn end(mut self) -> Pieces {
        if !self.first.is_empty() {
            return self.first.into();
        }
        self.room.shrink_to_fit();
        self.close();
        self.pieces
    }

    fn close(&mut self) {
        if !self.room.is_empty() {
            self.pieces.push(std::mem::take(&mut self.room).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_sent_byte_by_byte_takes_few_pieces() {
        let mut gathering = Gathering::default();
        for at in 0..1_000_000_u32 {
            let piece = Bytes::copy_from_slice(&at.to_le_bytes()[..1]);
            gathering.push(piece).unwrap();
        }
        assert_eq!(gathering.len(), 1_000_000);
        let pieces = gathering.end();
        assert!(pieces.iter().count() < 20);
        assert_eq!(pieces.len(), 1_000_000);
    }

    #[test]
    fn one_piece_is_never_copied() {
        let whole = Bytes::from_static(b"whole");
        let mut gathering = Gathering::default();
        gathering.push(whole.clone()).unwrap();
        let pieces = gathering.end();
        assert_eq!(pieces.as_one().unwrap().as_ptr(), whole.as_ptr());
        assert_eq!(pieces.into_one().as_ptr(), whole.as_ptr());
    }

    #[test]
    fn a_byte_that_was_received_costs_hardly_more_than_a_byte() {
        const LENGTH: usize = 10_000_000;
        for (expected, is_one) in [
            (Some(LENGTH), false),
            (None, false),
            (Some(LENGTH), true),
            (None, true),
        ] {
            let mut gathering = Gathering::expecting(expected, is_one);
            let mut rest = LENGTH;
            while rest > 0 {
                // As hyper gives them out: parts of buffers that are larger.
                let buffer = Bytes::from(vec![7; 64 * 1024]);
                let piece = buffer.slice(..rest.min(16 * 1024));
                rest -= piece.len();
                gathering.push(piece).unwrap();
            }
            let body = gathering.end();
            assert_eq!(body.iter().count() == 1, is_one);
            assert_eq!(body.len(), LENGTH);
            let (first, rest) = body.split();
            let held: usize = std::iter::once(first).chain(rest).map(room_of).sum();
            assert!(held * 10 <= LENGTH * 11, "{expected:?} {is_one}: {held}");
        }
    }

    /// The room that a piece takes.
    fn room_of(piece: Bytes) -> usize {
        let whole = piece.try_into_mut();
        whole.expect("no one else has a part of it").capacity()
    }

    proptest! {
        #[test]
        fn parts_are_those_of_the_whole(
            lengths in proptest::collection::vec(0..9_000_usize, 0..6),
            (a, b) in (0..30_000_usize, 0..30_000_usize),
        ) {
            let all = lengths.iter().sum();
            let whole: Vec<u8> = (0..=u8::MAX).cycle().take(all).collect();
            let mut gathering = Gathering::default();
            let mut rest = whole.as_slice();
            for length in lengths {
                let (piece, behind) = rest.split_at(length);
                gathering.push(Bytes::copy_from_slice(piece)).unwrap();
                rest = behind;
            }
            let pieces = gathering.end();
            prop_assert_eq!(&pieces.clone().into_one()[..], &whole[..]);
            let (start, end) = (a.min(b).min(whole.len()), a.max(b).min(whole.len()));
            prop_assert_eq!(&pieces.part(start..end).into_one()[..], &whole[start..end]);
            prop_assert!(pieces.iter().skip(1).all(|piece| !piece.is_empty()));
        }
    }
}
