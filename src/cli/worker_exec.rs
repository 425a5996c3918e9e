//! `tidegate worker-exec`: becomes an engine, in a session of its own; `tidegate
//! worker-keep`: stays with one, and writes its log.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::common::Failure;

#[derive(Debug, Args)]
pub(super) struct WorkerExec {
    /// The engine's command line
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl WorkerExec {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        // Returns only when the engine could not be run.
        Err(crate::lifecycle::act::process::exec::exec(&self.command).into())
    }
}

#[derive(Debug, Args)]
pub(super) struct WorkerKeep {
    /// The file that the engine's output goes to
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// The size at which that is moved aside, in bytes
    #[arg(long, value_name = "BYTES")]
    log_bytes_max: u64,
    /// The command that becomes the engine
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl WorkerKeep {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        crate::lifecycle::act::process::keep::keep(&self.log, self.log_bytes_max, &self.command)?;
        Ok(ExitCode::SUCCESS)
    }
}
