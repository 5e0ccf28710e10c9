//! How long after a registration the last agent can answer for it, with push and without, in one run.
//!
//! All agents are real, in this process, with their own sockets on loopback. Changes are registered at a steady pace,
//! at one agent after the other. At every other agent, an observer is woken by each change of the directory and looks
//! the new tunnel up.

#![expect(clippy::cast_precision_loss, reason = "figures for a table")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use gossd::agent::Agent;
use gossd::daemon::Daemon;
use gossd_core::connection::Caller;
use gossd_core::link::wire::Kind;
use rand::RngExt as _;
use tokio::task::JoinSet;

use crate::cluster::{self, holding_anew, tunnel};
use gossd_lab::table::{Column, Out, TableCell};

#[derive(clap::Args)]
pub(crate) struct PropagationArgs {
    /// Agents in the cluster
    #[arg(long, default_value_t = 3)]
    agents: usize,
    /// Registrations to measure
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// Milliseconds from one registration to the next
    #[arg(long, default_value_t = 20)]
    pace: u64,
    /// Share of all frames that is lost, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
}

pub(crate) fn run(args: &PropagationArgs, out: Out) -> anyhow::Result<()> {
    crate::block_on(compare(args, out))
}

async fn compare(args: &PropagationArgs, out: Out) -> anyhow::Result<()> {
    ensure!(args.agents >= 2 && args.changes >= 1, "it takes two agents and a change");
    out.say(&format!(
        "register -> readable at the last of {} agents; {} changes, one every {} ms; {} % of all frames lost",
        args.agents,
        args.changes,
        args.pace,
        args.loss * 100.0
    ));
    let table = out.table([
        Column::Text("push", 4),
        Column::Number("p50_ms", 2),
        Column::Number("p99_ms", 2),
        Column::Number("max_ms", 2),
        Column::Number("frames_per_change", 1),
        Column::Number("bytes_per_change", 0),
        Column::Number("other_bytes_per_s_per_agent", 0),
    ]);
    for push in [true, false] {
        let [p50, p99, max, frames, bytes, others] = measure(args, push).await?.map(TableCell::from);
        table.row([if push { "on" } else { "off" }.into(), p50, p99, max, frames, bytes, others]);
    }
    out.say("frames and bytes per change: pushes and their acks; other: pings and the board, of one agent");
    Ok(())
}

/// In the order of the columns.
async fn measure(args: &PropagationArgs, push: bool) -> anyhow::Result<[f64; 6]> {
    let loss = args.loss;
    let agents = cluster::start(args.agents, |config| {
        config.faults = Some(Arc::new(move |kind, _| {
            (kind == Kind::Push && !push) || (loss > 0.0 && rand::rng().random_bool(loss))
        }));
    })
    .await?;
    let board = Arc::new(ChangeBoard::default());
    let mut observers = JoinSet::new();
    for (n, agent) in agents.iter().enumerate() {
        observers.spawn(observe(n, agent.agent().clone(), board.clone()));
    }
    let (frames, bytes, others) = traffic(&agents);
    let start = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(args.pace));
    for n in 0..args.changes {
        pace.tick().await;
        let at = n % agents.len();
        board.expect(n, at, agents.len() - 1);
        agents[at].agent().register(Caller::local(1), holding_anew(n))?;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while board.open() > 0 {
        ensure!(Instant::now() < deadline, "{} changes did not arrive everywhere in 30 s", board.open());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let (frames_after, bytes_after, others_after) = traffic(&agents);
    let per_change = |n: u64| n as f64 / args.changes as f64;
    let [p50, p99, max] = board.percentiles();
    let (frames, bytes) = if push { (frames_after - frames, bytes_after - bytes) } else { (0, 0) };
    let others = (others_after - others) as f64 / seconds / agents.len() as f64;
    Ok([p50, p99, max, per_change(frames), per_change(bytes), others])
}

/// Frames and bytes of pushes and acks, and bytes of everything else.
fn traffic(agents: &[Daemon]) -> (u64, u64, u64) {
    let sum = |of: &dyn Fn(&Daemon) -> u64| agents.iter().map(of).sum::<u64>();
    let frames = sum(&|a| a.counters().sent_of(Kind::Push) + a.counters().sent_of(Kind::PushAck));
    let bytes = sum(&|a| a.counters().sent_bytes_of(Kind::Push) + a.counters().sent_bytes_of(Kind::PushAck));
    let all = sum(&|a| Kind::ALL.into_iter().map(|kind| a.counters().sent_bytes_of(kind)).sum());
    (frames, bytes, all - bytes)
}

/// Looks up every expected change whenever the directory changes.
async fn observe(me: usize, agent: Agent, board: Arc<ChangeBoard>) -> anyhow::Result<()> {
    let mut revision = agent.watch();
    let mut next = 0;
    let mut open: Vec<usize> = Vec::new();
    loop {
        revision.changed().await.context("the agent is gone")?;
        let now = Instant::now();
        next = board.take_expected(me, next, &mut open);
        open.retain(|n| {
            let there = !agent.resolve(&tunnel(*n)).is_empty();
            if there {
                board.seen(*n, now);
            }
            !there
        });
    }
}

/// The changes made so far, and when the last agent saw each.
#[derive(Default)]
struct ChangeBoard {
    changes: Mutex<BTreeMap<usize, ExpectedChange>>,
}

struct ExpectedChange {
    origin: usize,
    sent: Instant,
    missing: usize,
    last: Duration,
}

impl ChangeBoard {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<usize, ExpectedChange>) -> T) -> T {
        act(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn expect(&self, n: usize, origin: usize, missing: usize) {
        let expected = ExpectedChange { origin, sent: Instant::now(), missing, last: Duration::ZERO };
        self.with(|changes| changes.insert(n, expected));
    }

    fn take_expected(&self, me: usize, next: usize, open: &mut Vec<usize>) -> usize {
        self.with(|changes| {
            open.extend(changes.range(next..).filter(|(_, e)| e.origin != me).map(|(n, _)| *n));
            changes.len()
        })
    }

    fn seen(&self, n: usize, at: Instant) {
        self.with(|changes| {
            if let Some(expected) = changes.get_mut(&n) {
                expected.missing -= 1;
                expected.last = expected.last.max(at.saturating_duration_since(expected.sent));
            }
        });
    }

    fn open(&self) -> usize {
        self.with(|changes| changes.values().filter(|e| e.missing > 0).count())
    }

    /// Milliseconds: the median, the 99th percentile, the maximum.
    fn percentiles(&self) -> [f64; 3] {
        let mut times: Vec<Duration> = self.with(|changes| changes.values().map(|e| e.last).collect());
        times.sort_unstable();
        let at = |share: usize| times[((times.len() - 1) * share).div_ceil(100)].as_secs_f64() * 1e3;
        [at(50), at(99), at(100)]
    }
}
