//! `tidegate serve`

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::common::{ConfigArg, Failure};
use crate::app::{App, Signals, StartOptions};
use crate::telemetry::{log, output};

/// Threads of the runtime; `TIDEGATE_WORKER_THREADS` sets it.
const THREADS_VARIABLE: &str = "TIDEGATE_WORKER_THREADS";

/// Longest wait for calls to the system that have not come back.
const BLOCKED_MAX: Duration = Duration::from_secs(2);

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
        let start = StartOptions::new(self.take_over);
        log::install();
        let settings = self.config.load()?;
        let stop_workers = self.stop_workers || settings.workers.stop_on_exit;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if let Ok(text) = std::env::var(THREADS_VARIABLE) {
            let threads = text.parse().ok().filter(|n| (1..=1024).contains(n));
            builder.worker_threads(threads.ok_or(InvalidThreads(text))?);
        }
        let runtime = builder.enable_all().build()?;
        let served = runtime.block_on(async {
            // Before all that takes long: no signal but these ends us.
            let mut signals = Signals::listen()?;
            let app = tokio::select! {
                app = Box::pin(App::build(settings, start)) => app?,
                () = signals.stop() => {
                    tracing::info!("ended by a signal before it served");
                    return Ok(ExitCode::SUCCESS);
                }
            };
            if io::stdout().is_terminal()
                && let Some(stdout) = output::stdout()
            {
                stdout.write(format!("{}\n", app.welcome()).as_bytes());
            }
            let left = app.serve(signals, stop_workers).await?;
            if left > 0 {
                let (go, them) = match left {
                    1 => ("1 worker goes on".to_owned(), "it"),
                    n => (format!("{n} workers go on"), "them"),
                };
                tracing::info!("{go}; the next `tidegate serve` adopts {them}, and `tidegate serve --stop-workers` ends {them} as well");
            }
            Ok(ExitCode::SUCCESS)
        });
        // Threads in a call to the system, as on a dead disk, are not waited for.
        runtime.shutdown_timeout(BLOCKED_MAX);
        served
    }
}
