//! `gossd run`: flags and environment to a [`Config`], then the daemon until it is told to stop.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use super::paths;
use crate::agent::LEASE_TTL;
use crate::config::{Config, DEFAULT_CLUSTER, DEFAULT_GOSSIP_KEYED, DEFAULT_GOSSIP_LOOPBACK, DEFAULT_PLUGIN};
use crate::daemon::Daemon;
use crate::domain::address::{Entrypoint, Host};
use crate::domain::rank::Order;
use crate::domain::record::AgentName;
use crate::gossip::JoinPoint;
use crate::gossip::keyring::Keyring;
use crate::plugin::http;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// This agent's name, unique in the cluster [default: the host name]
    #[arg(long, env = "GOSSD_NAME")]
    name: Option<AgentName>,
    /// Where gost's plugin calls come in
    #[arg(long, env = "GOSSD_PLUGIN", value_name = "ADDR", default_value = DEFAULT_PLUGIN)]
    plugin: SocketAddr,
    /// Where peers come in, by UDP and TCP [default: 0.0.0.0:8002 with a key, 127.0.0.1:8002 without]
    #[arg(long, env = "GOSSD_GOSSIP", value_name = "ADDR")]
    gossip: Option<SocketAddr>,
    /// The IP address or name by which other hosts reach this one [default: the interface towards --join]
    #[arg(long, env = "GOSSD_ADVERTISE_HOST", value_name = "HOST", value_parser = parse_host)]
    advertise_host: Option<Host>,
    /// HOST:PORT of a peer's gossip; may be repeated, or a list with commas. Names are resolved for ever
    #[arg(long, env = "GOSSD_JOIN", value_name = "HOST:PORT", value_delimiter = ',')]
    join: Vec<JoinPoint>,
    /// File of base64 keys, one a line: the first seals, all open. `gossd keygen` makes one
    #[arg(long, env = "GOSSD_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Agents of different clusters do not understand each other
    #[arg(long, env = "GOSSD_CLUSTER", default_value = DEFAULT_CLUSTER)]
    cluster: String,
    /// Folder of the journal, or "none" for memory only [default: systemd's, else the user's]
    #[arg(long, env = "GOSSD_DATA_DIR", value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Socket for `gossd leave` and `gossd drain` [default: systemd's, else the user's runtime folder]
    #[arg(long, env = "GOSSD_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    /// gost's entrypoint, for tunnels that were attached before this agent ran: Renews alone do not tell it
    #[arg(long, env = "GOSSD_FALLBACK_ADDRESS", value_name = "ADDR", value_parser = parse_entrypoint)]
    fallback_address: Option<Entrypoint>,
    /// In which order a Get lists the records of live agents
    #[arg(long, env = "GOSSD_ORDER", default_value = "random")]
    order: GetOrder,
    /// Seconds that a record lives without a Renew, until its Renew period is known
    #[arg(long, env = "GOSSD_LEASE_TTL", value_name = "SECONDS", default_value_t = LEASE_TTL.as_secs())]
    lease_ttl: u64,
    /// Say goodbye on SIGTERM, for an agent that will not come back: peers hide its records at once
    #[arg(long, env = "GOSSD_LEAVE_ON_STOP")]
    leave_on_stop: bool,
    /// How log lines look, on standard error
    #[arg(long, env = "GOSSD_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// error, warn, info, debug, trace, or a filter such as gossd=debug,chitchat=info
    #[arg(long, env = "GOSSD_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = parse_level)]
    log_level: LogLevel,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum GetOrder {
    Random,
    Nearest,
}

impl From<GetOrder> for Order {
    fn from(order: GetOrder) -> Self {
        match order {
            GetOrder::Random => Self::Random,
            GetOrder::Nearest => Self::Nearest,
        }
    }
}

/// A filter that was found to parse.
#[derive(Clone, Debug)]
struct LogLevel(String);

pub(super) fn run(args: RunArgs) -> anyhow::Result<()> {
    start_log(&args)?;
    let config = config(args)?;
    // Two workers serve a gost host's calls and gossip; more would only compete with gost for its cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = config.name.clone();
    let sealed = if config.keyring.is_public() { "no key, this host only" } else { "sealed" };
    let mut daemon = Daemon::start(config).await?;
    println!("plugin http://{}{}", daemon.plugin, http::PATH);
    println!("gossip {}", daemon.gossip);
    tracing::info!(agent = %name, advertised = %daemon.advertised, gossip = sealed, records = daemon.counts().own_records, "ready");
    let control = daemon.control().clone();
    tokio::select! {
        error = daemon.fault() => return Err(error),
        _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
        () = control.left() => tracing::info!("stopping: told to leave"),
    }
    daemon.stop().await;
    Ok(())
}

fn config(args: RunArgs) -> anyhow::Result<Config> {
    let keyring = match &args.key_file {
        Some(path) => read_keyring(path)?,
        None => Keyring::public(),
    };
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
    let control = args.control.or_else(|| paths::control(&name, data_dir.as_ref()));
    Ok(Config {
        plugin: args.plugin,
        gossip,
        advertise: args.advertise_host,
        join: args.join,
        keyring,
        cluster: args.cluster,
        lease_ttl: Duration::from_secs(args.lease_ttl),
        order: args.order.into(),
        fallback: args.fallback_address,
        data_dir,
        control,
        leave_on_stop: args.leave_on_stop,
        ..Config::loopback(name)
    })
}

fn read_keyring(path: &Path) -> anyhow::Result<Keyring> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .with_context(|| format!("cannot read --key-file {}", path.display()))?;
    Keyring::parse(&text).with_context(|| format!("--key-file {}", path.display()))
}

fn parse_entrypoint(text: &str) -> Result<Entrypoint, String> {
    Entrypoint::parse(text).map_err(|e| format!("it {e}"))
}

fn parse_host(text: &str) -> Result<Host, String> {
    Host::advertised(text).map_err(|e| format!("it {e}"))
}

fn parse_level(text: &str) -> Result<LogLevel, String> {
    EnvFilter::try_new(text).map(|_| LogLevel(text.into())).map_err(|e| e.to_string())
}

fn start_log(args: &RunArgs) -> anyhow::Result<()> {
    // chitchat's own lines speak of its internals; what an operator needs, we say.
    let filter = EnvFilter::try_new(format!("chitchat=error,{}", args.log_level.0))?;
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
