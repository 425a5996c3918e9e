//! A body in the pieces that it came in: passed on, cut and added to without being
//! copied together.
//!
//! Owns the bound on what a piece costs: small ones are copied together, so that a body
//! sent byte by byte takes no more memory than one sent at once.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// A smaller piece is copied to those beside it.
const PIECE_MIN: usize = 4 * 1024;
/// So much is copied together, at most.
const COPIED_MAX: usize = 64 * 1024;

/// Bytes in pieces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// Most have only this one.
    first: Bytes,
    /// None of them empty.
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

    /// Whether there is no byte.
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
    pieces: Pieces,
    /// Small pieces, copied together.
    small: BytesMut,
}

impl Gathering {
    /// Adds what came next.
    pub fn push(&mut self, piece: Bytes) {
        let is_alone = self.pieces.is_empty() && self.small.is_empty();
        if is_alone || piece.len() >= PIECE_MIN {
            self.close();
            self.pieces.push(piece);
            return;
        }
        self.small.extend_from_slice(&piece);
        if self.small.len() >= COPIED_MAX {
            self.close();
        }
    }

    /// Bytes that have come.
    pub fn len(&self) -> usize {
        self.pieces.len() + self.small.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that came.
    pub fn end(mut self) -> Pieces {
        self.close();
        self.pieces
    }

    fn close(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
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
            gathering.push(Bytes::copy_from_slice(&at.to_le_bytes()[..1]));
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
        gathering.push(whole.clone());
        let pieces = gathering.end();
        assert_eq!(pieces.as_one().unwrap().as_ptr(), whole.as_ptr());
        assert_eq!(pieces.into_one().as_ptr(), whole.as_ptr());
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
                gathering.push(Bytes::copy_from_slice(piece));
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
