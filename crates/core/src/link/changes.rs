//! Changes of slots between agents: pushes of one's own, and questions and answers for what did not come.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::counters::Dropped;
use super::ping::Leg;
use super::push::Outgoing;
use super::recent::Recent;
use super::repair::{self, RepairPart};
use super::rumours;
use super::wire::{self, Kind, Malformed};
use super::{Link, Peer, ReplicaStore};
use crate::agent::News;
use crate::codec::decode_cell;
use crate::complaint::Refusal;
use crate::record::{Generation, Owner};
use crate::replica::Extent;
use crate::slot::{Change, Content, MAX_VERSION, Slot, Status, Version};

/// Changes that are taken in one go, for those that wait for the store.
const BITE: usize = 50;

fn apply(now: Instant, owner: &Owner, changes: Vec<Change>, extent: Extent, replicas: &mut dyn ReplicaStore) {
    for (changes, extent) in extent.pieces(changes, BITE) {
        replicas.apply(now, News::Changed { owner: owner.clone(), changes, extent });
    }
}

/// A push is said for no longer than this; whoever says so tells nothing of the network.
const LATEST: Duration = Duration::from_secs(10);

impl Link {
    /// Asks for what an owner changed, unless all to the version that it has come to is known here: the owner, if it is
    /// live, or else whoever told of it, or some other peer, each as often.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        owner: &Owner,
        until: Option<Version>,
        teller: Option<&Peer>,
        replicas: &mut dyn ReplicaStore,
    ) {
        let Some(known) = replicas.version(owner) else { return };
        if until.is_some_and(|until| known >= until) || self.repairs.asks(owner) {
            return;
        }
        // Not always: one that tells and does not answer would be in the way of all others.
        let teller = teller.filter(|_| self.rng.random());
        let live: Vec<&Peer> = self.live().collect();
        let peer = live.iter().find(|peer| peer.owner == *owner);
        let peer = peer.or_else(|| live.iter().find(|peer| Some(**peer) == teller));
        let peer = peer.or_else(|| live.get(self.turn % live.len().max(1))).map(|peer| peer.addr);
        self.turn = self.turn.wrapping_add(1);
        let ask = peer.and_then(|peer| self.repairs.ask(now, owner, known, (peer, self.pings.trip(peer))));
        if let Some(ask) = ask {
            // An owner that does not answer this is out of our reach, whatever its watchers say.
            self.peers.asked(self.ran.now.unwrap_or(now), ask.peer);
            self.send(Kind::Question, &ask.payload, ask.peer);
        }
    }

    pub(super) fn flush(&mut self, now: Instant) {
        if !self.pusher.is_due(now) {
            return;
        }
        let peers: Vec<_> = self.live().map(|peer| self.pings.leg(peer.addr)).collect();
        for outgoing in self.pusher.flush(now, &peers) {
            self.send_push(&outgoing);
        }
    }

    pub(super) fn send_push(&mut self, outgoing: &Outgoing) {
        for to in &outgoing.to {
            self.send(Kind::Push, &outgoing.payload, *to);
        }
    }

    pub(super) fn take_push(
        &mut self,
        now: Instant,
        peer: Peer,
        payload: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let push: wire::Push<'_> = self.read(payload)?;
        let changes = self.changes(now, &peer.owner, push.changes, 0, replicas);
        let extent = Extent { since: push.since, until: push.until, whole: None };
        let mut until = None;
        let owner = if let Some(generation) = push.former {
            // These were its last changes: those before are to be had where they were remembered.
            until = Some(changes.iter().map(|change| change.cell.version).max());
            self.peers.remembered(self.ran.now.unwrap_or(now), generation);
            Owner { name: self.us().owner.name.clone(), generation }
        } else {
            let way = self.pings.trip(peer.addr).unwrap_or_default() / 2;
            self.effects.lag = Some((Duration::from_micros(push.age_us.into()) + way).min(LATEST));
            self.peers.note_push(now, &peer.owner.name, push.id, payload);
            if changes.iter().any(|change| change.cell.content.status() == Some(Status::Left)) {
                self.peers.left(&peer.owner);
            }
            peer.owner
        };
        if extent.until > 0 {
            self.rumours.note(now, &owner, extent.until);
        }
        apply(now, &owner, changes, extent, replicas);
        self.send(Kind::PushAck, &wire::encode(&wire::PushAck { id: push.id }), peer.addr);
        if let Some(until) = until {
            self.ask(now, &owner, until, None, replicas);
        }
        Ok(())
    }

    pub(super) fn take_answer(
        &mut self,
        now: Instant,
        from: &Peer,
        payload: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let answer = self.read(payload)?;
        let Some(part) = self.repairs.take(now, from.addr, answer) else { return Ok(()) };
        let RepairPart { owner, values, misplaced, extent, next } = part;
        if owner.name == self.us().owner.name && extent.until > 0 {
            self.peers.told(owner.generation);
        }
        let changes = self.changes(now, &from.owner, values, misplaced, replicas);
        let next_is_none = next.is_none();
        if owner == from.owner {
            self.peers.reached(&owner.name);
        }
        if let Some(ask) = next {
            self.send(Kind::Question, &ask.payload, ask.peer);
        }
        if next_is_none && extent.until > 0 {
            self.rumours.note(now, &owner, extent.until);
        }
        apply(now, &owner, changes, extent, replicas);
        Ok(())
    }

    /// Asks for what owners said, as a peer tells, and did not come. Whether not everybody watches everybody, to that peer.
    pub(super) fn take_rumours(
        &mut self,
        now: Instant,
        peer: &Peer,
        rumours: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> bool {
        let Ok(rumours) = self.read::<wire::Rumours<'_>>(rumours) else {
            self.counters.count(Dropped::UnknownField);
            return false;
        };
        let is_sparse = rumours.sparse;
        for (name, generation, version) in rumours.owners.into_iter().take(rumours::MAX_TOLD) {
            if let Some(owner) = self.peers.named(name, generation) {
                self.ask(now, &owner, Some(version.min(MAX_VERSION)), Some(peer), replicas);
            }
        }
        is_sparse
    }

    /// What an agent's former start pushed last may be all that is left of it.
    pub(super) fn say_back(&mut self, now: Instant, former: Generation, recent: &Recent, peer: Leg) {
        // It was understood when it came.
        let pushes = recent.pushes().filter_map(|push| wire::decode::<wire::Push<'_>>(push).ok());
        let mut all: Vec<_> = pushes.map(|push| push.changes).collect();
        if all.is_empty() {
            // We have that start's changes otherwise. It learns which start it was, and asks for them.
            all.push(Vec::new());
        }
        for changes in all {
            let outgoing = self.pusher.say_back(now, former, changes, peer);
            self.send_push(&outgoing);
        }
    }

    pub(super) fn take_question(
        &mut self,
        by: SocketAddr,
        payload: &[u8],
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let question: wire::Question<'_> = self.read(payload)?;
        let name = question.name.parse().map_err(|_| Malformed)?;
        let owner = Owner { name, generation: question.generation };
        let part = replicas.part(&owner, question.after, question.from);
        let most = if self.peers.is_blocked(by) { repair::PIECE_BYTES } else { repair::ANSWER_BYTES };
        self.send(Kind::Answer, &repair::answer(&question, part, most), by);
        Ok(())
    }

    /// The changes of slots and their cells. A cell that is none is counted, as are `misplaced` ones that were left out
    /// already, and held against the peer that sent it.
    pub(super) fn changes(
        &self,
        now: Instant,
        by: &Owner,
        values: Vec<(Slot, &[u8])>,
        misplaced: usize,
        replicas: &mut dyn ReplicaStore,
    ) -> Vec<Change> {
        let (sent, mut changes) = (values.len(), Vec::with_capacity(values.len()));
        for (slot, value) in values {
            let Some(cell) = decode_cell(slot, value) else { continue };
            if matches!(cell.content, Content::Later(_)) {
                self.counters.count(Dropped::UnknownField);
            }
            changes.push(Change { slot, cell });
        }
        let refused = sent - changes.len() + misplaced;
        self.counters.count_all(Dropped::NotASlot, refused as u64);
        if refused > 0 {
            let times = u32::try_from(refused).unwrap_or(u32::MAX);
            replicas.apply(now, News::Refused { by: by.clone(), why: Refusal::NotASlot, times });
        }
        changes
    }
}
