//! How many of gost's calls an agent answers and how quickly, compared in the same run with a handler on the same
//! libraries that returns the same bytes and does nothing else, and with a minimal plugin with Redis behind it.
//!
//! The load comes from another process, h2load (Debian: nghttp2-client).

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures"
)]

pub(crate) mod bare;
pub(crate) mod load;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gossd::agent::Agent;
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::plugin::grpc::generated as proto;
use gossd_core::connection::Caller;
use gossd_core::lease::Holding;
use redis::AsyncCommands as _;
use tokio::time::MissedTickBehavior;

use self::load::{LoadCall, LoadPace, LoadResult};
use crate::cluster::{NODE, come_and_go, holding, id, tunnel};
use crate::store::{self, Redis};
use gossd_lab::table::{Column, Out, TableCell};

#[derive(clap::Args)]
pub(crate) struct CallsArgs {
    /// Numbers of connections, each with one call at a time
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    connections: Vec<u32>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Records that the agent has
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// Registrations and deregistrations a second meanwhile, half of them at a peer
    #[arg(long, default_value_t = 0)]
    changes: u32,
    /// A folder for the agent's journal, whose file system is frozen meanwhile (by fsfreeze, as root)
    #[arg(long)]
    frozen: Option<PathBuf>,
    /// Without its peer, which is gone without a goodbye
    #[arg(long)]
    alone: bool,
    /// Beside Redis, and not beside a handler that does nothing
    #[arg(long)]
    redis: bool,
}

pub(crate) fn run(args: &CallsArgs, out: Out) -> anyhow::Result<()> {
    crate::block_on(measure(args, out))
}

async fn measure(args: &CallsArgs, out: Out) -> anyhow::Result<()> {
    let [agent, peer] = cluster(args.frozen.clone()).await?;
    for n in 0..args.records {
        agent.agent().register(Caller::local(1), holding(n))?;
    }
    if args.changes > 0 {
        tokio::spawn(change(agent.agent().clone(), args.changes / 2));
        tokio::spawn(change(peer.agent().clone(), args.changes / 2));
    }
    let _frozen = args.frozen.as_deref().map(Frozen::freeze).transpose()?;
    if args.alone {
        drop(peer);
    }
    out.say(&format!(
        "{} records; {} changes/s meanwhile; each the median of {} times {} s; h2load and the server share the machine",
        args.records, args.changes, args.rounds, args.seconds
    ));
    let plugin = agent.plugin;
    if args.redis { beside_redis(args, plugin, out).await } else { beside_bare(args, plugin, out).await }
}

async fn cluster(data: Option<PathBuf>) -> anyhow::Result<[Daemon; 2]> {
    let mut config = Config::loopback("a".parse()?);
    config.data_dir = data;
    // Room for the changes made meanwhile.
    config.quota.records = 1_000_000;
    let agent = Daemon::start(config).await?;
    let mut config = Config::loopback("b".parse()?);
    config.quota.records = 1_000_000;
    config.join = vec![agent.gossip.to_string().parse()?];
    Ok([agent, Daemon::start(config).await?])
}

async fn change(agent: Agent, a_second: u32) {
    let mut pace = tokio::time::interval(Duration::from_secs(2) / a_second.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 1 << 20.. {
        pace.tick().await;
        if let Err(error) = come_and_go(&agent, n) {
            eprintln!("no room for changes: {error}");
            return;
        }
    }
}

/// Get and Renew of one record, over HTTP and gRPC.
pub(crate) fn calls() -> [(&'static str, LoadCall); 4] {
    let service =
        proto::Service { id: id(7), name: tunnel(7), node: NODE.into(), ..proto::Service::default() };
    let json =
        format!(r#"{{"id":"{}","name":"{}","node":"{NODE}","network":"","address":""}}"#, id(7), tunnel(7));
    let http = |method, path: String, body: Vec<u8>| LoadCall { method, path, body, grpc: false };
    let grpc = |path: &str, body: Vec<u8>| LoadCall { method: "POST", path: path.into(), body, grpc: true };
    let get = bare::framed(&proto::GetServiceRequest { name: tunnel(7) });
    let renew = bare::framed(&proto::RenewRequest { service: Some(service) });
    [
        ("HTTP Get", http("GET", format!("/sd?name={}", tunnel(7)), Vec::new())),
        ("HTTP Renew", http("PUT", "/sd".into(), json.into_bytes())),
        ("gRPC Get", grpc("/proto.SD/Get", get.to_vec())),
        ("gRPC Renew", grpc("/proto.SD/Renew", renew.to_vec())),
    ]
}

async fn beside_bare(args: &CallsArgs, agent: SocketAddr, out: Out) -> anyhow::Result<()> {
    let bare = bare::serve_recorded(recorded(agent).await?).await?;
    let table = out.table([
        Column::Text("call", 10),
        Column::Number("connections", 0),
        Column::Number("bare_calls_per_s", 0),
        Column::Number("gossd_calls_per_s", 0),
        Column::Number("ratio", 2),
        Column::Number("gossd_p50_ms", 2),
        Column::Number("gossd_p99_ms", 2),
        Column::Number("gossd_p999_ms", 2),
        Column::Number("bare_p50_ms", 2),
        Column::Number("bare_p99_ms", 2),
        Column::Number("bare_p999_ms", 2),
    ]);
    for (name, call) in calls() {
        for connections in &args.connections {
            let [least, ours] = rates(args, &call, *connections, [bare, agent]).await?;
            let half = LoadPace { connections: *connections, seconds: args.seconds, rate: Some(ours / 2.0) };
            let [theirs, calm] = [load(bare, &call, half).await?, load(agent, &call, half).await?];
            let [p50, p99, p999] = times(&calm);
            let [bare_p50, bare_p99, bare_p999] = times(&theirs);
            let count = (*connections).into();
            let [least, ours, ratio] = [least, ours, ours / least].map(TableCell::from);
            let name = name.into();
            table.row([name, count, least, ours, ratio, p50, p99, p999, bare_p50, bare_p99, bare_p999]);
        }
    }
    out.say("milliseconds: at half of the calls that gossd answers at most");
    Ok(())
}

async fn beside_redis(args: &CallsArgs, agent: SocketAddr, out: Out) -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let mut connection = store::connect(redis.addr).await?;
    for n in 0..args.records {
        let Holding { record, .. } = holding(n);
        let [id, name, node] = [&record.id, &record.name, &record.node].map(ToString::to_string);
        let value = serde_json::json!({
            "id": id, "name": name, "node": node, "network": "tcp", "address": record.address.to_string()
        });
        let _: () = connection.hset(store::key(&name), &id, value.to_string()).await?;
    }
    let plugin = store::serve(connection, store::EXPIRY).await?;
    let table = out.table([
        Column::Text("call", 10),
        Column::Number("connections", 0),
        Column::Number("redis_calls_per_s", 0),
        Column::Number("gossd_calls_per_s", 0),
        Column::Number("ratio", 1),
        Column::Number("redis_p99_ms", 2),
        Column::Number("gossd_p99_ms", 2),
        Column::Number("p99_ratio", 2),
    ]);
    for (name, call) in calls().into_iter().filter(|(_, call)| call.grpc) {
        for connections in &args.connections {
            let [theirs, ours] = rates(args, &call, *connections, [plugin, agent]).await?;
            // A rate that Redis can serve, for both.
            let pace =
                LoadPace { connections: *connections, seconds: args.seconds, rate: Some(theirs / 2.0) };
            let [slow, quick] = [load(plugin, &call, pace).await?, load(agent, &call, pace).await?];
            let [slow, quick] = [slow.at(0.99), quick.at(0.99)];
            let figures = [theirs, ours, ours / theirs, slow, quick, quick / slow];
            let [theirs, ours, ratio, slow, quick, times] = figures.map(TableCell::from);
            table.row([name.into(), (*connections).into(), theirs, ours, ratio, slow, quick, times]);
        }
    }
    Ok(())
}

/// As many calls as possible, by turns. Returns the medians.
async fn rates(
    args: &CallsArgs,
    call: &LoadCall,
    connections: u32,
    servers: [SocketAddr; 2],
) -> anyhow::Result<[f64; 2]> {
    let pace = LoadPace { connections, seconds: args.seconds, rate: None };
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..args.rounds {
        for (server, rates) in servers.iter().zip(&mut all) {
            rates.push(load(*server, call, pace).await?.rate);
        }
    }
    Ok(all.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }))
}

async fn load(server: SocketAddr, call: &LoadCall, pace: LoadPace) -> anyhow::Result<LoadResult> {
    let call = call.clone();
    tokio::task::spawn_blocking(move || load::run(&server.to_string(), &call, pace)).await?
}

fn times(measured: &LoadResult) -> [TableCell; 3] {
    [0.5, 0.99, 0.999].map(|share| measured.at(share).into())
}

/// The answers of an agent, for the handler that does nothing else.
pub(crate) async fn recorded(agent: SocketAddr) -> anyhow::Result<bare::Answers> {
    let url = format!("http://{agent}/sd?name={}", tunnel(7));
    let get = reqwest::get(url).await?.bytes().await?;
    let parsed: serde_json::Value = serde_json::from_slice(&get)?;
    let text = |key: &str| parsed["services"][0][key].as_str().map(str::to_owned).context("a record");
    let (name, node) = (text("name")?, text("node")?);
    let service =
        proto::Service { id: text("id")?, name, node, network: text("network")?, address: text("address")? };
    Ok(bare::Answers { get, get_grpc: bare::framed(&proto::GetServiceReply { services: vec![service] }) })
}

/// A frozen file system, on which every write waits, until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn freeze(at: &Path) -> anyhow::Result<Self> {
        ensure!(Command::new("fsfreeze").arg("-f").arg(at).status()?.success(), "it is not frozen");
        Ok(Self(at.into()))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}
