//! Decisions about what should be, pure, over values.
//!
//! [`machine`] says what a worker does next, [`placement`] which workers stay on which
//! GPU, with the account of [`ledger`] and the costs of [`policy`]; `scale` how many
//! replicas, `profile` what a deployment asks for. No I/O, no clock, no task: time and
//! readings come in as values, and what is decided goes out as values.

pub mod ledger;
pub mod machine;
pub mod placement;
pub mod policy;
pub(in crate::lifecycle) mod profile;
pub(in crate::lifecycle) mod scale;
pub(in crate::lifecycle) mod why;
