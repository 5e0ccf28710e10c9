//! The invariants, asserted of every agent that runs, and what has to be true in the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use gossd_core::agent::Tried;
use gossd_core::hostname::LAP;
use gossd_core::liveness::Standing;

use super::host::Running;
use super::world::{Connector, ConnectorEnd, NAMES, SimWorld, TTL, TUNNELS, tunnel};

/// A sign of life that others pass on takes their rounds, and a look at the state is not continuous.
const SLACK: Duration = Duration::from_secs(5);
/// Where two of five frames are lost, an agent's last heartbeats may come by way of others that much later.
const HEARSAY: Duration = Duration::from_secs(8);
/// After this, who can hear has heard. Whoever meets needs a handshake, and the repair of whatever was lost takes two pings, half a
/// second apart, a question and its answer. Where two of five frames are lost and each takes 0.3 s, that took more than 8 s in one
/// story of five thousand.
pub(super) const HEARD: Duration = Duration::from_secs(12);

/// A dial that went well that long ago, and none since, shows nothing any more.
const LATELY: Duration = Duration::from_secs(70);

/// An agent to which nothing happened is asked again after this, although it should list the same.
const LOOK: Duration = Duration::from_millis(250);

/// What was listed where, the last time.
#[derive(Default)]
pub(super) struct Checker {
    /// By host; none of one whose agent does not run.
    seen: Vec<Option<Seen>>,
    /// The most by which a record outlived its owner's last sign of life, beyond its TTL.
    pub(super) outlived: Duration,
}

/// What an agent listed at a moment.
struct Seen {
    at: Instant,
    /// What that follows from: its state, and what time has made of the other agents.
    of: (u64, Vec<Standing>),
    /// The places of connectors, in their order.
    listed: Vec<usize>,
}

impl Checker {
    /// Fails if an agent lists what it must not, or not what it must.
    pub(super) fn check(&mut self, world: &SimWorld) -> anyhow::Result<()> {
        let now = world.engine.now();
        let live: Vec<usize> = world.live().collect();
        self.seen.resize_with(world.engine.hosts.len(), || None);
        for host in &world.engine.hosts {
            let before = self.seen[host.number].take();
            let Some(running) = &host.running else { continue };
            let standings = world.engine.hosts.iter().map(|host| running.state.standing(now, &host.name));
            let of = (running.touched, standings.collect::<Vec<_>>());
            let same = |seen: &&Seen| seen.of == of && now - seen.at < LOOK;
            let (at, listed) = match before.as_ref().filter(same) {
                Some(seen) => (seen.at, seen.listed.clone()),
                None => (now, listed(world, running, &of.1)?),
            };
            for place in &listed {
                self.may_be_listed(world, host.number, running, &world.connectors[*place])?;
            }
            let before = before.map(|seen| seen.listed).unwrap_or_default();
            for place in live.iter().filter(|place| listed.binary_search(place).is_err()) {
                let had_it = before.binary_search(place).is_ok();
                must_be_listed(world, host.number, running, &world.connectors[*place], had_it)?;
            }
            self.seen[host.number] = Some(Seen { at, of, listed });
        }
        Ok(())
    }

    /// Who does not list what is live, and who lists what is not, as of the last [`Self::check`].
    fn differences(&self, world: &SimWorld) -> [Option<String>; 2] {
        let live: Vec<usize> = world.live().collect();
        let mut found = [None, None];
        for (host, seen) in self.seen.iter().enumerate() {
            let listed = seen.as_ref().map(|seen| &seen.listed[..]).unwrap_or_default();
            if let Some(missing) = live.iter().find(|place| listed.binary_search(place).is_err()) {
                found[0] = Some(format!("host {host} does not list {}", world.connectors[*missing].id));
            }
            if let Some(more) = listed.iter().find(|place| live.binary_search(place).is_err()) {
                found[1] = Some(format!("host {host} lists {}", world.connectors[*more].id));
            }
        }
        found
    }

    /// Invariants 4, 5 and 6.
    fn may_be_listed(
        &mut self,
        world: &SimWorld,
        at: usize,
        running: &Running,
        connector: &Connector,
    ) -> anyhow::Result<()> {
        let Connector { id, host: owner, .. } = connector;
        let now = world.engine.now();
        if at == *owner {
            let Some((when, how)) = connector.ended else { return Ok(()) };
            // Every start gives a fresh lease to what the journal kept.
            let lease = now - connector.renewed.max(running.since);
            // What was released since its journal was copied it hears from its peers, if there is one.
            let is_restored = world.engine.hosts[at].is_restored;
            match how {
                ConnectorEnd::Deregistered | ConnectorEnd::Replaced if is_restored => {}
                ConnectorEnd::Deregistered => bail!("{id} is listed at its owner {at} after its Deregister"),
                ConnectorEnd::Silent => {
                    ensure!(lease < TTL + SLACK, "{id} is listed at {at}, not renewed for {lease:?}");
                }
                ConnectorEnd::Replaced => {
                    let successor = world
                        .connectors
                        .iter()
                        .any(|of| of.host == *owner && of.since >= when && of.ended.is_none());
                    ensure!(!successor, "{id} of a former gost is listed at {at}");
                }
            }
            return Ok(());
        }
        let Some(life) = world.engine.network.last_life(at, *owner) else {
            bail!("{id} is listed at {at}, which never heard of {owner}")
        };
        if running.state.doubts_itself() {
            return Ok(());
        }
        let silence = now - life;
        self.outlived = self.outlived.max(silence.saturating_sub(TTL));
        ensure!(
            silence < TTL + HEARSAY,
            "{id} is listed at {at}, {silence:?} after the last sign of {owner}"
        );
        if let Some((when, how)) = connector.ended {
            let lease = if how == ConnectorEnd::Silent { TTL } else { Duration::ZERO };
            let over = now - when > lease + HEARD && world.has_been_calm(lease + HEARD);
            let replaced = how == ConnectorEnd::Replaced;
            ensure!(!over || replaced, "{id} is listed at {at}, {:?} after it ended: {how:?}", now - when);
        }
        Ok(())
    }
}

/// The places of the connectors that an agent lists, in their order; and whether it lists them as it must.
fn listed(world: &SimWorld, running: &Running, standings: &[Standing]) -> anyhow::Result<Vec<usize>> {
    let (now, hosts) = (world.engine.now(), &world.engine.hosts);
    let mut listed = Vec::new();
    for number in 0..TUNNELS {
        let mut in_vain = None;
        for (rank, entry) in running.state.ranked(now, tunnel(number)) {
            let id = &entry.record.id;
            let Some((place, connector)) = world.connector(id) else { bail!("nobody registered {id}") };
            // Invariant 3: what its owner wrote, and nothing else.
            let same = connector.tunnel == number
                && *entry.record == *connector.record
                && entry.owner.name == hosts[connector.host].name;
            ensure!(same, "{id} was not registered like that: {entry:?}");
            if rank.is_some() {
                let standing = standings[connector.host];
                ensure!(standing != Standing::Hidden, "{id} is listed, of {}, which is hidden", entry.owner);
                // Invariant 6: what was dialled well before what was dialled in vain.
                let tried = running.tried.get(&entry.record.address).filter(|_| standing != Standing::Hidden);
                match tried.filter(|_| entry.owner.name != running.state.owner().name) {
                    Some((at, Tried::Works(_))) if now - *at < LATELY => {
                        ensure!(in_vain.is_none(), "{id} was dialled well, and comes after {in_vain:?}");
                    }
                    Some((_, Tried::Refused | Tried::Silent)) => drop(in_vain.get_or_insert(id.clone())),
                    _ => {}
                }
                listed.push(place);
            }
        }
    }
    listed.sort_unstable();
    Ok(listed)
}

/// What an agent has it does not lose while its owner gives signs of life, or is away for less than the TTL.
fn must_be_listed(
    world: &SimWorld,
    at: usize,
    running: &Running,
    connector: &Connector,
    had_it: bool,
) -> anyhow::Result<()> {
    let Connector { id, host: owner, sure, .. } = connector;
    if !sure {
        return Ok(());
    }
    ensure!(at != *owner, "{id} is not listed where it is registered, at {at}");
    if !had_it {
        return Ok(());
    }
    // Whoever has just been started, or was silent for long, has to be let in first; and a process that never heard the owner
    // itself knows as much as those who told it of the owner.
    let network = &world.engine.network;
    let started = world.engine.hosts[*owner].started.max(Some(running.since));
    let since = started.max(network.last_return(at, *owner));
    let heard = network.last_heard(at, *owner);
    let known = since.zip(heard).is_some_and(|(since, heard)| {
        heard >= running.since && heard.saturating_duration_since(since) > SLACK
    });
    let silence = heard.map(|heard| world.engine.now() - heard);
    ensure!(
        !known || silence.is_none_or(|silence| silence + Duration::from_secs(1) > TTL),
        "{id} is not listed at {at} any more, {silence:?} after {owner} was heard"
    );
    Ok(())
}

/// Everything works: after how long all agents list the same, which is what is true.
pub(super) fn converge(world: &mut SimWorld, checker: &mut Checker) -> anyhow::Result<Duration> {
    /// A partition is healed after two seconds; a record that its owner's disk lost, when it is renewed once more.
    const PROMISED: Duration = Duration::from_secs(4);
    let start = world.engine.now();
    let mut agreed = None;
    loop {
        world.engine.run(Duration::from_millis(20))?;
        world.renew()?;
        checker.check(world)?;
        let [missing, more] = checker.differences(world);
        let after = world.engine.now() - start;
        match missing {
            None => drop(agreed.get_or_insert(after)),
            Some(what) => {
                ensure!(after < PROMISED, "{after:?} after everything works, {what}");
                world.note(&what);
                agreed = None;
            }
        }
        // What nobody renews has to be gone as well, even if its owner has just started and gave it a fresh lease.
        if after > TTL + HEARD {
            ensure!(more.is_none(), "{after:?} after everything works, {more:?}");
            same_hosts_soon(world)?;
            return agreed.context("all agree");
        }
    }
}

/// A claim whose owner lost its disk is said again by those who remember it, at the next of their looks.
fn same_hosts_soon(world: &mut SimWorld) -> anyhow::Result<()> {
    let start = world.engine.now();
    while world.engine.now() - start < LAP + HEARD && same_hosts(world).is_err() {
        world.engine.run(Duration::from_millis(50))?;
        world.renew()?;
    }
    same_hosts(world)
}

/// Invariant 11: a host name leads to one tunnel, the same at every agent.
fn same_hosts(world: &SimWorld) -> anyhow::Result<()> {
    for name in NAMES {
        let hosts = world.engine.hosts.iter();
        let said: Vec<_> = hosts
            .map(|host| host.running.as_ref().and_then(|running| running.state.endpoint(name, |_| true)))
            .collect();
        ensure!(said.windows(2).all(|pair| pair[0] == pair[1]), "{name} leads elsewhere at some: {said:?}");
    }
    Ok(())
}

/// Invariant 2: while there are only Renews, nothing is told.
pub(super) fn quiet(world: &mut SimWorld) -> anyhow::Result<()> {
    // An entrypoint that was dialled in vain before everything worked is dialled again within a minute, and peers are told that it
    // works.
    for _ in 0..800 {
        world.engine.run(Duration::from_millis(50))?;
        world.renew()?;
    }
    let before = world.engine.network.traffic().pushes;
    for _ in 0..100 {
        world.engine.run(Duration::from_millis(50))?;
        world.renew()?;
    }
    let pushes = world.engine.network.traffic().pushes - before;
    ensure!(pushes == 0, "{pushes} pushes while gost only renewed");
    Ok(())
}
