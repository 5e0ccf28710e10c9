//! Decrypted frames of a few peers, fed into a link and the agent behind it. Only an owner decides about its records,
//! nobody changes what was registered here, and each frame that is sent goes to the right peer and can be decrypted
//! there.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gossd::agent::Agent;
use gossd::gossip::counters::Counters;
use gossd::gossip::keyring::Keyring;
use gossd::gossip::link::{Effect, Link};
use gossd::gossip::seal::{OVERHEAD, Opened, Sealer};
use gossd::gossip::wire::{self, Answer, Header, Kind, MAX_PAYLOAD, Ping, Pong, Push, Question, Session};
use gossd::gossip::{Hearer as _, slots};
use gossd_core::agent::News;
use gossd_core::agent::{Broken, Candidate, LEASE_TTL, Restored, Settings};
use gossd_core::connection::Caller;
use gossd_core::lease::Holding;
use gossd_core::quota::Quota;
use gossd_core::rank::Order;
use gossd_core::record::{Network, Owner, Record};
use gossd_core::slot::{Change, Content, Version};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::input::Input;

/// Most frames of one input.
const FRAMES: usize = 12;
/// Peers that are admitted at the start; one more process is not.
const PEERS: u8 = 2;
/// The size of the headers around an incompressible payload.
const HEADER: usize = 64;
/// The one tunnel that is registered here.
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
    sealer: Arc<Sealer>,
    agent: Agent,
    processes: Vec<Process>,
    /// The records that each owner has sent.
    said: HashSet<(String, Arc<Record>)>,
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
        let us = owner("a", 5);
        let sealer = Arc::new(Sealer::new(KEYRING.with(Keyring::clone), "c"));
        let (counters, rng) = (Arc::new(Counters::default()), StdRng::seed_from_u64(7));
        let link = Link::new(us.clone(), addr(1), sealer.clone(), counters, rng);
        let (order, quota, broken) = (Order::Nearest, Quota::default(), Broken::default());
        let (lease_ttl, private) = (LEASE_TTL, BTreeSet::new());
        let settings = Settings { owner: us, lease_ttl, order, quota, private, broken, hurry: 1 };
        let agent = Agent::new(settings, Restored::default());
        let holding = Holding { record: Arc::new(ours()), dial: "".into() };
        agent.register(Caller::local(1), holding).expect("there is room");
        let process = |n: u8| Process {
            owner: owner(["b", "c", "c"][usize::from(n)], 5 + u64::from(n / PEERS)),
            addr: addr(2 + n),
            session: [2 + n; 8],
            counter: 0,
            nonce: 0,
            question: Vec::new(),
        };
        let processes = (0..=PEERS).map(process).collect();
        let now = START.with(|start| *start);
        let mut room = Self { now, link, sealer, agent, processes, said: HashSet::new() };
        for n in 0..usize::from(PEERS) {
            room.say(n, Kind::Ping, &wire::encode(&Ping { nonce: None, told: 0 }));
            room.admit(n);
        }
        room
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let n = usize::from(what / 16) % self.processes.len();
        match what % 16 {
            kind @ 0..10 => self.say(n, Kind::ALL[usize::from(kind)], input.counted()),
            10 => self.push(n, input),
            11 => self.answer(n, input),
            12 => self.admit(n),
            13 => self.pass(u64::from(input.byte())),
            14 => self.raw(n, input),
            _ => self.ask(n, input),
        }
    }

    /// Sends a frame of a kind.
    fn say(&mut self, n: usize, kind: Kind, payload: &[u8]) {
        let process = &mut self.processes[n];
        process.counter += 1;
        let Process { session, counter, addr, .. } = *process;
        let header = Header { session, counter, from: addr, kind: kind.number(), compressed: false };
        let mut plain = wire::encode(&header);
        plain.extend(payload);
        self.deliver(n, Some((kind, payload)), plain);
    }

    /// Sends a frame with any header.
    fn raw(&mut self, n: usize, input: &mut Input<'_>) {
        let process = &self.processes[n];
        let mut plain = process.session.to_vec();
        plain.extend(input.counted());
        let said = wire::split(&plain).ok().and_then(|(header, packed)| {
            Some((Kind::from_number(header.kind)?, wire::unpack(&header, packed).ok()?))
        });
        self.deliver(n, said.as_ref().map(|(kind, payload)| (*kind, payload.as_slice())), plain);
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
            changes: values.iter().map(|(slot, value)| (*slot, value.as_str())).collect(),
        };
        let payload = wire::encode(&push);
        self.say(n, Kind::Push, &payload);
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
            changes: values.iter().map(|(slot, value)| (*slot, value.as_str())).collect(),
        };
        let payload = wire::encode(&answer);
        self.say(n, Kind::Answer, &payload);
    }

    fn ask(&mut self, n: usize, input: &mut Input<'_>) {
        let (whose, after, from) = (input.byte(), u64::from(input.byte()), u32::from(input.byte()));
        let (name, generation) = (["a", "b", "c", "d"][usize::from(whose % 4)], 5 + u64::from(whose / 128));
        let question = Question { name, generation, after, from };
        let payload = wire::encode(&question);
        self.say(n, Kind::Question, &payload);
    }

    /// Answers our last ping.
    fn admit(&mut self, n: usize) {
        let Process { nonce, owner, .. } = &self.processes[n];
        let pong = Pong { nonce: *nonce, name: owner.name.as_str(), generation: owner.generation };
        let payload = wire::encode(&pong);
        self.say(n, Kind::Pong, &payload);
    }

    fn pass(&mut self, steps: u64) {
        self.now += Duration::from_millis(37 * steps);
        let effects = self.link.handle_deadline(self.now);
        self.perform(effects, None);
    }

    fn deliver(&mut self, n: usize, said: Option<(Kind, &[u8])>, plain: Vec<u8>) {
        if let Some((kind, payload)) = said {
            self.note(n, kind, payload);
        }
        let frame = Opened { plain, key: self.sealer.keyring().sealing() };
        let effects = self.link.handle_frame(self.now, &frame);
        self.perform(effects, Some(n));
    }

    /// Notes the records that a frame claims for its owner.
    fn note(&mut self, n: usize, kind: Kind, payload: &[u8]) {
        let peer = self.processes[n].owner.name.to_string();
        let (name, changes) = match kind {
            Kind::Push => match wire::decode::<Push<'_>>(payload) {
                Ok(push) => (peer, push.changes),
                Err(_) => return,
            },
            Kind::Answer => match wire::decode::<Answer<'_>>(payload) {
                Ok(answer) => (answer.name.to_owned(), answer.changes),
                Err(_) => return,
            },
            _ => return,
        };
        for (slot, value) in changes {
            if let Some(Content::Record(record)) = slots::parse_value(slot, value).map(|cell| cell.content) {
                self.said.insert((name.clone(), record));
            }
        }
    }

    fn perform(&mut self, effects: Vec<Effect>, of: Option<usize>) {
        assert!(effects.len() <= 32, "{} effects", effects.len());
        for effect in effects {
            match effect {
                Effect::Send { to, kind, frame } => self.sent(to, kind, &frame),
                Effect::Tell(event) => self.told(event, of),
                Effect::Ask { owner, said } => {
                    let version = self.agent.version(&owner);
                    let missing = |version: &Version| said.is_none_or(|said| *version < said);
                    if let Some(after) = version.filter(missing) {
                        let effects = self.link.ask(self.now, &owner, after);
                        self.perform(effects, None);
                    }
                }
                Effect::Asked(question) => {
                    let part = self.agent.part(&question.owner, question.after, question.from);
                    let effects = self.link.answer(&question, part);
                    self.perform(effects, None);
                }
                Effect::Chitchat { from, message } => {
                    assert!(message.len() <= MAX_PAYLOAD);
                    assert!(self.processes.iter().any(|process| process.addr == from.addr), "a stranger's");
                }
                Effect::Admitted(peer) => {
                    let process = &mut self.processes[of.expect("by a frame")];
                    (process.owner, process.addr) = (peer.owner, peer.addr);
                }
                Effect::Handshake(_) | Effect::NameTaken(_) | Effect::KeysTaken(_) => {}
            }
        }
    }

    /// Remembers what has to be answered.
    fn sent(&mut self, to: SocketAddr, kind: Kind, frame: &[u8]) {
        assert!(frame.len() <= MAX_PAYLOAD + HEADER + OVERHEAD, "{} bytes", frame.len());
        let Some(process) = self.processes.iter_mut().find(|process| process.addr == to) else { return };
        if !matches!(kind, Kind::Ping | Kind::Question) {
            return;
        }
        let opened = self.sealer.open(frame).expect("sealed with a key of ours");
        let (header, packed) = wire::split(&opened.plain).expect("packed here");
        assert_eq!(Kind::from_number(header.kind), Some(kind));
        let payload = wire::unpack(&header, packed).expect("packed here");
        if kind == Kind::Question {
            process.question = payload;
        } else if let Some(nonce) = wire::decode::<Ping>(&payload).expect("a ping").nonce {
            process.nonce = nonce;
        }
    }

    fn told(&mut self, event: News, of: Option<usize>) {
        if let News::Changed { owner, changes, .. } = &event {
            let teller = of.map(|n| &self.processes[n].owner.name);
            assert!(teller.is_some(), "only a frame says what changed");
            self.all_said(owner, changes);
        }
        self.agent.hear(event);
    }

    fn all_said(&self, owner: &Owner, changes: &[Change]) {
        // Others pass on the state of our former start.
        if owner.name.as_str() == "a" {
            return;
        }
        for Change { cell, .. } in changes {
            if let Content::Record(record) = &cell.content {
                let said = (owner.name.to_string(), record.clone());
                assert!(self.said.contains(&said), "{owner} never said {record:?}");
            }
        }
    }

    fn check(&self) {
        assert!(self.link.live().count() <= self.processes.len());
        let known = self.agent.explain(TUNNEL);
        let is_ours =
            |candidate: &Candidate| candidate.owner.name.as_str() == "a" && *candidate.record == ours();
        assert!(known.iter().any(is_ours), "ours is ours: {known:?}");
        let counts = self.agent.counts();
        assert_eq!(counts.own_records, 1);
        let (total, tunnels) = self.agent.tunnels("", 64);
        let mut records = 0;
        for tunnel in &tunnels {
            for candidate in self.agent.explain(&tunnel.name.text()) {
                records += 1;
                let name = candidate.owner.name.to_string();
                if name == "a" {
                    assert_eq!(*candidate.record, ours(), "nobody else registers here");
                } else {
                    assert!(self.said.contains(&(name, candidate.record.clone())), "{candidate:?}");
                }
            }
        }
        if total <= 64 {
            assert_eq!(records, counts.records, "every record is of a tunnel");
        }
    }
}

fn ours() -> Record {
    let [id, name, node] = ["1", TUNNEL, "n"].map(Into::into);
    Record { id, name, node, network: Network::Tcp, address: "192.0.2.7:80".into() }
}

/// Slots and values: made from a few numbers, or taken from the input.
fn values(input: &mut Input<'_>) -> Vec<(u32, String)> {
    let count = input.byte() % 6;
    let mut values = Vec::new();
    for _ in 0..count {
        let (what, version) = (input.byte(), 1 + u64::from(input.byte()));
        let slot = u32::from(what % 8);
        let n = what / 64;
        let value = match what / 8 % 8 {
            0 => (slot, format!("-{version}")),
            1 => (0, format!("s{version}\u{1f}{}", ["ready", "draining", "left", "x"][usize::from(n)])),
            2..4 => (slot, format!("t{version}\u{1f}{n}\u{1f}{TUNNEL}\u{1f}n\u{1f}10.0.0.{n}:80")),
            4 => (slot, format!("u{version}\u{1f}{n}\u{1f}t{n}\u{1f}n{n}\u{1f}10.0.0.1:80")),
            5 => {
                let tunnel = format!("4d21094e-b74c-4916-86c1-d9fa36ea677{n}");
                (
                    1_000_001 + slot,
                    format!("r{version}\u{1f}x{}\u{1f}{tunnel}\u{1f}{}", version % 2, version / 2),
                )
            }
            _ => (u32::from(input.number()), String::from_utf8_lossy(input.counted()).into_owned()),
        };
        values.push(value);
    }
    values
}
