//! The body of a server's answer as it comes in: unpacked where the server packed it.
//!
//! We ask for `identity`; a server that packs its answer all the same would hide its
//! tokens and our own usage event in it, and its client may not know the packing. So
//! gzip and deflate are undone on the way, piece by piece as they come, and the answer
//! says so. What is not yet unpacked waits as it came: a bomb never stands here whole.

use std::io::{self, Write as _};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::gateway::request::decode::Coding;
use crate::gateway::upstream::pool::Exchange;

/// Packed bytes that are taken in one go: unpacked they are at most a thousand times as
/// many.
const STEP: usize = 64;
/// Unpacked bytes after which a piece is given out.
const PIECE: usize = 64 * 1024;

/// The body of an answer.
#[derive(Debug)]
pub struct Inflow {
    exchange: Exchange,
    unpack: Option<Box<Unpack>>,
}

impl Inflow {
    /// Reads the bytes of `exchange`, which are packed so.
    pub fn new(exchange: Exchange, coding: Coding) -> Self {
        // An answer without a body has nothing to unpack.
        let unpack = (!exchange.has_ended()).then(|| Unpack::new(coding));
        Self {
            exchange,
            unpack: unpack.flatten().map(Box::new),
        }
    }

    /// The next bytes; `None` at the end.
    pub(in crate::gateway) fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(unpack) = &mut self.unpack {
                let piece = unpack.next()?;
                if !piece.is_empty() {
                    return Poll::Ready(Some(Ok(piece)));
                }
                if unpack.is_over {
                    return Poll::Ready(None);
                }
            }
            let came = ready!(self.exchange.poll_frame(cx)?);
            // Trailers carry nothing in these APIs.
            let bytes = came.map(|frame| frame.into_data().unwrap_or_default());
            match (&mut self.unpack, bytes) {
                (None, bytes) => return Poll::Ready(bytes.map(Ok)),
                (Some(unpack), Some(bytes)) => unpack.packed = bytes,
                (Some(unpack), None) => unpack.has_all = true,
            }
        }
    }

    /// Exchange that it comes through, once nothing more of it is read.
    pub fn into_exchange(self) -> Exchange {
        self.exchange
    }

    /// True once the last bytes were given out: the next would be `None`.
    pub fn has_ended(&self) -> bool {
        match &self.unpack {
            None => self.exchange.has_ended(),
            Some(unpack) => unpack.is_over && unpack.is_empty(),
        }
    }
}

#[derive(Debug)]
struct Unpack {
    /// `None` before the first byte of [`Coding::Deflate`], which tells its form.
    decoder: Option<Decoder>,
    /// Bytes that came and are not unpacked yet.
    packed: Bytes,
    /// True once all bytes have come.
    has_all: bool,
    /// True once all of them are unpacked.
    is_over: bool,
}

#[derive(Debug)]
enum Decoder {
    Gzip(MultiGzDecoder<Vec<u8>>),
    Zlib(ZlibDecoder<Vec<u8>>),
    Bare(DeflateDecoder<Vec<u8>>),
}

/// Calls the same method of whichever decoder it is.
macro_rules! each {
    ($self:expr, $decoder:ident => $call:expr) => {
        match $self {
            Decoder::Gzip($decoder) => $call,
            Decoder::Zlib($decoder) => $call,
            Decoder::Bare($decoder) => $call,
        }
    };
}

impl Unpack {
    fn new(coding: Coding) -> Option<Self> {
        let decoder = match coding {
            // Of answers zstd is not taken.
            Coding::Identity | Coding::Zstd => return None,
            Coding::Gzip => Some(Decoder::Gzip(MultiGzDecoder::new(Vec::new()))),
            Coding::Deflate => None,
        };
        Some(Self {
            decoder,
            packed: Bytes::new(),
            has_all: false,
            is_over: false,
        })
    }

    /// Bytes that can be unpacked now, up to about [`PIECE`]; empty where more must come, or
    /// nothing will.
    fn next(&mut self) -> io::Result<Bytes> {
        let Some(first) = self.packed.first().copied() else {
            return if self.has_all && !self.is_over {
                self.end()
            } else {
                Ok(Bytes::new())
            };
        };
        let decoder = self.decoder.get_or_insert_with(|| {
            // The first byte of zlib names method 8 with a window of at most 32 KiB.
            if first & 0x8f == 0x08 {
                Decoder::Zlib(ZlibDecoder::new(Vec::new()))
            } else {
                Decoder::Bare(DeflateDecoder::new(Vec::new()))
            }
        });
        loop {
            let step = self.packed.split_to(STEP.min(self.packed.len()));
            each!(decoder, decoder => {
                decoder.write_all(&step)?;
                // What can be read of it now may be all for minutes.
                if self.packed.is_empty() {
                    decoder.flush()?;
                }
            });
            let ready = each!(decoder, decoder => decoder.get_mut());
            if ready.len() >= PIECE || self.packed.is_empty() {
                return Ok(std::mem::take(ready).into());
            }
        }
    }

    /// Bytes that are left once all has come.
    ///
    /// # Errors
    ///
    /// Fails if the body was cut off.
    fn end(&mut self) -> io::Result<Bytes> {
        self.is_over = true;
        let Some(mut decoder) = self.decoder.take() else {
            return Ok(Bytes::new());
        };
        each!(&mut decoder, decoder => decoder.try_finish())?;
        let rest = each!(&mut decoder, decoder => std::mem::take(decoder.get_mut()));
        Ok(rest.into())
    }

    fn is_empty(&self) -> bool {
        !self.packed.has_remaining()
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    /// Unpacks `packed`, which comes in pieces of `length`.
    fn unpacked(packed: &[u8], coding: Coding, length: usize) -> io::Result<Vec<u8>> {
        let mut unpack = Unpack::new(coding).unwrap();
        let mut all = Vec::new();
        for piece in packed.chunks(length) {
            unpack.packed = Bytes::copy_from_slice(piece);
            while !unpack.is_empty() {
                let piece = unpack.next()?;
                assert!(piece.len() < PIECE + 2 * 1024 * STEP, "{}", piece.len());
                all.extend_from_slice(&piece);
            }
        }
        unpack.has_all = true;
        all.extend_from_slice(&unpack.next()?);
        assert!(unpack.is_over && unpack.next()?.is_empty());
        Ok(all)
    }

    #[test]
    fn what_was_packed_comes_out_to_the_byte_in_whatever_pieces() {
        let text = b"data: {\"choices\":[]}\n\n".repeat(9_000);
        let level = Compression::fast();
        let mut gzip = GzEncoder::new(Vec::new(), level);
        let mut zlib = ZlibEncoder::new(Vec::new(), level);
        let mut bare = DeflateEncoder::new(Vec::new(), level);
        gzip.write_all(&text).unwrap();
        zlib.write_all(&text).unwrap();
        bare.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let twice = [&gzip[..], &gzip[..]].concat();
        for length in [1, 63, 1_000_000] {
            let of = |packed: &[u8], coding| unpacked(packed, coding, length).unwrap();
            assert!(of(&gzip, Coding::Gzip) == text);
            assert!(of(&twice, Coding::Gzip) == [&text[..], &text[..]].concat());
        }
        assert!(unpacked(&zlib.finish().unwrap(), Coding::Deflate, 7).unwrap() == text);
        assert!(unpacked(&bare.finish().unwrap(), Coding::Deflate, 7).unwrap() == text);
        for bad in [&gzip[..gzip.len() - 9], b"{}", &gzip[1..]] {
            assert!(unpacked(bad, Coding::Gzip, 100).is_err());
        }
    }

    #[test]
    fn what_is_flushed_comes_out_before_the_rest_is_there() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(b"data: 1\n\n").unwrap();
        packed.flush().unwrap();
        let mut unpack = Unpack::new(Coding::Gzip).unwrap();
        unpack.packed = Bytes::copy_from_slice(packed.get_ref());
        assert_eq!(unpack.next().unwrap(), "data: 1\n\n");
    }

    #[test]
    fn a_bomb_never_stands_here_whole() {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![0; 64 << 20]).unwrap();
        let all = unpacked(&bomb.finish().unwrap(), Coding::Gzip, usize::MAX).unwrap();
        assert_eq!(all.len(), 64 << 20);
    }
}
