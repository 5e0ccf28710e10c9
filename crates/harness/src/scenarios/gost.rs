//! gost dies in every way it can. Its clients come back, and visitors must not be sent to its former place.

use std::time::Duration;

use super::{ALL, BOTH, HTTP, Scenario, attached_twice, felt, hung_ones_end, pass};
use crate::measured::{Measured, Promise};
use crate::visits::now;
use crate::world::{HOST, OTHER, Plan, TUNNEL, World};

const GONE: Promise = Promise::Within(Duration::from_millis(100));
const KNOWN: Promise = Promise::Within(Duration::from_millis(100));
const FROZEN: Duration = Duration::from_secs(8);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "registered-everywhere",
        "none: tunnels attach at three hosts",
        "known at all three in 0.1 s",
        |world| Box::pin(everywhere(world)),
    )
    .short(BOTH),
    Scenario::new(
        "registered-without-address",
        "none, but gost has its entrypoint in a list that it never registers, and agents have `--fallback-address`",
        "known at all three in 0.1 s",
        |world| Box::pin(everywhere(world)),
    )
    .with(unnamed_entrypoint),
    Scenario::new(
        "renewed-seldom",
        "none: gost renews every 20 s, records have a TTL of 6 s",
        "no request fails",
        |world| Box::pin(renewed_seldom(world)),
    )
    .with(seldom),
    Scenario::new(
        "client-moves",
        "a client attaches at another host, then leaves the first",
        "not felt for longer than 0.1 s",
        |world| Box::pin(client_moves(world)),
    ),
    Scenario::new("gost-killed", "kill -9", "its records are gone everywhere in 0.1 s", |world| {
        Box::pin(ended(world, "SIGKILL"))
    })
    .short(BOTH),
    Scenario::new(
        "gost-terminated",
        "SIGTERM, which seldom says goodbye",
        "its records are gone everywhere in 0.1 s",
        |world| Box::pin(ended(world, "SIGTERM")),
    ),
    Scenario::new(
        "gost-terminated-with-goodbye",
        "SIGTERM, and the Deregisters win their race",
        "its records are gone everywhere in 0.1 s",
        |world| Box::pin(ended(world, "SIGTERM")),
    )
    .with(goodbye)
    .simulated_only("whether its Deregisters win is its own race"),
    Scenario::new(
        "gost-reloaded",
        "SIGHUP: a new node, every connection of a client is closed",
        "its former records are gone everywhere in 0.1 s",
        |world| Box::pin(reloaded(world)),
    ),
    Scenario::new(
        "gost-restarted",
        "kill -9 and started, a new instance",
        "its former records are gone everywhere in 0.1 s",
        |world| Box::pin(restarted(world)),
    ),
    Scenario::new(
        "gost-frozen",
        "no instruction runs, connections stay open",
        "not first anywhere else after 8 s",
        |world| Box::pin(frozen(world)),
    ),
    Scenario::new(
        "gost-frozen-default-ttl",
        "the same, with gost's default of a Renew every 15 s",
        "not first anywhere else after 8 s",
        |world| Box::pin(frozen_soon_after_a_renew(world)),
    )
    .with(default_ttl),
    Scenario::new(
        "udp-beside-tcp",
        "the same tunnel has a UDP connector at another host",
        "no request of a web visitor fails where there is none",
        |world| Box::pin(udp_beside_tcp(world)),
    )
    .short(HTTP),
];

fn unnamed_entrypoint() -> Plan {
    let flags = ["--fallback-address", ":8420"].map(str::to_owned);
    Plan { unnamed_entrypoint: true, flags: flags.into(), ..Plan::default() }
}

/// Gosts whose Renew period is longer than the TTL.
pub(super) fn seldom() -> Plan {
    Plan { ttl: Duration::from_secs(20), ..Plan::default() }
}

/// Gosts with their own `tunnel.ttl`.
fn default_ttl() -> Plan {
    Plan { ttl: Duration::from_secs(15), ..Plan::default() }
}

fn goodbye() -> Plan {
    Plan { goodbye: true, ..Plan::default() }
}

async fn ended(world: &mut World, signal: &str) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    world.engine.signal(&world.container("a", "gost"), signal).await?;
    pass(4).await;
    world.all_served(&["b", "c"]).await?;
    Ok(felt(world, since, &["b", "c"], GONE))
}

async fn reloaded(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    world.engine.signal(&world.container("a", "gost"), "SIGHUP").await?;
    pass(4).await;
    world.all_served(&["b", "c"]).await?;
    Ok(felt(world, since, &["b", "c"], GONE))
}

/// A new instance at the same entrypoint, to which its client returns.
async fn restarted(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    let gost = world.container("a", "gost");
    world.engine.kill(&gost).await?;
    world.engine.start(&gost).await?;
    pass(4).await;
    world.all_served(&["b", "c"]).await?;
    Ok(felt(world, since, &["b", "c"], GONE))
}

/// Its connections stay open and nothing answers: only the missing Renews show it.
async fn frozen(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    freeze(world).await
}

/// The agent has seen two Renews, so it knows the period; the next one is due long after the promised time.
async fn frozen_soon_after_a_renew(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    pass(30).await;
    freeze(world).await
}

async fn freeze(world: &World) -> anyhow::Result<Measured> {
    let since = now();
    world.engine.freeze(&world.container("a", "gost"), true).await?;
    hung_ones_end(FROZEN).await;
    world.all_served(&["c"]).await?;
    Ok(felt(world, since, &["c"], Promise::Within(FROZEN)))
}

/// A client starts at another host before it ends at the first.
async fn client_moves(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&ALL, HOST).await?;
    world.client("two", "c", TUNNEL, HOST).await?;
    world.all_served(&ALL).await?;
    let since = now();
    world.kill_client("one").await?;
    pass(3).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, GONE))
}

/// Tunnels at every host, each reached from every other host as soon as it is bound.
async fn everywhere(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.start_visitors(&ALL, HOST).await?;
    world.client("other", "c", OTHER, "other.example.test").await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    let since = world.bound().last().map(|(at, _)| *at).unwrap_or_default();
    world.all_served(&ALL).await?;
    world.client("two", "b", TUNNEL, HOST).await?;
    world.client("three", "c", TUNNEL, HOST).await?;
    pass(2).await;
    Ok(felt(world, since, &ALL, KNOWN))
}

/// Longer than two periods and the TTL.
async fn renewed_seldom(world: &mut World) -> anyhow::Result<Measured> {
    super::attached_once(world).await?;
    let since = now();
    pass(48).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::NoneFails))
}

/// b has only a UDP connector, and would use it for every visitor. a and c must send no web visitor to b.
async fn udp_beside_tcp(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&["a", "c"], HOST).await?;
    let since = now();
    world.start_client("dns", "b", TUNNEL, "", "udp").await?;
    world.until("the UDP client is bound", || world.bound().len() > 1).await?;
    pass(4).await;
    world.all_served(&["a", "c"]).await?;
    Ok(felt(world, since, &["a", "c"], Promise::NoneFails))
}
