//! Keys: changed under a running cluster, and wrong.

use super::{Measured, NOTHING, felt, pass, steadily, sum};
use crate::visits::now;
use crate::world::{HOST, KEYS, TUNNEL, World};

const HOSTS: [&str; 3] = ["a", "b", "c"];

/// Known everywhere, then sealing everywhere, then alone; a fourth agent is down all the while.
pub(super) async fn rotated(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&HOSTS).await?;
    world.add_host("d").await?;
    world.client("one", &["a"], TUNNEL, HOST).await?;
    world.client("two", &["b"], TUNNEL, HOST).await?;
    world.visitors(&HOSTS, HOST).await?;
    world.engine.kill(&world.container("d", "gossd")).await?;
    let [old, new] = KEYS;
    let mut all = Vec::new();
    for keys in [&[old, new][..], &[new, old], &[new]] {
        world.write_keys(keys)?;
        for name in HOSTS {
            let since = now();
            world.restart_agent(name, "SIGTERM").await?;
            all.push(steadily(world, since, name, &HOSTS).await?);
        }
    }
    world.engine.start(&world.container("d", "gossd")).await?;
    world.start_visitors(&["d"], HOST).await?;
    world.all_served(&["d"]).await?;
    Ok(sum(all))
}

/// An agent with another key is nobody's peer, and everybody says why.
pub(super) async fn wrong(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&HOSTS).await?;
    world.client("one", &["a"], TUNNEL, HOST).await?;
    world.visitors(&HOSTS, HOST).await?;
    let since = now();
    world.write_keys_of("d", &[KEYS[1]])?;
    world.add_host("d").await?;
    pass(8).await;
    world.all_served(&HOSTS).await?;
    for (name, peers) in [("a", 2), ("b", 2), ("c", 2), ("d", 0)] {
        let joined = world.said(name, "peer joined").await?;
        anyhow::ensure!(joined == peers, "{name} has {joined} peers");
    }
    anyhow::ensure!(world.said("d", "key").await? > 0, "it says nothing of keys");
    Ok(felt(world, since, &HOSTS, NOTHING))
}
