//! The protocol between agents, without a socket: what arrives goes in, [`Effect`]s come out. Joins sealing,
//! sessions, push, pings and keys; passes chitchat's messages through.

mod keys;
mod names;
mod peers;
mod words;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};
use serde::Deserialize;

use self::keys::Keys;
use self::peers::SILENT;
pub use self::peers::SUSPECT;
pub use self::words::Question;
use super::contest::Contests;
use super::counters::{Counters, Dropped};
use super::keyring::KeyId;
use super::ping::Pings;
use super::push::Pusher;
use super::ran::Ran;
use super::repair::Repairs;
use super::seal::{Opened, Sealer};
use super::session::{Peer, Sessions, Verdict};
use super::wire::{self, Header, Kind, Malformed, Session};
use gossd_core::agent::News;
use gossd_core::complaint::Refusal;
use gossd_core::record::Owner;
use gossd_core::slot::{Change, Version};

/// Something that the link wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a sealed frame.
    Send {
        /// To whom.
        to: SocketAddr,
        /// What is in it, for counters.
        kind: Kind,
        /// The bytes.
        frame: Arc<[u8]>,
    },
    /// Something that the agent has to hear.
    Tell(News),
    /// A message for chitchat.
    Chitchat {
        /// Whose it is, and where the answer goes.
        from: Peer,
        /// chitchat's bytes.
        message: Vec<u8>,
    },
    /// Exchange memberships with this peer now: it is new to chitchat, or back.
    Handshake(SocketAddr),
    /// Something that an owner said may be missing here: [`Link::ask`] for what the agent does not know.
    Ask {
        /// Whose words.
        owner: Owner,
        /// To where they should be known, if that was said: then there may be nothing to ask.
        said: Option<Version>,
    },
    /// A peer asks: [`Link::answer`] with what the agent knows.
    Asked(Question),
    /// A process was admitted.
    Admitted(Peer),
    /// Another live agent has our name, and had it first.
    NameTaken(SocketAddr),
    /// A peer knew more of the cluster's keys than we did.
    KeysTaken(Peer),
}

/// See the module.
pub struct Link {
    owner: Owner,
    addr: SocketAddr,
    session: Session,
    sent: u64,
    sealer: Arc<Sealer>,
    sessions: Sessions,
    pings: Pings,
    pusher: Pusher,
    repairs: Repairs,
    /// Who is asked next for the words of an owner that is not heard.
    turn: usize,
    /// Whom chitchat knows, and so exchanges states with by itself.
    members: HashSet<SocketAddr>,
    contests: Contests,
    ran: Ran,
    /// When we last looked after all peers.
    looked: Option<Instant>,
    keys: Keys,
    counters: Arc<Counters>,
    rng: StdRng,
    /// Whether the last frame was an admitted process's, and new.
    took_last: bool,
}

/// An opened frame, but for its payload.
struct Arrived {
    header: Header,
    kind: Kind,
    /// The key that it was sealed with.
    key: KeyId,
}

impl Link {
    /// A link of `owner`, reachable at `addr`.
    pub fn new(
        owner: Owner,
        addr: SocketAddr,
        sealer: Arc<Sealer>,
        counters: Arc<Counters>,
        mut rng: StdRng,
    ) -> Self {
        Self {
            owner,
            addr,
            session: rng.random(),
            sent: 0,
            sessions: Sessions::default(),
            pings: Pings::default(),
            pusher: Pusher::default(),
            repairs: Repairs::default(),
            turn: 0,
            members: HashSet::new(),
            contests: Contests::default(),
            ran: Ran::default(),
            looked: None,
            keys: Keys::new(&sealer.keyring(), rng.random()),
            sealer,
            counters,
            rng,
            took_last: false,
        }
    }

    /// Takes an opened frame.
    pub fn handle_frame(&mut self, now: Instant, frame: &Opened) -> Vec<Effect> {
        self.ran.advance(now);
        self.took_last = false;
        self.take(now, frame).unwrap_or_else(|Malformed| {
            self.counters.count(Dropped::Malformed);
            Vec::new()
        })
    }

    /// Whether the last frame was an admitted process's, and new: whoever sent it has the key, and replays nothing.
    pub fn took_last(&self) -> bool {
        self.took_last
    }

    /// Takes changes of our own slots, to be told to every peer.
    pub fn handle_changes(&mut self, now: Instant, changes: Vec<Change>) -> Vec<Effect> {
        self.pusher.add(now, changes);
        self.flush(now)
    }

    /// Seals a message of chitchat's.
    pub fn handle_chitchat(&mut self, to: SocketAddr, message: &[u8]) -> Vec<Effect> {
        vec![self.frame(Kind::Chitchat, message, to)]
    }

    /// Does what is due: fresh pushes, pushes to repeat, questions, and what there is to do for each peer.
    pub fn handle_deadline(&mut self, now: Instant) -> Vec<Effect> {
        let ran = self.ran.advance(now);
        let mut effects = self.flush(now);
        for outgoing in self.pusher.retry(now) {
            self.send_push(&outgoing, &mut effects);
        }
        self.counters.set_pushes_given_up(self.pusher.given_up);
        let questions = self.repairs.due(now);
        effects.extend(questions.into_iter().map(|ask| self.frame(Kind::Question, &ask.payload, ask.peer)));
        if self.next_look().is_none_or(|at| at <= now) {
            effects.extend(self.look(now, ran));
        }
        effects
    }

    /// When [`Self::handle_deadline`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = [self.pusher.next_deadline(), self.repairs.next_deadline(), self.next_look()];
        due.into_iter().flatten().min()
    }

    /// Whether every push so far is acknowledged or given up.
    pub fn is_settled(&self) -> bool {
        self.pusher.is_settled()
    }

    fn take(&mut self, now: Instant, frame: &Opened) -> Result<Vec<Effect>, Malformed> {
        let (header, packed) = wire::split(&frame.plain)?;
        let payload = wire::unpack(&header, packed)?;
        if header.from.ip().is_unspecified() || header.from.port() == 0 {
            return Err(Malformed);
        }
        let Some(kind) = Kind::from_number(header.kind) else {
            self.counters.count(Dropped::UnknownKind);
            return Ok(Vec::new());
        };
        if header.session == self.session {
            return self.take_own(kind, &payload);
        }
        let arrived = Arrived { header, kind, key: frame.key };
        let ran = self.ran.now.unwrap_or(now);
        match self.sessions.check(ran, header.session, header.counter) {
            Verdict::Fresh { silence, suspected } => {
                self.counters.receive(kind);
                self.took_last = true;
                let mut effects = self.returned(now, header.session, suspected, silence);
                let Some(peer) = self.sessions.peer(arrived.header.session).cloned() else {
                    return Ok(effects);
                };
                let by = peer.owner.clone();
                effects.extend(self.take_fresh(now, &arrived, peer, payload).unwrap_or_else(|Malformed| {
                    self.counters.count(Dropped::Malformed);
                    vec![Effect::Tell(News::Refused { by, why: Refusal::Malformed, times: 1 })]
                }));
                Ok(effects)
            }
            Verdict::Stranger => self.take_strange(now, &arrived, &payload),
            Verdict::Replayed => {
                self.counters.count(Dropped::Replayed);
                Ok(Vec::new())
            }
        }
    }

    /// Our own frame: either somebody throws it back, or an address to join at is ours.
    fn take_own(&mut self, kind: Kind, payload: &[u8]) -> Result<Vec<Effect>, Malformed> {
        self.counters.count(Dropped::Reflected);
        if kind == Kind::Ping
            && let Some(nonce) = wire::decode::<wire::Ping>(payload)?.nonce
        {
            self.pings.met_ourselves(nonce);
        }
        Ok(Vec::new())
    }

    /// A suspect is back; after a longer silence states have to be exchanged.
    fn returned(
        &mut self,
        now: Instant,
        session: Session,
        suspected: bool,
        silence: Duration,
    ) -> Vec<Effect> {
        let Some(peer) = self.sessions.peer(session).filter(|_| suspected) else { return Vec::new() };
        self.keys.roll.returned(now, &peer.owner.name);
        let mut effects = vec![Effect::Tell(News::Heard { owner: peer.owner.clone(), trip: None })];
        if silence >= SILENT {
            effects.extend([
                Effect::Handshake(peer.addr),
                Effect::Ask { owner: peer.owner.clone(), said: None },
            ]);
        }
        effects
    }

    fn take_fresh(
        &mut self,
        now: Instant,
        arrived: &Arrived,
        peer: Peer,
        payload: Vec<u8>,
    ) -> Result<Vec<Effect>, Malformed> {
        let Arrived { header, kind, key } = arrived;
        self.keys.roll.spoke(&peer.owner.name, *key, &self.sealer.keyring());
        match kind {
            Kind::Chitchat => Ok(vec![Effect::Chitchat { from: peer, message: payload }]),
            Kind::Push => self.take_push(now, header.session, peer, &payload),
            Kind::PushAck => {
                let ack: wire::PushAck = self.read(&payload)?;
                if let Some(trip) = self.pusher.acked(now, ack.id, peer.addr) {
                    self.pings.measured(now, peer.addr, trip);
                }
                Ok(Vec::new())
            }
            Kind::Ping => {
                let ping: wire::Ping = self.read(&payload)?;
                let told = self.sessions.note_told(header.session, ping.told);
                let ask = Effect::Ask { owner: peer.owner, said: Some(told) };
                Ok(self.take_ping(arrived, &ping).into_iter().chain([ask]).collect())
            }
            Kind::Pong => {
                let pong: wire::Pong<'_> = self.read(&payload)?;
                let trip = self.pings.answered(now, peer.addr, pong.nonce).and(self.pings.trip(peer.addr));
                Ok(trip
                    .map(|trip| Effect::Tell(News::Heard { owner: peer.owner, trip: Some(trip) }))
                    .into_iter()
                    .collect())
            }
            Kind::Conflict => {
                let conflict: wire::Conflict = self.read(&payload)?;
                let ours = conflict.session == self.session;
                Ok(ours.then_some(Effect::NameTaken(conflict.taken_by)).into_iter().collect())
            }
            Kind::KeyStatus => self.take_key_status(now, header.session, &peer, &payload),
            Kind::Handover => self.take_handover(now, peer, *key, &payload),
            Kind::Question => self.take_question(peer.addr, &payload),
            Kind::Answer => self.take_answer(now, &peer, &payload),
        }
    }

    /// A process that is not admitted: it may answer a challenge or ask for an answer, and is challenged.
    fn take_strange(
        &mut self,
        now: Instant,
        arrived: &Arrived,
        payload: &[u8],
    ) -> Result<Vec<Effect>, Malformed> {
        let Arrived { header, kind, key } = arrived;
        if *kind == Kind::Pong {
            return self.take_admission(now, arrived, &self.read(payload)?);
        }
        let mut effects = Vec::new();
        if *kind == Kind::Ping {
            // One that was recorded and comes again and again is not to make us send as much.
            if self.pings.may_answer(now, header.from) {
                effects.extend(self.take_ping(arrived, &self.read(payload)?));
            } else {
                self.counters.count(Dropped::Stranger);
            }
        } else {
            self.counters.count(Dropped::Stranger);
        }
        if self.pings.provoked(now, header.from) {
            effects.push(self.ping(now, header.from, true, *key));
        }
        Ok(effects)
    }

    fn take_admission(
        &mut self,
        now: Instant,
        Arrived { header, key, .. }: &Arrived,
        pong: &wire::Pong<'_>,
    ) -> Result<Vec<Effect>, Malformed> {
        let name = pong.name.parse().map_err(|_| Malformed)?;
        let owner = Owner { name, generation: pong.generation };
        let peer = Peer { owner, addr: header.from };
        let Some(trip) = self.pings.answered(now, peer.addr, pong.nonce) else {
            self.counters.count(Dropped::Stranger);
            return Ok(Vec::new());
        };
        if let Some(effects) = self.contest(now, header.session, &peer) {
            self.counters.count(Dropped::Stranger);
            return Ok(effects);
        }
        let ran = self.ran.now.unwrap_or(now);
        let former = self.sessions.take_recent(&peer.owner.name);
        if !self.sessions.admit(ran, header.session, header.counter, peer.clone()) {
            self.counters.count(Dropped::Stranger);
            return Ok(Vec::new());
        }
        self.counters.receive(Kind::Pong);
        self.pings.add_target(now, peer.addr);
        self.keys.roll.admitted(now, header.session, &peer, *key, &self.sealer.keyring());
        let heard = Effect::Tell(News::Heard { owner: peer.owner.clone(), trip: Some(trip) });
        let mut effects =
            vec![Effect::Handshake(peer.addr), heard, Effect::Ask { owner: peer.owner.clone(), said: None }];
        if let Some((generation, recent)) = former.filter(|(former, _)| *former != peer.owner.generation) {
            self.say_back(now, generation, &recent, (peer.addr, Some(trip)), &mut effects);
        }
        effects.push(Effect::Admitted(peer));
        Ok(effects)
    }

    /// The answer is sealed as the question was: whoever asks may not have our sealing key.
    fn take_ping(&mut self, arrived: &Arrived, ping: &wire::Ping) -> Option<Effect> {
        let nonce = ping.nonce?;
        let Owner { name, generation } = &self.owner;
        let answer = wire::Pong { nonce, name: name.as_str(), generation: *generation };
        let frame = self.seal(Kind::Pong, &wire::encode(&answer), arrived.key);
        Some(Effect::Send { to: arrived.header.from, kind: Kind::Pong, frame })
    }

    fn ping(&mut self, now: Instant, to: SocketAddr, ask: bool, key: KeyId) -> Effect {
        let nonce = ask.then(|| self.rng.random());
        if let Some(nonce) = nonce {
            self.pings.await_answer(now, to, nonce);
        }
        let ping = wire::Ping { nonce, told: self.pusher.told() };
        let frame = self.seal(Kind::Ping, &wire::encode(&ping), key);
        Effect::Send { to, kind: Kind::Ping, frame }
    }

    /// Reads a payload, and counts what a later version has appended to it.
    fn read<'a, T: Deserialize<'a>>(&self, payload: &'a [u8]) -> Result<T, Malformed> {
        let (read, more) = wire::read(payload)?;
        if !more.is_empty() {
            self.counters.count(Dropped::UnknownField);
        }
        Ok(read)
    }

    fn frame(&mut self, kind: Kind, payload: &[u8], to: SocketAddr) -> Effect {
        Effect::Send { to, kind, frame: self.seal(kind, payload, self.key_for(to)) }
    }

    fn seal(&mut self, kind: Kind, payload: &[u8], key: KeyId) -> Arc<[u8]> {
        let header = Header {
            session: self.session,
            counter: self.sent,
            from: self.addr,
            kind: kind.number(),
            compressed: false,
        };
        self.sent += 1;
        let mut nonce = [0; 24];
        self.rng.fill_bytes(&mut nonce);
        self.sealer.seal(key, nonce, &wire::pack(header, payload)).into()
    }
}

#[cfg(test)]
mod rotation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod versions;
