//! Everything that Tidegate knows of vLLM: its options, command line and paths.

pub mod client;
pub mod options;
