//! An accelerated week: some agents, each a process with a journal and real sockets; gosts with ten thousand tunnels;
//! and all their events. At the end, nothing of it may be left.
//!
//! Tunnels attach (*fill*), all agents and clients start once more (*warm*), everything is measured (*plateau*), events
//! happen (*chaos*), and stop (*calm*). Then every agent's directory must equal the truth, and its memory, tasks and
//! files must be what they were. All the while, no answer may be wrong, and no figure above its bound. What takes
//! minutes and hours in an agent (an empty slot, a lapsed record, a dead peer) takes seconds here, so a week's worth of
//! it comes and goes.
//!
//! Fails if any of this does not hold.

mod agent;
mod chaos;
mod gost;
mod model;
mod relay;
mod watch;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;

use self::agent::{AgentSetup, Figures, SoakAgent};
use self::chaos::{ChaosPace, Seat, Stage};
use self::gost::{GostAction, GostHost, SoakGost};
use self::model::SoakModel;
use self::relay::{LinkState, LinkedPeer, Relay};
use crate::switches;
use gossd_lab::table::{Column, Out};

/// Tunnels of one gost.
const TUNNELS_EACH: usize = 50;
/// How often all clients reconnect before the plateau.
const WARMING: u32 = 10;
/// How often the chaos prints the memory of the agents.
const MINUTE: Duration = Duration::from_secs(60);
/// The agents between which the link fails.
const LINKED: [usize; 2] = [0, 1];

#[derive(Clone, clap::Args)]
pub(crate) struct SoakArgs {
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
    /// What of every agent does not work, which has to show: leases, suspicion, push or repair
    #[arg(long)]
    broken: Option<String>,
    /// Of everything that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(args: SoakArgs, out: Out) -> anyhow::Result<()> {
    crate::block_on(soak(args.shortened(), out))
}

impl SoakArgs {
    fn shortened(self) -> Self {
        if self.short {
            Self { minutes: 0.4, tunnels: self.tunnels / 10, renew: 2, released: 0, hurry: 360, ..self }
        } else {
            self
        }
    }

    fn pace(&self) -> ChaosPace {
        let ms = Duration::from_millis;
        if self.short {
            ChaosPace {
                churn: ms(50),
                fates: ms(800),
                storms: ms(4_000),
                restarts: ms(8_000),
                flaps: ms(2_000),
            }
        } else {
            ChaosPace {
                churn: ms(60),
                fates: ms(2_000),
                storms: ms(20_000),
                restarts: ms(25_000),
                flaps: ms(6_000),
            }
        }
    }
}

async fn soak(args: SoakArgs, out: Out) -> anyhow::Result<()> {
    let begun = Instant::now();
    let folder = tempfile::tempdir()?;
    let mut tasks = JoinSet::new();
    let (seats, link) = agents(&args, folder.path(), &mut tasks).await?;
    let model = Arc::new(SoakModel::new(args.tunnels, args.agents));
    let told = release(&args, &seats).await;
    let gosts = match told {
        Ok(()) => fill(&args, &model, &seats, &mut tasks).await?,
        Err(error) => return Err(error),
    };
    let stage = Stage { model: model.clone(), seats: seats.clone(), gosts, link };
    let outcome = tokio::select! {
        outcome = play(&args, &stage, begun, out) => outcome,
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
    report(&model, &seats, &before, &after, out);
    summary(&model, begun, out);
    let wrong = model.wrong();
    ensure!(
        wrong.is_empty(),
        "{} wrong answers and figures:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    Ok(())
}

/// Runs the events between the plateau and the calm.
async fn play(
    args: &SoakArgs,
    stage: &Stage,
    begun: Instant,
    out: Out,
) -> anyhow::Result<(Vec<Figures>, Vec<Figures>)> {
    let Stage { model, seats, .. } = stage;
    let told = |what: &str| out.say(&format!("{:>6.1} s  {what}", begun.elapsed().as_secs_f64()));
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
        stage.tell((0..stage.gosts.len()).map(|gost| (gost, GostAction::Move(gost % args.agents)))).await?;
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

/// Ordinary days: every agent is started again from its journal, and every client reconnects many times. Only then an
/// agent takes as much memory as in the long run: tables that change are larger than tables that were only filled, and
/// short allocations leave holes.
async fn warm(stage: &Stage) -> anyhow::Result<()> {
    for (n, seat) in stage.seats.iter().enumerate() {
        stage.model.died(n);
        seat.end(agent::Ending::Told).await?;
        seat.start().await?;
        stage.model.started(n);
    }
    for _ in 0..WARMING {
        stage.tell((0..stage.gosts.len()).map(|gost| (gost, GostAction::Storm))).await?;
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

/// Starts the agents; the first two reach each other through relays.
async fn agents(
    args: &SoakArgs,
    folder: &std::path::Path,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<(Vec<Seat>, channel::Sender<LinkState>)> {
    ensure!((2..=100).contains(&args.agents), "from 2 to 100 agents");
    let (link, linked) = channel::channel(LinkState::Up);
    // The same ratio as by default, where gost renews every 15 s.
    let ttl = args.renew * 4;
    let flags = vec!["--lease-ttl".into(), ttl.max(5).to_string()];
    let mut switches = vec![(switches::HURRY, args.hurry.to_string()), (switches::DEAD_GRACE, "20".into())];
    switches.extend(args.broken.clone().map(|broken| (switches::BROKEN, broken)));
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
        let (flags, switches) = (flags.clone(), switches.clone());
        let setup = AgentSetup { name, ip: at(1), advertised, port, join, folder, flags, switches };
        seats.push(Seat::new(tokio::task::spawn_blocking(|| SoakAgent::new(setup)).await??));
    }
    for (n, relay) in relays.into_iter().enumerate() {
        let other = &seats[LINKED[1 - n]];
        let IpAddr::V4(ip) = other.with(|agent| agent.gossip.ip()) else { continue };
        let peer = LinkedPeer { ip, pid: other.pid.clone(), link: linked.clone() };
        tasks.spawn(relay.run(seats[n].with(|agent| agent.gossip), peer));
    }
    Ok((seats, link))
}

/// Registers and releases ids until every agent remembers as many as it can.
async fn release(args: &SoakArgs, seats: &[Seat]) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for seat in seats {
        let plugin = seat.with(|agent| agent.plugin);
        let count = args.released;
        tasks.spawn(async move {
            let mut client = wire::HttpClient::new(plugin);
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

/// Starts the gosts, and waits until their clients are attached.
async fn fill(
    args: &SoakArgs,
    model: &Arc<SoakModel>,
    seats: &[Seat],
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Vec<mpsc::Sender<gost::GostOrder>>> {
    let host = |seat: &Seat| {
        seat.with(|agent| match agent.advertised() {
            IpAddr::V4(advertised) => Ok(GostHost { plugin: agent.plugin, advertised }),
            IpAddr::V6(_) => Err(anyhow::anyhow!("agents are at IPv4 addresses")),
        })
    };
    let hosts = Arc::new(seats.iter().map(host).collect::<anyhow::Result<Vec<GostHost>>>()?);
    let mut starting = JoinSet::new();
    let count = args.tunnels.div_ceil(TUNNELS_EACH);
    for n in 0..count {
        let tunnels = n * TUNNELS_EACH..args.tunnels.min((n + 1) * TUNNELS_EACH);
        let (model, hosts, renew) = (model.clone(), hosts.clone(), Duration::from_secs(args.renew));
        let (home, seed) = (n % args.agents, args.seed.wrapping_mul(1_000_003).wrapping_add(n as u64));
        starting.spawn(async move {
            let mut gost = SoakGost::start(model, hosts, home, tunnels, renew, seed).await?;
            gost.attach_all().await;
            anyhow::Ok((n, gost))
        });
    }
    let mut gosts: Vec<Option<mpsc::Sender<gost::GostOrder>>> = vec![None; count];
    while let Some(started) = starting.join_next().await {
        let (n, gost) = started??;
        let (orders, taken) = mpsc::channel(4);
        gosts[n] = Some(orders);
        tasks.spawn(gost.live(taken));
    }
    Ok(gosts.into_iter().flatten().collect())
}

/// Prints the figures of the agents, and an error for each figure above its bound.
fn report(model: &SoakModel, seats: &[Seat], before: &[Figures], after: &[Figures], out: Out) {
    out.say("each: on the plateau, then in the calm; a record of a journal: live, lapsed, or an id that was released");
    let table = out.table([
        Column::Text("agent", 9),
        Column::Number("starts", 0),
        Column::Number("memory_before_mb", 1),
        Column::Number("memory_mb", 1),
        Column::Number("tasks_before", 0),
        Column::Number("tasks", 0),
        Column::Number("files_before", 0),
        Column::Number("files", 0),
        Column::Number("own_records", 0),
        Column::Number("slot_places_before", 0),
        Column::Number("slot_places", 0),
        Column::Number("journal_before_kb", 0),
        Column::Number("journal_kb", 0),
        Column::Number("bytes_per_record", 0),
    ]);
    for (n, (before, after)) in before.iter().zip(after).enumerate() {
        table.row([
            seats[n].with(|agent| agent.name().to_owned()).into(),
            seats[n].with(|agent| agent.starts).into(),
            (before.memory / 1e6).into(),
            (after.memory / 1e6).into(),
            before.sum("gossd_tasks").into(),
            after.sum("gossd_tasks").into(),
            before.files.into(),
            after.files.into(),
            after.of("gossd_records", "self").into(),
            before.of("gossd_table_entries", "slot_places").into(),
            after.of("gossd_table_entries", "slot_places").into(),
            (before.sum("journal") / 1e3).into(),
            (after.sum("journal") / 1e3).into(),
            (after.sum("journal") / watch::kept(after)).into(),
        ]);
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
}

/// A tenth more than on the plateau, and the memory of the released ids that were added: they have a bound of their
/// own.
fn allowed_memory(before: &Figures, after: &Figures) -> f64 {
    let released = |figures: &Figures| figures.of("gossd_table_entries", "released");
    before.memory * 1.1 + 128.0 * (released(after) - released(before)).max(0.0)
}

fn own(figures: &Figures, name: &str) -> f64 {
    figures.sum(name) - connections(figures)
}

/// Connections between agents: they exist while there is something large to send, and for a while after.
fn connections(figures: &Figures) -> f64 {
    ["connections_in", "connections_out"].map(|table| figures.of("gossd_gossip_entries", table)).iter().sum()
}

fn summary(model: &SoakModel, begun: Instant, out: Out) {
    let tally = &model.tally;
    let table = out.table([Column::Number("count", 0), Column::Text("what", 0)]);
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
        table.row([count.load(Ordering::Relaxed).into(), what.into()]);
    }
    table.row([model.wrong().len().into(), "wrong answers and figures".into()]);
    out.say(&format!("in {:.1} minutes", begun.elapsed().as_secs_f64() / 60.0));
}
