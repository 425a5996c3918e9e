//! The process's own log: for people on a terminal, JSON lines elsewhere.
//!
//! Panics are lines of it too. Nothing that is said here can hold up or end what
//! says it, see [`super::output`].

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::output;

/// Sends log lines and panics to standard error. `RUST_LOG` sets what is shown;
/// `info` and above by default. A second call changes nothing.
pub fn install() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let Some(output) = output::stderr() else {
        // Without a thread for it there is no log, and soon no process.
        return;
    };
    let writer = || output.clone();
    let installed = if io::stderr().is_terminal() {
        let format = fmt::format().compact().with_target(false);
        fmt()
            .with_env_filter(filter)
            .with_writer(writer)
            .log_internal_errors(false)
            .event_format(format)
            .try_init()
    } else {
        fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_writer(writer)
            .log_internal_errors(false)
            .try_init()
    };
    // Tests install more than once in one process.
    if installed.is_ok() {
        panic::set_hook(Box::new(tell_panic));
    }
}

fn tell_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        panic.at = info.location().map(tracing::field::display),
        panic.thread = thread.name(),
        panic.backtrace = backtrace.as_ref().map(tracing::field::display),
        "panic, which is a fault of tidegate: {}",
        info.payload_as_str().unwrap_or("without words"),
    );
}
