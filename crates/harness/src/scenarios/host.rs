//! Whole hosts: lost, paused, back at another address, and many at once.

use std::time::{Duration, Instant};

use super::{HTTP, Scenario, attached_twice, felt, hung_ones_end, pass};
use crate::measured::{Measured, Promise};
use crate::visits::{UnixMillis, now};
use crate::world::{HOST, TTL, TUNNEL, World};

/// Until a host is doubted that is not heard.
const NOT_FIRST: Duration = Duration::from_millis(1_500);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "joined-by-name",
        "every host in turn comes back at another address under one DNS name",
        "a tunnel bound then is served at all three in 1 s",
        |world| Box::pin(joined_by_name(world)),
    )
    .short(HTTP),
    Scenario::new(
        "host-lost",
        "all of its containers are killed",
        "not first elsewhere after 1.5 s",
        |world| Box::pin(lost(world)),
    )
    .short(HTTP),
    Scenario::new(
        "host-paused",
        "no instruction runs for 10 s",
        "not first elsewhere after 1.5 s; back for good in 2 s",
        |world| Box::pin(paused(world)),
    ),
    Scenario::new(
        "host-at-a-new-address",
        "the same name, nothing of what it was",
        "served again within the TTL, 6 s",
        |world| Box::pin(new_address(world)),
    ),
    Scenario::new(
        "host-moves-with-its-data",
        "the same name and journal at another address",
        "served again within the TTL, 6 s",
        |world| Box::pin(moves(world)),
    ),
    Scenario::new(
        "ten-agents-join",
        "ten start at once beside one",
        "all hear all in 5 s, no request fails",
        |world| Box::pin(ten_join(world)),
    ),
];

async fn lost(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    world.lose_host("a").await?;
    hung_ones_end(NOT_FIRST).await;
    world.all_served(&["b", "c"]).await?;
    Ok(felt(world, since, &["b", "c"], Promise::Within(NOT_FIRST)))
}

/// Ten seconds without any instruction, as when a virtual machine is moved.
async fn paused(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    world.freeze_host("a", true).await?;
    pass(10).await;
    world.freeze_host("a", false).await?;
    let back = now();
    pass(16).await;
    world.all_served(&["b", "c"]).await?;
    let after = world.visits.failed(back + 2_000, UnixMillis::MAX, &["b", "c"]);
    anyhow::ensure!(after == 0, "{after} requests failed after it was back for two seconds");
    Ok(felt(world, since, &["b", "c"], Promise::Within(NOT_FIRST)))
}

/// The host comes back at another address, without any of its data.
async fn new_address(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&["a", "b", "c"]).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&["b", "c"], HOST).await?;
    world.clear_host("a").await?;
    world.forget_data("a")?;
    returned_at(world, 60).await
}

/// The host comes back at another address with its journal, whose addresses are stale.
async fn moves(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&["a", "b", "c"]).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&["b", "c"], HOST).await?;
    world.clear_host("a").await?;
    returned_at(world, 61).await
}

async fn returned_at(world: &mut World, number: u8) -> anyhow::Result<Measured> {
    world.add_host_at("a", number).await?;
    let since = now();
    hung_ones_end(TTL).await;
    world.all_served(&["b", "c"]).await?;
    Ok(felt(world, since, &["b", "c"], Promise::Within(TTL)))
}

/// Every host in turn gets another address; all find each other by name.
async fn joined_by_name(world: &mut World) -> anyhow::Result<Measured> {
    let hosts = ["a", "b", "c"];
    world.with_hosts(&hosts).await?;
    for (name, number) in hosts.into_iter().zip(70..) {
        world.clear_host(name).await?;
        world.forget_data(name)?;
        world.add_host_at(name, number).await?;
        world.meets(name, 2).await?;
    }
    world.start_visitors(&hosts, HOST).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    let since = now();
    world.all_served(&hosts).await?;
    Ok(felt(world, since, &hosts, Promise::Within(Duration::from_secs(1))))
}

/// Ten agents start at once and join one that is running.
async fn ten_join(world: &mut World) -> anyhow::Result<Measured> {
    const TEN: [&str; 10] = ["j0", "j1", "j2", "j3", "j4", "j5", "j6", "j7", "j8", "j9"];
    world.with_hosts(&["a"]).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&["a"], HOST).await?;
    for (name, number) in TEN.into_iter().zip(30..) {
        world.add_bare_host(name, number).await?;
    }
    let (since, start) = (now(), Instant::now());
    let all: Vec<&str> = TEN.into_iter().chain(["a"]).collect();
    world.all_met(&all).await?;
    let measured = felt(world, since, &["a"], Promise::Within(Duration::from_secs(5)));
    anyhow::ensure!(measured.failed == 0, "{measured}");
    Ok(Measured { felt: start.elapsed(), ..measured })
}
