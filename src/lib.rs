//! Tidegate: an authenticating gateway for OpenAI-compatible traffic, and the
//! lifecycle manager of the vLLM workers behind it.
//!
//! # The map
//!
//! Modules stand below in floors, one paragraph each; a module uses only the
//! floors above its own, and modules of one floor do not use each other. A test
//! (`tests/it/floors.rs`) reads the `use` lines and fails on a breach.
//!
//! # Invariants
//!
//! 1. `gateway` and `lifecycle` do not know each other. They meet in
//!    `deployment`: the gateway takes permits and signals demand; the conductor
//!    opens and closes gates and publishes snapshots.
//! 2. Only the conductor changes a phase. Others read a snapshot, and no one
//!    acts on a read: to act, take a permit or send an event.
//! 3. `lifecycle::machine` and `lifecycle::placement` do no I/O, read no clock,
//!    spawn nothing.
//! 4. Each foreign thing is known by one module: vLLM's flags and paths by
//!    `vllm`, OpenAI's fields by `openai`, NVML by `gpu`, the clock by `time`.
//! 5. No task boundary between client and worker: the service future owns the
//!    queue ticket, the permit and the upstream connection, and the response
//!    body owns what remains. Dropping it is the cancellation, the release and
//!    the accounting, in every phase.
//! 6. Bodies pass byte for byte, in the pieces that they came in: one scan as they
//!    come, and a splice where the model name or `stream_options` must change.
//! 7. Every queue, body, wait and retry has a bound that config names. Nothing
//!    fails open.
//! 8. Config is valid or absent; a request keeps the snapshot of config that it
//!    began with; a reload swaps one pointer and loses no limiter state.
//! 9. `routes.d` is the database of routes and instances.
//! 10. One end-of-request record feeds metrics, access log, usage and last
//!     activity; its `outcome` is a closed set.

#[cfg(test)]
mod fuzz;
pub mod time;
pub mod units;

pub mod dial;
pub mod names;
pub mod pieces;
pub mod tasks;
pub mod websocket;

pub mod auth;
pub mod gpu;
pub mod openai;
pub mod telemetry;
pub mod vllm;

pub mod config;

pub mod deployment;
pub mod store;

pub mod gateway;
pub mod lifecycle;
pub mod sim;

pub mod admin;

pub mod app;

pub mod cli;
