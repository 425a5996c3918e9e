//! Bounds on HTTP/2 frames that cost us and not the client: answers, and room for packed heads.
//!
//! The h2 library bounds streams, resets and continuations by itself, but it
//! answers PING and SETTINGS as long as they come. This reads the frame headers
//! as they pass, nothing else, and breaks a connection off that sends too many.
//!
//! A few packed bytes may be a head of many. One that is whole goes to its request at
//! once, which holds what it takes. One that has not ended, and fields behind a body,
//! stay with the library: they are held for the connection here, each for the most that
//! it may become.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use super::through::writes_through;
use crate::gateway::client::places::Activity;
use crate::gateway::memory::Lease;
use crate::gateway::refusal::Refusal;
use crate::time::Instant;

/// Frames that a connection may send at once.
const BURST: u32 = 1_000;
/// And then one more in each such time. Clients that measure their bandwidth
/// send a PING for each round trip; ten thousand in a second is no client.
const REFILL: Duration = Duration::from_millis(5);

/// Bytes of a connection before its first frame.
const PREFACE_BYTES: usize = 24;
/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;

/// Frame types of RFC 9113, section 6, that are counted.
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// The last type that the RFC knows; others are skipped by every reader.
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A stream of HTTP/2 that ends when its budget is spent.
#[derive(Debug)]
pub struct Frames<S> {
    inner: S,
    walk: Walk,
    heads: KeptHeads,
    budget: Budget,
}

impl<S> Frames<S> {
    /// `inner` begins with the client's preface; `heads` is what the library may keep.
    pub fn new(inner: S, heads: KeptHeads) -> Self {
        Self {
            inner,
            walk: Walk::new(),
            heads,
            budget: Budget {
                left: BURST,
                since: Instant::now(),
            },
        }
    }
}

/// Position of a connection in its frames.
#[derive(Debug)]
struct Walk {
    /// Bytes of preface or payload that are still to come.
    skip: usize,
    header: [u8; HEADER_BYTES],
    /// Number of bytes of `header` that are there.
    length: usize,
}

impl Walk {
    fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            length: 0,
        }
    }

    /// Goes over bytes that came, and tells of each frame that begins in them.
    fn go(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                bytes = bytes.get(step..).unwrap_or_default();
                continue;
            }
            let free = self.header.get_mut(self.length..).unwrap_or_default();
            let step = free.len().min(bytes.len());
            let (taken, rest) = bytes.split_at(step);
            for (to, from) in free.iter_mut().zip(taken) {
                *to = *from;
            }
            self.length += step;
            bytes = rest;
            if self.length == HEADER_BYTES {
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.length = 0;
                each(Frame {
                    kind,
                    flags,
                    stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
                });
            }
        }
    }
}

/// The header of a frame, but for its length.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    /// True if the frame makes us answer, or is of no use to anyone.
    fn is_costly(self) -> bool {
        match self.kind {
            PRIORITY => true,
            // An acknowledgement of ours was asked for.
            PING | SETTINGS => self.flags & ACK == 0,
            kind => kind > CONTINUATION,
        }
    }

    /// True if the frame is the last of a head.
    fn ends_head(self) -> bool {
        self.flags & END_HEADERS != 0
    }
}

/// Heads that the library keeps and no request has yet, and the memory held for them.
#[derive(Debug)]
pub struct KeptHeads {
    lease: Lease,
    /// Bytes that the largest head takes.
    max: u64,
    activity: Arc<Activity>,
    /// The newest stream.
    newest: u32,
    /// True while a head has begun and not ended.
    is_open: bool,
    /// Fields behind bodies, since the connection was idle.
    trailers: u64,
}

impl KeptHeads {
    /// Heads that take at most `max` bytes, held in `lease`, of a connection that does what
    /// `activity` says.
    pub fn new(lease: Lease, max: u64, activity: Arc<Activity>) -> Self {
        Self {
            lease,
            max,
            activity,
            newest: 0,
            is_open: false,
            trailers: 0,
        }
    }

    /// A frame comes.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] where what it may become can't be held.
    fn see(&mut self, frame: Frame) -> Result<(), Refusal> {
        match frame.kind {
            HEADERS if frame.stream > self.newest => {
                self.newest = frame.stream;
                if frame.ends_head() {
                    return Ok(());
                }
                self.is_open = true;
            }
            HEADERS => {
                // Those of requests that have ended are let go.
                if self.activity.idle_for().is_some() {
                    self.trailers = 0;
                }
                self.trailers += 1;
            }
            CONTINUATION if self.is_open && frame.ends_head() => self.is_open = false,
            _ => return Ok(()),
        }
        let heads = self.trailers + u64::from(self.is_open);
        self.lease.resize(heads.saturating_mul(self.max))
    }
}

#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    /// Spends `count`. Returns whether there was enough.
    fn spend(&mut self, count: u32) -> bool {
        if count == 0 {
            return true;
        }
        if count > self.left {
            let periods = self.since.elapsed().as_micros() / REFILL.as_micros();
            let more = u32::try_from(periods).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = Instant::now();
        }
        let enough = count <= self.left;
        self.left = self.left.saturating_sub(count);
        enough
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let (mut count, mut held) = (0, Ok(()));
        let came = buf.filled().get(before..).unwrap_or_default();
        let heads = &mut this.heads;
        this.walk.go(came, |frame| {
            count += u32::from(frame.is_costly());
            if held.is_ok() {
                held = heads.see(frame);
            }
        });
        if !this.budget.spend(count) {
            tracing::debug!("an HTTP/2 connection flooded us with control frames");
        } else if held.is_err() {
            tracing::debug!("an HTTP/2 connection was closed for want of memory for its heads");
        } else {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

writes_through!(Frames);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;
    use crate::gateway::memory::{Holder, Memory};
    use proptest::prelude::*;

    fn count(walk: &mut Walk, bytes: &[u8]) -> u32 {
        let mut count = 0;
        walk.go(bytes, |frame| count += u32::from(frame.is_costly()));
        count
    }

    fn is_costly(kind: u8, flags: u8) -> bool {
        Frame {
            kind,
            flags,
            stream: 1,
        }
        .is_costly()
    }

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [.., a, b, c] = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 0];
        // Payload that looks like frames itself.
        bytes.resize(HEADER_BYTES + payload, PING);
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_counted_alike_however_they_are_cut(
            frames in prop::collection::vec((0..12_u8, 0..2_u8, 0..40_usize), 0..30),
            cuts in prop::collection::vec(1..50_usize, 1..20),
        ) {
            let mut bytes = vec![PING; PREFACE_BYTES];
            for (kind, flags, payload) in &frames {
                bytes.extend(frame(*kind, *flags, *payload));
            }
            let expected = frames.iter().filter(|(kind, flags, _)| is_costly(*kind, *flags));
            let mut walk = Walk::new();
            let (mut rest, mut found) = (&bytes[..], 0);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                found += count(&mut walk, piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found as usize, expected.count());
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_frames(
            bytes in fuzz::damaged(
                &[
                    [vec![PING; PREFACE_BYTES], frame(PING, 0, 8), frame(0, 1, 30)].concat(),
                    [vec![0; PREFACE_BYTES], frame(SETTINGS, ACK, 0), frame(200, 0, 5)].concat(),
                ],
                &["\0\0\0", "\0\0\u{8}\u{6}\0", "\u{4}", "\0\u{1}\0\u{9}"],
            ),
            cuts in fuzz::cuts(),
        ) {
            let mut walk = Walk::new();
            let pieces = fuzz::pieces(&bytes, &cuts);
            let found: u32 = pieces.iter().map(|piece| count(&mut walk, piece)).sum();
            prop_assert_eq!(found, count(&mut Walk::new(), &bytes));
            prop_assert!(found as usize <= bytes.len() / HEADER_BYTES);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_comes_back_with_time_up_to_its_burst() {
        let mut budget = Budget {
            left: BURST,
            since: Instant::now(),
        };
        assert!(budget.spend(BURST));
        assert!(!budget.spend(1));
        crate::time::sleep(REFILL * 10).await;
        assert!(budget.spend(10));
        assert!(!budget.spend(1));
        crate::time::sleep(Duration::from_hours(1)).await;
        assert!(!budget.spend(BURST + 1));
    }

    #[test]
    fn answers_and_what_carries_requests_are_free() {
        for (kind, flags, costly) in [
            (0, 0, false),
            (1, 0, false),
            (PRIORITY, 0, true),
            (3, 0, false),
            (SETTINGS, 0, true),
            (SETTINGS, ACK, false),
            (PING, 0, true),
            (PING, ACK, false),
            (8, 0, false),
            (CONTINUATION, 0, false),
            (16, 0, true),
        ] {
            assert_eq!(is_costly(kind, flags), costly, "{kind} {flags}");
        }
    }

    #[test]
    fn what_the_library_keeps_of_heads_is_held() {
        const MAX: u64 = 256 << 10;
        let memory = Memory::new(&crate::config::Gateway::default(), 1 << 30);
        let activity = Arc::new(Activity::default());
        let mut heads = KeptHeads::new(memory.nothing(Holder::default()), MAX, activity);
        let busy = Arc::clone(&heads.activity);
        let mut held = |kind, flags, stream| {
            let frame = Frame {
                kind,
                flags,
                stream,
            };
            heads.see(frame).map(|()| memory.used() / MAX)
        };
        // A head that is whole is its request's.
        assert_eq!(held(HEADERS, END_HEADERS, 1).unwrap(), 0);
        busy.begin();
        assert_eq!(held(HEADERS, 0, 3).unwrap(), 1);
        assert_eq!(held(CONTINUATION, 0, 3).unwrap(), 1);
        assert_eq!(held(CONTINUATION, END_HEADERS, 3).unwrap(), 0);
        // Behind bodies, as long as a request may not have read them.
        assert_eq!(held(HEADERS, END_HEADERS, 1).unwrap(), 1);
        assert_eq!(held(HEADERS, END_HEADERS, 3).unwrap(), 2);
        busy.end();
        assert_eq!(held(HEADERS, END_HEADERS, 3).unwrap(), 1);
        let all = memory.lease_all();
        busy.begin();
        assert!(held(HEADERS, 0, 5).is_err());
        drop(all);
        assert_eq!(held(HEADERS, END_HEADERS, 5).unwrap(), 3);
        drop(heads);
        assert_eq!(memory.used(), 0);
    }
}
