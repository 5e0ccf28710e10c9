//! The protocol between agents, without a socket: frames and time come in, [`LinkEffects`] come out. Joins encryption,
//! sessions, pings, pushes, repair, the board and keys. What the agent knows of owners' slots it reads and changes through
//! [`ReplicaStore`].
//!
//! ```text
//! publish ─▶ push ─▶ session (encrypts) ═▶ frames
//! frames ═▶ handshakes (Hello, Reply, Proof) ─▶ session (decrypts, each once) ─┬▶ push, answer ─▶ changes of an owner's slots ─▶ ReplicaStore
//!                                            ├▶ ping, cards ─▶ an owner's version ─▶ repair asks for what is missing
//!                                            ├▶ digest, rows, cards ─▶ board: who there is, and where
//!                                            ├▶ copies, versions ─▶ the last means against what was missed
//!                                            └▶ key status, handover ─▶ keyring
//! ```

mod board;
mod changes;
mod conflict;
mod contest;
mod copies;
pub mod counters;
mod detour;
mod effects;
pub mod frame;
pub mod gauges;
mod handshakes;
pub mod joins;
mod judge;
mod key_exchange;
pub mod keyring;
pub mod keys;
mod look;
mod members;
pub mod noise;
mod peers;
mod ping;
mod plan;
mod push;
mod ran;
mod recent;
mod rejections;
mod repair;
mod rumours;
pub mod session;
mod watch;
mod whereabouts;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;

pub use self::effects::{Frame, LinkEffects, LinkLine};
pub use self::look::SUSPECT;
pub use self::peers::{NotBuried, PeerCard};
pub use self::plan::MESH;
pub use self::session::Peer;
pub use self::whereabouts::MAX_DATAGRAM;

use self::contest::Contests;
use self::copies::CopiesByRow;
use self::counters::{Counters, Dropped};
use self::frame::{Index, Sealed};
use self::handshakes::Handshakes;
use self::joins::Joins;
use self::keyring::{KeyId, Keyring};
use self::keys::{Filed, KeyringSummary};
use self::noise::{ClusterKey, Identity};
use self::peers::{Admission, Peers};
use self::ping::{Nearness, Pings};
use self::push::Pusher;
use self::ran::Ran;
use self::rejections::Rejections;
use self::repair::Repairs;
use self::rumours::Rumours;
use self::session::{Session, Unopened};
use self::whereabouts::HostAddresses;
use self::wire::{Kind, Malformed};
use crate::agent::{News, Offer};
use crate::complaint::Refusal;
use crate::event::PeerChange;
use crate::hostname::TunnelId;
use crate::record::{AgentName, Owner};
use crate::replica::Part;
use crate::slot::{Change, Slot, Version};

/// How often an agent compares its board with another's. What pushes missed is noticed at pings, sooner.
pub const INTERVAL: Duration = Duration::from_millis(1_200);
/// An agent without a sign of life for this long is forgotten: minutes, so that one that crashes again and again cannot
/// fill the board.
pub const DEAD_GRACE: Duration = Duration::from_secs(300);

/// So many peers are enough to have the board from: with more, boards are compared at their pace only.
const FEW: usize = 32;

/// What is known of owners' slots. The link asks it how far a copy goes, and gives it what peers sent.
pub trait ReplicaStore {
    /// Takes what peers sent. Must be quick, and must not panic.
    fn apply(&mut self, now: Instant, news: News);

    /// How far the copy of an owner's slots goes without a gap; none if there is to be no copy.
    fn version(&self, owner: &Owner) -> Option<Version>;

    /// What an owner changed after a version, from a slot on; none if that is not known without gaps.
    fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part>;

    /// What a peer is answered that can dial no record of a tunnel.
    fn offer(&mut self, now: Instant, by: &Owner, tunnel: TunnelId) -> Offer;
}

/// How an agent takes part in its cluster.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Who we are.
    pub owner: Owner,
    /// Where peers reach us.
    pub addr: SocketAddr,
    /// The private key of our identity.
    pub identity: [u8; 32],
    /// Of this program, for the operators of peers; 16 bytes at most.
    pub version: String,
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
    /// [`MESH`], or less in tests.
    pub mesh: usize,
    /// For sessions, nonces, keys and the choice of peers. Random in an agent; in a simulation, from its seed.
    pub seed: [u8; 32],
}

/// See the module.
pub struct Link {
    identity: Identity,
    cluster: String,
    keyring: Arc<Keyring>,
    cluster_keys: BTreeMap<KeyId, ClusterKey>,
    peers: Peers,
    handshakes: Handshakes,
    joins: Joins,
    pings: Pings,
    pusher: Pusher,
    repairs: Repairs,
    rumours: Rumours,
    copies: CopiesByRow,
    /// Which peer is asked next for the slots of an owner that is silent.
    turn: usize,
    contests: Contests,
    ran: Ran,
    started: Instant,
    /// When we last looked after all peers.
    looked: Option<Instant>,
    /// When all of them were judged last, and when that is to be done anew at the latest, if something asks for it.
    judged: Option<Instant>,
    judge_at: Option<Instant>,
    host: HostAddresses,
    interval: Duration,
    /// When we compare our board with a peer's next.
    next_digest: Instant,
    /// When somebody was back last who had been away for long.
    reunited: Option<Instant>,
    /// Why the key file is not written.
    key_problem: Option<String>,
    /// Whether peers know a later start of ours, or more of this one.
    is_superseded: bool,
    rejections: Rejections,
    /// When the log last said that two agents have our name.
    conflict_logged: Option<Instant>,
    /// The live peers that were reported last.
    reported: Vec<Peer>,
    counters: Arc<Counters>,
    rng: StdRng,
    effects: LinkEffects,
    /// Whether it sends what a later version would: fields more in every payload, and kinds more.
    #[cfg(test)]
    is_later: bool,
}

impl Link {
    /// A link that starts now.
    pub fn new(now: Instant, settings: LinkSettings, counters: Arc<Counters>) -> Self {
        let LinkSettings {
            owner,
            addr,
            identity,
            version,
            keyring,
            key_file,
            cluster,
            interval,
            dead_grace,
            mesh,
            seed,
        } = settings;
        let mut rng = StdRng::from_seed(seed);
        let (filed, key_problem) = if key_file {
            (Filed::Written, None)
        } else {
            (Filed::MemoryOnly, Some("there is no --key-file".to_owned()))
        };
        let keys = KeyringSummary::of(&keyring, filed);
        Self {
            identity: Identity::new(&identity),
            peers: Peers::new(Peer { owner, addr }, &version, keys, dead_grace, mesh),
            cluster_keys: keyring.for_cluster(&cluster),
            cluster,
            handshakes: Handshakes::new(now, rng.random()),
            joins: Joins::new(),
            pings: Pings::default(),
            pusher: Pusher::default(),
            repairs: Repairs::default(),
            rumours: Rumours::default(),
            copies: CopiesByRow::default(),
            turn: 0,
            contests: Contests::default(),
            ran: Ran::default(),
            started: now,
            looked: None,
            judged: None,
            judge_at: None,
            host: HostAddresses::default(),
            interval,
            next_digest: now,
            reunited: None,
            key_problem,
            is_superseded: false,
            rejections: Rejections::default(),
            conflict_logged: None,
            reported: Vec::new(),
            keyring: Arc::new(keyring),
            counters,
            rng,
            effects: LinkEffects::default(),
            #[cfg(test)]
            is_later: false,
        }
    }

    /// The name that frames are sent under.
    pub fn name(&self) -> &AgentName {
        &self.us().owner.name
    }

    fn us(&self) -> &Peer {
        &self.peers.own.peer
    }

    /// The keyring in force. [`LinkEffects::keyring`] replaces it.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Takes a frame that came from an address, by a datagram or a connection.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> LinkEffects {
        self.ran.advance(now);
        if let Err(why) = self.take(now, from, bytes, replicas) {
            self.counters.count(why);
            if why == Dropped::Version {
                self.take_other_version(now, from, bytes);
            }
            if matches!(why, Dropped::NotAFrame | Dropped::Version | Dropped::UnknownKey | Dropped::BadSeal) {
                self.reject(now, from.ip(), why);
            }
        }
        self.take_effects()
    }

    /// Takes changes of our own slots, to be pushed to every peer.
    pub fn handle_changes(&mut self, now: Instant, changes: Vec<Change>) -> LinkEffects {
        self.note_own(&changes);
        if self.live().next().is_some() {
            self.pusher.add(now, changes);
            self.flush(now);
        } else {
            self.pusher.skip(&changes);
        }
        self.take_effects()
    }

    /// Does what is due: fresh pushes, pushes to repeat, questions, digests, and what there is to do for each peer.
    pub fn handle_due(&mut self, now: Instant, replicas: &mut dyn ReplicaStore) -> LinkEffects {
        // To be found before the clock is looked at, from which the next look is counted.
        let is_look_due = self.next_look().is_none_or(|at| at <= now);
        let ran = self.ran.advance(now);
        self.flush(now);
        let (again, silent) = self.pusher.retry(now);
        for outgoing in again {
            self.send_push(&outgoing);
        }
        self.counters.set_pushes_given_up(self.pusher.given_up);
        for to in silent {
            // Of one from which nothing is expected we would not notice that it does not know our session.
            if self.peers.silence(ran, to).is_none() {
                self.ping(now, to, true);
            }
        }
        for ask in self.repairs.due(now) {
            self.send(Kind::Question, &ask.payload, ask.peer);
        }
        if self.next_digest <= now {
            self.compare_boards(now, ran, replicas);
        }
        if is_look_due {
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
        from: SocketAddr,
        bytes: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Dropped> {
        let sealed = frame::read(bytes)?;
        match sealed {
            Sealed::Hello { index, .. } => {
                if let Err(why) = self.take_hello(now, from, &sealed) {
                    self.turn_away(now, from, index, why);
                    return Err(why);
                }
            }
            Sealed::Refusal { to, why } => self.take_refusal(to, why)?,
            Sealed::Reply { .. } => self.take_reply(now, &sealed)?,
            Sealed::Proof { .. } => self.take_proof(now, from, &sealed, replicas)?,
            Sealed::Cookie { to, cookie, code, coded } => self.take_cookie(now, to, cookie, &code, coded)?,
            Sealed::Data { to, counter, encrypted } => {
                let ran = self.ran.now.unwrap_or(now);
                let (peer, plain) = match self.peers.open(ran, to, counter, encrypted) {
                    Err(Unopened::Unknown) => {
                        self.take_confirmation(now, to, (counter, encrypted), replicas)?
                    }
                    Err(why) => {
                        self.meet_again(now, to, why);
                        return Err(why.into());
                    }
                    Ok(opened) => opened,
                };
                self.effects.is_fresh = true;
                let by = peer.owner.clone();
                if self.peers.end_doubt(&by.name) {
                    replicas.apply(now, News::Heard { owner: by.clone(), trip: None });
                }
                self.notice_way(now, &peer, from, bytes.len());
                if self.take_data(now, from, peer, &plain, replicas).is_err() {
                    self.counters.count(Dropped::Malformed);
                    replicas.apply(now, News::Refused { by, why: Refusal::Malformed, times: 1 });
                }
            }
        }
        Ok(())
    }

    fn take_data(
        &mut self,
        now: Instant,
        from: SocketAddr,
        peer: Peer,
        plain: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let (kind, payload) = wire::split(plain)?;
        let Some(kind) = Kind::from_number(kind) else {
            self.counters.count(Dropped::UnknownKind);
            return Ok(());
        };
        self.counters.receive(kind);
        match kind {
            // Of handshakes, which are frames of their own.
            Kind::Hello | Kind::Reply | Kind::Proof | Kind::Cookie | Kind::Refusal => return Err(Malformed),
            Kind::Digest => {
                let digest: wire::Digest<'_> = self.read(payload)?;
                self.take_digest(&peer, &digest);
                self.compare_copies(now, &peer, digest.copies, replicas);
            }
            Kind::Cards => {
                let cards: wire::Cards<'_> = self.read(payload)?;
                self.take_cards(now, &peer, &cards, replicas)?;
            }
            Kind::Push => self.take_push(now, peer, payload, replicas)?,
            Kind::PushAck => {
                let ack: wire::PushAck = self.read(payload)?;
                if let Some(trip) = self.pusher.acked(now, ack.id, peer.addr) {
                    self.pings.measured(now, peer.addr, trip);
                    self.note_answer(now, &peer.owner.name, trip);
                }
            }
            Kind::Ping => {
                let (ping, more): (wire::Ping, _) = wire::read(payload)?;
                let is_sparse = !more.is_empty() && self.take_rumours(now, &peer, more, replicas);
                self.peers.note_sparse(&peer.owner.name, is_sparse);
                if let Some(nonce) = ping.nonce {
                    self.send(Kind::Pong, &wire::encode(&wire::Pong { nonce }), peer.addr);
                }
                if ping.revision < self.peers.own.revision {
                    self.introduce(peer.addr);
                }
                self.pings.note_lost(peer.addr, ping.lost);
                let told = self.peers.note_told(&peer.owner.name, ping.told);
                self.ask(now, &peer.owner, Some(told), None, replicas);
                if let Some(ran) = self.peers.note_ran(&peer.owner.name, ping.ran) {
                    let generation = peer.owner.generation;
                    let superseded = wire::encode(&wire::Superseded { generation, ran });
                    self.send(Kind::Superseded, &superseded, peer.addr);
                }
            }
            Kind::Pong => {
                let pong: wire::Pong = self.read(payload)?;
                self.notice_answer(&peer, from, pong.nonce);
                if let Some(took) = self.pings.answered(now, peer.addr, pong.nonce) {
                    self.note_answer(now, &peer.owner.name, took);
                    let trip = self.pings.trip(peer.addr);
                    if trip.is_some() {
                        replicas.apply(now, News::Heard { owner: peer.owner, trip });
                    }
                }
            }
            Kind::Conflict => {
                let conflict: wire::Conflict = self.read(payload)?;
                self.take_conflict(now, conflict.taken_by);
            }
            Kind::Superseded => {
                let superseded: wire::Superseded = self.read(payload)?;
                self.take_superseded(&superseded);
            }
            Kind::Handover => self.take_handover(now, &peer, payload)?,
            Kind::Question => self.take_question(peer.addr, payload, replicas)?,
            Kind::Answer => self.take_answer(now, &peer, payload, replicas)?,
            Kind::Seek => self.take_seek(now, &peer, payload, replicas)?,
            Kind::Offer => self.take_offer(now, peer.owner, payload, replicas)?,
            Kind::Rows => {
                let rows: wire::Rows<'_> = self.read(payload)?;
                self.take_rows(&peer, &rows);
            }
            Kind::Copies => {
                let copies: wire::Rows<'_> = self.read(payload)?;
                self.take_copies(now, &peer, &copies, replicas);
            }
            Kind::Versions => {
                let versions: wire::Versions<'_> = self.read(payload)?;
                self.take_versions(now, &peer, versions, replicas);
            }
            Kind::Alert => {
                let alert: wire::Alert<'_> = self.read(payload)?;
                self.take_alerts(now, &peer, &alert);
            }
        }
        Ok(())
    }

    /// Admits the process at the other end of a session, unless its name is another live one's. Nothing if not.
    fn admit(
        &mut self,
        now: Instant,
        index: Index,
        session: Session,
        replicas: &mut dyn ReplicaStore,
    ) -> Option<()> {
        let is_held = self.peers.holder(&session.peer.owner.name).is_some_and(|holder| !holder.is_stale);
        let session = if is_held { self.uncontested(now, session)? } else { session };
        if let Some(later) = self.peers.later_start(&session.peer.owner) {
            self.supersede(session, later);
            return None;
        }
        let session = if is_held { session } else { self.uncontested(now, session)? };
        let ran = self.ran.now.unwrap_or(now);
        let peer = session.peer.clone();
        let via = session.via;
        let Admission { goes_on, moved, former, changes, recent, forgotten, was_forgotten, displaced } =
            self.peers.admit(ran, index, session)?;
        if let Some((owner, silence)) = displaced {
            // Another agent is where it was: it is gone, or has to be met anew.
            self.counters.suspect();
            replicas.apply(now, News::Silent { owner, silence });
        }
        if let Some(from) = moved {
            self.retarget(now);
            self.pings.approached(now, from, Nearness::Stranger);
        }
        self.pings.add_target(now, peer.addr);
        // Whoever began waits for a frame of ours, to know that it is admitted.
        if via == peer.addr {
            self.ping(now, peer.addr, true);
        } else {
            self.ask_both(now, &peer);
        }
        if goes_on {
            self.give_keys(now, ran);
            return Some(());
        }
        self.forget(now, forgotten, replicas);
        let leg = self.pings.leg(peer.addr);
        replicas.apply(now, News::Heard { owner: peer.owner.clone(), trip: leg.trip });
        for change in changes {
            replicas.apply(now, News::Differs { owner: peer.owner.clone(), change });
        }
        self.introduce(peer.addr);
        // Whoever has many peers has the board from them, and a newcomer needs it from a few of them.
        let is_reunion = was_forgotten && self.reunite(now);
        if is_reunion || self.live().nth(FEW).is_none() {
            self.send_digest(now, ran, peer.addr, replicas);
        }
        self.ask(now, &peer.owner, None, None, replicas);
        // Where there are many, those who watch it are enough to say back what its former start said.
        if let Some(former) = former.filter(|_| self.peers.watches(&peer.owner.name)) {
            self.say_back(now, former, &recent, leg);
        }
        if let Some(from) = moved {
            let Peer { owner, addr: to } = peer;
            replicas.apply(now, News::Differs { owner, change: PeerChange::Address { from, to } });
        } else if !self.reported.contains(&peer) {
            self.effects.lines.push(LinkLine::Joined { peer });
        }
        // Once for all that come at a time.
        self.judge_by(now);
        Some(())
    }

    /// A peer answered a question after so long.
    fn note_answer(&mut self, now: Instant, name: &AgentName, took: Duration) {
        let ran = self.ran.now.unwrap_or(now);
        self.peers.answered(ran.checked_sub(took).unwrap_or(ran), name);
    }

    fn ping(&mut self, now: Instant, to: SocketAddr, ask: bool) {
        let nonce = ask.then(|| self.rng.random());
        if let Some(nonce) = nonce {
            self.pings.await_answer(now, to, nonce);
            self.peers.asked(self.ran.now.unwrap_or(now), to);
        }
        let ping = self.ping_with(now, nonce, to);
        self.send(Kind::Ping, &ping, to);
    }

    fn ping_with(&mut self, now: Instant, nonce: Option<u64>, to: SocketAddr) -> Vec<u8> {
        let revision = self.peers.told_revision(to);
        let lost = self.peers.lost_from(to);
        let ran = self.ran.since(self.started);
        let mut ping = wire::encode(&wire::Ping { nonce, told: self.pusher.told(), revision, lost, ran });
        if self.peers.plan.is_sparse() {
            ping.extend_from_slice(self.rumours.spell(now));
        }
        ping
    }

    /// Reads a payload, and counts what a later version has appended to it.
    fn read<'a, T: Deserialize<'a>>(&self, payload: &'a [u8]) -> Result<T, Malformed> {
        let (read, more) = wire::read(payload)?;
        if !more.is_empty() {
            self.counters.count(Dropped::UnknownField);
        }
        Ok(read)
    }

    /// Encrypts a payload for the process at an address; nothing goes to whom we have no session with.
    fn send(&mut self, kind: Kind, payload: &[u8], to: SocketAddr) {
        self.send_plain(kind, &wire::pack(kind, payload), to);
    }

    fn send_plain(&mut self, kind: Kind, plain: &[u8], to: SocketAddr) {
        #[cfg(test)]
        if std::mem::take(&mut self.is_later) {
            let later = [plain, b"fields that nobody knows yet"].concat();
            self.send_plain(kind, &later, to);
            self.send_plain(kind, b"\xc8what nobody knows yet", to);
            self.is_later = true;
            return;
        }
        self.send_via(kind, plain, to, None);
    }

    /// The same for a frame that goes to a certain address, or else to wherever frames of its peer go.
    fn send_via(&mut self, kind: Kind, plain: &[u8], to: SocketAddr, via: Option<SocketAddr>) {
        // Noise encrypts nothing that is longer. Nothing here should be.
        if plain.len() > 1 + wire::MAX_PAYLOAD {
            debug_assert!(false, "{kind:?} of {} bytes", plain.len());
            self.counters.count(Dropped::SendFailed);
            return;
        }
        let way = via.unwrap_or_else(|| self.peers.route(to));
        let Some(session) = self.peers.to(to) else { return };
        let (counter, encrypted) = session.channel.encrypt(plain);
        let bytes = frame::data(session.theirs, counter, &encrypted);
        let to = if bytes.len() > MAX_DATAGRAM { to } else { way };
        self.transmit(kind, bytes, to);
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
