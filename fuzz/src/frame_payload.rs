//! What a few peers encrypt in their sessions, fed into a link and the agent behind it. Only an owner decides about its records,
//! nobody changes what was registered here, and each frame that is sent goes to the right peer and can be decrypted
//! there.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gossd_core::agent::{Candidate, News, Offer, Restored, Settings as Behaviour, State};
use gossd_core::codec::{decode_cell, encode_cell};
use gossd_core::connection::Caller;
use gossd_core::hostname::{Claim, Endpoint, TunnelId};
use gossd_core::lease::Holding;
use gossd_core::link::counters::Counters;
use gossd_core::link::frame::OVERHEAD;
use gossd_core::link::keyring::Keyring;
use gossd_core::link::wire::{
    self, Answer, Cards, Kind, MAX_PAYLOAD, OfferedGost, Ping, Pong, Push, Question, Seek,
};
use gossd_core::link::{DEAD_GRACE, Frame, INTERVAL, Link, LinkEffects, LinkSettings, MESH, ReplicaStore};
use gossd_core::rank::Order;
use gossd_core::record::{Network, Owner, Record};
use gossd_core::replica::Part;
use gossd_core::slot::{Cell, Change, Content, FIRST_CLAIM, Slot, Status, Version};

use super::input::Input;
use super::peer::{CLUSTER, Peer, Taken};

/// Most frames of one input.
const FRAMES: usize = 12;
/// Peers that are admitted at the start; one more process is not.
const PEERS: u8 = 2;
/// What one input may make the link do, besides what follows from each card that it was given.
const EFFECTS: usize = 32;
/// Our name.
const US: &str = "a";
/// Our one tunnel.
const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";

/// Where its gost is.
const OURS: &str = "192.0.2.7:80";

/// Steps, each after a byte that selects a peer and what it does.
pub fn run(data: &[u8]) {
    // A large cluster, or a small one.
    let mut room = Room::new(if data.len().is_multiple_of(2) { MESH } else { 1 });
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
    peer: Peer,
    /// Whether the link ever sent it something in a session, other than that its name is taken.
    admitted: bool,
    /// The link's last Hello to it.
    hello: Option<Frame>,
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
    /// Whether the frame under way says that our name is taken.
    is_refusal: bool,
}

/// The state, which watches what the link makes of a frame or of time.
struct Watch<'a> {
    state: &'a mut State,
    sent: &'a HashSet<(String, Arc<Record>)>,
    /// Whether it is a frame.
    is_frame: bool,
    /// Whether there was news of others.
    is_hearsay: bool,
    applied: usize,
}

impl ReplicaStore for Watch<'_> {
    fn apply(&mut self, now: Instant, news: News) {
        self.applied += 1;
        match &news {
            News::Changed { owner, changes, .. } => {
                assert!(self.is_frame, "only a frame says what changed");
                self.all_sent(owner, changes);
            }
            News::Hearsay { .. } => self.is_hearsay = true,
            News::Heard { .. }
            | News::Doubted { .. }
            | News::Silent { .. }
            | News::Refused { .. }
            | News::Offered { .. }
            | News::Differs { .. }
            | News::Buried { .. }
            | News::Forgotten { .. } => {}
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

    fn offer(&mut self, now: Instant, by: &Owner, tunnel: TunnelId) -> Offer {
        let offer = self.state.offer(now, by, tunnel);
        self.state.take_effects();
        offer
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
    fn new(mesh: usize) -> Self {
        let now = START.with(|start| *start);
        let us = owner(US, 5);
        let settings = LinkSettings {
            owner: us.clone(),
            addr: addr(1),
            identity: [1; 32],
            version: "0.1.0".into(),
            keyring: KEYRING.with(Keyring::clone),
            key_file: true,
            cluster: CLUSTER.into(),
            interval: INTERVAL,
            dead_grace: DEAD_GRACE,
            mesh,
            seed: [7; 32],
        };
        let link = Link::new(now, settings, Arc::new(Counters::default()));
        let behaviour = Behaviour { order: Order::Nearest, ..Behaviour::of(us) };
        let mut state = State::new(now, &behaviour, Restored::default());
        let holding = Holding { record: Arc::new(ours()), dial: "".into() };
        state.register(now, Caller::local(1), holding).expect("there is room");
        let process = |n: u8| {
            let owner = owner(["b", "c", "c"][usize::from(n)], 5 + u64::from(n / PEERS));
            let peer = KEYRING.with(|keyring| Peer::new(owner, addr(2 + n), 2 + n, keyring));
            Process { peer, admitted: false, hello: None, nonce: 0, question: Vec::new() }
        };
        let processes = (0..=PEERS).map(process).collect();
        let mut room =
            Self { now, link, state, processes, sent: HashSet::new(), cards: 0, is_refusal: false };
        for n in 0..usize::from(PEERS) {
            room.meet(n);
            assert!(room.processes[n].admitted);
        }
        room
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let n = usize::from(what / 17) % self.processes.len();
        match what % 17 {
            // What came later than the corpus.
            _ if what >= 253 => self.seek_or_offer(n, input),
            _ if what == 252 => self.alert(n, input),
            kind @ 0..11 => self.send(n, Kind::ALL[usize::from(kind)], input.counted()),
            11 => self.push(n, input),
            12 => self.answer(n, input),
            13 => self.meet(n),
            14 => self.pass(u64::from(input.byte())),
            15 => self.raw(n, input),
            _ => self.ask(n, input),
        }
    }

    /// A frame of a kind.
    fn send(&mut self, n: usize, kind: Kind, payload: &[u8]) {
        self.say(n, &wire::pack(kind, payload));
    }

    /// Encrypts anything.
    fn raw(&mut self, n: usize, input: &mut Input<'_>) {
        self.say(n, input.counted());
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
            id: question.id,
            after: question.after,
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
        let question = Question { name, generation, after, from, id: 7 };
        let payload = wire::encode(&question);
        self.send(n, Kind::Question, &payload);
    }

    /// Asks for a detour, or offers one.
    fn seek_or_offer(&mut self, n: usize, input: &mut Input<'_>) {
        let (how, id) = (input.byte(), u64::from(input.byte()));
        if how & 1 == 0 {
            let seek = Seek { id, tunnel: TunnelId::parse(TUNNEL).expect("an id") };
            return self.send(n, Kind::Seek, &wire::encode(&seek));
        }
        let address = String::from_utf8_lossy(input.counted());
        let gost = (how & 2 == 2).then(|| OfferedGost { node: "m", address: &address });
        let offer = wire::Offer { id, reaches: how & 4 == 4, gost };
        self.send(n, Kind::Offer, &wire::encode(&offer));
    }

    /// Says that an agent is silent, or heard again; or tells of what owners said, behind a ping.
    fn alert(&mut self, n: usize, input: &mut Input<'_>) {
        let (whose, how) = (input.byte(), input.byte());
        let (name, generation) = (["a", "b", "c", "d"][usize::from(whose % 4)], 5 + u64::from(whose / 128));
        if how & 1 == 0 {
            let silent = vec![wire::Silent { name, generation, silence_ms: u32::from(how) * 40 }];
            return self.send(n, Kind::Alert, &wire::encode(&wire::Alert { silent }));
        }
        let mut ping = wire::encode(&Ping { nonce: None, told: 0, revision: 1, lost: 0, ran: 0 });
        let owners = vec![(name, generation, u64::from(how)); usize::from(how / 16)];
        ping.extend(wire::encode(&wire::Rumours { sparse: how & 2 == 2, owners }));
        self.send(n, Kind::Ping, &ping);
    }

    /// Answers the link's last ping, and makes a handshake: the one that the link began, if it did.
    fn meet(&mut self, n: usize) {
        let pong = wire::encode(&Pong { nonce: self.processes[n].nonce });
        self.send(n, Kind::Pong, &pong);
        let process = &mut self.processes[n];
        let next = match process.hello.take() {
            Some(hello) => process.peer.take(addr(1), &hello.bytes),
            None => Taken::Next(process.peer.hello(None)),
        };
        if let Taken::Next(frame) = next {
            self.deliver(n, &frame);
        }
    }

    fn pass(&mut self, steps: u64) {
        self.now += Duration::from_millis(37 * steps);
        self.follow(None, |link, now, watch| link.handle_due(now, watch));
    }

    /// Encrypts something in the newest session, if there is one.
    fn say(&mut self, n: usize, plain: &[u8]) {
        let Some(frame) = self.processes[n].peer.say_plain(addr(1), plain) else { return };
        self.note(n, plain);
        self.is_refusal = plain.first() == Some(&Kind::Conflict.number());
        self.deliver(n, &frame);
    }

    fn deliver(&mut self, n: usize, frame: &[u8]) {
        let from = self.processes[n].peer.addr;
        self.follow(Some(n), |link, now, watch| link.handle_frame(now, from, frame, watch));
    }

    /// Does what the link makes of a frame of a process, or of time.
    fn follow(
        &mut self,
        of: Option<usize>,
        act: impl FnOnce(&mut Link, Instant, &mut Watch<'_>) -> LinkEffects,
    ) {
        let Self { now, link, state, sent, .. } = self;
        let mut watch = Watch { state, sent, is_frame: of.is_some(), is_hearsay: false, applied: 0 };
        let effects = act(link, *now, &mut watch);
        let (applied, is_hearsay) = (watch.applied, watch.is_hearsay);
        let is_fresh = effects.is_fresh;
        let next = self.perform(effects, applied);
        let is_admitted = of.is_some_and(|n| self.processes[n].admitted);
        // Whoever refuses us says so in the session that it does not grant.
        let is_refusal = std::mem::take(&mut self.is_refusal);
        assert!(is_admitted || !is_hearsay && (!is_fresh || is_refusal), "a stranger's");
        for (n, frame) in next {
            self.deliver(n, &frame);
        }
    }

    /// Remembers what is sent as an owner's.
    fn note(&mut self, n: usize, plain: &[u8]) {
        let Ok((kind, payload)) = wire::split(plain) else { return };
        let peer = self.processes[n].peer.owner.name.to_string();
        let (name, changes) = match Kind::from_number(kind) {
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

    /// What processes send next, because of handshakes.
    fn perform(&mut self, effects: LinkEffects, applied: usize) -> Vec<(usize, Vec<u8>)> {
        let LinkEffects {
            frames,
            is_fresh: _,
            keyring: _,
            peers: _,
            lag: _,
            lines,
            name_taken: _,
            joins: _,
            superseded: _,
        } = effects;
        // A card of somebody else is news, a question, and an address to ping.
        let most = EFFECTS + 3 * self.cards;
        let count = frames.len() + lines.len() + applied;
        assert!(count <= most, "{count} effects");
        frames.into_iter().filter_map(|frame| self.sent(frame)).collect()
    }

    /// Remembers what has to be answered, or answers it at once.
    fn sent(&mut self, frame: Frame) -> Option<(usize, Vec<u8>)> {
        let Frame { to, kind, bytes } = &frame;
        assert!(bytes.len() <= MAX_PAYLOAD + OVERHEAD, "{} bytes", bytes.len());
        let n = self.processes.iter().position(|process| process.peer.addr == *to)?;
        let process = &mut self.processes[n];
        if *kind == Kind::Hello {
            process.hello = Some(frame);
            return None;
        }
        match process.peer.take(addr(1), bytes) {
            Taken::Next(next) => return Some((n, next)),
            Taken::Finished => {}
            Taken::Data(number, payload) => {
                assert_eq!(Kind::from_number(number), Some(*kind));
                process.admitted |= *kind != Kind::Conflict;
                if *kind == Kind::Offer {
                    let offer = wire::decode::<wire::Offer<'_>>(&payload).expect("an offer");
                    let ours = OfferedGost { node: "n", address: OURS };
                    assert!(offer.gost.is_none_or(|gost| gost == ours), "the only gost here");
                }
                if *kind == Kind::Question {
                    process.question = payload;
                } else if *kind == Kind::Ping
                    && let Some(nonce) = wire::decode::<Ping>(&payload).expect("a ping").nonce
                {
                    process.nonce = nonce;
                }
            }
            // Of a handshake that the process has given up.
            Taken::Nothing => assert!(matches!(kind, Kind::Reply | Kind::Proof), "{kind:?} is not for {to}"),
        }
        None
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
    Record { id, name, node, network: Network::Tcp, address: OURS.into() }
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
