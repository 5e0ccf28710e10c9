//! The command line: flags, verbs and everything that is printed.
//!
//! Exit codes: 0 done, 1 failed, 2 the command line is wrong.

mod ask;
mod paths;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::gossip::keyring;

/// Service discovery for gost tunnels without a central store.
#[derive(Debug, Parser)]
#[command(name = "gossd", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run an agent beside gost, until SIGTERM or ctrl-c
    Run(Box<run::RunArgs>),
    /// Say goodbye to the peers, who hide this agent's records at once, and stop it
    Leave(ask::Whom),
    /// Hide this agent's records at its peers, while its own host goes on using them
    Drain(ask::DrainArgs),
    /// Print a new gossip key, a line for a --key-file
    Keygen,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(args) => run::run(*args),
        Verb::Leave(whom) => ask::leave(whom),
        Verb::Drain(args) => ask::drain(args),
        Verb::Keygen => {
            println!("{}", *keyring::generate());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gossd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_flag_has_its_variable() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let run = command.find_subcommand("run").unwrap();
        let flags: Vec<_> = run.get_arguments().filter(|a| a.get_id() != "help").collect();
        assert!(flags.len() >= 9);
        for flag in flags {
            let variable = format!("GOSSD_{}", flag.get_id().as_str().to_uppercase());
            assert_eq!(flag.get_env().and_then(|v| v.to_str()), Some(&*variable));
        }
    }
}
