//! The composition root: validate, bind everything, spawn everything, wait, stop in order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::agent::{Agent, Counts};
use crate::config::Config;
use crate::domain::address::Host;
use crate::domain::record::{Generation, Owner};
use crate::gossip::counters::Counters;
use crate::gossip::{self, Cluster, JoinPoint, transport};
use crate::plugin::{Reachable, ServiceDiscovery, http};

/// Documentation addresses (RFC 5737, RFC 3849): a route to them is the default route. Nothing is sent there.
const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];
/// How long the plugin may take to finish its calls: a second and a half, and some for the runtime.
const STOP: Duration = Duration::from_millis(1_800);

/// A running agent. Dropping it stops it without ceremony.
pub struct Daemon {
    /// Where the plugin listens.
    pub plugin: SocketAddr,
    /// Where the gossip listens, by UDP and TCP.
    pub gossip: SocketAddr,
    /// Where peers are told to reach the gossip.
    pub advertised: SocketAddr,
    agent: Agent,
    cluster: Cluster,
    tasks: JoinSet<anyhow::Result<()>>,
    plugin_task: tokio::task::JoinHandle<()>,
    stop_plugin: oneshot::Sender<()>,
}

impl Daemon {
    /// Starts an agent: when this returns, all of it serves.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        config.validate()?;
        let listener = TcpListener::bind(config.plugin)
            .await
            .with_context(|| format!("cannot serve the plugin on {}", config.plugin))?;
        let bound =
            transport::bind(config.gossip).with_context(|| format!("cannot gossip on {}", config.gossip))?;
        let plugin = listener.local_addr()?;
        let gossip = bound.addr;
        let advertised = gossip::advertised(&bound, gossip_host(&config, gossip).await);

        let owner = Owner { name: config.name, generation: generation()? };
        let agent = Agent::new(owner.clone(), config.lease_ttl);
        let sink = {
            let agent = agent.clone();
            Arc::new(move |event| agent.handle(event))
        };
        let gossip_config = gossip::Config {
            owner,
            advertise: advertised,
            join: config.join,
            keyring: config.keyring,
            cluster: config.cluster,
            interval: config.gossip_interval,
            faults: config.faults,
        };
        let (cluster, mut tasks) = Cluster::start(bound, gossip_config, sink).await?;
        tasks.spawn(agent.clone().drive(cluster.clone()));

        let reachable =
            config.advertise.map_or_else(|| Reachable::assumed(advertised.ip()), Reachable::given);
        let sd = ServiceDiscovery::new(agent.clone(), reachable);
        let (stop_plugin, stop) = oneshot::channel();
        let plugin_task = tokio::spawn(http::serve(listener, sd, async { drop(stop.await) }));
        Ok(Self { plugin, gossip, advertised, agent, cluster, tasks, plugin_task, stop_plugin })
    }

    /// Waits for a task that ended although nobody stopped it. That is always a fault, and the rest of the
    /// process would go on with frozen state, so whoever runs the daemon has to end it.
    pub async fn fault(&mut self) -> anyhow::Error {
        tokio::select! {
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(Ok(())) => anyhow::anyhow!("a task of the gossip ended"),
                Ok(Err(error)) => error.context("the gossip ended"),
                Err(panic) => anyhow::Error::new(panic).context("a task of the gossip ended"),
            },
            ended = &mut self.plugin_task => match ended {
                Ok(()) => anyhow::anyhow!("the plugin's listener ended"),
                Err(panic) => anyhow::Error::new(panic).context("the plugin's listener ended"),
            },
        }
    }

    /// Stops: no new plugin calls, those in flight are finished, then the gossip goes.
    pub async fn stop(mut self) {
        let _ = self.stop_plugin.send(());
        let _ = tokio::time::timeout(STOP, &mut self.plugin_task).await;
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

/// Milliseconds since 1970: higher at every start, as long as the clock does not go back.
#[expect(clippy::disallowed_methods, reason = "the one place: a generation has to rise from start to start")]
fn generation() -> anyhow::Result<Generation> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(Generation::try_from(now.as_millis())?)
}

/// The IP address that peers are told: the advertised host; else the one that is listened on; else that of
/// the interface which reaches the first host to join at, or everything else.
async fn gossip_host(config: &Config, bound: SocketAddr) -> IpAddr {
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

async fn resolve(name: &str, bound: SocketAddr) -> Option<IpAddr> {
    let point: JoinPoint = format!("{name}:{}", bound.port()).parse().ok()?;
    let addrs = point.resolve().await;
    let fits = |addr: &&SocketAddr| bound.is_ipv6() || addr.is_ipv4();
    addrs.iter().find(fits).map(SocketAddr::ip)
}

/// The address that this host would use towards `target`. Connecting a UDP socket sends nothing.
async fn interface_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0".parse().ok()? } else { "[::]:0".parse().ok()? };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(target).await.ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}
