//! The way in: from the head of a request to a body that was read once.

pub mod authorize;
pub mod cors;
pub mod decode;
pub mod entry;
pub mod framing;
pub mod host;
pub(super) mod inputs;
pub mod receive;
