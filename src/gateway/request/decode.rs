//! Request bodies that come compressed.
//!
//! `gzip` and `deflate` are decoded, as every HTTP client of every language can
//! send them and prompts of megabytes shrink to a tenth, and `zstd`, which Codex sends;
//! others are refused with
//! the list of what is taken. A body is never passed on unread. The bound of
//! bodies holds for what comes out: a bomb is given up there, however small it
//! came, and others are served in between. Only as many large ones are unpacked at once
//! as there are processors: more would end no sooner, and hold memory meanwhile.

use std::collections::TryReserveError;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use bytes::{Buf, Bytes};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use tokio::sync::Semaphore;

use crate::gateway::memory::Lease;
use crate::gateway::refusal::Refusal;
use crate::pieces::{Gathering, Pieces};

/// Bytes that are decoded in one go.
const STEP: usize = 64 * 1024;

/// Decoded bytes beyond which a body counts as large.
const LARGE: u64 = 1024 * 1024;

/// Bodies of which more than [`LARGE`] comes out, in this process.
static LARGE_ONES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(2, NonZeroUsize::get)));

/// Coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// No packing.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950; what clients send bare (RFC 1951) is taken too.
    Deflate,
    /// RFC 8878, with the window of RFC 9659.
    Zstd,
}

impl Coding {
    /// Reads it in the headers.
    ///
    /// # Errors
    ///
    /// [`Refusal::ContentEncoding`] for another, or for one upon another.
    pub fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut coding = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            let text = value.to_str().map_err(|_| Refusal::ContentEncoding)?;
            for name in text.split(',').map(str::trim) {
                let named = match name.to_ascii_lowercase().as_str() {
                    "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    "zstd" => Self::Zstd,
                    _ => return Err(Refusal::ContentEncoding),
                };
                if coding != Self::Identity {
                    return Err(Refusal::ContentEncoding);
                }
                coding = named;
            }
        }
        Ok(coding)
    }
}

impl Coding {
    /// Reads it in the headers of an answer, which may come packed only in ways that
    /// servers use unasked.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn of_answer(headers: &HeaderMap) -> Result<Self, Refusal> {
        match Self::read(headers)? {
            Self::Zstd => Err(Refusal::ContentEncoding),
            coding => Ok(coding),
        }
    }
}

/// Unpacks a body to at most `max` bytes, which `held` holds beside what came, and alone
/// in the end; `is_one` for one piece.
///
/// # Errors
///
/// A [`Refusal`] when it is damaged, or larger, or memory is short.
pub async fn decode(
    body: Pieces,
    coding: Coding,
    (max, is_one): (u64, bool),
    held: &mut Lease,
) -> Result<Pieces, Refusal> {
    if coding == Coding::Identity {
        return Ok(body);
    }
    // The first byte of zlib names method 8 with a window of at most 32 KiB.
    let first = body.iter().find_map(|piece| piece.first());
    let is_zlib = first.is_some_and(|b| b & 0x8f == 0x08);
    let packed = Packed(body.iter().cloned().collect());
    drop(body);
    let into = Gathering::expecting(None, is_one);
    let unpacked = if coding == Coding::Gzip {
        unpack(MultiGzDecoder::new(packed), max, into, held).await
    } else if coding == Coding::Zstd {
        let packed = Zstd {
            rest: Some(packed),
            frame: None,
        };
        unpack(packed, max, into, held).await
    } else if is_zlib {
        unpack(ZlibDecoder::new(packed), max, into, held).await
    } else {
        unpack(DeflateDecoder::new(packed), max, into, held).await
    }?;
    held.shrink(unpacked.len() as u64);
    Ok(unpacked)
}

/// Bytes that came, of which each piece is let go once it was read.
struct Packed(VecDeque<Bytes>);

impl Read for Packed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.front_mut() else {
            return Ok(0);
        };
        let count = piece.as_ref().read(into)?;
        piece.advance(count);
        if piece.is_empty() {
            self.0.pop_front();
        }
        Ok(count)
    }
}

/// Frames of zstd, one behind the other. Frames that are to be skipped carry nothing of
/// a body, and are refused.
struct Zstd {
    /// Bytes that were not begun yet; none while a frame is read.
    rest: Option<Packed>,
    frame: Option<StreamingDecoder<Packed, FrameDecoder>>,
}

impl Read for Zstd {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        /// Most that is kept of what came out, in bytes: RFC 9659, section 3.
        const WINDOW_MAX: u64 = 8 << 20;
        loop {
            let mut frame = match (self.frame.take(), self.rest.take()) {
                (Some(frame), _) => frame,
                (None, Some(rest)) if !rest.0.is_empty() => {
                    StreamingDecoder::new_with_max_window_size(rest, WINDOW_MAX)
                        .map_err(io::Error::other)?
                }
                // No body is packed as nothing.
                (None, _) => return Ok(0),
            };
            let count = frame.read(piece)?;
            if count > 0 {
                self.frame = Some(frame);
                return Ok(count);
            }
            let told = frame.decoder.get_checksum_from_data();
            if told.is_some() && told != frame.decoder.get_calculated_checksum() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.rest = Some(frame.into_inner());
        }
    }
}

async fn unpack(
    mut packed: impl Read,
    max: u64,
    mut all: Gathering,
    held: &mut Lease,
) -> Result<Pieces, Refusal> {
    let mut piece = vec![0; STEP];
    let came = held.bytes();
    // Never closed; and it is held over no wait but for others' turns.
    let mut large = None;
    loop {
        let count = match packed.read(&mut piece) {
            Ok(0) => return Ok(all.end()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(Refusal::DamagedEncoding),
        };
        let length = (all.len() + count) as u64;
        if length > max {
            return Err(Refusal::TooLarge { max });
        }
        if length > LARGE && large.is_none() {
            large = LARGE_ONES.acquire().await.ok();
        }
        held.resize(came + length)?;
        all.copy(piece.get(..count).unwrap_or_default())
            .map_err(|error| no_memory(&error))?;
        // Others have their turn: this is work, not waiting.
        tokio::task::yield_now().await;
    }
}

/// The system has no memory, though the account has.
pub(super) fn no_memory(error: &TryReserveError) -> Refusal {
    tracing::error!(error = %error, "the system has no memory for the body of a request");
    Refusal::Overloaded { by_share: false }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use proptest::prelude::*;

    use super::*;
    use crate::fuzz;
    use crate::gateway::memory::{Holder, Memory};

    /// Of an account that has room for any of these.
    fn lease() -> Lease {
        let settings = crate::config::Gateway::default();
        let memory = Memory::new(&settings, 1 << 40);
        let holder = Holder::default();
        memory.lease(holder, 320_000).unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    #[tokio::test]
    async fn what_was_packed_comes_out_to_the_byte() {
        let text = b"{\"model\":\"chat\"}".repeat(20_000);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&text).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(&text).unwrap();
        let twice = [gzip(&text[..100]), gzip(&text[100..])].concat();
        for (packed, coding) in [
            (text.clone(), Coding::Identity),
            (gzip(&text), Coding::Gzip),
            (twice, Coding::Gzip),
            (zlib.finish().unwrap(), Coding::Deflate),
            (bare.finish().unwrap(), Coding::Deflate),
        ] {
            let packed = Bytes::from(packed).into();
            let mut held = lease();
            let body = decode(packed, coding, (1 << 20, false), &mut held).await;
            assert!(body.unwrap().into_one() == text, "{coding:?}");
            assert_eq!(held.bytes(), text.len() as u64);
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_packed_body(
            packed in fuzz::damaged(
                &[gzip(b"{\"model\":\"chat\"}"), gzip(&[7; 3_000]), b"x\x9cKLJ\x06\0\x02M\x01'".to_vec(), zstd(&[7; 3_000])],
                &["\0", "\u{1}", "\u{1f}", "x", "\u{8}\u{8}"],
            ),
            coding in proptest::sample::select(vec![Coding::Gzip, Coding::Deflate, Coding::Zstd]),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = Bytes::from(packed);
            if let Ok(body) = runtime.block_on(decode(body.into(), coding, (2_000, false), &mut lease())) {
                prop_assert!(body.len() <= 2_000);
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_and_a_damaged_body_are_refused() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 400 << 10);
        let packed = Bytes::from(bomb.clone()).into();
        let refused = decode(packed, Coding::Gzip, (1 << 20, true), &mut lease()).await;
        assert!(matches!(refused, Err(Refusal::TooLarge { max }) if max == 1 << 20));
        for damaged in [&bomb[..bomb.len() - 9], b"", b"{}", &[0x1f, 0x8b]] {
            let body = Bytes::copy_from_slice(damaged);
            let refused = decode(body.into(), Coding::Gzip, (1 << 30, false), &mut lease()).await;
            assert!(
                matches!(refused, Err(Refusal::DamagedEncoding)),
                "{refused:.40?}"
            );
        }
    }

    #[tokio::test]
    async fn of_many_large_bodies_only_a_few_are_unpacked_at_once() {
        const EACH: u64 = 4 * LARGE;
        const MORE: u64 = 4;
        let at_once = available_parallelism().unwrap().get() as u64;
        let settings = crate::config::Gateway::default();
        let memory = Memory::new(&settings, 1 << 40);
        let packed = Bytes::from(gzip(&vec![0; usize::try_from(EACH).unwrap()]));
        let tasks = crate::tasks::Tasks::new();
        for _ in 0..at_once + MORE {
            let mut held = memory.nothing(Holder::default());
            let packed = packed.clone().into();
            tasks.spawn_bare(async move {
                let body = decode(packed, Coding::Gzip, (EACH, false), &mut held).await;
                assert_eq!(body.unwrap().len() as u64, EACH);
            });
        }
        let mut most = 0;
        while !tasks.is_empty() {
            most = memory.used().max(most);
            tokio::task::yield_now().await;
        }
        let bound = at_once * EACH + MORE * LARGE;
        assert!(most > EACH && most <= bound, "{most} of {bound}");
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(bytes, level)
    }

    #[tokio::test]
    async fn zstd_comes_out_to_the_byte_within_the_same_bounds() {
        let text = b"{\"model\":\"chat\"}".repeat(20_000);
        let of = async |packed: Vec<u8>, max| {
            let packed = Bytes::from(packed).into();
            decode(packed, Coding::Zstd, (max, false), &mut lease()).await
        };
        let body = of(zstd(&text), 1 << 20).await.unwrap();
        assert!(body.into_one() == text);
        let twice = [zstd(&text[..100]), zstd(&text[100..])].concat();
        assert!(of(twice, 1 << 20).await.unwrap().into_one() == text);
        let bomb = zstd(&vec![0; 8 << 20]);
        assert!(bomb.len() < 64 << 10, "{}", bomb.len());
        let refused = of(bomb.clone(), 1 << 20).await;
        assert!(matches!(refused, Err(Refusal::TooLarge { max }) if max == 1 << 20));
        let mut flipped = zstd(&text);
        *flipped.last_mut().unwrap() ^= 1;
        // Magic, a window of 1 GiB, a raw block of one byte that is the last.
        let wide = b"\x28\xb5\x2f\xfd\x00\xa0\x09\x00\x00a";
        let skipped = b"\x50\x2a\x4d\x18\x01\x00\x00\x00x";
        for damaged in [
            &bomb[..bomb.len() - 9],
            b"{}",
            b"\x28\xb5",
            &flipped,
            wide,
            skipped,
        ] {
            let refused = of(damaged.to_vec(), 1 << 30).await;
            assert!(
                matches!(refused, Err(Refusal::DamagedEncoding)),
                "{refused:.40?}"
            );
        }
    }

    #[test]
    fn one_coding_is_taken_and_others_are_not() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            Coding::read(&headers).ok()
        };
        assert_eq!(read(&[]), Some(Coding::Identity));
        assert_eq!(read(&["identity"]), Some(Coding::Identity));
        assert_eq!(read(&["GZip"]), Some(Coding::Gzip));
        assert_eq!(read(&["identity, deflate"]), Some(Coding::Deflate));
        assert_eq!(read(&["zstd"]), Some(Coding::Zstd));
        for bad in [
            &["br"][..],
            &["gzip, gzip"],
            &["gzip", "deflate"],
            &[""],
            &["gzip;q=1"],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
