//! Failures of a run, as sentences that say what to do.
//!
//! Owns the one error type of this package: every error here ends the command, so a
//! caller never has to tell them apart. Does not hold failed requests of a load:
//! those are counted, see [`crate::load`].

use std::error::Error as _;
use std::io;

/// Reason for which a command could not go on.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The operating system refused something.
    #[error("could not {what}")]
    Io {
        /// The try that failed, to be read after "could not".
        what: String,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Anything that has no error of another crate under it.
    #[error("{0}")]
    Said(String),
    /// A TLS setting that rustls refuses.
    #[error("could not set up TLS")]
    Tls(#[from] rustls::Error),
    /// Certificates could not be made.
    #[error("could not make the certificate of the run")]
    Certificate(#[from] rcgen::Error),
    /// A result that is not the JSON that was expected.
    #[error("could not read or write a result as JSON")]
    Json(#[from] serde_json::Error),
}

impl BenchError {
    /// An error made of a sentence.
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }
}

/// Names what an I/O call was for.
pub(crate) trait During<T> {
    /// Turns the error into [`BenchError::Io`]; `what` reads after "could not".
    fn during(self, what: impl FnOnce() -> String) -> Result<T, BenchError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Io {
            what: what(),
            source,
        })
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &BenchError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
