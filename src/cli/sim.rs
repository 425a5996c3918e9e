//! `tidegate sim`: the stand-in engine.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::standin::{self, SimError};

/// Run the stand-in engine: vLLM's HTTP and lifecycle without a model.
#[derive(Debug, clap::Args)]
pub(super) struct Sim {
    #[command(flatten)]
    args: standin::Args,
}

impl Sim {
    /// Runs it until it is told to end; returns the exit code.
    pub(super) fn run(self) -> ExitCode {
        let ran = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|source| SimError::Io {
                what: "start the runtime",
                source,
            })
            .and_then(|runtime| runtime.block_on(standin::serve(self.args, io::stdout())));
        match ran {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = error.exit_code();
                let chain = std::error::Error::source(&error);
                let cause = chain.map_or_else(String::new, |cause| format!(": {cause}"));
                // Nowhere is left to report that standard error is closed.
                drop(writeln!(io::stderr(), "tidegate sim: {error}{cause}"));
                ExitCode::from(code)
            }
        }
    }
}
