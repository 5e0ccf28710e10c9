//! `gossd run`: flags and environment to a [`Config`], then the daemon until it is told to stop.

use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use clap::CommandFactory as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::flags::{AdminAddr, RunArgs};
use super::log::LevelHandle;
use super::reload::{Again, Source};
use super::{log, paths, supervisor};
use crate::agent::Agent;
use crate::config::{Config, DEFAULT_ADMIN, DEFAULT_GOSSIP_KEYED, DEFAULT_GOSSIP_LOOPBACK};
use crate::control::takeover::predecessor::Predecessor;
use crate::control::takeover::successor::Successor;
use crate::daemon::{Daemon, Former, Remains};
use crate::domain::hostname::Naming;
use crate::domain::quota::Quota;
use crate::gossip::keyfile;
use crate::gossip::keyring::Keyring;
use crate::listeners::{Inherited, Listeners, hold};
use crate::plugin::bounds::Bounds;
use crate::plugin::tls::TlsFiles;
use crate::plugin::{Names, http};

pub(super) fn run(args: RunArgs) -> anyhow::Result<()> {
    let source = Source::new(super::Cli::command(), std::env::args_os().collect())?;
    let log_level = log::start(&args)?;
    raise_open_files();
    let inherited = Inherited::from_environment();
    // Two workers serve a gost host's calls and gossip; more would only compete with gost for its cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ran = runtime.block_on(serve(args, source, log_level, inherited));
    if ran.is_err() {
        supervisor::give_up();
    }
    ran
}

/// Systems start programs with room for 1,024 open files, for the sake of old ones, and let them have more.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    tracing::debug!(before = ?limit.current, after = ?limit.maximum, done = raised.is_ok(), "open files");
}

/// Agents one after the other, until one of them stops: a second one follows when a process that was to take over did not.
async fn serve(
    mut args: RunArgs,
    mut source: Source,
    log_level: LevelHandle,
    inherited: Inherited,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut daemon = first(args.clone(), inherited).await?;
    loop {
        match attend(&mut daemon, &mut signals, &mut args, &mut source, &log_level).await? {
            End::Stop => {
                supervisor::stopping();
                daemon.stop().await;
                return Ok(());
            }
            End::Succeeded(mut successor) => {
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
                        let config = config(args.clone())?;
                        let listeners = Listeners::open(&config, inherited)?;
                        daemon = Daemon::start_on(listeners, config, Former::Left(snapshot)).await?;
                    }
                }
            }
        }
    }
}

/// The agent that this process is started for.
async fn first(args: RunArgs, mut inherited: Inherited) -> anyhow::Result<Daemon> {
    let (take_over, scheme) = (args.take_over, if args.tls_cert.is_some() { "https" } else { "http" });
    let mut config = config(args)?;
    inherited.configure(&mut config);
    config.validate()?;
    if config.hold {
        match hold::fetch(&config.name).await {
            Ok(held) => inherited.extend(held),
            Err(error) => tracing::debug!(%error, "no holder has sockets for this agent"),
        }
    }
    let mut predecessor = None;
    if take_over {
        let path = config.control.as_deref().context("--take-over needs --control")?;
        if let Some((met, sockets)) = Predecessor::meet(path, &config.name).await? {
            inherited.extend(sockets);
            predecessor = Some(met);
        } else {
            tracing::info!(control = %path.display(), "no agent runs here to take over from; starting as usual");
        }
    }
    let plugin_socket = config.plugin_socket.clone();
    let sealed = if config.keyring.is_public() { "no key, this host only" } else { "sealed" };
    let name = config.name.clone();
    let started = async {
        let listeners = Listeners::open(&config, inherited)?;
        // Before anything can go wrong that a restart may heal.
        supervisor::keep(&listeners.handles);
        let former = predecessor.as_mut().map_or(Former::Ended, Former::Runs);
        Daemon::start_on(listeners, config, former).await
    };
    let daemon = match (started.await, predecessor) {
        (Ok(daemon), Some(predecessor)) => {
            predecessor.release().await.context("the agent that ran does not end")?;
            tracing::info!("took over from the agent that ran");
            daemon
        }
        (Ok(daemon), None) => daemon,
        (Err(error), Some(predecessor)) => {
            predecessor.give_up(&format!("{error:#}")).await;
            return Err(error.context("not taken over; the agent that ran goes on"));
        }
        (Err(error), None) => return Err(error),
    };
    announce(&daemon, scheme, plugin_socket.as_deref());
    tracing::info!(agent = %name, advertised = %daemon.advertised, gossip = sealed, records = daemon.counts().own_records, "ready");
    supervisor::ready(&status(daemon.agent()));
    Ok(daemon)
}

/// What ends an agent.
enum End {
    Stop,
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

/// Does what the running agent is told, until it is told to end.
async fn attend(
    daemon: &mut Daemon,
    signals: &mut Signals,
    args: &mut RunArgs,
    source: &mut Source,
    log_level: &LevelHandle,
) -> anyhow::Result<End> {
    let agent = daemon.agent().clone();
    let mut beats = pin!(supervisor::beats(move || status(&agent)));
    let control = daemon.control().clone();
    loop {
        tokio::select! {
            error = daemon.fault() => return Err(error),
            never = &mut beats => match never {},
            _ = signals.hangup.recv() => {
                supervisor::reloading();
                daemon.reload();
                match source.again() {
                    Ok(again) => adjust(daemon, args, again, log_level),
                    Err(error) => tracing::error!("the configuration is no good, so nothing of it changes: {error:#}"),
                }
                supervisor::ready(&status(daemon.agent()));
            }
            _ = signals.terminate.recv() => {
                tracing::info!("stopping on SIGTERM");
                return Ok(End::Stop);
            }
            _ = signals.interrupt.recv() => {
                tracing::info!("stopping on SIGINT");
                return Ok(End::Stop);
            }
            () = control.left() => {
                tracing::info!("stopping: told to leave");
                return Ok(End::Stop);
            }
            successor = control.succeeded() => return Ok(End::Succeeded(successor)),
        }
    }
}

/// Puts in force what can be, and tells the rest.
fn adjust(daemon: &Daemon, current: &mut RunArgs, again: Again, log_level: &LevelHandle) {
    let Again { args, changed, fixed } = again;
    let read = args.clone();
    let applied = log::filter(&args).and_then(|filter| {
        let config = config(args)?;
        config.validate()?;
        log_level.reload(filter)?;
        daemon.adjust(config.adjustable());
        Ok(())
    });
    if let Err(error) = applied {
        return tracing::error!("the configuration is no good, so nothing of it changes: {error:#}");
    }
    *current = read;
    if !changed.is_empty() {
        tracing::info!(changed = changed.join(" "), "the configuration is read again");
    }
    if !fixed.is_empty() {
        tracing::warn!(changed = fixed.join(" "), "these settings take effect at the next start only");
    }
}

/// How it goes, for whoever looks at the service. It takes the agent's lock.
fn status(agent: &Agent) -> String {
    let counts = agent.counts();
    format!("serving {} records, {} of them registered here", counts.records, counts.own_records)
}

/// Prints where the daemon is found, in one piece: whoever reads the first lines and no more must not end it.
fn announce(daemon: &Daemon, scheme: &str, socket: Option<&Path>) {
    let socket = socket.map(|path| format!("plugin unix://{}\n", path.display())).unwrap_or_default();
    let plugin: String =
        daemon.plugins.iter().map(|address| format!("plugin {scheme}://{address}{}\n", http::PATH)).collect();
    let gossip = daemon.gossip;
    let admin = daemon.admin.map(|admin| format!("admin http://{admin}\n")).unwrap_or_default();
    let lines = format!("{plugin}gossip {gossip}\n{admin}{socket}");
    let mut stdout = std::io::stdout();
    let _nobody_reads_it = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
}

fn config(args: RunArgs) -> anyhow::Result<Config> {
    let keyring = match &args.key_file {
        Some(path) => keyfile::read(path)?,
        None => Keyring::public(),
    };
    config_with(keyring, args)
}

/// What the flags say, but for the keys.
pub(super) fn config_with(keyring: Keyring, args: RunArgs) -> anyhow::Result<Config> {
    let gossip = match args.gossip {
        Some(addr) => addr,
        None if keyring.is_public() => DEFAULT_GOSSIP_LOOPBACK.parse()?,
        None => DEFAULT_GOSSIP_KEYED.parse()?,
    };
    let name = match args.name {
        Some(name) => name,
        None => paths::host_name().context("this host has no name; set --name")?,
    };
    let data_dir = match args.data_dir {
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) => Some(path),
        None => paths::data_dir(),
    };
    let naming = Naming::new(&args.ingress_domain, args.ingress_min_label, &args.ingress_reserved);
    let naming = naming.context("--ingress-domain or --ingress-reserved")?;
    let rules = args.ingress_rule.iter().map(|(host, tunnel)| (&**host, &**tunnel));
    let names = Names::new(naming, rules).context("--ingress-rule")?;
    let quota = Quota { records: args.max_records, rules: args.max_rules, bytes: args.max_bytes };
    let control = args.control.or_else(|| paths::control(&name, data_dir.as_ref()));
    let tls = args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
    let admin = match args.admin {
        Some(AdminAddr(given)) => given,
        None => Some(DEFAULT_ADMIN.parse()?),
    };
    let mut config = Config {
        plugin: args.plugin,
        admin,
        admin_may_give_way: args.admin.is_none(),
        plugin_socket: args.plugin_socket,
        token_file: args.token_file,
        insecure_plugin: args.insecure_plugin,
        tls,
        bounds: Bounds { max_connections: args.max_connections, ..Bounds::default() },
        gossip,
        advertise: args.advertise_host,
        join: args.join,
        keyring,
        key_file: args.key_file,
        cluster: args.cluster,
        lease_ttl: Duration::from_secs(args.lease_ttl),
        order: args.order.into(),
        quota,
        names,
        fallback: args.fallback_address,
        data_dir,
        control,
        hold: args.hold,
        leave_on_stop: args.leave_on_stop,
        ..Config::loopback(name)
    };
    args.broken.apply(&mut config);
    Ok(config)
}
