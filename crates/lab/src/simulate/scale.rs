//! One large cluster: what it costs the network when nothing happens, and how long a change takes to the last agent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use gossd_core::agent::{Broken, State};
use gossd_core::connection::Caller;
use gossd_core::lease::Holding;
use gossd_core::link::MESH;
use gossd_core::link::counters::Counters;
use gossd_core::link::wire::Kind;
use gossd_core::liveness::Standing;
use gossd_core::record::{AgentName, Network as Protocol, Record};
use rustix::time::{ClockId, clock_gettime};

use super::arrivals::percentile;
use super::engine::Simulation;
use super::host::SimHost;
use super::net::{SimNetwork, Weather};
use gossd_lab::float;
use gossd_lab::table::{Column, Out};

/// One-way milliseconds between four regions.
const REGIONS: [[u64; 4]; 4] = [[0, 20, 80, 140], [20, 0, 70, 120], [80, 70, 0, 250], [140, 120, 250, 0]];
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// Records of a gost that dies.
const GOST: usize = 20;
/// Hosts that are lost, of a large cluster.
const LOST: usize = 10;

#[derive(Args)]
pub(super) struct ScaleArgs {
    /// No stories, but a cluster of so many agents
    #[arg(long)]
    pub(super) agents: Option<usize>,
    /// Share of its datagrams that is lost
    #[arg(long, default_value_t = 0.0, requires = "agents")]
    loss: f64,
    /// Milliseconds that a way loses everything on average, and then nothing for as long as --loss leaves; 0: each datagram by itself
    #[arg(long, default_value_t = 0, requires = "loss")]
    burst: u64,
    /// Whether they are in four regions, 20 to 250 ms apart one way
    #[arg(long, requires = "agents")]
    wan: bool,
    /// Seconds that all agents know each other when registrations begin: after a minute, they know which ways lose frames
    #[arg(long, default_value_t = 60, requires = "agents")]
    settled: u64,
    /// Registrations, one every 20 ms
    #[arg(long, default_value_t = 200, requires = "agents")]
    changes: usize,
    /// Above so many agents not everybody watches everybody
    #[arg(long, default_value_t = MESH, requires = "agents")]
    mesh: usize,
    /// At the end, 5 % of the hosts are lost at once, and the rest falls into halves for so many seconds; 0 for none of it
    #[arg(long, default_value_t = 0, requires = "agents")]
    apart: u64,
    /// Minutes in which doubts and suspicions are counted, although everybody lives
    #[arg(long, default_value_t = 0, requires = "agents")]
    minutes: u64,
}

pub(super) fn measure(scale: &ScaleArgs, seed: u64, count: usize, out: Out) -> anyhow::Result<()> {
    ensure!(count >= 2, "it takes two agents");
    let regions = if scale.wan { REGIONS.iter().map(|row| row.to_vec()).collect() } else { Vec::new() };
    ensure!((0.0..1.0).contains(&scale.loss), "--loss is a share below 1");
    let burst = if scale.loss > 0.0 { Duration::from_millis(scale.burst) } else { Duration::ZERO };
    let weather = Weather { loss: scale.loss, burst, regions, ..Weather::fine() };
    let network = SimNetwork::new(seed, count, weather).forgetful();
    let mut engine = meet(count, seed, scale.mesh, network)?;
    engine.run(Duration::from_secs(scale.settled))?;
    let idle = rates_of(&mut engine, IDLE)?;
    let all: Vec<usize> = (0..count).collect();
    let more = changes(&mut engine, 1, &all, scale.changes)?;
    let wrongly = wronged(&mut engine, Duration::from_secs(60 * scale.minutes))?;
    let dead = death(&mut engine)?;
    let lost = detection(&mut engine)?;
    let table = out.table([
        Column::Number("agents", 0),
        Column::Number("loss", 2),
        Column::Number("regions", 0),
        Column::Number("p50_ms", 1),
        Column::Number("p99_ms", 1),
        Column::Number("max_ms", 1),
        Column::Number("ping_bytes_per_s", 0),
        Column::Number("board_bytes_per_s", 0),
        Column::Number("idle_bytes_per_s", 0),
        Column::Number("cards_bytes", 0),
        Column::Number("idle_cpu_ms_per_s", 2),
        Column::Number("false_doubts", 0),
        Column::Number("false_suspicions", 0),
        Column::Number("doubted_p99_ms", 0),
        Column::Number("suspect_p99_ms", 0),
        Column::Number("dead_gost_ms", 0),
        Column::Number("seed", 0),
    ]);
    table.row([
        count.into(),
        scale.loss.into(),
        if scale.wan { REGIONS.len() } else { 1 }.into(),
        percentile(&more, 50).into(),
        percentile(&more, 99).into(),
        percentile(&more, 100).into(),
        idle.pings.into(),
        idle.boards.into(),
        idle.all.into(),
        engine.network.traffic().largest_cards.into(),
        idle.processor_ms.into(),
        wrongly.doubted.into(),
        wrongly.suspected.into(),
        percentile(&lost.doubted, 99).into(),
        percentile(&lost.suspected, 99).into(),
        (dead.as_secs_f64() * 1e3).into(),
        seed.into(),
    ]);
    out.say(&format!(
        "p50, p99, max: from a registration to the last agent, without the one-way delay to the farthest; virtual time,\n\
         without the processor's. Bytes/s: one agent's, sealed, while nothing changes; ping: pings and pongs, board: digests\n\
         and cards. cards: the largest frame of them. idle cpu: of one agent meanwhile, with its share of the simulator, in\n\
         this build. false: how often one live agent doubted or suspected another in {} minutes. doubted, suspect: from the\n\
         loss of a host, one of up to ten, until the last agent doubts it, which lists it behind the others, and suspects\n\
         it, which lists it last. dead gost: until the last agent has forgotten its records.",
        scale.minutes
    ));
    if scale.apart > 0 {
        let Blows { dying_ms, met, known } = blows(&mut engine, Duration::from_secs(scale.apart))?;
        let table = out.table([
            Column::Number("agents", 0),
            Column::Number("five_percent_dead_p99_ms", 1),
            Column::Number("halves_met_s", 2),
            Column::Number("halves_known_s", 2),
        ]);
        table.row([count.into(), dying_ms.into(), met.as_secs_f64().into(), known.as_secs_f64().into()]);
        out.say(
            "five percent dead: a change among the others, while nobody has noticed. halves: from the end of their time apart\n\
             until everybody is heard by everybody, and until the last agent knows what changed on the other side.",
        );
    }
    Ok(())
}

fn meet(count: usize, seed: u64, mesh: usize, network: SimNetwork) -> anyhow::Result<Simulation> {
    let hosts =
        (0..count).map(|number| SimHost::new(number, Duration::from_secs(60), mesh, Broken::default()));
    let mut engine = Simulation::new(seed ^ 0xe1f, network, hosts.collect::<Result<_, _>>()?, false);
    for host in 0..count {
        engine.start(host, &[0, 1])?;
        engine.run(Duration::from_secs(1) / u32::try_from(count)?)?;
    }
    let start = engine.now();
    let met = |host: &SimHost| {
        host.running
            .as_ref()
            .is_some_and(|running| running.peers.len() == count - 1 && running.state.counts().agents == count)
    };
    while !engine.hosts.iter().all(met) {
        ensure!(engine.now() - start < Duration::from_secs(120), "they did not all meet in two minutes");
        engine.run(Duration::from_millis(100))?;
    }
    Ok(engine)
}

/// What one agent costs in a second: bytes that it sends, and milliseconds of a processor.
struct Rates {
    pings: f64,
    boards: f64,
    all: f64,
    processor_ms: f64,
}

fn rates_of(engine: &mut Simulation, during: Duration) -> anyhow::Result<Rates> {
    let sent = |engine: &Simulation, kinds: &[Kind]| -> u64 {
        let bytes = |counters: &Counters| kinds.iter().map(|kind| counters.sent_bytes_of(*kind)).sum::<u64>();
        counters(engine).map(bytes).sum()
    };
    let read = |engine: &Simulation| {
        [
            &[Kind::Ping, Kind::Pong][..],
            &[Kind::Digest, Kind::Rows, Kind::Cards, Kind::Copies, Kind::Versions],
            &Kind::ALL,
        ]
        .map(|kinds| sent(engine, kinds))
    };
    let before = read(engine);
    let processor = clock_gettime(ClockId::ProcessCPUTime);
    engine.run(during)?;
    let processor = clock_gettime(ClockId::ProcessCPUTime) - processor;
    let after = read(engine);
    let agent_seconds = during.as_secs_f64() * float(engine.hosts.len());
    let rate = |at: usize| float(after[at] - before[at]) / agent_seconds;
    let processor_ms = Duration::try_from(processor)?.as_secs_f64() * 1e3 / agent_seconds;
    Ok(Rates { pings: rate(0), boards: rate(1), all: rate(2), processor_ms })
}

fn counters(engine: &Simulation) -> impl Iterator<Item = &Counters> {
    engine.hosts.iter().filter_map(|host| Some(&*host.running.as_ref()?.counters))
}

/// Registers connectors at these hosts by turns, one every 20 ms: how long each took to the last of them, in milliseconds,
/// without the one-way delay to the farthest; in order.
fn changes(engine: &mut Simulation, run: usize, among: &[usize], count: usize) -> anyhow::Result<Vec<f64>> {
    for (number, origin) in among.iter().cycle().take(count).enumerate() {
        let others: BTreeSet<usize> = among.iter().copied().filter(|host| host != origin).collect();
        let (id, tunnel) = (format!("connector-{run}-{number}"), tunnel(run, number));
        engine.arrivals.expect(
            engine.now(),
            id.as_str().into(),
            tunnel.clone(),
            others,
            format!("{run} {origin}"),
        );
        register(engine, *origin, 1, &id, &tunnel, "10.0.0.1:8420")?;
        engine.run(Duration::from_millis(20))?;
    }
    let start = engine.now();
    while engine.arrivals.open() > 0 {
        let open = engine.arrivals.open();
        ensure!(engine.now() - start < Duration::from_secs(60), "{open} changes did not arrive everywhere");
        engine.run(Duration::from_millis(20))?;
    }
    let (weather, run) = (engine.network.weather(), format!("{run} "));
    let mut more = Vec::new();
    for (what, times) in engine.arrivals.took() {
        let Some(origin) = what.strip_prefix(&run) else { continue };
        let origin: usize = origin.parse()?;
        let farthest = among.iter().map(|host| weather.distance(origin, *host)).max().unwrap_or_default();
        more.extend(times.iter().map(|ms| ms - farthest.as_secs_f64() * 1e3));
    }
    more.sort_by(f64::total_cmp);
    Ok(more)
}

fn tunnel(run: usize, number: usize) -> String {
    format!("00000000-0000-4000-8000-{run:04}{number:08}")
}

/// A gost attaches a connector by that connection.
fn register(
    engine: &mut Simulation,
    host: usize,
    connection: u64,
    id: &str,
    tunnel: &str,
    address: &str,
) -> anyhow::Result<()> {
    let (id, name, node) = (id.into(), tunnel.into(), format!("node-{host}-{connection}").as_str().into());
    let record = Record { id, name, node, network: Protocol::Tcp, address: address.into() };
    let dial = if connection == 1 { "".into() } else { "127.0.0.1:8421".into() };
    let holding = Holding { record: Arc::new(record), dial };
    let caller = Caller::local(connection);
    engine.call(host, |state, now| state.register(now, caller, holding)).context("it runs")??;
    Ok(())
}

/// How often agents doubted and suspected others that lived.
struct Wronged {
    doubted: u64,
    suspected: u64,
}

fn wronged(engine: &mut Simulation, during: Duration) -> anyhow::Result<Wronged> {
    let counted = |engine: &Simulation| {
        let sum = |of: fn(&Counters) -> u64| counters(engine).map(of).sum::<u64>();
        (sum(Counters::doubts), sum(Counters::suspicions))
    };
    let (doubts, suspicions) = counted(engine);
    engine.run(during)?;
    let (doubted, suspected) = counted(engine);
    Ok(Wronged { doubted: doubted - doubts, suspected: suspected - suspicions })
}

/// From the end of a gost, whose port refuses and whose connection is closed, to the last agent that lists a record
/// of it.
fn death(engine: &mut Simulation) -> anyhow::Result<Duration> {
    let owner = engine.hosts.len() - 1;
    let tunnels = |number: usize| tunnel(0, number);
    for number in 0..GOST {
        register(engine, owner, 2, &format!("of-the-dead-{number}"), &tunnels(number), "10.0.0.1:8421")?;
    }
    let all_list = |engine: &mut Simulation, wanted: usize| {
        (0..owner).all(|host| {
            let listed = engine.call(host, |state, now| {
                (0..GOST).filter(|n| !state.resolve(now, &tunnels(*n), 0).is_empty()).count()
            });
            listed.unwrap_or_default() == wanted
        })
    };
    soon(engine, |engine| all_list(engine, GOST), "its records are not known everywhere")?;
    engine.call(owner, |state, _| state.connection_closed(2));
    soon(engine, |engine| all_list(engine, 0), "somebody still lists its records")
}

/// How long it takes.
fn soon(
    engine: &mut Simulation,
    mut done: impl FnMut(&mut Simulation) -> bool,
    what: &str,
) -> anyhow::Result<Duration> {
    let start = engine.now();
    while !done(engine) {
        ensure!(engine.now() - start < Duration::from_secs(60), "{what}");
        engine.run(Duration::from_millis(20))?;
    }
    Ok(engine.now() - start)
}

/// From the loss of each host to the last agent that doubts it, and that suspects it, in milliseconds, in order.
struct Detection {
    doubted: Vec<f64>,
    suspected: Vec<f64>,
}

/// Some hosts are lost at once, of each region, so few that it does not matter to each other.
fn detection(engine: &mut Simulation) -> anyhow::Result<Detection> {
    let count = engine.hosts.len();
    let lost = (count / 50).clamp(1, LOST);
    let lost: Vec<usize> = (0..lost).map(|number| number * (count / lost) + number % REGIONS.len()).collect();
    let names: Vec<AgentName> = lost.iter().map(|host| engine.hosts[*host].name.clone()).collect();
    for host in lost {
        engine.hosts[host].crash();
    }
    let (start, end) = (engine.now(), engine.now() + Duration::from_secs(60));
    let mut detection = Detection { doubted: Vec::new(), suspected: Vec::new() };
    let (mut live, mut alive) = (names.clone(), names);
    while !alive.is_empty() {
        ensure!(engine.now() < end, "somebody takes a lost host for alive");
        engine.run(Duration::from_millis(20))?;
        let now = engine.now();
        let took = (now - start).as_secs_f64() * 1e3;
        let is_any = |name: &AgentName, is: fn(Standing) -> bool| {
            let mut running = engine.hosts.iter().filter_map(|host| host.running.as_ref());
            running.any(|running| is(running.state.standing(now, name)))
        };
        for (names, is, times) in [
            (
                &mut live,
                (|standing| standing == Standing::Live) as fn(Standing) -> bool,
                &mut detection.doubted,
            ),
            (&mut alive, Standing::is_alive, &mut detection.suspected),
        ] {
            let before = names.len();
            names.retain(|name| is_any(name, is));
            times.extend(std::iter::repeat_n(took, before - names.len()));
        }
    }
    Ok(detection)
}

/// What happens to the cluster at the end.
struct Blows {
    /// How long fifty changes take, the ninety-ninth in a hundred, while one agent in twenty is dead, in milliseconds.
    dying_ms: f64,
    /// From the end of a partition until everybody is live to everybody.
    met: Duration,
    /// And until what changed meanwhile is known on both sides.
    known: Duration,
}

fn blows(engine: &mut Simulation, apart: Duration) -> anyhow::Result<Blows> {
    let is_running = |engine: &Simulation, host: usize| engine.hosts[host].running.is_some();
    for host in (1..engine.hosts.len()).step_by(20) {
        engine.hosts[host].crash();
    }
    let living: Vec<usize> = (0..engine.hosts.len()).filter(|host| is_running(engine, *host)).collect();
    // One second, in which none of the dead is doubted.
    let dying = changes(engine, 2, &living, 50)?;
    engine.run(Duration::from_secs(5))?;

    let (left, right) = living.split_at(living.len() / 2);
    for one in left {
        for other in right {
            engine.network.cut(*one, *other);
            engine.network.cut(*other, *one);
        }
    }
    engine.run(apart)?;
    for (number, host) in left.iter().take(10).chain(right.iter().take(10)).enumerate() {
        register(engine, *host, 1, &format!("apart-{number}"), &tunnel(3, number), "10.0.0.1:8420")?;
    }
    engine.run(Duration::from_secs(1))?;
    engine.network.heal();
    let met = |engine: &mut Simulation| {
        let peers =
            |host: &usize| engine.hosts[*host].running.as_ref().map_or(0, |running| running.peers.len());
        living.iter().all(|host| peers(host) == living.len() - 1)
    };
    let met = soon(engine, met, "somebody does not hear somebody of the other half")?;
    let known = |engine: &mut Simulation| {
        living.iter().all(|host| {
            let is_listed =
                |state: &mut State, now| (0..20).all(|n| !state.resolve(now, &tunnel(3, n), 0).is_empty());
            engine.call(*host, is_listed) == Some(true)
        })
    };
    let known = met + soon(engine, known, "somebody does not know what changed at the other half")?;
    Ok(Blows { dying_ms: percentile(&dying, 99), met, known })
}
