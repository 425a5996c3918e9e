//! Writing to the terminal.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};

use super::common::Failure;
use crate::telemetry::output;
use crate::telemetry::plain::plain;

/// Prints a line on standard output. A reader that has left, as `head` does,
/// ends the command without a word.
/// What would speak to the terminal is left out: engines, servers and files are
/// not trusted with it.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    let text = text.to_string();
    raw_line(&plain(&text))
}

/// Writes a line as [`line()`] does, with everything that is in the text.
pub(super) fn raw_line(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value)?)
}

/// Says what takes long, on standard error. Where no one listens it is not said.
pub(super) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints an error with its causes on standard error.
pub(super) fn error(error: &(dyn Error + 'static)) {
    let closed = |error: &(dyn Error + 'static)| {
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if closed(error) {
        return;
    }
    let mut text = format!("tidegate: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str("\n  because: ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let mut text = plain(&text).into_owned();
    text.push('\n');
    match output::used_stderr() {
        // Someone serves: a reader that stands still must not hold up the end.
        Some(stderr) => stderr.write(text.as_bytes()),
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// Columns of text, each as wide as its widest cell.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = widths
            .iter()
            .zip(cells)
            .map(|(width, cell)| format!("{cell:width$}"))
            .collect();
        line(padded.join("  ").trim_end())
    };
    print(&mut header.iter().copied())?;
    for row in rows {
        print(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}

/// A text whose further lines stand so far to the right.
pub(super) fn indented(text: &str, columns: usize) -> String {
    text.replace('\n', &format!("\n{:columns$}", ""))
}

/// A time since 1970 as people read it.
pub(super) fn date(unix: u64) -> String {
    i64::try_from(unix)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "-".to_owned(), |time| time.to_string())
}

/// Seconds as people say them: the two largest units.
pub(super) fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
