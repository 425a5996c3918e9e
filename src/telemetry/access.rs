//! The access log: one JSON line per request.
//!
//! Lines go out some fifty times a second through an [`Output`]: a slow disk never
//! holds up a request, and a request costs no system call. What does not fit is
//! lost and counted.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::output::{self, GATHER, LogSink, Output, Rotation};

/// Longest that writing the last lines may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Takes lines. A clone writes to the same log.
#[derive(Clone, Debug)]
pub struct AccessLog(Output);

impl AccessLog {
    /// Appends to the file at `path`, or writes to standard output.
    ///
    /// # Errors
    ///
    /// The file can't be opened or the thread not started.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        match path {
            Some(path) => Self::rotated(path, None),
            None => match output::stdout() {
                Some(stdout) => Ok(Self(stdout.clone())),
                None => Err(io::ErrorKind::OutOfMemory.into()),
            },
        }
    }

    /// Opens as [`Self::open`], a file that is moved aside once it is large.
    ///
    /// # Errors
    ///
    /// Errors of [`Self::open`].
    pub fn rotated(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        let sink = LogSink::file(path, rotation)?;
        Ok(Self(Output::start("access log", GATHER, sink)?))
    }

    /// Hands one line over, with its line feed. Never waits for the disk.
    pub fn write(&self, line: &[u8]) {
        self.0.write(line);
    }

    /// Opens its file anew, as after it was moved aside.
    pub fn reopen(&self) {
        self.0.reopen();
    }

    /// Counts the lines that were lost since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// Writes what is left, for at most a second; lines that come later are lost.
    /// Blocks on the disk.
    pub fn close(&self) {
        self.0.close(CLOSE_MAX);
    }
}

#[cfg(test)]
impl AccessLog {
    /// A log whose lines stay in memory: see [`Self::held`].
    pub(crate) fn in_memory() -> Self {
        Self(Output::idle("access log"))
    }

    /// The lines that came since they were asked for last.
    pub(crate) fn held(&self) -> Vec<u8> {
        self.0.held()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        assert_eq!(log.dropped(), 1);
        assert_eq!(fs::read_to_string(&file).unwrap(), wanted);
    }
}
