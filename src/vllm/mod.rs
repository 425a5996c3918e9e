//! Everything that Tidegate knows of vLLM: its options, command line and versions.

pub mod args;
pub mod client;
pub mod introspect;
pub mod options;
pub mod rules;
pub mod versions;
