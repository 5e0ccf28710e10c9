//! What measures gossd, and what tries it where no test has the time: each verb is one program, which prints tables with
//! what to compare them with from the same run.
//!
//! ```text
//! cargo run --locked --release --package gossd-lab --bin gossd-lab -- propagation --agents 50
//! cargo run --locked --release --package gossd-lab --bin gossd-lab -- --json calls
//! ```

mod calls;
mod cluster;
mod footprint;
mod newcomer;
mod propagation;
mod siege;
mod soak;
mod switches;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gossd_lab::table::Out;

#[derive(Parser)]
#[command(name = "gossd-lab", about = "What measures gossd")]
struct Args {
    /// An object for each row of a table, and nothing else on the standard output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// An accelerated week of agents and gosts, until nothing may be left of it
    Soak(soak::Args),
    /// An agent under attack
    Siege(siege::Args),
    /// How many of gost's calls an agent answers, and how quickly
    Calls(calls::Args),
    /// What an agent takes: memory, processor time, time to start
    Footprint(footprint::Args),
    /// How long a registration takes to the last agent
    Propagation(propagation::Args),
    /// What gossip costs the network
    Traffic(traffic::Args),
    /// How long a fresh agent takes until it knows everything
    Newcomer(newcomer::Args),
}

fn main() -> ExitCode {
    // Agents that are processes of their own are this program under another name, and tests can break them.
    if let Some("run" | "hold") = std::env::args().nth(1).as_deref() {
        return gossd::cli::main_with(switches::apply);
    }
    // reqwest wants one, although nothing here is encrypted.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let Args { json, verb } = Args::parse();
    let out = Out::new(json);
    let outcome = match verb {
        Verb::Soak(args) => soak::run(args, out),
        Verb::Siege(args) => siege::run(args, out),
        Verb::Calls(args) => calls::run(&args, out),
        Verb::Footprint(args) => footprint::run(&args, out),
        Verb::Propagation(args) => propagation::run(&args, out),
        Verb::Traffic(args) => traffic::run(&args, out),
        Verb::Newcomer(args) => newcomer::run(&args, out),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs on as many threads as there are processors.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_verb_has_flags_that_fit_together() {
        Args::command().debug_assert();
    }
}
