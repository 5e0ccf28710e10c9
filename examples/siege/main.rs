//! An agent under attack: what each attack sends, what it moves, and how gost's Renews fare meanwhile.
//!
//! ```text
//! cargo run --release --example siege
//! cargo run --example siege -- --short
//! ```
//!
//! The agent is a process of its own, with the two workers that `gossd run` has; so is each attacker, at a lower
//! priority (`nice -n 10`) and a bounded rate: on a machine of two cores the question is what the agent does with what
//! arrives, not who gets the processor. Renews are made by this process as gost makes them, one after the other on a
//! kept-alive connection, at a fixed pace; one that was due while another was waited for counts from when it was due.
//!
//! Attackers of the network have no key. They forge frames under a key id that they saw, and replay those of a real
//! peer. `accepted` is what the agent took as a peer's and the peer did not send; `answered` is what came back to the
//! attackers' sockets, which for clients of the plugin are refusals and answers. `CPU s` is the agent's processor time
//! during the row.

mod agent;
mod attacks;
mod clients;
#[expect(dead_code, unreachable_pub, reason = "shared with tests, which use all of it")]
#[path = "../../tests/common/frames.rs"]
mod frames;
mod network;
#[expect(dead_code, unreachable_pub, reason = "shared with tests, which use all of it")]
#[path = "../../tests/common/puppet.rs"]
mod puppet;
mod renew;

use std::time::Duration;

use agent::{Agent, Seen};
use anyhow::ensure;
use attacks::{Attack, Orders, Report, Side};
use clap::Parser;
use gossd::gossip::keyring::{Keyring, generate};
use puppet::Puppet;
use renew::Times;

#[derive(Parser)]
struct Args {
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

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
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
    runtime.block_on(siege(&args, each))
}

async fn siege(args: &Args, each: Duration) -> anyhow::Result<()> {
    let key = generate();
    let keyring = || Keyring::parse(&key).map_err(|error| anyhow::anyhow!("{error}"));
    let agent = Agent::start(&key)?;
    let peer = Puppet::start(agent.gossip, keyring()?, gossd::config::DEFAULT_CLUSTER, "peer", 1).await;
    agent.wait_for("gossd_frames_received_total{kind=\"pong\"}")?;
    peer.get_ready().await;
    peer.push(2, &[(1, "t2\u{1f}p\u{1f}t\u{1f}node-2\u{1f}10.0.0.2:8420")]).await;
    agent.wait_for("gossd_tunnels")?;
    let mut renewer = renew::Renewer::start(agent.plugin)?;
    renewer.make(args.renews, Duration::from_millis(200))?;
    heading();
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
        row(attack, &report, accepted, &before, &after, &times);
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
    println!("accepted in all: {got_in}; worst p99.9 of a Renew: {worst:.2} ms; Renews that failed: 0");
    Ok(())
}

fn heading() {
    println!(
        "{:<34} {:>22} {:>8} {:>12} {:>19} {:>6} {:>22}  counters that moved",
        "attack", "sent", "accepted", "answered B", "RSS MB before/after", "CPU s", "Renew p50/p99/p99.9 ms"
    );
}

fn row(attack: Attack, report: &Report, accepted: u64, before: &Seen, after: &Seen, times: &Times) {
    let moved = after.moved_since(before);
    println!(
        "{:<34} {:>22} {accepted:>8} {:>12} {:>19} {:>6.2} {:>22}  {}",
        attack.name(),
        format!("{} {}", report.sent, attack.unit()),
        report.answered,
        format!("{:.1}/{:.1}", before.rss_mb, after.rss_mb),
        after.cpu.saturating_sub(before.cpu).as_secs_f64(),
        format!("{:.2}/{:.2}/{:.2}", times.at(0.5), times.at(0.99), times.at(0.999)),
        if moved.is_empty() { "-".into() } else { moved.join(", ") }
    );
}
