//! The protocol between agents, without a socket: what arrives goes in, [`Effect`]s come out. Joins sealing,
//! sessions, push and pings; passes chitchat's messages through.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::counters::{Counters, Dropped};
use super::ping::Pings;
use super::push::{Outgoing, Pusher};
use super::seal::Sealer;
use super::session::{Peer, Sessions, Verdict};
use super::slots;
use super::wire::{self, Header, Kind, Malformed, Session};
use crate::domain::record::Owner;
use crate::domain::slot::Change;

/// A peer not heard for this long gets no pushes: they would only be repeated in vain. Its first frame
/// afterwards starts an exchange that brings it up to date.
const SILENT: Duration = Duration::from_secs(5);
/// A session not heard for this long has to answer a challenge again.
const FORGOTTEN: Duration = Duration::from_secs(600);

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
    /// A peer said these changes of its own slots.
    Apply {
        /// Who.
        owner: Owner,
        /// What.
        changes: Vec<Change>,
    },
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
            counters,
            rng,
        }
    }

    /// Takes an opened frame.
    pub fn handle_frame(&mut self, now: Instant, plain: &[u8]) -> Vec<Effect> {
        self.take(now, plain).unwrap_or_else(|Malformed| {
            self.counters.count(Dropped::Malformed);
            Vec::new()
        })
    }

    /// Takes changes of our own slots, to be told to every peer.
    pub fn handle_changes(&mut self, now: Instant, changes: Vec<Change>) -> Vec<Effect> {
        self.pusher.add(changes);
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
        if let Some(then) = now.checked_sub(FORGOTTEN) {
            self.sessions.forget_silent(then);
        }
        let mut effects = self.flush(now);
        for outgoing in self.pusher.retry(now) {
            self.send_push(&outgoing, &mut effects);
        }
        self.counters.set_pushes_given_up(self.pusher.given_up);
        let admitted: HashSet<SocketAddr> = self.live(now).map(|peer| peer.addr).collect();
        for due in self.pings.due(now, |addr| admitted.contains(&addr)) {
            effects.push(self.ping(now, due.to, due.ask));
            // The exchange at its admission was lost, or it has been dead for so long that chitchat forgot it.
            if admitted.contains(&due.to) && !self.members.contains(&due.to) {
                effects.push(Effect::Handshake(due.to));
            }
        }
        effects
    }

    /// When [`Self::handle_deadline`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.pusher.next_deadline().into_iter().chain(self.pings.next_deadline()).min()
    }

    /// The admitted peers heard of late.
    pub fn live(&self, now: Instant) -> impl Iterator<Item = &Peer> {
        let heard = move |at: Instant| now.saturating_duration_since(at) < SILENT;
        self.sessions.peers().filter(move |(_, at)| heard(*at)).map(|(peer, _)| peer)
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
        match self.sessions.check(now, header.session, header.counter) {
            Verdict::Fresh { silence } => {
                self.counters.receive(kind);
                let mut effects = self.take_fresh(now, &header, kind, payload)?;
                if silence >= SILENT {
                    effects.push(Effect::Handshake(header.from));
                }
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
            Kind::Push => self.take_push(peer, &payload),
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
                self.pings.answered(now, peer.addr, pong.nonce);
                Ok(Vec::new())
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
        // Two processes with one full name would overwrite each other's records.
        let impostor = peer.owner == self.owner;
        if impostor
            || !self.pings.answered(now, peer.addr, pong.nonce)
            || !self.sessions.admit(now, header.session, header.counter, peer.clone())
        {
            self.counters.count(Dropped::Stranger);
            return Ok(Vec::new());
        }
        self.counters.receive(Kind::Pong);
        Ok(vec![Effect::Handshake(peer.addr), Effect::Admitted(peer)])
    }

    fn take_push(&mut self, peer: Peer, payload: &[u8]) -> Result<Vec<Effect>, Malformed> {
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
        Ok(vec![Effect::Apply { owner: peer.owner, changes }, ack])
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
        let peers: Vec<_> = self.live(now).map(|peer| (peer.addr, self.pings.trip(peer.addr))).collect();
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

#[cfg(test)]
mod tests;
