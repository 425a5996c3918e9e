//! Reading of vLLM's log: progress of a start, and the reason why one failed.

pub mod progress;
pub(crate) mod verdict;
