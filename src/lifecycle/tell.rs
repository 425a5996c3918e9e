//! Words for what happens: reasons, stories and the events of the log.

pub mod events;
pub(in crate::lifecycle) mod reason;
pub(in crate::lifecycle) mod story;
