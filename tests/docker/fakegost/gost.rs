//! A gost: its listeners, and what it does when a client binds, in the order of gost's own handler. What it does for
//! visitors is [`crate::entrypoint`]'s.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::line::{parse_bind, read_line};
use crate::plugin::{Kind, Plugin};
use crate::stdout::say;
use crate::tunnel::{Connector, Tunnel, Tunnels, halves};

/// Clients of an instance, and visitors: beyond that they wait to be accepted.
pub(crate) const MAX_CONNECTIONS: usize = 4_000;
/// How far the ports of a gost's instances are apart.
const PORT_STEP: u16 = 10;
/// What gost gives a newcomer to say what it wants.
pub(crate) const FIRST_LINE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(crate) struct GostArgs {
    /// The plugin type
    #[arg(long, value_enum)]
    plugin: Kind,
    /// Where the agent's plugin is
    #[arg(long, default_value = "127.0.0.1:8000")]
    agent: String,
    /// The plugin's token
    #[arg(long)]
    token: Option<String>,
    /// Where visitors and other gosts come in; registered as it is written
    #[arg(long, default_value = ":8420")]
    entrypoint: String,
    /// Where tunnel clients come in
    #[arg(long, default_value = "0.0.0.0:8421")]
    tunnel: String,
    /// Seconds between the Renews of a tunnel
    #[arg(long, default_value_t = 15.0)]
    ttl: f64,
    /// Tunnel services, each an instance of its own; the next one's ports are 10 higher
    #[arg(long, default_value_t = 1)]
    instances: u16,
}

/// One handler instance; its node is new with every start.
pub(crate) struct Gost {
    pub(crate) node: String,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) tunnels: Arc<Tunnels>,
    /// `entrypoint`, verbatim.
    address: String,
}

/// Plays gost for ever.
pub(crate) async fn run(args: GostArgs) -> anyhow::Result<()> {
    let ttl = Duration::try_from_secs_f64(args.ttl).context("--ttl")?;
    ensure!(!ttl.is_zero(), "--ttl must not be 0");
    // The instances of a process share its plugins.
    let plugin = Plugin::new(args.plugin, &args.agent, args.token.as_deref())?;
    for instance in 0..args.instances {
        let address = later_port(&args.entrypoint, instance).context("--entrypoint is not host:port")?;
        let tunnel = later_port(&args.tunnel, instance).context("--tunnel is not host:port")?;
        start(address, &tunnel, ttl, plugin.clone()).await?;
    }
    std::future::pending().await
}

async fn start(address: String, tunnel: &str, ttl: Duration, plugin: Arc<Plugin>) -> anyhow::Result<()> {
    let node = Uuid::new_v4().to_string();
    let (visitors, clients) = (listen(&address).await?, listen(tunnel).await?);
    say(&format!("gost {node} entrypoint {address} tunnel {tunnel}"));
    let tunnels = Tunnels::new(node.clone(), ttl, plugin.clone());
    let gost = Arc::new(Gost { node, plugin, tunnels, address });
    let for_visitors = gost.clone();
    tokio::spawn(accept(visitors, move |stream| {
        let gost = for_visitors.clone();
        async move { gost.visit(stream).await }
    }));
    tokio::spawn(accept(clients, move |stream| gost.clone().bind(stream)));
    Ok(())
}

/// The address of an instance; of the first one, exactly what was given.
fn later_port(address: &str, instance: u16) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let later = port.checked_add(instance.checked_mul(PORT_STEP)?)?;
    Some(if instance == 0 { address.into() } else { format!("{host}:{later}") })
}

async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let (host, port) = address.rsplit_once(':').context("not host:port")?;
    let host = if host.is_empty() { Ipv4Addr::UNSPECIFIED.to_string() } else { host.into() };
    TcpListener::bind(format!("{host}:{port}")).await.with_context(|| format!("listening at {address}"))
}

/// Accepts for ever, so many at once. An error of one connection, or a lack of descriptors, ends nothing.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    mut serve: impl FnMut(TcpStream) -> F,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let served = serve(stream);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                eprintln!("accept: {error}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Gost {
    /// A client's whole life here. It hears its name before the agent hears of it, and the end of its connection is
    /// told by itself: a Deregister may overtake its Register.
    async fn bind(self: Arc<Self>, stream: TcpStream) {
        let (mut reader, mut writer) = halves(stream);
        let Ok(Ok(Some(line))) = timeout(FIRST_LINE, read_line(&mut reader)).await else { return };
        let Some((name, wanted)) = parse_bind(&line) else { return };
        let given = self.name_for(&name, &wanted).await;
        let (connector, lines) = Connector::new(Uuid::new_v4().to_string());
        let bound = format!("BOUND {} {given}\n", connector.id);
        if writer.write_all(bound.as_bytes()).await.is_err() {
            return;
        }
        let tunnel = self.tunnels.add(&name, &connector).await;
        tokio::spawn(self.clone().announce(tunnel.clone(), connector.clone(), name, given));
        connector.serve(reader, writer, lines).await;
        self.plugin.deregister(&tunnel.record(&connector, "", "")).await;
    }

    /// The wanted name, unless it is another tunnel's: then the one that every tunnel has.
    async fn name_for(&self, tunnel: &str, wanted: &str) -> String {
        if wanted.is_empty() {
            return hash_host(tunnel);
        }
        let endpoint = self.plugin.get_rule(wanted).await;
        let owner = endpoint.strip_prefix('$').unwrap_or(&endpoint);
        if owner.is_empty() || owner == tunnel { wanted.into() } else { hash_host(tunnel) }
    }

    /// Tells the agent, once. What fails here is not tried again.
    async fn announce(
        self: Arc<Self>,
        tunnel: Arc<Tunnel>,
        connector: Arc<Connector>,
        name: String,
        given: String,
    ) {
        self.plugin.set_rule(&hash_host(&name), &name).await;
        self.plugin.set_rule(&given, &name).await;
        self.plugin.register(&tunnel.record(&connector, "tcp", &self.address)).await;
    }
}

/// The host name that every tunnel has: the first 16 digits of the MD5 of its id.
fn hash_host(tunnel: &str) -> String {
    use md5::{Digest as _, Md5};
    let start = Md5::digest(tunnel).iter().take(8).fold(0_u64, |start, byte| start << 8 | u64::from(*byte));
    format!("{start:016x}")
}
