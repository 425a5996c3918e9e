//! The clock of an answer: how long its server may be silent, and when it has to be over.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::time::{Instant, sleep_until};

/// A clock for the silence of the upstream. It is armed only while nothing
/// comes, and moved on only when it fires: most responses never pay for it.
#[derive(Debug)]
pub(super) struct Silence {
    max: Duration,
    /// Time at which the answer has to be over, silent or not.
    over_at: Option<Instant>,
    /// Between two comments; `None` for no comments.
    comment_every: Option<Duration>,
    since: Instant,
    /// Time at which the last comment was due.
    commented: Instant,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// Action that the silence calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A comment to the client.
    Comment,
    /// The end: it has lasted too long.
    End,
    /// The end: the whole answer has.
    Over,
}

impl Silence {
    /// `max`: longest silence; `over_at`: when all has to be over; `comment_every`: between
    /// two comments, `None` for none.
    pub(super) fn new(
        max: Duration,
        over_at: Option<Instant>,
        comment_every: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        Self {
            max,
            over_at,
            comment_every,
            since: now,
            commented: now,
            timer: None,
        }
    }

    /// Something came.
    pub(super) fn broken(&mut self) {
        self.since = Instant::now();
    }

    /// Action that is due, once one is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            let end = self.since + self.max;
            let comment = self
                .comment_every
                .map(|every| self.since.max(self.commented) + every);
            let due = comment.map_or(end, |comment| comment.min(end));
            let due = self.over_at.map_or(due, |over| over.min(due));
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.over_at.is_some_and(|over| now >= over) {
                return Poll::Ready(Due::Over);
            }
            if now >= end {
                return Poll::Ready(Due::End);
            }
            if now >= due {
                self.commented = now;
                return Poll::Ready(Due::Comment);
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn silence_calls_for_comments_and_at_last_for_the_end() {
        let second = Duration::from_secs;
        let start = Instant::now();
        let mut silence = Silence::new(second(35), None, Some(second(10)));
        for (at, due) in [
            (10, Due::Comment),
            (20, Due::Comment),
            (30, Due::Comment),
            (35, Due::End),
        ] {
            assert_eq!(poll_fn(|cx| silence.poll(cx)).await, due);
            assert_eq!(start.elapsed(), second(at));
        }
        silence.broken();
        assert_eq!(poll_fn(|cx| silence.poll(cx)).await, Due::Comment);
        assert_eq!(start.elapsed(), second(45));
        let mut quiet = Silence::new(second(35), None, None);
        assert_eq!(poll_fn(|cx| quiet.poll(cx)).await, Due::End);
        assert_eq!(start.elapsed(), second(80));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_over_at_its_time_however_much_comes() {
        let second = Duration::from_secs;
        let start = Instant::now();
        let mut silence = Silence::new(second(35), Some(start + second(25)), Some(second(10)));
        for (at, due) in [(10, Due::Comment), (20, Due::Comment), (25, Due::Over)] {
            assert_eq!(poll_fn(|cx| silence.poll(cx)).await, due);
            assert_eq!(start.elapsed(), second(at));
            silence.broken();
        }
    }
}
