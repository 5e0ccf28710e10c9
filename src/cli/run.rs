//! `gossd run`: flags and environment to a [`Config`], then the daemon until a signal or an operator stops it.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::configure::{config, overlooked};
use super::flags::RunArgs;
use super::log::Log;
use super::reload::{Again, Changed, Source};
use super::start::start;
use super::{log, supervisor, words};
use crate::agent::Agent;
use crate::config::{Adjustable, Config};
use crate::daemon::{Daemon, Remains};
use crate::listeners::Inherited;
use crate::ops::takeover::successor::Successor;
use gossd_core::record::Generation;

/// How long the end of the process waits for threads that are with the disk or the resolver: either may hang, and by then gost's
/// calls are refused.
const STRAGGLERS: Duration = Duration::from_millis(100);

pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let source = Source::new(super::Cli::command(), std::env::args_os().collect())?;
    let name = super::paths::name(args.name.clone())?;
    let log = Log::start(log::filter(&args)?, args.log_format, name.as_str())?;
    if let Err(error) = run_until_told(args, source, &log) {
        log.say_last(&error);
        return Ok(super::exit_code(&error));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_until_told(args: RunArgs, source: Source, log: &Log) -> anyhow::Result<()> {
    raise_open_files();
    if let Some(file) = overlooked(&args) {
        let file = file.display();
        tracing::warn!(
            "{file} is not read, and no --join or --key-file is given: this agent has no peers. Start it with --config {file}, \
             unless that is meant"
        );
    }
    let inherited = Inherited::from_environment();
    // Two workers serve a gost host's calls; more would only compete with gost for its cores. What else there is to do, and may
    // take some milliseconds, has one of its own: a call then waits for the lock alone, and the system lets it go first.
    let [calls, rest] =
        [2, 1].map(|workers| Builder::new_multi_thread().worker_threads(workers).enable_all().build());
    let (calls, rest) = (calls?, rest?);
    let ended = rest.block_on(async {
        let ended = Box::pin(serve(args, source, log, inherited, calls.handle())).await;
        if ended.is_err() {
            supervisor::give_up().await;
        }
        ended
    });
    rest.shutdown_timeout(STRAGGLERS);
    calls.shutdown_background();
    ended
}

/// Systems start programs with room for 1,024 open files, for the sake of old ones, and let them have more.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    tracing::debug!(before = ?limit.current, after = ?limit.maximum, done = raised.is_ok(), "open files");
}

/// How often a process starts anew because peers know a later start of its agent, or more of this one. Peers with memory need it once, or twice if they
/// remember different starts; one that says so again and again is wrong, or worse.
const MOST_ANEW: u32 = 3;

/// Agents one after the other, until one of them stops: a second one follows when a process that was to take over did not.
async fn serve(
    mut args: RunArgs,
    mut source: Source,
    log: &Log,
    inherited: Inherited,
    calls: &Handle,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let configured = |args: &RunArgs, source: &Source| -> anyhow::Result<Config> {
        Ok(Config {
            calls: Some(calls.clone()),
            log: log.own(),
            flags: source.flags(),
            ..config(args.clone())?
        })
    };
    let mut daemon = start(&args, configured(&args, &source)?, inherited).await?;
    let mut anew = 0;
    loop {
        let may_start_anew = anew < MOST_ANEW;
        match attend(&mut daemon, &mut signals, &mut args, &mut source, log, may_start_anew).await? {
            AgentEnd::Stop => {
                supervisor::stopping().await;
                daemon.stop().await;
                return Ok(());
            }
            AgentEnd::Superseded(known) => {
                if known == daemon.agent().owner().generation {
                    tracing::warn!(
                        known,
                        "a peer knows more of this start of this agent than it does: its memory was put back to what it was, as with a \
                         virtual machine's snapshot. Starting anew above it"
                    );
                } else {
                    tracing::warn!(
                        known,
                        "peers know a later start of this agent than this one: its journal was lost, or is an old copy, or the clock \
                         went back. Starting anew above it; `gossd check` examines the clock"
                    );
                }
                anew += 1;
                let config = configured(&args, &source)?;
                daemon = daemon.start_above(known, config).await?;
            }
            AgentEnd::Succeeded(mut successor) => {
                let Remains { inherited, snapshot } = daemon.hand_over().await?;
                match successor.hand_over(&snapshot).await {
                    Ok(()) => {
                        tracing::info!(version = successor.version, "another process has taken over");
                        return Ok(());
                    }
                    Err(error) => {
                        tracing::error!(
                            "the process that was to take over did not, so this agent goes on: {error}"
                        );
                        let config = configured(&args, &source)?;
                        daemon = Daemon::start_again(inherited, snapshot, config).await?;
                    }
                }
            }
        }
    }
}

/// What ends an agent.
enum AgentEnd {
    Stop,
    /// Peers know this later start of the agent, or more of this one.
    Superseded(Generation),
    /// A process has our sockets, and waits for what we hold.
    Succeeded(Successor),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: hangup? })
    }
}

/// Serves signals and operators until the agent is to end.
async fn attend(
    daemon: &mut Daemon,
    signals: &mut Signals,
    args: &mut RunArgs,
    source: &mut Source,
    log: &Log,
    may_start_anew: bool,
) -> anyhow::Result<AgentEnd> {
    supervisor::ready(&status(daemon.agent())).await;
    let agent = daemon.agent().clone();
    let mut beats = pin!(supervisor::beats(move || status(&agent)));
    let ops = daemon.ops().clone();
    let mut superseded = pin!(daemon.superseded());
    let mut is_known = false;
    loop {
        tokio::select! {
            error = daemon.fault() => return Err(error),
            never = &mut beats => match never {},
            _ = signals.hangup.recv() => {
                supervisor::reloading().await;
                daemon.reload();
                match source.again() {
                    Ok(again) => adjust(daemon, args, source, again, log),
                    Err(error) => tracing::error!("the configuration is no good, so nothing of it changes: {}", words::told(&error)),
                }
                supervisor::ready(&status(daemon.agent())).await;
            }
            _ = signals.terminate.recv() => {
                tracing::info!("stopping on SIGTERM");
                return Ok(AgentEnd::Stop);
            }
            _ = signals.interrupt.recv() => {
                tracing::info!("stopping on SIGINT");
                return Ok(AgentEnd::Stop);
            }
            () = ops.left() => {
                tracing::info!("stopping: told to leave");
                return Ok(AgentEnd::Stop);
            }
            generation = &mut superseded, if !is_known => {
                if may_start_anew {
                    return Ok(AgentEnd::Superseded(generation));
                }
                is_known = true;
                tracing::error!(
                    known = generation,
                    "a peer says again that it knows a later start of this agent than this one, or more of this one, after {MOST_ANEW} starts above what \
                     peers knew. This one goes on; that peer takes nothing from it. Look for another agent of this name, and for \
                     a member that does not belong here"
                );
            }
            successor = ops.succeeded() => return Ok(AgentEnd::Succeeded(successor)),
        }
    }
}

/// Applies the settings that can change while the agent runs, and logs the others.
fn adjust(daemon: &Daemon, current: &mut RunArgs, source: &mut Source, again: Again, log: &Log) {
    let Again { args, changed, fixed, matches } = again;
    let read = args.clone();
    let applied = log::filter(&args).and_then(|filter| {
        let config = config(args)?;
        config.validate()?;
        log.adjust(filter)?;
        source.apply(matches);
        daemon.adjust(Adjustable { flags: source.flags(), ..config.adjustable() });
        Ok(())
    });
    if let Err(error) = applied {
        return tracing::error!(
            "the configuration is no good, so nothing of it changes: {}",
            words::told(&error)
        );
    }
    if let Some(policy) = &read.claim_policy {
        tracing::info!(file = %policy.display(), "the claim policy is read again");
    }
    *current = read;
    if !changed.is_empty() {
        tracing::info!(changed = told(&changed), "the configuration is read again");
    }
    if !fixed.is_empty() {
        tracing::warn!(changed = told(&fixed), "these settings take effect at the next start only");
    }
    if changed.is_empty() && fixed.is_empty() {
        tracing::info!("the configuration is read again, and nothing of it has changed");
    }
}

/// What was changed, from what to what.
fn told(changes: &[Changed]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The line that the service manager shows. It takes the agent's lock.
fn status(agent: &Agent) -> String {
    let counts = agent.counts();
    format!("serving {} records, {} of them registered here", counts.records, counts.own_records)
}
