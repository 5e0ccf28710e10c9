//! The invariants, asserted of every agent that runs, and what has to be true in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use gossd_core::agent::Candidate;
use gossd_core::hostname::LAP;
use gossd_core::liveness::Standing;
use tokio::time::{Instant, sleep};

use crate::world::{Connector, End, NAMES, TTL, TUNNELS, World, entrypoint, tunnel};

/// A sign of life that others pass on takes their rounds, and a look at the state is not continuous.
const SLACK: Duration = Duration::from_secs(5);
/// Where two of five frames are lost, an agent's last heartbeats may come by way of others that much later.
const HEARSAY: Duration = Duration::from_secs(8);
/// After this, who can hear has heard. The repair of whatever was lost takes two pings, half a second apart, a question and
/// its answer. Where two of five frames are lost and each takes 0.3 s, that took more than 6 s in one story of a thousand.
const HEARD: Duration = Duration::from_secs(8);

/// What was listed where, the last time.
#[derive(Default)]
pub(crate) struct Checker {
    listed: BTreeMap<(usize, String), Instant>,
    /// The most by which a record outlived its owner's last sign of life, beyond its TTL.
    pub outlived: Duration,
}

impl Checker {
    /// Fails if an agent lists what it must not, or not what it must.
    pub(crate) fn check(&mut self, world: &World) -> anyhow::Result<()> {
        let known: BTreeMap<&str, &Connector> = world.connectors.iter().map(|of| (&*of.id, of)).collect();
        for host in &world.hosts {
            let Some(running) = host.running() else {
                self.listed.retain(|(at, _), _| *at != host.number);
                continue;
            };
            let mut listed = BTreeSet::new();
            for number in 0..TUNNELS {
                let name = tunnel(number);
                let candidates = running.agent.explain(&name);
                in_order(&candidates)?;
                for candidate in &candidates {
                    let id = &candidate.record.id;
                    let Some(connector) = known.get(&*id.text()) else { bail!("nobody registered {id}") };
                    as_registered(candidate, connector, number)?;
                    if candidate.rank.is_some() {
                        listed.insert(id.to_string());
                        self.may_be_listed(world, host.number, connector)?;
                    }
                }
            }
            self.must_be_listed(world, host.number, &listed)?;
            self.listed.retain(|(at, id), _| *at != host.number || listed.contains(id));
            for id in listed {
                self.listed.entry((host.number, id)).or_insert_with(Instant::now);
            }
        }
        Ok(())
    }

    /// Invariants 4, 5 and 6.
    fn may_be_listed(&mut self, world: &World, at: usize, connector: &Connector) -> anyhow::Result<()> {
        let Connector { id, host: owner, .. } = connector;
        let Some(running) = world.hosts[at].running() else { return Ok(()) };
        if at == *owner {
            let Some((when, how)) = connector.ended else { return Ok(()) };
            // Every start gives a fresh lease to what the journal kept.
            let lease = connector.renewed.max(running.since).elapsed();
            match how {
                End::Deregistered => bail!("{id} is listed at its owner {at} after its Deregister"),
                End::Silent => {
                    ensure!(lease < TTL + SLACK, "{id} is listed at {at}, not renewed for {lease:?}");
                }
                End::Replaced => {
                    let successor = world
                        .connectors
                        .iter()
                        .any(|of| of.host == *owner && of.since >= when && of.ended.is_none());
                    ensure!(!successor, "{id} of a former gost is listed at {at}");
                }
            }
            return Ok(());
        }
        let Some(life) = world.network.last_life(at, *owner) else {
            bail!("{id} is listed at {at}, which never heard of {owner}")
        };
        if running.agent.doubts_itself() {
            return Ok(());
        }
        self.outlived = self.outlived.max(life.elapsed().saturating_sub(TTL));
        ensure!(
            life.elapsed() < TTL + HEARSAY,
            "{id} is listed at {at}, {:?} after the last sign of {owner}",
            life.elapsed()
        );
        if let Some((when, how)) = connector.ended {
            let lease = if how == End::Silent { TTL } else { Duration::ZERO };
            let over = when.elapsed() > lease + HEARD && world.has_been_calm(lease + HEARD);
            let replaced = how == End::Replaced;
            ensure!(
                !over || replaced,
                "{id} is listed at {at}, {:?} after it ended: {how:?}",
                when.elapsed()
            );
        }
        Ok(())
    }

    /// What an agent has it does not lose while its owner gives signs of life, or is away for less than the TTL.
    fn must_be_listed(&self, world: &World, at: usize, listed: &BTreeSet<String>) -> anyhow::Result<()> {
        let live = world.connectors.iter().filter(|of| of.ended.is_none() && of.sure);
        for connector in live.filter(|of| !listed.contains(&*of.id)) {
            let Connector { id, host: owner, .. } = connector;
            ensure!(at != *owner, "{id} is not listed where it is registered, at {at}");
            if !self.listed.contains_key(&(at, id.to_string())) {
                continue;
            }
            // Whoever has just been started, or was silent for long, has to be let in first.
            let since = world.hosts[*owner].started.max(world.network.last_return(at, *owner));
            let heard = world.network.last_heard(at, *owner);
            let known = since.zip(heard).is_some_and(|(since, heard)| heard - since > SLACK);
            let heard = heard.map(|heard| heard.elapsed());
            ensure!(
                !known || heard.is_none_or(|heard| heard + Duration::from_secs(1) > TTL),
                "{id} is not listed at {at} any more, {heard:?} after {owner} was heard"
            );
        }
        Ok(())
    }
}

/// Invariant 6: what is surely alive before what may be.
fn in_order(candidates: &[Candidate]) -> anyhow::Result<()> {
    let listed: Vec<Standing> =
        candidates.iter().filter(|of| of.rank.is_some()).map(|of| of.owner.standing).collect();
    ensure!(listed.is_sorted(), "a suspect comes before a live one: {listed:?}");
    ensure!(!listed.contains(&Standing::Hidden), "what is hidden is listed");
    Ok(())
}

/// Invariant 3: what its owner wrote, and nothing else.
fn as_registered(candidate: &Candidate, connector: &Connector, number: usize) -> anyhow::Result<()> {
    let record = &candidate.record;
    let same = connector.tunnel == number
        && record.node == *connector.node
        && record.address == *entrypoint(connector.host)
        && candidate.owner.name.as_str() == format!("host-{}", connector.host);
    ensure!(same, "{} was not registered like that: {candidate:?}", connector.id);
    Ok(())
}

/// Everything works: after how long all agents list the same, which is what is true.
pub(crate) async fn converge(world: &mut World, checker: &mut Checker) -> anyhow::Result<Duration> {
    /// A partition is healed after two seconds; a record that its owner's disk lost, when it is renewed once more.
    const PROMISED: Duration = Duration::from_secs(4);
    let start = Instant::now();
    let mut agreed = None;
    loop {
        sleep(Duration::from_millis(20)).await;
        world.renew()?;
        checker.check(world)?;
        let [missing, more] = differences(world);
        match missing {
            None => drop(agreed.get_or_insert_with(|| start.elapsed())),
            Some(what) => {
                ensure!(start.elapsed() < PROMISED, "{:?} after everything works, {what}", start.elapsed());
                world.note(|| what);
                agreed = None;
            }
        }
        // What nobody renews has to be gone as well, even if its owner has just started and gave it a fresh lease.
        if start.elapsed() > TTL + HEARD {
            ensure!(more.is_none(), "{:?} after everything works, {more:?}", start.elapsed());
            same_hosts_soon(world).await?;
            return agreed.context("all agree");
        }
    }
}

/// Who does not list what is live, and who lists what is not.
fn differences(world: &World) -> [Option<String>; 2] {
    let mut found = [None, None];
    for number in 0..TUNNELS {
        let live = world.connectors.iter().filter(|of| of.tunnel == number && of.ended.is_none());
        let live: BTreeSet<&str> = live.map(|of| &*of.id).collect();
        for host in &world.hosts {
            let records =
                host.running().map(|running| running.agent.resolve(&tunnel(number))).unwrap_or_default();
            let listed: Vec<String> = records.iter().map(|record| record.id.to_string()).collect();
            let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
            if let Some(missing) = live.difference(&listed).next() {
                found[0] = Some(format!("host {} does not list {missing}", host.number));
            }
            if let Some(more) = listed.difference(&live).next() {
                found[1] = Some(format!("host {} lists {more}", host.number));
            }
        }
    }
    found
}

/// A claim whose owner lost its disk is said again by those who remember it, at the next of their looks.
async fn same_hosts_soon(world: &mut World) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < LAP + HEARD && same_hosts(world).is_err() {
        sleep(Duration::from_millis(50)).await;
        world.renew()?;
    }
    same_hosts(world)
}

/// Invariant 11: a host name leads to one tunnel, the same at every agent.
fn same_hosts(world: &World) -> anyhow::Result<()> {
    for name in NAMES {
        let said: Vec<_> = world
            .hosts
            .iter()
            .map(|host| host.running().and_then(|running| running.agent.endpoint(name)))
            .collect();
        ensure!(said.windows(2).all(|pair| pair[0] == pair[1]), "{name} leads elsewhere at some: {said:?}");
    }
    Ok(())
}

/// Invariant 2: while there are only Renews, nothing is told.
pub(crate) async fn quiet(world: &mut World) -> anyhow::Result<()> {
    let before = world.network.traffic().pushes;
    for _ in 0..100 {
        sleep(Duration::from_millis(50)).await;
        world.renew()?;
    }
    let pushes = world.network.traffic().pushes - before;
    ensure!(pushes == 0, "{pushes} pushes while gost only renewed");
    Ok(())
}
