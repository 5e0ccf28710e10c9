//! The flags of `gossd run`, each an environment variable and a key of the configuration file too. Every verb that
//! speaks of an agent before it runs takes them.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::config::{DEFAULT_CLUSTER, DEFAULT_PLUGIN};
use crate::host::Advertise;
use crate::net::JoinPoint;
use crate::plugin::Names;
use crate::plugin::bounds::MAX_CONNECTIONS;
use gossd_core::address::{AddressError, Entrypoint, Host};
use gossd_core::agent::LEASE_TTL;
use gossd_core::hostname::Naming;
use gossd_core::locality::{MAX_WEIGHT, MAX_ZONE, is_zone};
use gossd_core::quota::Quota;
use gossd_core::rank::Order;
use gossd_core::record::AgentName;
use gossd_core::slot::MAX_EACH;

#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
#[derive(Clone, Debug, Args)]
// Else clap counts all of them as one more flag.
#[group(skip)]
pub(super) struct RunArgs {
    /// TOML file with any of these flags as keys; flags and variables win over it
    #[arg(long, env = "GOSSD_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// This agent's name, unique in the cluster [default: the host name]
    #[arg(long, env = "GOSSD_NAME")]
    pub(super) name: Option<AgentName>,
    /// Where gost's plugin calls come in; may be repeated, or a list with commas
    #[arg(long, env = "GOSSD_PLUGIN", value_name = "ADDR", value_delimiter = ',', default_value = DEFAULT_PLUGIN, value_parser = parse_listen)]
    pub(super) plugin: Vec<SocketAddr>,
    /// A Unix socket for gost's plugin calls as well: the same paths, without TLS
    #[arg(long, env = "GOSSD_PLUGIN_SOCKET", value_name = "PATH")]
    pub(super) plugin_socket: Option<PathBuf>,
    /// File of tokens, one a line: a plugin call needs one of them. Read again when it changes
    #[arg(long, env = "GOSSD_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Take every plugin call, without tokens, from other hosts as well
    #[arg(long, env = "GOSSD_INSECURE_PLUGIN")]
    pub(super) insecure_plugin: bool,
    /// A name under which gost calls the plugin, without tokens or TLS; may be repeated. IP addresses, localhost, this
    /// host's names and those that no public name server knows need no flag
    #[arg(long, env = "GOSSD_PLUGIN_HOST", value_name = "HOST", value_delimiter = ',')]
    pub(super) plugin_host: Vec<String>,
    /// PEM certificate chain: --plugin speaks TLS with it. Read again when it changes
    #[arg(long, env = "GOSSD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// PEM key of the certificate
    #[arg(long, env = "GOSSD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Open plugin connections; when there are more, the least useful are closed
    #[arg(long, env = "GOSSD_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = MAX_CONNECTIONS, value_parser = parse_connections)]
    pub(super) max_connections: NonZeroUsize,
    /// Where status, metrics, probes and the page are, read-only, or "none" [default: 127.0.0.1:8001, if it is free]
    #[arg(long, env = "GOSSD_ADMIN", value_name = "ADDR", value_parser = parse_admin)]
    pub(super) admin: Option<AdminAddr>,
    /// File of tokens, one a line: a request to --admin needs one of them. Read again when it changes
    #[arg(long, env = "GOSSD_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(super) admin_token_file: Option<PathBuf>,
    /// Where /metrics, /livez and /readyz are as well, and nothing else, for a scraper on another host: they name no tunnel
    #[arg(long, env = "GOSSD_METRICS", value_name = "ADDR", value_parser = parse_listen)]
    pub(super) metrics: Option<SocketAddr>,
    /// Where peers come in, by UDP and TCP [default: with a key port 8002 of IPv6 and IPv4; 127.0.0.1:8002 without]
    #[arg(long, env = "GOSSD_GOSSIP", value_name = "ADDR", value_parser = parse_listen)]
    pub(super) gossip: Option<SocketAddr>,
    /// The IP address or name by which other hosts reach this one, or %INTERFACE for an interface's address; with the port of
    /// its gossip, if another one is forwarded to it [default: the interface towards --join]
    #[arg(long, env = "GOSSD_ADVERTISE_HOST", value_name = "HOST[:PORT]", value_parser = parse_advertise)]
    pub(super) advertise_host: Option<Advertise>,
    /// HOST:PORT of a peer's gossip; may be repeated, or a list with commas. Names are resolved for ever
    #[arg(long, env = "GOSSD_JOIN", value_name = "HOST:PORT", value_delimiter = ',')]
    pub(super) join: Vec<JoinPoint>,
    /// File of base64 keys, one a line: the first seals, all open. `gossd keygen` makes one, `gossd keys` changes it
    #[arg(long, env = "GOSSD_KEY_FILE", value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Agents of different clusters do not understand each other
    #[arg(long, env = "GOSSD_CLUSTER", default_value = DEFAULT_CLUSTER)]
    pub(super) cluster: String,
    /// Folder of the journal, or "none" for memory only [default: systemd's, else the user's]
    #[arg(long, env = "GOSSD_DATA_DIR", value_name = "PATH")]
    pub(super) data_dir: Option<PathBuf>,
    /// Socket for `gossd leave`, `gossd drain` and `gossd keys` [default: systemd's, else the user's runtime folder]
    #[arg(long, env = "GOSSD_CONTROL", value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// Take over from the agent of this name that runs here: gost is not refused, and no change is lost. It ends
    #[arg(long, env = "GOSSD_TAKE_OVER")]
    pub(super) take_over: bool,
    /// Keep the listeners at the `gossd hold` of this network namespace while this agent is replaced
    #[arg(long, env = "GOSSD_HOLD")]
    pub(super) hold: bool,
    /// gost's entrypoint, for tunnels that were attached before this agent ran: Renews alone do not tell it
    #[arg(long, env = "GOSSD_FALLBACK_ADDRESS", value_name = "ADDR", value_parser = parse_entrypoint)]
    pub(super) fallback_address: Option<Entrypoint>,
    /// In which order a Get lists records that are equally good otherwise
    #[arg(long, env = "GOSSD_ORDER", default_value = "random")]
    pub(super) order: GetOrder,
    /// Where this host is, such as eu-central-1: agents of the same zone come first
    #[arg(long, env = "GOSSD_ZONE", value_name = "NAME", default_value = "", hide_default_value = true, value_parser = parse_zone)]
    pub(super) zone: String,
    /// How often this host comes first beside others: 50 is half as often as 100, 0 only if nobody else works
    #[arg(long, env = "GOSSD_WEIGHT", value_name = "0..100", default_value_t = MAX_WEIGHT, value_parser = clap::value_parser!(u8).range(..=i64::from(MAX_WEIGHT)))]
    pub(super) weight: u8,
    /// Seconds that a record lives without a Renew, until its Renew period is known
    #[arg(long, env = "GOSSD_LEASE_TTL", value_name = "SECONDS", default_value_t = LEASE_TTL.as_secs(), value_parser = parse_ttl)]
    pub(super) lease_ttl: u64,
    /// Say goodbye on SIGTERM, for an agent that will not come back: peers hide its records at once
    #[arg(long, env = "GOSSD_LEAVE_ON_STOP")]
    pub(super) leave_on_stop: bool,
    /// x.DOMAIN means the ingress host x; may be repeated. The same at every agent
    #[arg(long, env = "GOSSD_INGRESS_DOMAIN", value_name = "DOMAIN", value_delimiter = ',')]
    pub(super) ingress_domain: Vec<String>,
    /// HOST=TUNNEL, or *.HOST=TUNNEL: an ingress rule that no tunnel's claim changes; may be repeated
    #[arg(long, env = "GOSSD_INGRESS_RULE", value_name = "HOST=TUNNEL", value_delimiter = ',', value_parser = parse_rule)]
    pub(super) ingress_rule: Vec<(String, String)>,
    /// Host names that no tunnel gets; may be repeated
    #[arg(long, env = "GOSSD_INGRESS_RESERVED", value_name = "HOST", value_delimiter = ',')]
    pub(super) ingress_reserved: Vec<String>,
    /// Bytes that a host name without a dot, or below an ingress domain, has at least
    #[arg(long, env = "GOSSD_INGRESS_MIN_LABEL", value_name = "BYTES", default_value_t = 1, value_parser = parse_label)]
    pub(super) ingress_min_label: usize,
    /// File of who may claim which host names: lines "WHO NAME [NAME ...]", WHO a tunnel's id, token:LABEL or *. Read again on
    /// SIGHUP [default: every tunnel any name that is free]
    #[arg(long, env = "GOSSD_CLAIM_POLICY", value_name = "FILE")]
    pub(super) claim_policy: Option<PathBuf>,
    /// Keep the host names that are known here in a file, for a gost that reads it instead of asking
    #[arg(long, env = "GOSSD_INGRESS_FILE", value_name = "PATH")]
    pub(super) ingress_file: Option<PathBuf>,
    /// Live records that may be registered here
    #[arg(long, env = "GOSSD_MAX_RECORDS", value_name = "COUNT", default_value_t = Quota::default().records, value_parser = parse_count)]
    pub(super) max_records: usize,
    /// Ingress rules that may be set here
    #[arg(long, env = "GOSSD_MAX_RULES", value_name = "COUNT", default_value_t = Quota::default().claims, value_parser = parse_count)]
    pub(super) max_rules: usize,
    /// Bytes of memory that both may take
    #[arg(long, env = "GOSSD_MAX_BYTES", value_name = "BYTES", default_value_t = Quota::default().bytes)]
    pub(super) max_bytes: usize,
    /// How log lines look, on standard error
    #[arg(long, env = "GOSSD_LOG_FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
    /// error, warn, info, debug, trace, or a filter such as gossd=debug,hyper=info
    #[arg(long, env = "GOSSD_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = parse_level)]
    pub(super) log_level: LogLevel,
}

/// An address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdminAddr(pub(super) Option<SocketAddr>);

fn parse_admin(text: &str) -> Result<AdminAddr, String> {
    if text == "none" {
        return Ok(AdminAddr(None));
    }
    let address = text.parse().map_err(|_| "is neither an address such as 127.0.0.1:8001 nor \"none\"")?;
    Ok(AdminAddr(Some(address)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum GetOrder {
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

fn parse_zone(text: &str) -> Result<String, String> {
    if is_zone(text) {
        Ok(text.into())
    } else {
        Err(format!("is not the name of a zone: at most {MAX_ZONE} bytes of letters, digits and -._:/"))
    }
}

/// A filter that was found to parse.
#[derive(Clone, Debug)]
pub(super) struct LogLevel(pub(super) String);

pub(super) fn parse_entrypoint(text: &str) -> Result<Entrypoint, String> {
    Entrypoint::parse(text).map_err(|e| format!("it {e}"))
}

pub(super) fn parse_host(text: &str) -> Result<Host, String> {
    Host::advertised(text).map_err(|e| format!("it {e}"))
}

fn parse_advertise(text: &str) -> Result<Advertise, String> {
    text.parse().map_err(|e: AddressError| format!("it {e}"))
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it is no IP address with a port, such as 127.0.0.1:8000 or [::]:8000".into())
}

fn parse_connections(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it is not a number from 1".into())
}

fn parse_ttl(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| (5..=3_600).contains(seconds));
    seconds.ok_or_else(|| "it is not a number of seconds from 5 to 3600".into())
}

fn parse_label(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| (1..=63).contains(bytes));
    bytes.ok_or_else(|| "it is not a number of bytes from 1 to 63".into())
}

fn parse_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_EACH as usize).contains(count));
    count.ok_or_else(|| format!("it is not a number from 1 to {MAX_EACH}"))
}

fn parse_rule(text: &str) -> Result<(String, String), String> {
    let (host, tunnel) = text.split_once('=').ok_or("it is not HOST=TUNNEL")?;
    Names::new(Naming::default(), [(host, tunnel)]).map_err(|e| e.to_string())?;
    Ok((host.into(), tunnel.into()))
}

/// The filter's parser takes any word that is no level for a target: `warning` would let nothing through but the lines of
/// a module of that name.
fn parse_level(text: &str) -> Result<LogLevel, String> {
    const LEVELS: &str = "error, warn, info, debug, trace or off";
    // It also counts its places without the blanks before a directive, and cuts where they would be: a wrong name, or no
    // character's boundary.
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(format!("it is empty: say {LEVELS}"));
    }
    for part in &parts {
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        let is_word = !level.is_empty() && !level.bytes().all(|byte| byte.is_ascii_digit());
        if !is_word || level.parse::<LevelFilter>().is_err() {
            return Err(format!("{part:?} is no level ({LEVELS}), and no TARGET=LEVEL"));
        }
        if part.contains(['[', '{']) {
            return Err(format!(
                "{part:?} is about spans, of which gossd has none: say LEVEL or TARGET=LEVEL"
            ));
        }
    }
    // Every line is of a module of gossd's; a filter of others alone would silence all.
    let is_ours = |part: &&str| {
        part.rsplit_once('=')
            .is_none_or(|(target, _)| target.trim() == "gossd" || target.starts_with("gossd::"))
    };
    if !parts.iter().any(is_ours) {
        return Err(format!(
            "{:?} says nothing of gossd, so nothing would be logged: add a level, or gossd=info",
            parts.join(",")
        ));
    }
    let text = parts.join(",");
    text.parse::<Targets>().map_err(|e| e.to_string())?;
    Ok(LogLevel(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_level_may_have_blanks_and_any_characters() {
        let level = |text| parse_level(text).map(|level| level.0);
        assert_eq!(level(" gossd=debug , hyper=info"), Ok("gossd=debug,hyper=info".into()));
        assert_eq!(level("info,\t\t\tab\u{1fa}=off"), Ok("info,ab\u{1fa}=off".into()));
        for same in ["WARN", "off", "gossd::net=trace", "gossd=debug", "hyper=debug,info"] {
            assert_eq!(level(same), Ok(same.into()));
        }
    }

    #[test]
    fn what_would_silence_everything_by_mistake_is_refused() {
        let refused = |text| parse_level(text).map(|level| level.0).unwrap_err();
        for text in [
            "warning",
            "verbose",
            "info,gossd",
            "gossd::plugin",
            "gossd=",
            "=",
            "gossd=loud",
            "9",
            "0",
            "gossd=1",
        ] {
            let why = refused(text);
            let part = text.rsplit(',').next().unwrap();
            assert!(why.starts_with(&format!("{part:?} is no level (error, warn, ")), "{why}");
        }
        for text in ["", " ", ",", " , "] {
            assert!(refused(text).starts_with("it is empty: say error, warn, "), "{text:?}");
        }
        for other in ["gosd=debug", "hyper=info", "gossip=info,tokio=debug", "gossdx::net=info"] {
            assert!(refused(other).contains("says nothing of gossd"), "{other}");
        }
        for spans in ["[a=info", "gossd[call]=debug", "[{name=x}]=info"] {
            assert!(refused(spans).contains("is about spans"), "{spans:?}");
        }
    }
}
