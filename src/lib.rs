//! Tidegate: an authenticating gateway for OpenAI-compatible traffic, and the
//! lifecycle manager of the vLLM workers behind it.
//!
//! # The map
//!
//! Modules stand below in floors, one paragraph each, the roof first; a module uses
//! only the floors below its own, and modules of one floor do not use each other. The
//! tests of `tests/it/floors.rs` read the sources and fail on a breach: of the floors,
//! of those inside `lifecycle`, `gateway` and `admin`, of the rules below that text can
//! show, and where files import each other in a circle that is not listed there.
//!
//! # Invariants
//!
//! 1. `gateway` and `lifecycle` do not know each other. They meet in
//!    `deployment`: the gateway takes permits and signals demand; the conductor
//!    opens and closes gates and publishes snapshots.
//! 2. Only the conductor changes a phase. Others read a snapshot, and no one
//!    acts on a read: to act, take a permit or send an event.
//! 3. `lifecycle::decide` does no I/O, reads no clock, spawns nothing
//!    (test `decisions_do_nothing`).
//! 4. Each foreign thing is known by one module: vLLM's flags, variables, metrics and
//!    paths by `vllm` (test `only_vllm_knows_the_names_of_vllm`), OpenAI's fields by
//!    `openai`, NVML by `gpu`, the clock by `time` (lint `disallowed_types`).
//! 5. No task boundary between client and worker: the service future owns the
//!    queue ticket, the permit and the upstream connection, and the response
//!    body owns what remains. Dropping it is the cancellation, the release and
//!    the accounting, in every phase.
//! 6. Bodies pass byte for byte, in the pieces that they came in: one scan as they
//!    come, and a splice where the model name, `stream_options` or what a name has rules
//!    for must change.
//! 7. Every queue, body, wait and retry has a bound that config names. Nothing
//!    fails open.
//! 8. Config is valid or absent; a request keeps the snapshot of config that it
//!    began with; a reload swaps one pointer and loses no limiter state.
//! 9. `routes.d` is the database of routes and instances.
//! 10. One end-of-request record feeds metrics, access log, usage and last
//!     activity; its `outcome` is a closed set.

// The command line: arguments in, exit code out.
pub mod cli;

// Puts all together, and ends it in order.
pub mod app;

// The admin API, the dashboard, sessions and links.
pub mod admin;
// Whole fleets played against a clock of their own, with the decisions of `lifecycle`.
pub mod simulation;

// The data plane: from a client's connection to a server and back.
pub mod gateway;
// The control plane: when a worker lives, and what it takes.
pub mod lifecycle;
// Stands in for vLLM, as `tidegate sim`, for tests and demonstrations.
pub mod standin;

// Meeting point of both planes: gates, demands, snapshots.
pub mod deployment;
// Data that outlives the process: tokens, records, history.
pub mod store;

// tidegate.toml and routes.d, valid or absent.
pub mod config;

// Identity of callers: tokens, keys, certificates.
pub mod auth;
// NVIDIA's devices and their sensors.
pub mod gpu;
// Models on the disks of this machine: fetched, kept, removed.
pub mod models;
// Bodies and streams in OpenAI's form.
pub mod openai;
// Logs, metrics, traces and figures.
pub mod telemetry;
// All that is vLLM's: options, versions, installations, routes, log, figures.
pub mod vllm;

// Names that are checked once, where they enter.
pub mod names;
// The way out: look-ups, connections, one exchange.
pub mod outbound;
// Bodies in the pieces that they came in.
pub mod pieces;
// Tasks with a name and an orderly end.
pub mod tasks;
// Frames of WebSockets.
pub mod websocket;

// Doors for fuzzers.
#[cfg(test)]
mod fuzz;
// Faults of PEM files.
pub mod pem;
// Percent-coding of names.
pub mod percent;
// Facts from `/proc/PID/stat`.
pub mod proc;
// Chance, replayed by its seed.
pub mod random;
// The clocks.
pub mod time;
// Bytes and spans of time, as people write them.
pub mod units;
