//! A limit on how long the head of an HTTP/1.1 request may take, from its first byte.
//!
//! hyper's own limit begins with the wait for a head, so an idle connection could not live
//! longer than the slowest head. The clock runs only where a head came in part: one that
//! comes whole costs nothing.
//!
//! Bytes of a large head are held for its client as they come: nothing else counts them
//! before the head is whole.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use super::through::writes_through;
use crate::gateway::client::places::Activity;
use crate::gateway::memory::Lease;
use crate::time::sleep;

/// A stream of requests that breaks where a head takes too long.
#[derive(Debug)]
pub struct Patience<S> {
    inner: S,
    activity: Arc<Activity>,
    max: Duration,
    /// True once bytes came while no request was at work: the begin of one.
    has_begun: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that came since then.
    came: u64,
    /// Memory that is held for those bytes.
    held: Lease,
}

/// Bytes of a head that a connection takes anyway; from then on it is held in such steps.
const STEP: u64 = 16 << 10;

impl<S> Patience<S> {
    /// Gives each head on `inner` so much time. `activity` says when it is whole; `held` is
    /// to hold what comes of it, and holds nothing yet.
    pub fn new(inner: S, activity: Arc<Activity>, max: Duration, held: Lease) -> Self {
        Self {
            inner,
            activity,
            max,
            has_begun: false,
            timer: None,
            came: 0,
            held,
        }
    }

    /// Takes note of `count` bytes.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory for a head that large.
    fn take(&mut self, count: usize) -> io::Result<()> {
        self.has_begun |= count > 0;
        self.came += count as u64;
        if self.came < self.held.bytes() + STEP {
            return Ok(());
        }
        if self.activity.idle_for().is_none() {
            // It is the body of a request, which is counted by itself.
            self.is_whole();
            return Ok(());
        }
        let held = self.held.resize(self.came);
        held.map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    fn is_whole(&mut self) {
        (self.has_begun, self.timer, self.came) = (false, None, 0);
        self.held.shrink(0);
    }

    /// Resolves when a head has taken too long.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_begun {
            return Poll::Pending;
        }
        if self.activity.idle_for().is_none() {
            self.is_whole();
            return Poll::Pending;
        }
        let max = self.max;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(max)));
        timer.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.take(buf.filled().len() - before)?;
            // One byte at a time must not go on for ever.
            if this.timer.is_some() && this.poll_over(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            return Poll::Ready(read);
        }
        ready!(this.poll_over(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

writes_through!(Patience);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Gateway, HostBudget};
    use crate::gateway::memory::{Holder, Memory};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_head_in_pieces_has_its_time_and_an_idle_connection_all_of_it() {
        let (mut theirs, ours) = duplex(64);
        let activity = Arc::new(Activity::default());
        let max = Duration::from_secs(5);
        let memory = account();
        let held = memory.nothing(Holder::default());
        let mut stream = Patience::new(ours, Arc::clone(&activity), max, held);
        let mut piece = [0; 16];
        let idle = crate::time::timeout(Duration::from_hours(1), stream.read(&mut piece)).await;
        assert!(idle.is_err(), "nothing came");
        theirs.write_all(b"GET / HT").await.unwrap();
        assert_eq!(stream.read(&mut piece).await.unwrap(), 8);
        // Its head is whole: the answer may take as long as it does.
        activity.begin();
        let busy = crate::time::timeout(Duration::from_hours(1), stream.read(&mut piece)).await;
        assert!(busy.is_err(), "a request is at work");
        activity.end();
        let began = Instant::now();
        let drips = async {
            for _ in 0..100 {
                if theirs.write_all(b"x").await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let reads = async {
            loop {
                if let Err(error) = stream.read(&mut piece).await {
                    return error.kind();
                }
            }
        };
        let over = tokio::select! {
            kind = reads => kind,
            () = drips => unreachable!("it has to break off before"),
        };
        assert_eq!(over, io::ErrorKind::TimedOut);
        assert!((5.0..5.2).contains(&began.elapsed().as_secs_f64()));
    }

    /// An account of 100 KiB.
    fn account() -> Arc<Memory> {
        let mut settings = Gateway::default();
        settings.memory.budget = HostBudget::Bytes(100 << 10);
        Memory::new(&settings, 1 << 30)
    }

    #[tokio::test]
    async fn a_large_head_is_held_while_it_comes_and_a_body_is_not() {
        let (mut theirs, ours) = duplex(1 << 20);
        let (memory, activity) = (account(), Arc::new(Activity::default()));
        let held = memory.nothing(Holder::default());
        let max = Duration::from_secs(5);
        let mut stream = Patience::new(ours, Arc::clone(&activity), max, held);
        let mut piece = vec![0; 8 << 10];
        theirs.write_all(&vec![b'x'; 600 << 10]).await.unwrap();
        stream.read_exact(&mut piece).await.unwrap();
        assert_eq!(memory.used(), 0);
        for _ in 0..5 {
            stream.read_exact(&mut piece).await.unwrap();
        }
        let used = memory.used();
        assert!((32 << 10..=48 << 10).contains(&used), "{used}");
        // The head was whole, and its body goes on.
        activity.begin();
        for _ in 0..20 {
            stream.read_exact(&mut piece).await.unwrap();
        }
        assert_eq!(memory.used(), 0);
        activity.end();
        // The next one never ends.
        let over = loop {
            if let Err(error) = stream.read_exact(&mut piece).await {
                break error.kind();
            }
        };
        assert_eq!(over, io::ErrorKind::OutOfMemory);
        drop(stream);
        assert_eq!(memory.used(), 0);
    }
}
