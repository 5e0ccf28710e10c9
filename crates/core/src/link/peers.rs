//! The one table of peers: all that is known of every other agent, whether it is heard, silent or only known from others.
//! Liveness, the board, sessions, keys and membership ask it. One rule says when a peer is forgotten, [`Peers::judge`].
//!
//! Time, here, is time in which this process ran: a pause of our own is no silence of others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::{RowHashes, row};
use super::copies::Comparison;
use super::frame::Index;
use super::keyring::KeyId;
use super::keys::KeyringSummary;
use super::look::is_live;
use super::ping::Nearness;
use super::plan::Plan;
use super::recent::Recent;
use super::session::{LINGER, Peer, Session, Unopened};
use super::watch::{Alert, Asked, Telling, Tie};
use super::whereabouts::{Way, free};
use crate::event::PeerChange;
use crate::record::{AgentName, Generation, Owner};
use crate::replicas::MAX_AGENTS;
use crate::slot::Version;

/// Peers that are known at a time: five times as many as a cluster is designed for. A bound against made-up ones.
pub(crate) const MAX_KNOWN: usize = MAX_AGENTS;
/// A silent peer is expected back for this long, unless it left: a repair, and a weekend before it. Until then a key that it
/// may need is not removed.
pub(super) const EXPECTED: Duration = Duration::from_secs(7 * 86_400);
/// How often peers are asked for what a former start of this agent changed, until one tells: perhaps none knows.
const ROUNDS: u32 = 8;

/// See the module.
pub(crate) struct Peers {
    pub(super) own: OwnCard,
    /// The records of an agent that gave no sign of life for this long are forgotten.
    pub(super) grace: Duration,
    pub(super) table: BTreeMap<AgentName, KnownPeer>,
    /// By our index.
    pub(super) sessions: BTreeMap<Index, Session>,
    /// Who is at an address, of those that a session was made with.
    pub(super) addresses: BTreeMap<SocketAddr, AgentName>,
    /// Former starts of this agent that peers remember.
    pub(super) own_former: BTreeMap<Generation, OwnFormer>,
    /// Of the board.
    pub(super) rows: RowHashes,
    /// Who watches whom.
    pub(super) plan: Plan,
    /// Above so many agents not everybody watches everybody.
    pub(super) mesh: usize,
    /// Whether so many are asked for a sign of life that the questions have to be fewer.
    pub(super) asks_many: bool,
    /// Whom we watch, where not everybody does.
    pub(super) watched: Vec<AgentName>,
    /// When a frame of anybody came last.
    pub(super) latest: Option<Instant>,
}

/// What this agent states of itself.
pub(super) struct OwnCard {
    pub(super) peer: Peer,
    /// Rises with every change of what is stated, but for the version.
    pub(super) revision: u64,
    pub(super) left: bool,
    pub(super) version: Version,
    pub(super) program: Arc<str>,
    pub(super) keys: KeyringSummary,
}

/// What is known of a peer.
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(super) struct KnownPeer {
    /// Its last start that is known, and where frames for it are sent.
    pub(super) peer: Peer,
    /// In which row of the board its name is.
    pub(super) row: u8,
    /// Its identity, once it was met. Its name is pinned to that.
    identity: Option<[u8; 32]>,
    /// Of what it stated last.
    pub(super) revision: u64,
    /// Whether it stated that to us. Then nobody else's word counts.
    pub(super) is_own_word: bool,
    pub(super) left: bool,
    /// Whether an operator said that it will not come back: then it has left as well.
    pub(super) is_buried: bool,
    /// How far its slots have come.
    pub(super) version: Version,
    pub(super) program: Arc<str>,
    /// Its keys; none until it, or somebody else, told.
    pub(super) keys: Option<KeyringSummary>,
    /// Its last sign of life, here or at somebody else's.
    pub(super) sign: Instant,
    /// The start that this one replaced, and when: forgotten later, because others may still repair from it.
    pub(super) former: Option<(Generation, Instant)>,
    /// Whether its records are forgotten; then it is only expected back.
    pub(super) is_forgotten: bool,
    /// Until when nothing large is sent to it, because TCP does not get through.
    pub(super) blocked: Option<Instant>,
    /// When our keyring may be given to it again, and the pause after that.
    pub(super) give: Option<(Instant, Duration)>,
    /// Whether it was met, or is on our host: then a loopback address of it may be ours, too.
    pub(super) is_near: bool,
    pub(super) tie: Tie,
    /// How near it was found last, and as far as can be before.
    pub(super) near: Nearness,
    /// Whether the plan has it.
    pub(super) is_planned: bool,
    /// What its watchers say of it.
    pub(super) alerts: Vec<Alert>,
    /// What we say of it as its watcher.
    pub(super) telling: Option<Telling>,
    pub(super) contact: Option<PeerContact>,
}

/// What sessions with a peer's process leave.
pub(super) struct PeerContact {
    /// Our index of the session that frames are sent in.
    pub(super) current: Index,
    /// Another one, whose frames are taken until then.
    pub(super) other: Option<(Index, Instant)>,
    /// The one of these that the last frame came in: of two handshakes that crossed, the peer may send in the other one.
    heard_in: Index,
    pub(super) heard: Instant,
    /// So far its watchers vouch for it.
    pub(super) vouched: Instant,
    /// Since when we expect its signs of life.
    pub(super) expected: Instant,
    /// When it was asked for a sign of life that is not expected, and has not answered.
    pub(super) asked: Option<Asked>,
    /// When it last answered a question of ours, or was admitted.
    pub(super) answered: Instant,
    /// Whether not everybody watches everybody, to it.
    pub(super) is_sparse: bool,
    /// Whether it was silent for too long: its frames count for nothing until another handshake.
    pub(super) is_stale: bool,
    /// Whether it was silent for a moment.
    pub(super) is_doubted: bool,
    /// How far its slots had come at its last ping.
    told: Version,
    /// For how many seconds it had run at most, as it said.
    ran: u32,
    recent: Recent,
    comparison: Comparison,
    pub(super) way: Way,
}

impl PeerContact {
    /// It answered. An answer in another session than the one that frames are sent in does not say that the peer knows this one:
    /// after two handshakes that crossed, frames that got lost may have left each end with another one.
    fn take_answer(&mut self) {
        if self.heard_in == self.current {
            self.asked = None;
        }
    }
}

/// A former start of this agent.
pub(super) struct OwnFormer {
    /// Since when we know of it.
    pub(super) since: Instant,
    /// How often peers are to be asked yet for what it changed: no ping says that something of it is missing.
    rounds: u32,
}

/// What is known of a peer, whether it is heard or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCard {
    /// Its last start that is known, and where its gossip is, or was last.
    pub peer: Peer,
    /// The version of its program.
    pub program: Arc<str>,
    /// The key that it seals with; none until that is known.
    pub seals: Option<KeyId>,
}

/// Why an agent is not forgotten at an operator's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBuried {
    /// No such agent is known, or it left.
    #[error("no agent of that name is known here, or it has left: `gossd members` lists those that are")]
    Unknown,
    /// It is heard.
    #[error("it is heard: only an agent that is silent can be forgotten; `gossd leave` there ends it")]
    Alive,
}

/// Who holds a name.
pub(super) struct NameHolder {
    pub(super) peer: Peer,
    pub(super) identity: [u8; 32],
    /// Its last sign of life.
    pub(super) heard: Instant,
    /// Whether its sessions take nothing any more.
    pub(super) is_stale: bool,
}

/// What an admission changed.
#[derive(Default)]
pub(super) struct Admission {
    /// Whether the same process was admitted before, and is not stale.
    pub(super) goes_on: bool,
    /// Where the same process was before, if that was elsewhere.
    pub(super) moved: Option<SocketAddr>,
    /// The start of the agent that was known before, if it is another one.
    pub(super) former: Option<Generation>,
    /// In what it differs from before.
    pub(super) changes: Vec<PeerChange>,
    /// What that start pushed last.
    pub(super) recent: Recent,
    /// Starts that are not remembered any more.
    pub(super) forgotten: Vec<Owner>,
    /// Whether it was only expected back.
    pub(super) was_forgotten: bool,
    /// The agent that was at its address, and for how long it has been silent.
    pub(super) displaced: Option<(Owner, Duration)>,
}

impl Peers {
    /// Knows nobody.
    pub(super) fn new(us: Peer, program: &str, keys: KeyringSummary, grace: Duration, mesh: usize) -> Self {
        Self {
            own: OwnCard { peer: us, revision: 1, left: false, version: 0, program: program.into(), keys },
            grace,
            table: BTreeMap::new(),
            sessions: BTreeMap::new(),
            addresses: BTreeMap::new(),
            own_former: BTreeMap::new(),
            rows: RowHashes::new(),
            plan: Plan::default(),
            mesh,
            asks_many: false,
            watched: Vec::new(),
            latest: None,
        }
    }

    /// States something else of ourselves from now on.
    pub(super) fn state(&mut self, change: impl FnOnce(&mut OwnCard)) {
        change(&mut self.own);
        self.own.revision += 1;
        self.rows.change(row(self.own.peer.owner.name.as_str()));
    }

    /// Decrypts a frame of an admitted session, once, and notes that its peer lives.
    pub(super) fn open(
        &mut self,
        ran: Instant,
        index: Index,
        counter: u64,
        encrypted: &[u8],
    ) -> Result<(Peer, Vec<u8>), Unopened> {
        let session = self.sessions.get_mut(&index).ok_or(Unopened::Unknown)?;
        let known = self.table.get_mut(&session.peer.owner.name).ok_or(Unopened::Unknown)?;
        let contact = known.contact.as_mut().ok_or(Unopened::Unknown)?;
        if contact.is_stale {
            return Err(Unopened::Stale);
        }
        let plain = session.open(counter, encrypted)?;
        (contact.heard, contact.heard_in, known.sign) = (ran, index, ran);
        self.latest = Some(ran);
        if let Some((_, until)) = contact.other.as_mut().filter(|(other, _)| *other == index) {
            *until = ran + LINGER;
        }
        Ok((known.peer.clone(), plain))
    }

    /// Admits the process at the other end of a session, in the place of all others of its agent and at its address. None
    /// if there is no room.
    pub(super) fn admit(&mut self, ran: Instant, index: Index, session: Session) -> Option<Admission> {
        let (peer, identity) = (session.peer.clone(), session.channel.identity());
        let name = &peer.owner.name;
        let mut admission = Admission::default();
        if let Some(other) = self.addresses.get(&peer.addr).filter(|other| *other != name).cloned() {
            // That it is there, and not only says so, is known if it was met there.
            let is_there = session.via == peer.addr;
            admission.displaced =
                self.table.get(&other).filter(|_| is_there).and_then(|other| other.silence(ran));
            self.lose_contact(&other);
        }
        if !self.table.contains_key(name) {
            admission.forgotten = self.make_room(ran, None)?;
        }
        let before = self.table.remove(name);
        let program = session.program.clone();
        let mut known = KnownPeer::new(ran, peer.clone(), program);
        known.identity = Some(identity);
        let mut contact = PeerContact {
            current: index,
            other: None,
            heard_in: index,
            heard: ran,
            vouched: ran,
            expected: ran,
            asked: None,
            answered: ran,
            is_sparse: false,
            is_stale: false,
            is_doubted: false,
            told: 0,
            ran: 0,
            recent: Recent::default(),
            comparison: Comparison::default(),
            way: Way::proven(session.via, peer.addr),
        };
        known.is_near = true;
        if let Some(mut before) = before {
            admission.was_forgotten = before.is_forgotten;
            let is_same =
                before.peer.owner == peer.owner && before.identity.is_none_or(|pinned| pinned == identity);
            if let Some(mut former) = before.contact.take() {
                free(&mut self.addresses, &before.peer);
                if let Some((other, _)) = former.other {
                    self.sessions.remove(&other);
                }
                let current = self.sessions.get(&former.current).filter(|_| is_same && !former.is_stale);
                match current.map(|current| current.is_before(&session)) {
                    None => drop(self.sessions.remove(&former.current)),
                    Some(false) => contact.other = Some((former.current, ran + LINGER)),
                    // Both ends of two handshakes that crossed go on with the same one.
                    Some(true) => {
                        (contact.current, contact.other) = (former.current, Some((index, ran + LINGER)));
                    }
                }
                if is_same {
                    admission.moved = (before.peer.addr != peer.addr).then_some(before.peer.addr);
                    admission.goes_on = !former.is_stale && before.peer == peer;
                    (contact.told, contact.ran, contact.recent) = (former.told, former.ran, former.recent);
                } else {
                    admission.recent = std::mem::take(&mut former.recent);
                }
            }
            known.take_place_of(ran, before, &mut admission);
        }
        known.contact = Some(contact);
        self.rows.change(known.row);
        self.addresses.insert(peer.addr, name.clone());
        self.table.insert(name.clone(), known);
        self.sessions.insert(index, session);
        Some(admission)
    }

    /// The last start of an agent that is known, if it is a later one.
    pub(super) fn later_start(&self, owner: &Owner) -> Option<Generation> {
        let known = self.table.get(&owner.name)?.peer.owner.generation;
        (known > owner.generation).then_some(known)
    }

    /// Where the peer of a session is.
    pub(super) fn address_of(&self, index: Index) -> Option<SocketAddr> {
        self.sessions.get(&index).map(|session| session.peer.addr)
    }

    /// The revision of its card that the peer at an address told us itself; 0 for none.
    pub(super) fn told_revision(&self, addr: SocketAddr) -> u64 {
        let known = self.addresses.get(&addr).and_then(|name| self.table.get(name));
        known.filter(|known| known.is_own_word).map_or(0, |known| known.revision)
    }

    /// How many in a thousand of the last frames from whoever is at an address did not arrive.
    pub(super) fn lost_from(&self, addr: SocketAddr) -> u16 {
        let contact = self.addresses.get(&addr).and_then(|name| self.table.get(name)?.contact.as_ref());
        contact.and_then(|contact| self.sessions.get(&contact.heard_in)).map_or(0, Session::lost)
    }

    /// Who is at an address, of those that a session was made with.
    pub(super) fn at(&self, addr: SocketAddr) -> Option<&AgentName> {
        self.addresses.get(&addr)
    }

    /// The session in which frames are sent to an address.
    pub(super) fn to(&mut self, addr: SocketAddr) -> Option<&mut Session> {
        let contact = self.table.get(self.addresses.get(&addr)?)?.contact.as_ref()?;
        self.sessions.get_mut(&contact.current)
    }

    /// Who holds a name, once it was met.
    pub(super) fn holder(&self, name: &AgentName) -> Option<NameHolder> {
        let known = self.table.get(name).filter(|known| !known.left)?;
        let contact = known.contact.as_ref();
        Some(NameHolder {
            peer: known.peer.clone(),
            identity: known.identity?,
            heard: contact.map_or(known.sign, |contact| contact.heard),
            is_stale: contact.is_none_or(|contact| contact.is_stale),
        })
    }

    /// Remembers what a peer pushed.
    pub(super) fn note_push(&mut self, now: Instant, name: &AgentName, id: u64, push: &[u8]) {
        if let Some(contact) = self.contact(name) {
            contact.recent.note(now, id, push);
        }
    }

    /// Remembers how far a peer's slots have come, and gives how far they had at the ping before: pushes since are perhaps
    /// still under way, those before should be here. An agent that others watch pings seldom: then how far they have come now.
    pub(super) fn note_told(&mut self, name: &AgentName, told: Version) -> Version {
        if let Some(known) = self.table.get_mut(name) {
            known.version = known.version.max(told.min(crate::slot::MAX_VERSION));
        }
        let watches = self.watches(name);
        let before = self.contact(name).map_or(0, |contact| std::mem::replace(&mut contact.told, told));
        if watches { before } else { told }
    }

    /// Remembers for how many seconds a peer has run. If it has said that it had run for longer, that: its memory was put back
    /// meanwhile, or the ping is a late one.
    pub(super) fn note_ran(&mut self, name: &AgentName, ran: u32) -> Option<u32> {
        let contact = self.contact(name)?;
        contact.ran = contact.ran.max(ran);
        (contact.ran > ran).then_some(contact.ran)
    }

    fn contact(&mut self, name: &AgentName) -> Option<&mut PeerContact> {
        self.table.get_mut(name)?.contact.as_mut()
    }

    /// How near whoever is at an address is: a stranger without a session.
    pub(super) fn nearness(&self, ran: Instant, addr: SocketAddr) -> Nearness {
        let known = self.addresses.get(&addr).and_then(|name| self.table.get(name));
        let known = known.filter(|known| known.peer.addr == addr);
        let how = (self.plan.is_sparse(), self.asks_many);
        known.map_or(Nearness::Stranger, |known| known.nearness(ran, &self.sessions, how))
    }

    /// The same, for a ping that is planned by it.
    pub(super) fn find_nearness(&mut self, ran: Instant, addr: SocketAddr) -> Nearness {
        let near = self.nearness(ran, addr);
        let known = self.addresses.get(&addr).and_then(|name| self.table.get_mut(name));
        if let Some(known) = known.filter(|known| known.peer.addr == addr) {
            known.near = near;
        }
        near
    }

    /// How long the peer at an address has been silent, if we expect or asked for a sign of life.
    pub(super) fn silence(&self, ran: Instant, addr: SocketAddr) -> Option<Duration> {
        let known = self.table.get(self.addresses.get(&addr)?)?;
        let since = known.contact.as_ref()?.silent_since(known.tie)?;
        Some(ran.saturating_duration_since(since))
    }

    /// For how long whoever is at an address has not been heard.
    pub(super) fn unheard(&self, ran: Instant, addr: SocketAddr) -> Option<Duration> {
        let known = self.table.get(self.addresses.get(&addr)?)?;
        Some(ran.saturating_duration_since(known.contact.as_ref()?.heard))
    }

    /// Whether we expect an agent's signs of life.
    pub(super) fn watches(&self, name: &AgentName) -> bool {
        self.table.get(name).is_some_and(|known| known.tie.watches)
    }

    /// The peer at an address is asked for a sign of life.
    pub(super) fn asked(&mut self, ran: Instant, addr: SocketAddr) {
        let known = self.addresses.get(&addr).and_then(|name| self.table.get_mut(name));
        if let Some(known) = known.filter(|known| !known.tie.watches)
            && let Some(contact) = &mut known.contact
        {
            contact.asked.get_or_insert(Asked::now(ran));
        }
    }

    /// Where the comparison of copies with a peer stands.
    pub(super) fn comparison(&mut self, name: &AgentName) -> Option<&mut Comparison> {
        self.contact(name).map(|contact| &mut contact.comparison)
    }

    /// An owner answered what was asked of it.
    pub(super) fn reached(&mut self, name: &AgentName) {
        if let Some(contact) = self.contact(name) {
            contact.take_answer();
        }
    }

    /// It gave it, in answer to a question of that time.
    pub(super) fn answered(&mut self, asked: Instant, name: &AgentName) {
        if let Some(contact) = self.contact(name) {
            contact.answered = contact.answered.max(asked);
            contact.take_answer();
        }
    }

    /// The peers that a session was ever made with, and when each gave its last sign of life.
    pub(super) fn met(&self) -> impl Iterator<Item = (&Peer, Instant)> {
        self.table.values().filter_map(|known| Some((&known.peer, known.contact.as_ref()?.sign(known.tie))))
    }

    /// Whether that start of an agent is known, and its records are not forgotten.
    pub(super) fn knows(&self, owner: &Owner) -> bool {
        let known = self.table.get(&owner.name);
        known.is_some_and(|known| known.peer.owner == *owner && known.is_kept())
    }

    /// That start of the agent of a name, if [`Self::knows`] it.
    pub(super) fn named(&self, name: &str, generation: Generation) -> Option<Owner> {
        let known = self.table.get(name).filter(|known| known.is_kept())?;
        let owner = &known.peer.owner;
        (owner.generation == generation).then(|| owner.clone())
    }

    /// The last starts of agents that [`Self::knows`], with their rows of the board.
    pub(super) fn owners(&self) -> impl Iterator<Item = (u8, &Owner)> {
        let known = self.table.values().filter(|known| known.is_kept());
        known.map(|known| (known.row, &known.peer.owner))
    }

    /// Our own.
    pub(super) fn own_row(&self) -> (u8, &Owner) {
        let us = &self.own.peer.owner;
        (row(us.name.as_str()), us)
    }

    /// What is known of every peer that did not leave, by name.
    pub(super) fn known(&self) -> impl Iterator<Item = PeerCard> {
        let known = self.table.values().filter(|known| !known.left);
        known.map(|KnownPeer { peer, program, keys, .. }| PeerCard {
            peer: peer.clone(),
            program: program.clone(),
            seals: keys.as_ref().and_then(|keys| keys.keys.first().copied()),
        })
    }

    /// How many peers, sessions and remembered pushes there are.
    pub(super) fn len(&self) -> (usize, usize, usize) {
        let recent = self.table.values().filter_map(|known| Some(known.contact.as_ref()?.recent.len()));
        (self.table.len(), self.sessions.len(), recent.sum())
    }

    /// Whether an agent was in doubt until now that a frame of it came. Of one that others watch, only an answer ends it.
    pub(super) fn end_doubt(&mut self, name: &AgentName) -> bool {
        let known = self.table.get_mut(name).filter(|known| known.tie.watches);
        let contact = known.and_then(|known| known.contact.as_mut());
        contact.is_some_and(|contact| std::mem::take(&mut contact.is_doubted))
    }

    /// An operator says that a silent agent will not come back: which start of it, or why it stays.
    pub(super) fn bury(&mut self, ran: Instant, name: &AgentName) -> Result<Owner, NotBuried> {
        let known = self.table.get_mut(name).filter(|known| !known.left).ok_or(NotBuried::Unknown)?;
        if known.is_live(ran) {
            return Err(NotBuried::Alive);
        }
        (known.left, known.is_buried) = (true, true);
        self.rows.change(known.row);
        Ok(known.peer.owner.clone())
    }

    /// An agent said goodbye.
    pub(super) fn left(&mut self, owner: &Owner) {
        let known = self.table.get_mut(&owner.name).filter(|known| known.peer.owner == *owner);
        if let Some(known) = known {
            known.left = true;
            self.rows.change(known.row);
        }
    }

    /// The peers whose sessions are older than this.
    pub(super) fn older_than(&self, then: Instant) -> Vec<Peer> {
        let is_old = |known: &&KnownPeer| {
            let session = known.contact.as_ref().and_then(|contact| self.sessions.get(&contact.current));
            session.is_some_and(|session| session.since < then)
        };
        self.table.values().filter(is_old).map(|known| known.peer.clone()).collect()
    }

    /// Drops the sessions whose key is not in use any more: where the peers are that have none left.
    pub(super) fn drop_keys(&mut self, has: impl Fn(KeyId) -> bool) -> Vec<SocketAddr> {
        let Self { table, sessions, .. } = self;
        sessions.retain(|_, session| has(session.key));
        let mut alone = Vec::new();
        for KnownPeer { peer, contact, .. } in table.values_mut() {
            let Some(contact) = contact else { continue };
            let other = contact.other.filter(|(other, _)| sessions.contains_key(other));
            match (sessions.contains_key(&contact.current), other) {
                (true, _) => contact.other = other,
                (false, Some((other, _))) => (contact.current, contact.other) = (other, None),
                (false, None) => {
                    contact.other = None;
                    alone.push(peer.addr);
                }
            }
        }
        alone
    }

    /// Whether TCP does not get through to an address, as far as it was tried of late.
    pub(super) fn is_blocked(&self, addr: SocketAddr) -> bool {
        let known = self.addresses.get(&addr).and_then(|name| self.table.get(name));
        known.is_some_and(|known| known.blocked.is_some())
    }

    /// TCP gets through to an address, or does not, and is to be tried again then: the agent there, if that is news.
    pub(super) fn set_blocked(&mut self, addr: SocketAddr, until: Option<Instant>) -> Option<Peer> {
        let name = self.addresses.get(&addr)?;
        let known = self.table.get_mut(name)?;
        let before = std::mem::replace(&mut known.blocked, until);
        (before.is_some() != until.is_some()).then(|| known.peer.clone())
    }

    /// The key that the session with the process at an address was made with.
    pub(super) fn key_of(&mut self, addr: SocketAddr) -> Option<KeyId> {
        self.to(addr).map(|session| session.key)
    }

    /// A peer remembers a former start of this agent.
    pub(super) fn remembered(&mut self, ran: Instant, generation: Generation) {
        /// More than agents restart within the time in which they are remembered.
        const MOST: usize = 64;
        if self.own_former.len() < MOST {
            self.own_former.entry(generation).or_insert(OwnFormer { since: ran, rounds: ROUNDS });
        }
    }

    /// A peer told what a former start of this agent changed.
    pub(super) fn told(&mut self, generation: Generation) {
        if let Some(former) = self.own_former.get_mut(&generation) {
            former.rounds = 0;
        }
    }

    /// The former starts of this agent to ask for once more.
    pub(super) fn untold(&mut self) -> Vec<Owner> {
        let untold = self.own_former.iter_mut().filter(|(_, former)| former.rounds > 0);
        let starts = untold.map(|(generation, former)| {
            former.rounds -= 1;
            Owner { name: self.own.peer.owner.name.clone(), generation: *generation }
        });
        starts.collect()
    }

    /// Makes room for one more: if need be, in the place of the peer with the oldest sign of life whose frames do not
    /// arrive, if that is older than this one's. Whom frames came from has room in any case. The starts that are forgotten
    /// now; none if there is no room.
    pub(super) fn make_room(&mut self, ran: Instant, sign: Option<Instant>) -> Option<Vec<Owner>> {
        if self.table.len() < MAX_KNOWN {
            return Some(Vec::new());
        }
        let older = self.table.iter().filter(|(_, known)| sign.is_none_or(|sign| known.sign < sign));
        let silent = older.filter(|(_, known)| !known.is_live(ran));
        let name = silent.min_by_key(|(_, known)| known.sign).map(|(name, _)| name.clone())?;
        let mut known = self.table.remove(&name)?;
        self.rows.change(known.row);
        known.drop_contact(&mut self.sessions, &mut self.addresses);
        Some(if known.is_forgotten { Vec::new() } else { known.starts().collect() })
    }

    /// Where those were that are only expected back, and that were met.
    pub(super) fn expected_back(&self) -> impl Iterator<Item = SocketAddr> {
        let expected = |known: &&KnownPeer| known.is_forgotten && !known.left && known.identity.is_some();
        self.table.values().filter(expected).map(|known| known.peer.addr)
    }

    /// Drops the sessions with a peer.
    pub(super) fn lose_contact(&mut self, name: &AgentName) {
        if let Some(known) = self.table.get_mut(name) {
            known.drop_contact(&mut self.sessions, &mut self.addresses);
        }
    }
}

impl KnownPeer {
    /// Whether its records are kept, or are to be.
    fn is_kept(&self) -> bool {
        !self.is_forgotten && !self.is_buried
    }

    /// Who it is, and for how long it has been silent; none of one that is suspect already, has left, or was never met.
    fn silence(&self, ran: Instant) -> Option<(Owner, Duration)> {
        let contact = self.contact.as_ref().filter(|contact| !contact.is_stale && !self.left)?;
        let silence = ran.saturating_duration_since(contact.sign(self.tie));
        Some((self.peer.owner.clone(), silence))
    }

    /// Somebody who gave a sign of life at that time.
    pub(super) fn new(sign: Instant, peer: Peer, program: Arc<str>) -> Self {
        Self {
            row: row(peer.owner.name.as_str()),
            peer,
            identity: None,
            revision: 0,
            is_own_word: false,
            left: false,
            is_buried: false,
            version: 0,
            program,
            keys: None,
            sign,
            former: None,
            is_forgotten: false,
            blocked: None,
            give: None,
            is_near: false,
            tie: Tie::MESH,
            near: Nearness::Far,
            is_planned: false,
            alerts: Vec::new(),
            telling: None,
            contact: None,
        }
    }

    /// Whether its frames arrive.
    pub(super) fn is_live(&self, ran: Instant) -> bool {
        self.contact.as_ref().is_some_and(|contact| is_live(ran, contact.sign(self.tie)))
    }

    /// Takes over what is known of its agent. A start that takes turns with another, because two agents have a name, is
    /// remembered.
    pub(super) fn take_place_of(&mut self, ran: Instant, before: Self, admission: &mut Admission) {
        self.identity = self.identity.or(before.identity);
        if before.program != self.program {
            let (from, to) = (before.program.clone(), self.program.clone());
            admission.changes.push(PeerChange::Version { from, to });
        }
        self.is_near |= before.is_near;
        (self.tie, self.is_planned) = (before.tie, before.is_planned);
        self.former = before.former;
        if before.peer.owner == self.peer.owner {
            // Of another start, TCP was perhaps refused while nobody listened.
            self.blocked = before.blocked;
            self.version = self.version.max(before.version);
            self.telling = before.telling;
            if self.revision <= before.revision {
                (self.revision, self.keys, self.is_own_word) =
                    (before.revision, before.keys, before.is_own_word);
            }
            return;
        }
        let generation = before.peer.owner.generation;
        admission.former = Some(generation);
        let older =
            if before.is_forgotten { self.former.take() } else { self.former.replace((generation, ran)) };
        let older = older.filter(|(older, _)| *older != self.peer.owner.generation);
        let name = &self.peer.owner.name;
        admission.forgotten.extend(older.map(|(generation, _)| Owner { name: name.clone(), generation }));
    }

    /// Its starts that are remembered.
    pub(super) fn starts(&self) -> impl Iterator<Item = Owner> + use<> {
        let Owner { name, generation } = self.peer.owner.clone();
        let former = self.former.map(|(generation, _)| generation);
        former.into_iter().chain([generation]).map(move |generation| Owner { name: name.clone(), generation })
    }

    pub(super) fn drop_contact(
        &mut self,
        sessions: &mut BTreeMap<Index, Session>,
        addresses: &mut BTreeMap<SocketAddr, AgentName>,
    ) {
        if let Some(PeerContact { current, other, .. }) = self.contact.take() {
            free(addresses, &self.peer);
            sessions.remove(&current);
            other.and_then(|(other, _)| sessions.remove(&other));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::frame::Index;
    use super::super::keyring::{Key, KeyId, Keyring};
    use super::super::keys::Filed;
    use super::super::noise::{Channel, ClusterKey, Handshake, Identity};
    use super::super::ping::Pings;
    use super::super::plan::MESH;
    use super::*;

    pub(in crate::link) const GRACE: Duration = Duration::from_secs(300);
    pub(in crate::link) const S: Duration = Duration::from_secs(1);

    impl Peers {
        /// Looks at all of them then: whose records are not remembered any longer.
        pub(in crate::link) fn forget(&mut self, ran: Instant) -> Vec<Owner> {
            self.judge(ran, ran, &Pings::default()).forgotten
        }
    }

    fn peers() -> Peers {
        of("us", 1, 99)
    }

    /// The table of an agent that knows nobody.
    pub(in crate::link) fn of(name: &str, generation: Generation, port: u16) -> Peers {
        let owner = Owner { name: name.parse().unwrap(), generation };
        let us = Peer { owner, addr: SocketAddr::from(([10, 0, 0, 1], port)) };
        let keyring = Keyring::parse(&Key::generate().line()).unwrap();
        Peers::new(us, "1", KeyringSummary::of(&keyring, Filed::Written), GRACE, MESH)
    }

    /// Our session with an agent, and its own channel.
    pub(in crate::link) fn session(
        now: Instant,
        name: &str,
        generation: u64,
        port: u16,
    ) -> (Session, Channel) {
        let key = ClusterKey::new(&[1; 32], "c");
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&generation.to_le_bytes());
        let (ours, theirs) = (Identity::new(&[2; 32]), Identity::new(&[port.to_le_bytes()[0]; 32]));
        let (begun, first) = Handshake::begin(&key, &theirs, seed);
        let (answered, second) = Handshake::answer(&key, &ours, [3; 32], &first, b"").unwrap();
        let Ok((channel, third, _)) = begun.prove(&second, b"") else { panic!("its answer") };
        let (ours, _) = answered.complete(&third).unwrap();
        let owner = Owner { name: name.parse().unwrap(), generation };
        let peer = Peer { owner, addr: SocketAddr::from(([10, 0, 0, 1], port)) };
        (
            Session::new(
                (now, now),
                (&"us".parse().unwrap(), false),
                (peer, "1".into()),
                KeyId::of([7; 4]),
                9,
                ours,
            ),
            channel,
        )
    }

    fn take(
        peers: &mut Peers,
        now: Instant,
        index: Index,
        (counter, sealed): &(u64, Vec<u8>),
    ) -> Option<Unopened> {
        peers.open(now, index, *counter, sealed).err()
    }

    #[test]
    fn every_frame_of_a_session_is_taken_once_and_others_not_at_all() {
        let (mut peers, now) = (peers(), Instant::now());
        let (ours, mut theirs) = session(now, "a", 1, 1);
        let frames = [(); 3].map(|()| theirs.encrypt(b"hello"));
        assert_eq!(take(&mut peers, now, 1, &frames[0]), Some(Unopened::Unknown));
        assert!(peers.admit(now, 1, ours).is_some());
        assert_eq!(take(&mut peers, now, 1, &frames[2]), None);
        assert_eq!(take(&mut peers, now, 1, &frames[1]), None, "overtaken, not replayed");
        assert_eq!(take(&mut peers, now, 1, &frames[1]), Some(Unopened::Replayed));
        assert_eq!(take(&mut peers, now, 1, &(7, frames[0].1.clone())), Some(Unopened::Mismatch));
        assert_eq!(take(&mut peers, now, 2, &frames[0]), Some(Unopened::Unknown));
    }

    #[test]
    fn loss_is_told_of_the_session_that_the_peer_sends_in() {
        let (mut peers, now) = (peers(), Instant::now());
        let (ours, mut theirs) = session(now, "a", 1, 1);
        let addr = ours.peer.addr;
        peers.admit(now, 1, ours);
        // Both began a handshake: ours is another session to them.
        peers.admit(now, 2, session(now, "a", 1, 1).0);
        for n in 0..40 {
            let frame = theirs.encrypt(b"hello");
            if n % 4 != 0 {
                assert_eq!(take(&mut peers, now, 1, &frame), None);
            }
        }
        assert!((250..400).contains(&peers.lost_from(addr)), "{}", peers.lost_from(addr));
    }

    #[test]
    fn a_session_that_was_silent_for_too_long_takes_nothing_more() {
        let (mut peers, now) = (peers(), Instant::now());
        let (ours, mut theirs) = session(now, "a", 1, 1);
        let held_back = theirs.encrypt(b"hello");
        peers.admit(now, 1, ours);
        let later = now + Duration::from_secs(16);
        assert_eq!(peers.judge(later, later, &Pings::default()).suspects.len(), 1);
        assert!(peers.judge(later, later, &Pings::default()).suspects.is_empty(), "told once");
        assert_eq!(take(&mut peers, later, 1, &held_back), Some(Unopened::Stale));
        let (again, mut theirs) = session(later, "a", 1, 1);
        peers.admit(later, 2, again);
        assert_eq!(take(&mut peers, later, 2, &theirs.encrypt(b"hello")), None);
        assert_eq!(take(&mut peers, later, 1, &held_back), Some(Unopened::Unknown));
    }

    #[test]
    fn what_was_under_way_in_a_session_that_was_replaced_still_counts_for_a_moment() {
        let (mut peers, now) = (peers(), Instant::now());
        let (ours, mut theirs) = session(now, "a", 1, 1);
        peers.admit(now, 1, ours);
        let under_way = [(); 2].map(|()| theirs.encrypt(b"hello"));
        peers.admit(now, 2, session(now, "a", 1, 1).0);
        assert_eq!(take(&mut peers, now, 1, &under_way[0]), None);
        peers.forget(now + LINGER);
        assert_eq!(take(&mut peers, now, 1, &under_way[1]), Some(Unopened::Unknown));
    }

    #[test]
    fn a_restarted_agent_replaces_its_former_process_at_once() {
        let (mut peers, now) = (peers(), Instant::now());
        let (ours, mut theirs) = session(now, "a", 1, 1);
        peers.admit(now, 1, ours);
        peers.note_push(now, &"a".parse().unwrap(), 1, b"a push");
        let admission = peers.admit(now, 2, session(now, "a", 2, 1).0).unwrap();
        assert_eq!((admission.former, admission.recent.len()), (Some(1), 1));
        assert_eq!(take(&mut peers, now, 1, &theirs.encrypt(b"hello")), Some(Unopened::Unknown));
        peers.admit(now, 3, session(now, "b", 1, 1).0);
        assert!(
            peers.met().all(|(peer, _)| peer.owner.name.as_str() == "b"),
            "another agent is at its address"
        );
    }

    #[test]
    fn sessions_are_bounded_and_silent_ones_go() {
        super::super::toy::play();
        let (mut peers, now) = (peers(), Instant::now());
        let index = |n: usize| Index::try_from(n).unwrap();
        for n in 0..MAX_KNOWN {
            let (ours, _) = session(now, &format!("a{n}"), 1, u16::try_from(n + 1).unwrap());
            assert!(peers.admit(now, index(n), ours).is_some());
        }
        assert!(peers.admit(now, 5_000, session(now, "late", 1, 5_000).0).is_none());
        let later = now + Duration::from_secs(60);
        assert_eq!(peers.judge(later, later, &Pings::default()).suspects.len(), MAX_KNOWN);
        assert!(
            peers.admit(later, 5_000, session(now, "late", 1, 5_000).0).is_some(),
            "in place of a silent one"
        );
        assert_eq!(peers.len(), (MAX_KNOWN, MAX_KNOWN, 0));
        let forgotten = peers.forget(later + GRACE);
        assert_eq!(
            (forgotten.len(), peers.len().0),
            (MAX_KNOWN, MAX_KNOWN),
            "expected back, without records"
        );
        peers.forget(later + EXPECTED);
        assert_eq!((peers.len(), peers.addresses.len()), ((0, 0, 0), 0));
    }

    #[test]
    fn an_answer_in_another_session_than_ours_does_not_say_that_the_peer_knows_ours() {
        let (mut peers, now) = (peers(), Instant::now());
        let ((former, mut in_former), (ours, mut in_ours)) =
            (session(now, "a", 1, 1), session(now, "a", 1, 1));
        let peer = ours.peer.clone();
        assert!(peers.admit(now, 1, former).is_some());
        peers.admit(now + S, 2, ours);
        peers.table.get_mut(&peer.owner.name).unwrap().tie = Tie { watches: false, is_watched: false };
        peers.asked(now + S, peer.addr);
        assert_eq!(take(&mut peers, now + S, 1, &in_former.encrypt(b"pong")), None);
        peers.answered(now + S, &peer.owner.name);
        assert_eq!(peers.silence(now + S * 2, peer.addr), Some(S), "it is still asked");
        assert_eq!(take(&mut peers, now + S, 2, &in_ours.encrypt(b"pong")), None);
        peers.answered(now + S, &peer.owner.name);
        assert_eq!(peers.silence(now + S * 2, peer.addr), None);
    }

    #[test]
    fn two_handshakes_that_crossed_leave_one_session_that_both_ends_send_in() {
        let now = Instant::now();
        let key = ClusterKey::new(&[1; 32], "c");
        let at = |n: u8| SocketAddr::from(([10, 0, 0, n], 1));
        let name = |n: u8| -> AgentName { format!("a{n}").parse().unwrap() };
        let identity = |n: u8| Identity::new(&[n; 32]);
        // Both began; each end has both sessions, finished in the other order. The index is who began.
        let sessions = |by: u8, other: u8| {
            let (begun, first) = Handshake::begin(&key, &identity(by), [by; 32]);
            let (answered, second) = Handshake::answer(&key, &identity(other), [9; 32], &first, b"").unwrap();
            let Ok((ours, third, _)) = begun.prove(&second, b"") else { panic!("its answer") };
            let (theirs, _) = answered.complete(&third).unwrap();
            let end = |of: u8, with: u8, channel| {
                let peer = Peer { owner: Owner { name: name(with), generation: 1 }, addr: at(with) };
                Session::new(
                    (now, now),
                    (&name(of), of == by),
                    (peer, "1".into()),
                    KeyId::of([7; 4]),
                    by.into(),
                    channel,
                )
            };
            [end(by, other, ours), end(other, by, theirs)]
        };
        let ([one_of_a, one_of_b], [two_of_b, two_of_a]) = (sessions(1, 2), sessions(2, 1));
        let [mut a, mut b] = [peers(), peers()];
        a.admit(now, 2, two_of_a);
        a.admit(now, 1, one_of_a);
        b.admit(now, 1, one_of_b);
        b.admit(now, 2, two_of_b);
        assert_eq!([a.to(at(2)).unwrap().theirs, b.to(at(1)).unwrap().theirs], [1, 1]);
        assert_eq!([a.len().1, b.len().1], [2, 2], "what is under way in the other one still counts");
    }

    #[test]
    fn a_start_that_was_replaced_is_forgotten_later_and_at_once_when_another_replaces_that() {
        let (mut peers, now) = (peers(), Instant::now());
        let of = |generation| Owner { name: "a".parse().unwrap(), generation };
        let mut index = 0;
        let mut admit = |peers: &mut Peers, at, generation| {
            index += 1;
            let Admission { former, forgotten, .. } =
                peers.admit(at, index, session(at, "a", generation, 1).0).unwrap();
            (former, forgotten)
        };
        assert_eq!(admit(&mut peers, now, 1), (None, vec![]));
        assert_eq!(admit(&mut peers, now + S, 2), (Some(1), vec![]));
        assert_eq!(admit(&mut peers, now + S, 2), (None, vec![]), "the same start again");
        assert_eq!(admit(&mut peers, now + 2 * S, 3), (Some(2), vec![of(1)]));
        assert_eq!(admit(&mut peers, now + 2 * S, 2), (Some(3), vec![]), "they take turns");
        assert_eq!(admit(&mut peers, now + 2 * S, 3), (Some(2), vec![]), "they take turns");
        admit(&mut peers, now + GRACE, 3);
        assert_eq!(peers.forget(now + GRACE + 2 * S), [of(2)]);
        peers.remembered(now, 0);
        let us = Owner { name: "us".parse().unwrap(), generation: 0 };
        assert_eq!(peers.forget(now + GRACE), [us], "our own former start");
    }

    #[test]
    fn a_silent_peer_is_expected_back_for_a_week_and_one_that_left_is_not() {
        let (mut peers, now) = (peers(), Instant::now());
        peers.admit(now, 1, session(now, "a", 1, 1).0);
        peers.admit(now, 2, session(now, "b", 1, 2).0);
        peers.left(&Owner { name: "b".parse().unwrap(), generation: 1 });
        assert_eq!(peers.forget(now + GRACE).len(), 2);
        assert_eq!(peers.len().0, 1);
        assert!(peers.forget(now + EXPECTED / 2).is_empty());
        assert_eq!(
            peers.holder(&"a".parse().unwrap()).unwrap().peer.owner.generation,
            1,
            "its name is pinned"
        );
        peers.forget(now + EXPECTED);
        assert_eq!((peers.len(), peers.addresses.len()), ((0, 0, 0), 0));
    }
}
