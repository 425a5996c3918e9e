//! A worker's log: written by its keeper, followed by us.
//!
//! One thread looks at all logs, and reads what was added into the consoles' rings:
//! a disk that stands still holds up nothing but them. What a worker writes faster
//! than it is read is skipped; the files have it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::deployment::Handle;

/// Pause between two looks at the file.
const PAUSE: Duration = Duration::from_millis(150);
/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// Bytes of one log that are read at one look; what is more is skipped.
const READ_MAX: u64 = 1 << 20;
/// News that may wait for the thread.
const FOLLOWED_MAX: usize = 1024;
/// Bytes of an older log that are read again when a worker is adopted.
const LOOK_BACK: u64 = 64 << 10;
/// Bytes of one unfinished line that are kept.
const LINE_MAX: usize = 8 << 10;

/// Opens a log for a worker to append to.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

/// Place where following begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// At the end: what stands there is of an earlier worker.
    End,
    /// A little before the end: an adopted worker's last lines.
    LastLines,
}

/// The log that was moved aside for this one.
pub(super) fn older(path: &Path) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    PathBuf::from(older)
}

/// Follows logs. A clone is another handle; the thread ends with the last.
#[derive(Clone, Debug)]
pub(super) struct Followers {
    /// A tail that is new, or nothing: one should be looked at now. Never full for
    /// long, as the thread only waits for the disk.
    told: SyncSender<Option<Followed>>,
}

/// A log that is followed, until its guard says otherwise.
#[derive(Debug)]
struct Followed {
    tail: Tail,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// A log being followed, as its worker holds it.
#[derive(Debug)]
pub(super) struct Following {
    stop: CancellationToken,
    ended: CancellationToken,
    followers: Followers,
}

impl Followers {
    pub(super) fn start() -> io::Result<Self> {
        let (told, inbox) = mpsc::sync_channel(FOLLOWED_MAX);
        let thread = thread::Builder::new().name("worker-logs".to_owned());
        drop(thread.spawn(move || follow_all(&inbox))?);
        Ok(Self { told })
    }

    /// Follows a log until told to stop, or dropped.
    pub(super) fn follow(&self, tail: Tail) -> Following {
        let following = Following {
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            followers: self.clone(),
        };
        let followed = Followed {
            tail,
            stop: following.stop.clone(),
            ended: following.ended.clone(),
        };
        if self.told.try_send(Some(followed)).is_err() {
            tracing::warn!("a worker's output is not shown, only in its log: the disk is too slow");
            following.ended.cancel();
        }
        following
    }
}

impl Following {
    /// Resolves once what stands in the log now is read, and no more will be.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        // If it is full, the next look is near.
        drop(self.followers.told.try_send(None));
        self.ended.cancelled().await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn follow_all(inbox: &Receiver<Option<Followed>>) {
    let mut all: Vec<Followed> = Vec::new();
    loop {
        let news = if all.is_empty() {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(PAUSE)
        };
        match news {
            Ok(Some(new)) => all.push(new),
            Ok(None) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if all.is_empty() => return,
            // Workers that are still there hold handles, so none is.
            Err(RecvTimeoutError::Disconnected) => all.clear(),
        }
        all.retain_mut(|followed| {
            // Asked first: what is read after that is all there is.
            let is_last = followed.stop.is_cancelled();
            followed.tail.look();
            if is_last {
                followed.tail.finish();
                followed.ended.cancel();
            }
            !is_last
        });
    }
}

/// Follows one log.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    handle: Arc<Handle>,
    /// Number of the file that was read last; `None` before the first look.
    file: Option<u64>,
    position: u64,
    from: From,
    lines: Lines,
}

impl Tail {
    /// Looks at the disk only to know where the end is: not in a task for
    /// [`From::End`].
    pub(super) fn new(path: PathBuf, handle: Arc<Handle>, from: From) -> Self {
        let end = match from {
            From::End => fs::metadata(&path).ok(),
            From::LastLines => None,
        };
        Self {
            path,
            handle,
            file: end.as_ref().map(MetadataExt::ino),
            position: end.map_or(0, |end| end.len()),
            from,
            lines: Lines::default(),
        }
    }

    fn look(&mut self) {
        if let Err(error) = self.read_on() {
            tracing::debug!(path = %self.path.display(), %error, "a log can't be read now");
        }
    }

    fn finish(&mut self) {
        self.lines
            .finish(&mut |line| self.handle.console.push(line));
    }

    fn read_on(&mut self) -> io::Result<()> {
        let file = File::open(&self.path)?;
        let meta = file.metadata()?;
        let now = meta.ino();
        if matches!(self.from, From::LastLines) && self.file.is_none() {
            self.position = meta.len().saturating_sub(LOOK_BACK);
        }
        if self.file.is_some_and(|known| known != now) {
            // It was moved aside: first its rest, if it is still there.
            if let Ok(before) = File::open(older(&self.path))
                && before
                    .metadata()
                    .is_ok_and(|meta| Some(meta.ino()) == self.file)
            {
                self.read(before)?;
            }
            self.position = 0;
        }
        self.file = Some(now);
        self.read(file)
    }

    fn read(&mut self, mut file: File) -> io::Result<()> {
        let length = file.metadata()?.len();
        if length < self.position {
            // Someone cut it.
            self.position = 0;
        }
        if length - self.position > READ_MAX {
            self.position = length - READ_MAX;
            let console = &self.handle.console;
            self.lines.finish(&mut |line| console.push(line));
            console.push(
                "tidegate: lines were left out here, which came too fast: see the log's file",
            );
            self.lines.skip = true;
        }
        file.seek(SeekFrom::Start(self.position))?;
        let mut file = file.take(length - self.position);
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok(());
            }
            self.position += read as u64;
            let console = &self.handle.console;
            let bytes = piece.get(..read).unwrap_or_default();
            self.lines.feed(bytes, &mut |line| console.push(line));
        }
    }
}

/// Bytes to lines. A progress bar, which returns to the start of its line over
/// and over, leaves only its last state.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    returned: bool,
    /// True if the line's begin is missing, so that the line is left out.
    skip: bool,
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
        if !std::mem::take(&mut self.skip) && !self.line.is_empty() {
            push(&String::from_utf8_lossy(&self.line));
        }
        self.line.clear();
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
    fn a_log_is_read_on_after_it_was_moved_aside_and_what_is_too_much_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (registry, _demands) = crate::deployment::Registry::new(crate::time::Clock::start());
        let handle = registry.insert(super::super::tests::spec("team/tiny"));
        fs::write(&path, "of an earlier worker\n").unwrap();
        let mut tail = Tail::new(path.clone(), Arc::clone(&handle), From::End);
        let write = |text: &str| {
            io::Write::write_all(&mut open(&path).unwrap(), text.as_bytes()).unwrap();
        };
        write("one\nbegun ");
        tail.read_on().unwrap();
        write("and ended\n");
        fs::rename(&path, older(&path)).unwrap();
        write("two\n");
        tail.read_on().unwrap();
        write(&"xyz\n".repeat(1 << 20));
        write("last\n");
        tail.read_on().unwrap();
        let (seen, _) = handle.console.since(0);
        let seen: Vec<&str> = seen.iter().map(AsRef::as_ref).collect();
        assert_eq!(seen.last(), Some(&"last"));
        let (first, _) = handle.console.since(3);
        assert!(seen.len() == crate::deployment::console::LINES_MAX && !first.is_empty());
        assert!(
            seen[..seen.len() - 1].iter().all(|line| *line == "xyz"),
            "no torn line"
        );
    }

    #[tokio::test]
    async fn what_stands_in_the_log_when_following_ends_has_been_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (registry, _demands) = crate::deployment::Registry::new(crate::time::Clock::start());
        let handle = registry.insert(super::super::tests::spec("team/tiny"));
        let followers = Followers::start().unwrap();
        let following = followers.follow(Tail::new(path.clone(), Arc::clone(&handle), From::End));
        fs::write(&path, "one\ntwo").unwrap();
        following.finish().await;
        let (seen, _) = handle.console.since(0);
        assert_eq!(
            seen.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            ["one", "two"]
        );
    }
}
