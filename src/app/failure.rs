//! Why the gateway could not start or go on.

use std::error::Error;

/// Why the gateway could not start or go on.
pub type Failure = Box<dyn Error + Send + Sync>;
