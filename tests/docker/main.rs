//! Real containers, real networks, real faults: each scenario breaks something and measures what visitors feel. Run
//! by `scripts/docker-test.sh`, which builds the images.

mod engine;
mod scenarios;
mod table;
mod visits;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};

use self::scenarios::{NOTICED, SCENARIOS, Scenario};
use self::table::Outcome;
use self::world::{Plan, World};

/// Scenarios in containers.
#[derive(Debug, Parser)]
struct Args {
    /// short, long, or names of scenarios with commas between
    #[arg(long, default_value = "long")]
    set: String,
    /// How often each is run
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// How many runs of a scenario at a time, each in a world of its own
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Prints the scenarios and what they promise
    #[arg(long)]
    list: bool,
    /// Breaks every agent on purpose, in several ways, and wants the right scenarios to fail
    #[arg(long)]
    noticed: bool,
    /// Where the table is written as well
    #[arg(long)]
    table: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match all(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn all(args: Args) -> anyhow::Result<()> {
    let chosen: Vec<&'static Scenario> =
        SCENARIOS.iter().filter(|scenario| scenario.is_in(&args.set)).collect();
    if args.list {
        for scenario in chosen {
            println!("{:<26} {}: {}", scenario.name, scenario.fault, scenario.promise);
        }
        return Ok(());
    }
    anyhow::ensure!(!chosen.is_empty(), "no scenario is in {}", args.set);
    let run = format!("{:x}", std::process::id());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("docker");
    let mut outcomes = Vec::new();
    let mut number = 0;
    for scenario in chosen {
        let mut outcome = Outcome::of(scenario);
        let runs = (0..args.repeat).map(|_| {
            number += 1;
            one(scenario, &run, number, &folder)
        });
        let mut runs = futures_util::stream::iter(runs).buffered(args.jobs.max(1));
        while let Some((measured, took)) = runs.next().await {
            outcome.add(measured, took);
        }
        drop(runs);
        // Not before every run of it has removed what it had.
        if INTERRUPTED.load(Ordering::Relaxed) {
            anyhow::bail!(Interrupted);
        }
        println!("{outcome}");
        outcomes.push(outcome);
    }
    if let Some(path) = &args.table {
        std::fs::write(path, table::markdown(&outcomes))?;
    }
    if args.noticed {
        for (broken, name) in NOTICED {
            number += 1;
            noticed(broken, name, &run, number, &folder).await?;
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.is_kept()).count();
    anyhow::ensure!(failed == 0, "{failed} of {} scenarios failed", outcomes.len());
    Ok(())
}

/// One run, and the time that it took.
async fn one(
    scenario: &'static Scenario,
    run: &str,
    number: u32,
    folder: &std::path::Path,
) -> (anyhow::Result<scenarios::Measured>, Duration) {
    let started = Instant::now();
    if INTERRUPTED.load(Ordering::Relaxed) {
        return (Err(Interrupted.into()), Duration::ZERO);
    }
    let measured = perform(scenario, run, number, folder, (scenario.plan)()).await;
    (measured, started.elapsed())
}

/// Runs a scenario with broken agents: its visitors have to feel it.
async fn noticed(
    broken: &str,
    name: &str,
    run: &str,
    number: u32,
    folder: &std::path::Path,
) -> anyhow::Result<()> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("a scenario of that name");
    let plan = Plan { broken: Some(broken.into()), ..(scenario.plan)() };
    let felt = match perform(scenario, run, number, folder, plan).await {
        Ok(measured) => anyhow::bail!("{name} did not notice that {broken} is broken: {measured}"),
        Err(error) => format!("{error:#}"),
    };
    let by_visitors = felt.contains("promised") || felt.contains("visitors are not served");
    anyhow::ensure!(by_visitors, "{name} failed for another reason than {broken}: {felt}");
    println!("ok   {name} notices that {broken} is broken: {felt}");
    Ok(())
}

/// Whether somebody stopped the tests: nothing is begun any more.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Somebody stopped the tests: no failure of a scenario.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; everything is removed")]
struct Interrupted;

/// Whoever stops the tests leaves nothing behind either.
async fn interrupted() {
    let mut term = signal(SignalKind::terminate()).expect("this system has signals");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Runs a scenario in a world of its own, which is gone afterwards; of one that fails, the logs stay.
async fn perform(
    scenario: &Scenario,
    run: &str,
    number: u32,
    folder: &std::path::Path,
    plan: Plan,
) -> anyhow::Result<scenarios::Measured> {
    let mut world = World::new(run, number, folder, plan).await?;
    let measured = tokio::select! {
        measured = (scenario.run)(&mut world) => measured,
        () = interrupted() => Err(Interrupted.into()),
    };
    let measured = measured.and_then(scenarios::Measured::check);
    if measured.is_err() {
        let logs =
            world.engine.keep_logs(&folder.join("logs").join(format!("{}-{number}", scenario.name))).await;
        eprintln!(
            "{}: logs in {}",
            scenario.name,
            logs.map_or_else(|e| e.to_string(), |p| p.display().to_string())
        );
    }
    let cleaned = world.engine.clean().await;
    let measured = measured?;
    cleaned?;
    Ok(measured)
}
