//! The network in memory: frames that are lost, late, doubled and overtaken by the draw of a seed, and links that are
//! cut. Small frames are datagrams; large ones are streams, which lose time instead of bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gossd::net::transport::MAX_DATAGRAM;
use gossd_core::address::Address;
use gossd_core::link::Frame;
use gossd_core::link::wire::Kind;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// After a silence of this, which may make it suspect, whoever is heard again has to be let in again, and to say again what it has.
const LONG: Duration = Duration::from_millis(2_500);
/// A lost segment of a stream is sent again after this.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// How links are.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// Share of datagrams that is lost.
    pub(super) loss: f64,
    /// How long a way loses everything, on average, before it loses nothing for a while; zero if each datagram has its own luck.
    pub(super) burst: Duration,
    /// Share that arrives twice.
    pub(super) doubled: f64,
    /// One-way delay: the least, and how much more at most.
    pub(super) delay: (Duration, Duration),
    /// Regions by turns: milliseconds from one to another, added to the delay; empty for one region.
    pub(super) regions: Vec<Vec<u64>>,
}

impl Weather {
    /// One fine region.
    pub(super) fn fine() -> Self {
        let delay = (Duration::from_micros(100), Duration::from_micros(200));
        Self { loss: 0.0, burst: Duration::ZERO, doubled: 0.0, delay, regions: Vec::new() }
    }

    /// From one host to another, without what varies.
    pub(super) fn distance(&self, from: usize, to: usize) -> Duration {
        if self.regions.is_empty() {
            return Duration::ZERO;
        }
        let region = |host: usize| host % self.regions.len();
        Duration::from_millis(self.regions[region(from)][region(to)])
    }
}

/// What went over the network.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    /// Frames that were sent, whether they arrived or not.
    pub(super) frames: u64,
    /// Pushes among them.
    pub(super) pushes: u64,
    /// Bytes of the largest frame of cards.
    pub(super) largest_cards: usize,
    /// Of every byte that was sent, by whom, to whom and when.
    hash: DefaultHasher,
}

impl Traffic {
    /// A number that two runs of one story have in common, and hardly two stories.
    pub(super) fn trace(&self) -> u64 {
        self.hash.finish()
    }

    fn add(&mut self, since: Duration, from: usize, to: usize, Frame { kind, bytes, .. }: &Frame) {
        self.frames += 1;
        self.pushes += u64::from(*kind == Kind::Push);
        if *kind == Kind::Cards {
            self.largest_cards = self.largest_cards.max(bytes.len());
        }
        self.hash.write_u128(since.as_nanos());
        self.hash.write_usize(from);
        self.hash.write_usize(to);
        self.hash.write(bytes);
    }
}

/// A time in which a way loses everything, or nothing: the model of Gilbert and Elliott.
#[derive(Default)]
struct Spell {
    is_bad: bool,
    /// Since the beginning.
    until: Duration,
}

impl Spell {
    fn loses(&mut self, since: Duration, rng: &mut StdRng, weather: &Weather) -> bool {
        while self.until <= since {
            self.is_bad = !self.is_bad;
            let good = weather.burst.mul_f64((1.0 - weather.loss) / weather.loss);
            let mean = if self.is_bad { weather.burst } else { good };
            self.until += mean.mul_f64(-rng.random::<f64>().max(f64::MIN_POSITIVE).ln());
        }
        self.is_bad
    }
}

/// When something happened between two hosts, if ever.
struct PairTimes {
    hosts: usize,
    at: Vec<Option<Instant>>,
}

impl PairTimes {
    fn new(hosts: usize) -> Self {
        Self { hosts, at: vec![None; hosts * hosts] }
    }

    fn get(&self, host: usize, other: usize) -> Option<Instant> {
        self.at[host * self.hosts + other]
    }

    fn get_mut(&mut self, host: usize, other: usize) -> &mut Option<Instant> {
        &mut self.at[host * self.hosts + other]
    }
}

/// Who got what from whom, and when.
struct Contacts {
    /// When a host last got anything that began with another's sign of life, by way of whomever.
    life: PairTimes,
    /// When a host last got anything from another that it could answer.
    heard: PairTimes,
    /// When that was after a silence of [`LONG`].
    returned: PairTimes,
}

/// See the module.
pub(super) struct SimNetwork {
    rng: StdRng,
    weather: Weather,
    /// From whom nothing gets to whom.
    cut: BTreeSet<(usize, usize)>,
    /// From where no connection is made to whose gost, because a firewall is closed; gossip gets through.
    closed: BTreeSet<(usize, usize)>,
    /// None if nobody asks for it: for each frame it takes as long as there are hosts.
    contacts: Option<Contacts>,
    traffic: Traffic,
    /// From one host to another.
    spells: BTreeMap<(usize, usize), Spell>,
}

/// Where a host is that got another address so often.
pub(super) fn address(host: usize, moves: u8) -> SocketAddr {
    let [high, low] = u16::try_from(host).unwrap_or(u16::MAX).to_be_bytes();
    SocketAddr::from(([10, moves, high, low], 8002))
}

/// Where a host's gost takes visitors.
pub(super) fn entrypoint(host: usize) -> Address {
    format!("10.0.0.{host}:8420").into()
}

/// Which host is there, or was.
pub(super) fn host_at(address: SocketAddr) -> usize {
    match address.ip() {
        std::net::IpAddr::V4(ip) => usize::from(u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])),
        std::net::IpAddr::V6(_) => usize::MAX,
    }
}

impl SimNetwork {
    /// Between so many hosts.
    pub(super) fn new(seed: u64, hosts: usize, weather: Weather) -> Self {
        let times = || PairTimes::new(hosts);
        Self {
            rng: StdRng::seed_from_u64(seed),
            weather,
            cut: BTreeSet::new(),
            closed: BTreeSet::new(),
            contacts: Some(Contacts { life: times(), heard: times(), returned: times() }),
            traffic: Traffic::default(),
            spells: BTreeMap::new(),
        }
    }

    /// Who heard of whom, and when, is not asked for.
    pub(super) fn forgetful(mut self) -> Self {
        self.contacts = None;
        self
    }

    /// A frame is sent, so long after the beginning: how much later each copy of it arrives that is not lost.
    pub(super) fn send(&mut self, since: Duration, from: usize, to: usize, frame: &Frame) -> Vec<Duration> {
        self.traffic.add(since, from, to, frame);
        if self.cut.contains(&(from, to)) {
            return Vec::new();
        }
        let Self { rng, weather, spells, .. } = self;
        let copies = 1 + u32::from(rng.random_bool(weather.doubled));
        let stream = frame.bytes.len() > MAX_DATAGRAM;
        let mut arriving = Vec::new();
        for _ in 0..if stream { 1 } else { copies } {
            let mut delay = weather.distance(from, to) + weather.delay.0;
            delay += weather.delay.1.mul_f64(rng.random());
            let is_lost = match weather.burst {
                Duration::ZERO => rng.random_bool(weather.loss),
                _ => spells.entry((from, to)).or_default().loses(since, rng, weather),
            };
            if is_lost {
                if !stream {
                    continue;
                }
                delay += RETRANSMIT;
            }
            arriving.push(delay);
        }
        arriving
    }

    /// Whether a frame under way arrives now, which is then remembered. Frames of handshakes are no signs of life yet.
    pub(super) fn delivers(&mut self, now: Instant, from: usize, to: usize, kind: Kind) -> bool {
        if self.cut.contains(&(from, to)) {
            return false;
        }
        let Some(Contacts { life, heard, returned }) = &mut self.contacts else { return true };
        // A process that cannot be answered is not let in.
        let is_sign = !matches!(kind, Kind::Hello | Kind::Reply | Kind::Proof);
        if is_sign
            && !self.cut.contains(&(to, from))
            && heard.get_mut(to, from).replace(now).is_none_or(|before| now - before > LONG)
        {
            *returned.get_mut(to, from) = Some(now);
        }
        *life.get_mut(to, from) = Some(now);
        for of in 0..life.hosts {
            let known = life.get(from, of);
            let at = life.get_mut(to, of);
            *at = known.max(*at);
        }
        true
    }

    /// A host's agent starts, and knows of nobody.
    pub(super) fn forget(&mut self, host: usize) {
        if let Some(Contacts { life, .. }) = &mut self.contacts {
            (0..life.hosts).for_each(|of| *life.get_mut(host, of) = None);
        }
    }

    /// When a host can last have heard that another lives.
    pub(super) fn last_life(&self, host: usize, of: usize) -> Option<Instant> {
        self.contacts.as_ref()?.life.get(host, of)
    }

    /// When a host last heard another after a long silence.
    pub(super) fn last_return(&self, host: usize, other: usize) -> Option<Instant> {
        self.contacts.as_ref()?.returned.get(host, other)
    }

    /// When a host last heard another.
    pub(super) fn last_heard(&self, host: usize, other: usize) -> Option<Instant> {
        self.contacts.as_ref()?.heard.get(host, other)
    }

    /// From now on.
    pub(super) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// How it is.
    pub(super) fn weather(&self) -> &Weather {
        &self.weather
    }

    /// Nothing gets from one to the other.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// No connection is made from the one to the gost of the other.
    pub(super) fn close(&mut self, from: usize, to: usize) {
        self.closed.insert((from, to));
    }

    /// Firewalls are open again.
    pub(super) fn open(&mut self) {
        self.closed.clear();
    }

    /// How long a connection to another host's gost takes now; none if there is no answer.
    pub(super) fn connects(&self, from: usize, to: usize) -> Option<Duration> {
        let is_cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
        let one_way = self.weather.distance(from, to) + self.weather.delay.0;
        (!is_cut && !self.closed.contains(&(from, to))).then_some(2 * one_way)
    }

    /// Everything gets through again.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    /// What went over it so far.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}
