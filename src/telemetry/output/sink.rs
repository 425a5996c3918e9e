//! Targets of output: a stream that we were given, or a file that others may move
//! aside and that we may move aside ourselves.
//!
//! Writes go to the descriptor, past the locks of the standard library: a thread
//! that stands in a write holds nothing that another one needs.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// Size at which a file is moved aside, and the number of those that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Size that a file may have, in bytes.
    pub bytes_max: u64,
    /// Older files that are kept beside it.
    pub files_max: u32,
}

/// Target of lines.
#[derive(Debug)]
pub struct LogSink {
    place: Place,
    /// True if the last line was cut off by an error.
    torn: bool,
}

#[derive(Debug)]
enum Place {
    Stdout,
    Stderr,
    File(LogFile),
}

impl LogSink {
    pub(super) fn stdout() -> Self {
        Self::of(Place::Stdout)
    }

    pub(super) fn stderr() -> Self {
        Self::of(Place::Stderr)
    }

    /// Appends to the file at `path`, which is made with its directory.
    ///
    /// # Errors
    ///
    /// The file can't be opened.
    pub fn file(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        Ok(Self::of(Place::File(LogFile::open(path, rotation)?)))
    }

    fn of(place: Place) -> Self {
        Self { place, torn: false }
    }

    /// Opens the file anew, if it is one.
    pub(super) fn reopen(&mut self) {
        if let Place::File(file) = &mut self.place {
            file.reopen();
        }
    }

    /// Writes whole lines: how many bytes of them went out, and what stopped it.
    pub(super) fn write(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if lines.is_empty() {
            return (0, Ok(()));
        }
        let fd = match &mut self.place {
            Place::Stdout => rustix::stdio::stdout(),
            Place::Stderr => rustix::stdio::stderr(),
            Place::File(file) => file.current(lines.len()).as_fd(),
        };
        // Begun anew after a line that was cut off.
        if self.torn
            && let (0, Err(error)) = write_all(fd, b"\n")
        {
            return (0, Err(error));
        }
        let (written, result) = write_all(fd, lines);
        let last = written.checked_sub(1).and_then(|last| lines.get(last));
        self.torn = last.is_some_and(|last| *last != b'\n');
        (written, result)
    }
}

/// Writes all, and waits where the other side is not to be waited for by itself.
fn write_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match rustix::io::write(fd, rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut waiting = [PollFd::new(&fd, PollFlags::OUT)];
                if let Err(error) = poll(&mut waiting, None)
                    && error != Errno::INTR
                {
                    return (written, Err(error.into()));
                }
            }
            Err(error) => return (written, Err(error.into())),
        }
    }
    (written, Ok(()))
}

/// A file of lines. It follows its path: where another file stands there, or none,
/// that one is written to from the next lines on.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    rotation: Option<Rotation>,
    /// True if the path could not be opened anew, which is told once.
    astray: bool,
}

impl LogFile {
    fn open(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        Ok(Self {
            file: open(path)?,
            path: path.to_owned(),
            rotation,
            astray: false,
        })
    }

    /// The file to write so many bytes to now.
    fn current(&mut self, bytes: usize) -> &File {
        if self.file.metadata().is_ok_and(|meta| meta.is_file()) {
            if !self.is_in_place() {
                self.reopen();
            }
            if let Some(rotation) = self.rotation
                && let Err(error) = self.rotate(rotation, bytes as u64)
            {
                tracing::debug!(%error, "{} is not moved aside", self.path.display());
            }
        }
        &self.file
    }

    /// True if the path still leads to the file that is open.
    fn is_in_place(&self) -> bool {
        let (Ok(there), Ok(open)) = (fs::metadata(&self.path), self.file.metadata()) else {
            return false;
        };
        (there.dev(), there.ino()) == (open.dev(), open.ino())
    }

    /// Opens the path anew; where that can't be, the old file goes on.
    fn reopen(&mut self) {
        match open(&self.path) {
            Ok(file) => {
                self.file = file;
                self.astray = false;
            }
            Err(error) if !std::mem::replace(&mut self.astray, true) => {
                tracing::warn!(%error,
                    "{} can't be opened anew: lines go on to the file that stood there before", self.path.display());
            }
            Err(_) => {}
        }
    }

    fn rotate(&mut self, rotation: Rotation, bytes: u64) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length == 0 || length + bytes <= rotation.bytes_max {
            return Ok(());
        }
        // Another process may write to it too, while it takes over: one moves it.
        let held = flock(&self.file, FlockOperation::LockExclusive);
        held?;
        if self.is_in_place() {
            for number in (1..rotation.files_max).rev() {
                rename(&older(&self.path, number), &older(&self.path, number + 1))?;
            }
            match rotation.files_max {
                0 => fs::remove_file(&self.path)?,
                _ => rename(&self.path, &older(&self.path, 1))?,
            }
        }
        self.reopen();
        Ok(())
    }
}

/// The name of the file that was moved aside so many times.
fn older(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Renames what may not be there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // A pipe that no one reads must not hold up the start.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.create(true).append(true).custom_flags(flags);
    options.open(path)
}
