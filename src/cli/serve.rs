//! `tidegate serve`

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Args;

use super::{ConfigArg, Failure, out};
use crate::app::{App, Start};
use crate::telemetry::log;

/// Threads of the runtime; `TIDEGATE_WORKER_THREADS` sets it.
const THREADS_VARIABLE: &str = "TIDEGATE_WORKER_THREADS";

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigArg,
    /// End the workers with the gateway; else they go on, and the next start
    /// adopts them
    #[arg(long)]
    stop_workers: bool,
    /// Take over from the gateway that runs here: no connection is refused, its
    /// open requests finish, its workers go on
    #[arg(long)]
    take_over: bool,
}

/// The variable holds no number of threads.
#[derive(Debug, thiserror::Error)]
#[error("{THREADS_VARIABLE} must be a number from 1 to 1024, not {0:?}")]
struct InvalidThreads(String);

impl Serve {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        // Before anything is opened: descriptors are passed by number.
        let start = Start::new(self.take_over);
        log::install();
        let settings = self.config.load()?;
        let stop_workers = self.stop_workers || settings.workers.stop_on_exit;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if let Ok(text) = std::env::var(THREADS_VARIABLE) {
            let threads = text.parse().ok().filter(|n| (1..=1024).contains(n));
            builder.worker_threads(threads.ok_or(InvalidThreads(text))?);
        }
        let runtime = builder.enable_all().build()?;
        runtime.block_on(async {
            let app = App::build(settings, start).await?;
            if io::stdout().is_terminal() {
                out::line(app.welcome())?;
            }
            let left = app.serve(stop_workers).await?;
            if left > 0 {
                tracing::info!("{left} workers go on; the next `tidegate serve` adopts them, and `tidegate serve --stop-workers` ends them with it");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
