//! Errors of a file: where they are, and what to write instead.

use std::fmt;
use std::path::PathBuf;

/// One thing wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// Dotted key: `route.timeouts.idle`; empty when no key is meant.
    pub key: String,
    /// The error and what to write instead; no final full stop.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if self.key.is_empty() {
            write!(f, ": {}", self.message)
        } else {
            write!(f, ": {}: {}", self.key, self.message)
        }
    }
}
