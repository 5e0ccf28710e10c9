//! gost dies in every way it can: its clients come back at another host, and visitors must not be sent to it.

use std::time::Duration;

use super::{Measured, attached_twice, felt, hung_ones_end, pass};
use crate::visits::now;
use crate::world::{HOST, OTHER, TTL, TUNNEL, World};

const GONE: Duration = Duration::from_millis(1_500);

pub(super) async fn killed(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    world.engine.kill(&world.container("a", "gost")).await?;
    pass(4).await;
    world.all_served(&["b", "c"]).await?;
    Ok(felt(world, since, &["b", "c"], GONE))
}

pub(super) async fn terminated(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    world.engine.signal(&world.container("a", "gost"), "SIGTERM").await?;
    pass(4).await;
    world.all_served(&["b", "c"]).await?;
    Ok(felt(world, since, &["b", "c"], GONE))
}

/// Its connections stay open and nobody answers: only the Renews that do not come tell.
pub(super) async fn frozen(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    world.engine.freeze(&world.container("a", "gost"), true).await?;
    hung_ones_end(TTL).await;
    world.all_served(&["c"]).await?;
    Ok(felt(world, since, &["c"], TTL))
}

/// A new instance at the same entrypoint, and its client comes back to it.
pub(super) async fn restarted(world: &mut World) -> anyhow::Result<Measured> {
    attached_twice(world).await?;
    let since = now();
    let gost = world.container("a", "gost");
    world.engine.kill(&gost).await?;
    world.engine.start(&gost).await?;
    pass(4).await;
    world.all_served(&["b", "c"]).await?;
    Ok(felt(world, since, &["b", "c"], GONE))
}

/// A client starts at another host before it ends at the first.
pub(super) async fn client_moves(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&["a", "b", "c"]).await?;
    world.client("one", &["a"], TUNNEL, HOST).await?;
    world.visitors(&["a", "b", "c"], HOST).await?;
    world.client("two", &["c"], TUNNEL, HOST).await?;
    world.all_served(&["a", "b", "c"]).await?;
    let since = now();
    world.remove("one", "client").await?;
    pass(3).await;
    world.all_served(&["a", "b", "c"]).await?;
    Ok(felt(world, since, &[], Duration::from_millis(100)))
}

/// Tunnels at every host, each reached from every other as soon as it is bound.
pub(super) async fn everywhere(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&["a", "b", "c"]).await?;
    world.start_visitors(&["a", "b", "c"], HOST).await?;
    world.client("other", &["c"], OTHER, "other.example.test").await?;
    world.client("one", &["a"], TUNNEL, HOST).await?;
    let since = world.bound().last().map(|(at, _)| *at).unwrap_or_default();
    world.all_served(&["a", "b", "c"]).await?;
    world.client("two", &["b"], TUNNEL, HOST).await?;
    world.client("three", &["c"], TUNNEL, HOST).await?;
    pass(2).await;
    Ok(felt(world, since, &[], Duration::from_millis(100)))
}
