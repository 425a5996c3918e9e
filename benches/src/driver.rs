//! Loads in processes of their own.
//!
//! Owns how a scenario becomes arguments of `tidegate-bench load`, and the talk with that
//! process: it says when it is connected, is told to start, and prints its report. A
//! process apart keeps the load's CPU time and memory out of everyone else's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command};

use crate::error::{BenchError, During};
use crate::load::{CONNECTED, LoadReport};
use crate::process;
use crate::scenario::Scenario;

/// A load in its own process.
pub(crate) struct Load {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Load {
    /// Starts it and waits until it has its connections.
    pub(crate) fn start(mut command: Command) -> Result<Self, BenchError> {
        let mut child = command.spawn().during(|| "start the load".to_owned())?;
        let Some(stdout) = child.stdout.take() else {
            return Err(BenchError::said("the load has no output"));
        };
        let mut load = Self {
            child,
            lines: BufReader::new(stdout),
        };
        let line = load.line()?;
        if line.trim() != CONNECTED {
            return Err(BenchError::said(
                "the load could not connect; its words stand above",
            ));
        }
        Ok(load)
    }

    /// Tells it to start.
    pub(crate) fn go(&mut self) -> Result<(), BenchError> {
        match &mut self.child.stdin {
            Some(stdin) => stdin
                .write_all(b"go\n")
                .during(|| "start the load".to_owned()),
            None => Err(BenchError::said("the load was not told to hold")),
        }
    }

    /// True if it has printed its report and ended.
    pub(crate) fn ended(&mut self) -> Result<bool, BenchError> {
        let status = self
            .child
            .try_wait()
            .during(|| "wait for the load".to_owned())?;
        Ok(status.is_some())
    }

    /// Waits for its report.
    pub(crate) fn report(&mut self) -> Result<LoadReport, BenchError> {
        let line = self.line()?;
        serde_json::from_str(&line)
            .map_err(|_| BenchError::said("the load failed; its words stand above"))
    }

    fn line(&mut self) -> Result<String, BenchError> {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .during(|| "hear from the load".to_owned())?;
        Ok(line)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

/// Waits for a load that does not hold.
pub(crate) fn finish(spawned: std::io::Result<Child>) -> Result<LoadReport, BenchError> {
    let child = spawned.during(|| "start the load".to_owned())?;
    let output = child
        .wait_with_output()
        .during(|| "wait for the load".to_owned())?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| BenchError::said("a load failed; its words stand above"))
}

/// Adds the arguments of a scenario that do not depend on the run.
pub(crate) fn shape(command: &mut Command, scenario: &Scenario) {
    // The mock alone speaks HTTP/1.1 without TLS, and no latency scenario needs more.
    let arguments = [
        ("--http", u64::from(scenario.http)),
        ("--connections", scenario.connections as u64),
        ("--streams", scenario.streams as u64),
        ("--body", scenario.body as u64),
        ("--events", u64::from(scenario.tokens())),
        ("--event-rate", u64::from(scenario.event_rate)),
    ];
    for (name, value) in arguments {
        command.arg(name).arg(value.to_string());
    }
    if scenario.fresh {
        command.arg("--fresh");
    }
}
