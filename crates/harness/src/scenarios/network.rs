//! The network between hosts is cut, loses packets, delays them, and carries no large ones.

use std::time::Duration;

use anyhow::Context as _;

use super::{HTTP, Scenario, attached_twice, felt, hung_ones_end, pass};
use crate::measured::{Measured, Promise};
use crate::visits::{UnixMillis, now};
use crate::world::{HOST, Plan, TUNNEL, World};

const HEALED: Duration = Duration::from_secs(2);
/// Until a host is doubted that is not heard.
const NOT_FIRST: Duration = Duration::from_millis(1_500);
/// How often a host goes off the network, and for how many seconds.
const FLAPS: usize = 10;
const AWAY: u64 = 2;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "one-cut-off",
        "off the network for 4 s, less than the TTL",
        "healed in 2 s; no request fails elsewhere",
        |world| Box::pin(one_cut_off(world)),
    )
    .short(HTTP),
    Scenario::new(
        "one-cut-off-for-long",
        "off the network for 30 s, until it is forgotten",
        "healed in 2 s; no request fails elsewhere",
        |world| Box::pin(one_cut_off_for_long(world)),
    )
    .with(soon_forgotten),
    Scenario::new(
        "half-cut-off",
        "two and two for 4 s, less than the TTL",
        "the other half is not first after 1.5 s; healed in 2 s",
        |world| Box::pin(half_cut_off(world)),
    ),
    Scenario::new(
        "half-cut-off-for-long",
        "two and two for 28 s, until both halves are forgotten",
        "the other half is not first after 1.5 s; healed in 2 s",
        |world| Box::pin(half_cut_off_for_long(world)),
    )
    .with(soon_forgotten),
    Scenario::new(
        "flapping-host",
        "off the network for 2 s, ten times",
        "not first elsewhere after 1.5 s, and warned of once at most, each time; alive again 1 s after it is back",
        |world| Box::pin(flapping(world)),
    ),
    Scenario::new(
        "one-way",
        "one host hears nothing of another",
        "not first there after 1.5 s; no request fails elsewhere",
        |world| Box::pin(one_way(world)),
    ),
    Scenario::new(
        "lossy",
        "gossip by UDP and TCP: 20 % lost each way, 50 ± 20 ms, overtaken, doubled",
        "nobody is suspected, no request fails; 1,000 records reach an agent that restarts empty",
        |world| Box::pin(lossy(world)),
    ),
    Scenario::new(
        "small-packets",
        "MTU 1,280, fragments lost; an agent restarts empty beside 1,000 records",
        "no request fails at other hosts; all records arrive",
        |world| Box::pin(small_packets(world)),
    )
    .with(small_mtu),
];

/// Dead agents are forgotten after seconds instead of minutes.
fn soon_forgotten() -> Plan {
    Plan { switches: vec!["GOSSD_TEST_DEAD_GRACE=8".into()], ..Plan::default() }
}

fn small_mtu() -> Plan {
    Plan { mtu: Some(1_280), ..Plan::default() }
}

async fn one_cut_off(world: &mut World) -> anyhow::Result<Measured> {
    cut_off(world, 4).await
}

/// For longer than the TTL, until dead agents are forgotten.
async fn one_cut_off_for_long(world: &mut World) -> anyhow::Result<Measured> {
    cut_off(world, 30).await
}

async fn cut_off(world: &mut World, seconds: u64) -> anyhow::Result<Measured> {
    let hosts = ["a", "b", "c"];
    world.with_hosts(&hosts).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&hosts, HOST).await?;
    let cut = now();
    world.unplug("c", true).await?;
    pass(seconds).await;
    world.unplug("c", false).await?;
    let healed = now();
    pass(6).await;
    world.all_served(&hosts).await?;
    let meanwhile = world.visits.failed(cut, UnixMillis::MAX, &["a", "b"]);
    anyhow::ensure!(meanwhile == 0, "{meanwhile} requests failed where nothing was cut");
    Ok(felt(world, healed, &["c"], Promise::Within(HEALED)))
}

/// Two hosts and two hosts; each side has the tunnel, and continues.
async fn half_cut_off(world: &mut World) -> anyhow::Result<Measured> {
    halves(world, 4).await
}

/// For longer than the TTL, until each half has forgotten the other.
async fn half_cut_off_for_long(world: &mut World) -> anyhow::Result<Measured> {
    halves(world, 28).await
}

async fn halves(world: &mut World, seconds: u64) -> anyhow::Result<Measured> {
    let hosts = ["a", "b", "c", "d"];
    world.with_hosts(&hosts).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.client("two", "c", TUNNEL, HOST).await?;
    world.visitors(&["b", "d"], HOST).await?;
    let others = format!("{},{}", world.ip("a"), world.ip("b"));
    let mut harms = Vec::new();
    for name in ["c", "d"] {
        harms.push(world.harm(name, &format!("block --from {others}")).await?);
        harms.push(world.harm(name, &format!("block --to {others}")).await?);
    }
    // Each of the four blocks takes a moment to be in force.
    let cut = now();
    pass(seconds).await;
    for harm in harms {
        world.heal(&harm).await?;
    }
    let healed = now();
    hung_ones_end(HEALED).await;
    world.all_served(&["b", "d"]).await?;
    let after = felt(world, healed, &["b", "d"], Promise::Within(HEALED)).check()?;
    anyhow::ensure!(after.failed == 0, "after it was healed: {after}");
    Ok(felt(world, cut, &["b", "d"], Promise::Within(NOT_FIRST)))
}

/// b comes and goes. Whoever visits at a is served by b or by c; who visits at c, by c.
async fn flapping(world: &mut World) -> anyhow::Result<Measured> {
    let hosts = ["a", "b", "c"];
    world.with_hosts(&hosts).await?;
    world.client("at-b", "b", TUNNEL, HOST).await?;
    world.client("at-c", "c", TUNNEL, HOST).await?;
    world.visitors(&["a", "c"], HOST).await?;
    let mut flaps = Vec::new();
    for _ in 0..FLAPS {
        flaps.push(now());
        world.unplug("b", true).await?;
        pass(AWAY).await;
        world.unplug("b", false).await?;
        pass(1).await;
        for name in ["a", "c"] {
            is_alive_at(world, name, "b").await?;
        }
        pass(1).await;
    }
    hung_ones_end(Duration::ZERO).await;
    world.all_served(&["a", "c"]).await?;
    for name in ["a", "c"] {
        let warnings = world.warnings(name, "peer=b").await?;
        anyhow::ensure!(warnings.len() <= FLAPS, "{name} warns of b too often: {warnings:#?}");
    }
    let ends = flaps.iter().skip(1).copied().chain([UnixMillis::MAX]);
    let each = flaps.iter().zip(ends).map(|(since, until)| {
        Measured::between(&world.visits, *since, until, &["a", "c"], Promise::Within(NOT_FIRST))
    });
    Ok(Measured::sum(each).expect("ten times"))
}

/// Whether an agent counts a peer as alive.
async fn is_alive_at(world: &World, name: &str, peer: &str) -> anyhow::Result<()> {
    let status = world.status(name).await?;
    let members = status["members"].as_array().context("no members")?;
    let of_peer = members.iter().find(|member| member["name"] == peer).context("not a member")?;
    anyhow::ensure!(of_peer["state"] == "alive", "at {name}, {peer} is {}", of_peer["state"]);
    Ok(())
}

/// c receives nothing from a any more, and a receives everything from c.
async fn one_way(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    let ip = world.ip("a");
    let harm = world.harm("c", &format!("block --from {ip}")).await?;
    hung_ones_end(NOT_FIRST).await;
    world.all_served(&["b", "c"]).await?;
    let measured = felt(world, since, &["c"], Promise::Within(NOT_FIRST));
    let elsewhere = world.visits.failed(since, UnixMillis::MAX, &["b"]);
    anyhow::ensure!(elsewhere == 0, "{elsewhere} requests failed between hosts that hear each other");
    world.heal(&harm).await?;
    Ok(measured)
}

/// Loss, delay, reordering and duplication of every agent's packets; then one agent loses its data and has to learn
/// everything.
async fn lossy(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    world.crowd("a", 1_000).await?;
    for (seed, name) in ["a", "b", "c"].into_iter().enumerate() {
        let link = "link --loss 0.2 --delay-ms 50 --jitter-ms 20 --reorder 0.05 --duplicate 0.02 --port 8002";
        world.harm(name, &format!("{link} --seed {seed}")).await?;
    }
    let since = now();
    pass(40).await;
    for name in ["a", "b", "c"] {
        let suspected = world.said(name, "peer is silent").await?;
        anyhow::ensure!(suspected == 0, "{name} suspected {suspected} peers that were there");
    }
    let steady = felt(world, since, &["b", "c"], Promise::NoneFails);
    world.restart_agent_empty("c").await?;
    world.all_know_crowd(&["c"], 1_000).await?;
    let meanwhile = world.visits.failed(since, UnixMillis::MAX, &["b"]);
    anyhow::ensure!(meanwhile == 0, "{meanwhile} requests failed elsewhere");
    Ok(steady)
}

/// Packets of at most 1,280 bytes, and no fragments.
async fn small_packets(world: &mut World) -> anyhow::Result<Measured> {
    let hosts = ["a", "b", "c"];
    world.with_hosts(&hosts).await?;
    for name in hosts {
        world.harm(name, "block --fragments").await?;
        world.harm(name, "block --longer-than 1280 --udp-only").await?;
    }
    world.client("one", "a", TUNNEL, HOST).await?;
    world.crowd("a", 1_000).await?;
    world.visitors(&hosts, HOST).await?;
    let since = now();
    // All records of the others have to arrive, in the largest frames.
    world.restart_agent_empty("b").await?;
    world.all_know_crowd(&hosts, 1_000).await?;
    world.all_served(&hosts).await?;
    Ok(felt(world, since, &["a", "c"], Promise::NoneFails))
}
