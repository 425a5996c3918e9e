//! The command line: each command a file.
//!
//! Output is for people on a terminal, and JSON with `--json`. Exit codes: 0
//! done, 1 failed, 2 wrong usage.

mod args;
mod check;
mod client;
mod client_settings;
mod common;
mod completions;
mod container;
mod control;
mod estimate;
mod events;
mod exchange;
mod explain;
mod grafana;
mod login;
mod logs;
mod models;
mod options;
mod out;
mod ps;
mod pull;
mod ready;
mod serve;
mod sim;
mod simulate;
mod state;
mod token;
mod unit;
mod worker_exec;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::telemetry::output;
use common::Failure;

/// An authenticating gateway for OpenAI-compatible traffic, and the lifecycle
/// manager of the vLLM workers behind it.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: the gateway and the lifecycle manager
    Serve(serve::Serve),
    /// Show every error in tidegate.toml and the route files
    Check(check::Check),
    /// Make, list, look at and revoke tokens
    Token(token::Token),
    /// Back up and restore tokens, revocations, usage, audit, keys and secrets
    State(state::State),
    /// Show instances, deployments and how they stand
    Ps(ps::Ps),
    /// Make an instance of a route file or an export
    Launch(exchange::Launch),
    /// Write an instance as JSON, without its secrets
    Export(exchange::Export),
    /// Copy an instance under a new name
    Clone(exchange::Clone),
    /// Stop an instance and remove its file
    Delete(exchange::Delete),
    /// Start an instance, or one deployment of it
    Start(control::Name),
    /// Stop an instance; it stays down until it is started
    Stop(control::Name),
    /// End an instance's workers; its next request starts one
    Unload(control::Name),
    /// Take an instance's weights off the GPU
    Offload(control::Name),
    /// Bring an instance's weights back to the GPU
    Wake(control::Name),
    /// Show the console of an instance
    Logs(logs::Logs),
    /// Show what was decided, and why
    Events(events::Events),
    /// Make a link that logs an admin in to the dashboard, once
    Login(login::Login),
    /// Print a dashboard for Grafana, or alert rules for Prometheus
    Grafana(grafana::Grafana),
    /// Show why an instance runs or does not, and what a start would evict
    Explain(explain::Explain),
    /// Show every option of a deployment
    Options(options::Options),
    /// Show the vLLM command line that a file would run, secrets masked, and the GPU memory it needs
    Args(args::Args),
    /// Fetch a model into the hub's cache, before anything asks for it
    Pull(pull::Pull),
    /// Show the models on this machine, and remove those that were fetched
    Models(models::Models),
    /// Print or write the settings of a client for this gateway
    Client(client_settings::ClientArgs),
    /// Try the policy on a virtual clock, beside those of others
    Simulate(simulate::Simulate),
    /// The stand-in engine: `vllm serve`-like, without a GPU
    Sim(Box<sim::Sim>),
    /// Exit 0 if the gateway here accepts work, for health checks
    Ready(ready::Ready),
    /// Print a systemd unit, or its socket unit
    Unit(unit::Unit),
    /// Print a Containerfile, for podman and docker
    Container(container::Container),
    /// Print the completions of a shell
    Completions(completions::Completions),
    /// Print the manual page of a command
    Man(completions::Man),
    /// Run an engine as its own session; used by `serve`
    #[command(hide = true)]
    WorkerExec(worker_exec::WorkerExec),
    /// Stay with an engine, and write its log; used by `serve`
    #[command(hide = true)]
    WorkerKeep(worker_exec::WorkerKeep),
}

/// Longest that writing the last words may take.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// Parses the arguments and runs the command.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let code = run(cli.command).unwrap_or_else(|error| {
        out::error(error.as_ref());
        ExitCode::FAILURE
    });
    output::finish(LAST_WORDS_MAX);
    code
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => client::block_on(check.run()),
        Command::Options(options) => options.run(),
        Command::Args(args) => client::block_on(args.run()),
        Command::WorkerExec(exec) => exec.run(),
        Command::WorkerKeep(keep) => keep.run(),
        Command::Sim(sim) => Ok(sim.run()),
        Command::Simulate(simulate) => simulate.run(),
        Command::Token(token) => client::block_on(token.run()),
        Command::State(state) => client::block_on(state.run()),
        Command::Ps(ps) => client::block_on(ps.run()),
        Command::Launch(launch) => client::block_on(launch.run()),
        Command::Export(export) => client::block_on(export.run()),
        Command::Clone(clone) => client::block_on(clone.run()),
        Command::Delete(delete) => client::block_on(delete.run()),
        Command::Start(name) => client::block_on(name.run("start")),
        Command::Stop(name) => client::block_on(name.run("stop")),
        Command::Unload(name) => client::block_on(name.run("unload")),
        Command::Offload(name) => client::block_on(name.run("offload")),
        Command::Wake(name) => client::block_on(name.run("wake")),
        Command::Logs(logs) => client::block_on(logs.run()),
        Command::Login(login) => client::block_on(login.run()),
        Command::Pull(pull) => client::block_on(pull.run()),
        Command::Models(models) => models.run(),
        Command::Grafana(grafana) => grafana.run(),
        Command::Ready(ready) => client::block_on(ready.run()),
        Command::Client(client) => client.run(),
        Command::Unit(unit) => unit.run(),
        Command::Container(container) => container.run(),
        Command::Completions(completions) => completions.run(Cli::command()),
        Command::Man(man) => man.run(Cli::command()),
        Command::Events(events) => client::block_on(events.run()),
        Command::Explain(explain) => client::block_on(explain.run()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
