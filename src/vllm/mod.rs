//! Everything that Tidegate knows of vLLM: its options, command line and paths.

pub mod args;
pub mod client;
pub mod install;
pub mod installation;
pub mod introspect;
pub mod options;
pub mod rules;
pub mod versions;
