//! The network in memory: frames that are lost, late, doubled and overtaken by the draw of a seed, and links that are
//! cut. Small frames are datagrams; large ones are streams, which lose time instead of bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gossd::gossip::transport::{MAX_DATAGRAM, Port};
use gossd::gossip::wire::Kind;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

/// After a silence of this, whoever is heard again has to be let in again, and to say again what it has.
const LONG: Duration = Duration::from_secs(5);
/// A lost segment of a stream is sent again after this.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// How links are.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// Share of datagrams that is lost.
    pub loss: f64,
    /// Share that arrives twice.
    pub doubled: f64,
    /// One-way delay: the least, and how much more at most.
    pub delay: (Duration, Duration),
    /// Regions by turns: milliseconds from one to another, added to the delay; empty for one region.
    pub regions: Vec<Vec<u64>>,
}

impl Weather {
    /// One fine region.
    pub(crate) fn fine() -> Self {
        let delay = (Duration::from_micros(100), Duration::from_micros(200));
        Self { loss: 0.0, doubled: 0.0, delay, regions: Vec::new() }
    }

    /// From one host to another, without what varies.
    pub(crate) fn distance(&self, from: usize, to: usize) -> Duration {
        if self.regions.is_empty() {
            return Duration::ZERO;
        }
        let region = |host: usize| host % self.regions.len();
        Duration::from_millis(self.regions[region(from)][region(to)])
    }
}

/// What went over the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Frames that were sent, whether they arrived or not.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pushes among the frames.
    pub pushes: u64,
}

/// Bytes that arrive, and from where.
type Arrival = (SocketAddr, Arc<[u8]>);

/// A frame on its way.
struct Flying {
    from: usize,
    to: usize,
    frame: Arc<[u8]>,
}

struct State {
    rng: StdRng,
    weather: Arc<Weather>,
    /// From whom nothing gets to whom.
    cut: BTreeSet<(usize, usize)>,
    /// By when it arrives, and its number.
    flying: BTreeMap<(Instant, u64), Flying>,
    number: u64,
    inboxes: BTreeMap<usize, mpsc::UnboundedSender<Arrival>>,
    /// Whether what follows is kept: for each frame it takes as long as there are hosts.
    remembers: bool,
    /// When a host last got anything that began with another's sign of life, by way of whomever.
    life: BTreeMap<(usize, usize), Instant>,
    /// When a host last got anything from another that it could answer.
    heard: BTreeMap<(usize, usize), Instant>,
    /// When that was after a silence of [`LONG`].
    returned: BTreeMap<(usize, usize), Instant>,
    traffic: Traffic,
}

/// A handle on the network.
#[derive(Clone)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
    sent: Arc<Notify>,
}

/// Where a host is.
pub(crate) fn address(host: usize) -> SocketAddr {
    let [high, low] = u16::try_from(host).unwrap_or(u16::MAX).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 8002))
}

fn host_at(address: SocketAddr) -> usize {
    match address.ip() {
        std::net::IpAddr::V4(ip) => usize::from(u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])),
        std::net::IpAddr::V6(_) => usize::MAX,
    }
}

impl Network {
    /// Nobody is there.
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            weather: Arc::new(weather),
            cut: BTreeSet::new(),
            flying: BTreeMap::new(),
            number: 0,
            inboxes: BTreeMap::new(),
            remembers: true,
            life: BTreeMap::new(),
            heard: BTreeMap::new(),
            returned: BTreeMap::new(),
            traffic: Traffic::default(),
        };
        Self { state: Arc::new(Mutex::new(state)), sent: Arc::default() }
    }

    /// Who heard of whom, and when, is not asked for.
    pub(crate) fn forgetful(self) -> Self {
        self.state().remembers = false;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plugs a host in, in place of what was plugged in there.
    pub(crate) fn plug(&self, host: usize) -> Port {
        let (inbox, incoming) = mpsc::unbounded_channel();
        self.state().inboxes.insert(host, inbox.clone());
        let network = self.clone();
        let outgoing = Arc::new(move |to: SocketAddr, kind: Kind, frame: Arc<[u8]>| {
            // What a process that was killed would still have sent, it has not.
            if network.state().inboxes.get(&host).is_some_and(|now| now.same_channel(&inbox)) {
                network.send(host, host_at(to), kind, &frame);
            }
        });
        Port { addr: address(host), outgoing, incoming }
    }

    /// Unplugs a host: what is under way to it is lost.
    pub(crate) fn unplug(&self, host: usize) {
        self.state().inboxes.remove(&host);
    }

    fn send(&self, from: usize, to: usize, kind: Kind, frame: &Arc<[u8]>) {
        let mut state = self.state();
        state.traffic.frames += 1;
        state.traffic.bytes += frame.len() as u64;
        state.traffic.pushes += u64::from(kind == Kind::Push);
        if state.cut.contains(&(from, to)) {
            return;
        }
        let weather = state.weather.clone();
        let copies = 1 + u32::from(state.rng.random_bool(weather.doubled));
        let stream = frame.len() > MAX_DATAGRAM;
        for _ in 0..if stream { 1 } else { copies } {
            let mut delay = weather.distance(from, to) + weather.delay.0;
            delay += weather.delay.1.mul_f64(state.rng.random());
            if state.rng.random_bool(weather.loss) {
                if !stream {
                    continue;
                }
                delay += RETRANSMIT;
            }
            state.number += 1;
            let at = (Instant::now() + delay, state.number);
            state.flying.insert(at, Flying { from, to, frame: frame.clone() });
        }
        self.sent.notify_one();
    }

    /// Delivers, for ever.
    pub(crate) async fn run(self) {
        loop {
            let next = self.state().flying.first_key_value().map(|((at, _), _)| *at);
            match next {
                Some(at) if at <= Instant::now() => self.deliver(),
                Some(at) => tokio::select! {
                    biased;
                    () = self.sent.notified() => {}
                    () = sleep_until(at) => {}
                },
                None => self.sent.notified().await,
            }
        }
    }

    fn deliver(&self) {
        let mut state = self.state();
        let Some((_, Flying { from, to, frame })) = state.flying.pop_first() else { return };
        if state.cut.contains(&(from, to)) {
            return;
        }
        let Some(inbox) = state.inboxes.get(&to) else { return };
        if inbox.send((address(from), frame)).is_err() {
            return;
        }
        if !state.remembers {
            return;
        }
        let now = Instant::now();
        // A process that cannot be answered is not let in.
        if !state.cut.contains(&(to, from))
            && state.heard.insert((to, from), now).is_none_or(|before| now - before > LONG)
        {
            state.returned.insert((to, from), now);
        }
        let known: Vec<(usize, Instant)> =
            state.life.range((from, 0)..=(from, usize::MAX)).map(|((_, of), at)| (*of, *at)).collect();
        for (of, at) in known.into_iter().chain([(from, now)]) {
            let life = state.life.entry((to, of)).or_insert(at);
            *life = at.max(*life);
        }
    }

    /// When a host can last have heard that another lives.
    pub(crate) fn last_life(&self, host: usize, of: usize) -> Option<Instant> {
        self.state().life.get(&(host, of)).copied()
    }

    /// When a host last heard another after a long silence.
    pub(crate) fn last_return(&self, host: usize, other: usize) -> Option<Instant> {
        self.state().returned.get(&(host, other)).copied()
    }

    /// When a host last heard another.
    pub(crate) fn last_heard(&self, host: usize, other: usize) -> Option<Instant> {
        self.state().heard.get(&(host, other)).copied()
    }

    /// From now on.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state().weather = Arc::new(weather);
    }

    /// How it is.
    pub(crate) fn weather(&self) -> Arc<Weather> {
        self.state().weather.clone()
    }

    /// Nothing gets from one to the other.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        self.state().cut.insert((from, to));
    }

    /// Everything gets through again.
    pub(crate) fn heal(&self) {
        self.state().cut.clear();
    }

    /// What went over it so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.state().traffic
    }
}
