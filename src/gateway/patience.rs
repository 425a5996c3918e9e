//! A limit on how long the head of an HTTP/1.1 request may take, from its first byte.
//!
//! hyper's own limit begins with the wait for a head, so an idle connection could not live
//! longer than the slowest head. The clock runs only where a head came in part: one that
//! comes whole costs nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use super::places::Activity;
use super::through::writes_through;
use crate::time::sleep;

/// A stream of requests that breaks where a head takes too long.
#[derive(Debug)]
pub struct Patience<S> {
    inner: S,
    activity: Arc<Activity>,
    max: Duration,
    /// Whether bytes came while no request was at work: the begin of one.
    has_begun: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    /// Gives each head on `inner` so much time. `activity` says when it is whole.
    pub fn new(inner: S, activity: Arc<Activity>, max: Duration) -> Self {
        Self {
            inner,
            activity,
            max,
            has_begun: false,
            timer: None,
        }
    }

    /// Resolves when a head has taken too long.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_begun {
            return Poll::Pending;
        }
        if self.activity.idle_for().is_none() {
            // It is whole.
            (self.has_begun, self.timer) = (false, None);
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
            this.has_begun |= buf.filled().len() > before;
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_head_in_pieces_has_its_time_and_an_idle_connection_all_of_it() {
        let (mut theirs, ours) = duplex(64);
        let activity = Arc::new(Activity::default());
        let max = Duration::from_secs(5);
        let mut stream = Patience::new(ours, Arc::clone(&activity), max);
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
}
