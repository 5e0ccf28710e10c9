//! What an operator of several hosts decides by: gossd beside each gost, against a plugin beside each gost whose Redis is on another
//! host. Three hosts; the network between them, or to Redis, takes as long as it is told to, and is cut for four seconds.
//!
//! Agents, plugins and Redis are real, on loopback; what goes from host to host passes a relay that holds it up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gossd::config::Config;
use gossd::daemon::Daemon;
use reqwest::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::cluster::{self, id, tunnel};
use crate::process::free_address;
use crate::store::{self, Redis};
use gossd_lab::table::{Column, Out, TableCell};

/// How long the network is away.
const AWAY: Duration = Duration::from_secs(4);
/// For how long it matters that a host has vanished.
const AFTER: Duration = Duration::from_secs(10);
/// Longer than the expiry of the plugin's records.
const PATIENCE: Duration = Duration::from_secs(90);
/// A visitor that waits for longer than this counts as slow.
const SLOW: Duration = Duration::from_secs(1);
const GETS: usize = 200;
const REGISTERS: usize = 50;

#[derive(clap::Args)]
pub(crate) struct DistanceArgs {
    /// Round trips between hosts, in milliseconds
    #[arg(long, value_delimiter = ',', default_value = "0,0.5,5,40")]
    trips: Vec<f64>,
    /// Seconds that a record stays in Redis without a Renew
    #[arg(long, default_value_t = store::EXPIRY)]
    expiry: i64,
}

/// One of the two ways to run three hosts.
struct System {
    /// Of each host's plugin.
    plugins: [SocketAddr; 3],
    network: watch::Sender<bool>,
    agents: Vec<Daemon>,
    /// What ends with it.
    _redis: Option<Redis>,
    _relays: JoinSet<anyhow::Result<()>>,
}

/// The network between two hosts.
#[derive(Clone)]
struct Way {
    one_way: Duration,
    is_away: watch::Receiver<bool>,
}

pub(crate) fn run(args: &DistanceArgs, out: Out) -> anyhow::Result<()> {
    crate::block_on(compare(args, out))
}

async fn compare(args: &DistanceArgs, out: Out) -> anyhow::Result<()> {
    let table = out.table([
        Column::Text("system", 6),
        Column::Number("round_trip_ms", 1),
        Column::Number("get_p50_ms", 2),
        Column::Number("get_p99_ms", 2),
        Column::Number("register_p50_ms", 2),
        Column::Number("readable_p50_ms", 2),
        Column::Number("readable_p99_ms", 2),
        Column::Number("gets_meanwhile", 0),
        Column::Number("failed", 0),
        Column::Number("slow", 0),
        Column::Number("dead_gost_listed_s", 2),
        Column::Number("dead_host_first_percent", 0),
    ]);
    for trip in &args.trips {
        let one_way = Duration::from_secs_f64(trip / 2e3);
        for is_gossd in [false, true] {
            let mut system =
                if is_gossd { gossd(one_way).await? } else { redis(one_way, args.expiry).await? };
            let figures = measure(&mut system).await?.map(TableCell::from);
            let name = if is_gossd { "gossd" } else { "Redis" };
            let row: Vec<_> = [name.into(), (*trip).into()].into_iter().chain(figures).collect();
            table.row(row.try_into().map_err(|_| anyhow::anyhow!("a cell is missing"))?);
        }
    }
    out.say(&format!(
        "readable: from a Register at the first host to the answer of a Get at the third that has it; meanwhile, failed, slow (over {SLOW:?}): \
         Gets at the third host, of a tunnel of the first, while the network is away for {AWAY:?}; dead host first: of the Gets in the {AFTER:?} \
         after the first of a tunnel's two hosts vanished"
    ));
    Ok(())
}

async fn redis(one_way: Duration, expiry: i64) -> anyhow::Result<System> {
    let redis = Redis::start().await?;
    let (network, is_away) = watch::channel(false);
    let way = Way { one_way, is_away };
    let mut relays = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let far = listener.local_addr()?;
    relays.spawn(connections(listener, redis.addr, way));
    let mut plugins = Vec::new();
    for _ in 0..3 {
        plugins.push(store::serve(store::connect(far).await?, expiry).await?);
    }
    let plugins = plugins.try_into().map_err(|_| anyhow::anyhow!("three"))?;
    Ok(System { plugins, network, agents: Vec::new(), _redis: Some(redis), _relays: relays })
}

async fn gossd(one_way: Duration) -> anyhow::Result<System> {
    let (network, is_away) = watch::channel(false);
    let way = Way { one_way, is_away };
    let (mut relays, mut agents, mut first) = (JoinSet::new(), Vec::new(), None);
    for n in 0..3 {
        let udp = UdpSocket::bind(free_address()).await?;
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        let far = udp.local_addr()?.to_string();
        let mut config = Config::loopback(format!("agent-{n}").parse()?);
        config.advertise = Some(far.parse()?);
        config.join = first.iter().cloned().collect();
        first.get_or_insert(far.parse()?);
        let agent = Daemon::start(config).await?;
        relays.spawn(connections(tcp, agent.gossip, way.clone()));
        relays.spawn(datagrams(udp, agent.gossip, way.clone()));
        agents.push(agent);
    }
    cluster::meet(&agents).await?;
    let plugins = [0, 1, 2].map(|n: usize| agents[n].plugin);
    Ok(System { plugins, network, agents, _redis: None, _relays: relays })
}

/// In the order of the columns.
async fn measure(system: &mut System) -> anyhow::Result<[f64; 10]> {
    let [here, _, there] = system.plugins;
    let gost = Client::new();
    let mut registers = Vec::new();
    let mut readable = Vec::new();
    for n in 0..REGISTERS {
        let begun = Instant::now();
        register(&gost, here, &id(n), n, cluster::NODE, "10.0.0.1:8420").await?;
        registers.push(begun.elapsed());
        while !is_listed(&gost, there, n).await? {
            ensure!(begun.elapsed() < PATIENCE, "it is never readable");
        }
        readable.push(begun.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    let mut gets = Vec::new();
    for _ in 0..GETS {
        let begun = Instant::now();
        ensure!(is_listed(&gost, there, 0).await?, "it is listed");
        gets.push(begun.elapsed());
    }
    let meanwhile = away(system, &gost).await?;
    let listed = dead_gost(system).await?;
    let first = dead_host(system).await?;
    let [get, get99] = percentiles(gets);
    let [register, _] = percentiles(registers);
    let [readable, readable99] = percentiles(readable);
    let [gets, failed, slow] = meanwhile;
    Ok([get, get99, register, readable, readable99, gets, failed, slow, listed.as_secs_f64(), first])
}

/// Gets while the network is away, how many of them failed, and how many were slow.
async fn away(system: &System, gost: &Client) -> anyhow::Result<[f64; 3]> {
    const PACE: Duration = Duration::from_millis(50);
    let (mut pace, mut visits) = (interval(PACE), JoinSet::new());
    system.network.send_replace(true);
    let end = Instant::now() + AWAY;
    let count = u32::try_from(AWAY.as_millis() / PACE.as_millis())?;
    while Instant::now() < end {
        pace.tick().await;
        let (gost, there) = (gost.clone(), system.plugins[2]);
        visits.spawn(async move {
            let begun = Instant::now();
            let is_served = is_listed(&gost, there, 0).await.unwrap_or_default();
            (is_served, begun.elapsed())
        });
    }
    system.network.send_replace(false);
    let visits = visits.join_all().await;
    ensure!(visits.len() >= count as usize, "too few visits");
    let number = |count: usize| u32::try_from(count).map(f64::from);
    let failed = visits.iter().filter(|(is_served, _)| !is_served).count();
    let slow = visits.iter().filter(|(is_served, took)| *is_served && *took > SLOW).count();
    Ok([number(visits.len())?, number(failed)?, number(slow)?])
}

/// For how long the third host lists the record of a gost at the first that was killed.
async fn dead_gost(system: &System) -> anyhow::Result<Duration> {
    const TUNNEL: usize = REGISTERS;
    let [here, _, there] = system.plugins;
    // Its entrypoint, and its connections to the plugin.
    let (entrypoint, gost, visitor) = (TcpListener::bind("127.0.0.1:0").await?, Client::new(), Client::new());
    let address = entrypoint.local_addr()?.to_string();
    register(&gost, here, &id(TUNNEL), TUNNEL, "0b1f3a52-8a0e-4a3f-9f51-2b1f0c9d8e7a", &address).await?;
    while !is_listed(&visitor, there, TUNNEL).await? {}
    sleep(Duration::from_secs(1)).await;
    let killed = Instant::now();
    drop((entrypoint, gost));
    while is_listed(&visitor, there, TUNNEL).await? {
        ensure!(killed.elapsed() < PATIENCE, "it is listed for ever");
        sleep(Duration::from_millis(2)).await;
    }
    Ok(killed.elapsed())
}

/// How many percent of Gets at the third host list the first host first, after that has vanished. The tunnel is at the second as well.
async fn dead_host(system: &mut System) -> anyhow::Result<f64> {
    const TUNNEL: usize = REGISTERS + 1;
    const PACE: Duration = Duration::from_millis(20);
    const NODES: [&str; 2] = ["1b1f3a52-8a0e-4a3f-9f51-2b1f0c9d8e7a", "2b1f3a52-8a0e-4a3f-9f51-2b1f0c9d8e7a"];
    let [here, beside, there] = system.plugins;
    let (gost, visitor) = (Client::new(), Client::new());
    let (dying, staying) = (Entrypoint::open()?, Entrypoint::open()?);
    register(&gost, here, &id(TUNNEL), TUNNEL, NODES[0], &dying.addr.to_string()).await?;
    register(&gost, beside, &id(TUNNEL + 1), TUNNEL, NODES[1], &staying.addr.to_string()).await?;
    while listed(&visitor, there, TUNNEL).await?.len() < 2 {}
    sleep(Duration::from_secs(1)).await;
    // Whatever is sent to it from now on is not answered, and not refused either.
    drop(system.agents.drain(..1.min(system.agents.len())));
    let _silent = dying.fall_silent().await?;
    let (mut pace, end) = (interval(PACE), Instant::now() + AFTER);
    let (mut gets, mut first) = (0_u32, 0_u32);
    while Instant::now() < end {
        pace.tick().await;
        let listed = listed(&visitor, there, TUNNEL).await?;
        let node = listed.first().context("none is listed")?.get("node");
        gets += 1;
        first += u32::from(node.is_some_and(|node| node == NODES[0]));
    }
    Ok(f64::from(first) * 100.0 / f64::from(gets))
}

/// Where a gost takes relayed connections.
struct Entrypoint {
    addr: SocketAddr,
    accepts: JoinSet<TcpListener>,
    end: watch::Sender<bool>,
}

impl Entrypoint {
    fn open() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        // One connection waits, and no more.
        let listener = socket.listen(1)?;
        let (addr, (end, ended)) = (listener.local_addr()?, watch::channel(false));
        let mut accepts = JoinSet::new();
        accepts.spawn(async move {
            while !*ended.borrow() {
                let _ = timeout(Duration::from_millis(10), listener.accept()).await;
            }
            listener
        });
        Ok(Self { addr, accepts, end })
    }

    /// Accepts no more, so that who dials it waits.
    async fn fall_silent(mut self) -> anyhow::Result<(TcpListener, Vec<TcpStream>)> {
        self.end.send_replace(true);
        let listener = self.accepts.join_next().await.context("it accepts")??;
        let mut waiting = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(100), TcpStream::connect(self.addr)).await {
            waiting.push(stream?);
        }
        Ok((listener, waiting))
    }
}

async fn register(
    gost: &Client,
    plugin: SocketAddr,
    id: &str,
    n: usize,
    node: &str,
    address: &str,
) -> anyhow::Result<()> {
    let body = serde_json::json!({
        "id": id, "name": tunnel(n), "node": node, "network": "tcp", "address": address
    });
    let sent = gost.post(format!("http://{plugin}/sd")).body(body.to_string()).send().await?;
    sent.error_for_status()?;
    Ok(())
}

/// Whether a Get lists anything of that tunnel.
async fn is_listed(gost: &Client, plugin: SocketAddr, n: usize) -> anyhow::Result<bool> {
    Ok(!listed(gost, plugin, n).await?.is_empty())
}

async fn listed(gost: &Client, plugin: SocketAddr, n: usize) -> anyhow::Result<Vec<serde_json::Value>> {
    let answer = gost.get(format!("http://{plugin}/sd?name={}", tunnel(n))).send().await?;
    let answer: serde_json::Value = answer.error_for_status()?.json().await?;
    Ok(answer
        .get("services")
        .and_then(|services| services.as_array())
        .context("no list of services")?
        .clone())
}

/// Milliseconds: the median, and the 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|share| times[((times.len() - 1) * share).div_ceil(100)].as_secs_f64() * 1e3)
}

impl Way {
    /// When what is sent now arrives, but for the network being away.
    fn arrival(&self) -> Instant {
        Instant::now() + self.one_way
    }
}

/// The runtime's clock counts milliseconds, and half of one is much here.
async fn arrived(at: Instant) {
    const COARSE: Duration = Duration::from_millis(2);
    if let Some(long) = at.checked_duration_since(Instant::now() + COARSE) {
        sleep(long).await;
    }
    while Instant::now() < at {
        yield_now().await;
    }
}

async fn connections(listener: TcpListener, to: SocketAddr, way: Way) -> anyhow::Result<()> {
    let mut pumps = JoinSet::new();
    loop {
        while pumps.try_join_next().is_some() {}
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(to).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
        pumps.spawn(pump(from_near, to_far, way.clone()));
        pumps.spawn(pump(from_far, to_near, way.clone()));
    }
}

/// Nothing of a connection is lost while the network is away: it comes later.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: Way) -> anyhow::Result<()> {
    let (queue, mut queued) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let arrival = way.clone();
    let write = async move {
        while let Some((at, bytes)) = queued.recv().await {
            arrived(at).await;
            way.is_away.wait_for(|is_away| !is_away).await?;
            to.write_all(&bytes).await?;
        }
        anyhow::Ok(())
    };
    let read = async move {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return anyhow::Ok(());
            }
            queue.send((arrival.arrival(), buffer[..read].into()))?;
        }
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

/// To each sender by a socket of its own, as NAT does. While the network is away, datagrams are lost.
async fn datagrams(udp: UdpSocket, to: SocketAddr, way: Way) -> anyhow::Result<()> {
    let udp = Arc::new(udp);
    let (mut sockets, mut back) = (HashMap::<SocketAddr, Arc<UdpSocket>>::new(), JoinSet::new());
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok((length, from)) = udp.recv_from(&mut buffer).await else { continue };
        let socket = if let Some(known) = sockets.get(&from) {
            known.clone()
        } else {
            let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
            socket.connect(to).await?;
            back.spawn(answers(socket.clone(), udp.clone(), from, way.clone()));
            sockets.insert(from, socket.clone());
            socket
        };
        deliver(socket, to, &buffer[..length], &way);
    }
}

async fn answers(socket: Arc<UdpSocket>, udp: Arc<UdpSocket>, to: SocketAddr, way: Way) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(length) = socket.recv(&mut buffer).await else { continue };
        deliver(udp.clone(), to, &buffer[..length], &way);
    }
}

fn deliver(by: Arc<UdpSocket>, to: SocketAddr, bytes: &[u8], way: &Way) {
    let (bytes, at, is_away) = (bytes.to_vec(), way.arrival(), way.is_away.clone());
    tokio::spawn(async move {
        arrived(at).await;
        if !*is_away.borrow() {
            let _ = if by.peer_addr().is_ok() { by.send(&bytes).await } else { by.send_to(&bytes, to).await };
        }
    });
}
