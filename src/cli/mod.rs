//! The command line: flags, verbs and everything that is printed.
//!
//! Exit codes: `EXIT_CODES`, which `gossd --help` prints.

mod ask;
mod blame;
mod check;
mod client;
mod complete;
mod configure;
mod debug;
mod demo;
mod events;
mod explain;
mod file;
mod flags;
mod gost_config;
mod hold;
mod hosts;
#[cfg(feature = "redis")]
mod import;
mod join;
mod keys;
mod log;
mod matrix;
#[cfg(feature = "redis")]
mod migrate;
mod packaging;
mod paths;
mod reload;
mod run;
mod second;
mod services;
mod start;
mod status;
mod supervisor;
mod table;
mod watch;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;

use crate::config::{Config, ConfigError};
use clap::{CommandFactory as _, Parser, Subcommand};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// All exit codes, as `--help` prints them.
const EXIT_CODES: &str = "Exit codes:
  0  done; of gossd check: nothing keeps an agent from starting, though there may be warnings
  1  failed
  2  the command line, a variable or the configuration file is wrong
  3  nothing was found, or not every agent has the keys yet";
/// The exit code of a verb that did not do what it is for.
const FAILED: u8 = 1;
/// The exit code of a command line that makes no sense: clap's own.
const WRONG_LINE: u8 = 2;
/// The exit code of a verb whose question makes sense and has nothing for an answer.
const NOTHING_FOUND: u8 = 3;
/// The exit code of a change that is done at the agent that was asked, but not at every agent that it knows.
const NOT_EVERYWHERE: u8 = 3;

/// Service discovery for gost tunnels without a central store.
#[derive(Debug, Parser)]
#[command(name = "gossd", version, about, max_term_width = 110)]
#[command(after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run an agent beside gost, until SIGTERM or ctrl-c
    Run(Box<flags::RunArgs>),
    /// Show three agents with made-up tunnels and visitors, in memory, until ctrl-c
    Demo,
    /// Keep an agent's listeners while its container is replaced: for the container that owns the network
    Hold(hold::HoldArgs),
    /// Print gost's configuration for an agent that runs with the same flags
    GostConfig(Box<gost_config::GostConfigArgs>),
    /// Tell whether an agent with the same flags could run here: ports, files, names, the clock
    Check(Box<check::CheckArgs>),
    /// Print a line with which another host joins this agent's cluster: for gossd join there
    Invite(ask::AgentArgs),
    /// Configure this host for the cluster of an invite, after asking its agents whether all fits
    Join(Box<join::JoinArgs>),
    /// Take what gost's Redis plugins keep of the gosts of this host: their records and host names
    #[cfg(feature = "redis")]
    Import(Box<import::ImportArgs>),
    /// Let a running gost call this agent instead of its Redis plugins, after an import, without disturbing a client
    #[cfg(feature = "redis")]
    Migrate(Box<migrate::MigrateArgs>),
    /// Say goodbye to the peers, who hide this agent's records at once, and stop it
    Leave(ask::AgentArgs),
    /// Hide this agent's records at its peers, while its own host goes on using them
    Drain(ask::DrainArgs),
    /// Forget a dead agent that will not come back: it is gone from every list, and in the way of no key
    Forget(ask::ForgetArgs),
    /// Ask this host's agent whether it serves, for container health checks: exits with 0 if it does
    Healthcheck(ask::AgentArgs),
    /// Print how an agent is: its records, peers and journal, and what is wrong
    Status(status::StatusArgs),
    /// List the agents of the cluster, as one of them sees the others
    Members(status::StatusArgs),
    /// List which host cannot reach whose entrypoint, as the agents that are heard say
    Matrix(ask::AgentArgs),
    /// List the tunnels that are attached anywhere
    Services(services::ServicesArgs),
    /// List the host names that lead to tunnels
    Hosts(hosts::HostsArgs),
    /// Print where gost would find a tunnel: what a Get answers now
    Get(explain::ExplainArgs),
    /// Tell why a Get answers as it does: every record of a tunnel, and why it is listed there, or hidden
    Explain(explain::ExplainArgs),
    /// Print what happens to records and peers as it happens, with the time, until ctrl-c
    Watch(watch::WatchArgs),
    /// Write an archive with what an agent tells of itself, for whoever is to find a fault: no secret is in it
    Debug(debug::DebugArgs),
    /// Change the keys that seal the gossip, at every agent while all are running
    #[command(subcommand)]
    Keys(keys::KeysVerb),
    /// Print a new gossip key, a line for a --key-file; the same as gossd keys generate
    Keygen,
    /// Print a shell's completions for gossd
    Completions(packaging::CompletionsArgs),
    /// Print gossd's manual page
    Man(packaging::ManArgs),
}

/// The keys of a configuration file with the flags that they mean; or what is wrong with the file. For fuzzers.
#[cfg(feature = "fuzz")]
pub fn flags_of_file(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    thread_local! {
        static COMMAND: clap::Command = Cli::command();
    }
    COMMAND.with(|command| file::flags(command, text)).map_err(|error| words::told(&error))
}

/// What another program changes in the configuration of an agent that it runs.
static ADJUST: OnceLock<fn(&mut Config)> = OnceLock::new();

/// The same as [`main`], for a program that tests agents: it changes their configuration beyond what flags can.
pub fn main_with(adjust: fn(&mut Config)) -> ExitCode {
    ADJUST.get_or_init(|| adjust);
    main()
}

/// Parses the command line and runs its verb; or completes it, for a shell.
pub fn main() -> ExitCode {
    packaging::complete(Cli::command);
    if let Err(error) = keep_memory_to_ourselves() {
        eprintln!("gossd: keys may get into a core file: {error}");
    }
    let typed: Vec<OsString> = std::env::args_os().collect();
    let line = file::with_file(&Cli::command(), typed.clone()).map_err(blame::settings);
    let form = ErrorForm::of(line.as_ref().unwrap_or(&typed));
    match line.and_then(perform) {
        Ok(code) => code,
        Err(error) => failed(&error, form),
    }
}

/// How a verb says why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorForm {
    Text,
    /// For a caller who asked for JSON.
    Json,
    /// A line of a log that is JSON from its first line to its last.
    LogLine,
}

impl ErrorForm {
    /// As a command line asks for, which may be wrong elsewhere.
    fn of(line: &[OsString]) -> Self {
        if line.iter().any(|word| word == "--json") {
            return Self::Json;
        }
        // A line that is wrong cannot be parsed to its end.
        let words: Vec<&str> = line.iter().filter_map(|word| word.to_str()).collect();
        let typed = words.iter().zip(words.iter().skip(1)).find_map(|(word, next)| match *word {
            "--log-format" => Some(*next),
            word => word.strip_prefix("--log-format="),
        });
        let last = words.last().and_then(|word| word.strip_prefix("--log-format="));
        let variable = std::env::var("GOSSD_LOG_FORMAT").ok().filter(|_| words.get(1) == Some(&"run"));
        let format = typed.or(last).or(variable.as_deref());
        if format == Some("json") { Self::LogLine } else { Self::Text }
    }
}

/// Says why a verb failed. A command line that is wrong has its own exit code, whoever finds that.
fn failed(error: &anyhow::Error, form: ErrorForm) -> ExitCode {
    let wrong_line = error.downcast_ref::<clap::Error>();
    match wrong_line {
        // Not of help and version, which are no errors.
        Some(error) if form == ErrorForm::Text || !error.use_stderr() => error.exit(),
        _ => {}
    }
    let text = match wrong_line {
        Some(error) => blame::line(error),
        None => words::plain_lines(&format!("{}{}", words::told(error), blame::origins(error))),
    };
    match form {
        ErrorForm::Text => eprintln!("gossd: {text}"),
        ErrorForm::Json => eprintln!("{}", serde_json::json!({ "error": text })),
        ErrorForm::LogLine => eprintln!("{}", log::error_line(&format!("gossd: {text}"))),
    }
    exit_code(error)
}

/// Whoever finds that the settings are wrong: clap, the file's reader, or the check of all of them together.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_wrong =
        error.is::<clap::Error>() || error.is::<ConfigError>() || error.is::<blame::WrongSettings>();
    ExitCode::from(if is_wrong { WRONG_LINE } else { FAILED })
}

/// Files, folders and sockets of an agent are its own user's from their first moment, whatever the shell that starts it
/// leaves open. What others may use, the plugin's socket and the file of host names, is opened to them afterwards.
fn make_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// No core file, and no other process of the same user, gets at the keys in memory. The bound on the size alone would do
/// for files, but not for a program that the kernel pipes cores to.
fn keep_memory_to_ourselves() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn perform(line: Vec<OsString>) -> anyhow::Result<ExitCode> {
    match Cli::try_parse_from(line)?.verb {
        Verb::Run(args) => {
            make_files_private();
            return run::run(*args);
        }
        Verb::Demo => demo::demo()?,
        Verb::Hold(args) => hold::hold(args)?,
        Verb::GostConfig(args) => gost_config::gost_config(&args)?,
        Verb::Check(args) => return check::check(*args),
        Verb::Invite(asked) => join::invite(&asked)?,
        Verb::Join(args) => return join::join(&args),
        #[cfg(feature = "redis")]
        Verb::Import(args) => return import::import(&args),
        #[cfg(feature = "redis")]
        Verb::Migrate(args) => migrate::migrate(&args)?,
        Verb::Leave(asked) => ask::leave(&asked)?,
        Verb::Drain(args) => ask::drain(&args)?,
        Verb::Forget(args) => ask::forget(&args)?,
        Verb::Healthcheck(asked) => ask::healthcheck(&asked)?,
        Verb::Status(args) => return status::status(&args),
        Verb::Members(args) => return status::members(&args),
        Verb::Matrix(asked) => return matrix::matrix(&asked),
        Verb::Services(args) => return services::services(&args),
        Verb::Hosts(args) => return hosts::hosts(&args),
        Verb::Get(question) => return explain::get(&question),
        Verb::Explain(question) => return explain::explain(&question),
        Verb::Watch(args) => return watch::watch(&args),
        Verb::Debug(args) => debug::debug(&args)?,
        Verb::Keys(verb) => return keys::keys(verb),
        Verb::Keygen => keys::generate()?,
        Verb::Completions(args) => packaging::completions(&Cli::command(), &args)?,
        Verb::Man(args) => packaging::man(Cli::command(), &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_json_gets_errors_as_json_even_of_a_line_that_is_wrong() {
        let of = |line: &str| ErrorForm::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for (line, form) in [
            ("gossd run --name a", ErrorForm::Text),
            ("gossd run --no-such-flag", ErrorForm::Text),
            ("gossd status --json --no-such-flag", ErrorForm::Json),
            ("gossd run --log-format json --max-records many", ErrorForm::LogLine),
            ("gossd run --max-records many --log-format=json", ErrorForm::LogLine),
            ("gossd no-such-verb", ErrorForm::Text),
        ] {
            assert_eq!(of(line), form, "{line}");
        }
    }

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
