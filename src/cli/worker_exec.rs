//! `tidegate worker-exec`: becomes an engine, in a session of its own.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use super::Failure;

#[derive(Debug, Args)]
pub(super) struct WorkerExec {
    /// The engine's command line
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl WorkerExec {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        // Returns only when the engine could not be run.
        Err(crate::lifecycle::process::exec::exec(&self.command).into())
    }
}
