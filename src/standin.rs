//! The stand-in engine: vLLM's HTTP, sleep and signals without a model.
//!
//! A real server process that behaves as vLLM 0.32 was observed to behave, so that
//! the product runs and is tested where there is no GPU. It owns its command line
//! ([`Args`]), its faults on command ([`faults`]), and everything that it says. It
//! deliberately knows nothing of the gateway and the lifecycle manager, which must
//! not be able to tell it from vLLM, and it computes nothing: texts, vectors and
//! scores are determined by the request and a seed.
//!
//! ```text
//! args ─ serve ─ child      helper processes, as vLLM's EngineCore and Worker
//!          ├── startup      the log until ready        socket   bound early, listening late
//!          ├── server       connections, signals, the end
//!          │     └ service  one request: key, route, body
//!          │         ├ chat completions responses messages     generation ─ text ─ tokens
//!          │         ├ pooling        vectors and scores
//!          │         ├ audio realtime words for sounds
//!          │         └ dev            sleep, wake, faults      metrics
//!          └── engine       admission, pace, state: what all requests heed
//! ```
//!
//! Differences from vLLM: no adapters (`LoRA`), no `/docs`, no access log, and a
//! sound may be any bytes.

mod app;
mod args;
mod audio;
mod chat;
mod child;
mod completions;
mod dev;
mod end;
mod engine;
mod error;
pub mod faults;
mod generation;
mod json;
mod messages;
mod metrics;
mod pooling;
mod realtime;
mod responses;
mod routes;
mod server;
mod service;
mod socket;
mod startup;
mod stored;
mod stream;
mod text;
mod tokens;
mod version;

use std::io::Write;

pub use args::{Args, ModelKind};
pub use end::SimError;
pub use version::VERSION;

/// Runs the stand-in until SIGTERM, or until a fault ends it. With `--child` it is
/// a helper process instead.
///
/// # Errors
///
/// [`SimError`] when it cannot start; its [`SimError::exit_code`] is what the
/// process should exit with.
pub async fn serve(args: Args, mut log: impl Write + Send) -> Result<(), SimError> {
    if args.child {
        child::hold().await;
        return Ok(());
    }
    let children = child::Children::spawn(args.processes)?;
    let ended = server::run(args, &mut log).await;
    children.end().await;
    ended
}
