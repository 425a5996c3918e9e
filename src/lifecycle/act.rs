//! Carrying out of decisions: processes, calls, looks at workers and devices.
//!
//! `effects` carries out a machine's actions as tasks, by a [`launcher`] ([`process`])
//! and by [`calls`]; `health` and `observe` watch what runs. Results come back to the
//! conductor as events. Decides nothing.

pub mod calls;
pub mod command;
pub(in crate::lifecycle) mod effects;
mod exit;
mod fetching;
pub(in crate::lifecycle) mod health;
pub mod launcher;
mod learner;
pub(in crate::lifecycle) mod observe;
pub mod process;
pub(in crate::lifecycle) mod running;
