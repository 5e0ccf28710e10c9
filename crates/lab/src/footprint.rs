//! The cost of an agent: memory per record, processor time, the time from exec to the first answer, and how long gost's
//! calls wait when it is killed.
//!
//! Every agent is a process of its own; its cost is read from /proc. Each figure is compared with the empty agent of
//! the same run; the changes also with a handler that takes the same calls and does nothing.

#![expect(clippy::cast_precision_loss, reason = "figures for a table")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::process::{Gost, MeasuredAgent, Process, change, free_address, program, register, serve_nothing};
use gossd_lab::table::{Column, Out};

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

async fn measure(args: &FootprintArgs, out: Out) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let client = reqwest::Client::builder().build()?;
    out.say(&format!(
        "{}; {} records; memory is what is resident; processor time over {} s",
        program()?.display(),
        args.records,
        args.seconds
    ));
    // Its entrypoint is nobody's, and no agent needs to reach it.
    let gost = Gost::at(8_420);

    let owner = MeasuredAgent::start("owner", folder.path().join("owner"), None)?;
    let peer = MeasuredAgent::start("peer", "none", Some(&owner.gossip))?;
    sleep(Duration::from_secs(5)).await;
    let (owner_empty, peer_empty) = (owner.memory()?, peer.memory()?);
    let idle = share(&owner.process, args.seconds).await?;
    register(&owner, &client, 0..args.records, gost).await?;
    peer.knows(args.records).await?;
    sleep(Duration::from_secs(5)).await;
    let (owner_full, peer_full) = (owner.memory()?, peer.memory()?);
    let full = share(&owner.process, args.seconds).await?;
    let changing = tokio::spawn(change(owner.plugin.clone(), client.clone(), args.records, gost));
    sleep(Duration::from_secs(1)).await;
    let both = tokio::join!(share(&owner.process, args.seconds), share(&peer.process, args.seconds));
    let (changed, heard) = (both.0?, both.1?);
    changing.abort();
    let (nothing, url) = Process::nothing()?;
    let changing = tokio::spawn(change(url, client.clone(), args.records, gost));
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
    let plugin = free_address();
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
