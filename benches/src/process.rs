//! Processes of a run: pinned to CPUs, ended without fail.
//!
//! Owns how a process is started and ended: with the value that stands for it, and with
//! this process even when that is killed, so nothing is left behind. Does not know what the processes are.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::error::{BenchError, During};
use crate::mock::Listening;

/// Longest that a process may take to end when asked to.
const END_MAX: Duration = Duration::from_secs(5);

/// A process of the run; it ends when this is dropped.
pub(crate) struct Running {
    /// The process.
    pub(crate) child: Child,
    /// Address that it accepts connections on.
    pub(crate) address: SocketAddr,
}

impl Running {
    /// The root of its process tree.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks a process to end, and ends it if it does not.
pub(crate) fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid.filter(|_| matches!(child.try_wait(), Ok(None))) {
        // If it is gone already there is nothing to ask.
        kill_process(pid, Signal::TERM).unwrap_or_default();
        let asked = Instant::now();
        while asked.elapsed() < END_MAX && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(child.kill());
    }
    drop(child.wait());
}

/// A command on some CPUs; an empty list is any. It is told to end when this process
/// ends, however that comes about.
pub(crate) fn pinned(cpus: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if !cpus.is_empty() {
        command.args(["taskset", "-c", cpus]);
    }
    command.arg(program);
    command
}

/// Starts a server of this package, which says itself where it listens.
pub(crate) fn start_own(mut command: Command) -> Result<Running, BenchError> {
    let what = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .during(|| format!("start {what}"))?;
    let mut running = Running {
        child,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let mut line = String::new();
    if let Some(stdout) = running.child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .during(|| format!("hear from {what}"))?;
    }
    let listening: Listening = serde_json::from_str(&line)
        .map_err(|_| BenchError::said(format!("{what} did not start; its words stand above")))?;
    running.address = listening.tcp;
    Ok(running)
}

/// This program, to be started as the mock, the floor or the load.
pub(crate) fn own_binary() -> Result<PathBuf, BenchError> {
    std::env::current_exe().during(|| "find this program".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_when_it_is_dropped() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let running = Running {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        let path = PathBuf::from(format!("/proc/{}", running.pid()));
        assert!(path.exists());
        drop(running);
        assert!(!path.exists());
    }
}
