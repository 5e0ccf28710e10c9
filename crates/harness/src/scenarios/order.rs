//! Operators say which of several hosts visitors are sent to: zones and weights.

use std::time::Duration;

use anyhow::ensure;

use super::{Scenario, felt, hung_ones_end, pass};
use crate::measured::{Measured, Promise};
use crate::visits::{UnixMillis, now};
use crate::world::{HOST, Plan, TUNNEL, World};

const THREE: [&str; 3] = ["a", "b", "c"];
const GONE: Duration = Duration::from_millis(100);
/// A lost host is doubted after 1.2 s.
const NOT_FIRST: Duration = Duration::from_millis(1_500);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "zones",
        "none: the tunnel is attached in this zone and in another one; then gost is killed in this zone",
        "all visitors go to this zone; after it is killed, to the other one in 0.1 s",
        |world| Box::pin(zones(world)),
    )
    .with(two_zones),
    Scenario::new(
        "weight-zero",
        "none: one of two hosts has weight 0; then the other one is lost",
        "no visitor goes to weight 0; after the other is lost, all do in 1.5 s",
        |world| Box::pin(weight_zero(world)),
    )
    .with(backup),
];

fn two_zones() -> Plan {
    Plan { flags_of: [("a", "--zone x"), ("b", "--zone x"), ("c", "--zone y")].into(), ..Plan::default() }
}

fn backup() -> Plan {
    Plan { flags_of: [("b", "--weight 0")].into(), ..Plan::default() }
}

/// a and b are in one zone, c is in another one.
async fn zones(world: &mut World) -> anyhow::Result<Measured> {
    attached_at_b_and_c(world).await?;
    let before = all_go_to(world, "at-b").await?;
    let since = now();
    world.engine.kill(&world.container("b", "gost")).await?;
    pass(2).await;
    let after = felt(world, since, &["a"], Promise::Within(GONE)).check()?;
    all_go_to(world, "at-c").await?;
    Ok(Measured::sum([after, before]).expect("two steps"))
}

/// b takes visitors only if nobody else does.
async fn weight_zero(world: &mut World) -> anyhow::Result<Measured> {
    attached_at_b_and_c(world).await?;
    let before = all_go_to(world, "at-c").await?;
    let since = now();
    world.lose_host("c").await?;
    hung_ones_end(NOT_FIRST).await;
    let after = felt(world, since, &["a"], Promise::Within(NOT_FIRST)).check()?;
    all_go_to(world, "at-b").await?;
    Ok(Measured::sum([after, before]).expect("two steps"))
}

async fn attached_at_b_and_c(world: &mut World) -> anyhow::Result<()> {
    world.with_hosts(&THREE).await?;
    world.client("at-b", "b", TUNNEL, HOST).await?;
    world.client("at-c", "c", TUNNEL, HOST).await?;
    world.visitors(&["a"], HOST).await
}

/// For some seconds every visitor at a is served by this client.
async fn all_go_to(world: &World, client: &str) -> anyhow::Result<Measured> {
    let since = now();
    pass(4).await;
    world.all_served(&["a"]).await?;
    let visits = world.visits.between(since, UnixMillis::MAX, &["a"]);
    let others = visits.iter().filter(|visit| visit.ok && visit.answer != client).count();
    ensure!(others == 0, "{others} of {} visitors did not go to the client {client}", visits.len());
    felt(world, since, &["a"], Promise::NoneFails).check()
}
