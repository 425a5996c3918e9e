//! `tidegate sim`

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::client::block_on;
use crate::sim;

#[derive(Debug, Args)]
pub(super) struct Sim {
    #[command(flatten)]
    args: sim::Args,
}

impl Sim {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        block_on(async {
            sim::serve(self.args).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
