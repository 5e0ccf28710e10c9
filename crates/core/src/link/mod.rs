//! The protocol between agents, without a socket: frames and time come in, [`LinkEffects`] come out. Joins encryption,
//! sessions, pings, pushes, repair, the board and keys. What the agent knows of owners' slots it reads and changes through
//! [`ReplicaStore`].
//!
//! ```text
//! publish ─▶ push ─▶ session ─▶ seal ═▶ frames
//! frames ═▶ seal ─▶ session (challenge, replay window) ─┬▶ push, answer ─▶ changes of an owner's slots ─▶ ReplicaStore
//!                                                       ├▶ ping, cards ─▶ an owner's version ─▶ repair asks for what is missing
//!                                                       ├▶ digest, cards ─▶ board: who there is, and where
//!                                                       └▶ key status, handover ─▶ keyring
//! ```

pub mod board;
mod changes;
mod conflict;
mod contest;
pub mod counters;
mod effects;
pub mod gauges;
mod handover;
mod key_exchange;
pub mod keyring;
pub mod keys;
mod look;
mod members;
mod ping;
mod push;
mod ran;
mod recent;
mod rejections;
mod repair;
mod roll;
pub mod seal;
pub mod session;
pub mod wire;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde::Deserialize;

pub use self::effects::{Frame, LinkEffects, LinkLine};
pub use self::look::SUSPECT;
pub use self::session::Peer;

use self::board::Board;
use self::contest::Contests;
use self::counters::{Counters, Dropped};
use self::key_exchange::Keys;
use self::keyring::{KeyId, Keyring};
use self::look::SILENT;
use self::ping::Pings;
use self::push::Pusher;
use self::ran::Ran;
use self::rejections::Rejections;
use self::repair::Repairs;
use self::seal::{Opened, Sealer};
use self::session::{Sessions, Verdict};
use self::wire::{Header, Kind, Malformed, Session};
use crate::agent::News;
use crate::complaint::Refusal;
use crate::record::{AgentName, Owner};
use crate::replica::Part;
use crate::slot::{Change, Slot, Version};

/// How often an agent compares its board with another's. What pushes missed is noticed at pings, sooner.
pub const INTERVAL: Duration = Duration::from_millis(1_200);
/// An agent without a sign of life for this long is forgotten: minutes, so that one that crashes again and again cannot
/// fill the board.
pub const DEAD_GRACE: Duration = Duration::from_secs(300);

/// What is known of owners' slots. The link asks it how far a copy goes, and gives it what peers sent.
pub trait ReplicaStore {
    /// Takes what peers sent. Must be quick, and must not panic.
    fn apply(&mut self, now: Instant, news: News);

    /// How far the copy of an owner's slots goes without a gap; none if there is to be no copy.
    fn version(&self, owner: &Owner) -> Option<Version>;

    /// What an owner changed after a version, from a slot on; none if that is not known without gaps.
    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part>;
}

/// How an agent takes part in its cluster.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Who we are.
    pub owner: Owner,
    /// Where peers reach us.
    pub addr: SocketAddr,
    /// The keys to start with.
    pub keyring: Keyring,
    /// Whether they are kept in a file.
    pub key_file: bool,
    /// The cluster's id: agents of different ids do not open each other's frames.
    pub cluster: String,
    /// [`INTERVAL`], or shorter in tests.
    pub interval: Duration,
    /// [`DEAD_GRACE`], or shorter in tests.
    pub dead_grace: Duration,
    /// For sessions, nonces, keys and the choice of peers. Random in an agent; in a simulation, from its seed.
    pub seed: [u8; 32],
}

/// See the module.
pub struct Link {
    us: Peer,
    session: Session,
    sent: u64,
    sealer: Sealer,
    sessions: Sessions,
    board: Board,
    joins: BTreeSet<SocketAddr>,
    pings: Pings,
    pusher: Pusher,
    repairs: Repairs,
    /// Which peer is asked next for the slots of an owner that is silent.
    turn: usize,
    contests: Contests,
    ran: Ran,
    started: Instant,
    /// When we last looked after all peers.
    looked: Option<Instant>,
    interval: Duration,
    /// When we compare our board with a peer's next.
    next_digest: Instant,
    keys: Keys,
    rejections: Rejections,
    /// When the log last said that two agents have our name.
    conflict_logged: Option<Instant>,
    /// The live peers that were reported last.
    reported: Vec<Peer>,
    counters: Arc<Counters>,
    rng: StdRng,
    effects: LinkEffects,
}

/// An opened frame, but for its payload.
struct Arrived {
    header: Header,
    kind: Kind,
    /// The key that it was sealed with.
    key: KeyId,
}

impl Link {
    /// A link that starts now.
    pub fn new(now: Instant, settings: LinkSettings, counters: Arc<Counters>) -> Self {
        let LinkSettings { owner, addr, keyring, key_file, cluster, interval, dead_grace, seed } = settings;
        let mut rng = StdRng::from_seed(seed);
        let us = Peer { owner, addr };
        Self {
            session: rng.random(),
            sent: 0,
            sessions: Sessions::default(),
            board: Board::new(us.clone(), dead_grace),
            joins: BTreeSet::new(),
            pings: Pings::default(),
            pusher: Pusher::default(),
            repairs: Repairs::default(),
            turn: 0,
            contests: Contests::default(),
            ran: Ran::default(),
            started: now,
            looked: None,
            interval,
            next_digest: now,
            keys: Keys::new(&keyring, key_file, rng.random()),
            rejections: Rejections::default(),
            conflict_logged: None,
            reported: Vec::new(),
            sealer: Sealer::new(keyring, &cluster),
            us,
            counters,
            rng,
            effects: LinkEffects::default(),
        }
    }

    /// The name that frames are sent under.
    pub fn name(&self) -> &AgentName {
        &self.us.owner.name
    }

    /// What opens frames. [`LinkEffects::sealer`] replaces it.
    pub fn sealer(&self) -> Sealer {
        self.sealer.clone()
    }

    /// Takes an opened frame.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        frame: &Opened,
        replicas: &mut dyn ReplicaStore,
    ) -> LinkEffects {
        self.ran.advance(now);
        if self.take(now, frame, replicas).is_err() {
            self.counters.count(Dropped::Malformed);
        }
        self.take_effects()
    }

    /// Takes changes of our own slots, to be pushed to every peer.
    pub fn handle_changes(&mut self, now: Instant, changes: Vec<Change>) -> LinkEffects {
        self.note_own(&changes);
        self.pusher.add(now, changes);
        self.flush(now);
        self.take_effects()
    }

    /// Looks for peers at these addresses from now on, besides those that it knows.
    pub fn handle_joins(&mut self, now: Instant, joins: BTreeSet<SocketAddr>) -> LinkEffects {
        self.joins = joins;
        self.retarget(now);
        self.take_effects()
    }

    /// Does what is due: fresh pushes, pushes to repeat, questions, digests, and what there is to do for each peer.
    pub fn handle_due(&mut self, now: Instant, replicas: &mut dyn ReplicaStore) -> LinkEffects {
        let ran = self.ran.advance(now);
        self.flush(now);
        for outgoing in self.pusher.retry(now) {
            self.send_push(&outgoing);
        }
        self.counters.set_pushes_given_up(self.pusher.given_up);
        for ask in self.repairs.due(now) {
            self.send(Kind::Question, &ask.payload, ask.peer);
        }
        if self.next_digest <= now {
            self.compare_boards(now, ran, replicas);
        }
        if self.next_look().is_none_or(|at| at <= now) {
            self.look(now, ran, replicas);
        }
        self.take_effects()
    }

    /// When [`Self::handle_due`] has something to do.
    pub fn next_due(&self) -> Instant {
        let due = [self.pusher.next_deadline(), self.repairs.next_deadline(), self.next_look()];
        due.into_iter().flatten().fold(self.next_digest, Instant::min)
    }

    /// Whether every push so far is acknowledged or given up.
    pub fn is_settled(&self) -> bool {
        self.pusher.is_settled()
    }

    fn take_effects(&mut self) -> LinkEffects {
        std::mem::take(&mut self.effects)
    }

    fn take(
        &mut self,
        now: Instant,
        frame: &Opened,
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let (header, payload) = wire::split(&frame.plain)?;
        if header.from.ip().is_unspecified() || header.from.port() == 0 {
            return Err(Malformed);
        }
        let Some(kind) = Kind::from_number(header.kind) else {
            self.counters.count(Dropped::UnknownKind);
            return Ok(());
        };
        if header.session == self.session {
            return self.take_own(kind, payload);
        }
        let arrived = Arrived { header, kind, key: frame.key };
        let ran = self.ran.now.unwrap_or(now);
        match self.sessions.check(ran, header.session, header.counter) {
            Verdict::Fresh { silence, suspected } => {
                self.counters.receive(kind);
                self.effects.is_fresh = true;
                let Some(peer) = self.sessions.peer(header.session).cloned() else { return Ok(()) };
                if suspected {
                    self.returned(now, ran, &peer, silence, replicas);
                }
                let by = peer.owner.clone();
                if self.take_fresh(now, &arrived, peer, payload, replicas).is_err() {
                    self.counters.count(Dropped::Malformed);
                    replicas.apply(now, News::Refused { by, why: Refusal::Malformed, times: 1 });
                }
                Ok(())
            }
            Verdict::Stranger => self.take_strange(now, &arrived, payload, replicas),
            Verdict::Replayed => {
                self.counters.count(Dropped::Replayed);
                Ok(())
            }
        }
    }

    /// Our own frame: either somebody throws it back, or an address to join at is ours.
    fn take_own(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Malformed> {
        self.counters.count(Dropped::Reflected);
        if kind == Kind::Ping
            && let Some(nonce) = wire::decode::<wire::Ping>(payload)?.nonce
        {
            self.pings.met_ourselves(nonce);
        }
        Ok(())
    }

    /// A suspect is back; after a longer silence it may have missed changes, and others' news.
    fn returned(
        &mut self,
        now: Instant,
        ran: Instant,
        peer: &Peer,
        silence: Duration,
        replicas: &mut dyn ReplicaStore,
    ) {
        self.keys.roll.returned(now, &peer.owner.name);
        let live = self.sessions.live(ran);
        let (_, forgotten) = self.board.admitted(ran, peer, |name| live.contains(name));
        self.forget(now, forgotten, replicas);
        replicas.apply(now, News::Heard { owner: peer.owner.clone(), trip: None });
        if silence >= SILENT {
            self.send_digest(ran, peer.addr);
            self.ask(now, &peer.owner, None, replicas);
        }
        self.report_peers();
    }

    fn take_fresh(
        &mut self,
        now: Instant,
        arrived: &Arrived,
        peer: Peer,
        payload: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let Arrived { header, kind, key } = arrived;
        self.keys.roll.spoke(&peer.owner.name, *key, &self.sealer.keyring);
        match kind {
            Kind::Digest => {
                let digest: wire::Digest<'_> = self.read(payload)?;
                self.take_digest(&peer, &digest);
            }
            Kind::Cards => {
                let cards: wire::Cards<'_> = self.read(payload)?;
                self.take_cards(now, &peer, &cards, replicas);
            }
            Kind::Push => self.take_push(now, header.session, peer, payload, replicas)?,
            Kind::PushAck => {
                let ack: wire::PushAck = self.read(payload)?;
                if let Some(trip) = self.pusher.acked(now, ack.id, peer.addr) {
                    self.pings.measured(now, peer.addr, trip);
                }
            }
            Kind::Ping => {
                let ping: wire::Ping = self.read(payload)?;
                self.answer_ping(arrived, &ping);
                let told = self.sessions.note_told(header.session, ping.told);
                let ran = self.ran.now.unwrap_or(now);
                self.board.received(ran, &peer.owner.name, ping.told.min(crate::slot::MAX_VERSION));
                self.ask(now, &peer.owner, Some(told), replicas);
            }
            Kind::Pong => {
                let pong: wire::Pong<'_> = self.read(payload)?;
                let trip = self.pings.answered(now, peer.addr, pong.nonce).and(self.pings.trip(peer.addr));
                if trip.is_some() {
                    replicas.apply(now, News::Heard { owner: peer.owner, trip });
                }
            }
            Kind::Conflict => {
                let conflict: wire::Conflict = self.read(payload)?;
                if conflict.session == self.session {
                    self.name_taken(now, conflict.taken_by);
                }
            }
            Kind::KeyStatus => self.take_key_status(now, header.session, &peer, payload)?,
            Kind::Handover => self.take_handover(now, &peer, *key, payload)?,
            Kind::Question => self.take_question(peer.addr, payload, replicas)?,
            Kind::Answer => self.take_answer(now, &peer, payload, replicas)?,
        }
        Ok(())
    }

    /// A process that is not admitted: it may answer a challenge or ask for an answer, and is challenged.
    fn take_strange(
        &mut self,
        now: Instant,
        arrived: &Arrived,
        payload: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let Arrived { header, kind, key } = arrived;
        if *kind == Kind::Pong {
            return self.take_admission(now, arrived, &self.read(payload)?, replicas);
        }
        // One that was recorded and comes again and again is not to make us send as much.
        if *kind == Kind::Ping && self.pings.may_answer(now, header.from) {
            self.answer_ping(arrived, &self.read(payload)?);
        } else {
            self.counters.count(Dropped::Stranger);
        }
        if self.pings.provoked(now, header.from) {
            self.ping(now, header.from, true, *key);
        }
        Ok(())
    }

    fn take_admission(
        &mut self,
        now: Instant,
        Arrived { header, key, .. }: &Arrived,
        pong: &wire::Pong<'_>,
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let name = pong.name.parse().map_err(|_| Malformed)?;
        let owner = Owner { name, generation: pong.generation };
        let peer = Peer { owner, addr: header.from };
        let Some(trip) = self.pings.answered(now, peer.addr, pong.nonce) else {
            self.counters.count(Dropped::Stranger);
            return Ok(());
        };
        if self.is_contested(now, header.session, &peer) {
            self.counters.count(Dropped::Stranger);
            return Ok(());
        }
        let ran = self.ran.now.unwrap_or(now);
        let recent = self.sessions.take_recent(&peer.owner.name);
        if !self.sessions.admit(ran, header.session, header.counter, peer.clone()) {
            self.counters.count(Dropped::Stranger);
            return Ok(());
        }
        self.counters.receive(Kind::Pong);
        self.pings.add_target(now, peer.addr);
        self.keys.roll.admitted(now, header.session, &peer, *key, &self.sealer.keyring);
        let live = self.sessions.live(ran);
        let (former, forgotten) = self.board.admitted(ran, &peer, |name| live.contains(name));
        self.forget(now, forgotten, replicas);
        replicas.apply(now, News::Heard { owner: peer.owner.clone(), trip: Some(trip) });
        self.send_digest(ran, peer.addr);
        self.ask(now, &peer.owner, None, replicas);
        if let Some(former) = former {
            let recent = recent.filter(|(generation, _)| *generation == former).map(|(_, recent)| recent);
            self.say_back(now, former, &recent.unwrap_or_default(), (peer.addr, Some(trip)));
        }
        self.effects.lines.push(LinkLine::Joined { peer });
        self.report_peers();
        Ok(())
    }

    /// The answer is sealed as the question was: whoever asks may not have our sealing key.
    fn answer_ping(&mut self, arrived: &Arrived, ping: &wire::Ping) {
        let Some(nonce) = ping.nonce else { return };
        let Owner { name, generation } = &self.us.owner;
        let answer = wire::encode(&wire::Pong { nonce, name: name.as_str(), generation: *generation });
        let bytes = self.seal(Kind::Pong, &answer, arrived.key);
        self.effects.frames.push(Frame { to: arrived.header.from, kind: Kind::Pong, bytes });
    }

    fn ping(&mut self, now: Instant, to: SocketAddr, ask: bool, key: KeyId) {
        let nonce = ask.then(|| self.rng.random());
        if let Some(nonce) = nonce {
            self.pings.await_answer(now, to, nonce);
        }
        let ping = wire::Ping { nonce, told: self.pusher.told() };
        let bytes = self.seal(Kind::Ping, &wire::encode(&ping), key);
        self.effects.frames.push(Frame { to, kind: Kind::Ping, bytes });
    }

    /// Reads a payload, and counts what a later version has appended to it.
    fn read<'a, T: Deserialize<'a>>(&self, payload: &'a [u8]) -> Result<T, Malformed> {
        let (read, more) = wire::read(payload)?;
        if !more.is_empty() {
            self.counters.count(Dropped::UnknownField);
        }
        Ok(read)
    }

    fn send(&mut self, kind: Kind, payload: &[u8], to: SocketAddr) {
        let bytes = self.seal(kind, payload, self.key_for(to));
        self.effects.frames.push(Frame { to, kind, bytes });
    }

    fn seal(&mut self, kind: Kind, payload: &[u8], key: KeyId) -> Arc<[u8]> {
        let header =
            Header { session: self.session, counter: self.sent, from: self.us.addr, kind: kind.number() };
        self.sent += 1;
        let mut nonce = [0; 24];
        self.rng.fill_bytes(&mut nonce);
        self.sealer.seal(key, nonce, &wire::pack(header, payload)).into()
    }
}

#[cfg(test)]
mod tests;
