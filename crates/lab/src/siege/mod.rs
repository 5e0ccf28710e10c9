//! An agent under attack: what each attack sends, what it changes, and how long gost's Renews take meanwhile.
//!
//! The agent is a process of its own, with two workers like `gossd run`. So is each attacker, at a lower priority
//! (`nice -n 10`) and a bounded rate: on a machine of two cores, the question is what the agent does with what arrives,
//! not who gets the processor. This process makes the Renews as gost does, one after the other on a kept-alive
//! connection, at a fixed pace. A Renew that was due while another one was still unanswered counts from its due time.
//!
//! Attackers of the network have no key. They forge frames under a key id that they have seen, and replay frames of a
//! real peer. `accepted` counts frames that the agent accepted as a peer's and that the peer did not send. `answered
//! bytes` came back to the attackers' sockets; for clients of the plugin, these are refusals and answers. `processor s`
//! is the agent's processor time during the row.

mod agent;
mod attacks;
mod clients;
#[expect(dead_code, reason = "shared with tests, which use all of it")]
#[path = "../../../../tests/common/frames.rs"]
mod frames;
mod network;
#[expect(dead_code, reason = "shared with tests, which use all of it")]
#[path = "../../../../tests/common/puppet.rs"]
mod puppet;
mod renew;

use std::time::Duration;

use anyhow::ensure;
use gossd::net::keyfile::generate;
use gossd_core::link::keyring::Keyring;

use self::agent::{AgentReading, BesiegedAgent};
use self::attacks::{Attack, AttackReport, Orders, Side};
use self::puppet::{Puppet, record_cell};
use self::renew::CallTimes;
use gossd_lab::table::{Column, Out, Table};

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
        let orders = Orders {
            attack,
            gossip: agent.gossip,
            plugin: agent.plugin,
            millis: u64::try_from(time.as_millis())?,
            frames: args.frames,
            connections: args.connections,
            recorded: peer.sent(),
        };
        let (before, sent_before) = (agent.seen()?, peer.sent().len());
        let attacker = attacks::start(&orders)?;
        let times = tokio::task::block_in_place(|| renewer.make(args.renews, time))?;
        let report = attacks::finish(attacker)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (after, sent) = (agent.seen()?, peer.sent().len() - sent_before);
        let accepted = (after.taken - before.taken).saturating_sub(u64::try_from(sent)?);
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
        if attack.side() == Side::Network {
            ensure!(accepted == 0 && report.answered == 0, "{}: something got in, or out", attack.name());
        }
    }
    out.say(&format!(
        "accepted in all: {got_in}; worst p99.9 of a Renew: {worst:.2} ms; Renews that failed: 0"
    ));
    Ok(())
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
