//! The access log: one JSON line per request.
//!
//! Lines gather in a bounded buffer, and a thread of its own writes them some
//! fifty times a second: a slow disk never holds up a request, and a request
//! costs no system call. What does not fit is dropped and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use metrics::Counter;

use super::metrics::log_dropped;

/// Bytes that may wait for the disk.
const BUFFER_BYTES_MAX: usize = 8 << 20;

/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(20);

/// Takes lines. A clone writes to the same log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held for a copy or a swap, never while writing.
    buffer: Mutex<Buffer>,
    /// Notified when the buffer is no longer empty, or the log is closed.
    filled: Condvar,
    dropped: Counter,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    closed: bool,
}

impl AccessLog {
    /// Appends to the file at `path`, or writes to standard output.
    ///
    /// # Errors
    ///
    /// When the file can't be opened or the thread not started.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        match path {
            Some(path) => Self::to(open_append(path)?),
            None => Self::to(io::stdout()),
        }
    }

    /// Writes to `out`.
    ///
    /// # Errors
    ///
    /// When the thread can't be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            buffer: Mutex::default(),
            filled: Condvar::new(),
            dropped: log_dropped(),
            writer: Mutex::default(),
        });
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.write_all(out))?;
        *shared.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Self { shared })
    }

    /// Hands one line over, with its line feed. Never waits for the disk.
    pub fn write(&self, line: &[u8]) {
        let mut buffer = self.shared.lock();
        if buffer.closed || buffer.lines.len() + line.len() > BUFFER_BYTES_MAX {
            drop(buffer);
            self.shared.dropped.increment(1);
            return;
        }
        let was_empty = buffer.lines.is_empty();
        buffer.lines.extend_from_slice(line);
        drop(buffer);
        if was_empty {
            self.shared.filled.notify_one();
        }
    }

    /// Writes what is left and ends the thread. Blocks on the disk; lines that
    /// come later are dropped.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        let mut writer = self
            .shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = writer.take() {
            // It panics only where the standard library does.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until the log is closed.
    fn write_all(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        let mut warned = false;
        loop {
            let mut buffer = self.lock();
            while buffer.lines.is_empty() && !buffer.closed {
                buffer = self
                    .filled
                    .wait(buffer)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let closed = buffer.closed;
            drop(buffer);
            if !closed {
                thread::sleep(GATHER);
            }
            std::mem::swap(&mut self.lock().lines, &mut lines);
            let written = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
            if let Err(error) = written
                && !warned
            {
                warned = true;
                tracing::warn!(error = %error, "the access log could not be written; requests go on");
            }
            if closed {
                return;
            }
        }
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_there_in_order_once_the_log_is_closed() {
        let path = tempfile::tempdir().unwrap();
        let file = path.path().join("deep").join("access.log");
        let log = AccessLog::open(Some(&file)).unwrap();
        let mut wanted = String::new();
        for n in 0..10_000 {
            let line = format!("{{\"n\":{n}}}\n");
            log.write(line.as_bytes());
            wanted.push_str(&line);
        }
        log.close();
        log.write(b"too late\n");
        log.close();
        assert_eq!(fs::read_to_string(&file).unwrap(), wanted);
    }
}
