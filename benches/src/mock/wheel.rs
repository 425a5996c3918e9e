//! One timer wheel for all slow streams.
//!
//! Owns when the next event of each slow stream is due, in slots of a millisecond; one
//! task turns it while there are streams. Ten thousand streams then cost one wake-up a
//! millisecond and a write for each event, and no timer each. An event that a client does
//! not take at once is tried again in the next slot; its followers stay due when they
//! were, so a slow client is caught up with and never slows another.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::socket::Socket;
use crate::canned;

/// Slots of the wheel; streams due later than a turn stay in their slot.
const SLOTS: u64 = 1024;
const SLOT_MICROS: u64 = 1000;

/// The streams by the slot in which their next event is due.
pub(super) struct Wheel {
    slots: RefCell<Vec<Vec<Rc<SlowStream>>>>,
    /// The slot that was served last, counted from the start.
    served: Cell<u64>,
    streams: Cell<usize>,
    added: Cell<u64>,
    wake: Notify,
    origin: Instant,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            slots: RefCell::new((0..SLOTS).map(|_| Vec::new()).collect()),
            served: Cell::new(0),
            streams: Cell::new(0),
            added: Cell::new(0),
            wake: Notify::new(),
            origin: Instant::now(),
        }
    }
}

impl Wheel {
    /// Adds a stream; its first event is due within its interval, at a phase that spreads
    /// the streams that come at once.
    pub(super) fn add(&self, stream: Rc<SlowStream>) {
        // Multiples of the golden ratio fall evenly into an interval.
        let turn = self.added.get().wrapping_mul(0x9E37_79B9) & 0xFFFF_FFFF;
        self.added.set(self.added.get() + 1);
        let phase = (turn * stream.interval_micros) >> 32;
        let now = self.now();
        stream.due.set(now + phase);
        if self.streams.get() == 0 {
            // The wheel stood still with all slots empty.
            self.served.set(now / SLOT_MICROS);
        }
        self.streams.set(self.streams.get() + 1);
        self.put(stream);
        self.wake.notify_one();
    }

    /// Serves due events, forever.
    pub(super) async fn turn(&self) {
        let mut slot = tokio::time::interval(Duration::from_micros(SLOT_MICROS));
        slot.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            if self.streams.get() == 0 {
                self.wake.notified().await;
            }
            slot.tick().await;
            self.serve(self.now());
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn put(&self, stream: Rc<SlowStream>) {
        let slot = (stream.due.get() / SLOT_MICROS).max(self.served.get() + 1);
        if let Some(slot) = slot_of(&mut self.slots.borrow_mut(), slot) {
            slot.push(stream);
        }
    }

    /// Serves every slot up to now, each at most once.
    fn serve(&self, now: u64) {
        let last = now / SLOT_MICROS;
        let first = (self.served.get() + 1).max(last.saturating_sub(SLOTS - 1));
        for number in first..=last {
            let due = slot_of(&mut self.slots.borrow_mut(), number)
                .map(std::mem::take)
                .unwrap_or_default();
            self.served.set(number);
            for stream in due {
                if stream.due.get() <= now {
                    stream.pump(now);
                }
                if stream.over.get() {
                    self.streams.set(self.streams.get() - 1);
                } else {
                    self.put(stream);
                }
            }
        }
    }
}

fn slot_of(slots: &mut [Vec<Rc<SlowStream>>], number: u64) -> Option<&mut Vec<Rc<SlowStream>>> {
    slots.get_mut(usize::try_from(number % SLOTS).ok()?)
}

/// A stream on the wheel.
pub(super) struct SlowStream {
    socket: Rc<Socket>,
    script: Rc<canned::Stream>,
    interval_micros: u64,
    /// Time to write the next event, in microseconds since the wheel's origin.
    due: Cell<u64>,
    /// Events written whole.
    events: Cell<usize>,
    /// Bytes written.
    bytes: Cell<usize>,
    /// Everything is written, or nobody reads any more.
    over: Cell<bool>,
    done: Notify,
}

impl SlowStream {
    /// A stream of `rate` events a second, at least 1.
    pub(super) fn new(socket: Rc<Socket>, script: Rc<canned::Stream>, rate: u32) -> Self {
        Self {
            socket,
            script,
            interval_micros: 1_000_000 / u64::from(rate.max(1)),
            due: Cell::new(0),
            events: Cell::new(0),
            bytes: Cell::new(0),
            over: Cell::new(false),
            done: Notify::new(),
        }
    }

    /// Waits until all events are written; an error when the client has gone.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let gone = async {
            loop {
                self.socket.readable().await?;
                match self.socket.try_read(&mut [0]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // The end, or a request before this one was answered: not served.
                    _ => return Err(io::ErrorKind::ConnectionAborted.into()),
                }
            }
        };
        let ended = tokio::select! {
            biased;
            () = self.done.notified() => Ok(()),
            gone = gone => gone,
        };
        self.over.set(true);
        ended
    }

    /// Writes the events that are due.
    fn pump(&self, now: u64) {
        while !self.over.get() && self.due.get() <= now {
            let Some(&end) = self.script.ends.get(self.events.get()) else {
                return self.finish();
            };
            let rest = self.script.bytes.get(self.bytes.get()..end);
            match self.socket.try_write(rest.unwrap_or_default()) {
                Ok(count) => self.bytes.set(self.bytes.get() + count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.finish(),
            }
            if self.bytes.get() == end {
                self.events.set(self.events.get() + 1);
                self.due.set(self.due.get() + self.interval_micros);
                if self.events.get() == self.script.ends.len() {
                    self.finish();
                }
            }
        }
    }

    fn finish(&self) {
        self.over.set(true);
        self.done.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::canned::Stream;

    fn stream(events: u32, rate: u32) -> (Rc<SlowStream>, UnixStream, usize) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let script = Rc::new(Stream::wire(events, false));
        let bytes = script.bytes.len();
        let stream = SlowStream::new(Rc::new(Socket::Unix(ours)), script, rate);
        (Rc::new(stream), theirs, bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_takes_its_events_times_its_interval_even_after_a_standstill() {
        let wheel = Wheel::default();
        let turning = async {
            wheel.turn().await;
            unreachable!("the wheel turns forever")
        };
        let streaming = async {
            for (events, rate) in [(8, 20), (8, 1), (80, 1000)] {
                tokio::time::sleep(Duration::from_millis(1234)).await;
                let (stream, mut client, bytes) = stream(events, rate);
                // Its readiness comes from the kernel, which knows no paused clock.
                stream.socket.write_all(b"").await.unwrap();
                let begun = Instant::now();
                wheel.add(stream.clone());
                stream.ended().await.unwrap();
                // The role and the end are events too; the first comes within an interval.
                let interval = Duration::from_secs(1) / rate;
                let took = begun.elapsed();
                assert!(took >= interval * (events + 1), "{rate}: {took:?}");
                assert!(
                    took <= interval * (events + 2) + Duration::from_millis(5),
                    "{rate}: {took:?}"
                );
                drop(stream);
                let mut got = vec![0; bytes];
                client.read_exact(&mut got).await.unwrap();
                assert_eq!(got, Stream::wire(events, false).bytes);
            }
        };
        tokio::select! {
            () = streaming => {}
            () = turning => {}
        }
        assert_eq!(wheel.streams.get(), 0);
    }
}
