//! Decrypted frames of a few peers, fed into a link and the agent behind it. Only an owner decides about its records,
//! nobody changes what was registered here, and each frame that is sent goes to the right peer and can be decrypted
//! there.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gossd_core::agent::{Broken, Candidate, LEASE_TTL, News, Restored, Settings as Behaviour, State};
use gossd_core::codec::{decode_cell, encode_cell};
use gossd_core::connection::Caller;
use gossd_core::hostname::{Claim, Endpoint, TunnelId};
use gossd_core::lease::Holding;
use gossd_core::link::counters::Counters;
use gossd_core::link::keyring::Keyring;
use gossd_core::link::seal::{OVERHEAD, Opened};
use gossd_core::link::wire::{
    self, Answer, Cards, Header, Kind, MAX_PAYLOAD, Ping, Pong, Push, Question, Session,
};
use gossd_core::link::{
    DEAD_GRACE, Frame, INTERVAL, Link, LinkEffects, LinkLine, LinkSettings, Peer, ReplicaStore,
};
use gossd_core::quota::Quota;
use gossd_core::rank::Order;
use gossd_core::record::{Network, Owner, Record};
use gossd_core::replica::Part;
use gossd_core::slot::{Cell, Change, Content, FIRST_CLAIM, Slot, Status, Version};

use super::input::Input;

/// Most frames of one input.
const FRAMES: usize = 12;
/// Peers that are admitted at the start; one more process is not.
const PEERS: u8 = 2;
/// The longest header.
const HEADER: usize = 64;
/// What one input may make the link do, besides what follows from each card that it was given.
const EFFECTS: usize = 32;
/// Our name.
const US: &str = "a";
/// Our one tunnel.
const TUNNEL: &str = "ours";

/// Steps, each after a byte that selects a peer and what it does.
pub fn run(data: &[u8]) {
    let mut room = Room::new();
    let mut input = Input(data);
    for _ in 0..FRAMES {
        if input.is_empty() {
            break;
        }
        room.step(&mut input);
    }
    room.check();
}

struct Process {
    owner: Owner,
    addr: SocketAddr,
    admitted: bool,
    session: Session,
    counter: u64,
    /// The nonce that our last ping asked the peer to repeat.
    nonce: u64,
    /// The last question to the peer.
    question: Vec<u8>,
}

struct Room {
    now: Instant,
    link: Link,
    state: State,
    processes: Vec<Process>,
    /// Whose records were sent as which.
    sent: HashSet<(String, Arc<Record>)>,
    /// How many cards were sent.
    cards: usize,
}

/// The state, which watches what the link makes of a frame or of time.
struct Watch<'a> {
    state: &'a mut State,
    sent: &'a HashSet<(String, Arc<Record>)>,
    /// Who sent the frame, if it is one.
    by: Option<&'a Process>,
    applied: usize,
}

impl ReplicaStore for Watch<'_> {
    fn apply(&mut self, now: Instant, news: News) {
        self.applied += 1;
        match &news {
            News::Changed { owner, changes, .. } => {
                assert!(self.by.is_some(), "only a frame says what changed");
                self.all_sent(owner, changes);
            }
            News::Hearsay { .. } => assert!(self.by.is_some_and(|by| by.admitted), "a stranger's"),
            News::Heard { .. } | News::Silent { .. } | News::Refused { .. } | News::Forgotten { .. } => {}
        }
        self.state.apply(now, news);
        self.state.take_effects();
    }

    fn version(&self, owner: &Owner) -> Option<Version> {
        self.state.version(owner)
    }

    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part> {
        self.state.part(owner, after, from)
    }
}

impl Watch<'_> {
    fn all_sent(&self, owner: &Owner, changes: &[Change]) {
        // What our former start sent is passed on by others.
        if owner.name.as_str() == US {
            return;
        }
        for Change { cell, .. } in changes {
            if let Some(record) = cell.content.record() {
                let sent = (owner.name.to_string(), record.clone());
                assert!(self.sent.contains(&sent), "{owner} never sent {record:?}");
            }
        }
    }
}

thread_local! {
    static KEYRING: Keyring = {
        let key = |letter: &str| format!("{}A=", letter.repeat(42));
        Keyring::parse(&format!("{}\n{}", key("B"), key("C"))).expect("two keys")
    };
    static START: Instant = Instant::now();
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8002))
}

fn owner(name: &str, generation: u64) -> Owner {
    Owner { name: name.parse().expect("a name"), generation }
}

impl Room {
    fn new() -> Self {
        let now = START.with(|start| *start);
        let us = owner(US, 5);
        let settings = LinkSettings {
            owner: us.clone(),
            addr: addr(1),
            keyring: KEYRING.with(Keyring::clone),
            key_file: true,
            cluster: "c".into(),
            interval: INTERVAL,
            dead_grace: DEAD_GRACE,
            seed: [7; 32],
        };
        let link = Link::new(now, settings, Arc::new(Counters::default()));
        let (order, quota, broken) = (Order::Nearest, Quota::default(), Broken::default());
        let (lease_ttl, private) = (LEASE_TTL, BTreeSet::new());
        let behaviour = Behaviour { owner: us, lease_ttl, order, quota, private, broken, hurry: 1 };
        let mut state = State::new(now, &behaviour, Restored::default());
        let holding = Holding { record: Arc::new(ours()), dial: "".into() };
        state.register(now, Caller::local(1), holding).expect("there is room");
        let process = |n: u8| Process {
            owner: owner(["b", "c", "c"][usize::from(n)], 5 + u64::from(n / PEERS)),
            addr: addr(2 + n),
            admitted: false,
            session: [2 + n; 8],
            counter: 0,
            nonce: 0,
            question: Vec::new(),
        };
        let processes = (0..=PEERS).map(process).collect();
        let mut room = Self { now, link, state, processes, sent: HashSet::new(), cards: 0 };
        for n in 0..usize::from(PEERS) {
            room.send(n, Kind::Ping, &wire::encode(&Ping { nonce: None, told: 0 }));
            room.admit(n);
            assert!(room.processes[n].admitted);
        }
        room
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let n = usize::from(what / 17) % self.processes.len();
        match what % 17 {
            kind @ 0..11 => self.send(n, Kind::ALL[usize::from(kind)], input.counted()),
            11 => self.push(n, input),
            12 => self.answer(n, input),
            13 => self.admit(n),
            14 => self.pass(u64::from(input.byte())),
            15 => self.raw(n, input),
            _ => self.ask(n, input),
        }
    }

    /// A frame of a kind.
    fn send(&mut self, n: usize, kind: Kind, payload: &[u8]) {
        let process = &mut self.processes[n];
        process.counter += 1;
        let Process { session, counter, addr, .. } = *process;
        self.deliver(n, wire::pack(Header { session, counter, from: addr, kind: kind.number() }, payload));
    }

    /// Sends a frame with any header.
    fn raw(&mut self, n: usize, input: &mut Input<'_>) {
        let mut plain = self.processes[n].session.to_vec();
        plain.extend(input.counted());
        self.deliver(n, plain);
    }

    fn push(&mut self, n: usize, input: &mut Input<'_>) {
        let (how, since, until) = (input.byte(), u64::from(input.byte()), u64::from(input.byte()));
        let values = values(input);
        let push = Push {
            age_us: 7,
            id: since,
            former: (how == 1).then_some(4),
            since,
            until,
            changes: values.iter().map(|(slot, value)| (*slot, value.as_slice())).collect(),
        };
        let payload = wire::encode(&push);
        self.send(n, Kind::Push, &payload);
    }

    /// Answers the last question.
    fn answer(&mut self, n: usize, input: &mut Input<'_>) {
        let question = self.processes[n].question.clone();
        let Ok(question) = wire::decode::<Question<'_>>(&question) else { return };
        let (how, until) = (input.byte(), u64::from(input.byte()));
        let values = values(input);
        let answer = Answer {
            name: question.name,
            generation: question.generation,
            from: question.from,
            next: (how & 1 == 1).then_some(question.from + 1 + u32::from(how >> 2)),
            whole: how & 2 == 2,
            until,
            changes: values.iter().map(|(slot, value)| (*slot, value.as_slice())).collect(),
        };
        let payload = wire::encode(&answer);
        self.send(n, Kind::Answer, &payload);
    }

    fn ask(&mut self, n: usize, input: &mut Input<'_>) {
        let (whose, after, from) = (input.byte(), u64::from(input.byte()), u32::from(input.byte()));
        let (name, generation) = (["a", "b", "c", "d"][usize::from(whose % 4)], 5 + u64::from(whose / 128));
        let question = Question { name, generation, after, from };
        let payload = wire::encode(&question);
        self.send(n, Kind::Question, &payload);
    }

    /// Answers our last ping.
    fn admit(&mut self, n: usize) {
        let Process { nonce, owner, .. } = &self.processes[n];
        let pong = Pong { nonce: *nonce, name: owner.name.as_str(), generation: owner.generation };
        let payload = wire::encode(&pong);
        self.send(n, Kind::Pong, &payload);
    }

    fn pass(&mut self, steps: u64) {
        self.now += Duration::from_millis(37 * steps);
        let mut watch = Watch { state: &mut self.state, sent: &self.sent, by: None, applied: 0 };
        let effects = self.link.handle_due(self.now, &mut watch);
        let applied = watch.applied;
        self.perform(effects, None, applied);
    }

    fn deliver(&mut self, n: usize, plain: Vec<u8>) {
        self.note(n, &plain);
        let frame = Opened { plain, key: self.link.sealer().keyring.sealing() };
        let by = Some(&self.processes[n]);
        let mut watch = Watch { state: &mut self.state, sent: &self.sent, by, applied: 0 };
        let effects = self.link.handle_frame(self.now, &frame, &mut watch);
        let applied = watch.applied;
        self.perform(effects, Some(n), applied);
    }

    /// Remembers what is sent as an owner's.
    fn note(&mut self, n: usize, plain: &[u8]) {
        let Ok((header, payload)) = wire::split(plain) else { return };
        let peer = self.processes[n].owner.name.to_string();
        let (name, changes) = match Kind::from_number(header.kind) {
            Some(Kind::Push) => match wire::decode::<Push<'_>>(payload) {
                Ok(push) => (peer, push.changes),
                Err(_) => return,
            },
            Some(Kind::Answer) => match wire::decode::<Answer<'_>>(payload) {
                Ok(answer) => (answer.name.to_owned(), answer.changes),
                Err(_) => return,
            },
            Some(Kind::Cards) => {
                self.cards += wire::decode::<Cards<'_>>(payload).map_or(0, |cards| cards.cards.len());
                return;
            }
            _ => return,
        };
        for (slot, bytes) in changes {
            let cell = decode_cell(slot, bytes);
            if let Some(record) = cell.as_ref().and_then(|cell| cell.content.record()) {
                self.sent.insert((name.clone(), record.clone()));
            }
        }
    }

    fn perform(&mut self, effects: LinkEffects, of: Option<usize>, applied: usize) {
        let LinkEffects { frames, is_fresh, sealer: _, peers: _, lag: _, lines, name_taken: _ } = effects;
        // A card of somebody else is news, a question, and an address to ping.
        let most = EFFECTS + 3 * self.cards;
        let count = frames.len() + lines.len() + applied;
        assert!(count <= most, "{count} effects");
        assert!(!is_fresh || self.processes[of.expect("by a frame")].admitted, "a stranger's");
        for line in lines {
            if let LinkLine::Joined { peer: Peer { owner, addr } } = line {
                let process = &mut self.processes[of.expect("by a frame")];
                (process.owner, process.addr, process.admitted) = (owner, addr, true);
            }
        }
        for frame in frames {
            self.sent(&frame);
        }
    }

    /// Remembers what has to be answered.
    fn sent(&mut self, Frame { to, kind, bytes }: &Frame) {
        assert!(bytes.len() <= MAX_PAYLOAD + HEADER + OVERHEAD, "{} bytes", bytes.len());
        let Some(process) = self.processes.iter_mut().find(|process| process.addr == *to) else { return };
        if !matches!(kind, Kind::Ping | Kind::Question) {
            return;
        }
        let opened = self.link.sealer().open(bytes).expect("sealed with a key of ours");
        let (header, payload) = wire::split(&opened.plain).expect("packed here");
        assert_eq!(Kind::from_number(header.kind), Some(*kind));
        if *kind == Kind::Question {
            process.question = payload.to_vec();
        } else if let Some(nonce) = wire::decode::<Ping>(payload).expect("a ping").nonce {
            process.nonce = nonce;
        }
    }

    fn check(&self) {
        assert!(self.link.live().count() <= self.processes.len());
        let known = self.state.explain(self.now, TUNNEL);
        let is_ours =
            |candidate: &Candidate| candidate.owner.name.as_str() == US && *candidate.record == ours();
        assert!(known.iter().any(is_ours), "ours is ours: {known:?}");
        let counts = self.state.counts();
        assert_eq!(counts.own_records, 1);
        let mut records = 0;
        for tunnel in self.state.tunnel_ids() {
            for candidate in self.state.explain(self.now, &tunnel.text()) {
                records += 1;
                let name = candidate.owner.name.to_string();
                if name == US {
                    assert_eq!(*candidate.record, ours(), "nobody else registers here");
                } else {
                    assert!(self.sent.contains(&(name, candidate.record.clone())), "{candidate:?}");
                }
            }
        }
        assert_eq!(records, counts.records, "every record is of a tunnel");
    }
}

fn ours() -> Record {
    let [id, name, node] = ["1", TUNNEL, "n"].map(Into::into);
    Record { id, name, node, network: Network::Tcp, address: "192.0.2.7:80".into() }
}

/// Slots and cells: made up of a few numbers, or as the input has them.
fn values(input: &mut Input<'_>) -> Vec<(Slot, Vec<u8>)> {
    let count = input.byte() % 6;
    let mut values = Vec::new();
    for _ in 0..count {
        let (what, version) = (input.byte(), 1 + u64::from(input.byte()));
        let slot = Slot::from(what % 8);
        let n = what / 64;
        let (slot, content) = match what / 8 % 8 {
            0 => (slot, Content::Empty),
            1 => (0, Content::Status([Status::Ready, Status::Draining, Status::Left][usize::from(n % 3)])),
            2..4 => {
                let [id, name, node] = [&n.to_string(), TUNNEL, "n"].map(Into::into);
                let address = (*format!("10.0.0.{n}:80")).into();
                (slot, Content::Record(Arc::new(Record { id, name, node, network: Network::Tcp, address })))
            }
            4 => {
                let [id, name, node] = ["", "t", "n"].map(|kind| (*format!("{kind}{n}")).into());
                let address = "10.0.0.1:80".into();
                (slot, Content::Record(Arc::new(Record { id, name, node, network: Network::Udp, address })))
            }
            5 => {
                let tunnel = format!("4d21094e-b74c-4916-86c1-d9fa36ea677{n}");
                let tunnel = TunnelId::parse(&tunnel).expect("a tunnel");
                let endpoint = Endpoint { tunnel, private: false };
                let rule = Claim { host: format!("x{}", version % 2).into(), endpoint, clock: version / 2 };
                (FIRST_CLAIM + slot, Content::Claim(Arc::new(rule)))
            }
            _ => {
                values.push((Slot::from(input.number()), input.counted().to_vec()));
                continue;
            }
        };
        let mut bytes = Vec::new();
        encode_cell(&Cell { version, content }, &mut bytes);
        if version == 256 {
            // As a later version has it.
            bytes.extend(input.counted());
        }
        values.push((slot, bytes));
    }
    values
}
