//! One side of a tunnel: its two directions, and what waits in them.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};

use super::end::End;
use crate::telemetry::metrics::Outcome;
use crate::websocket::{self, Broken, Piece, Reader, Side};

/// Read at once, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// Bytes that may wait to be taken by a side before the other is read on.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a client may say before it has a server.
const HELD_BYTES_MAX: usize = 1 << 20;

/// One side.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) reads: ReadHalf<TokioIo<Upgraded>>,
    pub(super) frames: Reader,
    pub(super) writes: WriteHalf<TokioIo<Upgraded>>,
    pub(super) out: Out,
    /// The code with which it said that it ends, once it did.
    pub(super) closed: Option<u16>,
    /// Pieces that it said and no one has taken yet.
    held: VecDeque<Piece>,
    held_bytes: usize,
}

/// Bytes that wait to be taken by a side.
#[derive(Debug, Default)]
pub(super) struct Out {
    bytes: BytesMut,
    unflushed: bool,
}

impl Half {
    /// A side that says messages of at most `max` bytes.
    pub(super) fn new(stream: Upgraded, side: Side, max: usize) -> Self {
        let (reads, writes) = split(TokioIo::new(stream));
        Self {
            reads,
            frames: Reader::new(side, max),
            writes,
            out: Out::default(),
            closed: None,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// The next piece that it said.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Broken> {
        if let Some(piece) = self.held.pop_front() {
            return Ok(Some(piece));
        }
        self.frames.piece()
    }

    /// The first message that it said and no one has taken.
    pub(super) fn first_message(&self) -> Option<(&[u8], bool)> {
        self.held.iter().find_map(|piece| match piece {
            Piece::Message {
                payload, is_text, ..
            } => Some((payload.as_slice(), *is_text)),
            _ => None,
        })
    }

    /// Listens to a client until `until` finds what it waits for. Pings are
    /// answered; all else is held, within bounds.
    ///
    /// # Errors
    ///
    /// [`End`] where it leaves.
    pub(super) async fn listen<T>(&mut self, until: impl Fn(&Self) -> Option<T>) -> Result<T, End> {
        loop {
            while let Some(piece) = self.frames.piece().map_err(End::of_client)? {
                match piece {
                    Piece::Ping(_, payload) => self.out.add(&websocket::pong(&payload)),
                    Piece::Close(..) => {
                        return Err(End::new(Outcome::Ok, 1000, ""));
                    }
                    piece => {
                        self.held_bytes += piece.bytes();
                        self.held.push_back(piece);
                    }
                }
            }
            if let Some(found) = until(self) {
                return Ok(found);
            }
            self.make_room();
            let has_room = self.held_bytes + self.frames.input.len() < HELD_BYTES_MAX;
            let left = tokio::select! {
                count = self.reads.read_buf(&mut self.frames.input), if has_room => {
                    !count.is_ok_and(|count| count > 0)
                }
                sent = self.out.send(&mut self.writes), if self.out.waits() => sent.is_err(),
                else => false,
            };
            if left {
                return Err(End::silent(Outcome::ClientGone));
            }
        }
    }

    /// Bytes that are held for it.
    pub(super) fn bytes(&self) -> usize {
        self.frames.bytes() + self.held_bytes + self.out.bytes.len()
    }

    /// Room for the next read.
    pub(super) fn make_room(&mut self) {
        self.frames.input.reserve(READ_BYTES);
    }

    /// Sends what still waits, and ends.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        while self.out.waits() {
            self.out.send(&mut self.writes).await?;
        }
        self.writes.shutdown().await
    }
}

impl Out {
    /// Adds bytes to be sent.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// True if there is something to be sent.
    pub(super) fn waits(&self) -> bool {
        !self.bytes.is_empty() || self.unflushed
    }

    /// True if the other side may be read on.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < OUT_BYTES_MAX
    }

    /// Does one step of sending: dropped, it loses nothing.
    pub(super) async fn send(
        &mut self,
        writes: &mut WriteHalf<TokioIo<Upgraded>>,
    ) -> io::Result<()> {
        if self.bytes.is_empty() {
            writes.flush().await?;
            self.unflushed = false;
            return Ok(());
        }
        if writes.write_buf(&mut self.bytes).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = true;
        Ok(())
    }
}
