//! An agent's configuration, and the check that finds every contradiction before anything is bound.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::host::Advertise;
use crate::net::JoinPoint;
use crate::net::transport::Faults;
use crate::own_log::OwnLog;
use crate::plugin::Names;
use crate::plugin::bounds::Bounds;
use crate::plugin::reload;
use crate::plugin::tls::TlsFiles;
use crate::sentence::{Sentence, sentence};
use gossd_core::address::Entrypoint;
use gossd_core::agent::Broken;
use gossd_core::link::keyring::Keyring;
use gossd_core::locality::Locality;
use gossd_core::quota::Quota;
use gossd_core::rank::Order;
use gossd_core::record::{AgentName, Generation};

/// Default address of the plugin.
pub const DEFAULT_PLUGIN: &str = "127.0.0.1:8000";
/// Default address of the admin listener.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:8001";
/// Default address of the gossip without a key.
pub const DEFAULT_GOSSIP_LOOPBACK: &str = "127.0.0.1:8002";
/// Default address of the gossip with a key: IPv6 and IPv4.
pub const DEFAULT_GOSSIP_KEYED: &str = "[::]:8002";
/// The same where the kernel has no IPv6.
pub const DEFAULT_GOSSIP_KEYED_IPV4: &str = "0.0.0.0:8002";
/// What is wrong with an admin listener that other hosts reach and that has no tokens, and the remedy.
pub(crate) fn what_an_open_admin_means() -> Sentence {
    sentence!(
        "other hosts reach --admin, and it has no tokens, so it tells /metrics, /livez and /readyz alone: write \
         `(umask 077; openssl rand -hex 32 > FILE)` and add `--admin-token-file FILE`, or let it listen on 127.0.0.1"
    )
}
/// Default cluster id.
pub const DEFAULT_CLUSTER: &str = "default";

/// An agent's configuration.
#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
pub struct Config {
    /// Its name, unique in the cluster.
    pub name: AgentName,
    /// Addresses for gost's plugin calls: at least one.
    pub plugin: Vec<SocketAddr>,
    /// A Unix socket for plugin calls from this host.
    pub plugin_socket: Option<PathBuf>,
    /// The file of tokens of which a call needs one; without the file, every call is taken.
    pub token_file: Option<PathBuf>,
    /// Whether the plugin may take calls from other hosts without a token.
    pub insecure_plugin: bool,
    /// Names under which gosts call the plugin, beside those that can be no web page's.
    pub plugin_hosts: Vec<String>,
    /// The certificate of the plugin's TCP listeners, if they use TLS.
    pub tls: Option<TlsFiles>,
    /// The bounds on plugin connections.
    pub bounds: Bounds,
    /// How often the files of tokens and certificate are checked for changes.
    pub reload_interval: Duration,
    /// The address for operators, probes and metrics; `None` for no admin listener.
    pub admin: Option<SocketAddr>,
    /// The file of tokens of which a request to the admin listener needs one; without the file, other hosts get nothing from
    /// it that names tunnels.
    pub admin_token_file: Option<PathBuf>,
    /// The address for probes and metrics alone; `None` for no such listener.
    pub metrics: Option<SocketAddr>,
    /// Whether the agent starts without the admin listener if its address is taken, because it is only the default.
    pub admin_may_give_way: bool,
    /// The address for peers.
    pub gossip: SocketAddr,
    /// Under which host, and which port of the gossip, other hosts reach this one, if configured.
    pub advertise: Option<Advertise>,
    /// The addresses of peers to join.
    pub join: Vec<JoinPoint>,
    /// The keys that encrypt gossip.
    pub keyring: Keyring,
    /// The file of the keyring. Changes of keys are written to it.
    pub key_file: Option<PathBuf>,
    /// Agents of different clusters ignore each other.
    pub cluster: String,
    /// The TTL of a record until its gost's Renew period is known.
    pub lease_ttl: Duration,
    /// The order of records in an answer to Get.
    pub order: Order,
    /// In which zone it is, and how much it is to be used.
    pub locality: Locality,
    /// The limits on what the agent holds.
    pub quota: Quota,
    /// How many bytes of other owners are kept, if the memory of this process is limited.
    pub others: Option<usize>,
    /// What is wrong with the memory limit of this process, for the log and the status.
    pub memory_problem: Option<Sentence>,
    /// The operator's rules for host names, and which names tunnels may claim.
    pub names: Names,
    /// The file of known host names, for gosts that read it; `None` for no file.
    pub ingress_file: Option<PathBuf>,
    /// The entrypoint of gosts that were attached before this agent ran, as in their `entrypoint` setting.
    pub fallback: Option<Entrypoint>,
    /// The folder of the journal; `None` to keep everything in memory only.
    pub data_dir: Option<PathBuf>,
    /// The socket for `gossd leave`, `gossd drain` and `gossd keys`; `None` for no control socket.
    pub control: Option<PathBuf>,
    /// Whether a `gossd hold` in this network namespace keeps the sockets while the agent is replaced.
    pub hold: bool,
    /// Whether to leave the cluster at a stop, for agents that will not come back.
    pub leave_on_stop: bool,
    /// Whose threads serve gost's calls, so that they wait for nothing else that the agent does; none for those that start it.
    pub calls: Option<Handle>,
    /// The log of this process.
    pub log: OwnLog,
    /// The flags that are in force, for reports.
    pub flags: Vec<FlagValue>,
    /// After how long dead agents are forgotten.
    pub dead_grace: Duration,
    /// Above so many agents an agent has eight watchers, and is not watched by everybody.
    pub mesh: usize,
    /// How often agents compare their boards.
    pub gossip_interval: Duration,
    /// Tests: how far the clock is ahead.
    pub clock_ahead: Duration,
    /// The start's generation is at least this.
    pub generation: Generation,
    /// Tests: which behaviour is broken.
    pub broken: Broken,
    /// Tests: how many times faster than usual the agent forgets.
    pub hurry: u32,
    /// Tests: frames to be lost.
    pub faults: Option<Faults>,
}

/// The settings that can change while the agent runs.
pub struct Adjustable {
    /// See [`Config::order`].
    pub order: Order,
    /// See [`Config::locality`].
    pub locality: Locality,
    /// See [`Config::quota`].
    pub quota: Quota,
    /// See [`Config::names`].
    pub names: Names,
    /// See [`Config::join`].
    pub join: Vec<JoinPoint>,
    /// See [`Config::flags`].
    pub flags: Vec<FlagValue>,
}

/// A flag as it is in force, by whatever way it was set. None has a secret for its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FlagValue {
    /// Its name, with its dashes.
    pub flag: String,
    /// Its values, as texts.
    pub values: Vec<String>,
    /// Whether nobody set it.
    pub is_default: bool,
}

/// A contradiction in the configuration. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Anybody who reaches that address could read and forge everything.
    #[error(
        "--gossip {0} needs a key: run `(umask 077; gossd keygen > key)`, copy the file to every host, and add \
         `--key-file key`; without a key, gossip stays on a loopback address such as 127.0.0.1:8002"
    )]
    KeylessGossip(SocketAddr),
    /// Without a key, gossip stays on this host, so nobody there would ever be met.
    #[error(
        "--join {0} is another host, and there is no --key-file: gossip leaves this host with a key only. Type `gossd invite` on the \
         host that is there and `gossd join` here; or copy its key file, and add `--key-file FILE`"
    )]
    KeylessJoin(JoinPoint),
    /// Anybody who reaches that address could redirect every tunnel.
    #[error(
        "--plugin {0} needs tokens, because whoever reaches it could redirect tunnels: write \
         `(umask 077; openssl rand -hex 32 > FILE)`, add `--token-file FILE`, and set the same `token` in gost's plugin \
         section; or listen on 127.0.0.1 or with --plugin-socket; or set --insecure-plugin"
    )]
    OpenPlugin(SocketAddr),
    /// With a shorter TTL, records would lapse between two Renews; with a longer one, hardly ever.
    #[error("--lease-ttl must be from 5 to 3600 seconds")]
    LeaseTtl,
    /// Empty, or longer than any name needs. The id is part of every seal.
    #[error("--cluster is empty, longer than 128 bytes, or has control characters")]
    Cluster,
}

impl Config {
    /// An agent without a key on loopback, with ports that the system chooses.
    pub fn loopback(name: AgentName) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            name,
            plugin: vec![any],
            plugin_socket: None,
            token_file: None,
            insecure_plugin: false,
            plugin_hosts: Vec::new(),
            tls: None,
            bounds: Bounds::default(),
            reload_interval: reload::EVERY,
            admin: None,
            admin_token_file: None,
            metrics: None,
            admin_may_give_way: false,
            gossip: any,
            advertise: None,
            join: Vec::new(),
            keyring: Keyring::public(),
            key_file: None,
            cluster: DEFAULT_CLUSTER.into(),
            lease_ttl: gossd_core::agent::LEASE_TTL,
            order: Order::Random,
            locality: Locality::default(),
            quota: Quota::default(),
            others: None,
            memory_problem: None,
            names: Names::default(),
            ingress_file: None,
            fallback: None,
            data_dir: None,
            control: None,
            hold: false,
            leave_on_stop: false,
            log: OwnLog::default(),
            calls: None,
            flags: Vec::new(),
            dead_grace: gossd_core::link::DEAD_GRACE,
            mesh: gossd_core::link::MESH,
            gossip_interval: gossd_core::link::INTERVAL,
            clock_ahead: Duration::ZERO,
            generation: 0,
            broken: Broken::default(),
            hurry: 1,
            faults: None,
        }
    }

    /// The settings that can change while the agent runs.
    pub fn adjustable(self) -> Adjustable {
        let Self { order, locality, quota, names, join, flags, .. } = self;
        Adjustable { order, locality, quota, names, join, flags }
    }

    /// Finds contradictions.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.keyring.is_public() && !is_loopback(self.gossip.ip()) {
            return Err(ConfigError::KeylessGossip(self.gossip));
        }
        if self.keyring.is_public()
            && let Some(other) = self.join.iter().find(|point| !point.is_this_host())
        {
            return Err(ConfigError::KeylessJoin(other.clone()));
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

/// Whether only this host reaches an address.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
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
            let keyring = Keyring::parse(&crate::net::keyfile::generate().line()).unwrap();
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
