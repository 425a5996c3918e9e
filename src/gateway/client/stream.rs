//! Layers around a client's socket, each with one concern.

pub mod ahead;
pub mod frames;
pub mod lines;
pub mod linger;
pub mod patience;
pub mod rewind;
pub mod stall;
mod through;
