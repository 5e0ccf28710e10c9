//! Two links and what anybody makes of the frames between them: holds them back, repeats, changes, cuts and misdirects
//! them, throws them back, floods. Beside them are members in their own and in others' names, and a stranger. Bytes that no
//! holder of the key made have no effect at all, others have it once and where they were made for. Nobody is admitted but
//! who finished a handshake. No answer is longer than the question of somebody who has not proven itself. Afterwards,
//! handshakes succeed as before.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gossd_core::agent::{News, Offer};
use gossd_core::hostname::TunnelId;
use gossd_core::link::counters::Counters;
use gossd_core::link::frame::{self, HELLO, Sealed, VERSION};
use gossd_core::link::gauges::Gauge;
use gossd_core::link::keyring::Keyring;
use gossd_core::link::wire::{self, Conflict, Digest, Kind, Ping, Pong};
use gossd_core::link::{
    self, DEAD_GRACE, Frame, INTERVAL, Link, LinkEffects, LinkLine, LinkSettings, MESH, ReplicaStore,
};
use gossd_core::record::{Generation, Owner};
use gossd_core::replica::Part;
use gossd_core::slot::{Slot, Version};

use super::input::Input;
use super::peer::{CLUSTER, Peer, Taken};

/// Steps of one input.
const STEPS: usize = 24;
/// Frames that an attacker remembers.
const MOST: usize = 256;
/// Bytes of a code or cookie.
const CODE: usize = 16;
/// Who makes frames: two links, a member, another one that takes the links' names, a stranger with a key of its own,
/// and whoever comes afterwards.
const A: usize = 0;
const B: usize = 1;
const MEMBER: usize = 2;
const IMPOSTOR: usize = 3;
const STRANGER: usize = 4;
const NEWCOMER: usize = 5;
/// How long the holder of a name has to show that it lives.
const CONTEST: Duration = Duration::from_millis(1_500);

thread_local! {
    static START: Instant = Instant::now();
    static KEYRINGS: [Keyring; 2] = {
        let key = |letter: &str| Keyring::parse(&format!("{}A=", letter.repeat(42))).expect("a key");
        [key("B"), key("C")]
    };
}

/// Whether both links have to find each other again in the end, and steps.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let recovers = input.byte() % 4 == 1;
    let mut room = Room::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        room.step(&mut input);
    }
    room.newcomer();
    if recovers && !room.is_over {
        room.recover();
    }
}

/// A frame that was sent.
struct Sent {
    author: usize,
    to: SocketAddr,
    /// Whose handshake or session it belongs to, wherever it was sent: a Hello may have come from anywhere.
    meant: Option<usize>,
    bytes: Arc<[u8]>,
    /// Whether it was delivered where it was sent to.
    arrived: bool,
    /// Whether it ever had an effect.
    counted: bool,
}

struct Side {
    link: Link,
    counters: Arc<Counters>,
}

struct Room {
    now: Instant,
    sides: [Side; 2],
    /// From [`MEMBER`] on.
    peers: Vec<Peer>,
    sent: Vec<Sent>,
    /// Who each author ever said that it is.
    claims: [HashSet<(Owner, SocketAddr)>; 6],
    /// When each link last took a frame of a session with each author.
    heard: [[Option<Instant>; 6]; 2],
    /// Whether a link was told to end.
    is_over: bool,
}

/// Counts what the link makes known.
#[derive(Default)]
struct Notes(usize);

impl ReplicaStore for Notes {
    fn apply(&mut self, _: Instant, _: News) {
        self.0 += 1;
    }

    fn version(&self, _: &Owner) -> Option<Version> {
        Some(0)
    }

    fn part(&self, _: &Owner, _: Version, _: Slot) -> Option<Part> {
        None
    }

    fn offer(&mut self, _: Instant, _: &Owner, _: TunnelId) -> Offer {
        Offer::Nothing
    }
}

fn addr(author: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(author).expect("few") + 1], 8002))
}

/// A start of one of the links.
fn side(now: Instant, n: usize, generation: Generation) -> Side {
    let settings = LinkSettings {
        owner: owner(["a", "b"][n], generation),
        addr: addr(n),
        identity: [[1; 32], [2; 32]][n],
        version: "0.1.0".into(),
        keyring: KEYRINGS.with(|[ours, _]| ours.clone()),
        key_file: false,
        cluster: CLUSTER.into(),
        interval: INTERVAL,
        dead_grace: DEAD_GRACE,
        mesh: MESH,
        seed: [u8::try_from(generation % 100 * 2).expect("few") + u8::from(n == B); 32],
    };
    let counters = Arc::new(Counters::default());
    Side { link: Link::new(now, settings, counters.clone()), counters }
}

fn owner(name: &str, generation: Generation) -> Owner {
    Owner { name: name.parse().expect("a name"), generation }
}

/// Some address, now and then somebody's.
fn from(input: &mut Input<'_>) -> SocketAddr {
    match input.byte() {
        n @ 0..6 => addr(n.into()),
        n => SocketAddr::from(([127, 0, 1, n], 8002)),
    }
}

impl Room {
    fn new() -> Self {
        let now = START.with(|start| *start);
        let peer = |n: usize| {
            let owner = owner(["", "", "m", "b", "s", "z"][n], 6);
            let identity = u8::try_from(n).expect("few") + 1;
            KEYRINGS
                .with(|keyrings| Peer::new(owner, addr(n), identity, &keyrings[usize::from(n == STRANGER)]))
        };
        let mut room = Self {
            now,
            sides: [side(now, A, 5), side(now, B, 5)],
            peers: (MEMBER..=NEWCOMER).map(peer).collect(),
            sent: Vec::new(),
            claims: Default::default(),
            heard: [[None; 6]; 2],
            is_over: false,
        };
        for n in [A, B] {
            room.claims[n].insert((owner(["a", "b"][n], 5), addr(n)));
        }
        for n in MEMBER..=NEWCOMER {
            room.claim(n);
        }
        room.join(A);
        room.join(B);
        room.pass(Duration::ZERO);
        room
    }

    /// A link looks for whom its operator named.
    fn join(&mut self, n: usize) {
        let joins = [BTreeSet::from([addr(B), addr(MEMBER)]), BTreeSet::from([addr(A)])];
        let effects = self.sides[n].link.handle_joins(self.now, joins[n].clone());
        self.perform(n, effects);
    }

    /// A link was told that a later start of it is known, and starts anew above that.
    fn start_above(&mut self, n: usize, known: Generation) {
        self.sides[n] = side(self.now, n, known + 1);
        self.claims[n].insert((owner(["a", "b"][n], known + 1), addr(n)));
        self.heard[n] = [None; 6];
        self.join(n);
    }

    fn peer(&mut self, n: usize) -> &mut Peer {
        &mut self.peers[n - MEMBER]
    }

    fn claim(&mut self, n: usize) {
        let Peer { owner, addr, .. } = self.peer(n);
        let claim = (owner.clone(), *addr);
        self.claims[n].insert(claim);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let n = [MEMBER, IMPOSTOR, STRANGER][usize::from(what / 16 % 3)];
        let side = usize::from(what / 128);
        match what % 16 {
            0 | 1 => self.flush(usize::from(input.byte() % 32) + 1),
            2 => self.pass(Duration::from_millis(37) * u32::from(input.byte())),
            // As it was sent, again or out of turn.
            3 => self.forward(self.some(input)),
            // Changed.
            4 => {
                let (at, bit) = (self.some(input), usize::from(input.number()));
                let mut bytes = self.sent[at].bytes.to_vec();
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.throw(side, from(input), &bytes);
            }
            // Cut, or longer.
            5 => {
                let (at, len) = (self.some(input), usize::from(input.number()));
                let mut bytes = self.sent[at].bytes.to_vec();
                bytes.resize(len % (bytes.len() + 40), what);
                self.throw(side, from(input), &bytes);
            }
            // To whom it was not sent, or back.
            6 => {
                let bytes = self.sent[self.some(input)].bytes.clone();
                self.throw(side, from(input), &bytes);
            }
            // Anything, behind a valid head or not.
            7 => {
                let head = [&b"gs"[..], &[VERSION]].concat();
                let bytes =
                    if what & 64 == 0 { [&head, input.counted()].concat() } else { input.counted().to_vec() };
                self.throw(side, from(input), &bytes);
            }
            // The beginning or the end of a frame in place of another's.
            8 => {
                let (one, other) = (self.some(input), self.some(input));
                let (one, other) = (self.sent[one].bytes.clone(), self.sent[other].bytes.clone());
                let at = usize::from(input.byte());
                let bytes = [&one[..at.min(one.len())], &other[at.min(other.len())..]].concat();
                self.throw(side, from(input), &bytes);
            }
            9 => {
                let hello = self.peer(n).hello(None);
                self.send(n, addr(side), hello);
            }
            10 => {
                let payload = match input.byte() % 5 {
                    0 => (
                        Kind::Ping,
                        wire::encode(&Ping { nonce: None, told: 0, revision: 0, lost: 0, ran: 0 }),
                    ),
                    1 => (Kind::Pong, wire::encode(&Pong { nonce: 1 })),
                    2 => (
                        Kind::Digest,
                        wire::encode(&Digest { hash: 1, cards: 1, silent: Vec::new(), copies: 0 }),
                    ),
                    _ => (Kind::Conflict, wire::encode(&Conflict { taken_by: from(input) })),
                };
                if let Some(frame) = self.peer(n).say(addr(side), payload.0, &payload.1) {
                    self.send(n, addr(side), frame);
                }
            }
            // One Hello, from as many addresses.
            11 => {
                let (at, count) = (self.some(input), input.byte() % 64);
                let bytes = self.sent[at].bytes.clone();
                for m in 0..count {
                    self.throw(side, SocketAddr::from(([127, 0, 2 + what / 16 % 4, m], 8002)), &bytes);
                }
            }
            // One Hello again and again, from its own address.
            12 => {
                let (at, count) = (self.some(input), input.byte() % 64);
                let (bytes, from) = (self.sent[at].bytes.clone(), addr(self.sent[at].author));
                (0..count).for_each(|_| self.throw(side, from, &bytes));
            }
            // A cookie for the last Hello to somebody.
            13 => {
                let cookie = [input.byte(); CODE];
                let Sent { author, bytes, .. } = &self.sent[self.some(input)];
                let (author, index) = match frame::read(bytes) {
                    Ok(Sealed::Hello { index, .. }) => (Some(*author), index),
                    _ => (None, 1),
                };
                let cookie = self.peer(n).cookie(index, &cookie);
                self.send_to(n, addr(side), author, cookie);
            }
            // Another process, or another name.
            14 => {
                let (name, generation) = (input.byte(), input.byte());
                let peer = self.peer(n);
                peer.restart(5 + u64::from(generation % 4));
                peer.uptime_ms = u64::from(generation) * 1_000;
                if n == IMPOSTOR {
                    peer.owner.name = ["a", "b"][usize::from(name % 2)].parse().expect("a name");
                }
                self.claim(n);
            }
            _ => {
                let joins = (0..4).filter(|bit| what & (16 << bit) != 0).map(addr).collect();
                let effects = self.sides[side].link.handle_joins(self.now, joins);
                self.perform(side, effects);
            }
        }
    }

    /// One of the frames that were sent, the last one first.
    fn some(&self, input: &mut Input<'_>) -> usize {
        self.sent.len() - 1 - usize::from(input.byte()) % self.sent.len()
    }

    fn send(&mut self, author: usize, to: SocketAddr, bytes: Vec<u8>) {
        self.send_to(author, to, None, bytes);
    }

    fn send_to(&mut self, author: usize, to: SocketAddr, asked_by: Option<usize>, bytes: Vec<u8>) {
        let meant = asked_by.or_else(|| (A..=NEWCOMER).find(|n| addr(*n) == to));
        if self.sent.len() == MOST {
            self.sent.drain(..MOST / 2);
        }
        self.sent.push(Sent { author, to, meant, bytes: bytes.into(), arrived: false, counted: false });
    }

    /// Time, for both links.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for n in [A, B] {
            let effects = self.sides[n].link.handle_due(self.now, &mut Notes::default());
            assert!(!effects.is_fresh && effects.name_taken.is_none() && effects.keyring.is_none());
            assert!(effects.lines.is_empty(), "{:?}", effects.lines);
            self.perform(n, effects);
            for (gauge, word, bound) in Gauge::ALL {
                let level = self.sides[n].counters.gauges.get(gauge);
                assert!(level <= bound, "{word}: {level}");
            }
        }
    }

    /// Delivers that many frames that did not arrive yet, and those that follow.
    fn flush(&mut self, count: usize) {
        for _ in 0..count {
            let Some(at) = self.sent.iter().position(|sent| !sent.arrived) else { return };
            self.forward(at);
        }
    }

    /// Delivers a frame where it was sent to.
    fn forward(&mut self, at: usize) {
        let Sent { author, to, bytes, arrived, .. } = &mut self.sent[at];
        *arrived = true;
        let (author, to, bytes) = (*author, *to, bytes.clone());
        match (A..=NEWCOMER).find(|n| addr(*n) == to) {
            Some(n @ (A | B)) => self.throw(n, addr(author), &bytes),
            Some(n) => {
                if let Taken::Next(next) = self.peer(n).take(addr(author), &bytes) {
                    self.send(n, addr(author), next);
                }
            }
            None => {}
        }
    }

    /// A link takes bytes.
    fn throw(&mut self, side: usize, from: SocketAddr, bytes: &[u8]) {
        let (now, mut notes) = (self.now, Notes::default());
        let effects = self.sides[side].link.handle_frame(now, from, bytes, &mut notes);
        let is_hello = bytes.len() == HELLO && matches!(frame::read(bytes), Ok(Sealed::Hello { .. }));
        // A code under a cookie that does not fit is as good as none.
        let matters = if is_hello { HELLO - CODE } else { bytes.len() };
        let is_it = |sent: &&mut Sent| {
            sent.author != STRANGER
                && sent.bytes.len() == bytes.len()
                && sent.bytes[..matters] == bytes[..matters]
        };
        let LinkEffects { frames, is_fresh, keyring, peers, lag, lines, name_taken, joins: _, superseded } =
            &effects;
        assert!(keyring.is_none() && lag.is_none());
        let lines = lines.iter().filter(|line| !matches!(line, LinkLine::Rejected { .. })).count();
        let superseded = *superseded;
        let is_nothing = lines == 0
            && superseded.is_none()
            && !is_fresh
            && notes.0 == 0
            && peers.is_none()
            && name_taken.is_none();
        let mut asked_by = None;
        match self.sent.iter_mut().find(is_it) {
            Some(sent) if is_hello => {
                asked_by = Some(sent.author);
                assert!(is_nothing, "a Hello is only answered");
                assert!(frames.iter().all(|frame| frame.to == from), "and nobody else");
                let answered: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
                assert!(answered <= bytes.len(), "{answered} bytes to a stranger");
            }
            Some(sent) if sent.meant == Some(side) && !sent.counted => {
                sent.counted = !is_nothing || !frames.is_empty();
                let author = sent.author;
                // Whoever replied has the handshake, wherever the Hello was sent to.
                asked_by = frames.iter().any(|frame| frame.kind == Kind::Proof).then_some(author);
                self.counts(side, author, &effects);
            }
            _ => {
                // Whoever begins in vain is told so; a Reply that comes again gets its Proof again; and a peer whose session is
                // over is met again.
                let may_follow = |frame: &Frame| match frame.kind {
                    Kind::Refusal => frame.to == from && frame.bytes.len() < bytes.len(),
                    Kind::Proof | Kind::Hello => true,
                    _ => false,
                };
                let is_little = frames.len() <= 1 && frames.iter().all(may_follow);
                assert!(is_nothing && is_little, "forged, not for us, or there before: {effects:?}");
            }
        }
        for frame in effects.frames {
            self.send_to(side, frame.to, asked_by, frame.bytes.to_vec());
        }
        if let Some(known) = superseded {
            self.start_above(side, known);
        }
    }

    /// A frame that a holder of the key made for this link has its effect, for the first time.
    fn counts(&mut self, side: usize, author: usize, effects: &LinkEffects) {
        let claims = &self.claims[author];
        for line in &effects.lines {
            let LinkLine::Joined { peer: link::Peer { owner, addr } } = line else { continue };
            assert!(claims.contains(&(owner.clone(), *addr)), "{owner} did not finish a handshake");
            for other in (0..self.claims.len()).filter(|other| *other != author) {
                let had_name = self.claims[other].iter().any(|(other, _)| other.name == owner.name);
                let silent = self.heard[side][other].map(|at| self.now - at);
                let is_silent = silent.is_none_or(|silent| silent >= CONTEST);
                assert!(other >= IMPOSTOR || !had_name || is_silent, "{owner}, whose holder lives");
            }
        }
        if effects.name_taken.is_some() {
            let ours = self.sides[side].link.name();
            assert!(claims.iter().any(|(owner, _)| owner.name == *ours), "by somebody with another name");
            self.is_over = true;
        }
        if effects.is_fresh {
            self.heard[side][author] = Some(self.now);
        }
    }

    fn perform(&mut self, side: usize, effects: LinkEffects) {
        for frame in effects.frames {
            self.send(side, frame.to, frame.bytes.to_vec());
        }
    }

    /// After a moment, a handshake succeeds as if nothing had been.
    fn newcomer(&mut self) {
        for _ in 0..8 {
            self.pass(Duration::from_millis(500));
        }
        let mut next = self.peer(NEWCOMER).hello(None);
        for _ in 0..8 {
            self.sent.clear();
            self.send(NEWCOMER, addr(A), next.clone());
            self.throw(A, addr(NEWCOMER), &next);
            let ours = self.sent.iter().filter(|sent| sent.to == addr(NEWCOMER));
            let ours: Vec<_> = ours.map(|sent| sent.bytes.clone()).collect();
            let taken: Vec<_> = ours.iter().map(|bytes| self.peer(NEWCOMER).take(addr(A), bytes)).collect();
            if taken.iter().any(|taken| matches!(taken, Taken::Data(..))) {
                let mut live = self.sides[A].link.live();
                assert!(live.any(|peer| peer.addr == addr(NEWCOMER)), "admitted, but not live");
                return;
            }
            let Some(Taken::Next(frame)) = taken.into_iter().find(|taken| matches!(taken, Taken::Next(_)))
            else {
                break;
            };
            next = frame;
        }
        panic!("a true handshake fails");
    }

    /// Left alone, both links find each other.
    fn recover(&mut self) {
        self.sent.clear();
        for (n, other) in [(A, B), (B, A)] {
            let effects = self.sides[n].link.handle_joins(self.now, BTreeSet::from([addr(other)]));
            self.perform(n, effects);
        }
        for step in 0..200 {
            // Whoever is live by now was heard since we left them alone.
            if step >= 60 && self.found().is_ok() {
                break;
            }
            self.pass(Duration::from_millis(100));
            for _ in 0..8 {
                let under_way = std::mem::take(&mut self.sent);
                for Sent { author, to, bytes, .. } in under_way.iter().filter(|sent| sent.author <= B) {
                    let Some(n) = [A, B].into_iter().find(|n| addr(*n) == *to && n != author) else {
                        continue;
                    };
                    let effects = self.sides[n].link.handle_frame(
                        self.now,
                        addr(*author),
                        bytes,
                        &mut Notes::default(),
                    );
                    let superseded = effects.superseded;
                    self.perform(n, effects);
                    if let Some(known) = superseded {
                        self.start_above(n, known);
                    }
                }
            }
        }
        self.found().unwrap_or_else(|(n, other)| panic!("{n} does not find {other}"));
    }

    /// Whether both links have each other, or which one misses which.
    fn found(&self) -> Result<(), (usize, usize)> {
        for (n, other) in [(A, B), (B, A)] {
            let mut live = self.sides[n].link.live();
            if !live.any(|peer| peer.addr == addr(other)) {
                return Err((n, other));
            }
        }
        Ok(())
    }
}
