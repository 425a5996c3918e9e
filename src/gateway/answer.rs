//! The way back: from a server's answer to the last byte that its client gets.

pub mod body;
pub mod held;
pub mod inflow;
pub mod meter;
pub mod respond;
mod silence;
