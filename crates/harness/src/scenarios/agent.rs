//! The agent is replaced, restarted, frozen, drained, or has no disk space. gost continues beside it, and asks it for
//! every visitor, including visitors that another host's gost forwards.

use std::time::Duration;

use anyhow::ensure;

use super::{ALL, BOTH, GRPC, Scenario, attached_once, felt, pass};
use crate::measured::{Measured, Promise};
use crate::visits::now;
use crate::world::{HOST, Plan, TUNNEL, World};

/// How long an agent stays frozen; a visitor may wait as long.
const FROZEN: u64 = 4;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "agent-taken-over",
        "another agent takes its listeners while it runs",
        "no request fails at any host",
        |world| Box::pin(taken_over(world)),
    )
    .short(BOTH),
    Scenario::new(
        "agents-upgraded",
        "one after the other is taken over",
        "no request fails at any host",
        |world| Box::pin(upgraded(world)),
    ),
    Scenario::new(
        "agents-replaced-held",
        "one after the other ends, then another container starts; `gossd hold` keeps its listeners",
        "no request fails at any host",
        |world| Box::pin(replaced(world, Promise::NoneFails)),
    )
    .with(held),
    Scenario::new(
        "agent-killed-held",
        "kill -9 and started at once; `gossd hold` keeps its listeners, as a supervisor would",
        "none fails at any host but those whose calls it was answering: not felt after 0.2 s",
        |world| Box::pin(killed_held(world)),
    )
    .with(held)
    .short(GRPC),
    Scenario::new(
        "agents-replaced",
        "one after the other ends, then another container starts; nobody keeps its listeners",
        "measured",
        |world| Box::pin(replaced(world, Promise::Measured)),
    ),
    Scenario::new(
        "agent-restarted",
        "SIGTERM and started; nobody keeps its listeners",
        "measured",
        |world| Box::pin(restarted(world)),
    ),
    Scenario::new(
        "agent-restarted-renewed-seldom",
        "the same, where gost renews every 20 s and records have a TTL of 6 s",
        "served again after 2 s, for good",
        |world| Box::pin(restarted_renewed_seldom(world)),
    )
    .with(super::gost::seldom),
    Scenario::new(
        "all-agents-restarted",
        "kill -9 of all three at once, 300 records more",
        "all is served again in 4 s",
        |world| Box::pin(all_restarted(world)),
    )
    .short(GRPC),
    Scenario::new(
        "agent-frozen",
        "no instruction of it runs for 4 s",
        "no request fails; what needs it waits for it",
        |world| Box::pin(frozen(world)),
    ),
    Scenario::new(
        "agent-drained",
        "`gossd drain`, a restart, `gossd drain --undo`",
        "no other host lists its records until that is undone; no request fails elsewhere",
        |world| Box::pin(drained(world)),
    ),
    Scenario::new(
        "disk-full",
        "one agent's disk is full while 1,000 tunnels attach, then has room",
        "no request fails at any host; it says so, and when it is over",
        |world| Box::pin(disk_full(world)),
    )
    .with(small_disk),
    Scenario::new(
        "clock-ahead",
        "one host is an hour ahead, then put right as its agent is taken over",
        "no request fails at any host",
        |world| Box::pin(clock_ahead(world)),
    )
    .with(an_hour_ahead),
];

fn an_hour_ahead() -> Plan {
    Plan { switches_of: [("a", "GOSSD_TEST_CLOCK_AHEAD=3600")].into(), ..Plan::default() }
}

fn held() -> Plan {
    Plan { held: true, ..Plan::default() }
}

fn small_disk() -> Plan {
    Plan { small_disk: [("a", "2m")].into(), ..Plan::default() }
}

async fn taken_over(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    let since = now();
    world.take_over("a").await?;
    pass(4).await;
    world.all_served(&ALL).await?;
    // Again, from the program that has just taken over.
    world.take_over("a").await?;
    pass(4).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::NoneFails))
}

async fn upgraded(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    world.client("two", "b", TUNNEL, HOST).await?;
    let since = now();
    for name in ALL {
        world.take_over(name).await?;
        pass(1).await;
        world.all_served(&ALL).await?;
    }
    Ok(felt(world, since, &ALL, Promise::NoneFails))
}

async fn replaced(world: &mut World, promise: Promise) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    world.client("two", "b", TUNNEL, HOST).await?;
    let mut all = Vec::new();
    for name in ALL {
        let since = now();
        world.replace_agent(name).await?;
        pass(1).await;
        world.all_served(&ALL).await?;
        all.push(felt(world, since, &ALL, promise));
    }
    Ok(Measured::sum(all).expect("three hosts"))
}

async fn killed_held(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    let since = now();
    world.restart_agent("a", "SIGKILL").await?;
    pass(4).await;
    world.all_served(&ALL).await?;
    // A call in progress is lost with the agent, and gRPC does not repeat it.
    Ok(felt(world, since, &ALL, Promise::Within(Duration::from_millis(200))))
}

async fn restarted(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    let since = now();
    world.restart_agent("a", "SIGTERM").await?;
    pass(4).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::Measured))
}

/// The new agent gets no call of that gost for up to 20 s, but its entrypoint answers.
async fn restarted_renewed_seldom(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    let since = now();
    world.restart_agent("a", "SIGTERM").await?;
    pass(45).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::Within(Duration::from_secs(2))))
}

/// All at once; the records come back from the journals.
async fn all_restarted(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    world.crowd("a", 300).await?;
    world.all_know_crowd(&ALL, 300).await?;
    for name in ALL {
        world.engine.kill(&world.agent(name)).await?;
    }
    for name in ALL {
        world.engine.start(&world.agent(name)).await?;
    }
    let since = now();
    pass(4).await;
    world.all_served(&ALL).await?;
    world.all_know_crowd(&ALL, 300).await?;
    Ok(felt(world, since, &ALL, Promise::Within(Duration::from_secs(4))))
}

async fn frozen(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    let since = now();
    let agent = world.agent("a");
    world.engine.freeze(&agent, true).await?;
    pass(FROZEN).await;
    world.engine.freeze(&agent, false).await?;
    pass(4).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::NoneWaits(Duration::from_secs(FROZEN))))
}

/// A drained agent stays drained over any restart. Only its own visitors notice the restart.
async fn drained(world: &mut World) -> anyhow::Result<Measured> {
    world.with_hosts(&ALL).await?;
    world.client("one", "a", TUNNEL, HOST).await?;
    world.client("two", "b", TUNNEL, HOST).await?;
    world.visitors(&ALL, HOST).await?;
    let since = now();
    let drained = world.tell_agent("a", "drain").await?;
    ensure!(drained == 0, "gossd drain ended with {drained}");
    let address = format!("{}:8420", world.ip("a"));
    let lists = async |world: &World| {
        let listed = world.listed("c", TUNNEL).await?;
        anyhow::Ok(listed.contains(&address))
    };
    pass(1).await;
    ensure!(!lists(world).await?, "a peer lists what is drained");
    world.restart_agent("a", "SIGTERM").await?;
    world.meets("a", 2).await?;
    for _ in 0..8 {
        pass(1).await;
        ensure!(!lists(world).await?, "after a restart a peer lists what is drained");
    }
    let undone = world.tell_agent("a", "drain --undo").await?;
    ensure!(undone == 0, "gossd drain --undo ended with {undone}");
    pass(1).await;
    ensure!(lists(world).await?, "after --undo no peer lists it");
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &["b", "c"], Promise::NoneFails))
}

/// The journal cannot be written: the agent says so and continues.
async fn disk_full(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    let since = now();
    world.engine.execute(&world.agent("a"), "/fakegost fill /small/filler").await?;
    // More than the journal's file has room for.
    world.crowd("a", 1_000).await?;
    world.says("a", "this agent continues in memory").await?;
    world.all_know_crowd(&ALL, 1_000).await?;
    world.engine.execute(&world.agent("a"), "/fakegost free /small/filler").await?;
    world.says("a", "the journal is written again").await?;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::NoneFails))
}

/// By the plan, the agent started with its clock one hour ahead. From now on its generation has to come from the
/// journal.
async fn clock_ahead(world: &mut World) -> anyhow::Result<Measured> {
    attached_once(world).await?;
    let since = now();
    world.take_over("a").await?;
    pass(8).await;
    world.all_served(&ALL).await?;
    Ok(felt(world, since, &ALL, Promise::NoneFails))
}
