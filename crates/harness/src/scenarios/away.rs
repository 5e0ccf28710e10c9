//! The agent is killed and stays away for a while: what visitors notice without any precaution, with a second address
//! in gost's plugins, and with host names in a file.

use std::time::Duration;

use anyhow::ensure;

use super::{ALL, GRPC, HTTP, Scenario, attached_once, felt, pass};
use crate::measured::{Measured, Promise};
use crate::visits::{UnixMillis, Visit, now};
use crate::world::{HOST, OTHER, Plan, TUNNEL, World, hash_host};

const GONE: Promise = Promise::Within(Duration::from_millis(100));
/// Until a record is served that only a Renew brought: gost's back-off after the agent's absence, and its Renew period.
const HEALED: Duration = Duration::from_secs(6);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("agent-killed", "kill -9, back after 4 s, no supervisor", "measured", |world| {
        Box::pin(killed(world, 4))
    })
    .short(GRPC),
    Scenario::new("agent-killed-for-long", "kill -9, back after 30 s, no supervisor", "measured", |world| {
        Box::pin(killed(world, 30))
    }),
    Scenario::new(
        "agent-killed-second-address",
        "kill -9, back after 4 s, gost has a second address; then its gost is killed",
        "none fails at any host but those whose calls it was answering; its records are gone everywhere in 0.1 s",
        |world| Box::pin(away_with_second_address(world, 4)),
    )
    .with(second_address)
    .short(GRPC),
    Scenario::new(
        "agent-dead-second-address",
        "kill -9, back after 30 s, gost has a second address; then its gost is killed",
        "none fails at any host but those whose calls it was answering; its records are gone everywhere in 0.1 s",
        |world| Box::pin(away_with_second_address(world, 30)),
    )
    .with(second_address),
    Scenario::new(
        "agent-killed-rule-file",
        "kill -9, back after 4 s, gost reads host names from a file",
        "no request fails at any host",
        |world| Box::pin(away_with_rule_file(world, 4)),
    )
    .with(rule_file)
    .short(HTTP),
    Scenario::new(
        "agent-dead-rule-file",
        "kill -9, back after 60 s, gost reads host names from a file",
        "no request fails at any host",
        |world| Box::pin(away_with_rule_file(world, 60)),
    )
    .with(rule_file),
    Scenario::new(
        "bind-while-away",
        "a client attaches while its host's agent is away for 4 s",
        "its hash host is served everywhere in 6 s after the agent is back",
        |world| Box::pin(bound_while_away(world)),
    ),
    Scenario::new(
        "stale-on-both",
        "two agents are killed together, both their clients, too, and the agents are back",
        "no request waits longer than 1 s: none bounces between the two",
        |world| Box::pin(stale_on_both(world)),
    ),
];

fn second_address() -> Plan {
    Plan { second_address: true, ..Plan::default() }
}

fn rule_file() -> Plan {
    Plan { rule_file: true, ..Plan::default() }
}

async fn killed(world: &mut World, seconds: u64) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    let since = now();
    let agent = world.agent("a");
    world.engine.kill(&agent).await?;
    pass(seconds).await;
    world.engine.start(&agent).await?;
    pass(4).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::Measured))
}

/// Another agent serves that gost meanwhile. When its own agent is back and the gost dies, the own agent's memory of it
/// is stale.
async fn away_with_second_address(world: &mut World, seconds: u64) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    world.client("two", "c", TUNNEL, HOST).await?;
    let since = now();
    let agent = world.agent("a");
    world.engine.kill(&agent).await?;
    pass(seconds).await;
    world.engine.start(&agent).await?;
    pass(4).await;
    world.all_served(&ALL).await?;
    // A call in progress is lost with the agent.
    let away = felt(world, since, &ALL, Promise::Within(Duration::from_millis(200))).check()?;
    let since = now();
    world.engine.kill(&world.container("a", "gost")).await?;
    pass(4).await;
    world.all_served(&["b", "c"]).await?;
    let dead = felt(world, since, &["b", "c"], GONE);
    Ok(Measured::sum([dead, away]).expect("two steps"))
}

/// Visitors use the hash host, which needs no claim: with a file, clients get no names of their own.
async fn away_with_rule_file(world: &mut World, seconds: u64) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, "").await?;
    world.visitors(&ALL, &hash_host(TUNNEL)).await?;
    let since = now();
    let agent = world.agent("a");
    world.engine.kill(&agent).await?;
    pass(seconds).await;
    world.engine.start(&agent).await?;
    pass(4).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::NoneFails))
}

/// gost registers once. The agent learns that connector from a Renew, which has no address.
async fn bound_while_away(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.client("before", "a", OTHER, "other.example.test").await?;
    let agent = world.agent("a");
    world.engine.kill(&agent).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.start_visitors(&ALL, &hash_host(TUNNEL)).await?;
    pass(4).await;
    let since = now();
    world.engine.start(&agent).await?;
    pass(16).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::Within(HEALED)))
}

/// Nobody can be served, and nobody should wait. Three requests a second, because each that bounces opens thousands of
/// connections.
async fn stale_on_both(world: &mut World) -> anyhow::Result<Measured> {
    const PACE: Duration = Duration::from_millis(330);
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.client("two", "c", TUNNEL, HOST).await?;
    world.start_visitors_every(&ALL, HOST, PACE).await?;
    world.until("all are served", served_everywhere(world)).await?;
    let agents = ["a", "c"].map(|name| world.agent(name));
    for agent in &agents {
        world.engine.kill(agent).await?;
    }
    for client in ["one", "two"] {
        world.kill_client(client).await?;
    }
    for agent in &agents {
        world.engine.start(agent).await?;
    }
    // Until the gosts call their agents again.
    pass(4).await;
    let since = now();
    pass(10).await;
    let until = now();
    // Requests that began then have reached gost's timeout.
    pass(16).await;
    let visits = world.visits.between(since, until, &ALL);
    let waited = visits.iter().map(Visit::took).max().unwrap_or_default();
    ensure!(
        waited < Duration::from_secs(1),
        "of {} requests of a dead tunnel one took {waited:?}",
        visits.len()
    );
    let since = now();
    world.client("three", "b", TUNNEL, HOST).await?;
    world.until("all are served", served_everywhere(world)).await?;
    Ok(felt(world, since, &ALL, Promise::Within(Duration::from_secs(1))))
}

/// Whether a visitor of every host has been served since now.
fn served_everywhere(world: &World) -> impl Fn() -> bool {
    let (since, visits) = (now(), world.visits.clone());
    move || {
        ALL.iter().all(|host| visits.between(since, UnixMillis::MAX, &[host]).iter().any(|visit| visit.ok))
    }
}
