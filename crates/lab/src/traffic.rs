//! The cost of a cluster's gossip for the network: without changes, however many records are renewed, and with changes.
//!
//! All agents are real, in this process, with their own sockets on loopback. The bytes that they hand to these sockets
//! are counted: encrypted, without the headers of UDP, TCP and IP.

#![expect(clippy::cast_precision_loss, reason = "figures for a table")]

use std::time::Duration;

use anyhow::ensure;
use gossd::daemon::Daemon;
use gossd_core::agent::Heal;
use gossd_core::connection::Caller;
use gossd_core::link::wire::Kind;
use gossd_core::record::Draft;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::cluster::{self, NODE, come_and_go, holding, id, tunnel};
use gossd_lab::table::{Column, Out, Table};

/// How often gost renews by default.
const RENEW: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub(crate) struct TrafficArgs {
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

pub(crate) fn run(args: &TrafficArgs, out: Out) -> anyhow::Result<()> {
    crate::block_on(measure(args, out))
}

async fn measure(args: &TrafficArgs, out: Out) -> anyhow::Result<()> {
    let agents = cluster::start(args.agents, |_| {}).await?;
    let table = out.table([
        Column::Number("agents", 0),
        Column::Number("records", 0),
        Column::Number("changes_per_s", 0),
        Column::Number("bytes_per_s_per_agent", 0),
        Column::Number("ratio", 2),
        Column::Number("pings_percent", 0),
        Column::Number("state_percent", 0),
        Column::Number("pushes_percent", 0),
    ]);
    let mut rows = Rows { table, agents: &agents, seconds: args.seconds, baseline: None };
    let mut held = 0;
    for records in &args.records {
        for n in held..*records {
            agents[n % agents.len()].agent().register(Caller::local(1), holding(n))?;
            // Paced so that the queues towards the peers do not overflow.
            if n % 500 == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        held = *records;
        known(&agents, held).await?;
        rows.measure(held, 0).await?;
    }
    for rate in &args.rates {
        rows.measure(held, *rate).await?;
    }
    out.say(
        "ratio: to the first row; pings, state (the board) and pushes with their acks: their shares of the bytes",
    );
    Ok(())
}

async fn known(agents: &[Daemon], records: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    while agents.iter().any(|agent| agent.counts().records < records) {
        ensure!(begun.elapsed() < Duration::from_secs(300), "{records} records are not everywhere in 300 s");
        sleep(Duration::from_millis(100)).await;
    }
    // By then, repair has finished with these records.
    sleep(Duration::from_secs(10)).await;
    Ok(())
}

struct Rows<'a> {
    table: Table<8>,
    agents: &'a [Daemon],
    seconds: u64,
    /// The bytes of the first row.
    baseline: Option<f64>,
}

impl Rows<'_> {
    async fn measure(&mut self, records: usize, rate: u32) -> anyhow::Result<()> {
        let Self { agents, seconds, .. } = *self;
        let read = || {
            [
                &[Kind::Ping, Kind::Pong][..],
                &[Kind::Digest, Kind::Rows, Kind::Cards, Kind::Copies, Kind::Versions],
                &[Kind::Push, Kind::PushAck],
                &Kind::ALL,
            ]
            .map(|kinds| sent(agents, kinds))
        };
        let (before, begun) = (read(), Instant::now());
        tokio::try_join!(renew(agents, records, seconds), change(agents, rate, seconds))?;
        let seconds = begun.elapsed().as_secs_f64();
        let after = read();
        let [pings, states, pushes, all] =
            [0, 1, 2, 3].map(|at| (after[at] - before[at]) as f64 / seconds / agents.len() as f64);
        let ratio = all / *self.baseline.get_or_insert(all);
        let [pings, states, pushes] = [pings, states, pushes].map(|part| (100.0 * part / all).into());
        let count = self.agents.len().into();
        self.table.row([count, records.into(), rate.into(), all.into(), ratio.into(), pings, states, pushes]);
        Ok(())
    }
}

fn sent(agents: &[Daemon], kinds: &[Kind]) -> u64 {
    agents.iter().flat_map(|agent| kinds.iter().map(|kind| agent.counters().sent_bytes_of(*kind))).sum()
}

/// Renews every record once in fifteen seconds.
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
            let (id, name) = (id(n), tunnel(n));
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
        come_and_go(agents[n % agents.len()].agent(), n)?;
    }
    Ok(())
}
