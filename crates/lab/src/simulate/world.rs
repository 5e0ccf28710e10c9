//! One story: hosts with agents and gosts, what happens to them by the draw of a seed, and what is true of every
//! connector meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gossd_core::agent::{Broken, Heal};
use gossd_core::connection::Caller;
use gossd_core::hostname::{Endpoint, TunnelId};
use gossd_core::lease::Holding;
use gossd_core::record::{Draft, Network as Protocol, Record};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::board::Board;
use crate::host::Host;
use crate::net::{Network, Weather};

/// How long records live after their owner's last sign of life, and before the period of their Renews is known.
pub(crate) const TTL: Duration = Duration::from_secs(10);
/// How often gost renews.
const RENEW: Duration = Duration::from_secs(2);
/// What an agent was told in the moment before it crashed may be on no disk and on no wire.
const MOMENT: Duration = Duration::from_millis(60);
/// Tunnels that connectors belong to, and host names that are claimed for them.
pub(crate) const TUNNELS: usize = 5;
pub(crate) const NAMES: [&str; 3] = ["shop", "www.example.org", "*.example.net"];

/// A connector as it really is.
pub(crate) struct Connector {
    pub id: Arc<str>,
    pub tunnel: usize,
    pub host: usize,
    pub node: Arc<str>,
    pub since: Instant,
    pub renewed: Instant,
    pub ended: Option<(Instant, End)>,
    /// Whether its owner has to list it; one that lost its disk has to hear of it first.
    pub sure: bool,
}

/// How a connector ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Deregistered,
    /// Nobody renews it any more.
    Silent,
    /// Its gost was started again, and said so.
    Replaced,
}

/// See the module.
pub(crate) struct World {
    pub network: Network,
    pub hosts: Vec<Host>,
    pub connectors: Vec<Connector>,
    pub board: Board,
    pub trace: Vec<String>,
    began: Instant,
    rng: StdRng,
    /// Whether host names are claimed. What is claimed is said again when its owner is gone, at any time.
    pub claims: bool,
    nodes: Vec<(Arc<str>, u64)>,
    down: Vec<Option<Instant>>,
    heals: Option<Instant>,
    observers: Vec<Option<JoinHandle<()>>>,
    numbers: u64,
    /// Since when nothing has been cut and nobody been down.
    calm: Instant,
}

pub(crate) fn tunnel(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

pub(crate) fn entrypoint(host: usize) -> String {
    format!("10.0.0.{host}:8420")
}

impl World {
    pub(crate) async fn new(seed: u64, hosts: usize, broken: Broken) -> anyhow::Result<Self> {
        let network = Network::new(seed, Weather::fine());
        tokio::spawn(network.clone().run());
        let mut world = Self {
            network,
            hosts: (0..hosts).map(|number| Host::new(number, TTL)).collect(),
            connectors: Vec::new(),
            board: Board::default(),
            trace: Vec::new(),
            began: Instant::now(),
            rng: StdRng::seed_from_u64(seed ^ 0x5eed),
            claims: seed.is_multiple_of(2),
            nodes: (0..hosts).map(|host| (format!("node-{host}-0").into(), 0)).collect(),
            down: vec![None; hosts],
            heals: None,
            observers: (0..hosts).map(|_| None).collect(),
            numbers: 0,
            calm: Instant::now(),
        };
        for host in 0..hosts {
            world.hosts[host].broken = broken;
            world.start(host).await?;
        }
        Ok(world)
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.began.elapsed().as_secs_f64();
        self.trace.push(format!("{at:9.3} {}", what()));
    }

    async fn start(&mut self, host: usize) -> anyhow::Result<()> {
        let join = [0, 1];
        self.down[host] = None;
        self.note(|| format!("host {host} starts"));
        let elapsed = self.began.elapsed();
        self.hosts[host].start(&self.network, &join, elapsed).await?;
        let agent = self.hosts[host].running().context("it runs")?.agent.clone();
        self.observers[host] = Some(tokio::spawn(self.board.clone().observe(host, agent)));
        self.calm = Instant::now();
        Ok(())
    }

    fn crash(&mut self, host: usize, for_long: Duration) {
        self.note(|| format!("host {host} crashes, for {for_long:?}"));
        self.fault();
        self.hosts[host].crash(&self.network);
        if let Some(observer) = self.observers[host].take() {
            observer.abort();
        }
        self.down[host] = Some(Instant::now() + for_long);
        for connector in self.connectors.iter_mut().filter(|connector| connector.host == host) {
            if connector.since.elapsed() < MOMENT {
                // Registered and not kept: gost never registers again, so it may be nowhere.
                connector.ended = Some((Instant::now(), End::Silent));
            }
            if connector.ended.is_some_and(|(at, _)| at.elapsed() < MOMENT) {
                connector.ended = Some((Instant::now(), End::Silent));
            }
        }
    }

    fn fault(&mut self) {
        self.board.give_up();
        self.calm = Instant::now();
    }

    /// Whether everything has run and been connected for this long.
    pub(crate) fn has_been_calm(&self, for_long: Duration) -> bool {
        self.heals.is_none() && self.down.iter().all(Option::is_none) && self.calm.elapsed() > for_long
    }

    fn is_up(&self, host: usize) -> bool {
        self.hosts[host].running().is_some()
    }

    /// Fifty milliseconds of a story.
    pub(crate) async fn step(&mut self) -> anyhow::Result<()> {
        if self.heals.is_some_and(|at| at <= Instant::now()) {
            self.heal();
        }
        for host in 0..self.hosts.len() {
            if self.down[host].is_some_and(|at| at <= Instant::now()) {
                self.start(host).await?;
            }
        }
        let host = self.rng.random_range(0..self.hosts.len());
        match self.rng.random_range(0..1_000) {
            0..50 if self.is_up(host) => self.register(host)?,
            50..70 => self.deregister(),
            70..73 => self.fall_silent(),
            73..77 if self.is_up(host) => self.restart_gost(host)?,
            77..80 if self.heals.is_none() => self.partition(),
            80..84 if self.is_up(host) => self.crash_for_a_while(host),
            84..86 if self.is_up(host) => self.crash_with_its_disk(host),
            86..92 => self.change_weather(),
            92..100 if self.is_up(host) && self.claims => self.claim(host)?,
            _ => {}
        }
        self.renew()?;
        Ok(())
    }

    /// Everything works from now on.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        self.note(|| "everything works again".into());
        self.heal();
        self.network.set_weather(Weather::fine());
        for host in 0..self.hosts.len() {
            if !self.is_up(host) {
                self.start(host).await?;
            }
        }
        Ok(())
    }

    fn register(&mut self, host: usize) -> anyhow::Result<()> {
        let tunnel = self.rng.random_range(0..TUNNELS);
        self.register_of(host, tunnel)
    }

    fn register_of(&mut self, host: usize, number: usize) -> anyhow::Result<()> {
        self.numbers += 1;
        let id: Arc<str> = format!("connector-{}", self.numbers).into();
        let (node, connection) = self.nodes[host].clone();
        let record = Record {
            id: (*id).into(),
            name: tunnel(number).into(),
            node: (*node).into(),
            network: Protocol::Tcp,
            address: entrypoint(host).into(),
        };
        self.note(|| format!("host {host} registers {id} of tunnel {number}"));
        let running = self.hosts[host].running().context("it runs")?;
        // The Get that would tell is asked in the same moment, so the expectation has to be there first.
        let weather = self.network.weather();
        let label = format!("{:.0} % lost, {} ms", weather.loss * 100.0, weather.delay.0.as_millis());
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        let hearing = others.filter(|_| self.has_been_calm(Duration::from_secs(4))).collect::<BTreeSet<_>>();
        self.board.expect(id.clone(), tunnel(number), hearing, label);
        running
            .agent
            .register(Caller::local(connection), Holding { record: Arc::new(record), dial: "".into() })?;
        let now = Instant::now();
        self.connectors.push(Connector {
            id,
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
        let live = self.connectors.iter().enumerate().filter(|(_, connector)| connector.ended.is_none());
        live.map(|(at, _)| at).choose(&mut self.rng)
    }

    fn deregister(&mut self) {
        let Some(at) = self.live_one() else { return };
        let (host, id) = (self.connectors[at].host, self.connectors[at].id.clone());
        let how = if self.is_up(host) { End::Deregistered } else { End::Silent };
        self.note(|| format!("host {host} ends {id}: {how:?}"));
        if let Some(running) = self.hosts[host].running() {
            let connector = &self.connectors[at];
            let name = tunnel(connector.tunnel);
            let draft = Draft { id: &id, name: &name, node: &connector.node, network: "", address: "" };
            running.agent.deregister(Caller::local(self.nodes[host].1), draft);
        }
        self.connectors[at].ended = Some((Instant::now(), how));
    }

    fn fall_silent(&mut self) {
        let Some(at) = self.live_one() else { return };
        let id = self.connectors[at].id.clone();
        self.note(|| format!("nobody renews {id} any more"));
        self.connectors[at].ended = Some((Instant::now(), End::Silent));
    }

    fn restart_gost(&mut self, host: usize) -> anyhow::Result<()> {
        let live = |connector: &&mut Connector| connector.host == host && connector.ended.is_none();
        let mut tunnels = Vec::new();
        for connector in self.connectors.iter_mut().filter(live) {
            connector.ended = Some((Instant::now(), End::Replaced));
            tunnels.push(connector.tunnel);
        }
        self.note(|| format!("the gost of host {host} is started again"));
        let (_, former) = self.nodes[host].clone();
        let connection = former + 1 + host as u64 * 1_000_000;
        self.nodes[host] = (format!("node-{host}-{connection}").into(), connection);
        if let Some(running) = self.hosts[host].running() {
            running.agent.connection_closed(former);
        }
        for tunnel in tunnels {
            self.register_of(host, tunnel)?;
        }
        Ok(())
    }

    fn partition(&mut self) {
        let seconds = self.rng.random_range(1..20);
        let one_way = self.rng.random_bool(0.2);
        let side: Vec<bool> = self.hosts.iter().map(|_| self.rng.random()).collect();
        self.note(|| format!("cut for {seconds} s: {side:?}, one way: {one_way}"));
        self.fault();
        for from in 0..side.len() {
            for to in 0..side.len() {
                if side[from] && !side[to] || (!one_way && !side[from] && side[to]) {
                    self.network.cut(from, to);
                }
            }
        }
        self.heals = Some(Instant::now() + Duration::from_secs(seconds));
    }

    fn heal(&mut self) {
        self.note(|| "nothing is cut".into());
        self.heals = None;
        self.fault();
        self.network.heal();
    }

    fn crash_for_a_while(&mut self, host: usize) {
        let for_long = Duration::from_millis(self.rng.random_range(50..15_000));
        if self.rng.random_bool(0.3) {
            let ahead = self.rng.random_range(-7_200_000..7_200_000);
            self.note(|| format!("the clock of host {host} is set {ahead} ms ahead"));
            self.hosts[host].clock_ahead = ahead;
        }
        self.crash(host, for_long);
    }

    /// What nobody else knows is lost for good, so somebody has to know.
    fn crash_with_its_disk(&mut self, host: usize) {
        if self.hosts.len() < 2
            || !self.has_been_calm(Duration::from_secs(6))
            || self.network.weather().loss > 0.3
        {
            return;
        }
        if self.connectors.iter().any(|of| of.host == host && of.since.elapsed() < Duration::from_secs(4)) {
            return;
        }
        self.crash(host, Duration::from_millis(500));
        self.note(|| format!("host {host} lost its disk"));
        self.hosts[host].lose_disk();
        // A generation from the clock alone: it must not have gone back.
        self.hosts[host].clock_ahead = self.hosts[host].clock_ahead.max(0) + 7_200_000;
        for connector in self.connectors.iter_mut().filter(|connector| connector.host == host) {
            connector.sure = false;
        }
    }

    fn change_weather(&mut self) {
        let (losses, delays) = ([0.0, 0.0, 0.05, 0.2, 0.4], [0_u64, 1, 5, 50, 250]);
        let loss = losses.choose(&mut self.rng).copied().unwrap_or_default();
        let least = delays.choose(&mut self.rng).copied().unwrap_or_default();
        let doubled = if self.rng.random_bool(0.3) { 0.1 } else { 0.0 };
        let more = Duration::from_micros(100 + least * 400);
        let delay = (Duration::from_millis(least), more);
        self.note(|| format!("{loss} lost, {delay:?}, {doubled} doubled"));
        self.board.give_up();
        self.network.set_weather(Weather { loss, doubled, delay, regions: Vec::new() });
    }

    fn claim(&mut self, host: usize) -> anyhow::Result<()> {
        let name = NAMES.choose(&mut self.rng).copied().unwrap_or_default();
        let number = self.rng.random_range(0..TUNNELS);
        let endpoint =
            Endpoint { tunnel: TunnelId::parse(&tunnel(number)).context("a tunnel id")?, private: false };
        let running = self.hosts[host].running().context("it runs")?;
        let got = running.agent.claim(name, endpoint)?;
        self.note(|| format!("host {host} claims {name} for tunnel {number}: {got}"));
        Ok(())
    }

    /// What gost does every two seconds.
    pub(crate) fn renew(&mut self) -> anyhow::Result<()> {
        let heal = Heal { dial: &|_| String::new(), fallback: None };
        for connector in self.connectors.iter_mut().filter(|connector| connector.ended.is_none()) {
            let Some(running) = self.hosts[connector.host].running() else { continue };
            if connector.renewed.elapsed() < RENEW {
                continue;
            }
            connector.renewed = Instant::now();
            let name = tunnel(connector.tunnel);
            let Connector { id, node, .. } = &*connector;
            let draft = Draft { id, name: &name, node, network: "", address: "" };
            running.agent.renew(Caller::local(self.nodes[connector.host].1), draft, &heal)?;
        }
        Ok(())
    }
}
