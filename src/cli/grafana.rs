//! `tidegate grafana`

use std::process::ExitCode;

use clap::Args;

use super::common::Failure;
use super::out;
use crate::telemetry::grafana;

#[derive(Debug, Args)]
pub(super) struct Grafana {
    /// Print alert rules for Prometheus instead of the dashboard
    #[arg(long)]
    alerts: bool,
}

impl Grafana {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        if self.alerts {
            out::line(grafana::rules().trim_end())?;
        } else {
            out::json(&grafana::dashboard())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
