//! How long a new agent takes until it can answer for every record of its cluster, how much processor time that costs
//! the owner, and how long the owner's longest plugin call takes meanwhile.
//!
//! The new agent is a process of its own: this program under another name.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd_core::agent::Heal;
use gossd_core::connection::Caller;
use gossd_core::record::Draft;

use crate::cluster::{holding_anew, tunnel};
use gossd_lab::table::{Column, Out};

/// Milliseconds of a clock tick of /proc, the same on every Linux.
const TICK: f64 = 10.0;

#[derive(clap::Args)]
pub(crate) struct NewcomerArgs {
    /// Records in the cluster
    #[arg(long, default_value_t = 10_000)]
    records: usize,
    /// How many newcomers, one after the other
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Be the newcomer, and join there
    #[arg(long, hide = true)]
    join: Option<String>,
}

pub(crate) fn run(args: &NewcomerArgs, out: Out) -> anyhow::Result<()> {
    match &args.join {
        Some(join) => crate::block_on(arrive(join, args.records)),
        None => crate::block_on(measure(args, out)),
    }
}

async fn measure(args: &NewcomerArgs, out: Out) -> anyhow::Result<()> {
    out.say(&format!("a newcomer to an owner of {} records", args.records));
    let table = out.table([
        Column::Number("all_there_ms", 1),
        Column::Number("owner_processor_ms", 0),
        Column::Number("longest_idle_call_ms", 2),
        Column::Number("longest_call_then_ms", 2),
    ]);
    let owner = Daemon::start(Config::loopback("owner".parse()?)).await?;
    for n in 0..args.records {
        owner.agent().register(Caller::local(1), holding_anew(n))?;
    }
    for _ in 0..args.rounds {
        let idle = longest_call(&owner, Duration::from_millis(500)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let calls = tokio::spawn(call_until(owner.agent().clone(), stop.clone()));
        let (join, records) = (owner.gossip.to_string(), args.records.to_string());
        let before = processor()?;
        let arrived = tokio::task::spawn_blocking(move || newcomer(&join, &records)).await??;
        let taken = processor()? - before;
        stop.store(true, Ordering::Relaxed);
        table.row([arrived, taken * TICK, ms(idle), ms(calls.await?)].map(Into::into));
    }
    Ok(())
}

/// Milliseconds from the start of a new agent until it has all records.
fn newcomer(join: &str, records: &str) -> anyhow::Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    let output =
        command.args(["newcomer", "--join", join, "--records", records]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the newcomer failed");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

async fn arrive(join: &str, records: usize) -> anyhow::Result<()> {
    let mut config = Config::loopback(format!("newcomer-{}", std::process::id()).parse()?);
    config.join = vec![join.parse()?];
    let start = Instant::now();
    let newcomer = Daemon::start(config).await?;
    let mut revision = newcomer.agent().watch();
    while newcomer.counts().records < records {
        ensure!(start.elapsed() < Duration::from_secs(120), "{} after 120 s", newcomer.counts().records);
        let _ = tokio::time::timeout(Duration::from_millis(5), revision.changed()).await;
    }
    println!("{}", ms(start.elapsed()));
    newcomer.stop().await;
    Ok(())
}

/// Clock ticks of processor time that this process has used.
fn processor() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("a name")?.split_whitespace().collect();
    Ok(fields[11].parse::<f64>()? + fields[12].parse::<f64>()?)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

async fn longest_call(owner: &Daemon, during: Duration) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn(call_until(owner.agent().clone(), stop.clone()));
    tokio::time::sleep(during).await;
    stop.store(true, Ordering::Relaxed);
    calls.await.unwrap_or_default()
}

/// Renews and looks up, a thousand times a second. Returns the duration of the longest call, without the time before it
/// was scheduled.
async fn call_until(agent: gossd::agent::Agent, stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    let nobody = Draft { id: "nobody", name: "t", node: "n", network: "", address: "" };
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let start = Instant::now();
        let renewed =
            agent.renew(Caller::local(1), nobody, &Heal { dial: &|_| String::new(), fallback: None });
        assert!(renewed.is_ok(), "nobody has no record to make room for");
        agent.resolve(&tunnel(0));
        longest = longest.max(start.elapsed());
    }
    longest
}
