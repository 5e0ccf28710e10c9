//! An agent under attack: what each attack sends, what it changes, and how long gost's Renews take meanwhile.
//!
//! The agent is a process of its own, with the threads of `gossd run`. So is each attacker, at a lower priority
//! (`nice -n 10`) and a bounded rate: on a machine of two cores, the question is what the agent does with what arrives,
//! not who gets the processor. This process makes the Renews as gost does, one after the other on a kept-alive
//! connection, at a fixed pace. A Renew that was due while another one was still unanswered counts from its due time.
//!
//! Attackers of the network have no key. They forge frames under a key id that they have seen, and replay frames of a
//! real peer. They hold its frames back until it is dead, send those that were made for another agent, throw back the
//! agent's own, and repeat Hellos from many addresses. A member has the key, and takes the name of a live peer, while that
//! peer claims that the agent's name is taken. `accepted` counts frames that the agent accepted as a peer's and that the peer did not send. `answered
//! bytes` came back to the attackers' sockets; for clients of the plugin, these are refusals and answers. `processor s`
//! is the agent's processor time during the row.

mod agent;
mod attacks;
mod clients;
#[expect(dead_code, reason = "shared with tests, which use all of it")]
#[path = "../../../../tests/common/frames.rs"]
mod frames;
mod member;
mod network;
#[expect(dead_code, reason = "shared with tests, which use all of it")]
#[path = "../../../../tests/common/puppet.rs"]
mod puppet;
mod renew;

use std::time::Duration;

use anyhow::ensure;
use gossd::net::keyfile::generate;
use gossd_core::link::SUSPECT;
use gossd_core::link::frame::{self, Sealed};
use gossd_core::link::keyring::Keyring;
use gossd_core::link::wire::{self, Conflict, Kind, Ping};
use gossd_core::slot::{Content, Status};

use self::agent::{AgentReading, BesiegedAgent};
use self::attacks::{Attack, AttackReport, Orders, Side};
use self::puppet::{Puppet, cell, push, record_cell};
use self::renew::CallTimes;
use gossd_lab::table::{Column, Out, Table};

/// How long frames may be under way.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// Recorded frames that an attacker is given, in its arguments; it sends them again and again.
const RECORDED: u8 = 200;

#[derive(clap::Args)]
pub(crate) struct SiegeArgs {
    /// A tenth of everything and half a second for each attack, as a check that nothing gets in
    #[arg(long)]
    short: bool,
    /// Seconds of each attack
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Frames forged and replayed by UDP, in twice the seconds of other attacks
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// Connections of the attacks with many
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// Renews a second meanwhile
    #[arg(long, default_value_t = 500)]
    renews: u64,
    /// Only the attacks whose name has this in it
    #[arg(long)]
    only: Option<String>,
    /// Be another process of the siege
    #[arg(long, hide = true)]
    role: Option<String>,
}

pub(crate) fn run(mut args: SiegeArgs, out: Out) -> anyhow::Result<()> {
    agent::raise_open_files();
    match args.role.as_deref() {
        Some("agent") => return agent::run(),
        Some(orders) => return attacks::run(&serde_json::from_str(orders)?),
        None => {}
    }
    let mut each = Duration::from_secs(args.seconds);
    if args.short {
        each = Duration::from_millis(300);
        (args.frames, args.connections) = (args.frames / 100, args.connections / 20);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(siege(&args, each, out))
}

async fn siege(args: &SiegeArgs, each: Duration, out: Out) -> anyhow::Result<()> {
    let key = generate().line();
    let keyring = || Keyring::parse(&key).map_err(|error| anyhow::anyhow!("{error}"));
    let agent = BesiegedAgent::start(&key)?;
    let peer = Puppet::start(agent.gossip, keyring()?, gossd::config::DEFAULT_CLUSTER, "peer", 1).await;
    agent.wait_for("gossd_frames_received_total{kind=\"pong\"}")?;
    peer.get_ready().await;
    peer.push(2, &[(1, record_cell(2, ["p", "t", "node-2", "10.0.0.2:8420"]))]).await;
    agent.wait_for("gossd_tunnels")?;
    let hellos = only(peer.sent(), |frame| matches!(frame, Sealed::Hello { .. }));
    let misdirected = elsewhere(&key).await?;
    let mut renewer = renew::Renewer::start(agent.plugin)?;
    renewer.make(args.renews, Duration::from_millis(200))?;
    let table = heading(out);
    let mut worst: f64 = 0.0;
    let mut got_in = 0;
    let attacks = Attack::ALL
        .into_iter()
        .filter(|attack| args.only.as_ref().is_none_or(|only| attack.name().contains(&**only)));
    for attack in std::iter::once(Attack::Nothing).chain(attacks.filter(|attack| *attack != Attack::Nothing))
    {
        let time = if attack == Attack::Frames && !args.short { each * 2 } else { each };
        let mut recorded = match attack {
            Attack::ForgedHellos | Attack::RecordedHellos | Attack::RecordedHellosWithCookies => {
                hellos.clone()
            }
            Attack::Misdirected => misdirected.clone(),
            Attack::Reflected => only(peer.heard(), |frame| !matches!(frame, Sealed::Hello { .. })),
            Attack::HeldBack => held_back(&agent, &key).await?,
            // Valid Hellos are answered, and have rows of their own.
            _ => only(peer.sent(), |frame| !matches!(frame, Sealed::Hello { .. })),
        };
        if attack == Attack::HeldBack {
            // Its session is stale by then. Longer, so that nothing that the agent knows of it changes any more.
            tokio::task::block_in_place(|| renewer.make(args.renews, SUSPECT * 3))?;
        }
        recorded.truncate(RECORDED.into());
        ensure!(!recorded.is_empty(), "{}: nothing is recorded", attack.name());
        let orders = Orders {
            attack,
            gossip: agent.gossip,
            plugin: agent.plugin,
            millis: u64::try_from(time.as_millis())?,
            frames: args.frames,
            connections: args.connections,
            recorded,
            key: (attack.side() == Side::Member).then(|| (*key).clone()),
        };
        let said = || only(peer.sent(), |frame| matches!(frame, Sealed::Data { .. })).len();
        let said_before = said();
        // What the peer has just said arrives.
        tokio::time::sleep(UNDER_WAY).await;
        let before = agent.seen()?;
        let attacker = attacks::start(&orders)?;
        if attack.side() == Side::Member {
            // That the agent's name is another's: one frame of a third party ends nobody.
            for taken_by in ["127.3.0.1:1", "127.0.0.1:9"] {
                peer.say(Kind::Conflict, &wire::encode(&Conflict { taken_by: taken_by.parse()? })).await;
            }
        }
        let times = tokio::task::block_in_place(|| renewer.make(args.renews, time))?;
        let report = attacks::finish(attacker)?;
        tokio::time::sleep(UNDER_WAY).await;
        let (after, said) = (agent.seen()?, said() - said_before);
        let accepted = (after.taken - before.taken).saturating_sub(u64::try_from(said)?);
        row(&table, attack, &report, accepted, [&before, &after], &times);
        worst = worst.max(times.at(0.999));
        got_in += accepted;
        ensure!(
            after.state == before.state,
            "{}: changed {:?} to {:?}",
            attack.name(),
            before.state,
            after.state
        );
        if matches!(attack.side(), Side::Network | Side::Member) {
            ensure!(accepted == 0, "{}: something got in", attack.name());
            ensure!(report.answered == 0 || attack.is_answered(), "{}: something got out", attack.name());
            ensure!(
                report.answered <= report.sent_bytes,
                "{}: {} bytes for {}",
                attack.name(),
                report.answered,
                report.sent_bytes
            );
        }
    }
    out.say(&format!(
        "accepted in all: {got_in}; worst p99.9 of a Renew: {worst:.2} ms; Renews that failed: 0"
    ));
    Ok(())
}

/// Those of some frames.
fn only(frames: Vec<Vec<u8>>, wanted: impl Fn(&Sealed<'_>) -> bool) -> Vec<Vec<u8>> {
    frames.into_iter().filter(|bytes| frame::read(bytes).is_ok_and(|frame| wanted(&frame))).collect()
}

/// Frames of a peer's session that nobody has seen yet.
fn unsent(peer: &Puppet) -> Vec<Vec<u8>> {
    let ready = push(1, 1, &[(0, cell(1, Content::Status(Status::Ready)))]);
    let lie = push(2, 2, &[(1, record_cell(2, ["x", "t", "node-2", "10.6.6.6:666"]))]);
    let ping = wire::encode(&Ping { nonce: Some(1), told: 2, revision: 0, lost: 0, ran: 0 });
    let all = [(Kind::Push, ready), (Kind::Push, lie), (Kind::Ping, ping)];
    let all = all.iter().cycle().take(RECORDED.into());
    all.map(|(kind, payload)| peer.frame(*kind, payload)).collect()
}

/// What a peer says to another agent of the cluster, and would say, but for the beginnings of handshakes.
async fn elsewhere(key: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let keyring = Keyring::parse(key).map_err(|error| anyhow::anyhow!("{error}"))?;
    let agent = BesiegedAgent::start(key)?;
    let peer = Puppet::start(agent.gossip, keyring, gossd::config::DEFAULT_CLUSTER, "elsewhere", 1).await;
    agent.wait_for("gossd_frames_received_total{kind=\"pong\"}")?;
    peer.get_ready().await;
    let said = only(peer.sent(), |frame| !matches!(frame, Sealed::Hello { .. }));
    Ok([said, unsent(&peer)].concat())
}

/// What a peer that dies now would have said.
async fn held_back(agent: &BesiegedAgent, key: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let keyring = Keyring::parse(key).map_err(|error| anyhow::anyhow!("{error}"))?;
    let peer = Puppet::start(agent.gossip, keyring, gossd::config::DEFAULT_CLUSTER, "mortal", 1).await;
    let frames = unsent(&peer);
    ensure!(
        frames.iter().all(|frame| !matches!(frame::read(frame), Ok(Sealed::Data { to: 1, .. }))),
        "no session"
    );
    Ok(frames)
}

fn heading(out: Out) -> Table<12> {
    out.table([
        Column::Text("attack", 34),
        Column::Number("sent", 0),
        Column::Text("unit", 11),
        Column::Number("accepted", 0),
        Column::Number("answered_bytes", 0),
        Column::Number("memory_before_mb", 1),
        Column::Number("memory_after_mb", 1),
        Column::Number("processor_s", 2),
        Column::Number("renew_p50_ms", 2),
        Column::Number("renew_p99_ms", 2),
        Column::Number("renew_p999_ms", 2),
        Column::Text("counters_that_moved", 0),
    ])
}

fn row(
    table: &Table<12>,
    attack: Attack,
    report: &AttackReport,
    accepted: u64,
    [before, after]: [&AgentReading; 2],
    times: &CallTimes,
) {
    let moved = after.moved_since(before);
    table.row([
        attack.name().into(),
        report.sent.into(),
        attack.unit().into(),
        accepted.into(),
        report.answered.into(),
        before.rss_mb.into(),
        after.rss_mb.into(),
        after.cpu.saturating_sub(before.cpu).as_secs_f64().into(),
        times.at(0.5).into(),
        times.at(0.99).into(),
        times.at(0.999).into(),
        if moved.is_empty() { "-".into() } else { moved.join(", ").into() },
    ]);
}
