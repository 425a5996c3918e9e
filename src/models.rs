//! Models on the disks of this machine: fetched, kept, counted, removed.
//!
//! ```text
//!  ModelName ─ source ─┬─ hub        huggingface_hub of an engine's Python, in its cache
//!                      └─ directory  looked at, and left as it is
//!              shared   one fetch for all who want the same
//!              room     is there place for it?
//!              record   what we fetched; nothing else is ever removed
//!              cache    what lies in the hub's cache, by whomever
//!              checkpoint  what form it has, by its heads
//! ```
//!
//! It knows no deployment and starts no worker. Other sources are refused in words.

pub mod cache;
pub mod checkpoint;
pub mod directory;
pub mod fetch;
pub mod hub;
pub mod lock;
pub mod pace;
pub mod pull;
pub mod record;
pub mod refusal;
pub mod room;
pub mod shared;
pub mod source;
