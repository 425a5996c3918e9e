//! `tidegate-bench`: what a request costs in Tidegate, as a ratio to others in the same run.
//!
//! ```text
//! load ──TLS──▶ contestant ──▶ mock
//!               floor, tidegate, nginx, haproxy
//! ```
//!
//! `run` is the one command: it starts the mock and each contestant, drives the same load
//! through all of them in turns, and reads what their processes used. Figures are CPU time
//! of the contestant's process tree for each request or event, memory for each stream, and
//! latencies, each a median over rounds with its spread and as a ratio to the floor (a bare
//! hyper proxy) and to nginx. Absolute times differ between machines; ratios of one run
//! hardly do. Deliberately not a test: nothing fails because it was slow, only because an
//! answer was wrong.
//!
//! The parts can be used alone: `mock` and `load` against any proxy, `floor` for profiles.
//! `count` counts the instructions of the pieces of a request ([`parts`]) under valgrind and
//! holds them against the committed figures; `cargo bench` times the same pieces.

mod canned;
mod cold;
mod count;
mod driver;
mod error;
mod floor;
mod growth;
mod histogram;
mod jwt;
mod load;
mod machine;
mod measure;
mod mock;
pub mod parts;
mod peers;
mod process;
mod report;
mod run;
mod scenario;
mod tls;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::error::chain;

/// What a request costs in Tidegate, as a ratio to a bare hyper proxy, nginx and HAProxy
#[derive(Parser)]
#[command(version)]
enum Command {
    Run(run::RunArgs),
    Mock(mock::MockArgs),
    Floor(floor::FloorArgs),
    Load(Box<load::LoadArgs>),
    Count(count::CountArgs),
    Part(count::PartArgs),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(args) => run::run(&args),
        Command::Mock(args) => mock::serve(&args),
        Command::Floor(args) => floor::serve(&args),
        Command::Load(args) => load::serve(&args),
        Command::Count(args) => count::run(&args),
        Command::Part(args) => count::part(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to say if stderr is gone.
            drop(writeln!(
                std::io::stderr(),
                "tidegate-bench: {}",
                chain(&error)
            ));
            ExitCode::FAILURE
        }
    }
}
