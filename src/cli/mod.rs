//! The command line: flags, verbs and everything that is printed.
//!
//! Exit codes: 0 done, 1 failed, 2 the command line is wrong.

mod ask;
mod broken;
mod file;
mod flags;
mod gost_config;
mod paths;
mod reload;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

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
    Run(Box<flags::RunArgs>),
    /// Print gost's configuration for an agent that runs with the same flags
    GostConfig(Box<gost_config::GostConfigArgs>),
    /// Say goodbye to the peers, who hide this agent's records at once, and stop it
    Leave(ask::Whom),
    /// Hide this agent's records at its peers, while its own host goes on using them
    Drain(ask::DrainArgs),
    /// Ask this host's agent whether it serves, for container health checks: exits with 0 if it does
    Healthcheck(ask::Whom),
    /// Print a new gossip key, a line for a --key-file
    Keygen,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    match file::with_file(&Cli::command(), std::env::args_os().collect()).and_then(perform) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What only a verb can tell about the command line ends like what clap tells.
            if let Some(error) = error.downcast_ref::<clap::Error>() {
                error.exit();
            }
            eprintln!("gossd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(line: Vec<OsString>) -> anyhow::Result<()> {
    match Cli::parse_from(line).verb {
        Verb::Run(args) => run::run(*args),
        Verb::GostConfig(args) => gost_config::gost_config(&args),
        Verb::Leave(whom) => ask::leave(whom),
        Verb::Drain(args) => ask::drain(args),
        Verb::Healthcheck(whom) => ask::health(whom),
        Verb::Keygen => {
            println!("{}", *keyring::generate());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_flag_has_its_variable() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for verb in ["run", "gost-config"] {
            let verb = command.find_subcommand(verb).unwrap();
            let flags: Vec<_> = verb.get_arguments().filter(|a| a.get_id() != "help").collect();
            assert!(flags.len() >= 9);
            for flag in flags {
                let variable = format!("GOSSD_{}", flag.get_id().as_str().to_uppercase());
                assert_eq!(flag.get_env().and_then(|v| v.to_str()), Some(&*variable));
            }
        }
    }
}
