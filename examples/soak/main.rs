//! An accelerated week: some agents, each a process with a journal and real sockets; gosts with ten thousand tunnels; and
//! all that happens to them, until nothing may be left of it.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 28
//! cargo run --example soak -- --short
//! ```
//!
//! Tunnels attach (*fill*), all agents and clients start once more (*warm*), everything is measured (*plateau*), everything that can happen does (*chaos*), and stops (*calm*).
//! Then every agent's directory has to be what is true, and its memory, tasks and files what they were. All the while,
//! no answer may be wrong, and no figure above its bound. What takes minutes and hours in an agent (an empty slot, a
//! lapsed record, a dead peer) takes seconds here, so that a week's worth of it comes and goes.
//!
//! Exits with 1 if anything of that does not hold.

mod agent;
mod chaos;
mod gost;
mod model;
mod relay;
mod watch;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use agent::{Agent, Figures, Setup};
use anyhow::ensure;
use chaos::{Pace, Seat, Stage};
use clap::Parser;
use gost::{Fate, Gost, Host};
use model::Model;
use relay::{Link, Peer, Relay};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;

/// Tunnels of one gost.
const TUNNELS_EACH: usize = 50;
/// How often all clients reconnect before the plateau.
const WARMING: u32 = 10;
/// How often chaos tells how much memory agents take.
const MINUTE: Duration = Duration::from_secs(60);
/// The agents between which the link fails.
const LINKED: [usize; 2] = [0, 1];

#[derive(Clone, Parser)]
struct Args {
    /// Minutes in all, fill included
    #[arg(long, default_value_t = 28.0)]
    minutes: f64,
    /// Half a minute, with a tenth of the tunnels: that the soak itself works
    #[arg(long)]
    short: bool,
    /// Agents
    #[arg(long, default_value_t = 4)]
    agents: usize,
    /// Tunnels
    #[arg(long, default_value_t = 10_000)]
    tunnels: usize,
    /// Seconds between two Renews of a tunnel
    #[arg(long, default_value_t = 6)]
    renew: u64,
    /// Ids that every agent has released before the plateau: more than it remembers
    #[arg(long, default_value_t = 120_000)]
    released: usize,
    /// How many times as fast as usual agents forget
    #[arg(long, default_value_t = 60)]
    hurry: u32,
    /// What of every agent does not work, which has to show: leases, suspicion, push or anti-entropy
    #[arg(long)]
    broken: Option<String>,
    /// Of everything that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "run") {
        return gossd::cli::main();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(soak(Args::parse().shortened())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Args {
    fn shortened(self) -> Self {
        if self.short {
            Self { minutes: 0.4, tunnels: self.tunnels / 10, renew: 2, released: 0, hurry: 360, ..self }
        } else {
            self
        }
    }

    fn pace(&self) -> Pace {
        let ms = Duration::from_millis;
        if self.short {
            Pace { churn: ms(50), fates: ms(800), storms: ms(4_000), restarts: ms(8_000), flaps: ms(2_000) }
        } else {
            Pace {
                churn: ms(60),
                fates: ms(2_000),
                storms: ms(20_000),
                restarts: ms(25_000),
                flaps: ms(6_000),
            }
        }
    }
}

async fn soak(args: Args) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let folder = tempfile::tempdir()?;
    let mut tasks = JoinSet::new();
    let (seats, link) = agents(&args, folder.path(), &mut tasks).await?;
    let model = Arc::new(Model::new(args.tunnels, args.agents));
    let told = release(&args, &seats).await;
    let gosts = match told {
        Ok(()) => fill(&args, &model, &seats, &mut tasks).await?,
        Err(error) => return Err(error),
    };
    let stage = Stage { model: model.clone(), seats: seats.clone(), gosts, link };
    let outcome = tokio::select! {
        outcome = play(&args, &stage, begun) => outcome,
        Some(ended) = tasks.join_next() => match ended? {
            Ok(()) => Err(anyhow::anyhow!("a task ended")),
            Err(error) => Err(error),
        },
    };
    if outcome.is_err() {
        for seat in &seats {
            seat.with(|agent| eprintln!("{} logged last:\n{}", agent.name(), agent.log(8)));
        }
    }
    let (before, after) = outcome?;
    Ok(report(&model, &seats, &before, &after, begun))
}

/// What is measured on the plateau and in the calm.
async fn play(args: &Args, stage: &Stage, begun: Instant) -> anyhow::Result<(Vec<Figures>, Vec<Figures>)> {
    let Stage { model, seats, .. } = stage;
    let told = |what: &str| println!("{:>6.1} s  {what}", begun.elapsed().as_secs_f64());
    let every = Duration::from_millis(if args.short { 500 } else { 5_000 });
    let visits = watch::visit(model.clone(), seats.clone(), Duration::from_millis(2));
    let left = Duration::from_secs_f64(args.minutes * 60.0).saturating_sub(begun.elapsed());
    let phases = async {
        let took = watch::agree(model, seats, Duration::from_secs(60)).await?;
        told(&format!("all agents agreed after {:.1} s; warming up", took.as_secs_f64()));
        warm(stage).await?;
        let took = watch::agree(model, seats, model::UNSURE * 2).await?;
        told(&format!("plateau: all agents agreed after {:.1} s", took.as_secs_f64()));
        let plateau = watch::measure(model, seats, left.mul_f64(0.12), every).await?;
        told("chaos");
        let time = left.mul_f64(0.62);
        let chaos = stage.chaos(time, args.pace(), args.seed);
        let mut samples = tokio::time::interval(every);
        tokio::pin!(chaos);
        let mut minute = Instant::now();
        loop {
            tokio::select! {
                done = &mut chaos => break done?,
                _ = samples.tick() => {
                    let figures = watch::sample(model, seats).await;
                    if minute.elapsed() >= MINUTE {
                        minute = Instant::now();
                        told(&memory(&figures));
                    }
                }
            }
        }
        told("calm: gosts go home");
        stage.tell((0..stage.gosts.len()).map(|gost| (gost, Fate::Move(gost % args.agents)))).await?;
        let took = watch::agree(model, seats, model::UNSURE * 2).await?;
        told(&format!("all agents agree after {:.1} s", took.as_secs_f64()));
        let calm = watch::measure(model, seats, left.mul_f64(0.22), every).await?;
        watch::agree(model, seats, Duration::ZERO).await?;
        anyhow::Ok((plateau, calm))
    };
    tokio::select! {
        outcome = phases => outcome,
        ended = visits => ended.and(Err(anyhow::anyhow!("nobody visits any more"))),
    }
}

/// Ordinary days: every agent is started from its journal, and every client has reconnected many times. Tables that are
/// full and change have more room than those that were only filled, and what is allocated for a moment leaves holes between
/// what stays: an agent has what it takes in the long run only then.
async fn warm(stage: &Stage) -> anyhow::Result<()> {
    for (n, seat) in stage.seats.iter().enumerate() {
        stage.model.died(n);
        seat.end(agent::End::Told).await?;
        seat.start().await?;
        stage.model.started(n);
    }
    for _ in 0..WARMING {
        stage.tell((0..stage.gosts.len()).map(|gost| (gost, Fate::Storm))).await?;
    }
    Ok(())
}

/// The memory of each agent, in megabytes.
fn memory(figures: &[Option<Figures>]) -> String {
    let each = figures.iter().map(|figures| match figures {
        Some(figures) => format!("{:.1}", figures.memory / 1e6),
        None => "away".into(),
    });
    format!("memory MB: {}", each.collect::<Vec<_>>().join(" "))
}

/// Starts the agents; the first two meet through relays.
async fn agents(
    args: &Args,
    folder: &std::path::Path,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<(Vec<Seat>, channel::Sender<Link>)> {
    ensure!((2..=100).contains(&args.agents), "from 2 to 100 agents");
    let (link, linked) = channel::channel(Link::Up);
    // As by default, if gost renews every 15 s.
    let ttl = args.renew * 4;
    let (ttl, hurry) = (ttl.max(5).to_string(), args.hurry.to_string());
    let flags = ["--lease-ttl", &ttl, "--test-hurry", &hurry, "--test-dead-grace", "20"];
    let mut flags: Vec<String> = flags.map(String::from).into();
    flags.extend(args.broken.iter().flat_map(|broken| ["--test-broken".into(), broken.clone()]));
    let (mut seats, mut relays): (Vec<Seat>, Vec<Relay>) = (Vec::new(), Vec::new());
    for n in 0..args.agents {
        let at = |net| Ipv4Addr::new(127, 0, net, u8::try_from(n).unwrap_or(0) + 1);
        let is_linked = LINKED.contains(&n);
        let advertised = at(if is_linked { 2 } else { 1 });
        let mut port = 0;
        if is_linked {
            relays.push(Relay::bind(advertised).await?);
            port = relays[n].port()?;
        }
        let join = seats.first().map(|first: &Seat| first.with(|agent| agent.meeting_point()));
        let (name, folder) = (format!("agent-{n}"), folder.to_owned());
        let setup = Setup { name, ip: at(1), advertised, port, join, folder, flags: flags.clone() };
        seats.push(Seat::new(tokio::task::spawn_blocking(|| Agent::new(setup)).await??));
    }
    for (n, relay) in relays.into_iter().enumerate() {
        let other = &seats[LINKED[1 - n]];
        let IpAddr::V4(ip) = other.with(|agent| agent.gossip.ip()) else { continue };
        let peer = Peer { ip, pid: other.pid.clone(), link: linked.clone() };
        tasks.spawn(relay.run(seats[n].with(|agent| agent.gossip), peer));
    }
    Ok((seats, link))
}

/// What came and went before: every agent remembers as many released ids as it can.
async fn release(args: &Args, seats: &[Seat]) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for seat in seats {
        let plugin = seat.with(|agent| agent.plugin);
        let count = args.released;
        tasks.spawn(async move {
            let mut client = wire::Client::new(plugin);
            let (name, node) = (model::uuid(), model::uuid());
            for first in (0..count).step_by(1_000) {
                let request = |_| {
                    let id = model::uuid();
                    let body = format!(
                        r#"{{"id":"{id}","name":"{name}","node":"{node}","network":"","address":""}}"#
                    );
                    wire::write("DELETE", &body)
                };
                let requests: Vec<String> = (first..count.min(first + 1_000)).map(request).collect();
                client.calls(&requests).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Starts the gosts, and lets their clients attach.
async fn fill(
    args: &Args,
    model: &Arc<Model>,
    seats: &[Seat],
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Vec<mpsc::Sender<gost::Order>>> {
    let host = |seat: &Seat| {
        seat.with(|agent| match agent.advertised() {
            IpAddr::V4(advertised) => Ok(Host { plugin: agent.plugin, advertised }),
            IpAddr::V6(_) => Err(anyhow::anyhow!("agents are at IPv4 addresses")),
        })
    };
    let hosts = Arc::new(seats.iter().map(host).collect::<anyhow::Result<Vec<Host>>>()?);
    let mut starting = JoinSet::new();
    let count = args.tunnels.div_ceil(TUNNELS_EACH);
    for n in 0..count {
        let tunnels = n * TUNNELS_EACH..args.tunnels.min((n + 1) * TUNNELS_EACH);
        let (model, hosts, renew) = (model.clone(), hosts.clone(), Duration::from_secs(args.renew));
        let (home, seed) = (n % args.agents, args.seed.wrapping_mul(1_000_003).wrapping_add(n as u64));
        starting.spawn(async move {
            let mut gost = Gost::start(model, hosts, home, tunnels, renew, seed).await?;
            gost.attach_all().await;
            anyhow::Ok((n, gost))
        });
    }
    let mut gosts: Vec<Option<mpsc::Sender<gost::Order>>> = vec![None; count];
    while let Some(started) = starting.join_next().await {
        let (n, gost) = started??;
        let (orders, taken) = mpsc::channel(4);
        gosts[n] = Some(orders);
        tasks.spawn(gost.live(taken));
    }
    Ok(gosts.into_iter().flatten().collect())
}

/// Prints what came of it; whether all is well.
fn report(model: &Model, seats: &[Seat], before: &[Figures], after: &[Figures], begun: Instant) -> bool {
    println!(
        "\n{:<9} {:>7} {:>15} {:>11} {:>11} {:>13} {:>13} {:>15} {:>13}",
        "agent",
        "starts",
        "memory MB",
        "tasks",
        "files",
        "own records",
        "slot places",
        "journal kB",
        "bytes/record"
    );
    for (n, (before, after)) in before.iter().zip(after).enumerate() {
        let pair = |figure: &dyn Fn(&Figures) -> f64, digits: usize| {
            format!("{:.digits$} {:.digits$}", figure(before), figure(after))
        };
        println!(
            "{:<9} {:>7} {:>15} {:>11} {:>11} {:>13} {:>13} {:>15} {:>13}",
            seats[n].with(|agent| agent.name().to_owned()),
            seats[n].with(|agent| agent.starts),
            pair(&|figures| figures.memory / 1e6, 1),
            pair(&|figures| figures.sum("gossd_tasks"), 0),
            pair(&|figures| figures.files, 0),
            pair(&|figures| figures.of("gossd_records", "self"), 0),
            pair(&|figures| figures.of("gossd_table_entries", "slot_places"), 0),
            pair(&|figures| figures.sum("journal") / 1e3, 0),
            pair(&|figures| figures.sum("journal") / watch::kept(figures), 0),
        );
        for (what, figure, most) in [
            ("memory", &(|f: &Figures| f.memory) as &dyn Fn(&Figures) -> f64, allowed_memory(before, after)),
            ("tasks", &|f: &Figures| f.sum("gossd_tasks") - connections(f), own(before, "gossd_tasks") + 4.0),
            ("files", &|f: &Figures| f.files - connections(f), before.files - connections(before) + 4.0),
        ] {
            if figure(after) > most {
                model.accuse(format!("agent {n}: {what} is {:.0} and may be {most:.0}", figure(after)));
            }
        }
    }
    println!(
        "each: on the plateau, in the calm; a record of a journal: live, lapsed, or an id that was released\n"
    );
    summary(model, begun);
    model.wrong().is_empty()
}

/// A tenth more than on the plateau, and what released ids take that were not there: they are bounded for themselves.
fn allowed_memory(before: &Figures, after: &Figures) -> f64 {
    let released = |figures: &Figures| figures.of("gossd_table_entries", "released");
    before.memory * 1.1 + 128.0 * (released(after) - released(before)).max(0.0)
}

fn own(figures: &Figures, name: &str) -> f64 {
    figures.sum(name) - connections(figures)
}

/// Between agents: there while there is something large to say, and a while longer.
fn connections(figures: &Figures) -> f64 {
    ["connections_in", "connections_out"].map(|table| figures.of("gossd_gossip_entries", table)).iter().sum()
}

fn summary(model: &Model, begun: Instant) {
    let tally = &model.tally;
    for (count, what) in [
        (&tally.registrations, "registrations"),
        (&tally.renews, "renews"),
        (&tally.deregistrations, "deregistrations"),
        (&tally.gets, "visitors' questions"),
        (&tally.unheard, "calls while their agent was away"),
        (&tally.unknown, "renews of what no agent knew any more"),
        (&tally.storms, "gosts whose clients all reconnected"),
        (&tally.moves, "gosts moved"),
        (&tally.crashes, "gosts crashed"),
        (&tally.terms, "agents ended by SIGTERM"),
        (&tally.kills, "agents ended by SIGKILL"),
        (&tally.flaps, "failures of a link"),
    ] {
        println!("{:>10} {what}", count.load(Ordering::Relaxed));
    }
    let wrong = model.wrong();
    println!(
        "{:>10} wrong answers and figures, in {:.1} minutes",
        wrong.len(),
        begun.elapsed().as_secs_f64() / 60.0
    );
    for wrong in wrong.iter().take(20) {
        println!("           {wrong}");
    }
}

/// Counts are far smaller than what a float has digits for.
#[expect(clippy::cast_precision_loss, reason = "figures for a table")]
fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}
