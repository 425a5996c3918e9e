//! Failure of the gateway to start or to go on.

use std::error::Error;

/// Reason for which the gateway could not start or go on.
pub type Failure = Box<dyn Error + Send + Sync>;
