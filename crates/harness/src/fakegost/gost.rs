//! A gost: its listeners, its instances, its end and its reload. [`crate::bind`] has what it does when a client binds,
//! [`crate::entrypoint`] what it does for visitors.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::plugin::{PluginArgs, Plugins, Registry};
use crate::stdout::say;
use crate::tunnel::GostTunnels;

/// Most clients of an instance, and most visitors; more wait to be accepted.
pub(crate) const MAX_CONNECTIONS: usize = 4_000;
/// The distance between the ports of two instances.
const PORT_STEP: u16 = 10;
/// How long the Deregisters of a `--goodbye` may take.
const GOODBYE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct GostArgs {
    #[command(flatten)]
    plugin: PluginArgs,
    /// Where visitors and other gosts come in; registered as it is written. Empty: only --entrypoints
    #[arg(long, default_value = ":8420")]
    entrypoint: String,
    /// Where they come in as well; never registered
    #[arg(long, value_delimiter = ',')]
    entrypoints: Vec<String>,
    /// Where tunnel clients come in
    #[arg(long, default_value = "0.0.0.0:8421")]
    tunnel: String,
    /// Seconds between the Renews of a tunnel
    #[arg(long, default_value_t = 15.0)]
    ttl: f64,
    /// Tunnel services, each an instance of its own; the next one's ports are 10 higher
    #[arg(long, default_value_t = 1)]
    instances: u16,
    /// At SIGTERM the Deregisters win their race with the end of the process, which they seldom do
    #[arg(long)]
    goodbye: bool,
}

/// One handler instance; its node is new with every start and every reload.
pub(crate) struct GostInstance {
    pub(crate) node: String,
    pub(crate) plugins: Arc<Registry>,
    pub(crate) tunnels: GostTunnels,
    /// The `entrypoint` setting, verbatim.
    pub(crate) address: String,
    /// Held by each task that still has a Deregister to send.
    pub(crate) goodbyes: watch::Sender<()>,
}

struct RunningInstance {
    gost: Arc<GostInstance>,
    listeners: JoinSet<()>,
}

/// Plays gost until SIGTERM. SIGHUP replaces every instance, as gost's reload does.
pub(crate) async fn run(args: GostArgs) -> anyhow::Result<()> {
    let ttl = Duration::try_from_secs_f64(args.ttl).context("--ttl")?;
    ensure!(!ttl.is_zero(), "--ttl must not be 0");
    let mut term = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // The instances of a process share its plugins.
    let plugins = Registry::new(Plugins::new(&args.plugin)?);
    let mut instances = start_all(&args, ttl, &plugins).await?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                // Plugins are replaced first, so the Deregisters use the new ones.
                plugins.replace(Plugins::new(&args.plugin)?);
                for mut instance in instances {
                    instance.listeners.shutdown().await;
                    instance.gost.tunnels.close().await;
                }
                instances = start_all(&args, ttl, &plugins).await?;
            }
            _ = term.recv() => break,
        }
    }
    if args.goodbye {
        for instance in instances {
            instance.gost.tunnels.close().await;
            let _nobody_more = timeout(GOODBYE, instance.gost.goodbyes.closed()).await;
        }
    }
    Ok(())
}

async fn start_all(
    args: &GostArgs,
    ttl: Duration,
    plugins: &Arc<Registry>,
) -> anyhow::Result<Vec<RunningInstance>> {
    let mut instances = Vec::new();
    for number in 0..args.instances {
        instances.push(start(args, number, ttl, plugins.clone()).await?);
    }
    Ok(instances)
}

async fn start(
    args: &GostArgs,
    number: u16,
    ttl: Duration,
    plugins: Arc<Registry>,
) -> anyhow::Result<RunningInstance> {
    let node = Uuid::new_v4().to_string();
    let later =
        |address: &String| later_port(address, number).with_context(|| format!("no host:port: {address}"));
    let address = if args.entrypoint.is_empty() { String::new() } else { later(&args.entrypoint)? };
    let more = args.entrypoints.iter().map(later).collect::<Result<Vec<_>, _>>()?;
    let tunnel = later(&args.tunnel)?;
    let tunnels = GostTunnels::new(node.clone(), ttl, plugins.clone());
    let (goodbyes, _) = watch::channel(());
    let gost = Arc::new(GostInstance { node, plugins, tunnels, address, goodbyes });
    let mut listeners = JoinSet::new();
    for entrypoint in Some(&gost.address).filter(|address| !address.is_empty()).into_iter().chain(&more) {
        let gost = gost.clone();
        listeners.spawn(accept(listen(entrypoint).await?, move |stream| gost.clone().visit(stream)));
    }
    let for_clients = gost.clone();
    listeners.spawn(accept(listen(&tunnel).await?, move |stream| for_clients.clone().serve_client(stream)));
    say(&format!("gost {} entrypoint {} tunnel {tunnel}", gost.node, gost.address));
    Ok(RunningInstance { gost, listeners })
}

/// The address of a later instance; for the first one, the given address verbatim.
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

/// Accepts for ever, up to this many at a time. Neither a connection's error nor a lack of descriptors ends it.
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
