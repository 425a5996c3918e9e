//! Everything that Tidegate knows of vLLM: its options, command line and paths.

pub mod about;
pub mod args;
pub mod client;
pub mod environment;
pub mod figures;
pub mod fit;
pub mod install;
pub mod installation;
pub mod introspect;
pub mod log;
pub mod options;
pub mod rules;
pub mod taste;
pub mod versions;
