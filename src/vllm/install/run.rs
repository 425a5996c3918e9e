//! Runs one command of an installer, line by line, with all its processes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::Progress;

/// Last lines that a failure keeps.
const LINES_KEPT: usize = 20;
/// Longest line that is passed on, in bytes; the rest of it is dropped.
const LINE_BYTES_MAX: usize = 2000;
/// Lines between the reader and the callback; full, the installer waits.
const LINES_WAITING: usize = 64;

/// Failure of a command, and its last lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallFailure {
    /// Probable meaning, and what to do.
    pub meaning: String,
    /// The last lines of its output.
    pub lines: Vec<String>,
}

impl fmt::Display for InstallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.meaning)?;
        match self.lines.iter().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => write!(f, " (it said: {})", line.trim()),
            None => Ok(()),
        }
    }
}

/// Kills a process group when dropped, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            // It ended by itself in this moment; nothing is left to do.
            tracing::debug!(%error, "the installer had ended");
        }
    }
}

/// Runs a command to its end. Each line of its output goes to `progress`.
pub(super) async fn run(
    words: &[OsString],
    cache: &Path,
    progress: Progress<'_>,
) -> Result<(), InstallFailure> {
    let (program, arguments) = words.split_first().ok_or_else(|| plain("no command"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("UV_CACHE_DIR", cache.join("uv"))
        .env("PIP_CACHE_DIR", cache.join("pip"))
        .env("UV_PYTHON_DOWNLOADS", "never")
        .env("UV_NO_PROGRESS", "1")
        .env("NO_COLOR", "1")
        .env("PIP_NO_INPUT", "1")
        .env("PIP_PROGRESS_BAR", "off")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| plain(format!("{} can't be run: {error}", program.display())))?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(Pid::from_raw));
    let (sender, mut lines) = mpsc::channel(LINES_WAITING);
    let out = lines_of(child.stdout.take(), sender.clone());
    let err = lines_of(child.stderr.take(), sender);
    let mut last = VecDeque::with_capacity(LINES_KEPT);
    let heard = async {
        while let Some(line) = lines.recv().await {
            progress(&line);
            if last.len() == LINES_KEPT {
                last.pop_front();
            }
            last.push_back(line);
        }
    };
    let ((), (), ()) = tokio::join!(out, err, heard);
    let status = child.wait().await;
    group.0 = None;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let lines = Vec::from(last);
            Err(InstallFailure {
                meaning: explain(&lines).map_or_else(
                    || format!("{} ended with {status}", program.display()),
                    str::to_owned,
                ),
                lines,
            })
        }
        Err(error) => Err(plain(format!("{} was lost: {error}", program.display()))),
    }
}

fn plain(meaning: impl Into<String>) -> InstallFailure {
    InstallFailure {
        meaning: meaning.into(),
        lines: Vec::new(),
    }
}

/// Sends each line of a stream; ends with it.
async fn lines_of(stream: Option<impl AsyncRead + Unpin>, sender: mpsc::Sender<String>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 8 << 10];
    let mut line = Vec::new();
    loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        for byte in read {
            if matches!(byte, b'\n' | b'\r') {
                send(&mut line, &sender).await;
            } else if line.len() < LINE_BYTES_MAX {
                line.push(*byte);
            }
        }
    }
    send(&mut line, &sender).await;
}

async fn send(line: &mut Vec<u8>, sender: &mpsc::Sender<String>) {
    if line.is_empty() {
        return;
    }
    let text: String = String::from_utf8_lossy(line)
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    line.clear();
    // The receiver lives as long as this future.
    drop(sender.send(text).await);
}

/// Words of the installers where something is wrong, and their meaning.
const MEANINGS: &[(&str, &str)] = &[
    (
        "No space left on device",
        "the disk is full: make room, or move the state directory",
    ),
    (
        "Permission denied",
        "a directory may not be written to: look at the owner of the state directory",
    ),
    ("No solution found", NO_VERSION),
    ("No matching distribution", NO_VERSION),
    ("Could not find a version", NO_VERSION),
    ("was not found in the package registry", NO_VERSION),
    ("Failed to fetch", UNREACHABLE),
    ("error sending request", UNREACHABLE),
    ("dns error", UNREACHABLE),
    ("Name or service not known", UNREACHABLE),
    ("Temporary failure in name resolution", UNREACHABLE),
    ("Connection refused", UNREACHABLE),
    ("Max retries exceeded", UNREACHABLE),
    (
        "No interpreter found",
        "there is no suitable Python: install one, or set its path in [engines.vllm]",
    ),
    (
        "ensurepip is not available",
        "this Python can't make environments: install its venv package, or uv",
    ),
    ("Failed building wheel", BUILD),
    ("Failed to build", BUILD),
];

const NO_VERSION: &str = "the package index has no such version for this Python and platform: look at the version, the index and the Python";
const UNREACHABLE: &str =
    "the package index can't be reached: look at the network, the proxy and the index";
const BUILD: &str =
    "a package has to be compiled here and was not: choose a version with wheels for this platform";

/// The meaning of the output's last lines.
fn explain(lines: &[String]) -> Option<&'static str> {
    MEANINGS
        .iter()
        .find(|(said, _)| lines.iter().any(|line| line.contains(said)))
        .map(|(_, meaning)| *meaning)
}
