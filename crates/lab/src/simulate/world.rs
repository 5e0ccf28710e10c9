//! One story: hosts with agents and gosts, what happens to them by the draw of a seed, and what is true of every
//! connector meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use gossd_core::agent::{Broken, Heal, Tried};
use gossd_core::connection::Caller;
use gossd_core::hostname::{Endpoint, TunnelId};
use gossd_core::label::Label;
use gossd_core::lease::Holding;
use gossd_core::link::MESH;
use gossd_core::record::{Draft, Network as Protocol, Record};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::check::HEARD;
use super::engine::Simulation;
use super::host::SimHost;
use super::net::{SimNetwork, Weather, entrypoint};

/// How long records live after their owner's last sign of life, and before the period of their Renews is known.
pub(super) const TTL: Duration = Duration::from_secs(10);
/// How often gost renews.
const RENEW: Duration = Duration::from_secs(2);
/// What an agent was told in the moment before it crashed may be on no disk and on no wire.
const MOMENT: Duration = Duration::from_millis(60);
/// How long it takes until an agent without its journal has healed its records: it is told of them, and gost renews them.
const FRAGILE: Duration = Duration::from_secs(8);
/// Tunnels that connectors belong to, and host names that are claimed for them.
const TUNNEL_IDS: [&str; TUNNELS] = [
    "00000000-0000-4000-8000-000000000000",
    "00000000-0000-4000-8000-000000000001",
    "00000000-0000-4000-8000-000000000002",
    "00000000-0000-4000-8000-000000000003",
    "00000000-0000-4000-8000-000000000004",
];
pub(super) const TUNNELS: usize = 5;
pub(super) const NAMES: [&str; 3] = ["shop", "www.example.org", "*.example.net"];

/// A connector as it really is.
pub(super) struct Connector {
    pub(super) id: Arc<str>,
    pub(super) record: Arc<Record>,
    pub(super) tunnel: usize,
    pub(super) host: usize,
    node: Arc<str>,
    pub(super) since: Instant,
    pub(super) renewed: Instant,
    pub(super) ended: Option<(Instant, ConnectorEnd)>,
    /// Whether its owner has to list it; one that lost its disk has to hear of it first.
    pub(super) sure: bool,
}

/// How a connector ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectorEnd {
    Deregistered,
    /// Nobody renews it any more.
    Silent,
    /// Its gost was started again, and said so.
    Replaced,
}

/// See the module.
pub(super) struct SimWorld {
    pub(super) engine: Simulation,
    pub(super) connectors: Vec<Connector>,
    /// How often something happened to it.
    pub(super) events: usize,
    /// How many visitors were sent around a hole.
    pub(super) detours: usize,
    rng: StdRng,
    /// Whether host names are claimed. What is claimed is said again when its owner is gone, at any time.
    pub(super) claims: bool,
    nodes: Vec<(Arc<str>, u64)>,
    down: Vec<Option<Instant>>,
    heals: Option<Instant>,
    /// When agents see that their hosts have another address.
    moved: Vec<(Instant, usize)>,
    /// Whose journal is lost or put back, as soon as somebody else knows what it has.
    unsafe_journal: Option<usize>,
    /// Until when what a host lost may be known to one other alone.
    fragile: Instant,
    /// Since when nothing has been cut and nobody been down.
    calm: Instant,
}

pub(super) fn tunnel(number: usize) -> &'static str {
    TUNNEL_IDS[number]
}

/// An instance of gost. It is spelled as gost's own, which are random UUIDs, as connectors and tunnels are.
fn node(host: usize, connection: u64) -> Arc<str> {
    format!("a000000{host}-0000-4000-8000-{connection:012}").into()
}

impl SimWorld {
    pub(super) fn new(seed: u64, hosts: usize, broken: Broken, traces_all: bool) -> anyhow::Result<Self> {
        // One more than there are, for a clone of one of them.
        let network = SimNetwork::new(seed, hosts + 1, Weather::fine());
        // Every other cluster is a large one, in which not everybody watches everybody.
        let mesh = if (seed / 8).is_multiple_of(2) { MESH } else { 2 };
        let all =
            (0..hosts).map(|number| SimHost::new(number, TTL, mesh, broken)).collect::<Result<_, _>>()?;
        let engine = Simulation::new(seed ^ 0xe1f, network, all, traces_all);
        let mut world = Self {
            calm: engine.now(),
            fragile: engine.now(),
            engine,
            connectors: Vec::new(),
            events: 0,
            detours: 0,
            rng: StdRng::seed_from_u64(seed ^ 0x5eed),
            claims: seed.is_multiple_of(2),
            nodes: (0..hosts).map(|host| (node(host, 0), 0)).collect(),
            down: vec![None; hosts],
            heals: None,
            moved: Vec::new(),
            unsafe_journal: None,
        };
        for host in 0..hosts {
            world.start(host)?;
        }
        Ok(world)
    }

    pub(super) fn note(&mut self, what: &str) {
        self.events += 1;
        self.engine.note(what);
    }

    /// A connector, and its place among [`Self::connectors`], which is in its id.
    pub(super) fn connector(&self, id: &Label) -> Option<(usize, &Connector)> {
        let place = usize::try_from(id.random()?.as_u128() & 0xffff_ffff_ffff).ok()?;
        self.connectors.get(place).filter(|connector| connector.record.id == *id).map(|found| (place, found))
    }

    /// The places of those that have not ended, in their order.
    pub(super) fn live(&self) -> impl Iterator<Item = usize> {
        let live = self.connectors.iter().enumerate().filter(|(_, connector)| connector.ended.is_none());
        live.map(|(place, _)| place)
    }

    fn start(&mut self, host: usize) -> anyhow::Result<()> {
        self.down[host] = None;
        self.note(&format!("host {host} starts"));
        self.engine.start(host, &[0, 1])?;
        self.calm = self.engine.now();
        Ok(())
    }

    fn crash(&mut self, host: usize, for_long: Duration) {
        self.note(&format!("host {host} crashes, for {for_long:?}"));
        self.fault();
        self.engine.hosts[host].crash();
        let now = self.engine.now();
        self.down[host] = Some(now + for_long);
        for connector in self.connectors.iter_mut().filter(|connector| connector.host == host) {
            if now - connector.since < MOMENT {
                // Registered and not kept: gost never registers again, so it may be nowhere.
                connector.ended = Some((now, ConnectorEnd::Silent));
            }
            if connector.ended.is_some_and(|(at, _)| now - at < MOMENT) {
                connector.ended = Some((now, ConnectorEnd::Silent));
            }
        }
    }

    fn fault(&mut self) {
        self.engine.arrivals.give_up();
        self.calm = self.engine.now();
    }

    /// Whether everything has run and been connected for this long.
    pub(super) fn has_been_calm(&self, for_long: Duration) -> bool {
        self.heals.is_none()
            && self.down.iter().all(Option::is_none)
            && self.engine.now() - self.calm > for_long
    }

    fn is_fragile(&self) -> bool {
        self.engine.now() < self.fragile
    }

    fn is_up(&self, host: usize) -> bool {
        self.engine.hosts[host].running.is_some()
    }

    /// What happens every fifty milliseconds of a story.
    pub(super) fn step(&mut self) -> anyhow::Result<()> {
        let now = self.engine.now();
        if self.heals.is_some_and(|at| at <= now) {
            self.heal();
        }
        for host in 0..self.down.len() {
            if self.down[host].is_some_and(|at| at <= now) {
                self.start(host)?;
            }
        }
        self.moved.sort_unstable();
        while let Some((_, host)) = self.moved.pop_if(|(at, _)| *at <= now) {
            self.note(&format!("the agent of host {host} sees its address"));
            self.fault();
            self.engine.tell_address(host)?;
        }
        let host = self.rng.random_range(0..self.down.len());
        match self.rng.random_range(0..1_000) {
            0..50 if self.is_up(host) => self.register(host)?,
            50..70 => self.deregister(),
            70..73 => self.fall_silent(),
            73..77 if self.is_up(host) => self.restart_gost(host)?,
            77..80 if self.heals.is_none() && !self.is_fragile() => self.partition(),
            80..84 if self.is_up(host) && !self.is_fragile() => self.crash_for_a_while(host),
            84..86 => self.unsafe_journal = Some(host),
            86..92 => self.change_weather(),
            92..100 if self.is_up(host) && self.claims => self.claim(host)?,
            100..101 => self.restart_several(),
            101..102 if self.is_up(host) => self.clone_of(host)?,
            102..103 => self.change_address(host),
            103..106 if self.is_up(host) => self.copy_journal(host),
            106..108 => self.close_entrypoint(host),
            108..110 => self.open_entrypoints(),
            // Visitors come to a host.
            110..250 if self.is_up(host) => self.visit(host)?,
            _ => {}
        }
        if self.has_been_calm(HEARD) {
            self.engine.hosts.iter_mut().for_each(|host| host.is_restored = false);
        }
        if let Some(host) = self.unsafe_journal
            && self.may_lose_journal(host)
        {
            self.unsafe_journal = None;
            self.crash_with_its_journal(host);
        }
        self.renew()?;
        Ok(())
    }

    /// Everything works from now on.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        self.note("everything works again");
        self.heal();
        self.open_entrypoints();
        self.engine.network.set_weather(Weather::fine());
        for host in 0..self.down.len() {
            if !self.is_up(host) {
                self.start(host)?;
            }
        }
        Ok(())
    }

    fn register(&mut self, host: usize) -> anyhow::Result<()> {
        let tunnel = self.rng.random_range(0..TUNNELS);
        self.register_of(host, tunnel)
    }

    fn register_of(&mut self, host: usize, number: usize) -> anyhow::Result<()> {
        let place = self.connectors.len();
        let id: Arc<str> = format!("c0000000-0000-4000-8000-{place:012x}").into();
        let (node, connection) = self.nodes[host].clone();
        let record = Arc::new(Record {
            id: (*id).into(),
            name: tunnel(number).into(),
            node: (*node).into(),
            network: Protocol::Tcp,
            address: entrypoint(host),
        });
        self.note(&format!("host {host} registers {id} of tunnel {number}"));
        // Whoever is told looks in the same moment, so the expectation has to be there first.
        let weather = self.engine.network.weather();
        let label = format!("{:.0} % lost, {} ms", weather.loss * 100.0, weather.delay.0.as_millis());
        let others = (0..self.down.len()).filter(|other| *other != host);
        let hearing = others.filter(|_| self.has_been_calm(Duration::from_secs(4))).collect::<BTreeSet<_>>();
        let now = self.engine.now();
        self.engine.arrivals.expect(now, id.clone(), tunnel(number).into(), hearing, label);
        let holding = Holding { record: record.clone(), dial: "".into() };
        self.engine
            .call(host, |state, now| state.register(now, Caller::local(connection), holding))
            .context("it runs")??;
        self.connectors.push(Connector {
            id,
            record,
            tunnel: number,
            host,
            node,
            since: now,
            renewed: now,
            ended: None,
            sure: true,
        });
        Ok(())
    }

    fn live_one(&mut self) -> Option<usize> {
        let live: Vec<usize> = self.live().collect();
        live.choose(&mut self.rng).copied()
    }

    fn deregister(&mut self) {
        let Some(at) = self.live_one() else { return };
        let Connector { id, host, node, tunnel: number, .. } = &self.connectors[at];
        let (id, host, node, number) = (id.clone(), *host, node.clone(), *number);
        let how = if self.is_up(host) { ConnectorEnd::Deregistered } else { ConnectorEnd::Silent };
        self.note(&format!("host {host} ends {id}: {how:?}"));
        let caller = Caller::local(self.nodes[host].1);
        let draft = Draft { id: &id, name: tunnel(number), node: &node, network: "", address: "" };
        self.engine.call(host, |state, now| state.deregister(now, caller, draft));
        self.connectors[at].ended = Some((self.engine.now(), how));
    }

    fn fall_silent(&mut self) {
        let Some(at) = self.live_one() else { return };
        let id = self.connectors[at].id.clone();
        self.note(&format!("nobody renews {id} any more"));
        self.connectors[at].ended = Some((self.engine.now(), ConnectorEnd::Silent));
    }

    fn restart_gost(&mut self, host: usize) -> anyhow::Result<()> {
        let now = self.engine.now();
        let live = |connector: &&mut Connector| connector.host == host && connector.ended.is_none();
        let mut tunnels = Vec::new();
        for connector in self.connectors.iter_mut().filter(live) {
            connector.ended = Some((now, ConnectorEnd::Replaced));
            tunnels.push(connector.tunnel);
        }
        self.note(&format!("the gost of host {host} is started again"));
        let (_, former) = self.nodes[host].clone();
        let connection = former + 1 + host as u64 * 1_000_000;
        self.nodes[host] = (node(host, connection), connection);
        self.engine.call(host, |state, _| state.connection_closed(former));
        for tunnel in tunnels {
            self.register_of(host, tunnel)?;
        }
        Ok(())
    }

    fn partition(&mut self) {
        let seconds = self.rng.random_range(1..20);
        let one_way = self.rng.random_bool(0.2);
        let side: Vec<bool> = self.down.iter().map(|_| self.rng.random()).collect();
        self.note(&format!("cut for {seconds} s: {side:?}, one way: {one_way}"));
        self.fault();
        for from in 0..side.len() {
            for to in 0..side.len() {
                if side[from] && !side[to] || (!one_way && !side[from] && side[to]) {
                    self.engine.network.cut(from, to);
                }
            }
        }
        self.heals = Some(self.engine.now() + Duration::from_secs(seconds));
    }

    fn heal(&mut self) {
        self.note("nothing is cut");
        self.heals = None;
        self.fault();
        self.engine.network.heal();
    }

    fn crash_for_a_while(&mut self, host: usize) {
        let for_long = Duration::from_millis(self.rng.random_range(50..15_000));
        if self.rng.random_bool(0.3) {
            self.set_clock(host);
        }
        self.crash(host, for_long);
    }

    fn set_clock(&mut self, host: usize) {
        let ahead = self.rng.random_range(-7_200_000..7_200_000);
        self.note(&format!("the clock of host {host} is set {ahead} ms ahead"));
        self.engine.hosts[host].clock_ahead = ahead;
    }

    /// As by an upgrade of all hosts, or a power cut that lasts a moment: perhaps nobody is left who runs.
    fn restart_several(&mut self) {
        if !self.has_been_calm(Duration::from_secs(8)) || self.is_fragile() {
            return;
        }
        for host in 0..self.down.len() {
            if self.is_up(host) && self.rng.random_bool(0.7) {
                let for_long = Duration::from_millis(self.rng.random_range(50..1_000));
                self.crash(host, for_long);
            }
        }
    }

    /// What nobody else knows is lost for good with a journal, so somebody has to know.
    fn may_lose_journal(&self, host: usize) -> bool {
        let now = self.engine.now();
        let is_new = |of: &Connector| of.host == host && now - of.since < Duration::from_secs(4);
        self.down.len() >= 2
            && self.has_been_calm(Duration::from_secs(6))
            && self.engine.network.weather().loss <= 0.3
            && !self.connectors.iter().any(is_new)
    }

    /// The journal is lost, alone or with the identity, or is put back from a copy; perhaps together with the clock.
    fn crash_with_its_journal(&mut self, host: usize) {
        self.crash(host, Duration::from_millis(500));
        self.fragile = self.engine.now() + FRAGILE;
        if self.rng.random_bool(0.5) {
            self.set_clock(host);
        }
        let of = &mut self.engine.hosts[host];
        let what = match self.rng.random_range(0..3) {
            0 => {
                of.lose_disk();
                "loses its disk"
            }
            1 if of.backup.is_some() => {
                of.restore_journal();
                "gets a copy of its journal"
            }
            _ => {
                of.lose_journal();
                "loses its journal"
            }
        };
        self.note(&format!("host {host} {what}"));
        for connector in self.connectors.iter_mut().filter(|connector| connector.host == host) {
            connector.sure = false;
        }
    }

    /// Another machine starts with a copy of a host's disk: the same name and identity. It has to end, however often it is
    /// started, and the original goes on as if nothing had happened.
    fn clone_of(&mut self, host: usize) -> anyhow::Result<()> {
        if !self.has_been_calm(Duration::from_secs(8)) || self.engine.network.weather().loss > 0.3 {
            return Ok(());
        }
        let machine = self.down.len();
        for _ in 0..self.rng.random_range(1..3) {
            self.note(&format!("a clone of host {host} starts"));
            let clone = self.engine.hosts[host].copy_to(machine);
            self.engine.hosts.push(clone);
            self.engine.start(machine, &[0, 1])?;
            for _ in 0..100 {
                self.engine.run(Duration::from_millis(50))?;
                self.renew()?;
            }
            let ended = self.engine.hosts.pop().is_some_and(|clone| clone.running.is_none());
            ensure!(ended, "the clone of host {host} goes on beside it");
            ensure!(self.is_up(host), "host {host} ended for its clone");
        }
        Ok(())
    }

    fn copy_journal(&mut self, host: usize) {
        self.note(&format!("the journal of host {host} is copied"));
        let of = &mut self.engine.hosts[host];
        of.backup = Some(of.disk.clone());
    }

    /// Its agent looks every second.
    fn change_address(&mut self, host: usize) {
        let seen_after = Duration::from_millis(self.rng.random_range(0..1_000));
        self.note(&format!("host {host} has another address, and its agent sees that after {seen_after:?}"));
        self.fault();
        self.engine.hosts[host].moves += 1;
        self.moved.push((self.engine.now() + seen_after, host));
    }

    /// A visitor asks the gost of a host for a tunnel. If that has none of its clients, it asks its agent.
    fn visit(&mut self, host: usize) -> anyhow::Result<()> {
        let (number, turn) = (self.rng.random_range(0..TUNNELS), self.rng.random());
        let Some(first) = self.asked(host, number, turn) else { return Ok(()) };
        if !self.is_detour(&first) {
            return Ok(());
        }
        let by = (0..self.down.len()).find(|by| entrypoint(*by) == first.address);
        let by = by.context("a detour leads to no host")?;
        self.detours += 1;
        self.note(&format!("host {host} sends a visitor of tunnel {number} by host {by}"));
        ensure!(by != host, "a detour leads back to {host} itself");
        let tried = self.engine.hosts[host].running.as_ref().and_then(|of| of.tried.get(&first.address));
        let works = tried.is_some_and(|(_, tried)| matches!(tried, Tried::Works(_)));
        ensure!(works, "a detour of {host} by {by} was dialled in vain: {tried:?}");
        // gost there asks its own agent: one step, never a second.
        let next = self.asked(by, number, turn);
        let is_second = next.is_some_and(|next| self.is_detour(&next));
        ensure!(!is_second, "a visitor of tunnel {number} is sent by {by}, and from there to a third host");
        Ok(())
    }

    /// The first record that the agent of a host answers for a tunnel.
    fn asked(&mut self, host: usize, number: usize, turn: u64) -> Option<Arc<Record>> {
        let answer = self.engine.call(host, |state, now| state.resolve(now, tunnel(number), turn))?;
        answer.into_iter().next()
    }

    /// Whether nobody registered a record like that.
    fn is_detour(&self, record: &Record) -> bool {
        self.connector(&record.id).is_none_or(|(_, connector)| *connector.record != *record)
    }

    /// A gost is not reached: from one host by a firewall, or from all because it is bound to loopback.
    fn close_entrypoint(&mut self, host: usize) {
        let from = self.rng.random_range(0..self.down.len());
        if from == host {
            self.note(&format!("the entrypoint of host {host} refuses"));
            self.engine.hosts[host].refuses = true;
        } else {
            self.note(&format!("host {from} cannot reach the entrypoint of host {host}"));
            self.engine.network.close(from, host);
        }
    }

    fn open_entrypoints(&mut self) {
        self.note("all entrypoints are open");
        self.engine.network.open();
        self.engine.hosts.iter_mut().for_each(|host| host.refuses = false);
    }

    fn change_weather(&mut self) {
        let (losses, delays) = ([0.0, 0.0, 0.05, 0.2, 0.4], [0_u64, 1, 5, 50, 250]);
        let loss = losses.choose(&mut self.rng).copied().unwrap_or_default();
        let least = delays.choose(&mut self.rng).copied().unwrap_or_default();
        let doubled = if self.rng.random_bool(0.3) { 0.1 } else { 0.0 };
        let more = Duration::from_micros(100 + least * 400);
        let delay = (Duration::from_millis(least), more);
        self.note(&format!("{loss} lost, {delay:?}, {doubled} doubled"));
        self.engine.arrivals.give_up();
        self.engine.network.set_weather(Weather { loss, doubled, delay, ..Weather::fine() });
    }

    fn claim(&mut self, host: usize) -> anyhow::Result<()> {
        let name = NAMES.choose(&mut self.rng).copied().unwrap_or_default();
        let number = self.rng.random_range(0..TUNNELS);
        let endpoint =
            Endpoint { tunnel: TunnelId::parse(tunnel(number)).context("a tunnel id")?, private: false };
        let got = self
            .engine
            .call(host, |state, now| state.claim(now, name, endpoint, |_| true))
            .context("it runs")??;
        self.note(&format!("host {host} claims {name} for tunnel {number}: {got}"));
        Ok(())
    }

    /// What gost does every two seconds.
    pub(super) fn renew(&mut self) -> anyhow::Result<()> {
        let heal = Heal { dial: &|_| String::new(), fallback: None };
        let now = self.engine.now();
        for connector in self.connectors.iter_mut().filter(|connector| connector.ended.is_none()) {
            if self.engine.hosts[connector.host].running.is_none() || now - connector.renewed < RENEW {
                continue;
            }
            connector.renewed = now;
            let Connector { id, node, host, tunnel: number, .. } = &*connector;
            let draft = Draft { id, name: tunnel(*number), node, network: "", address: "" };
            let caller = Caller::local(self.nodes[*host].1);
            self.engine.call(*host, |state, now| state.renew(now, caller, draft, &heal)).transpose()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_sent_around_a_closed_firewall_by_the_third_host_within_three_seconds() {
        let mut world = SimWorld::new(1, 3, Broken::default(), false).unwrap();
        world.engine.run(Duration::from_secs(6)).unwrap();
        world.engine.network.close(0, 1);
        // The third host has a gost, with another tunnel.
        for host in [1, 2] {
            world.register_of(host, host).unwrap();
        }
        world.engine.run(Duration::from_millis(10)).unwrap();
        let since = world.engine.now();
        let first = loop {
            let first = world.asked(0, 1, 0).expect("it is listed");
            if world.is_detour(&first) {
                break first;
            }
            assert!(world.engine.now() - since < Duration::from_secs(3), "no way around");
            world.engine.run(Duration::from_millis(50)).unwrap();
        };
        assert_eq!((&first.address, &first.node), (&entrypoint(2), &(*world.nodes[2].0).into()));
        let next = world.asked(2, 1, 0).expect("it is listed");
        assert_eq!(next.address, entrypoint(1), "and from there straight on");
        world.engine.network.open();
        for _ in 0..31 {
            world.engine.run(Duration::from_secs(1)).unwrap();
            world.renew().unwrap();
            // Visitors go on coming.
            world.asked(0, 1, 0);
        }
        assert_eq!(world.asked(0, 1, 0).expect("it is listed").address, entrypoint(1));
    }
}
