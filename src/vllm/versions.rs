//! Knowledge of a vLLM version's arguments.
//!
//! Two versions are known whole, three in part (which of the form's arguments
//! they have); the texts lie beside this file. For a version in between, an
//! argument that both neighbours have is there, one that neither has is not, and
//! for the rest it says that it does not know. An installed version is asked
//! itself ([`super::introspect`]), and then nothing is unknown.

mod known;
mod version;

pub use known::{Arg, ArgForm, Found, Source, VersionArgs};
pub use version::{InvalidVersion, Version};
