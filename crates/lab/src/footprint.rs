//! The cost of an agent: memory per record, processor time, the time from exec to the first answer, and how long gost's
//! calls wait when it is killed.
//!
//! Every agent is a process of its own; its cost is read from /proc. Each figure is compared with the empty agent of
//! the same run; the changes also with a handler that takes the same calls and does nothing.

#![expect(clippy::cast_precision_loss, reason = "figures for a table")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::{NODE, id, tunnel};
use gossd_lab::table::{Column, Out};

/// The clock ticks a second of /proc, the same on every Linux.
const TICKS: f64 = 100.0;
/// How long systemd waits before it starts a killed agent again, as in the unit.
const RESTART: Duration = Duration::from_millis(100);
/// The first bytes of a gRPC client: HTTP/2's preface, and empty settings. gost gives the server 1 s for its own
/// preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Width of the first column.
const WIDTH: usize = 46;
const GET: &[u8] = b"GET /sd?name=x HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n";

#[derive(clap::Args)]
pub(crate) struct FootprintArgs {
    /// Records
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// Seconds of each measurement of processor time
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Starts of each kind
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Only how often an agent is suspected that has the processor for 20 ms of every second, in so many seconds
    #[arg(long)]
    starved: Option<u64>,
    /// Be what takes calls and does nothing
    #[arg(long, hide = true)]
    nothing: bool,
}

pub(crate) fn run(args: &FootprintArgs, out: Out) -> anyhow::Result<()> {
    match args.starved {
        _ if args.nothing => serve_nothing(),
        Some(seconds) => crate::block_on(starve(seconds, out)),
        None => crate::block_on(measure(args, out)),
    }
}

/// Takes HTTP calls on as many threads as an agent, and does nothing.
fn serve_nothing() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let app = axum::Router::new().route("/sd", axum::routing::any(|_: axum::body::Bytes| async {}));
        Ok(axum::serve(listener, app).await?)
    })
}

/// A child process; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn proc(&self, file: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.0.id()))?)
    }

    /// Seconds of processor time used so far.
    fn processor(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        let after = stat.rsplit_once(')').context("stat")?.1;
        let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
    }

    /// Starts the process that takes the same calls and does nothing. Returns its address too.
    fn nothing() -> anyhow::Result<(Self, String)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["footprint", "--nothing"])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("its output")?;
        let process = Self(child);
        let address = BufReader::new(stdout).lines().next().context("its address")??;
        Ok((process, format!("http://{address}/sd")))
    }
}

struct MeasuredAgent {
    process: Process,
    plugin: String,
    gossip: String,
    admin: String,
    /// From exec to the first answered Get.
    started: Duration,
}

impl MeasuredAgent {
    fn start(name: &str, data: impl AsRef<OsStr>, join: Option<&str>) -> anyhow::Result<Self> {
        let more = join.map_or(Vec::new(), |join| vec!["--join", join]);
        Self::start_with(name, data, "127.0.0.1:0", &more)
    }

    fn start_with(name: &str, data: impl AsRef<OsStr>, plugin: &str, more: &[&str]) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run", "--name", name, "--lease-ttl", "3600", "--data-dir"]).arg(data);
        command.args(["--log-level", "error", "--max-records", "1000000"]);
        // As in the systemd unit and the image.
        command.env("MALLOC_ARENA_MAX", "1");
        command.args(["--plugin", plugin, "--gossip", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(more);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut agent = Self {
            process: Process(child),
            plugin: String::new(),
            gossip: String::new(),
            admin: String::new(),
            started: Duration::ZERO,
        };
        for line in lines {
            let line = line?;
            match line.split_once(' ') {
                Some(("plugin", url)) => agent.plugin = url.into(),
                Some(("gossip", address)) => agent.gossip = address.into(),
                Some(("admin", url)) => agent.admin = url.into(),
                _ => {}
            }
            if ![&agent.plugin, &agent.gossip, &agent.admin].iter().any(|told| told.is_empty()) {
                agent.started = begun.elapsed();
                return Ok(agent);
            }
        }
        bail!("{name} did not start")
    }

    /// Resident memory in bytes.
    fn memory(&self) -> anyhow::Result<f64> {
        let status = self.process.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0)
    }

    async fn records(&self) -> anyhow::Result<usize> {
        let status: serde_json::Value =
            reqwest::get(format!("{}/status.json", self.admin)).await?.json().await?;
        let records = status["holds"]["records"].as_u64().context("records")?;
        Ok(usize::try_from(records)?)
    }

    async fn suspicions(&self) -> anyhow::Result<u64> {
        let metrics = reqwest::get(format!("{}/metrics", self.admin)).await?.text().await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("gossd_suspicions_total "));
        Ok(line.context("the metric")?.parse()?)
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-s", signal, &self.process.0.id().to_string()]).status()?;
        ensure!(sent.success(), "{signal} is not sent");
        Ok(())
    }

    async fn knows(&self, records: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.records().await? < records {
            ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "{} of {records} records",
                self.records().await?
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn body(n: usize) -> String {
    let (id, name) = (id(n), tunnel(n));
    format!(r#"{{"id":"{id}","name":"{name}","node":"{NODE}","network":"tcp","address":":8420"}}"#)
}

/// Registers on kept connections. They have to stay open, because their end would count as the gost's.
async fn register(
    agent: &MeasuredAgent,
    client: &reqwest::Client,
    numbers: std::ops::Range<usize>,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let at_a_time = 8;
    for first in 0..at_a_time {
        let (client, url, numbers) = (client.clone(), agent.plugin.clone(), numbers.clone());
        tasks.spawn(async move {
            for n in numbers.skip(first).step_by(at_a_time) {
                client.post(&url).body(body(n)).send().await?.error_for_status()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn measure(args: &FootprintArgs, out: Out) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let client = reqwest::Client::builder().build()?;
    out.say(&format!(
        "{} records; memory is what is resident; processor time over {} s",
        args.records, args.seconds
    ));

    let owner = MeasuredAgent::start("owner", folder.path().join("owner"), None)?;
    let peer = MeasuredAgent::start("peer", "none", Some(&owner.gossip))?;
    sleep(Duration::from_secs(5)).await;
    let (owner_empty, peer_empty) = (owner.memory()?, peer.memory()?);
    let idle = share(&owner.process, args.seconds).await?;
    register(&owner, &client, 0..args.records).await?;
    peer.knows(args.records).await?;
    sleep(Duration::from_secs(5)).await;
    let (owner_full, peer_full) = (owner.memory()?, peer.memory()?);
    let full = share(&owner.process, args.seconds).await?;
    let changing = tokio::spawn(change(owner.plugin.clone(), client.clone(), args.records));
    sleep(Duration::from_secs(1)).await;
    let both = tokio::join!(share(&owner.process, args.seconds), share(&peer.process, args.seconds));
    let (changed, heard) = (both.0?, both.1?);
    changing.abort();
    let (nothing, url) = Process::nothing()?;
    let changing = tokio::spawn(change(url, client.clone(), args.records));
    sleep(Duration::from_secs(1)).await;
    let called = share(&nothing, args.seconds).await?;
    changing.abort();

    let table = out.table([Column::Text("memory_of", WIDTH), Column::Number("bytes", 0)]);
    table.row(["an idle agent".into(), owner_empty.into()]);
    table.row(["each of its own records".into(), ((owner_full - owner_empty) / args.records as f64).into()]);
    table.row(["each of a peer's records".into(), ((peer_full - peer_empty) / args.records as f64).into()]);
    let table = out.table([Column::Text("processor_time_of", WIDTH), Column::Number("percent_of_a_core", 2)]);
    table.row(["an idle agent, empty, one peer".into(), idle.into()]);
    table.row(["an idle agent with all records".into(), full.into()]);
    table.row(["100 changes/s by HTTP, at their owner".into(), changed.into()]);
    table.row(["100 changes/s, at the peer".into(), heard.into()]);
    table.row(["100 calls/s, at a handler that does nothing".into(), called.into()]);

    drop((owner, peer, nothing));
    let times = |what| {
        out.table([Column::Text(what, WIDTH), Column::Number("p50_ms", 1), Column::Number("max_ms", 1)])
    };
    let table = times("from_exec_to_serving");
    let empty =
        starts(args, |n| MeasuredAgent::start("fresh", folder.path().join(format!("fresh-{n}")), None))?;
    table.row(["empty".into(), empty.0.into(), empty.1.into()]);
    let full = starts(args, |_| MeasuredAgent::start("owner", folder.path().join("owner"), None))?;
    table.row(["with all records in its journal".into(), full.0.into(), full.1.into()]);
    let table = times("from_kill_9_and_a_start_100_ms_later_until");
    for (what, name, data) in [("empty", "fresh", "fresh-0"), ("all records", "owner", "owner")] {
        let [greeted, answered] = kills(args, name, &folder.path().join(data)).await?;
        table.row([format!("{what}: gRPC's preface").into(), greeted.0.into(), greeted.1.into()]);
        table.row([format!("{what}: a Get is answered").into(), answered.0.into(), answered.1.into()]);
    }
    Ok(())
}

/// Starves one agent among three of processor time. Returns who suspects whom.
async fn starve(seconds: u64, out: Out) -> anyhow::Result<()> {
    let first = MeasuredAgent::start("first", "none", None)?;
    let [second, starved] = [
        MeasuredAgent::start("second", "none", Some(&first.gossip))?,
        MeasuredAgent::start("starved", "none", Some(&first.gossip))?,
    ];
    sleep(Duration::from_secs(3)).await;
    for _ in 0..seconds {
        starved.signal("STOP")?;
        sleep(Duration::from_millis(980)).await;
        starved.signal("CONT")?;
        sleep(Duration::from_millis(20)).await;
    }
    out.say(&format!("an agent that has the processor for 20 ms of every second, in {seconds} s"));
    let table = out.table([Column::Text("who_suspects", WIDTH), Column::Number("times", 0)]);
    table.row(["a first one suspected it".into(), first.suspicions().await?.into()]);
    table.row(["a second one suspected it".into(), second.suspicions().await?.into()]);
    table.row(["it suspected one of them".into(), starved.suspicions().await?.into()]);
    Ok(())
}

/// Processor time, in hundredths of a core.
async fn share(process: &Process, seconds: u64) -> anyhow::Result<f64> {
    let (before, begun) = (process.processor()?, Instant::now());
    sleep(Duration::from_secs(seconds)).await;
    Ok((process.processor()? - before) / begun.elapsed().as_secs_f64() * 100.0)
}

/// Fifty registrations and fifty deregistrations a second.
async fn change(url: String, client: reqwest::Client, first: usize) -> anyhow::Result<()> {
    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in first.. {
        pace.tick().await;
        client.post(&url).body(body(n)).send().await?.error_for_status()?;
        client.delete(&url).body(body(n)).send().await?.error_for_status()?;
    }
    Ok(())
}

/// How long a gost waits when its agent is killed and started again by a supervisor that keeps its sockets: until its
/// connection gets the server's preface, and until a Get is answered.
async fn kills(args: &FootprintArgs, name: &str, data: &Path) -> anyhow::Result<[(f64, f64); 2]> {
    let holder =
        Command::new(std::env::current_exe()?).args(["hold", "--name", name]).stderr(Stdio::piped()).spawn();
    let mut holder = Process(holder?);
    let mut log = BufReader::new(holder.0.stderr.take().context("its log")?).lines();
    let mut until_said = |what: &str| -> anyhow::Result<()> {
        while !log.next().context("the holder ended")??.contains(what) {}
        Ok(())
    };
    until_said("holding")?;
    // A holder gives back only sockets whose address is configured.
    let plugin = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let start = || MeasuredAgent::start_with(name, data, &plugin.to_string(), &["--hold"]);
    let mut agent = start()?;
    until_said("keeping")?;
    let (mut greeted, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..args.starts {
        drop(agent);
        let begun = Instant::now();
        let [greeting, answer] = [PREFACE, GET].map(|said| {
            thread::spawn(move || -> anyhow::Result<f64> {
                let mut stream = TcpStream::connect(plugin)?;
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                stream.write_all(said)?;
                stream.read_exact(&mut [0])?;
                Ok(begun.elapsed().as_secs_f64() * 1e3)
            })
        });
        sleep(RESTART).await;
        agent = start()?;
        greeted.push(greeting.join().expect("it does not panic")?);
        answered.push(answer.join().expect("it does not panic")?);
    }
    Ok([greeted, answered].map(median_and_max))
}

/// Start times in milliseconds: the median and the maximum.
fn starts(
    args: &FootprintArgs,
    start: impl Fn(usize) -> anyhow::Result<MeasuredAgent>,
) -> anyhow::Result<(f64, f64)> {
    let all: anyhow::Result<Vec<f64>> =
        (0..args.starts).map(|n| Ok(start(n)?.started.as_secs_f64() * 1e3)).collect();
    Ok(median_and_max(all?))
}

fn median_and_max(mut all: Vec<f64>) -> (f64, f64) {
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[all.len() - 1])
}
