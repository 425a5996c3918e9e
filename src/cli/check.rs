//! `tidegate check`

use std::process::ExitCode;

use clap::Args;

use super::{ConfigArg, Failure, out};
use crate::config::check::check;
use crate::gateway::tls::Certificates;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArg,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        match check(self.config.config.as_deref()) {
            Ok(summary) => {
                self.certificates()?;
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

    /// Reads certificates and keys, unless the first start is to make them.
    fn certificates(&self) -> Result<(), Failure> {
        let tls = self.config.load()?.tls;
        if tls.certificate.exists() || tls.private_key.exists() {
            Certificates::load(tls)?;
        }
        Ok(())
    }
}
