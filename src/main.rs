//! The `gossd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    gossd::cli::main()
}
