//! Clusters in virtual time: the agents' own state and links on a network and disks in memory. What happens to them is
//! drawn from a seed, and one seed is always one story.
//!
//! ```text
//! gossd-lab simulate --seeds 1000     # stories, each checked against the invariants
//! gossd-lab simulate --seed 7 --trace # one of them, told
//! gossd-lab simulate --agents 500     # no story, but a large cluster's figures
//! ```
//!
//! A story is loss, delay, overtaking, doubling, partitions, crashes with and without their journals, and clocks that
//! jump, for a minute; then everything works again, and all have to agree. Time that the processor takes is not part of
//! it: what is printed is what the network and the protocol cost, to a millisecond. What is between core and the world,
//! in the daemon, is not part of it either: sockets, queues, tasks and the journal's file.

mod arrivals;
mod check;
mod disk;
mod engine;
mod host;
mod net;
mod scale;
mod world;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::ValueEnum;
use gossd_core::agent::Broken;
use serde::Serialize;

use self::arrivals::percentile;
use self::check::Checker;
use self::world::SimWorld;
use gossd_lab::table::{Column, Out, Table};

/// How long a story is, before everything works again.
const STORY: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct SimulateArgs {
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
    /// Tell it, to the frame
    #[arg(long, requires = "seed")]
    trace: bool,
    /// What of every agent does not work, which stories have to show
    #[arg(long)]
    broken: Option<BrokenPart>,
    #[command(flatten)]
    scale: scale::ScaleArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum BrokenPart {
    /// No record lapses
    Leases,
    /// Peers are alive for ever
    Suspicion,
}

/// What came of a story.
#[derive(Debug, PartialEq, Serialize)]
struct Outcome {
    hosts: usize,
    events: usize,
    /// Visitors that were sent around a hole.
    detours: usize,
    frames: u64,
    /// A number that two runs of one story have in common, and hardly two stories: of every byte that was sent.
    trace: u64,
    /// Milliseconds until all agreed, once everything worked again.
    agreed: f64,
    /// Milliseconds by which a record outlived its owner's last sign of life and its TTL.
    outlived: f64,
    /// By what the network was like: milliseconds from a registration to the last agent.
    took: BTreeMap<String, Vec<f64>>,
}

/// A story with what happened in it, line by line.
struct Story {
    lines: Vec<String>,
    outcome: anyhow::Result<Outcome>,
}

/// See the module.
pub(crate) fn run(args: &SimulateArgs, out: Out) -> anyhow::Result<()> {
    if let Some(agents) = args.scale.agents {
        return scale::measure(&args.scale, args.first, agents, out);
    }
    let Some(seed) = args.seed else { return stories(args, out) };
    let Story { lines, outcome } = story(seed, args.broken, args.trace);
    if args.trace || outcome.is_err() {
        println!("{}", lines.join("\n"));
    }
    println!("{}", serde_json::to_string(&outcome?)?);
    Ok(())
}

/// The story of a seed. An agent that panics ends it as any other fault does.
fn story(seed: u64, broken: Option<BrokenPart>, traces_all: bool) -> Story {
    let broken = Broken {
        leases: matches!(broken, Some(BrokenPart::Leases)),
        suspicion: matches!(broken, Some(BrokenPart::Suspicion)),
        ..Broken::default()
    };
    let hosts = [2, 3, 4, 5][usize::try_from(seed / 2 % 4).unwrap_or_default()];
    let mut world = match SimWorld::new(seed, hosts, broken, traces_all) {
        Ok(world) => world,
        Err(error) => return Story { lines: Vec::new(), outcome: Err(error) },
    };
    let mut checker = Checker::default();
    let told = catch_unwind(AssertUnwindSafe(|| tell(&mut world, &mut checker)));
    let agreed = told.unwrap_or_else(|panic| Err(anyhow!("a panic: {}", words(&*panic))));
    let traffic = world.engine.network.traffic();
    let outcome = agreed.with_context(|| format!("seed {seed}, in the end")).map(|agreed| Outcome {
        hosts,
        events: world.events,
        detours: world.detours,
        frames: traffic.frames,
        trace: traffic.trace(),
        agreed: agreed.as_secs_f64() * 1e3,
        outlived: checker.outlived.as_secs_f64() * 1e3,
        took: world.engine.arrivals.took().clone(),
    });
    Story { lines: world.engine.trace, outcome }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

fn tell(world: &mut SimWorld, checker: &mut Checker) -> anyhow::Result<Duration> {
    while world.engine.elapsed() < STORY {
        world.engine.run(Duration::from_millis(50))?;
        checker.check(world)?;
        world.step()?;
        checker.check(world)?;
    }
    world.settle()?;
    let agreed = check::converge(world, checker)?;
    if !world.claims {
        check::quiet(world)?;
    }
    Ok(agreed)
}

/// Every story is told by one thread, from its beginning: nothing of one is in another.
fn stories(args: &SimulateArgs, out: Out) -> anyhow::Result<()> {
    let (next, end) = (&AtomicU64::new(args.first), args.first + args.seeds);
    let (told, stories) = mpsc::channel();
    let (outcomes, failed) = std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            let told = told.clone();
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Whoever receives does so until all have ended.
                    if seed >= end || told.send((seed, story(seed, args.broken, false))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(told);
        let (mut outcomes, mut failed) = (BTreeMap::new(), BTreeSet::new());
        for (seed, Story { lines, outcome }) in stories {
            match outcome {
                Ok(outcome) => drop(outcomes.insert(seed, outcome)),
                Err(error) => {
                    let lines = lines.join("\n");
                    out.say(&format!("{lines}\n{error:#}\nsimulate --seed {seed} --trace tells it again"));
                    failed.insert(seed);
                }
            }
        }
        (outcomes, failed)
    });
    print(&outcomes.into_values().collect::<Vec<_>>(), out);
    ensure!(failed.is_empty(), "{} of {} stories failed: seeds {failed:?}", failed.len(), args.seeds);
    Ok(())
}

fn print(outcomes: &[Outcome], out: Out) {
    let events: usize = outcomes.iter().map(|of| of.events).sum();
    let detours: usize = outcomes.iter().map(|of| of.detours).sum();
    let frames: u64 = outcomes.iter().map(|of| of.frames).sum();
    let trace = outcomes.iter().fold(0, |all, of| all ^ of.trace);
    out.say(&format!(
        "{} stories of 2 to 5 agents hold every invariant; {events} events, {detours} detours, {frames} frames, trace {trace:016x}; virtual time",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_story_to_the_byte_and_another_seed_is_another() {
        let tell = |seed| story(seed, None, false).outcome.unwrap();
        // Each map of a process hashes in its own way: what depends on the order of one is not the same twice.
        let [first, again] = [tell(6), tell(6)];
        assert_eq!(first, again);
        assert_ne!(first.trace, tell(7).trace);
    }

    #[test]
    fn a_story_of_agents_in_which_nothing_lapses_fails() {
        assert!((1..=10).any(|seed| story(seed, Some(BrokenPart::Leases), false).outcome.is_err()));
    }
}
