//! How long a fresh agent takes until it can answer every record of its cluster, and how long the longest
//! plugin call at the owner takes meanwhile.
//!
//! `cargo run --release --example newcomer -- --records 10000`
//!

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use gossd::agent::Heal;
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::domain::lease::Holding;
use gossd::domain::record::{Draft, Network, Record};

#[derive(Parser)]
struct Args {
    /// Records in the cluster
    #[arg(long, default_value_t = 10_000)]
    records: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    println!("a newcomer to an owner of {} records", args.records);
    println!("{:>14} {:>14} {:>22}", "all there ms", "idle call ms", "longest call then ms");
    let owner = Daemon::start(Config::loopback("owner".parse()?)).await?;
    for n in 0..args.records {
        owner.agent().register(1, record(n))?;
    }
    // The owner has told chitchat by then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for round in 0..3 {
        let idle = longest_call(&owner, Duration::from_millis(500)).await;
        let mut config = Config::loopback(format!("newcomer-{round}").parse()?);
        config.join = vec![owner.gossip.to_string().parse()?];
        let stop = Arc::new(AtomicBool::new(false));
        let calls = tokio::spawn(call_until(owner.agent().clone(), stop.clone()));
        let start = Instant::now();
        let newcomer = Daemon::start(config).await?;
        let mut revision = newcomer.agent().watch();
        while newcomer.counts().records < args.records {
            ensure!(start.elapsed() < Duration::from_secs(120), "{} after 120 s", newcomer.counts().records);
            let _ = tokio::time::timeout(Duration::from_millis(5), revision.changed()).await;
        }
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        println!("{:>14.1} {:>14.2} {:>22.2}", ms(took), ms(idle), ms(calls.await?));
        newcomer.stop().await;
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn record(n: usize) -> Holding {
    let id = uuid::Uuid::new_v4().to_string().into();
    let (name, node) =
        (format!("4d21094e-b74c-4916-86c1-{n:012x}").into(), "e1342e00-b1d2-4ae1-ba9c-b026c0540cff".into());
    let record = Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:8420".into() };
    Holding { record: Arc::new(record), dial: "".into() }
}

async fn longest_call(owner: &Daemon, during: Duration) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn(call_until(owner.agent().clone(), stop.clone()));
    tokio::time::sleep(during).await;
    stop.store(true, Ordering::Relaxed);
    calls.await.unwrap_or_default()
}

/// Renews and looks up, a thousand times a second; the longest call, without the time for being scheduled.
async fn call_until(agent: gossd::agent::Agent, stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    let nobody = Draft { id: "nobody", name: "t", node: "n", network: "", address: "" };
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let start = Instant::now();
        let renewed = agent.renew(1, nobody, &Heal { dial: &|_| String::new(), fallback: None });
        assert!(renewed.is_ok(), "nobody has no record to make room for");
        agent.resolve("4d21094e-b74c-4916-86c1-000000000000");
        longest = longest.max(start.elapsed());
    }
    longest
}
