//! The binary: parse, run, print the error chain, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::main(std::env::args_os())
}
