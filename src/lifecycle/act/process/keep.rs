//! The body of `tidegate worker-keep`: stays with one engine, as its parent.
//!
//! ```text
//!  gateway --> keeper (subreaper) --> worker-exec = engine --> what it starts
//!                ^------ output of all of them, by a pipe ------'
//! ```
//!
//! It outlives the gateway with the engine. It writes the log, so that no instant
//! sees more than twice the limit on the disk, and goes on reading when the disk is
//! full: an engine never waits for its log. Whatever the engine started is a child
//! of the keeper at the latest when its parent ends, wherever it went: so it is
//! found, reaped, and ended with the engine, with or without a control group.
//!
//! It says on standard output which process the engine is, and how it ended; the
//! gateway closes its standard input once it has a hold on the engine.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, kill_process, waitid, waitpid,
};

use super::{log, proc, shared};
use crate::proc::Stat;

/// The hidden subcommand that leads here.
pub const SUBCOMMAND: &str = "worker-keep";
/// Its option for the log's path.
pub const LOG: &str = "--log";
/// Its option for the size of the log, in bytes.
pub const BYTES_MAX: &str = "--log-bytes-max";

/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// First and longest pause between two looks at what the engine left.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Time that the last output may take once nothing runs that writes it.
const OUTPUT_MAX: Duration = Duration::from_secs(2);

/// Runs the command as a child, writes its output to the log, and returns once it
/// and all that it started have ended.
///
/// # Errors
///
/// Fails when the command can't be begun.
pub fn keep(path: &Path, bytes_max: u64, command: &[OsString]) -> io::Result<()> {
    let Some((program, args)) = command.split_first() else {
        let text = format!("{SUBCOMMAND} needs the program to run");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    // Signals of a terminal are not for it.
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let log = Log::open(path, bytes_max)?;
    let (output, input) = io::pipe()?;
    let pipe = rustix::fs::fstat(&output)?.st_ino;
    let engine = spawn(program, args, input)?;
    // It is not reaped before the end, so that its number stays its own.
    let stat = Stat::of(engine.as_raw_nonzero().get().cast_unsigned());
    let start_time = stat.ok_or(io::ErrorKind::NotFound)?.start_time;
    say(&format!("{} {start_time} {pipe}", engine.as_raw_nonzero()));
    // It would hold a log open that was moved aside.
    rustix::stdio::dup2_stderr(File::open("/dev/null")?)?;
    let (done, written) = mpsc::channel::<()>();
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            log.write_all_of(output);
            drop(done);
        })?;
    let status = until_ended(engine);
    end_all_but(engine);
    // Disconnected once it is done.
    written.recv_timeout(OUTPUT_MAX).unwrap_or_default();
    wait_for_gateway();
    say(&status.map_or_else(|| "lost".to_owned(), |status| in_word(&status)));
    waitpid(Some(engine), WaitOptions::NOHANG).unwrap_or_default();
    Ok(())
}

fn spawn(program: &OsStr, args: &[OsString], input: io::PipeWriter) -> io::Result<Pid> {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .spawn();
    let child = child.map_err(|error| {
        let text = format!("can't run {}: {error}", program.display());
        io::Error::new(error.kind(), text)
    })?;
    Ok(Pid::from_child(&child))
}

/// One line to the gateway, if it is still there.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// Returns once the gateway has a hold on the engine, or is gone.
fn wait_for_gateway() {
    let mut any = [0; 64];
    while matches!(io::stdin().read(&mut any), Ok(1..)) {}
}

fn in_word(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "lost".to_owned(),
    }
}

/// Waits for the engine's end. Reaps, meanwhile, every other child of ours that ended.
fn until_ended(engine: Pid) -> Option<WaitIdStatus> {
    let looked = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    loop {
        // Some child has ended.
        if waitid(WaitId::All, looked).is_err_and(|error| error != rustix::io::Errno::INTR) {
            return None;
        }
        match waitid(WaitId::Pid(engine), looked | WaitIdOptions::NOHANG) {
            Ok(None) => reap_all_but(engine),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}

fn reap_all_but(engine: Pid) {
    for child in proc::own_children().into_iter().filter(|of| *of != engine) {
        waitpid(Some(child), WaitOptions::NOHANG).unwrap_or_default();
    }
}

/// Ends what the engine left behind, which all becomes ours, and reaps it; removes
/// the shared memory that it held.
fn end_all_but(engine: Pid) {
    let mut held = std::collections::BTreeSet::new();
    let mut pause = PAUSE;
    loop {
        let children = proc::own_children();
        let left: Vec<Pid> = children.into_iter().filter(|of| *of != engine).collect();
        if left.is_empty() {
            break;
        }
        held.extend(shared::of(proc::descendants(std::process::id())));
        for child in left {
            // Ours and not reaped: the number can't be another's.
            kill_process(child, Signal::KILL).unwrap_or_default();
            waitpid(Some(child), WaitOptions::NOHANG).unwrap_or_default();
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    shared::clean(&held);
}

/// A log of bounded size: what does not fit any more is moved aside, once.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    bytes_max: u64,
    file: File,
    length: u64,
    /// Bytes that could not be written since it last could.
    lost: u64,
}

impl Log {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = log::open(path)?;
        Ok(Self {
            length: file.metadata()?.len(),
            path: path.to_owned(),
            bytes_max,
            file,
            lost: 0,
        })
    }

    /// Writes until the other side is closed everywhere.
    fn write_all_of(mut self, mut output: impl Read + AsFd) {
        let mut piece = vec![0; PIECE];
        loop {
            match output.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => self.write(piece.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.lost > 0 {
            let note = format!(
                "\ntidegate: {} bytes of output were lost, as this log could not be written\n",
                self.lost
            );
            if self.append(note.as_bytes()).is_err() {
                self.lost += bytes.len() as u64;
                return;
            }
            self.lost = 0;
        }
        if let Err(rest) = self.append(bytes) {
            self.lost += rest;
        }
    }

    /// Writes pieces that fit; how many bytes did not, where one can't be written.
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), u64> {
        while !bytes.is_empty() {
            let room = self.bytes_max.saturating_sub(self.length);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let fits = if bytes.len() <= room {
                bytes.len()
            } else {
                // Whole lines stay together, but one that is longer than a log.
                let lines = bytes.get(..room).unwrap_or_default();
                match memchr::memrchr(b'\n', lines) {
                    Some(end) => end + 1,
                    None if self.length == 0 => room,
                    None => 0,
                }
            };
            let (now, later) = bytes.split_at(fits);
            if self.file.write_all(now).is_err() {
                // How much of it went out is not known.
                self.length = self.file.metadata().map_or(self.length, |meta| meta.len());
                return Err(bytes.len() as u64);
            }
            self.length += now.len() as u64;
            bytes = later;
            if !bytes.is_empty() && self.rotate().is_err() {
                return Err(bytes.len() as u64);
            }
        }
        Ok(())
    }

    /// Moves the log aside over the one before, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, log::older(&self.path))?;
        self.file = log::open(&self.path)?;
        self.length = self.file.metadata()?.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_instant_sees_more_than_twice_the_limit_and_lines_stay_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "of an earlier worker, longer than the limit\n").unwrap();
        let mut log = Log::open(&path, 40).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        for n in 0..100 {
            log.write(format!("line {n}\nand {n}\n").as_bytes());
            let (older, newer) = (read(&log::older(&path)), read(&path));
            assert!(newer.len() <= 40, "{newer}");
            assert!(n < 10 || older.len() <= 40, "{older}");
            assert!(newer.ends_with(&format!("and {n}\n")) && !newer.starts_with(' '));
        }
        // A line that is longer than a log.
        log.write(&[b'x'; 95]);
        assert_eq!(read(&log::older(&path)).len(), 40);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_log_that_can_not_be_written_costs_its_lines_and_says_so_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = Log::open(&path, 1 << 20).unwrap();
        log.write(b"one\n");
        let full = std::mem::replace(&mut log.file, File::create("/dev/full").unwrap());
        log.write(b"two\n");
        log.write(b"three\n");
        log.file = full;
        log.write(b"four\n");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "one\n\ntidegate: 10 bytes of output were lost, as this log could not be written\nfour\n"
        );
    }
}
