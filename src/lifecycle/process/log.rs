//! A worker's log: written by the worker itself, followed and rotated by us.
//!
//! The worker holds the file open for appending, so it goes on writing when we
//! are gone. We read what was added into the console's ring, and when the file
//! grows too large copy it to `*.1` and cut it: what the worker writes between
//! the copy and the cut is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::deployment::Handle;
use crate::time::sleep;

/// Pause between two looks at the file.
const PAUSE: Duration = Duration::from_millis(150);
/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// Bytes of an older log that are read again when a worker is adopted.
const LOOK_BACK: u64 = 64 << 10;
/// Bytes of one unfinished line that are kept.
const LINE_MAX: usize = 8 << 10;

/// Opens a log for a worker to append to.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

/// Where following begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// At the end: what stands there is of an earlier worker.
    End,
    /// A little before the end: an adopted worker's last lines.
    LastLines,
}

/// Follows one log.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    handle: Arc<Handle>,
    bytes_max: u64,
    position: u64,
    lines: Lines,
}

impl Tail {
    pub(super) fn new(path: PathBuf, handle: Arc<Handle>, bytes_max: u64, from: From) -> Self {
        let end = fs::metadata(&path).map_or(0, |meta| meta.len());
        let position = match from {
            From::End => end,
            From::LastLines => end.saturating_sub(LOOK_BACK),
        };
        Self {
            path,
            handle,
            bytes_max,
            position,
            lines: Lines::default(),
        }
    }

    /// Follows until told to stop, then reads what is there, and returns.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = sleep(PAUSE) => false,
            };
            if let Err(error) = self.read_on() {
                tracing::debug!(path = %self.path.display(), %error, "a log can't be read now");
            }
            if stopping {
                self.lines
                    .finish(&mut |line| self.handle.console.push(line));
                return;
            }
        }
    }

    fn read_on(&mut self) -> io::Result<()> {
        let length = fs::metadata(&self.path)?.len();
        if length < self.position {
            // Someone else cut it.
            self.position = 0;
        }
        if length == self.position {
            return Ok(());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let mut piece = vec![0; PIECE];
        // Bounded, so that a worker that writes faster than we read is no trap.
        for _ in 0..16 {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            self.position += read as u64;
            let console = &self.handle.console;
            let bytes = piece.get(..read).unwrap_or_default();
            self.lines.feed(bytes, &mut |line| console.push(line));
        }
        if self.position > self.bytes_max {
            rotate(&self.path)?;
            self.position = 0;
        }
        Ok(())
    }
}

fn rotate(path: &Path) -> io::Result<()> {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    fs::copy(path, PathBuf::from(older))?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

/// Bytes to lines. A progress bar, which returns to the start of its line over
/// and over, leaves only its last state.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    returned: bool,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], push: &mut impl FnMut(&str)) {
        for &byte in bytes {
            match byte {
                b'\n' => self.finish(push),
                b'\r' => self.returned = true,
                _ => {
                    if std::mem::take(&mut self.returned) {
                        self.line.clear();
                    }
                    if self.line.len() < LINE_MAX {
                        self.line.push(byte);
                    }
                }
            }
        }
    }

    fn finish(&mut self, push: &mut impl FnMut(&str)) {
        self.returned = false;
        if !self.line.is_empty() {
            push(&String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.feed(piece.as_bytes(), &mut |line| found.push(line.to_owned()));
        }
        lines.finish(&mut |line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn a_progress_bar_leaves_its_last_state() {
        let bar = [
            "shards: 0%\rshards: 50%",
            "\r",
            "shards: 100%\r\nnext\r\n",
            "last",
        ];
        assert_eq!(lines(&bar), ["shards: 100%", "next", "last"]);
    }

    #[test]
    fn colours_stay_and_an_endless_line_is_cut() {
        assert_eq!(lines(&["\x1b[31mred\x1b[0m\n"]), ["\x1b[31mred\x1b[0m"]);
        assert_eq!(lines(&[&"x".repeat(LINE_MAX * 2)])[0].len(), LINE_MAX);
    }

    #[test]
    fn a_full_log_is_moved_aside_and_read_on_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (registry, _demands) = crate::deployment::Registry::new(crate::time::Clock::start());
        let handle = registry.insert(super::super::tests::spec("team/tiny"));
        fs::write(&path, "of an earlier worker\n").unwrap();
        let mut tail = Tail::new(path.clone(), Arc::clone(&handle), 40, From::End);
        let mut writer = open(&path).unwrap();
        for text in ["one two three four five\n", "six\n"] {
            io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
            tail.read_on().unwrap();
        }
        let (seen, _) = handle.console.tail(10);
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "six\n");
        let older = fs::read_to_string(dir.path().join("a.log.1")).unwrap();
        assert!(older.ends_with("five\n"));
    }
}
