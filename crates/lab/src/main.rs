//! Programs that measure gossd, or try it for longer than a test can. Each verb is one program. It prints tables, with
//! something to compare from the same run.
//!
//! ```text
//! cargo run --locked --release --package gossd-lab --bin gossd-lab -- propagation --agents 50
//! cargo run --locked --release --package gossd-lab --bin gossd-lab -- --json calls
//! ```

mod calls;
mod cluster;
mod distance;
mod footprint;
mod instructions;
mod longest;
mod newcomer;
mod process;
mod propagation;
mod siege;
mod simulate;
mod soak;
mod store;
mod switches;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gossd_lab::table::Out;

#[derive(Parser)]
#[command(name = "gossd-lab", about = "What measures gossd")]
struct LabArgs {
    /// An object for each row of a table, and nothing else on the standard output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: LabVerb,
}

#[derive(Subcommand)]
enum LabVerb {
    /// An accelerated week of agents and gosts, until nothing may be left of it
    Soak(soak::SoakArgs),
    /// An agent under attack
    Siege(siege::SiegeArgs),
    /// How many of gost's calls an agent answers, and how quickly
    Calls(calls::CallsArgs),
    /// What it costs that the store is on another host, or that there is none
    Distance(distance::DistanceArgs),
    /// What an agent takes: memory, processor time, time to start
    Footprint(footprint::FootprintArgs),
    /// How many instructions a call costs
    Instructions(instructions::InstructionsArgs),
    /// The longest call while something else keeps the agent busy
    Longest(longest::LongestArgs),
    /// How long a registration takes to the last agent
    Propagation(propagation::PropagationArgs),
    /// What gossip costs the network
    Traffic(traffic::TrafficArgs),
    /// How long a fresh agent takes until it knows everything
    Newcomer(newcomer::NewcomerArgs),
    /// Clusters in virtual time: stories that have to hold every invariant, or one large cluster's figures
    Simulate(simulate::SimulateArgs),
}

fn main() -> ExitCode {
    // Agents with processes of their own run this program under another name; tests can break parts of them.
    if let Some("run" | "hold") = std::env::args().nth(1).as_deref() {
        return gossd::cli::main_with(switches::apply);
    }
    // reqwest requires a provider, although nothing here is encrypted.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let LabArgs { json, verb } = LabArgs::parse();
    let out = Out::new(json);
    let outcome = match verb {
        LabVerb::Soak(args) => soak::run(args, out),
        LabVerb::Siege(args) => siege::run(args, out),
        LabVerb::Calls(args) => calls::run(&args, out),
        LabVerb::Distance(args) => distance::run(&args, out),
        LabVerb::Footprint(args) => footprint::run(&args, out),
        LabVerb::Instructions(args) => instructions::run(&args, out),
        LabVerb::Longest(args) => longest::run(&args, out),
        LabVerb::Propagation(args) => propagation::run(&args, out),
        LabVerb::Traffic(args) => traffic::run(&args, out),
        LabVerb::Newcomer(args) => newcomer::run(&args, out),
        LabVerb::Simulate(args) => simulate::run(&args, out),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs on one thread per processor.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_verb_has_flags_that_fit_together() {
        LabArgs::command().debug_assert();
    }
}
