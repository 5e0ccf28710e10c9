//! The longest plugin call while something else keeps the agent busy: a peer that restarts with its records, changes, a journal
//! that is written anew, a gost that dies.
//!
//! Every agent is a process of its own. A handler that does nothing is called beside the agent, by the same client in the same
//! seconds: what it takes is the machine's share.

#![expect(clippy::cast_precision_loss, reason = "figures for a table")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::cluster::{id, tunnel};
use crate::process::{Gost, MeasuredAgent, Process, change, program, register};
use gossd_lab::table::{Column, Out};

/// Between two calls of a client.
const PACE: Duration = Duration::from_millis(2);
/// The gost that calls, and does not die.
const STAYS: &str = "c5f6a5d4-6f3e-4c39-8f0b-0d7c1b2a3e4f";
/// A journal is written anew when it holds so much that has changed; longer than this it must not take.
const COMPACTS: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub(crate) struct LongestArgs {
    /// Records of each of two agents
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Seconds of each state that does not end by itself
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often the peer restarts
    #[arg(long, default_value_t = 3)]
    restarts: usize,
}

pub(crate) fn run(args: &LongestArgs, out: Out) -> anyhow::Result<()> {
    crate::block_on(measure(args, out))
}

async fn measure(args: &LongestArgs, out: Out) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let client = reqwest::Client::builder().build()?;
    let records = usize::try_from(args.records)?;
    let own = folder.path().join("a");
    let agent = MeasuredAgent::start("a", &own, None)?;
    let join = agent.gossip.clone();
    let start_peer = || MeasuredAgent::start("b", folder.path().join("b"), Some(&join));
    let mut peer = start_peer()?;
    // It is the gost too that calls, whose entrypoint has to answer.
    let (_nothing, nothing) = Process::nothing()?;
    let stays = Gost { node: STAYS, port: address(&nothing)?.port() };
    let (process, url) = Process::nothing()?;
    let gost = Gost::at(address(&url)?.port());
    // The end of its connections is its own; those of others stay.
    let its = reqwest::Client::builder().build()?;
    register(&agent, &client, 0..1, stays).await?;
    register(&agent, &its, 1..records, gost).await?;
    let its_visitors = tokio::spawn(visit(agent.plugin.clone(), its.clone()));
    register(&peer, &client, records..2 * records, stays).await?;
    for one in [&agent, &peer] {
        one.knows(2 * records).await?;
    }
    let targets = [&agent.plugin, &nothing];
    let program = program()?;
    let program = program.display();
    out.say(&format!("{program}: two agents with {records} records each; a Get and a Renew by turns, 500 calls/s at each of two servers"));
    let table = out.table([
        Column::Text("meanwhile", 46),
        Column::Number("calls", 0),
        Column::Number("agent_longest_ms", 2),
        Column::Number("agent_p999_ms", 2),
        Column::Number("nothing_longest_ms", 2),
        Column::Number("nothing_p999_ms", 2),
    ]);
    let say = |meanwhile: &str, callers: Callers| -> anyhow::Result<()> {
        let [agent, nothing] = callers.end()?;
        let calls = agent.len() as f64;
        let [[longest, p999], [nothing, nothings]] = [agent, nothing].map(longest_and_p999);
        table.row([
            meanwhile.into(),
            calls.into(),
            longest.into(),
            p999.into(),
            nothing.into(),
            nothings.into(),
        ]);
        Ok(())
    };
    let seconds = Duration::from_secs(args.seconds);

    let callers = Callers::start(targets)?;
    sleep(seconds).await;
    say("nothing", callers)?;

    let callers = Callers::start(targets)?;
    for _ in 0..args.restarts {
        drop(peer);
        sleep(Duration::from_millis(500)).await;
        peer = start_peer()?;
        peer.knows(2 * records).await?;
        sleep(Duration::from_secs(1)).await;
    }
    say("a peer with its records restarts", callers)?;

    let changes = changes(&peer, &client, 2 * records, stays);
    let callers = Callers::start(targets)?;
    sleep(seconds).await;
    say("1,000 changes a second come from the peer", callers)?;
    drop(changes);

    let changes = self::changes(&agent, &client, 3 * records, stays);
    let callers = Callers::start(targets)?;
    written_anew(&own).await?;
    say("1,000 changes a second, till the journal is anew", callers)?;
    drop(changes);

    let callers = Callers::start(targets)?;
    its_visitors.abort();
    let _ = its_visitors.await;
    let begun = Instant::now();
    drop((process, its));
    // Those of the changes come and go.
    while agent.records().await? > records + 100 {
        ensure!(begun.elapsed() < Duration::from_secs(60), "its records stay");
        sleep(Duration::from_millis(10)).await;
    }
    let gone = begun.elapsed();
    sleep(Duration::from_secs(1)).await;
    say("a gost dies that has all the agent's records", callers)?;
    out.say(&format!("they were gone after {} ms", gone.as_millis()));
    Ok(())
}

/// A gost asks for what its visitors want, over a connection that would be closed as idle otherwise.
async fn visit(plugin: String, client: reqwest::Client) -> anyhow::Result<()> {
    let url = format!("{plugin}?name={}", tunnel(0));
    loop {
        client.get(&url).send().await?.error_for_status()?;
        sleep(Duration::from_secs(1)).await;
    }
}

/// Changes that end when this is dropped.
struct Changes([AbortHandle; 10]);

impl Drop for Changes {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// A thousand changes a second.
fn changes(agent: &MeasuredAgent, client: &reqwest::Client, first: usize, gost: Gost) -> Changes {
    Changes(std::array::from_fn(|at| {
        let changing = change(agent.plugin.clone(), client.clone(), first + (at << 20), gost);
        tokio::spawn(changing).abort_handle()
    }))
}

/// Waits until the journal in a folder is shorter than it was.
async fn written_anew(folder: &Path) -> anyhow::Result<()> {
    let file: PathBuf = fs::read_dir(folder)?
        .filter_map(|found| Some(found.ok()?.path()))
        .max_by_key(|path| path.metadata().map_or(0, |found| found.len()))
        .context("a journal")?;
    let length = || file.metadata().map_or(0, |found| found.len());
    let (begun, mut before) = (Instant::now(), length());
    loop {
        sleep(Duration::from_millis(20)).await;
        let now = length();
        if now < before {
            return Ok(());
        }
        before = now;
        ensure!(begun.elapsed() < COMPACTS, "the journal is not written anew");
    }
}

/// Who calls two servers until it is told to end.
struct Callers {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<anyhow::Result<Vec<f64>>>; 2],
}

impl Callers {
    fn start(urls: [&String; 2]) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |url: &str| -> anyhow::Result<_> {
            let (address, stop) = (address(url)?, stop.clone());
            Ok(thread::spawn(move || call(address, &stop)))
        };
        let threads = [start(urls[0])?, start(urls[1])?];
        Ok(Self { stop, threads })
    }

    /// What each call took, in milliseconds, by server.
    fn end(self) -> anyhow::Result<[Vec<f64>; 2]> {
        self.stop.store(true, Ordering::Relaxed);
        let [one, other] = self.threads.map(|thread| thread.join().expect("it does not panic"));
        Ok([one?, other?])
    }
}

fn address(url: &str) -> anyhow::Result<SocketAddr> {
    Ok(url.trim_start_matches("http://").split('/').next().unwrap_or_default().parse()?)
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own")]
fn call(address: SocketAddr, stop: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let body =
        format!(r#"{{"id":"{}","name":"{}","node":"{STAYS}","network":"","address":""}}"#, id(0), tunnel(0));
    let get = format!("GET /sd?name={} HTTP/1.1\r\nHost: agent\r\n\r\n", tunnel(0));
    let renew = format!("PUT /sd HTTP/1.1\r\nHost: agent\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (mut took, mut answer) = (Vec::new(), [0; 4_096]);
    for request in [get, renew].iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        stream.write_all(request.as_bytes())?;
        let len = stream.read(&mut answer)?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(answer[..len].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..len]));
        thread::sleep(PACE.saturating_sub(begun.elapsed()));
    }
    Ok(took)
}

fn longest_and_p999(mut took: Vec<f64>) -> [f64; 2] {
    took.sort_by(f64::total_cmp);
    let last = took.len().saturating_sub(1);
    [last, last - last / 1_000].map(|at| took.get(at).copied().unwrap_or_default())
}
