//! A socket that is not closed in the face of a client that still sends.
//!
//! Closing a socket with bytes in it resets the connection, and a reset overtakes the
//! answer: a client refused within a large request would see a broken pipe instead of
//! the refusal, and try it all again. So where a request was not read to its end, what
//! still comes is read for nothing, after the answer and the end of our side, until
//! the client ends its own. Below TLS, so nothing is decrypted for that.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::time::sleep;

/// Time for which a client may go on sending.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes that the client may still send.
const BYTES_MAX: usize = 128 << 20;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 16 << 10;

/// A stream that reads on after its shutdown, where something was left unread.
#[derive(Debug)]
pub struct Linger<S> {
    inner: S,
    /// Set where a request is left unread; read once, at the shutdown.
    unread: Arc<AtomicBool>,
    end: End,
}

/// Progress of the shutdown.
#[derive(Debug)]
enum End {
    NotYet,
    Lingers { left: usize, timer: Pin<Box<Sleep>> },
    Done,
}

impl<S> Linger<S> {
    /// Lingers at the end of `inner` if `unread` is set then.
    pub fn new(inner: S, unread: Arc<AtomicBool>) -> Self {
        Self {
            inner,
            unread,
            end: End::NotYet,
        }
    }
}

impl<S: AsyncRead + Unpin> Linger<S> {
    /// Reads until the client ends, or has had enough of our time.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let End::Lingers { left, timer } = &mut self.end else {
            return Poll::Ready(());
        };
        loop {
            let mut piece = [MaybeUninit::uninit(); PIECE_BYTES];
            let mut piece = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut self.inner).poll_read(cx, &mut piece) {
                Poll::Pending => return timer.as_mut().poll(cx),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    let length = piece.filled().len();
                    *left = left.saturating_sub(length);
                    if length == 0 || *left == 0 {
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.end, End::NotYet) {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.end = if this.unread.load(Ordering::Relaxed) {
                End::Lingers {
                    left: BYTES_MAX,
                    timer: Box::pin(sleep(TIME_MAX)),
                }
            } else {
                End::Done
            };
        }
        ready!(this.poll_rest(cx));
        this.end = End::Done;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_still_sends_may_finish_and_read() {
        let (ours, mut theirs) = duplex(64);
        let mut linger = Linger::new(ours, Arc::new(AtomicBool::new(true)));
        let client = async {
            theirs.write_all(&[7; 10_000]).await.unwrap();
            let mut answer = String::new();
            theirs.read_to_string(&mut answer).await.unwrap();
            drop(theirs);
            answer
        };
        let server = async {
            linger.write_all(b"no").await.unwrap();
            linger.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(client, server);
        assert_eq!(answer, "no");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_end_is_let_go_and_who_was_read_is_not_waited_for() {
        for (unread, seconds) in [(true, 5), (false, 0)] {
            let (ours, _theirs) = duplex(64);
            let mut linger = Linger::new(ours, Arc::new(AtomicBool::new(unread)));
            let started = Instant::now();
            linger.shutdown().await.unwrap();
            assert_eq!(started.elapsed().as_secs(), seconds, "{unread}");
        }
    }
}
