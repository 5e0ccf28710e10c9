//! The protocol between agents, without a socket: what arrives goes in, [`Effect`]s come out. Joins sealing,
//! sessions, push and pings; passes chitchat's messages through.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::contest::{Contest, Contests};
use super::counters::{Counters, Dropped};
use super::ping::{Pings, Standing};
use super::push::{Outgoing, Pusher};
use super::ran::Ran;
use super::recent::Recent;
use super::seal::Sealer;
use super::session::{self, Peer, Sessions, Verdict};
use super::slots;
use super::wire::{self, Header, Kind, Malformed, Session};
use super::{Event, Heard};
use crate::domain::record::{Generation, Owner};
use crate::domain::slot::Change;

/// A peer not heard for this long gets no pushes: they would only be repeated in vain. Its first frame
/// afterwards starts an exchange that brings it up to date.
const SILENT: Duration = Duration::from_secs(5);
/// A peer not heard for this long, of the time in which we ran ourselves, is suspect: hosts die within 3 s.
pub const SUSPECT: Duration = Duration::from_millis(2_600);
/// A peer not heard for this long, when a ping of its own is overdue, is asked for a sign of life.
const DOUBT: Duration = Duration::from_millis(800);
/// A session not heard for this long has to answer a challenge again.
const FORGOTTEN: Duration = Duration::from_secs(86_400);
/// We look at the clock at least this often.
const STEP: Duration = Duration::from_millis(200);

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
    Tell(Event),
    /// A message for chitchat.
    Chitchat {
        /// Where the answer goes.
        from: SocketAddr,
        /// chitchat's bytes.
        message: Vec<u8>,
    },
    /// Exchange states with this peer now: it is new to chitchat, or back.
    Handshake(SocketAddr),
    /// A process was admitted.
    Admitted(Peer),
    /// Another live agent has our name, and had it first.
    NameTaken(SocketAddr),
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
    /// Whom chitchat knows, and so exchanges states with by itself.
    members: HashSet<SocketAddr>,
    contests: Contests,
    ran: Ran,
    counters: Arc<Counters>,
    rng: StdRng,
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
            sealer,
            sessions: Sessions::default(),
            pings: Pings::default(),
            pusher: Pusher::default(),
            members: HashSet::new(),
            contests: Contests::default(),
            ran: Ran::default(),
            counters,
            rng,
        }
    }

    /// Takes an opened frame.
    pub fn handle_frame(&mut self, now: Instant, plain: &[u8]) -> Vec<Effect> {
        self.ran.advance(now);
        self.take(now, plain).unwrap_or_else(|Malformed| {
            self.counters.count(Dropped::Malformed);
            Vec::new()
        })
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

    /// Pings these addresses from now on: `members`, whom chitchat knows, and those to join at.
    pub fn set_targets(&mut self, now: Instant, members: HashSet<SocketAddr>, joins: &HashSet<SocketAddr>) {
        let mut targets: HashSet<SocketAddr> = members.union(joins).copied().collect();
        self.members = members;
        targets.extend(self.sessions.peers().map(|(peer, _)| peer.addr));
        targets.remove(&self.addr);
        self.pings.set_targets(now, &targets);
    }

    /// Does what is due: pings, fresh pushes, pushes to repeat.
    pub fn handle_deadline(&mut self, now: Instant) -> Vec<Effect> {
        let ran = self.ran.advance(now);
        if let Some(then) = ran.checked_sub(FORGOTTEN) {
            self.sessions.forget_silent(then);
        }
        let mut effects = self.flush(now);
        for (peer, silence) in self.sessions.suspect(ran, SUSPECT) {
            self.counters.suspect();
            effects.push(Effect::Tell(Event::Silent { owner: peer.owner, silence }));
        }
        for outgoing in self.pusher.retry(now) {
            self.send_push(&outgoing, &mut effects);
        }
        self.counters.set_pushes_given_up(self.pusher.given_up);
        let heard: HashMap<SocketAddr, Standing> =
            self.sessions.peers().map(|(peer, at)| (peer.addr, standing(ran, at))).collect();
        let standing = |addr| heard.get(&addr).copied().unwrap_or(Standing::Stranger);
        for due in self.pings.due(now, standing) {
            effects.push(self.ping(now, due.to, due.ask));
            // The exchange at its admission was lost, or it has been dead for so long that chitchat forgot it.
            if standing(due.to) == Standing::Heard && !self.members.contains(&due.to) {
                effects.push(Effect::Handshake(due.to));
            }
        }
        effects
    }

    /// When [`Self::handle_deadline`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let step = self.ran.last.map(|at| at + STEP);
        self.pusher.next_deadline().into_iter().chain(self.pings.next_deadline()).chain(step).min()
    }

    /// Whether every push so far is acknowledged or given up.
    pub fn is_settled(&self) -> bool {
        self.pusher.is_settled()
    }

    /// The admitted peers heard of late.
    pub fn live(&self) -> impl Iterator<Item = &Peer> {
        let ran = self.ran.now;
        let heard = move |at: Instant| ran.is_none_or(|ran| ran.saturating_duration_since(at) < SILENT);
        self.sessions.peers().filter(move |(_, at)| heard(*at)).map(|(peer, _)| peer)
    }

    /// The same, with how late their pushes come.
    pub fn heard(&self) -> impl Iterator<Item = Heard> {
        self.live().map(|peer| Heard {
            owner: peer.owner.clone(),
            addr: peer.addr,
            lag: self.sessions.lag(&peer.owner.name).unwrap_or_else(session::lags),
        })
    }

    fn take(&mut self, now: Instant, plain: &[u8]) -> Result<Vec<Effect>, Malformed> {
        let (header, packed) = wire::split(plain)?;
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
        let ran = self.ran.now.unwrap_or(now);
        match self.sessions.check(ran, header.session, header.counter) {
            Verdict::Fresh { silence, suspected } => {
                self.counters.receive(kind);
                let mut effects = self.returned(header.session, suspected, silence);
                effects.extend(self.take_fresh(now, &header, kind, payload)?);
                Ok(effects)
            }
            Verdict::Stranger => self.take_strange(now, &header, kind, &payload),
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
    fn returned(&self, session: Session, suspected: bool, silence: Duration) -> Vec<Effect> {
        let Some(peer) = self.sessions.peer(session).filter(|_| suspected) else { return Vec::new() };
        let mut effects = vec![Effect::Tell(Event::Heard { owner: peer.owner.clone(), trip: None })];
        if silence >= SILENT {
            effects.push(Effect::Handshake(peer.addr));
        }
        effects
    }

    fn take_fresh(
        &mut self,
        now: Instant,
        header: &Header,
        kind: Kind,
        payload: Vec<u8>,
    ) -> Result<Vec<Effect>, Malformed> {
        let Some(peer) = self.sessions.peer(header.session).cloned() else { return Ok(Vec::new()) };
        match kind {
            Kind::Chitchat => Ok(vec![Effect::Chitchat { from: peer.addr, message: payload }]),
            Kind::Push => self.take_push(now, header.session, peer, &payload),
            Kind::PushAck => {
                let ack: wire::PushAck = wire::decode(&payload)?;
                if let Some(trip) = self.pusher.acked(now, ack.id, peer.addr) {
                    self.pings.measured(now, peer.addr, trip);
                }
                Ok(Vec::new())
            }
            Kind::Ping => self.take_ping(header.from, &payload),
            Kind::Pong => {
                let pong: wire::Pong<'_> = wire::decode(&payload)?;
                let trip = self.pings.answered(now, peer.addr, pong.nonce).and(self.pings.trip(peer.addr));
                Ok(trip
                    .map(|trip| Effect::Tell(Event::Heard { owner: peer.owner, trip: Some(trip) }))
                    .into_iter()
                    .collect())
            }
            Kind::Conflict => {
                let conflict: wire::Conflict = wire::decode(&payload)?;
                let ours = conflict.session == self.session;
                Ok(ours.then_some(Effect::NameTaken(conflict.taken_by)).into_iter().collect())
            }
        }
    }

    /// A process that is not admitted: it may answer a challenge or ask for an answer, and is challenged.
    fn take_strange(
        &mut self,
        now: Instant,
        header: &Header,
        kind: Kind,
        payload: &[u8],
    ) -> Result<Vec<Effect>, Malformed> {
        if kind == Kind::Pong {
            return self.take_admission(now, header, &wire::decode(payload)?);
        }
        let mut effects = Vec::new();
        if kind == Kind::Ping {
            effects = self.take_ping(header.from, payload)?;
        } else {
            self.counters.count(Dropped::Stranger);
        }
        if self.pings.provoked(now, header.from) {
            effects.push(self.ping(now, header.from, true));
        }
        Ok(effects)
    }

    fn take_admission(
        &mut self,
        now: Instant,
        header: &Header,
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
        let heard = Effect::Tell(Event::Heard { owner: peer.owner.clone(), trip: Some(trip) });
        let mut effects = vec![Effect::Handshake(peer.addr), heard];
        if let Some((generation, recent)) = former.filter(|(former, _)| *former != peer.owner.generation) {
            self.say_back(now, generation, &recent, (peer.addr, Some(trip)), &mut effects);
        }
        effects.push(Effect::Admitted(peer));
        Ok(effects)
    }

    /// What an agent's former start pushed last may be all that is left of it.
    fn say_back(
        &mut self,
        now: Instant,
        former: Generation,
        recent: &Recent,
        peer: (SocketAddr, Option<Duration>),
        effects: &mut Vec<Effect>,
    ) {
        // It was understood when it came.
        for push in recent.pushes().filter_map(|push| wire::decode::<wire::Push<'_>>(push).ok()) {
            let outgoing = self.pusher.say_back(now, former, push.changes, peer);
            self.send_push(&outgoing, effects);
        }
    }

    /// Two live processes with one name would overwrite each other's records: the one that was there first
    /// stays, the other is told. None if the newcomer may be admitted: the name is free, or its former holder
    /// does not answer any more, or was at the same address.
    fn contest(&mut self, now: Instant, session: Session, peer: &Peer) -> Option<Vec<Effect>> {
        let name = &peer.owner.name;
        if *name == self.owner.name {
            return Some(self.contest_own_name(session, peer));
        }
        let (_, holder, heard) = self.sessions.of(name)?;
        if holder.addr == peer.addr {
            return None;
        }
        let holder = holder.addr;
        let ran = self.ran.now.unwrap_or(now);
        match self.contests.judge(name, ran, heard) {
            Contest::Undecided => Some(vec![self.ping(now, holder, true)]),
            Contest::HolderLives => Some(vec![self.conflict(session, holder, peer.addr)]),
            Contest::HolderGone => None,
        }
    }

    /// The later start gives way.
    fn contest_own_name(&mut self, session: Session, peer: &Peer) -> Vec<Effect> {
        let theirs = (peer.owner.generation, session);
        if theirs < (self.owner.generation, self.session) {
            return vec![Effect::NameTaken(peer.addr)];
        }
        vec![self.conflict(session, self.addr, peer.addr)]
    }

    fn conflict(&mut self, session: Session, taken_by: SocketAddr, to: SocketAddr) -> Effect {
        let conflict = wire::encode(&wire::Conflict { session, taken_by });
        self.frame(Kind::Conflict, &conflict, to)
    }

    fn take_push(
        &mut self,
        now: Instant,
        session: Session,
        peer: Peer,
        payload: &[u8],
    ) -> Result<Vec<Effect>, Malformed> {
        let push: wire::Push<'_> = wire::decode(payload)?;
        let mut changes = Vec::with_capacity(push.changes.len());
        for (slot, value) in push.changes {
            match slots::parse_value(slot, value) {
                Some(cell) => changes.push(Change { slot, cell }),
                None => self.counters.count(Dropped::NotASlot),
            }
        }
        let ack = wire::encode(&wire::PushAck { id: push.id });
        let ack = self.frame(Kind::PushAck, &ack, peer.addr);
        let owner = if let Some(generation) = push.former {
            Owner { name: self.owner.name.clone(), generation }
        } else {
            let way = self.pings.trip(peer.addr).unwrap_or_default() / 2;
            let lag = Duration::from_micros(push.age_us.into()) + way;
            self.sessions.note_push(now, session, payload, lag);
            peer.owner
        };
        Ok(vec![Effect::Tell(Event::Changed { owner, changes }), ack])
    }

    fn take_ping(&mut self, from: SocketAddr, payload: &[u8]) -> Result<Vec<Effect>, Malformed> {
        let Some(nonce) = wire::decode::<wire::Ping>(payload)?.nonce else { return Ok(Vec::new()) };
        let pong = wire::Pong { nonce, name: self.owner.name.as_str(), generation: self.owner.generation };
        let pong = wire::encode(&pong);
        Ok(vec![self.frame(Kind::Pong, &pong, from)])
    }

    fn ping(&mut self, now: Instant, to: SocketAddr, ask: bool) -> Effect {
        let nonce = ask.then(|| self.rng.random());
        if let Some(nonce) = nonce {
            self.pings.await_answer(now, to, nonce);
        }
        let payload = wire::encode(&wire::Ping { nonce });
        self.frame(Kind::Ping, &payload, to)
    }

    fn flush(&mut self, now: Instant) -> Vec<Effect> {
        let peers: Vec<_> = self.live().map(|peer| (peer.addr, self.pings.trip(peer.addr))).collect();
        let mut effects = Vec::new();
        for outgoing in self.pusher.flush(now, &peers) {
            self.send_push(&outgoing, &mut effects);
        }
        effects
    }

    /// Every peer gets the same sealed bytes: the key, the session and the counter are the same for all.
    fn send_push(&mut self, outgoing: &Outgoing, effects: &mut Vec<Effect>) {
        let frame = self.seal(Kind::Push, &outgoing.payload);
        let sends =
            outgoing.to.iter().map(|to| Effect::Send { to: *to, kind: Kind::Push, frame: frame.clone() });
        effects.extend(sends);
    }

    fn frame(&mut self, kind: Kind, payload: &[u8], to: SocketAddr) -> Effect {
        Effect::Send { to, kind, frame: self.seal(kind, payload) }
    }

    fn seal(&mut self, kind: Kind, payload: &[u8]) -> Arc<[u8]> {
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
        self.sealer.seal(nonce, &wire::pack(header, payload)).into()
    }
}

fn standing(now: Instant, heard: Instant) -> Standing {
    match now.saturating_duration_since(heard) {
        silence if silence < DOUBT => Standing::Heard,
        silence if silence < SUSPECT => Standing::Doubtful,
        _ => Standing::Stranger,
    }
}

#[cfg(test)]
mod tests;
