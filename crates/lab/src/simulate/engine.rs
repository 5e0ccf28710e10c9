//! Virtual time: what is going to happen, in its order, and the hosts to whom it happens. To [`State`] and [`Link`] it does
//! what the daemon's tasks do, with nothing between that could wait, race or fail: so the same seed is the same story, to
//! the byte.
//!
//! [`State`]: gossd_core::agent::State
//! [`Link`]: gossd_core::link::Link

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use gossd_core::address::Address;
use gossd_core::agent::{self, Dial, Dialled, Due, MAX_DIALS, State, Tried, Try};
use gossd_core::link::{self, wire::Kind};
use gossd_core::record::Generation;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::arrivals::Arrivals;
use super::host::{Running, SimHost, Touched};
use super::net::{SimNetwork, entrypoint, host_at};

/// Changes wait so long for a write to the journal, as in the daemon.
const COALESCE: Duration = Duration::from_millis(35);
/// Nothing listens where a simulated gost was, which takes two refusals to believe.
const REFUSED: Duration = Duration::from_millis(20);
/// A dial that nothing answers ends after this.
const SILENT: Duration = Duration::from_secs(1);
/// More at one moment is an agent that never comes to an end.
const ENDLESS: u32 = 100_000;

/// See the module.
pub(super) struct Simulation {
    pub(super) network: SimNetwork,
    pub(super) hosts: Vec<SimHost>,
    pub(super) arrivals: Arrivals,
    /// What happened, line by line.
    pub(super) trace: Vec<String>,
    /// Whether that is every frame, too, and every line of the agents' logs.
    traces_all: bool,
    began: Instant,
    now: Instant,
    /// The next is the greatest.
    coming: BinaryHeap<Foreseen>,
    number: u64,
    rng: StdRng,
}

/// At one moment, what was foreseen first happens first.
struct Foreseen {
    at: Instant,
    number: u64,
    what: What,
}

enum What {
    /// A frame arrives, if nothing is cut and an agent runs.
    Frame { from: End, to: End, kind: Kind, bytes: Arc<[u8]> },
    /// Something is due at a host, if that start of its agent still runs.
    Wake { host: usize, start: u64, timer: Timer },
}

/// Who sends a frame, or gets it, and where.
#[derive(Clone, Copy)]
struct End {
    host: usize,
    address: SocketAddr,
}

enum Timer {
    State,
    Link,
    /// What changed is written to the disk.
    Journal,
    /// A gost refused.
    Dialled(Box<Dial>),
    /// A dial of an entrypoint ended that visitors want.
    Tried(Address, Tried),
}

impl Simulation {
    /// Hosts without agents.
    pub(super) fn new(seed: u64, network: SimNetwork, hosts: Vec<SimHost>, traces_all: bool) -> Self {
        // Not the clock: any moment will do, and this is one.
        let now = Instant::now();
        Self {
            network,
            hosts,
            arrivals: Arrivals::default(),
            trace: Vec::new(),
            traces_all,
            began: now,
            now,
            coming: BinaryHeap::new(),
            number: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    /// Notes what happens.
    pub(super) fn note(&mut self, what: &str) {
        let at = self.elapsed().as_secs_f64();
        self.trace.push(format!("{at:10.4} {what}"));
    }

    /// Lets this much time pass, with all that happens meanwhile.
    pub(super) fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = self.now + time;
        let mut at_once = 0;
        while let Some(event) = self.coming.peek().filter(|event| event.at <= until) {
            at_once = if event.at > self.now { 0 } else { at_once + 1 };
            ensure!(at_once < ENDLESS, "something is due again and again, and time stands still");
            let Some(Foreseen { at, what, .. }) = self.coming.pop() else { break };
            self.now = at;
            match what {
                What::Frame { from, to, kind, bytes } => self.deliver(from, to, kind, &bytes)?,
                What::Wake { host, start, timer } => self.wake(host, start, timer)?,
            }
        }
        self.now = until;
        Ok(())
    }

    /// Starts the agent of a host, with what its disk has. It joins at these hosts.
    pub(super) fn start(&mut self, host: usize, join: &[usize]) -> anyhow::Result<()> {
        let (now, since, seed) = (self.now, self.elapsed(), self.rng.random());
        self.hosts[host].start(now, since, seed)?;
        self.hosts[host].joins = join.to_vec();
        self.network.forget(host);
        self.arm_state(host, now);
        self.join(host)
    }

    /// The names to join at are resolved.
    fn join(&mut self, host: usize) -> anyhow::Result<()> {
        let others = self.hosts[host].joins.iter().filter(|other| **other != host);
        let joins: BTreeSet<_> = others.map(|other| self.hosts[*other].address()).collect();
        let now = self.now;
        self.link(host, |running| running.link.handle_joins(now, joins))
    }

    /// Tells the agent of a host where it is by now, and everybody's resolver.
    pub(super) fn tell_address(&mut self, host: usize) -> anyhow::Result<()> {
        let (now, addr) = (self.now, self.hosts[host].address());
        self.link(host, |running| running.link.handle_address(now, addr, BTreeSet::from([addr.ip()])))?;
        (0..self.hosts.len()).try_for_each(|other| self.join(other))
    }

    /// What the agent of a host answers, and whatever follows; none if it does not run.
    pub(super) fn call<T>(&mut self, host: usize, act: impl FnOnce(&mut State, Instant) -> T) -> Option<T> {
        let Running { state, touched, .. } = self.hosts[host].running.as_mut()?;
        *touched += 1;
        let answer = act(state, self.now);
        self.follow_state(host);
        Some(answer)
    }

    fn deliver(&mut self, from: End, to: End, kind: Kind, bytes: &[u8]) -> anyhow::Result<()> {
        let is_there = self
            .hosts
            .get(to.host)
            .is_some_and(|host| host.running.is_some() && host.address() == to.address);
        if !is_there || !self.network.delivers(self.now, from.host, to.host, kind) {
            return Ok(());
        }
        let now = self.now;
        self.link(to.host, |Running { link, state, touched: times, .. }| {
            link.handle_frame(now, from.address, bytes, &mut Touched { state, times })
        })
    }

    fn wake(&mut self, host: usize, start: u64, timer: Timer) -> anyhow::Result<()> {
        let now = self.now;
        let running = self.hosts.get_mut(host).and_then(|host| host.running.as_mut());
        let Some(running) = running.filter(|running| running.start == start) else { return Ok(()) };
        match timer {
            Timer::State if running.state_due == Some(now) => self.state_is_due(host)?,
            Timer::Link if running.link_due == Some(now) => {
                running.link_due = None;
                self.link(host, |running| {
                    let Running { link, state, .. } = running;
                    if link.next_due() <= now {
                        link.handle_due(now, state)
                    } else {
                        link::LinkEffects::default()
                    }
                })?;
            }
            // Another wake took the place of this one.
            Timer::State | Timer::Link => {}
            Timer::Journal => {
                let batch = running.state.take_batch();
                if !batch.is_empty() {
                    self.hosts[host].disk.write(batch);
                    self.call(host, |state, _| state.written());
                }
            }
            Timer::Dialled(dial) => {
                running.dialled.remove(&dial.node);
                self.call(host, |state, now| state.dialled(now, *dial, Dialled::Refused));
            }
            Timer::Tried(address, tried) => {
                running.tried.insert(address.clone(), (now, tried));
                self.call(host, |state, now| state.tried(now, &address, tried));
            }
        }
        Ok(())
    }

    /// How a dial of an entrypoint ends, and when. The gosts of silent peers do not answer: their records have to go at their
    /// time.
    fn dial(&self, host: usize, address: &Address, asks: bool) -> (Duration, Tried) {
        let Some(to) = self.hosts.iter().find(|to| entrypoint(to.number) == *address) else {
            return (SILENT, Tried::Silent);
        };
        match self.network.connects(host, to.number) {
            Some(_) if asks => (SILENT, Tried::Silent),
            Some(trip) if to.refuses => (trip, Tried::Refused),
            Some(trip) => (trip, Tried::Works(trip)),
            None => (SILENT, Tried::Silent),
        }
    }

    /// As the loop of an agent's own task.
    fn state_is_due(&mut self, host: usize) -> anyhow::Result<()> {
        let now = self.now;
        let Some(running) = &mut self.hosts[host].running else { return Ok(()) };
        running.state_due = None;
        let Running { state, touched, dialled, start, .. } = running;
        *touched += 1;
        let room = MAX_DIALS.saturating_sub(dialled.len());
        let Due { changes, dials, tries, seeks, next } = state.due(now, room, |node| dialled.contains(node));
        let changes = changes.into_changes();
        let start = *start;
        dialled.extend(dials.iter().map(|dial| dial.node.clone()));
        for dial in dials {
            let timer = Timer::Dialled(Box::new(dial));
            self.foresee(now + REFUSED, What::Wake { host, start, timer });
        }
        for Try { address, asks } in tries {
            let (after, tried) = self.dial(host, &address, asks);
            self.foresee(now + after, What::Wake { host, start, timer: Timer::Tried(address, tried) });
        }
        self.arm_state(host, if changes.is_empty() { next } else { now });
        self.follow_state(host);
        if !seeks.is_empty() {
            self.link(host, |running| running.link.handle_seeks(&seeks))?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.link(host, |running| running.link.handle_changes(now, changes))
    }

    /// Has a link do something, and then what follows.
    fn link(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut Running) -> link::LinkEffects,
    ) -> anyhow::Result<()> {
        let is_copy = self.hosts[host].is_copy();
        let Some(running) = &mut self.hosts[host].running else { return Ok(()) };
        let link::LinkEffects {
            frames,
            is_fresh: _,
            keyring: _,
            peers,
            lag: _,
            lines,
            name_taken,
            joins: _,
            superseded,
        } = act(running);
        if let Some(peers) = peers {
            running.peers = peers;
        }
        if let Some(by) = name_taken
            && is_copy
        {
            self.note(&format!("the clone {host} ends: {by} has its name"));
            self.hosts[host].crash();
            return Ok(());
        } else if let Some(by) = name_taken {
            bail!("host {host} has to end: {by} has its name");
        }
        let (due, counters) = (running.link.next_due(), running.counters.clone());
        self.note_lines(host, &lines);
        for frame in frames {
            counters.send(frame.kind, frame.bytes.len());
            let from = End { host, address: self.hosts[host].address() };
            let to = End { host: host_at(frame.to), address: frame.to };
            let delays = self.network.send(self.elapsed(), host, to.host, &frame);
            if self.traces_all {
                let (kind, bytes) = (frame.kind, frame.bytes.len());
                self.note(&format!(
                    "host {host} sends {} {kind:?} of {bytes} bytes, arrives in {delays:?}",
                    to.host
                ));
            }
            for delay in delays {
                self.foresee(
                    self.now + delay,
                    What::Frame { from, to, kind: frame.kind, bytes: frame.bytes.clone() },
                );
            }
        }
        self.arm_link(host, due);
        self.follow_state(host);
        match superseded {
            Some(known) => self.start_above(host, known),
            None => Ok(()),
        }
    }

    /// Peers know a later start of a host's agent: it starts anew in the same process, with all that it has.
    fn start_above(&mut self, host: usize, known: Generation) -> anyhow::Result<()> {
        self.note(&format!("host {host} starts anew, above {known}"));
        let of = &mut self.hosts[host];
        of.hand_over(self.now, known);
        let joins = of.joins.clone();
        self.start(host, &joins)
    }

    /// Does what follows from what was done to a state.
    fn follow_state(&mut self, host: usize) {
        let Self { hosts, arrivals, now, .. } = self;
        let Some(Running { state, start, touched, .. }) = &mut hosts[host].running else { return };
        let (now, start) = (*now, *start);
        let agent::Effects { mut is_due, is_revised, is_touched, lines } = state.take_effects();
        if is_revised && arrivals.open() > 0 {
            *touched += 1;
            arrivals.look(now, host, state);
            is_due |= state.take_effects().is_due;
        }
        self.note_lines(host, &lines);
        if is_due {
            self.arm_state(host, now);
        }
        if is_touched {
            self.foresee(now + COALESCE, What::Wake { host, start, timer: Timer::Journal });
        }
    }

    fn note_lines(&mut self, host: usize, lines: &[impl Debug]) {
        let traces_all = self.traces_all;
        for line in lines.iter().filter(|_| traces_all) {
            self.note(&format!("host {host} logs {line:?}"));
        }
    }

    /// The state looks at what is due by then.
    fn arm_state(&mut self, host: usize, at: Instant) {
        let at = at.max(self.now);
        let Some(Running { start, state_due, .. }) = &mut self.hosts[host].running else { return };
        if state_due.is_none_or(|due| at < due) {
            *state_due = Some(at);
            let what = What::Wake { host, start: *start, timer: Timer::State };
            self.foresee(at, what);
        }
    }

    fn arm_link(&mut self, host: usize, at: Instant) {
        let at = at.max(self.now);
        let Some(Running { start, link_due, .. }) = &mut self.hosts[host].running else { return };
        if link_due.is_none_or(|due| at < due) {
            *link_due = Some(at);
            let what = What::Wake { host, start: *start, timer: Timer::Link };
            self.foresee(at, what);
        }
    }

    fn foresee(&mut self, at: Instant, what: What) {
        self.number += 1;
        self.coming.push(Foreseen { at, number: self.number, what });
    }
}

impl Ord for Foreseen {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Foreseen {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Foreseen {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Foreseen {}

#[cfg(test)]
mod tests {
    use gossd_core::agent::Broken;
    use gossd_core::connection::Caller;
    use gossd_core::lease::Holding;
    use gossd_core::record::{Draft, Network, Record};

    use super::*;
    use crate::simulate::net::Weather;

    const TUNNEL: &str = "00000000-0000-4000-8000-000000000000";
    const NODE: &str = "a0000001-0000-4000-8000-000000000000";
    const TTL: Duration = Duration::from_secs(10);

    fn connector(number: u8) -> String {
        format!("c0000000-0000-4000-8000-{number:012}")
    }

    /// Three agents that know each other.
    fn three() -> Simulation {
        let hosts = (0..3).map(|number| SimHost::new(number, TTL, link::MESH, Broken::default()).unwrap());
        let mut simulation =
            Simulation::new(1, SimNetwork::new(1, 3, Weather::fine()), hosts.collect(), false);
        for host in 0..3 {
            simulation.start(host, &[0, 1]).unwrap();
        }
        simulation.run(Duration::from_secs(5)).unwrap();
        simulation
    }

    /// A connector of the gost of host 1.
    fn register(simulation: &mut Simulation, number: u8) {
        let record = Record {
            id: (*connector(number)).into(),
            name: TUNNEL.into(),
            node: NODE.into(),
            network: Network::Tcp,
            address: entrypoint(1),
        };
        let holding = Holding { record: record.into(), dial: "".into() };
        simulation.call(1, |state, now| state.register(now, Caller::local(1), holding)).unwrap().unwrap();
    }

    fn draft(id: &str) -> Draft<'_> {
        Draft { id, name: TUNNEL, node: NODE, network: "", address: "" }
    }

    /// Its gost renews these for so many seconds.
    fn renew(simulation: &mut Simulation, numbers: &[u8], seconds: u64) {
        for _ in 0..seconds {
            for number in numbers {
                let heal = agent::Heal { dial: &|_| String::new(), fallback: None };
                let id = connector(*number);
                simulation.call(1, |state, now| state.renew(now, Caller::local(1), draft(&id), &heal));
            }
            simulation.run(Duration::from_secs(1)).unwrap();
        }
    }

    fn listed(simulation: &mut Simulation) -> [Vec<String>; 3] {
        [0, 1, 2].map(|host| {
            let records = simulation.call(host, |state, now| state.resolve(now, TUNNEL, 0)).unwrap();
            let mut ids: Vec<_> = records.iter().map(|record| record.id.text().to_string()).collect();
            ids.sort_unstable();
            ids
        })
    }

    /// A virtual machine goes back to a snapshot, with its memory, its disk and its gost, as if what came after had never been.
    #[test]
    fn what_a_host_lists_that_was_put_back_with_its_memory_is_what_its_gost_has() {
        // Two times the same, up to the moment of the snapshot.
        let [mut snapshot, mut world] = [(); 2].map(|()| {
            let mut simulation = three();
            for number in [1, 2] {
                register(&mut simulation, number);
            }
            renew(&mut simulation, &[1, 2], 5);
            simulation
        });
        register(&mut world, 3);
        let gone = connector(2);
        world.call(1, |state, now| state.deregister(now, Caller::local(1), draft(&gone)));
        renew(&mut world, &[1, 3], 5);
        assert_eq!(listed(&mut world), [1, 1, 1].map(|_| vec![connector(1), connector(3)]));

        world.hosts[1] = snapshot.hosts.swap_remove(1);
        let running = world.hosts[1].running.as_mut().unwrap();
        (running.state_due, running.link_due) = (None, None);
        let now = world.now;
        world.arm_state(1, now);
        world.arm_link(1, now);
        // The connection of connector 2 ended long ago; its gost finds out, and says so.
        renew(&mut world, &[1, 2], 1);
        world.call(1, |state, now| state.deregister(now, Caller::local(1), draft(&gone)));
        register(&mut world, 4);
        renew(&mut world, &[1, 4], 5);
        assert!(world.trace.iter().any(|line| line.contains("host 1 starts anew")), "{:?}", world.trace);
        let [first, own, last] = listed(&mut world);
        for ids in [&first, &own, &last] {
            assert!(ids.contains(&connector(1)) && ids.contains(&connector(4)), "{ids:?}");
            assert!(!ids.contains(&gone), "{ids:?}");
        }
        renew(&mut world, &[1, 4], TTL.as_secs() + 5);
        assert_eq!(listed(&mut world), [1, 1, 1].map(|_| vec![connector(1), connector(4)]));
    }
}
