//! Real containers, real networks, real faults: each scenario breaks something and measures what visitors notice. Run
//! by `scripts/docker-test.sh`, which builds the images. gost is simulated unless the program of a real one is given.

mod engine;
mod measured;
mod scenarios;
mod table;
mod visits;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};

use self::measured::Measured;
use self::scenarios::{NOTICED, Noticed, Scenario};
use self::table::ScenarioResult;
use self::world::{Plan, PluginKind, World};

/// Scenarios in containers.
#[derive(Debug, Parser)]
struct ScenarioArgs {
    /// short, long, or names of scenarios with commas between, each with /grpc or /http for that plugin type alone
    #[arg(long, default_value = "long")]
    set: String,
    /// A real gost, static, for all hosts and clients; else they are simulated
    #[arg(long, env = "GOSSD_GOST", value_name = "FILE")]
    gost: Option<PathBuf>,
    /// Another gossd, static, for agents without test switches: to compare two versions
    #[arg(long, value_name = "FILE")]
    gossd: Option<PathBuf>,
    /// The tag of the images, where several trees share an engine
    #[arg(long, env = "GOSSD_TEST_TAG", default_value = "latest")]
    tag: String,
    /// Above so many agents not everybody watches everybody
    #[arg(long, value_name = "AGENTS")]
    mesh: Option<usize>,
    /// Hosts of every world that have an agent and nothing else
    #[arg(long, default_value_t = 0, value_name = "HOSTS", value_parser = clap::value_parser!(u8).range(..=50))]
    bystanders: u8,
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
    /// For keys, configurations, and the logs of what failed
    #[arg(long, default_value = "target/scenarios")]
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match all(ScenarioArgs::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

struct RunSetup {
    /// Part of the name of every container of this process.
    run: String,
    folder: PathBuf,
    gost: Option<PathBuf>,
    gossd: Option<PathBuf>,
    mesh: Option<usize>,
    bystanders: u8,
    tag: String,
}

async fn all(args: ScenarioArgs) -> anyhow::Result<()> {
    let chosen: Vec<(&'static Scenario, PluginKind)> = scenarios::all()
        .flat_map(|scenario| [PluginKind::Grpc, PluginKind::Http].map(|plugin| (scenario, plugin)))
        .filter(|(scenario, plugin)| scenario.is_in(&args.set, *plugin))
        .collect();
    if args.list {
        for (scenario, plugin) in chosen {
            println!(
                "{:<36} {}: {}",
                format!("{}/{plugin}", scenario.name),
                scenario.fault,
                scenario.promise
            );
        }
        return Ok(());
    }
    anyhow::ensure!(!chosen.is_empty(), "no scenario is in {}", args.set);
    let gost = args.gost.map(|path| std::path::absolute(&path).context("--gost")).transpose()?;
    let gossd = args.gossd.map(|path| std::path::absolute(&path).context("--gossd")).transpose()?;
    let version = gost.as_deref().map_or_else(|| Ok("simulated gost".into()), version)?;
    println!("{version}");
    let folder = std::path::absolute(&args.folder).context("--folder")?;
    let run = format!("{:x}", std::process::id());
    let ScenarioArgs { mesh, bystanders, tag, .. } = args;
    let setup = RunSetup { run, folder, gost, gossd, mesh, bystanders, tag };
    let mut outcomes = Vec::new();
    let mut number = 0;
    for (scenario, plugin) in chosen {
        let mut outcome = match (scenario.simulated_only, &setup.gost) {
            (Some(why), Some(_)) => ScenarioResult::skipped(scenario, plugin, why),
            _ => ScenarioResult::of(scenario, plugin),
        };
        let times = if outcome.is_skipped() { 0 } else { args.repeat };
        let runs = (0..times).map(|_| {
            number += 1;
            one(scenario, plugin, &setup, number)
        });
        let mut runs = futures_util::stream::iter(runs).buffered(args.jobs.max(1));
        while let Some((measured, took)) = runs.next().await {
            outcome.add(measured, took);
        }
        drop(runs);
        // Only when every run has removed its containers.
        if INTERRUPTED.load(Ordering::Relaxed) {
            anyhow::bail!(Interrupted);
        }
        println!("{outcome}");
        outcomes.push(outcome);
        if let Some(path) = &args.table {
            std::fs::write(path, table::markdown(&outcomes, &version))?;
        }
    }
    if args.noticed {
        for broken in NOTICED {
            // A scenario that fails without sabotage proves nothing.
            if !outcomes.iter().any(|outcome| outcome.is_kept_by(broken.scenario, broken.plugin)) {
                number += 1;
                whole(&broken, &setup, number).await?;
            }
            number += 1;
            noticed(&broken, &setup, number).await?;
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.is_kept()).count();
    anyhow::ensure!(failed == 0, "{failed} of {} scenarios failed", outcomes.len());
    Ok(())
}

fn version(gost: &Path) -> anyhow::Result<String> {
    let ran = Command::new(gost).arg("-V").output().with_context(|| gost.display().to_string())?;
    let said = String::from_utf8_lossy(&ran.stdout);
    let said = said.lines().next().filter(|said| !said.is_empty());
    Ok(format!("real {}", said.context("it does not say its version")?))
}

/// One run, and how long it took.
async fn one(
    scenario: &'static Scenario,
    plugin: PluginKind,
    setup: &RunSetup,
    number: u32,
) -> (anyhow::Result<Measured>, Duration) {
    let started = Instant::now();
    if INTERRUPTED.load(Ordering::Relaxed) {
        return (Err(Interrupted.into()), Duration::ZERO);
    }
    let measured = perform(scenario, setup, number, scenario.plan(plugin)).await;
    (measured, started.elapsed())
}

/// Runs a scenario unbroken: it has to keep its promise.
async fn whole(noticed: &Noticed, setup: &RunSetup, number: u32) -> anyhow::Result<()> {
    let Noticed { scenario: name, plugin, .. } = noticed;
    let scenario = scenarios::named(name);
    let kept = perform(scenario, setup, number, scenario.plan(*plugin)).await;
    let kept = kept.with_context(|| format!("{name}/{plugin} fails although nothing is broken"))?;
    println!("ok   {name}/{plugin}, with nothing broken: {kept}");
    Ok(())
}

/// Runs a scenario with something broken: its visitors have to notice.
async fn noticed(noticed: &Noticed, setup: &RunSetup, number: u32) -> anyhow::Result<()> {
    let Noticed { broken, scenario: name, plugin } = noticed;
    let scenario = scenarios::named(name);
    let felt = match perform(scenario, setup, number, broken.apply(scenario.plan(*plugin))).await {
        Ok(measured) => anyhow::bail!("{name}/{plugin} did not notice that {broken} is broken: {measured}"),
        Err(error) => format!("{error:#}"),
    };
    let by_visitors = felt.contains("promised") || felt.contains("visitors are not served");
    anyhow::ensure!(by_visitors, "{name}/{plugin} failed for another reason than {broken}: {felt}");
    println!("ok   {name}/{plugin} notices that {broken} is broken: {felt}");
    Ok(())
}

/// Whether the tests were interrupted: then nothing new is started.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The tests were interrupted. This is no failure of a scenario.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; everything is removed")]
struct Interrupted;

/// Waits for a signal; the runs then remove their containers.
async fn interrupted() {
    let mut term = signal(SignalKind::terminate()).expect("this system has signals");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Runs a scenario in a world of its own, which is removed afterwards; after a failure its logs stay.
async fn perform(scenario: &Scenario, setup: &RunSetup, number: u32, plan: Plan) -> anyhow::Result<Measured> {
    let RunSetup { run, folder, gost, gossd, mesh, bystanders, tag } = setup;
    let mesh = mesh.map(|agents| format!("GOSSD_TEST_MESH={agents}"));
    let switches = plan.switches.into_iter().chain(mesh).collect();
    let bystanders = *bystanders;
    let plan = Plan { real_gost: gost.clone(), gossd: gossd.clone(), switches, bystanders, ..plan };
    let mut world = World::new(run, number, folder, tag, plan).await?;
    let measured = tokio::select! {
        measured = (scenario.run)(&mut world) => measured,
        () = interrupted() => Err(Interrupted.into()),
    };
    let measured = measured.and_then(Measured::check);
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
