//! A stream that is read in large pieces while much comes.
//!
//! rustls asks for 4 KiB at a time, which makes a large body a system call for each.
//! Where one read fills all that was asked for, the next takes up to [`PIECE`] bytes
//! from the system at once and hands them on as they are asked for. A stream that is
//! silent, or brings little, holds no buffer.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::through::writes_through;

/// Most bytes that are read ahead.
const PIECE: usize = 64 * 1024;

/// Bytes of one read from which on more are expected.
const MUCH: usize = 8 * 1024;

/// Reads ahead for a reader that asks for little.
#[derive(Debug)]
pub struct Ahead<S> {
    inner: S,
    /// Bytes that were read and not asked for yet; without memory of its own while empty.
    bytes: BytesMut,
    expects_much: bool,
}

impl<S> Ahead<S> {
    /// Nothing is read ahead yet.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            bytes: BytesMut::new(),
            expects_much: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.bytes.is_empty() && !this.expects_much {
            let room = buf.remaining();
            let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
            this.expects_much = room > 0 && buf.remaining() == 0;
            return polled;
        }
        if this.bytes.is_empty() {
            this.bytes.reserve(PIECE);
            // Stateless, and so may be made anew for each poll.
            let polled = pin!(this.inner.read_buf(&mut this.bytes)).poll(cx);
            match polled {
                Poll::Ready(Ok(read)) => this.expects_much = read >= MUCH,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.bytes = BytesMut::new();
                    return Poll::Pending;
                }
            }
        }
        let length = this.bytes.len().min(buf.remaining());
        buf.put_slice(this.bytes.get(..length).unwrap_or_default());
        this.bytes.advance(length);
        if this.bytes.is_empty() && !this.expects_much {
            this.bytes = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(Ahead);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// Reads all of it, at most `step` bytes at a time.
    async fn drained(mut stream: impl AsyncRead + Unpin, step: usize) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), vec![0; step]);
        loop {
            let read = stream.read(&mut piece).await.unwrap();
            if read == 0 {
                return all;
            }
            all.extend_from_slice(&piece[..read]);
        }
    }

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_whatever_the_sizes() {
        let wanted: Vec<u8> = (0..400_000_u32).flat_map(u32::to_be_bytes).collect();
        for (buffer, step) in [(64, 4096), (100_000, 4096), (1 << 20, 5), (1 << 20, 4096)] {
            let (mut theirs, ours) = tokio::io::duplex(buffer);
            let bytes = wanted.clone();
            let writing = async move {
                for piece in bytes.chunks(37_000) {
                    theirs.write_all(piece).await.unwrap();
                }
            };
            let (got, ()) = tokio::join!(drained(Ahead::new(ours), step), writing);
            assert!(got == wanted, "{buffer} {step}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_brings_little_holds_no_buffer() {
        let (mut theirs, ours) = tokio::io::duplex(1 << 20);
        let mut ahead = Ahead::new(ours);
        theirs.write_all(&vec![1; 100_000]).await.unwrap();
        let mut piece = vec![0; 4096];
        for _ in 0..2 {
            ahead.read_exact(&mut piece).await.unwrap();
        }
        assert!(ahead.bytes.capacity() >= MUCH);
        let mut rest = vec![0; 100_000 - 8192];
        ahead.read_exact(&mut rest).await.unwrap();
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut buf = ReadBuf::new(&mut piece);
        assert!(Pin::new(&mut ahead).poll_read(cx, &mut buf).is_pending());
        assert_eq!(ahead.bytes.capacity(), 0);
        theirs.write_all(b"little").await.unwrap();
        assert_eq!(ahead.read(&mut piece).await.unwrap(), 6);
        assert_eq!(ahead.bytes.capacity(), 0);
    }
}
