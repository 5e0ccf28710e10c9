//! What an agent is told, checked: every contradiction is found here, before anything is bound.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use crate::gossip::JoinPoint;
use crate::gossip::keyring::Keyring;
use crate::gossip::transport::Faults;
use crate::plugin::Names;
use crate::plugin::bounds::Bounds;
use crate::plugin::reload;
use crate::plugin::tls::TlsFiles;
use gossd_core::address::{Entrypoint, Host};
use gossd_core::agent::Broken;
use gossd_core::quota::Quota;
use gossd_core::rank::Order;
use gossd_core::record::AgentName;

/// Where the plugin listens.
pub const DEFAULT_PLUGIN: &str = "127.0.0.1:8000";
/// Where the admin listener is.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:8001";
/// Where the gossip listens without a key.
pub const DEFAULT_GOSSIP_LOOPBACK: &str = "127.0.0.1:8002";
/// Where the gossip listens with a key.
pub const DEFAULT_GOSSIP_KEYED: &str = "0.0.0.0:8002";
/// The cluster's id.
pub const DEFAULT_CLUSTER: &str = "default";

/// An agent's configuration.
#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
pub struct Config {
    /// Its name, unique in the cluster.
    pub name: AgentName,
    /// Where gost's plugin calls come in: one address at least.
    pub plugin: Vec<SocketAddr>,
    /// Where they come in as well, from this host only.
    pub plugin_socket: Option<PathBuf>,
    /// The tokens of which a call needs one; without the file, every call is taken.
    pub token_file: Option<PathBuf>,
    /// Whether the plugin may take every call from other hosts.
    pub insecure_plugin: bool,
    /// What the plugin's port speaks TLS with.
    pub tls: Option<TlsFiles>,
    /// How much of the agent its callers may take.
    pub bounds: Bounds,
    /// How often the tokens' and certificate's files are looked at.
    pub reload_interval: Duration,
    /// Where operators, probes and metrics come in; none for no such listener.
    pub admin: Option<SocketAddr>,
    /// Whether the agent does without that listener if its address is taken: nobody asked for it.
    pub admin_may_give_way: bool,
    /// Where peers come in.
    pub gossip: SocketAddr,
    /// How other hosts reach this one, if the operator said so.
    pub advertise: Option<Host>,
    /// Where to find peers.
    pub join: Vec<JoinPoint>,
    /// The keys that seal and open gossip.
    pub keyring: Keyring,
    /// Where they were read from, and are written when they change.
    pub key_file: Option<PathBuf>,
    /// Agents of different clusters do not understand each other.
    pub cluster: String,
    /// How long a record lives without a Renew, until its Renew period is known.
    pub lease_ttl: Duration,
    /// In which order a Get lists records.
    pub order: Order,
    /// How much the agent holds at most.
    pub quota: Quota,
    /// Which host names are whose whatever tunnels claim, and which ones they may.
    pub names: Names,
    /// Where the host names that are known are written for gosts that read them; none for no such file.
    pub ingress_file: Option<PathBuf>,
    /// Where gosts are that were attached before this agent ran, as their `entrypoint` says.
    pub fallback: Option<Entrypoint>,
    /// The folder of the journal; none to keep everything in memory only.
    pub data_dir: Option<PathBuf>,
    /// The socket through which `gossd leave`, `gossd drain` and `gossd keys` speak to this agent; none for no such socket.
    pub control: Option<PathBuf>,
    /// Whether `gossd hold` of this network namespace keeps the listeners while the agent is replaced.
    pub hold: bool,
    /// Whether to say goodbye when told to stop, for agents that will not come back.
    pub leave_on_stop: bool,
    /// Counts the log lines that nobody took; whoever writes the log does.
    pub dropped_log_lines: Counter,
    /// When dead agents are forgotten.
    pub dead_grace: Duration,
    /// How often states are exchanged.
    pub gossip_interval: Duration,
    /// By how much a test wants the clock ahead.
    pub clock_ahead: Duration,
    /// What a test has broken.
    pub broken: Broken,
    /// How many times as fast as usual a test wants the agent to forget.
    pub hurry: u32,
    /// Frames that tests want lost.
    pub faults: Option<Faults>,
}

/// What of a configuration takes effect while the agent runs.
pub struct Adjustable {
    /// See [`Config::order`].
    pub order: Order,
    /// See [`Config::quota`].
    pub quota: Quota,
    /// See [`Config::names`].
    pub names: Names,
    /// See [`Config::join`].
    pub join: Vec<JoinPoint>,
}

/// A contradiction in the configuration. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Whoever reaches that address could read and forge everything.
    #[error(
        "gossip on {0} needs a key: run `(umask 077; gossd keygen > key)`, copy the file to every host, and add \
         `--key-file key`; without a key, gossip stays on a loopback address such as 127.0.0.1:8002"
    )]
    KeylessGossip(SocketAddr),
    /// Whoever reaches that address could redirect every tunnel.
    #[error(
        "the plugin on {0} needs tokens, because whoever reaches it could redirect tunnels: write \
         `(umask 077; openssl rand -hex 32 > FILE)`, add `--token-file FILE`, and set the same `token` in gost's plugin \
         section; or listen on 127.0.0.1 or with --plugin-socket; or say --insecure-plugin"
    )]
    OpenPlugin(SocketAddr),
    /// No record could live that short without a gap, or would ever lapse.
    #[error("--lease-ttl must be from 5 to 3600 seconds")]
    LeaseTtl,
    /// Longer than any name needs, or empty: it is part of every seal.
    #[error("--cluster is empty, longer than 128 bytes, or has control characters")]
    Cluster,
}

impl Config {
    /// A keyless agent on loopback, with ports that the system chooses.
    pub fn loopback(name: AgentName) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            name,
            plugin: vec![any],
            plugin_socket: None,
            token_file: None,
            insecure_plugin: false,
            tls: None,
            bounds: Bounds::default(),
            reload_interval: reload::EVERY,
            admin: None,
            admin_may_give_way: false,
            gossip: any,
            advertise: None,
            join: Vec::new(),
            keyring: Keyring::public(),
            key_file: None,
            cluster: DEFAULT_CLUSTER.into(),
            lease_ttl: gossd_core::agent::LEASE_TTL,
            order: Order::Random,
            quota: Quota::default(),
            names: Names::default(),
            ingress_file: None,
            fallback: None,
            data_dir: None,
            control: None,
            hold: false,
            leave_on_stop: false,
            dropped_log_lines: Counter::default(),
            dead_grace: crate::gossip::DEAD_GRACE,
            gossip_interval: crate::gossip::INTERVAL,
            clock_ahead: Duration::ZERO,
            broken: Broken::default(),
            hurry: 1,
            faults: None,
        }
    }

    /// What of it takes effect while the agent runs.
    pub fn adjustable(self) -> Adjustable {
        Adjustable { order: self.order, quota: self.quota, names: self.names, join: self.join }
    }

    /// Finds what contradicts itself.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.keyring.is_public() && !is_loopback(self.gossip.ip()) {
            return Err(ConfigError::KeylessGossip(self.gossip));
        }
        let open = self.plugin.iter().find(|address| !is_loopback(address.ip()));
        if let Some(address) = open
            && self.token_file.is_none()
            && !self.insecure_plugin
        {
            return Err(ConfigError::OpenPlugin(*address));
        }
        if !(5..=3_600).contains(&self.lease_ttl.as_secs()) {
            return Err(ConfigError::LeaseTtl);
        }
        let id = &self.cluster;
        if id.is_empty() || id.len() > 128 || id.chars().any(char::is_control) {
            return Err(ConfigError::Cluster);
        }
        Ok(())
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::loopback("a".parse().unwrap())
    }

    #[test]
    fn without_a_key_gossip_stays_on_loopback() {
        for (gossip, fine) in [
            ("127.0.0.1:8002", true),
            ("127.8.8.8:8002", true),
            ("[::1]:8002", true),
            ("0.0.0.0:8002", false),
            ("[::]:8002", false),
            ("10.0.0.1:8002", false),
        ] {
            let keyless = Config { gossip: gossip.parse().unwrap(), ..config() };
            assert_eq!(keyless.validate().is_ok(), fine, "{gossip}");
            let keyring = Keyring::parse(&crate::gossip::keyring::generate()).unwrap();
            assert!(Config { keyring, ..keyless }.validate().is_ok(), "{gossip} with a key");
        }
        let refusal = Config { gossip: "0.0.0.0:1".parse().unwrap(), ..config() }.validate().unwrap_err();
        assert!(refusal.to_string().contains("gossd keygen"), "it says how to make one");
    }

    #[test]
    fn without_tokens_the_plugin_stays_on_loopback_unless_told() {
        for (plugin, fine) in [
            ("127.0.0.1:8000", true),
            ("127.8.8.8:8000", true),
            ("[::1]:8000", true),
            ("[::ffff:127.0.0.1]:8000", true),
            ("0.0.0.0:8000", false),
            ("[::]:8000", false),
            ("10.0.0.1:8000", false),
        ] {
            let open = || Config { plugin: vec![plugin.parse().unwrap()], ..config() };
            assert_eq!(open().validate().is_ok(), fine, "{plugin}");
            let token_file = Some("tokens".into());
            assert!(Config { token_file, ..open() }.validate().is_ok(), "{plugin} with tokens");
            assert!(Config { insecure_plugin: true, ..open() }.validate().is_ok(), "{plugin} as told");
        }
        let refusal =
            Config { plugin: vec!["0.0.0.0:1".parse().unwrap()], ..config() }.validate().unwrap_err();
        for text in ["0.0.0.0:1", "--token-file", "--insecure-plugin", "--plugin-socket"] {
            assert!(refusal.to_string().contains(text), "it names {text}");
        }
    }

    #[test]
    fn a_cluster_id_is_short_and_visible() {
        for bad in [String::new(), "x".repeat(129), "a\nb".into()] {
            assert_eq!(Config { cluster: bad, ..config() }.validate(), Err(ConfigError::Cluster));
        }
    }
}
