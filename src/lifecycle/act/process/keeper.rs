//! The gateway's side of a keeper: started, told that it is known, asked how the
//! engine ended. See [`super::keep`].

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{exec, keep};
use crate::proc::Stat;
use crate::store::workers::ProcessId;

/// Time that it may take to begin the engine.
const BEGIN_MAX: Duration = Duration::from_secs(20);
/// Bytes that it ever says.
const WORDS_MAX: u64 = 4 << 10;

/// A keeper that has begun its engine.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) child: Child,
    pub(super) keeper: ProcessId,
    pub(super) engine: ProcessId,
    /// The engine's output, as `/proc` names it.
    pub(super) pipe: String,
}

/// Parts that a keeper is begun with.
pub(super) struct Start<'a> {
    pub(super) own: &'a Path,
    pub(super) program: &'a Path,
    pub(super) args: &'a [String],
    pub(super) log: &'a Path,
    pub(super) bytes_max: u64,
    /// File for the keeper's own last words, if it can't begin.
    pub(super) errors: File,
}

/// Begins one; `more` adds what the engine inherits. It ends by itself should this
/// fail, and its engine must then be found by its marks.
pub(super) fn begin(start: Start<'_>, more: impl FnOnce(&mut Command)) -> io::Result<Begun> {
    let mut command = Command::new(start.own);
    command
        .arg(keep::SUBCOMMAND)
        .arg(keep::LOG)
        .arg(start.log)
        .arg(keep::BYTES_MAX)
        .arg(start.bytes_max.to_string())
        .arg("--")
        .arg(start.own)
        .arg(exec::SUBCOMMAND)
        .arg(start.program)
        .args(start.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(start.errors);
    more(&mut command);
    let mut child = command.spawn()?;
    match first_words(&mut child) {
        Ok((keeper, engine, pipe)) => Ok(Begun {
            child,
            keeper,
            engine,
            pipe,
        }),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// Reads the ids of the keeper and its engine, and the name of the engine's pipe.
fn first_words(child: &mut Child) -> io::Result<(ProcessId, ProcessId, String)> {
    let wrong = || io::Error::other("its keeper did not begin: see its log");
    let stdout = child.stdout.as_mut().ok_or_else(wrong)?;
    let line = read_line(stdout)?;
    let mut words = line.split_ascii_whitespace();
    let mut number = || words.next()?.parse::<u64>().ok();
    let (pid, start_time, pipe) = (number(), number(), number());
    let (Some(pid), Some(start_time), Some(pipe)) = (pid, start_time, pipe) else {
        return Err(wrong());
    };
    let pid = u32::try_from(pid).map_err(|_| wrong())?;
    // Not reaped, so the number is still its own even if it has ended.
    let stat = Stat::of(child.id()).ok_or_else(wrong)?;
    let keeper = ProcessId {
        pid: child.id(),
        start_time: stat.start_time,
    };
    Ok((
        keeper,
        ProcessId { pid, start_time },
        format!("pipe:[{pipe}]"),
    ))
}

fn read_line(from: &mut (impl Read + AsFd)) -> io::Result<String> {
    let mut line = Vec::new();
    let mut piece = [0; 256];
    let limit = Timespec {
        tv_sec: BEGIN_MAX.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    while line.last() != Some(&b'\n') && line.len() < 256 {
        match poll(&mut [PollFd::new(&*from, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let read = from.read(&mut piece)?;
        if read == 0 {
            break;
        }
        line.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    String::from_utf8(line).map_err(io::Error::other)
}

/// Reaps a keeper that has ended, and says how its engine did.
pub(super) fn last_words(mut child: Child) -> Option<String> {
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(WORDS_MAX).read_to_string(&mut said).ok()?;
    }
    child.wait().ok()?;
    let (what, number) = said.lines().last()?.split_once(' ')?;
    match (what, number.parse::<i32>().ok()?) {
        ("code", code) => Some(format!("exited with code {code}")),
        ("signal", 9) => Some("was killed (signal 9)".to_owned()),
        ("signal", signal) => Some(format!("was ended by signal {signal}")),
        _ => None,
    }
}
