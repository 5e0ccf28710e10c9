//! Keys: changed in a running cluster, by files or by `gossd keys`, and wrong ones.

use anyhow::ensure;
use gossd_core::link::keyring::{KeyId, Keyring};

use super::{ALL, HTTP, Scenario, felt, pass};
use crate::measured::{Measured, Promise};
use crate::visits::now;
use crate::world::{HOST, KEYS, TUNNEL, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "keys-rotated",
        "three keyrings in turn, agent by agent taken over, while a fourth is down",
        "no request fails at any other host",
        |world| Box::pin(rotated(world)),
    ),
    Scenario::new(
        "keys-changed",
        "`gossd keys` adds, uses and removes, while a fourth agent is down and comes back with its old file",
        "no request fails; a step that is not safe yet is refused",
        |world| Box::pin(changed(world)),
    ),
    Scenario::new("wrong-key", "an agent with another key", "nothing changes, and it is said", |world| {
        Box::pin(wrong(world))
    })
    .short(HTTP),
];

/// A new key is first known everywhere, then encrypts everywhere, then is the only one. A fourth agent is down
/// meanwhile.
async fn rotated(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.add_host("d").await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.client("two", "b", TUNNEL, HOST).await?;
    world.visitors(&ALL, HOST).await?;
    world.engine.kill(&world.agent("d")).await?;
    let [old, new] = KEYS;
    let since = now();
    for keys in [&[old, new][..], &[new, old], &[new]] {
        world.write_keys(keys)?;
        for name in ALL {
            world.take_over(name).await?;
            pass(1).await;
            world.all_served(&ALL).await?;
        }
    }
    let measured = felt(world, since, &ALL, Promise::NoneFails);
    world.engine.start(&world.agent("d")).await?;
    world.start_visitors(&["d"], HOST).await?;
    world.all_served(&["d"]).await?;
    Ok(measured)
}

/// `gossd keys` at one agent changes the keys of all. A fourth agent is down meanwhile and comes back with its old key
/// file.
async fn changed(world: &mut World) -> anyhow::Result<Measured> {
    const DONE: i64 = 0;
    const REFUSED: i64 = 1;
    const NOT_EVERYWHERE: i64 = 3;
    let [old, new] = KEYS;
    for name in ["a", "b", "c", "d"] {
        world.write_keys_of(name, &[old])?;
    }
    world.with_hosts(&["a", "b", "c", "d"]).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.client("two", "b", TUNNEL, HOST).await?;
    world.visitors(&ALL, HOST).await?;
    world.engine.kill(&world.agent("d")).await?;
    // Now d counts as silent; only visitors at d notice.
    pass(4).await;
    let since = now();
    let ended = |line: String, expected: i64| {
        let world = &*world;
        async move {
            let code = world.tell_agent("a", &format!("keys {line}")).await?;
            ensure!(code == expected, "gossd keys {line} ended with {code}");
            anyhow::Ok(())
        }
    };
    let [old_id, new_id] = [id(old)?, id(new)?];
    world.write_new_key("a", new)?;
    ended("add /keys/new".into(), NOT_EVERYWHERE).await?;
    ended(format!("use {new_id}"), REFUSED).await?;
    world.engine.start(&world.agent("d")).await?;
    pass(3).await;
    ended(format!("use {new_id}"), DONE).await?;
    ended(format!("remove {old_id}"), DONE).await?;
    for name in ["a", "b", "c", "d"] {
        let filed = world.read_keys_of(name)?;
        ensure!(filed == [new], "{name} has {} keys in its file", filed.len());
    }
    world.start_visitors(&["d"], HOST).await?;
    world.all_served(&["a", "b", "c", "d"]).await?;
    Ok(felt(world, since, &ALL, Promise::NoneFails))
}

fn id(key: &str) -> anyhow::Result<KeyId> {
    Ok(Keyring::parse(key)?.sealing())
}

/// An agent with another key is nobody's peer, and all agents log why.
async fn wrong(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.visitors(&ALL, HOST).await?;
    let since = now();
    world.write_keys_of("d", &[KEYS[1]])?;
    world.add_host("d").await?;
    pass(8).await;
    world.all_served(&ALL).await?;
    let others = 2 + world.bystanders();
    for (name, peers) in [("a", others), ("b", others), ("c", others), ("d", 0)] {
        let joined = world.said(name, "peer joined").await?;
        anyhow::ensure!(joined == peers, "{name} has {joined} peers");
    }
    anyhow::ensure!(world.said("d", "key").await? > 0, "it says nothing of keys");
    Ok(felt(world, since, &ALL, Promise::NoneFails))
}
