//! Digests and cards of peers, whatever is in them: the board stays within its bounds, has our card as we made it and
//! those of live peers as they are, and the link goes on, with no more to do than it was given.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gossd_core::agent::{News, Offer};
use gossd_core::hostname::TunnelId;
use gossd_core::link::counters::Counters;
use gossd_core::link::frame::OVERHEAD;
use gossd_core::link::gauges::Gauge;
use gossd_core::link::keyring::Keyring;
use gossd_core::link::wire::{self, Card, Cards, Digest, Kind, MAX_PAYLOAD, Ping, Rows};
use gossd_core::link::{
    self, Frame, INTERVAL, Link, LinkEffects, LinkLine, LinkSettings, MESH, ReplicaStore,
};
use gossd_core::record::{AgentName, Generation, Owner};
use gossd_core::replica::Part;
use gossd_core::slot::{Cell, Change, Content, Slot, Status, Version};

use super::input::Input;
use super::peer::{CLUSTER, Peer, Taken};

/// Steps of one input.
const STEPS: usize = 12;
/// Us.
const US: &str = "a";
/// How far our slots have come.
const VERSION: Version = 9;
/// An agent without a sign of life for this long is forgotten: less than an input can make pass.
const GRACE: Duration = Duration::from_secs(10);
/// Time that passes between two looks of the link.
const STEP: Duration = Duration::from_millis(200);
/// Frames and news that follow from any input, besides what follows from a card.
const EFFECTS: usize = 16;
/// Who asks for our board.
const PROBE: usize = 3;
/// Admitted at the start; one more process is not.
const ADMITTED: [usize; 3] = [0, 1, PROBE];

thread_local! {
    static START: Instant = Instant::now();
}

/// Steps, each a byte that says what happens, and to whom.
pub fn run(data: &[u8]) {
    let mut room = Room::new();
    let mut input = Input(data);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        room.step(&mut input);
    }
    room.probe();
}

struct Process {
    peer: Peer,
    /// Whether the link has sent it something in a session since it started.
    admitted: bool,
}

/// What a card says of an agent, but for its age.
type State = (Generation, SocketAddr, bool, Version);

struct Room {
    now: Instant,
    link: Link,
    counters: Arc<Counters>,
    processes: Vec<Process>,
    /// The hash of our last digest.
    digest: Option<u64>,
    /// Our board, as the last probe found it; empty if it may have changed since.
    board: BTreeMap<String, State>,
    /// Of whom there was news, and who was not forgotten since.
    known: BTreeSet<Owner>,
    floods: usize,
}

/// What the link makes known of agents.
#[derive(Default)]
struct Notes {
    /// Who is known of by others.
    hearsay: Vec<Owner>,
    forgotten: Vec<Owner>,
    /// Who was heard (true) or forgotten (false), by whomever, in this order.
    all: Vec<(Owner, bool)>,
    /// Whatever else.
    others: usize,
}

impl ReplicaStore for Notes {
    fn apply(&mut self, _: Instant, news: News) {
        match news {
            News::Hearsay { owner, .. } => {
                self.all.push((owner.clone(), true));
                self.hearsay.push(owner);
            }
            News::Heard { owner, .. } => self.all.push((owner, true)),
            News::Forgotten { owner } => {
                self.all.push((owner.clone(), false));
                self.forgotten.push(owner);
            }
            News::Doubted { .. }
            | News::Buried { .. }
            | News::Silent { .. }
            | News::Refused { .. }
            | News::Offered { .. }
            | News::Differs { .. } => {
                self.others += 1;
            }
            News::Changed { .. } => panic!("cards change no slots"),
        }
    }

    fn version(&self, owner: &Owner) -> Option<Version> {
        // Of made-up ones there are too many to ask for each.
        (!owner.name.as_str().starts_with("made-up")).then_some(0)
    }

    fn part(&self, _: &Owner, _: Version, _: Slot) -> Option<Part> {
        None
    }

    fn offer(&mut self, _: Instant, _: &Owner, _: TunnelId) -> Offer {
        Offer::Nothing
    }
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8002))
}

impl Room {
    fn new() -> Self {
        let now = START.with(|start| *start);
        let settings = LinkSettings {
            owner: Owner { name: US.parse().expect("a name"), generation: 5 },
            addr: addr(1),
            identity: [1; 32],
            version: "0.1.0".into(),
            keyring: Keyring::public(),
            key_file: false,
            cluster: CLUSTER.into(),
            interval: INTERVAL,
            dead_grace: GRACE,
            mesh: MESH,
            seed: [7; 32],
        };
        let counters = Arc::new(Counters::default());
        let link = Link::new(now, settings, counters.clone());
        let process = |n: u8| {
            let name = ["b", "c", "d", "probe"][usize::from(n)].parse().expect("a name");
            let owner = Owner { name, generation: 5 };
            Process { peer: Peer::new(owner, addr(2 + n), 2 + n, &Keyring::public()), admitted: false }
        };
        let processes = (0..4).map(process).collect();
        let (board, known) = (BTreeMap::new(), BTreeSet::new());
        let mut room = Self { now, link, counters, processes, digest: None, board, known, floods: 0 };
        let cell = Cell { version: VERSION, content: Content::Status(Status::Ready) };
        room.link.handle_changes(now, vec![Change { slot: 0, cell }]);
        for n in ADMITTED {
            room.admit(n);
            assert!(room.processes[n].admitted);
        }
        room.probe();
        room
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let n = usize::from(what / 8) % self.processes.len();
        if matches!(what % 8, 4..7) {
            self.board.clear();
        }
        match what % 8 {
            0 => {
                let kind = if input.byte().is_multiple_of(2) { Kind::Digest } else { Kind::Rows };
                self.tell(n, kind, input.counted());
            }
            1 => self.tell(n, Kind::Cards, input.counted()),
            2 => self.digest(n, input),
            3 => self.cards(n, input),
            4 => self.ping(n, number(input)),
            5 => self.pass(input.byte(), input.byte()),
            6 => {
                if input.byte().is_multiple_of(2) {
                    self.restart(n, input.byte());
                }
                self.admit(n);
            }
            _ => self.flood(n, input),
        }
    }

    fn digest(&mut self, n: usize, input: &mut Input<'_>) {
        let how = input.byte();
        let names: Vec<String> = (0..how % 8).map(|_| name(input)).collect();
        // As many as nobody would ask for.
        let times = if how > 240 { 100 } else { 1 };
        let silent = names.iter().cycle().take(times * names.len()).map(String::as_str).collect();
        let ours = self.digest.take().filter(|_| how & 8 == 0);
        let hash = ours.unwrap_or(how.into());
        self.tell(
            n,
            Kind::Digest,
            &wire::encode(&Digest { hash, cards: how.into(), silent, copies: how.into() }),
        );
    }

    fn cards(&mut self, n: usize, input: &mut Input<'_>) {
        let how = input.byte();
        let names: Vec<String> = (0..how % 8).map(|_| name(input)).collect();
        let cards = names.iter().map(|name| card(input, name)).collect();
        self.tell(
            n,
            Kind::Cards,
            &wire::encode(&Cards {
                rows: if how & 8 == 0 { u128::MAX >> (how >> 4) } else { 0 },
                hash: how.into(),
                cards,
            }),
        );
    }

    /// More agents than anybody has.
    fn flood(&mut self, n: usize, input: &mut Input<'_>) {
        let (count, first) = (usize::from(input.byte()) * 8, usize::from(input.byte()));
        let one = card(input, "");
        if self.floods == 2 {
            return;
        }
        self.floods += 1;
        let names: Vec<String> = (first..first + count).map(|n| format!("made-up{n}")).collect();
        let cards = names.iter().map(|name| Card { name, ..one.clone() }).collect();
        self.tell(n, Kind::Cards, &wire::encode(&Cards { rows: u128::MAX, hash: 0, cards }));
    }

    /// A digest, or cards: live peers are known to us, not by others' cards.
    fn tell(&mut self, n: usize, kind: Kind, payload: &[u8]) {
        if self.board.is_empty() {
            self.probe();
        }
        let live: Vec<Owner> = self.link.live().map(|peer| peer.owner.clone()).collect();
        let known = live.iter().map(|owner| self.board.get(owner.name.as_str()).copied());
        let known: Vec<_> = known.collect();
        let notes = self.send(n, kind, payload);
        for owner in &notes.hearsay {
            assert!(!live.iter().any(|live| live.name == owner.name), "{owner} is live");
        }
        self.probe();
        for (owner, before) in live.iter().zip(known) {
            assert_eq!(self.board.get(owner.name.as_str()).copied(), before, "{owner} is live");
        }
    }

    fn ping(&mut self, n: usize, told: Version) {
        self.send(
            n,
            Kind::Ping,
            &wire::encode(&Ping { nonce: None, told, revision: u64::MAX, lost: u16::MAX, ran: 0 }),
        );
    }

    /// Its next start, or the one before.
    fn restart(&mut self, n: usize, generation: u8) {
        let process = &mut self.processes[n];
        process.peer.restart(4 + u64::from(generation % 4));
        process.admitted = false;
    }

    /// Makes a handshake.
    fn admit(&mut self, n: usize) {
        let hello = self.processes[n].peer.hello(None);
        self.deliver(n, &hello, 0);
    }

    /// Time, in which some of them ping.
    fn pass(&mut self, steps: u8, who: u8) {
        for step in 0..steps / 2 {
            self.now += STEP;
            self.look();
            for n in (0..self.processes.len()).filter(|n| step % 4 == 0 && who & (1 << n) != 0) {
                self.ping(n, 0);
            }
        }
    }

    fn look(&mut self) {
        let mut notes = Notes::default();
        let effects = self.link.handle_due(self.now, &mut notes);
        assert!(notes.hearsay.is_empty(), "only a frame has news of others: {:?}", notes.hearsay);
        let due = self.link.next_due();
        assert!(self.now < due && due <= self.now + INTERVAL, "{:?}", due.checked_duration_since(self.now));
        for (gauge, word, bound) in Gauge::ALL {
            let level = self.counters.gauges.get(gauge);
            assert!(level <= bound, "{word}: {level}");
        }
        let [targets, questions] =
            [Gauge::Targets, Gauge::Questions].map(|gauge| self.counters.gauges.get(gauge));
        let next = self.perform(effects, None, &notes, targets + questions);
        assert!(next.is_empty(), "time answers no handshake");
    }

    fn send(&mut self, n: usize, kind: Kind, payload: &[u8]) -> Notes {
        if payload.len() > MAX_PAYLOAD {
            return Notes::default();
        }
        let Some(frame) = self.processes[n].peer.say(addr(1), kind, payload) else { return Notes::default() };
        let cards = if kind == Kind::Cards {
            wire::decode::<Cards<'_>>(payload).map_or(0, |cards| cards.cards.len())
        } else {
            0
        };
        self.deliver(n, &frame, 3 * cards)
    }

    fn deliver(&mut self, n: usize, frame: &[u8], more: usize) -> Notes {
        let mut notes = Notes::default();
        let from = self.processes[n].peer.addr;
        let effects = self.link.handle_frame(self.now, from, frame, &mut notes);
        let is_fresh = effects.is_fresh;
        let next = self.perform(effects, Some(n), &notes, more);
        if !self.processes[n].admitted {
            assert!(!is_fresh && notes.all.is_empty() && notes.others == 0, "a stranger's");
        }
        for (n, frame) in next {
            self.deliver(n, &frame, 0);
        }
        if self.link.next_due() <= self.now {
            self.look();
        }
        notes
    }

    /// What processes send next, because of handshakes.
    fn perform(
        &mut self,
        effects: LinkEffects,
        of: Option<usize>,
        notes: &Notes,
        more: usize,
    ) -> Vec<(usize, Vec<u8>)> {
        let LinkEffects {
            frames,
            is_fresh: _,
            keyring,
            peers: _,
            lag,
            lines,
            name_taken,
            joins: _,
            superseded,
        } = effects;
        assert!(keyring.is_none() && lag.is_none() && name_taken.is_none() && superseded.is_none());
        let Notes { hearsay, forgotten, all, others } = notes;
        let count = frames.len() + lines.len() + all.len() - forgotten.len() + others;
        assert!(count <= EFFECTS + more, "{count} effects");
        // Two starts of each that is or was on the board.
        let most = 2 * (bound(Gauge::Peers) + more);
        assert!(forgotten.len() <= most, "{} are forgotten", forgotten.len());
        for owner in hearsay.iter().chain(forgotten) {
            assert!(owner.name.as_str() != US, "{owner}");
        }
        for peer in self.link.live() {
            assert!(!forgotten.contains(&peer.owner), "{} is live", peer.owner);
        }
        for (owner, heard) in all {
            if *heard {
                self.known.insert(owner.clone())
            } else {
                self.known.remove(owner)
            };
        }
        for line in lines {
            let LinkLine::Joined { peer: link::Peer { owner, addr } } = line else { panic!("{line:?}") };
            let Process { peer, .. } = &self.processes[of.expect("by a frame")];
            assert_eq!((&peer.owner, peer.addr), (&owner, addr));
        }
        frames.into_iter().filter_map(|frame| self.sent(&frame)).collect()
    }

    /// Remembers what is of use later, or answers what is of a handshake.
    fn sent(&mut self, Frame { to, kind, bytes }: &Frame) -> Option<(usize, Vec<u8>)> {
        assert!(bytes.len() <= MAX_PAYLOAD + OVERHEAD, "{} bytes", bytes.len());
        assert!(*to != addr(1), "we are no peer");
        let n = self.processes.iter().position(|process| process.peer.addr == *to)?;
        if *kind == Kind::Hello {
            return None;
        }
        let process = &mut self.processes[n];
        let (number, payload) = match process.peer.take(addr(1), bytes) {
            Taken::Next(next) => return Some((n, next)),
            Taken::Data(number, payload) => (number, payload),
            // Of the process before it.
            Taken::Finished | Taken::Nothing => return None,
        };
        assert_eq!(Kind::from_number(number), Some(*kind));
        process.admitted |= *kind != Kind::Conflict;
        match kind {
            Kind::Digest => self.digest = Some(wire::decode::<Digest<'_>>(&payload).expect("a digest").hash),
            Kind::Cards if n == PROBE => {
                let Cards { rows, cards, .. } = wire::decode(&payload).expect("cards");
                if rows != 0 {
                    self.board = board(&cards);
                }
            }
            _ => {}
        }
        None
    }

    fn ask_for_board(&mut self) -> bool {
        self.board.clear();
        // All rows are other ones.
        self.send(PROBE, Kind::Rows, &wire::encode(&Rows { hashes: &[0xff; 1_024] }));
        !self.board.is_empty()
    }

    /// A peer asks for our board.
    fn probe(&mut self) {
        // Its session may have been silent for too long.
        if !self.ask_for_board() {
            self.admit(PROBE);
            assert!(self.ask_for_board(), "a handshake makes a peer, whenever");
        }
        let bound = bound(Gauge::Peers);
        assert!((1..=1 + bound).contains(&self.board.len()), "{} cards", self.board.len());
        assert_eq!(self.board.get(US), Some(&(5, addr(1), false, VERSION)));
        for Owner { name, .. } in &self.known {
            assert!(self.board.contains_key(name.as_str()), "{name} is never forgotten");
        }
        for link::Peer { owner, addr } in self.link.live() {
            let card = self.board.get(owner.name.as_str());
            let card = card.map(|(generation, addr, left, _)| (*generation, *addr, *left));
            assert_eq!(card, Some((owner.generation, *addr, false)), "{owner} is live");
        }
    }
}

fn bound(gauge: Gauge) -> usize {
    Gauge::ALL[gauge as usize].2
}

/// What cards say, each of another agent.
fn board(cards: &[Card<'_>]) -> BTreeMap<String, State> {
    let mut names = HashSet::new();
    for Card { name, addr, .. } in cards {
        assert!(name.parse::<AgentName>().is_ok() && names.insert(*name), "{name:?}");
        assert!(!addr.ip().is_unspecified() && addr.port() != 0, "{name}: {addr}");
    }
    let told = cards.iter().map(|card| {
        let Card { name, generation, addr, left, version, .. } = *card;
        (name.to_owned(), (generation, addr, left, version))
    });
    told.collect()
}

fn name(input: &mut Input<'_>) -> String {
    let n = input.byte();
    match n % 8 {
        0 => US.to_owned(),
        1 | 2 => ["b", "c"][usize::from(n % 8 - 1)].to_owned(),
        3 => ["d", "probe"][usize::from(n / 128)].to_owned(),
        4 | 5 => ["e", "f-1.example.org"][usize::from(n % 2)].to_owned(),
        6 => format!("made-up{n}"),
        _ => String::from_utf8_lossy(input.counted()).into_owned(),
    }
}

fn card<'a>(input: &mut Input<'_>, name: &'a str) -> Card<'a> {
    let (how, age) = (input.byte(), u32::from(input.byte()));
    Card {
        name,
        generation: [4, 5, 6, u64::MAX][usize::from(how % 4)],
        addr: match how / 4 % 8 {
            6 => SocketAddr::from(([0, 0, 0, 0], 8002)),
            7 => SocketAddr::from(([10, 0, 0, 1], 0)),
            n => addr(1 + n),
        },
        left: how & 128 != 0,
        buried: how >= 0b1100_0000,
        revision: [1, 2, u64::MAX][usize::from(how / 64 % 3)],
        program: "1",
        keys: None,
        version: number(input),
        age_ms: [age, 40 * age, u32::MAX - age][usize::from(how / 32 % 3)],
    }
}

/// Small as a rule, or near an end.
fn number(input: &mut Input<'_>) -> u64 {
    let byte = input.byte();
    match byte {
        0..192 => u64::from(byte),
        192..224 => (1 << 53) - 208 + u64::from(byte),
        _ => u64::MAX - u64::from(255 - byte),
    }
}
