//! `tidegate check`

use std::process::ExitCode;

use clap::Args;

use super::{ConfigArg, Failure, out};
use crate::config::check::check;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArg,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        match check(self.config.config.as_deref()) {
            Ok(summary) => {
                out::line(summary)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(errors) => {
                for error in &errors {
                    out::line(error)?;
                }
                let count = errors.len();
                out::line(format_args!(
                    "{count} {}",
                    if count == 1 { "error" } else { "errors" }
                ))?;
                Ok(ExitCode::FAILURE)
            }
        }
    }
}
