//! The process's own log: for people on a terminal, JSON lines elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Sends log lines to standard error. `RUST_LOG` sets what is shown; `info` and
/// above by default. A second call changes nothing.
pub fn install() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let installed = if io::stderr().is_terminal() {
        let format = fmt::format().compact().with_target(false);
        fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .event_format(format)
            .try_init()
    } else {
        fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .try_init()
    };
    // Tests install more than once in one process.
    drop(installed);
}
