//! Reasons for which the stand-in ends other than in good order.

use std::io;

/// Reason for which the stand-in ended other than in good order.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// It cannot listen where it should.
    #[error("could not listen on {address}: choose another --host, --port or --uds")]
    Bind {
        /// The address.
        address: String,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The log, a helper process, a signal handler or the memory file failed.
    #[error("could not {what}")]
    Io {
        /// The try that failed.
        what: &'static str,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// A fault on command ended it while it was loading.
    #[error("engine core initialization failed, as --fault asked for")]
    Crashed {
        /// The exit code that the fault names.
        code: u8,
    },
}

impl SimError {
    /// Exit code for the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Crashed { code } => *code,
            Self::Bind { .. } | Self::Io { .. } => 1,
        }
    }

    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
