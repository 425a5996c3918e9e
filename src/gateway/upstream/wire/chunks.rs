//! The chunks of a body (RFC 9112, section 7.1), taken out of their framing.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use memchr::memchr;

use super::head::bad;

/// Longest line of a chunk's size, with extensions.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// Bytes of trailers that are passed over.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// Position of a body in its chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of trailers so far.
    trailers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the line of a size.
    Size,
    /// So many bytes of the chunk are to come.
    Data(u64),
    /// Before the line end behind a chunk.
    After,
    /// Before a line of trailers, or the empty one at the end.
    Trailer,
    End,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            at: At::Size,
            trailers: 0,
        }
    }

    /// True once the last chunk and what follows it have come.
    pub(super) fn has_ended(&self) -> bool {
        self.at == At::End
    }

    /// Takes the data of all chunks, and parts of them, that are there. The first lies
    /// where it was read; those behind it are moved up to it.
    pub(super) fn take(&mut self, bytes: &mut BytesMut) -> io::Result<Bytes> {
        let (mut start, mut end, mut at) = (0, 0, 0);
        while at < bytes.len() && self.at != At::End {
            let rest = bytes.get(at..).unwrap_or_default();
            let read = match self.at {
                At::Data(left) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    if end == 0 {
                        (start, end) = (at, at);
                    }
                    if end < at {
                        bytes.copy_within(at..at + length, end);
                    }
                    end += length;
                    let left = left - length as u64;
                    self.at = if left == 0 { At::After } else { At::Data(left) };
                    length
                }
                At::Size => self.size(rest)?,
                At::After => self.after(rest)?,
                At::Trailer => self.trailer(rest)?,
                At::End => 0,
            };
            if read == 0 {
                break;
            }
            at += read;
        }
        let mut taken = bytes.split_to(at);
        taken.truncate(end);
        taken.advance(start);
        Ok(taken.freeze())
    }

    /// Reads the line of a size; 0 where it is not whole.
    fn size(&mut self, rest: &[u8]) -> io::Result<usize> {
        let Some((line, read)) = line(rest, LINE_BYTES_MAX)? else {
            return Ok(0);
        };
        let mut size = 0_u64;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let mut count = 0;
        for digit in digits {
            let value = char::from(*digit).to_digit(16).unwrap_or_default();
            size = size
                .checked_mul(16)
                .ok_or_else(|| bad("a chunk's size is too large"))?
                + u64::from(value);
            count += 1;
        }
        let mut behind = line.get(count..).unwrap_or_default();
        while let [b' ' | b'\t', rest @ ..] = behind {
            behind = rest;
        }
        let is_extension = behind.starts_with(b";") && !behind.contains(&b'\r');
        if count == 0 || !(behind.is_empty() || is_extension) {
            return Err(bad("a chunk's size is none"));
        }
        self.at = if size == 0 {
            At::Trailer
        } else {
            At::Data(size)
        };
        Ok(read)
    }

    fn after(&mut self, rest: &[u8]) -> io::Result<usize> {
        match rest {
            [b'\r', b'\n', ..] => {
                self.at = At::Size;
                Ok(2)
            }
            [b'\r'] => Ok(0),
            _ => Err(bad("a chunk is longer than its size")),
        }
    }

    fn trailer(&mut self, rest: &[u8]) -> io::Result<usize> {
        let max = TRAILER_BYTES_MAX.saturating_sub(self.trailers);
        let Some((line, read)) = line(rest, max)? else {
            return Ok(0);
        };
        if line.is_empty() {
            self.at = At::End;
        } else if !is_field(line) {
            return Err(bad("a trailer is none"));
        }
        self.trailers += read;
        Ok(read)
    }
}

/// True if a line is a header.
fn is_field(line: &[u8]) -> bool {
    let at = memchr(b':', line).unwrap_or_default();
    let (name, value) = line.split_at(at);
    HeaderName::from_bytes(name).is_ok() && HeaderValue::from_bytes(value).is_ok()
}

/// A line without its end, and how many bytes it takes with it; `None` where it is not
/// whole.
fn line(rest: &[u8], max: usize) -> io::Result<Option<(&[u8], usize)>> {
    let found = memchr(b'\n', rest);
    if found.unwrap_or(rest.len()) > max {
        return Err(bad("a line among its chunks is too long"));
    }
    let Some(end) = found else { return Ok(None) };
    let line = rest.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r");
    let line = line.ok_or_else(|| bad("a line among its chunks has no proper end"))?;
    Ok(Some((line, end + 1)))
}
