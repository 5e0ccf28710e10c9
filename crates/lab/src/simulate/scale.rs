//! One large cluster: what it costs the network when nothing happens, and how long a change takes to the last agent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use gossd::gossip::wire::Kind;
use gossd_core::connection::Caller;
use gossd_core::lease::Holding;
use gossd_core::liveness::Standing;
use gossd_core::record::{Network as Protocol, Record};
use tokio::time::{Instant, sleep};

use crate::board::{Board, percentile};
use crate::host::Host;
use crate::net::{Network, Weather};
use gossd_lab::table::{Column, Out};

/// One-way milliseconds between four regions.
const REGIONS: [[u64; 4]; 4] = [[0, 20, 80, 140], [20, 0, 70, 120], [80, 70, 0, 250], [140, 120, 250, 0]];
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// Records of a gost that dies.
const GOST: usize = 20;
/// Where nobody listens: the port is reserved for a service that no host has.
const REFUSES: &str = "127.0.0.1:1";

#[derive(Args)]
pub(crate) struct Scale {
    /// No stories, but a cluster of so many agents
    #[arg(long)]
    pub agents: Option<usize>,
    /// Share of its datagrams that is lost
    #[arg(long, default_value_t = 0.0, requires = "agents")]
    loss: f64,
    /// Whether they are in four regions, 20 to 250 ms apart one way
    #[arg(long, requires = "agents")]
    wan: bool,
    /// Registrations, one every 20 ms
    #[arg(long, default_value_t = 200, requires = "agents")]
    changes: usize,
    /// Minutes in which nobody may be suspected
    #[arg(long, default_value_t = 0, requires = "agents")]
    minutes: u64,
}

pub(crate) async fn measure(scale: &Scale, out: Out) -> anyhow::Result<()> {
    let count = scale.agents.context("a number of agents")?;
    ensure!(count >= 2, "it takes two agents");
    let regions = if scale.wan { REGIONS.iter().map(|row| row.to_vec()).collect() } else { Vec::new() };
    let network = Network::new(1, Weather { loss: scale.loss, regions, ..Weather::fine() }).forgetful();
    tokio::spawn(network.clone().run());
    let board = Board::default();
    let mut hosts = meet(count, &network, &board).await?;
    let idle = traffic_of(&hosts, IDLE).await;
    changes(scale, &hosts, &board).await?;

    let mut more: Vec<f64> = Vec::new();
    for (origin, times) in board.took() {
        let origin: usize = origin.parse()?;
        let farthest =
            (0..count).map(|host| network.weather().distance(origin, host)).max().unwrap_or_default();
        more.extend(times.iter().map(|ms| ms - farthest.as_secs_f64() * 1e3));
    }
    more.sort_by(f64::total_cmp);
    let digest = hosts.iter().filter_map(|host| Some(host.running()?.cluster.counters().digest())).max();
    let suspected = suspicions(&hosts, Duration::from_secs(60 * scale.minutes)).await;
    let dead = death(&hosts).await?;
    let lost = detection(&mut hosts, &network).await?;
    let table = out.table([
        Column::Number("agents", 0),
        Column::Number("lost_percent", 0),
        Column::Number("regions", 0),
        Column::Number("p50_ms", 1),
        Column::Number("p99_ms", 1),
        Column::Number("max_ms", 1),
        Column::Number("ping_bytes_per_s", 0),
        Column::Number("state_bytes_per_s", 0),
        Column::Number("all_bytes_per_s", 0),
        Column::Number("digest_bytes", 0),
        Column::Number("suspected", 0),
        Column::Number("lost_host_s", 2),
        Column::Number("dead_gost_s", 2),
    ]);
    table.row([
        count.into(),
        (scale.loss * 100.0).into(),
        if scale.wan { REGIONS.len() } else { 1 }.into(),
        percentile(&more, 50).into(),
        percentile(&more, 99).into(),
        percentile(&more, 100).into(),
        idle.pings.into(),
        idle.states.into(),
        idle.all.into(),
        digest.unwrap_or_default().into(),
        suspected.into(),
        lost.as_secs_f64().into(),
        dead.as_secs_f64().into(),
    ]);
    out.say(&format!(
        "ms: from a registration to the last agent, without the one-way delay to the farthest; virtual time, without\n\
         the processor's. Bytes/s: one agent's, sealed, while nothing changes; ping: pings and pongs, state: anti-entropy.\n\
         suspected: live agents, in {} minutes of that. lost host: until it comes last at the last agent. dead gost: until\n\
         the last agent has forgotten its records.",
        scale.minutes
    ));
    Ok(())
}

async fn meet(count: usize, network: &Network, board: &Board) -> anyhow::Result<Vec<Host>> {
    let mut hosts = Vec::new();
    for number in 0..count {
        let mut host = Host::new(number, Duration::from_secs(60));
        host.start(network, &[0, 1], Duration::ZERO).await?;
        let agent = host.running().context("it runs")?.agent.clone();
        tokio::spawn(board.clone().observe(number, agent));
        hosts.push(host);
        sleep(Duration::from_secs(1) / u32::try_from(count)?).await;
    }
    let start = Instant::now();
    let met = |host: &Host| {
        host.running().is_some_and(|running| {
            running.cluster.peers() == count - 1 && running.agent.counts().agents == count
        })
    };
    while !hosts.iter().all(met) {
        ensure!(start.elapsed() < Duration::from_secs(120), "they did not all meet in two minutes");
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(5)).await;
    Ok(hosts)
}

/// Bytes a second of one agent.
struct Traffic {
    pings: f64,
    states: f64,
    all: f64,
}

async fn traffic_of(hosts: &[Host], during: Duration) -> Traffic {
    let sent = |kinds: &[Kind]| -> u64 {
        let counters = hosts.iter().filter_map(|host| Some(host.running()?.cluster.counters()));
        counters.map(|counters| kinds.iter().map(|kind| counters.sent_bytes_of(*kind)).sum::<u64>()).sum()
    };
    let read = || [sent(&[Kind::Ping, Kind::Pong]), sent(&[Kind::Chitchat]), sent(&Kind::ALL)];
    let before = read();
    sleep(during).await;
    let after = read();
    let rate = |at: usize| (after[at] - before[at]) as f64 / during.as_secs_f64() / hosts.len() as f64;
    Traffic { pings: rate(0), states: rate(1), all: rate(2) }
}

async fn changes(scale: &Scale, hosts: &[Host], board: &Board) -> anyhow::Result<()> {
    for number in 0..scale.changes {
        let origin = number % hosts.len();
        let id: Arc<str> = format!("connector-{number}").into();
        let name = format!("00000000-0000-4000-8000-{number:012}");
        let others: BTreeSet<usize> = (0..hosts.len()).filter(|host| *host != origin).collect();
        board.expect(id.clone(), name.clone(), others, origin.to_string());
        let record = Record {
            id: (*id).into(),
            name: name.into(),
            node: format!("node-{origin}").into(),
            network: Protocol::Tcp,
            address: "10.0.0.1:8420".into(),
        };
        let running = hosts[origin].running().context("it runs")?;
        running.agent.register(Caller::local(1), Holding { record: Arc::new(record), dial: "".into() })?;
        sleep(Duration::from_millis(20)).await;
    }
    let start = Instant::now();
    while board.open() > 0 {
        ensure!(
            start.elapsed() < Duration::from_secs(60),
            "{} changes did not arrive everywhere",
            board.open()
        );
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How often agents suspected others that lived.
async fn suspicions(hosts: &[Host], during: Duration) -> u64 {
    let counted = || -> u64 {
        hosts.iter().filter_map(|host| Some(host.running()?.cluster.counters().suspicions())).sum()
    };
    let before = counted();
    sleep(during).await;
    counted() - before
}

/// From the end of a gost, whose port refuses and whose connection is closed, to the last agent that lists a record
/// of it.
async fn death(hosts: &[Host]) -> anyhow::Result<Duration> {
    let (owner, others) = hosts.split_last().context("a gost to die")?;
    let tunnels = |number: usize| format!("00000000-0000-4000-9000-{number:012}");
    let agent = &owner.running().context("it runs")?.agent;
    for number in 0..GOST {
        let (id, name) = (format!("of-the-dead-{number}").as_str().into(), tunnels(number).as_str().into());
        let (node, address) = ("the-dead".into(), "10.0.0.1:8421".into());
        let record = Record { id, name, node, network: Protocol::Tcp, address };
        agent.register(Caller::local(2), Holding { record: Arc::new(record), dial: REFUSES.into() })?;
    }
    let listed = |host: &Host| {
        let agent = host.running().map(|running| &running.agent);
        agent.map_or(0, |agent| (0..GOST).filter(|n| !agent.resolve(&tunnels(*n)).is_empty()).count())
    };
    soon(|| others.iter().all(|host| listed(host) == GOST), "its records are not known everywhere").await?;
    agent.connection_closed(2);
    soon(|| others.iter().all(|host| listed(host) == 0), "somebody still lists its records").await
}

/// How long it takes.
async fn soon(mut done: impl FnMut() -> bool, what: &str) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !done() {
        ensure!(start.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(start.elapsed())
}

/// From the loss of a host to the last agent that does not list it among the live ones.
async fn detection(hosts: &mut [Host], network: &Network) -> anyhow::Result<Duration> {
    let (lost, others) = hosts.split_first_mut().context("a host to lose")?;
    let name = format!("host-{}", lost.number);
    lost.crash(network);
    let lives = |host: &Host| {
        let members = host.running().map(|running| running.agent.view().members).unwrap_or_default();
        members.iter().any(|member| member.name.as_str() == name && member.standing == Standing::Live)
    };
    soon(|| !others.iter().any(lives), "somebody still takes it for alive").await
}
