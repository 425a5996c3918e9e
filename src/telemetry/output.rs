//! Output that never holds anyone up: a full pipe, a full disk, a closed terminal
//! cost lines, which are counted, and nothing else.
//!
//! Lines gather in a bounded buffer, and a thread of its own writes them: whoever
//! writes neither waits nor fails, and makes no system call. What does not fit, and
//! what the other side does not take, is lost and counted. Nothing waits for that
//! thread without a limit.

mod sink;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

pub use sink::{LogSink, Rotation};

/// Bytes that may wait to be written.
const BUFFER_BYTES_MAX: usize = 8 << 20;
/// Bytes of an empty buffer that are kept for the next lines.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Takes lines. A clone writes to the same place.
#[derive(Clone, Debug)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Name of the output, for people.
    name: &'static str,
    /// Time that lines gather before they are written.
    gather: Duration,
    /// Held for a copy or a swap, never while writing.
    buffer: Mutex<Buffer>,
    /// Notified when there is something to do for the thread.
    filled: Condvar,
    /// Notified when the thread has done all of it.
    idle: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    /// True while the thread writes the lines that it took.
    writing: bool,
    reopen: bool,
    closed: bool,
}

impl Buffer {
    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.writing && !self.reopen
    }
}

impl Output {
    /// Starts the thread that writes to `sink`. Lines gather for `gather` first,
    /// so that many cost one system call.
    ///
    /// # Errors
    ///
    /// The thread can't be started.
    pub fn start(name: &'static str, gather: Duration, sink: LogSink) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(name, gather));
        let writer = Arc::clone(&shared);
        // It ends with the process, or once it is closed.
        drop(
            thread::Builder::new()
                .name(name.replace(' ', "-"))
                .spawn(move || writer.write_all(sink))?,
        );
        Ok(Self { shared })
    }

    /// Hands whole lines over, with their line feeds. Never waits.
    pub fn write(&self, lines: &[u8]) {
        let mut buffer = self.shared.lock();
        if buffer.closed || buffer.lines.len() + lines.len() > BUFFER_BYTES_MAX {
            drop(buffer);
            self.shared.lose(lines);
            return;
        }
        let was_empty = buffer.lines.is_empty();
        buffer.lines.extend_from_slice(lines);
        drop(buffer);
        if was_empty {
            self.shared.filled.notify_one();
        }
    }

    /// Opens the file anew, as after it was moved aside. Does nothing for what is
    /// no file.
    pub fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.filled.notify_one();
    }

    /// Counts the lines that were lost since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was handed over is written, at most `limit`. Returns
    /// whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let buffer = self.shared.lock();
        let waited = self
            .shared
            .idle
            .wait_timeout_while(buffer, limit, |buffer| !buffer.is_idle());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Ends the thread once it has written what is left, and waits for that, at most
    /// `limit`. Lines that come later are lost. Returns whether all is written.
    pub fn close(&self, limit: Duration) -> bool {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        self.flush(limit)
    }
}

#[cfg(test)]
impl Output {
    /// An output whose lines wait for [`Self::held`], as no thread writes them.
    pub(super) fn idle(name: &'static str) -> Self {
        Self {
            shared: Arc::new(Shared::new(name, Duration::ZERO)),
        }
    }

    /// Takes the lines that wait to be written.
    pub(super) fn held(&self) -> Vec<u8> {
        std::mem::take(&mut self.shared.lock().lines)
    }
}

/// Writer of text that comes piece by piece; each piece is whole lines.
impl io::Write for Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        Self::write(self, lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn new(name: &'static str, gather: Duration) -> Self {
        Self {
            name,
            gather,
            buffer: Mutex::default(),
            filled: Condvar::new(),
            idle: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, lines: &[u8]) {
        let count = memchr::memchr_iter(b'\n', lines).count().max(1);
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Writes until the output is closed.
    fn write_all(&self, mut sink: LogSink) {
        let (mut lines, mut told, mut failing) = (Vec::new(), 0, false);
        while let Some(reopen) = self.take(&mut lines) {
            if reopen {
                sink.reopen();
            }
            let (written, result) = sink.write(&lines);
            if let Err(error) = result {
                self.lose(lines.get(written..).unwrap_or_default());
                if !std::mem::replace(&mut failing, true) {
                    let name = self.name;
                    tracing::warn!(%error, "the {name} can't be written; its lines are lost and counted, and all else goes on");
                }
            } else if !lines.is_empty() {
                failing = false;
                let dropped = self.dropped.load(Ordering::Relaxed);
                let lost = dropped - told;
                if lost > 0 {
                    told = dropped;
                    tracing::warn!(lost, "lines of the {} were lost", self.name);
                }
            }
            lines.clear();
            lines.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// Waits for something to do, and takes the lines that are there: whether to
    /// open the file anew before they are written. `None` at the end.
    fn take(&self, lines: &mut Vec<u8>) -> Option<bool> {
        let mut buffer = self.lock();
        buffer.writing = false;
        if buffer.is_idle() {
            self.idle.notify_all();
        }
        while buffer.is_idle() {
            if buffer.closed {
                return None;
            }
            buffer = self
                .filled
                .wait(buffer)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if !buffer.closed && !self.gather.is_zero() && !buffer.reopen {
            drop(buffer);
            thread::sleep(self.gather);
            buffer = self.lock();
        }
        buffer.writing = true;
        std::mem::swap(&mut buffer.lines, lines);
        Some(std::mem::take(&mut buffer.reopen))
    }
}

static STDERR: OnceLock<Option<Output>> = OnceLock::new();
static STDOUT: OnceLock<Option<Output>> = OnceLock::new();

/// Standard error, for whatever a process that serves has to say. `None` where no
/// thread can be started.
pub fn stderr() -> Option<&'static Output> {
    let start = || Output::start("log", Duration::ZERO, LogSink::stderr()).ok();
    STDERR.get_or_init(start).as_ref()
}

/// Standard output, for lines that come often.
pub fn stdout() -> Option<&'static Output> {
    let start = || Output::start("standard output", GATHER, LogSink::stdout()).ok();
    STDOUT.get_or_init(start).as_ref()
}

/// Time that lines that come often gather before they are written.
pub const GATHER: Duration = Duration::from_millis(20);

/// Standard error where it was used before, that is: where this process serves.
pub fn used_stderr() -> Option<&'static Output> {
    STDERR.get()?.as_ref()
}

/// Waits for both, each at most `limit`: before the process ends.
pub fn finish(limit: Duration) {
    for used in [&STDERR, &STDOUT] {
        if let Some(Some(output)) = used.get() {
            output.flush(limit);
        }
    }
}

#[cfg(test)]
mod tests;
