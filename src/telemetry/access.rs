//! The access log: one JSON line per request.
//!
//! Lines go through a bounded channel to a thread of their own, so a slow disk
//! never holds up a request; what does not fit is dropped and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use metrics::Counter;

use super::metrics::log_dropped;

/// Lines that may wait for the disk.
const LINES_MAX: usize = 16_384;

/// Takes lines. A clone writes to the same log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    dropped: Counter,
}

impl AccessLog {
    /// Appends to the file at `path`, or writes to standard output.
    ///
    /// # Errors
    ///
    /// When the file can't be opened or the thread not started.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(open_append(path)?),
            None => Box::new(io::stdout()),
        };
        let (lines, receiver) = sync_channel(LINES_MAX);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&receiver, BufWriter::with_capacity(1 << 16, out)))?;
        Ok(Self {
            lines,
            dropped: log_dropped(),
        })
    }

    /// Hands one line over, with its line feed. Never waits.
    pub fn write(&self, line: Vec<u8>) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.increment(1),
        }
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes lines until the last sender is gone; flushes whenever none waits.
fn write_all(lines: &Receiver<Vec<u8>>, mut out: BufWriter<Box<dyn Write + Send>>) {
    let mut warned = false;
    while let Ok(first) = lines.recv() {
        let mut result = out.write_all(&first);
        while let (Ok(()), Ok(line)) = (&result, lines.try_recv()) {
            result = out.write_all(&line);
        }
        if let Err(error) = result.and_then(|()| out.flush())
            && !warned
        {
            warned = true;
            tracing::warn!(error = %error, "the access log could not be written; requests go on");
        }
    }
}
