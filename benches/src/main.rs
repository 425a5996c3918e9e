//! The binary: everything is in the library, so that `cargo bench` finds it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate_bench::main()
}
