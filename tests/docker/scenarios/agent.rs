//! The agent itself fails: gost goes on beside it, and what is attached there stays reachable from elsewhere.

use std::time::Duration;

use super::{Measured, NOTHING, felt, pass, steadily, sum};
use crate::visits::{Moment, now};
use crate::world::{HOST, TUNNEL, World};

const HOSTS: [&str; 3] = ["a", "b", "c"];

/// A tunnel attached at a only.
async fn attached(world: &mut World) -> anyhow::Result<()> {
    world.with_hosts(&HOSTS).await?;
    world.client("one", &["a"], TUNNEL, HOST).await?;
    world.visitors(&HOSTS, HOST).await
}

/// Killed, away for most of the TTL, and back.
pub(super) async fn killed(world: &mut World) -> anyhow::Result<Measured> {
    attached(world).await?;
    let since = now();
    let agent = world.container("a", "gossd");
    world.engine.kill(&agent).await?;
    pass(4).await;
    world.engine.start(&agent).await?;
    pass(4).await;
    world.all_served(&HOSTS).await?;
    Ok(felt(world, since, &["b", "c"], NOTHING))
}

pub(super) async fn restarted(world: &mut World) -> anyhow::Result<Measured> {
    attached(world).await?;
    let since = now();
    world.restart_agent("a", "SIGTERM").await?;
    pass(4).await;
    world.all_served(&HOSTS).await?;
    Ok(felt(world, since, &["b", "c"], NOTHING))
}

/// One after the other, and each of the others serves meanwhile.
pub(super) async fn upgraded(world: &mut World) -> anyhow::Result<Measured> {
    attached(world).await?;
    world.client("two", &["b"], TUNNEL, HOST).await?;
    let mut all = Vec::new();
    for name in HOSTS {
        let since = now();
        world.replace_agent(name).await?;
        all.push(steadily(world, since, name, &HOSTS).await?);
    }
    Ok(sum(all))
}

/// All at once: everything is back from the journals.
pub(super) async fn all_restarted(world: &mut World) -> anyhow::Result<Measured> {
    attached(world).await?;
    world.crowd("a", 1_000).await?;
    world.all_know_crowd(&HOSTS, 1_000).await?;
    for name in HOSTS {
        world.engine.kill(&world.container(name, "gossd")).await?;
    }
    for name in HOSTS {
        world.engine.start(&world.container(name, "gossd")).await?;
    }
    let since = now();
    pass(4).await;
    world.all_served(&HOSTS).await?;
    world.all_know_crowd(&HOSTS, 1_000).await?;
    Ok(felt(world, since, &[], Duration::from_secs(2)))
}

/// The journal cannot be written: the agent says so and goes on.
pub(super) async fn disk_full(world: &mut World) -> anyhow::Result<Measured> {
    attached(world).await?;
    let since = now();
    world.engine.execute(&world.container("a", "gossd"), "/fakegost fill /small/filler").await?;
    // More than the journal's file has room for.
    world.crowd("a", 1_000).await?;
    world.says("a", "going on in memory").await?;
    world.all_know_crowd(&HOSTS, 1_000).await?;
    world.engine.execute(&world.container("a", "gossd"), "/fakegost free /small/filler").await?;
    world.says("a", "the journal is written again").await?;
    world.all_served(&HOSTS).await?;
    Ok(felt(world, since, &[], NOTHING))
}

/// One host's clock is an hour ahead, and is then put right.
pub(super) async fn clock_ahead(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&HOSTS).await?;
    world.client("one", &["a"], TUNNEL, HOST).await?;
    world.visitors(&HOSTS, HOST).await?;
    let since: Moment = now();
    // The plan has started it an hour ahead; from now on its generation has to come from the journal.
    world.engine.signal(&world.container("a", "gossd"), "SIGTERM").await?;
    world.engine.ended(&world.container("a", "gossd")).await?;
    world.remove("a", "gossd").await?;
    world.start_agent_with("a", &[]).await?;
    pass(8).await;
    world.all_served(&HOSTS).await?;
    Ok(felt(world, since, &["b", "c"], NOTHING))
}
