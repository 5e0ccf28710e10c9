//! The composition root: validate, bind everything, spawn everything, wait, stop in order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::admin::{self, Admin, Outside, report};
use crate::agent::{Agent, Counts, Restored, Settings};
use crate::config::{Adjustable, Config};
use crate::control::{self, Control};
use crate::domain::address::Host;
use crate::domain::record::{Generation, Owner};
use crate::gossip::counters::Counters;
use crate::gossip::{self, Cluster, JoinPoint, transport};
use crate::journal::{Journal, OpenError};
use crate::metrics::Runtime;
use crate::plugin::bounds;
use crate::plugin::reload::{Files, Latest};
use crate::plugin::server::{self, Listeners};
use crate::plugin::tls::{Tls, TlsFiles};
use crate::plugin::token::Known;
use crate::plugin::{By, Ingress, Meter, Names, Plugin, Reach, ServiceDiscovery, Tokens};
use crate::unix_socket::{self, SocketFile};

/// Documentation addresses (RFC 5737, RFC 3849): a route to them is the default route. Nothing is sent there.
const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];
/// How long the plugin may take to finish its calls: a second and a half, and some for the runtime.
const STOP: Duration = Duration::from_millis(1_600);

/// gost may run as another user of a common group.
const PLUGIN_SOCKET_MODE: u32 = 0o660;

/// A running agent. Dropping it stops it without ceremony.
pub struct Daemon {
    /// Where the plugin listens.
    pub plugin: SocketAddr,
    /// Where the admin listener is, if there is one.
    pub admin: Option<SocketAddr>,
    /// Where the gossip listens, by UDP and TCP.
    pub gossip: SocketAddr,
    /// Where peers are told to reach the gossip.
    pub advertised: SocketAddr,
    agent: Agent,
    cluster: Cluster,
    control: Control,
    leave_on_stop: bool,
    tasks: JoinSet<anyhow::Result<()>>,
    plugin_task: tokio::task::JoinHandle<()>,
    stop_plugin: oneshot::Sender<()>,
    meter: Meter,
    reload: watch::Sender<()>,
    names: watch::Sender<Arc<Names>>,
    _socket_files: [Option<SocketFile>; 2],
}

impl Daemon {
    /// Starts an agent: when this returns, all of it serves, and what its journal kept is answered.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        config.validate()?;
        let secrets = Secrets::open(&config)?;
        let listener = TcpListener::bind(config.plugin)
            .await
            .with_context(|| format!("cannot serve the plugin on {}", config.plugin))?;
        let bound =
            transport::bind(config.gossip).with_context(|| format!("cannot gossip on {}", config.gossip))?;
        let plugin = listener.local_addr()?;
        let admin_listener = bind_admin(&config).await?;
        let (unix, plugin_file) = config.plugin_socket.as_deref().map(bind_plugin).transpose()?.unzip();
        let gossip = bound.addr;
        let host = gossip_host(&config, gossip).await;
        let advertised = gossip::advertised(&bound, host);
        let kept = Kept::open(&config)?;

        let owner = Owner { name: config.name, generation: kept.generation };
        let settings = Settings {
            owner: owner.clone(),
            lease_ttl: config.lease_ttl,
            order: config.order,
            quota: config.quota,
            private: config.names.private(),
            broken: config.broken,
            hurry: config.hurry,
        };
        let reach = Reach::new(config.advertise, advertised.ip(), config.fallback);
        let mut restored = kept.restored;
        reach.returned(&mut restored);
        let agent = Agent::new(settings, restored);
        let about =
            About { cluster: config.cluster.clone(), address: advertised, joins: !config.join.is_empty() };
        let (reload, told) = watch::channel(());
        let gossip_config = gossip::Config {
            owner,
            advertise: advertised,
            join: config.join,
            keyring: config.keyring,
            key_file: config.key_file,
            reload: told.clone(),
            cluster: config.cluster,
            interval: config.gossip_interval,
            dead_grace: config.dead_grace,
            faults: config.faults,
        };
        let (cluster, mut tasks) = Cluster::start(bound, gossip_config, Arc::new(agent.clone())).await?;
        match kept.journal {
            Ok(Some(journal)) => {
                agent.use_journal();
                tasks.spawn(agent.clone().keep(journal));
            }
            Ok(None) => {}
            Err(why) => agent.miss_journal(why),
        }
        tasks.spawn(agent.clone().drive(cluster.clone()));
        let control = Control::new(agent.clone(), cluster.clone());
        let control_file = config.control.and_then(|path| serve_control(&path, &control, &mut tasks));

        let sd = ServiceDiscovery::new(agent.clone(), reach);
        let (names, newest_names) = Latest::of(config.names);
        let ingress = Ingress::new(agent.clone(), newest_names);
        let (tokens, tls) = secrets.follow(config.reload_interval, &told, &mut tasks);
        let listeners = Listeners { tcp: listener, tls, unix };
        let meter = Meter::default();
        let admin = match admin_listener {
            Some(listener) => {
                let address = listener.local_addr()?;
                let outside = outside(&cluster, &agent, &ingress, &meter, about);
                tasks.spawn(admin::serve(listener, Admin::new(agent.clone(), outside)));
                Some(address)
            }
            None => None,
        };
        let (stop_plugin, stop) = oneshot::channel();
        let stop = async { drop(stop.await) };
        let plugin_calls = Plugin { sd, ingress, tokens };
        let plugin_task =
            tokio::spawn(server::serve(listeners, plugin_calls, config.bounds, meter.clone(), stop));
        Ok(Self {
            plugin,
            admin,
            gossip,
            advertised,
            agent,
            cluster,
            control,
            leave_on_stop: config.leave_on_stop,
            tasks,
            plugin_task,
            stop_plugin,
            meter,
            reload,
            names,
            _socket_files: [control_file, plugin_file],
        })
    }

    /// Waits for a task that ended although nobody stopped it. That is always a fault, and the rest of the
    /// process would go on with frozen state, so whoever runs the daemon has to end it.
    pub async fn fault(&mut self) -> anyhow::Error {
        tokio::select! {
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(Ok(())) => anyhow::anyhow!("a task ended"),
                Ok(Err(error)) => error,
                Err(panic) => anyhow::Error::new(panic).context("a task ended"),
            },
            ended = &mut self.plugin_task => match ended {
                Ok(()) => anyhow::anyhow!("the plugin's listener ended"),
                Err(panic) => anyhow::Error::new(panic).context("the plugin's listener ended"),
            },
        }
    }

    /// Goes on with another configuration, as far as it can while it runs.
    pub fn adjust(&self, adjusted: Adjustable) {
        let Adjustable { order, quota, names, join } = adjusted;
        self.agent.adjust(order, quota, &names.private());
        self.names.send_replace(Arc::new(names));
        self.cluster.join(join);
    }

    /// Reads the keys', the tokens' and the certificate's files again, even if they look the same.
    pub fn reload(&self) {
        self.reload.send_replace(());
    }

    /// How many plugin connections were closed for their callers' faults.
    pub fn plugin_closed(&self) -> &bounds::Counters {
        &self.meter.closed
    }

    /// What `gossd leave` waits for to end the process.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Stops: no new plugin calls, those in flight are finished, the journal has everything, then the gossip
    /// goes. Peers keep our records for a while, so that a restart is not noticed; unless we leave.
    pub async fn stop(mut self) {
        let _ = self.stop_plugin.send(());
        let goodbye = async {
            if self.leave_on_stop {
                self.control.say_goodbye().await;
            }
        };
        let plugin = tokio::time::timeout(STOP, &mut self.plugin_task);
        let _ = tokio::join!(plugin, tokio::time::timeout(STOP, goodbye));
        self.agent.flush().await;
        self.tasks.shutdown().await;
    }

    /// What the agent holds.
    pub fn counts(&self) -> Counts {
        self.agent.counts()
    }

    /// How many peers the gossip hears.
    pub fn peers(&self) -> usize {
        self.cluster.peers()
    }

    /// What the gossip counted.
    pub fn counters(&self) -> &Counters {
        self.cluster.counters()
    }

    /// The agent itself, for measurements without HTTP between.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }
}

/// An address that nobody asked for may be taken, by another agent of this host as a rule.
async fn bind_admin(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.admin else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.admin_may_give_way => {
            tracing::warn!(%address, %error, "no admin listener: `gossd status` and the like cannot ask this agent; set --admin");
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot serve --admin on {address}")),
    }
}

/// What the admin listener tells of the gossip's configuration.
struct About {
    cluster: String,
    address: SocketAddr,
    joins: bool,
}

fn outside(cluster: &Cluster, agent: &Agent, ingress: &Ingress, meter: &Meter, about: About) -> Outside {
    let mut metrics = Registry::default();
    metrics.register_collector(Box::new(agent.clone()));
    metrics.register_collector(Box::new(cluster.clone()));
    metrics.register_collector(Box::new(meter.clone()));
    metrics.register_collector(Box::new(Runtime::current()));
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    metrics.register("gossd_build", "This program", build);
    let (peers, ingress) = (cluster.clone(), ingress.clone());
    let About { cluster, address, joins } = about;
    let by_name = move || peers.peers_now().into_iter().map(|peer| (peer.owner.name, peer.addr)).collect();
    Outside {
        cluster,
        address,
        joins,
        peers: Box::new(by_name),
        host: Box::new(move |host| explain_host(&ingress, host)),
        metrics,
    }
}

fn explain_host(ingress: &Ingress, host: &str) -> Option<(report::Host, String)> {
    let found = ingress.explain(host)?;
    let by = match found.by {
        By::Configured => "configured",
        By::Claimed => "claimed",
        By::Hash => "hash",
    };
    let host = report::Host { rule: found.rule, by: by.into(), private: found.endpoint.private };
    Some((host, found.endpoint.tunnel.to_string()))
}

/// What was read from the plugin's files.
struct Secrets {
    tokens: Option<(Tokens, Files<Known>)>,
    tls: Option<(Files<Tls>, Latest<Tls>)>,
}

impl Secrets {
    /// A file that is no good ends the start: nothing may be served more openly than the operator said.
    fn open(config: &Config) -> anyhow::Result<Self> {
        let tokens = config.token_file.as_deref().map(Tokens::open).transpose().context("--token-file")?;
        let tls = config.tls.clone().map(TlsFiles::open).transpose().context("--tls-cert and --tls-key")?;
        Ok(Self { tokens, tls })
    }

    /// Reads the files again when they change and when told; gives what always has the newest.
    fn follow(
        self,
        every: Duration,
        told: &watch::Receiver<()>,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> (Tokens, Option<Latest<Tls>>) {
        let tokens = self.tokens.map(|(tokens, files)| {
            tasks.spawn(files.follow(every, told.clone()));
            tokens
        });
        let tls = self.tls.map(|(files, latest)| {
            tasks.spawn(files.follow(every, told.clone()));
            latest
        });
        (tokens.unwrap_or_default(), tls)
    }
}

fn bind_plugin(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    unix_socket::bind(path, PLUGIN_SOCKET_MODE)
        .with_context(|| format!("cannot serve the plugin on {}", path.display()))
}

/// What the journal gave back.
struct Kept {
    generation: Generation,
    restored: Restored,
    /// The journal to go on with; none if none is wanted; or why there is none.
    journal: Result<Option<Journal>, String>,
}

impl Kept {
    /// A journal of another agent, or of a later version, ends the start; one that cannot be used does not.
    fn open(config: &Config) -> anyhow::Result<Self> {
        let at_least = generation(config.clock_ahead)?;
        let without = |journal| Self { generation: at_least, restored: Restored::default(), journal };
        let Some(folder) = &config.data_dir else { return Ok(without(Ok(None))) };
        match Journal::open(folder, &config.name, at_least) {
            Ok((journal, kept)) => {
                if let Some(path) = kept.set_aside {
                    tracing::error!(kept = %path.display(), "the journal was damaged; set it aside and started afresh");
                }
                let crate::journal::Restored { generation, leases, entrypoints, rules, draining, .. } = kept;
                let restored = Restored { leases, entrypoints, rules, draining };
                Ok(Self { generation, restored, journal: Ok(Some(journal)) })
            }
            Err(error @ OpenError::Unusable { .. }) => {
                tracing::error!(%error, "going on in memory");
                Ok(without(Err(format!("no journal in {}", folder.display()))))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn serve_control(
    path: &Path,
    control: &Control,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> Option<SocketFile> {
    match unix_socket::bind(path, control::MODE) {
        Ok((listener, file)) => {
            tasks.spawn(control.clone().serve(listener));
            Some(file)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `gossd leave`, `gossd drain` and `gossd keys` cannot reach this agent");
            None
        }
    }
}

/// Milliseconds since 1970: higher at every start, as long as the clock does not go back.
#[expect(clippy::disallowed_methods, reason = "the one place: a generation has to rise from start to start")]
fn generation(ahead: Duration) -> anyhow::Result<Generation> {
    let now = (SystemTime::now() + ahead).duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(Generation::try_from(now.as_millis())?)
}

/// The IP address that peers are told: the advertised host; else the one that is listened on; else that of
/// the interface which reaches the first host to join at, or everything else.
pub(crate) async fn gossip_host(config: &Config, bound: SocketAddr) -> IpAddr {
    match &config.advertise {
        Some(Host::Ip(ip)) => return *ip,
        Some(Host::Name(name)) => {
            if let Some(ip) = resolve(name, bound).await {
                return ip;
            }
            // A host may boot before its resolver does; records need the name's text only.
            tracing::warn!("cannot resolve --advertise-host {name}; gossip gets this host's own address");
        }
        Some(Host::Unusable) | None => {}
    }
    if !bound.ip().is_unspecified() {
        return bound.ip();
    }
    let mut targets = match config.join.first() {
        Some(point) => point.resolve().await,
        None => Vec::new(),
    };
    targets.extend(ELSEWHERE.iter().filter_map(|addr| addr.parse::<SocketAddr>().ok()));
    for target in targets {
        if let Some(ip) = interface_towards(target).await {
            return ip;
        }
    }
    Ipv4Addr::LOCALHOST.into()
}

/// The first address of a name that the gossip's sockets can use.
pub(crate) async fn resolve(name: &str, bound: SocketAddr) -> Option<IpAddr> {
    let point: JoinPoint = format!("{name}:{}", bound.port()).parse().ok()?;
    let addrs = point.resolve().await;
    let fits = |addr: &&SocketAddr| bound.is_ipv6() || addr.is_ipv4();
    addrs.iter().find(fits).map(SocketAddr::ip)
}

/// The address that this host would use towards `target`. Connecting a UDP socket sends nothing.
pub(crate) async fn interface_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0".parse().ok()? } else { "[::]:0".parse().ok()? };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(target).await.ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}
