//! An entrypoint that cannot be dialled from everywhere, although its host's agent is heard. gost dials one record and no
//! second one, so that record must not come first where nobody answers.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{Scenario, felt, hung_ones_end};
use crate::measured::{Measured, Promise};
use crate::visits::{UnixMillis, now};
use crate::world::{HOST, OTHER, Plan, TUNNEL, World};

/// a cannot dial b; d has no connector either.
const FOUR: [&str; 4] = ["a", "b", "c", "d"];
/// Until the first dial of an entrypoint has failed, and a little more.
const FIRST_DIAL: Duration = Duration::from_secs(2);
/// Until an entrypoint that worked is dialled again, and that has failed.
const NEXT_DIAL: Duration = Duration::from_secs(11);
/// Until a way around a hole is found.
const AROUND: Duration = Duration::from_secs(5);
/// The last byte of an address where nobody answers.
const NOWHERE: u8 = 250;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "entrypoint-closed-to-one",
        "one host may not dial another's entrypoint; a third has the tunnel, too",
        "not first there after 2 s, and named at both; no request fails elsewhere",
        |world| Box::pin(closed_to_one(world)),
    ),
    Scenario::new(
        "entrypoint-closes-to-one",
        "the same, while visitors come",
        "not first there after 11 s, and named at both; no request fails elsewhere",
        |world| Box::pin(closes_to_one(world)),
    ),
    Scenario::new(
        "wrong-advertised-address",
        "a host advertises an address where nobody answers; another has the tunnel, too",
        "not first elsewhere after 2 s, and named at every host",
        |world| Box::pin(wrongly_advertised(world)),
    )
    .with(nowhere),
    Scenario::new(
        "hole-with-a-way-around",
        "one host may not dial the only entrypoint of a tunnel; a third may",
        "served by way of the third after 5 s; no request fails elsewhere",
        |world| Box::pin(around_a_hole(world)),
    ),
];

/// b advertises an address where nobody answers.
fn nowhere() -> Plan {
    Plan { advertised: [("b", NOWHERE)].into(), ..Plan::default() }
}

/// The first visitors come when it is closed already.
async fn closed_to_one(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&FOUR).await?;
    close_to_one(world).await?;
    attach_twice(world).await?;
    let since = now();
    world.start_visitors(&["a", "c", "d"], HOST).await?;
    noticed_at_one(world, since, FIRST_DIAL).await
}

/// Visitors have been served from there until now.
async fn closes_to_one(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&FOUR).await?;
    attach_twice(world).await?;
    world.visitors(&["a", "c", "d"], HOST).await?;
    let since = now();
    close_to_one(world).await?;
    noticed_at_one(world, since, NEXT_DIAL).await
}

/// b is heard from where it really is, and nobody reaches the address that it advertises.
async fn wrongly_advertised(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&FOUR).await?;
    world.add_blackhole(NOWHERE, &FOUR).await?;
    attach_twice(world).await?;
    let since = now();
    world.start_visitors(&["a", "d"], HOST).await?;
    hung_ones_end(FIRST_DIAL).await;
    let measured = struck(world, since, &["a", "d"], FIRST_DIAL).check()?;
    world.all_served(&["a", "d"]).await?;
    let entrypoint = format!("{}:8420", world.ip_of(NOWHERE));
    for name in ["a", "d"] {
        named_once(world, name, &entrypoint).await?;
    }
    named_by_owner(world, "b", &entrypoint).await?;
    Ok(measured)
}

/// Only b has the tunnel, and visitors at a are served by way of c, whose gost has another one: so its agent knows where it
/// is. Who visits at c comes straight to b.
async fn around_a_hole(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&FOUR).await?;
    close_to_one(world).await?;
    world.client("other", "c", OTHER, "other.example.test").await?;
    world.client("at-b", "b", TUNNEL, HOST).await?;
    let since = now();
    world.start_visitors(&["a", "c"], HOST).await?;
    hung_ones_end(AROUND).await;
    let measured = struck(world, since, &["a"], AROUND).check()?;
    world.all_served(&["a", "c"]).await?;
    let elsewhere = world.visits.failed(since, UnixMillis::MAX, &["c"]);
    ensure!(elsewhere == 0, "{elsewhere} requests failed where it is reached");
    Ok(measured)
}

/// b's entrypoint takes no connection from a.
async fn close_to_one(world: &mut World) -> anyhow::Result<()> {
    let ip = world.ip("a");
    world.harm("b", &format!("block --from {ip} --port 8420")).await.map(drop)
}

async fn attach_twice(world: &mut World) -> anyhow::Result<()> {
    world.client("at-b", "b", TUNNEL, HOST).await?;
    world.client("at-c", "c", TUNNEL, HOST).await
}

/// What visitors at a noticed of b's closed entrypoint. Elsewhere nothing changes: visitors at d are still sent to b.
async fn noticed_at_one(world: &World, since: UnixMillis, promised: Duration) -> anyhow::Result<Measured> {
    hung_ones_end(promised).await;
    let measured = struck(world, since, &["a"], promised).check()?;
    world.all_served(&["a", "c", "d"]).await?;
    let elsewhere = world.visits.failed(since, UnixMillis::MAX, &["c", "d"]);
    ensure!(elsewhere == 0, "{elsewhere} requests failed where both are reached");
    let lately = world.visits.between(now() - 5_000, UnixMillis::MAX, &["d"]);
    ensure!(lately.iter().any(|visit| visit.answer == "at-b"), "visitors at d are not sent to b any more");
    let entrypoint = world.entrypoint("b");
    named_once(world, "a", &entrypoint).await?;
    named_by_owner(world, "b", &entrypoint).await?;
    Ok(measured)
}

/// From the first request that was noticed to the last one.
fn struck(world: &World, since: UnixMillis, hosts: &[&str], promised: Duration) -> Measured {
    felt(world, world.visits.struck(since, hosts), hosts, Promise::Within(promised))
}

/// Where it cannot be dialled, the log warns of an entrypoint once, with its address, and the status names it.
async fn named_once(world: &World, name: &str, entrypoint: &str) -> anyhow::Result<()> {
    let warnings = world.warnings(name, entrypoint).await?;
    ensure!(warnings.len() == 1, "{name} has not one warning of {entrypoint}: {warnings:?}");
    is_a_problem(world, name, entrypoint).await
}

/// The log and the status of its owner say that others cannot dial an entrypoint.
async fn named_by_owner(world: &World, name: &str, entrypoint: &str) -> anyhow::Result<()> {
    let warnings = world.warnings(name, &format!("cannot reach our entrypoint {entrypoint}")).await?;
    ensure!(!warnings.is_empty(), "{name} has no warning that its entrypoint {entrypoint} is not reached");
    is_a_problem(world, name, entrypoint).await
}

async fn is_a_problem(world: &World, name: &str, entrypoint: &str) -> anyhow::Result<()> {
    let status = world.status(name).await?;
    let problems = status["problems"].as_array().context("no problems")?;
    let named =
        |problem: &serde_json::Value| problem["text"].as_str().is_some_and(|text| text.contains(entrypoint));
    ensure!(problems.iter().any(named), "{entrypoint} is no problem in the status of {name}: {problems:?}");
    Ok(())
}
