//! `gossd run`: flags and environment to a [`Config`], then the daemon until it is told to stop.

use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::CommandFactory as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::flags::{AdminAddr, RunArgs};
use super::log::Log;
use super::reload::{Again, Source};
use super::{log, paths, supervisor};
use crate::agent::Agent;
use crate::config::{Config, DEFAULT_ADMIN, DEFAULT_GOSSIP_KEYED, DEFAULT_GOSSIP_LOOPBACK};
use crate::daemon::Daemon;
use crate::domain::hostname::Naming;
use crate::domain::quota::Quota;
use crate::gossip::keyfile;
use crate::gossip::keyring::Keyring;
use crate::plugin::bounds::Bounds;
use crate::plugin::tls::TlsFiles;
use crate::plugin::{Names, http};

/// How long the end of the process waits for threads that are with the disk or the resolver: either may hang.
const STRAGGLERS: Duration = Duration::from_millis(500);

pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let source = Source::new(super::Cli::command(), std::env::args_os().collect())?;
    let log = Log::start(&args)?;
    if let Err(error) = run_until_told(args, source, &log) {
        log.say_last(&error);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn run_until_told(args: RunArgs, source: Source, log: &Log) -> anyhow::Result<()> {
    raise_open_files();
    let config = Config { dropped_log_lines: log.dropped(), ..config(args)? };
    // Two workers serve a gost host's calls and gossip; more would only compete with gost for its cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(serve(config, source, log));
    runtime.shutdown_timeout(STRAGGLERS);
    ended
}

/// Systems start programs with room for 1,024 open files, for the sake of old ones, and let them have more.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    tracing::debug!(before = ?limit.current, after = ?limit.maximum, done = raised.is_ok(), "open files");
}

async fn serve(config: Config, mut source: Source, log: &Log) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let name = config.name.clone();
    let sealed = if config.keyring.is_public() { "no key, this host only" } else { "sealed" };
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let plugin_socket = config.plugin_socket.clone();
    let mut daemon = Daemon::start(config).await?;
    announce(&daemon, scheme, plugin_socket.as_deref())?;
    tracing::info!(agent = %name, advertised = %daemon.advertised, gossip = sealed, records = daemon.counts().own_records, "ready");
    let agent = daemon.agent().clone();
    let status = move || status(&agent);
    supervisor::ready(&status()).await;
    let mut beats = pin!(supervisor::beats(status.clone()));
    let control = daemon.control().clone();
    loop {
        tokio::select! {
            error = daemon.fault() => return Err(error),
            never = &mut beats => match never {},
            _ = hangup.recv() => {
                supervisor::reloading().await;
                daemon.reload();
                match source.again() {
                    Ok(again) => adjust(&daemon, again, log),
                    Err(error) => tracing::error!("the configuration is no good, so nothing of it changes: {error:#}"),
                }
                supervisor::ready(&status()).await;
                continue;
            }
            _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
            () = control.left() => tracing::info!("stopping: told to leave"),
        }
        break;
    }
    supervisor::stopping().await;
    daemon.stop().await;
    Ok(())
}

/// Puts in force what can be, and tells the rest.
fn adjust(daemon: &Daemon, again: Again, log: &Log) {
    let Again { args, changed, fixed } = again;
    let applied = log::filter(&args).and_then(|filter| {
        let config = config(args)?;
        config.validate()?;
        log.adjust(filter)?;
        daemon.adjust(config.adjustable());
        Ok(())
    });
    if let Err(error) = applied {
        return tracing::error!("the configuration is no good, so nothing of it changes: {error:#}");
    }
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

/// Prints where the daemon is found, in one piece and from a thread of its own: whoever reads the first lines and no
/// more must not end it, and whoever reads nothing must not hold it up.
fn announce(daemon: &Daemon, scheme: &str, socket: Option<&Path>) -> anyhow::Result<()> {
    let socket = socket.map(|path| format!("plugin unix://{}\n", path.display())).unwrap_or_default();
    let (plugin, gossip) = (daemon.plugin, daemon.gossip);
    let admin = daemon.admin.map(|admin| format!("admin http://{admin}\n")).unwrap_or_default();
    let lines = format!("plugin {scheme}://{plugin}{}\ngossip {gossip}\n{admin}{socket}", http::PATH);
    let print = move || {
        let mut stdout = std::io::stdout();
        let _nobody_reads_it = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
    };
    thread::Builder::new().name("announce".into()).spawn(print)?;
    Ok(())
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
        leave_on_stop: args.leave_on_stop,
        ..Config::loopback(name)
    };
    args.broken.apply(&mut config);
    Ok(config)
}
