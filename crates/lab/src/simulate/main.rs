//! Clusters in virtual time: real agents, links and anti-entropy on a network in memory. What happens to them is drawn
//! from a seed, and one seed is always one story.
//!
//! ```text
//! cargo run --locked --release --package gossd-lab --bin gossd-simulate -- --seeds 1000     # stories, each checked against the invariants
//! cargo run --locked --release --package gossd-lab --bin gossd-simulate -- --seed 7 --trace # one of them, told
//! cargo run --locked --release --package gossd-lab --bin gossd-simulate -- --agents 500     # no story, but a large cluster's figures
//! ```
//!
//! A program of its own, because what draws the order of hash maps from a seed stops the process's clock.
//!
//! A story is loss, delay, overtaking, doubling, partitions, crashes with and without their journals, and clocks that
//! jump, for a minute; then everything works again, and all have to agree. Time that the processor takes is not part of
//! it: what is printed is what the network and the protocol cost, to a millisecond.

#![expect(clippy::cast_precision_loss, reason = "figures for tables")]

mod board;
mod check;
mod host;
mod net;
mod scale;
mod world;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use gossd_core::agent::Broken;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use self::board::percentile;
use self::check::Checker;
use self::world::World;
use gossd_lab::table::{Column, Out, Table};

/// How long a story is, before everything works again.
const STORY: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Args {
    /// An object for each row of a table, and nothing else on the standard output
    #[arg(long)]
    json: bool,
    /// How many stories
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Stories at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// One story only
    #[arg(long)]
    seed: Option<u64>,
    /// Tell it
    #[arg(long)]
    trace: bool,
    /// What of every agent does not work, which stories have to show
    #[arg(long)]
    broken: Option<Part>,
    #[command(flatten)]
    scale: scale::Scale,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// No record lapses
    Leases,
    /// Peers are alive for ever
    Suspicion,
}

/// What came of a story.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Outcome {
    hosts: usize,
    events: usize,
    frames: u64,
    /// A number that two runs of one story have in common, and hardly two stories.
    trace: u64,
    /// Milliseconds until all agreed, once everything worked again.
    agreed: f64,
    /// Milliseconds by which a record outlived its owner's last sign of life and its TTL.
    outlived: f64,
    /// By what the network was like: milliseconds from a registration to the last agent.
    took: BTreeMap<String, Vec<f64>>,
}

fn main() -> anyhow::Result<()> {
    let args = &Args::parse();
    let out = Out::new(args.json);
    if args.scale.agents.is_some() {
        return virtually(args.first, scale::measure(&args.scale, out));
    }
    match args.seed {
        Some(seed) => {
            let outcome = virtually(seed, story(seed, args))?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        None => stories(args, out),
    }
}

/// Runs in virtual time, on one thread, with all that is random drawn from a seed: also the order of hash maps.
fn virtually<T>(seed: u64, future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build()?.block_on(future)
}

async fn story(seed: u64, args: &Args) -> anyhow::Result<Outcome> {
    let hosts = 2 + usize::try_from(seed / 2 % 4)?;
    let broken = Broken {
        leases: matches!(args.broken, Some(Part::Leases)),
        suspicion: matches!(args.broken, Some(Part::Suspicion)),
        ..Broken::default()
    };
    let mut world = World::new(seed, hosts, broken).await?;
    let mut checker = Checker::default();
    let told_by = tell(&mut world, &mut checker).await;
    if args.trace || told_by.is_err() {
        for line in &world.trace {
            println!("{line}");
        }
    }
    let agreed = told_by.with_context(|| format!("seed {seed}, in the end"))?;
    Ok(Outcome {
        hosts,
        events: world.trace.len(),
        frames: world.network.traffic().frames,
        trace: world.network.traffic().bytes ^ world.network.traffic().frames << 32,
        agreed: agreed.as_secs_f64() * 1e3,
        outlived: checker.outlived.as_secs_f64() * 1e3,
        took: world.board.took(),
    })
}

async fn tell(world: &mut World, checker: &mut Checker) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while start.elapsed() < STORY {
        sleep(Duration::from_millis(50)).await;
        checker.check(world)?;
        world.step().await?;
        checker.check(world)?;
    }
    world.settle().await?;
    let agreed = check::converge(world, checker).await?;
    if !world.claims {
        check::quiet(world).await?;
    }
    Ok(agreed)
}

/// Every story is a process of its own: nothing of one is in another.
fn stories(args: &Args, out: Out) -> anyhow::Result<()> {
    let mut running: Vec<(u64, Child)> = Vec::new();
    let mut outcomes = Vec::new();
    let mut failed = Vec::new();
    let mut seeds = args.first..args.first + args.seeds;
    loop {
        while running.len() < args.jobs.max(1)
            && let Some(seed) = seeds.next()
        {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--seed", &seed.to_string()]).stdout(Stdio::piped());
            if let Some(part) = args.broken.and_then(|part| part.to_possible_value()) {
                command.args(["--broken", part.get_name()]);
            }
            let child = command.spawn()?;
            running.push((seed, child));
        }
        if running.is_empty() {
            break;
        }
        let (seed, child) = running.remove(0);
        let ended = child.wait_with_output()?;
        let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
        match printed.lines().last().and_then(|line| serde_json::from_str::<Outcome>(line).ok()) {
            Some(outcome) if ended.status.success() => outcomes.push(outcome),
            _ => {
                out.say(&format!("{printed}seed {seed} failed: --seed {seed} --trace tells it again"));
                failed.push(seed);
            }
        }
    }
    print(&outcomes, out);
    ensure!(failed.is_empty(), "{} of {} stories failed: seeds {failed:?}", failed.len(), args.seeds);
    Ok(())
}

fn print(outcomes: &[Outcome], out: Out) {
    let events: usize = outcomes.iter().map(|of| of.events).sum();
    let frames: u64 = outcomes.iter().map(|of| of.frames).sum();
    out.say(&format!(
        "{} stories of 2 to 5 agents hold every invariant; {events} events, {frames} frames; virtual time",
        outcomes.len()
    ));
    let sorted = |of: fn(&Outcome) -> f64| {
        let mut all: Vec<f64> = outcomes.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let table = out.table([
        Column::Text("what", 42),
        Column::Number("n", 0),
        Column::Number("p50_ms", 1),
        Column::Number("p99_ms", 1),
        Column::Number("max_ms", 1),
    ]);
    row(&table, "all agree, once everything works again", &sorted(|of| of.agreed));
    row(&table, "a record outlives its owner and its TTL", &sorted(|of| of.outlived));
    let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (weather, times) in outcomes.iter().flat_map(|of| &of.took) {
        took.entry(weather).or_default().extend(times);
    }
    for (weather, mut times) in took {
        times.sort_by(f64::total_cmp);
        row(&table, &format!("a record is known everywhere: {weather}"), &times);
    }
}

fn row(table: &Table<5>, what: &str, sorted: &[f64]) {
    let at = |share| percentile(sorted, share).into();
    table.row([what.into(), sorted.len().into(), at(50), at(99), at(100)]);
}
