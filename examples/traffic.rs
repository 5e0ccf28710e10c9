//! What a cluster's gossip costs the network: without a change, however many records are renewed, and with changes.
//!
//! `cargo run --release --example traffic -- --agents 10 --records 0,100000 --rates 10,100,1000`
//!
//! All agents are real, in this process, with their own sockets on loopback; what is counted is what they hand to these,
//! sealed, without the headers of UDP, TCP and IP.

#![expect(clippy::cast_precision_loss, reason = "figures for a table")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use gossd::agent::Heal;
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::domain::connection::Caller;
use gossd::domain::lease::Holding;
use gossd::domain::record::{Draft, Network, Record};
use gossd::gossip::wire::Kind;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const NODE: &str = "e1342e00-b1d2-4ae1-ba9c-b026c0540cff";
/// How often gost renews by default.
const RENEW: Duration = Duration::from_secs(15);

#[derive(Parser)]
struct Args {
    /// Agents in the cluster
    #[arg(long, default_value_t = 3)]
    agents: usize,
    /// Live records in all, each renewed every 15 s; one row for each number, in rising order
    #[arg(long, value_delimiter = ',', default_value = "0,10000,100000")]
    records: Vec<usize>,
    /// Changes a second, half of them registrations; one row for each rate, with the last number of records
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    rates: Vec<u32>,
    /// Seconds of each row
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let agents = start(args.agents).await?;
    println!(
        "{:>6} {:>8} {:>10} {:>13} {:>9} {:>9} {:>9} {:>9}",
        "agents", "records", "changes/s", "bytes/s/agent", "ratio", "pings", "state", "pushes"
    );
    let mut baseline = None;
    let mut held = 0;
    for records in &args.records {
        for n in held..*records {
            agents[n % agents.len()].agent().register(Caller::local(1), holding(n))?;
            // As fast as the queues towards the peers take them.
            if n % 500 == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        held = *records;
        known(&agents, held).await?;
        row(&args, &agents, held, 0, &mut baseline).await?;
    }
    for rate in &args.rates {
        row(&args, &agents, held, *rate, &mut baseline).await?;
    }
    println!(
        "ratio: to the first row; pings, state (anti-entropy) and pushes with their acks: their shares of the bytes"
    );
    Ok(())
}

async fn start(count: usize) -> anyhow::Result<Vec<Daemon>> {
    let mut agents: Vec<Daemon> = Vec::new();
    for n in 0..count {
        let mut config = Config::loopback(format!("agent-{n}").parse()?);
        config.join =
            agents.first().map(|first| first.gossip.to_string().parse()).transpose()?.into_iter().collect();
        agents.push(Daemon::start(config).await?);
        // Hosts do not do their rounds in step.
        sleep(Duration::from_secs(1) / u32::try_from(count)?).await;
    }
    let begun = Instant::now();
    while !agents.iter().all(|agent| agent.peers() == count - 1 && agent.counts().agents == count) {
        ensure!(begun.elapsed() < Duration::from_secs(60), "the agents did not all meet in 60 s");
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(5)).await;
    Ok(agents)
}

async fn known(agents: &[Daemon], records: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    while agents.iter().any(|agent| agent.counts().records < records) {
        ensure!(begun.elapsed() < Duration::from_secs(300), "{records} records are not everywhere in 300 s");
        sleep(Duration::from_millis(100)).await;
    }
    // What anti-entropy says of them again is over then.
    sleep(Duration::from_secs(10)).await;
    Ok(())
}

fn id(n: usize) -> String {
    format!("c23d4f42-c892-42b3-8b74-{n:012x}")
}

fn name(n: usize) -> String {
    format!("4d21094e-b74c-4916-86c1-{n:012x}")
}

fn holding(n: usize) -> Holding {
    let (id, name, address) = (id(n).into(), name(n).into(), "10.0.0.1:8420".into());
    Holding {
        record: Arc::new(Record { id, name, node: NODE.into(), network: Network::Tcp, address }),
        dial: "".into(),
    }
}

async fn row(
    args: &Args,
    agents: &[Daemon],
    records: usize,
    rate: u32,
    baseline: &mut Option<f64>,
) -> anyhow::Result<()> {
    let read = || {
        [&[Kind::Ping, Kind::Pong][..], &[Kind::Chitchat], &[Kind::Push, Kind::PushAck], &Kind::ALL]
            .map(|kinds| sent(agents, kinds))
    };
    let (before, begun) = (read(), Instant::now());
    tokio::try_join!(renew(agents, records, args.seconds), change(agents, rate, args.seconds))?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = read();
    let [pings, states, pushes, all] =
        [0, 1, 2, 3].map(|at| (after[at] - before[at]) as f64 / seconds / agents.len() as f64);
    let base = *baseline.get_or_insert(all);
    println!(
        "{:>6} {records:>8} {rate:>10} {all:>13.0} {:>9.2} {:>8.0}% {:>8.0}% {:>8.0}%",
        agents.len(),
        all / base,
        100.0 * pings / all,
        100.0 * states / all,
        100.0 * pushes / all
    );
    Ok(())
}

fn sent(agents: &[Daemon], kinds: &[Kind]) -> u64 {
    agents.iter().flat_map(|agent| kinds.iter().map(|kind| agent.counters().sent_bytes_of(*kind))).sum()
}

/// Every record once in fifteen seconds.
async fn renew(agents: &[Daemon], records: usize, seconds: u64) -> anyhow::Result<()> {
    let heal = Heal { dial: &|_| String::new(), fallback: None };
    let mut pace = interval(Duration::from_millis(10));
    let ticks = seconds * 100;
    let per_tick = records as f64 / RENEW.as_secs_f64() / 100.0;
    let mut next = 0;
    for tick in 1..=ticks {
        pace.tick().await;
        while (next as f64) < tick as f64 * per_tick {
            let n = next % records.max(1);
            let (id, name) = (id(n), name(n));
            let draft = Draft { id: &id, name: &name, node: NODE, network: "", address: "" };
            agents[n % agents.len()].agent().renew(Caller::local(1), draft, &heal)?;
            next += 1;
        }
    }
    Ok(())
}

/// Connectors that come and go at one agent after the other.
async fn change(agents: &[Daemon], rate: u32, seconds: u64) -> anyhow::Result<()> {
    if rate == 0 {
        return Ok(());
    }
    let mut pace = interval(Duration::from_secs(2) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0..u64::from(rate) * seconds / 2 {
        pace.tick().await;
        let n = (1 << 20) + usize::try_from(n)?;
        let agent = agents[n % agents.len()].agent();
        agent.register(Caller::local(2), holding(n))?;
        let (id, name) = (id(n), name(n));
        agent.deregister(
            Caller::local(2),
            Draft { id: &id, name: &name, node: NODE, network: "", address: "" },
        );
    }
    Ok(())
}
