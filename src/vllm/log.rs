//! What vLLM's log says: how far a start is, and why it failed.

pub mod progress;
pub(crate) mod verdict;
