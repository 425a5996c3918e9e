//! Holds every answer against the one that the mock was asked for, byte for byte.
//!
//! Owns what a right answer is, and the times of a stream's events. A lost, repeated,
//! reordered, changed or cut event is a failure, and so is an error that a proxy made up.
//! Does not read the answers of other upstreams beyond a look for their usage.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::canned::{self, Instructions};
use crate::histogram::Histogram;

/// The right answer to one kind of request.
pub(crate) enum Expected {
    /// These bytes.
    Reply(Bytes),
    /// These events.
    Stream(canned::Stream),
    /// Any JSON with `usage` in it, from an upstream whose words nobody knows.
    AnyUsage,
}

impl Expected {
    /// Answer that the mock gives.
    pub(crate) fn of(ask: Instructions) -> Self {
        if ask.events > 0 {
            Self::Stream(canned::Stream::body(ask.events, ask.usage))
        } else {
            Self::Reply(canned::chat_reply(ask.reply).into())
        }
    }
}

/// Follows one answer.
pub(crate) struct Check<'a> {
    expected: &'a Expected,
    /// Bytes seen, all of them right.
    seen: usize,
    /// Events seen whole.
    events: usize,
    last_event: Option<Instant>,
    /// The whole answer where it can't be foretold.
    kept: Vec<u8>,
}

/// The times of the events of all streams.
pub(crate) struct EventTimes {
    /// Time from the request's start to its first event.
    pub(crate) first: Histogram,
    /// Time from one event to the next.
    pub(crate) between: Histogram,
}

impl<'a> Check<'a> {
    /// Nothing seen yet.
    pub(crate) fn new(expected: &'a Expected) -> Self {
        Self {
            expected,
            seen: 0,
            events: 0,
            last_event: None,
            kept: Vec::new(),
        }
    }

    /// Takes a piece of the answer. `started` and `now` time the events that end in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn take(
        &mut self,
        piece: &[u8],
        started: Instant,
        now: Instant,
        times: &mut EventTimes,
    ) -> Result<(), String> {
        let right = match self.expected {
            Expected::Reply(bytes) => bytes,
            Expected::Stream(stream) => stream.bytes.as_slice(),
            Expected::AnyUsage => {
                self.kept.extend_from_slice(piece);
                return Ok(());
            }
        };
        if right.get(self.seen..self.seen + piece.len()) != Some(piece) {
            return Err(format!(
                "the answer differs from the upstream's after byte {} ({} events)",
                self.seen, self.events
            ));
        }
        self.seen += piece.len();
        if let Expected::Stream(stream) = self.expected {
            while stream
                .ends
                .get(self.events)
                .is_some_and(|&end| end <= self.seen)
            {
                self.events += 1;
                match self.last_event {
                    None => times.first.record(now - started),
                    Some(last) => times.between.record(now - last),
                }
                self.last_event = Some(now);
            }
        }
        Ok(())
    }

    /// Takes the end of the answer; returns how many events it had.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn end(self) -> Result<u64, String> {
        let (right, events) = match self.expected {
            Expected::Reply(bytes) => (bytes.len(), 0),
            Expected::Stream(stream) => (stream.bytes.len(), stream.ends.len()),
            Expected::AnyUsage => {
                let json: Option<serde_json::Value> = serde_json::from_slice(&self.kept).ok();
                let usage = json.as_ref().and_then(|json| json.get("usage"));
                return if usage.is_some_and(serde_json::Value::is_object) {
                    Ok(0)
                } else {
                    Err("the answer is not JSON with usage in it".to_owned())
                };
            }
        };
        if self.seen < right {
            return Err(format!(
                "the answer ended after {} of {right} bytes ({} of {events} events)",
                self.seen, self.events
            ));
        }
        Ok(self.events as u64)
    }
}

impl EventTimes {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            first: Histogram::new(),
            between: Histogram::new(),
        }
    }
}

/// Time since `start`, zero if that lies ahead.
pub(crate) fn since(start: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Instructions = Instructions {
        events: 20,
        rate: 0,
        reply: 0,
        usage: true,
    };

    fn check(expected: &Expected, bytes: &[u8], cut: usize) -> Result<(u64, u64), String> {
        let now = Instant::now();
        let mut times = EventTimes::new();
        let mut check = Check::new(expected);
        for piece in bytes.chunks(cut) {
            check.take(piece, now, now, &mut times)?;
        }
        let events = check.end()?;
        let recorded = times.first.quantiles().count + times.between.quantiles().count;
        Ok((events, recorded))
    }

    #[test]
    fn a_right_stream_passes_however_it_is_cut() {
        let expected = Expected::of(STREAM);
        let right = canned::Stream::body(20, true).bytes;
        for cut in [1, 3, 100, 1000, right.len()] {
            assert_eq!(check(&expected, &right, cut), Ok((23, 23)));
        }
    }

    #[test]
    fn a_stream_that_lost_repeated_or_swapped_an_event_fails() {
        let expected = Expected::of(STREAM);
        let right = canned::Stream::body(20, true);
        let events: Vec<&[u8]> = std::iter::once(0)
            .chain(right.ends.iter().copied())
            .zip(&right.ends)
            .map(|(start, &end)| &right.bytes[start..end])
            .collect();
        let mut wrong: Vec<Vec<&[u8]>> = Vec::new();
        for at in 0..events.len() {
            let mut lost = events.clone();
            lost.remove(at);
            let mut repeated = events.clone();
            repeated.insert(at, events[at]);
            wrong.extend([lost, repeated]);
        }
        for at in 1..events.len() {
            let mut swapped = events.clone();
            swapped.swap(at - 1, at);
            wrong.push(swapped);
        }
        for stream in wrong {
            assert!(check(&expected, &stream.concat(), 64).is_err());
        }
    }

    #[test]
    fn a_cut_changed_or_longer_answer_fails() {
        let ask = Instructions {
            reply: 1024,
            ..Instructions::default()
        };
        let expected = Expected::of(ask);
        let right = canned::chat_reply(1024).into_bytes();
        assert_eq!(check(&expected, &right, 100), Ok((0, 0)));
        assert!(check(&expected, &right[..1023], 100).is_err());
        assert!(check(&expected, &[&right[..], b" "].concat(), 100).is_err());
        let mut changed = right.clone();
        changed[700] ^= 1;
        assert!(check(&expected, &changed, 100).is_err());
    }

    #[test]
    fn an_unknown_upstream_must_say_usage() {
        let expected = Expected::AnyUsage;
        assert!(check(&expected, b"{\"usage\":{\"prompt_tokens\":1}}", 5).is_ok());
        for wrong in [&b"{\"error\":{}}"[..], b"", b"{\"usage\":null}"] {
            assert!(check(&expected, wrong, 5).is_err());
        }
    }
}
