//! HTTP/1.1 to one server over one connection, a request at a time.
//!
//! The holder of a [`Wire`] polls it: it belongs to no task, wakes no one but through
//! its socket, and dropping it closes the connection. The request's head and body go
//! out in one write where the socket takes them; a server that answers before it has
//! read all is heard. Pieces of the answer's body are the bytes that were read, not
//! copies; chunks that came together are given out together. A connection that waits
//! holds no buffer.
//!
//! Reads what RFC 9112 allows and nothing that could be read in two ways. Does not know
//! pools, timeouts or what the bytes mean.

mod chunks;
mod head;

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use chunks::Chunks;
use head::{Framing, Head};

use crate::pieces::Pieces;

/// Bytes that are read at once from a server that sends little.
const READ_MIN: usize = 4 * 1024;

/// The same from one that fills what it is given.
const READ_MAX: usize = 64 * 1024;

/// Slices of a request that are written at once.
const SLICES_MAX: usize = 16;

/// Informational answers that are passed over before the real one.
const INFORMATIONAL_MAX: u32 = 16;

/// A request as it goes over a connection, as often as it has to.
#[derive(Debug)]
pub(in crate::gateway) struct Sending {
    head: Bytes,
    body: Pieces,
    /// True if it asks for the head of an answer only.
    is_head: bool,
}

impl Sending {
    /// With these headers and no other; `Content-Length` is among them.
    pub(in crate::gateway) fn new<'a>(
        method: &Method,
        target: &PathAndQuery,
        headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
        body: Pieces,
    ) -> Self {
        Self {
            head: head::write(method, target, headers),
            body,
            is_head: method == Method::HEAD,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(in crate::gateway) struct Wire<S> {
    socket: S,
    out: Out,
    /// Bytes that were read and not given out yet; without memory of its own while it waits.
    read: BytesMut,
    /// Bytes of the next read.
    read_next: usize,
    /// Bytes that were read in which the head of the answer does not end.
    seen: usize,
    /// True once a byte of the answer has come.
    heard: bool,
    body: Body,
    /// True if the server lets the connection stand after this answer.
    keeps: bool,
}

/// Bytes that are still to be written.
#[derive(Debug, Default)]
struct Out {
    head: Bytes,
    /// The first piece of the body, and those behind it.
    piece: Bytes,
    pieces: std::vec::IntoIter<Bytes>,
    /// Bytes of this request that were written.
    written: usize,
    unflushed: bool,
    /// The server takes no more, but may have answered.
    broken: Option<io::Error>,
}

impl Out {
    fn is_written(&self) -> bool {
        self.head.is_empty() && self.piece.is_empty()
    }

    /// Bytes that are to be written next, in as many slices as there is room for.
    fn slices<'o, 's>(&'o self, room: &'s mut [IoSlice<'o>]) -> &'s [IoSlice<'o>] {
        let head = (!self.head.is_empty()).then_some(&self.head);
        let body = std::iter::once(&self.piece).chain(self.pieces.as_slice());
        let mut count = 0;
        for (slice, bytes) in room.iter_mut().zip(head.into_iter().chain(body)) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        room.get(..count).unwrap_or_default()
    }

    /// So many bytes were written. What was sent is let go: the answer may take minutes.
    fn advance(&mut self, mut written: usize) {
        self.written += written;
        self.unflushed = true;
        let of_head = written.min(self.head.len());
        self.head.advance(of_head);
        written -= of_head;
        while written >= self.piece.len() && !self.piece.is_empty() {
            written -= self.piece.len();
            self.piece = self.pieces.next().unwrap_or_default();
        }
        self.piece.advance(written.min(self.piece.len()));
    }
}

/// Progress of the body of the answer.
#[derive(Debug)]
enum Body {
    /// No answer has begun.
    None,
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunks),
    UntilEnd,
    /// It has come whole.
    Whole,
}

/// Reason why no answer came.
#[derive(Debug)]
pub(in crate::gateway) struct Broken {
    /// True if no byte of the request was written.
    pub(in crate::gateway) unsent: bool,
    /// True if the connection ended without a byte of an answer.
    pub(in crate::gateway) unheard: bool,
    /// The cause.
    pub(in crate::gateway) source: io::Error,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Speaks over `socket`.
    pub(in crate::gateway) fn new(socket: S) -> Self {
        Self {
            socket,
            out: Out::default(),
            read: BytesMut::new(),
            read_next: READ_MIN,
            seen: 0,
            heard: false,
            body: Body::Whole,
            keeps: true,
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(in crate::gateway) async fn send(
        &mut self,
        request: &Sending,
    ) -> Result<Response<()>, Broken> {
        let (piece, pieces) = request.body.clone().split();
        self.out = Out {
            head: request.head.clone(),
            piece,
            pieces,
            ..Out::default()
        };
        (self.heard, self.body, self.seen) = (false, Body::None, 0);
        let mut passed_over = 0;
        loop {
            let answer = std::future::poll_fn(|cx| self.poll_head(cx)).await;
            let answer = answer.map_err(|source| self.broken(source))?;
            let status = answer.response.status();
            let is_early =
                status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS;
            if is_early && passed_over < INFORMATIONAL_MAX {
                passed_over += 1;
                continue;
            }
            self.keeps = answer.keeps && !status.is_informational();
            self.body = match answer.framing {
                _ if request.is_head || status.is_informational() => Body::Whole,
                Framing::None | Framing::Length(0) => Body::Whole,
                Framing::Length(length) => Body::Length(length),
                Framing::Chunked => Body::Chunked(Chunks::new()),
                Framing::UntilEnd => Body::UntilEnd,
            };
            self.release();
            return Ok(answer.response);
        }
    }

    fn broken(&mut self, source: io::Error) -> Broken {
        self.keeps = false;
        Broken {
            unsent: self.out.written == 0,
            unheard: !self.heard,
            // A write that failed says more than the end that followed.
            source: self.out.broken.take().unwrap_or(source),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Head>> {
        self.write(cx);
        loop {
            if !self.read.is_empty()
                && let Some(head) = head::read(&mut self.read, &mut self.seen)?
            {
                return Poll::Ready(Ok(head));
            }
            if ready!(self.fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.heard = true;
        }
    }

    /// The next bytes of the answer's body; `None` at its end.
    pub(in crate::gateway) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        self.write(cx);
        loop {
            match self.next_piece() {
                Ok(piece) if !piece.is_empty() => return Poll::Ready(Some(Ok(piece))),
                Ok(_) if self.has_ended() => return Poll::Ready(None),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.gone(error)))),
            }
            match ready!(self.fill(cx)) {
                Ok(0) if matches!(self.body, Body::UntilEnd) => {
                    (self.body, self.keeps) = (Body::Whole, false);
                    return Poll::Ready(None);
                }
                Ok(0) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Some(Err(self.gone(error))));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.gone(error)))),
            }
        }
    }

    /// Takes as much of the body as was read.
    fn next_piece(&mut self) -> io::Result<Bytes> {
        let piece = match &mut self.body {
            Body::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX);
                let piece = self.read.split_to(length.min(self.read.len()));
                *left -= piece.len() as u64;
                if *left == 0 {
                    self.body = Body::Whole;
                }
                piece.freeze()
            }
            Body::Chunked(chunks) => {
                let piece = chunks.take(&mut self.read)?;
                if chunks.has_ended() {
                    self.body = Body::Whole;
                }
                piece
            }
            Body::UntilEnd => self.read.split().freeze(),
            Body::None | Body::Whole => Bytes::new(),
        };
        self.release();
        Ok(piece)
    }

    /// Gives the buffer back once all has come.
    fn release(&mut self) {
        if self.has_ended() && self.read.is_empty() {
            self.read = BytesMut::new();
        }
    }

    fn gone(&mut self, error: io::Error) -> io::Error {
        (self.body, self.keeps) = (Body::Whole, false);
        error
    }

    /// True once the body has come whole: there will be no more of it.
    pub(in crate::gateway) fn has_ended(&self) -> bool {
        matches!(self.body, Body::Whole)
    }

    /// True if the connection can take another request, as far as is known.
    pub(in crate::gateway) fn is_reusable(&self) -> bool {
        let sent = self.out.is_written() && !self.out.unflushed;
        self.keeps && sent && self.has_ended() && self.read.is_empty()
    }

    /// True if a connection that was left idle is still there: no end has come, and
    /// nothing that was not asked for.
    pub(in crate::gateway) fn is_alive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        Pin::new(&mut self.socket)
            .poll_read(cx, &mut buf)
            .is_pending()
    }

    /// Writes what is left of the request, as far as the socket takes it.
    fn write(&mut self, cx: &mut Context<'_>) {
        if self.out.broken.is_none()
            && let Poll::Ready(Err(error)) = self.poll_write(cx)
        {
            self.keeps = false;
            self.out.broken = Some(error);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, out, .. } = self;
        while !out.is_written() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let slices = out.slices(&mut slices);
            let written = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
        }
        if out.unflushed {
            ready!(Pin::new(&mut *socket).poll_flush(cx))?;
            out.unflushed = false;
            // What was sent may be large, and the answer may take minutes.
            (out.head, out.pieces) = Default::default();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more. A wait gives the buffer back, if nothing is in it.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.read_next);
        let room = self.read.capacity() - self.read.len();
        // Stateless, and so may be made anew for each poll.
        let polled = pin!(self.socket.read_buf(&mut self.read)).poll(cx);
        match &polled {
            Poll::Ready(Ok(read)) if *read == room => {
                self.read_next = (self.read_next * 2).min(READ_MAX);
            }
            Poll::Ready(Ok(read)) if *read < READ_MIN => self.read_next = READ_MIN,
            Poll::Pending if self.read.is_empty() => self.read = BytesMut::new(),
            _ => {}
        }
        polled
    }
}

#[cfg(test)]
mod tests;
