//! Who takes part: the board compared with peers', and the addresses that are pinged.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::board::ALL_ROWS;
use super::peers::{NotBuried, PeerCard};
use super::repair::{ANSWER_BYTES, PIECE_BYTES};
use super::wire::Malformed;
use super::{Kind, Link, LinkEffects, LinkLine, Peer, ReplicaStore, wire};
use crate::agent::News;
use crate::record::{AgentName, Owner};
use crate::slot::{Change, Status};

/// A card has so many bytes at least.
const MIN_CARD: usize = 16;

impl Link {
    /// Compares our board with that of one live peer, whichever; and asks for our former starts that nobody told of yet.
    pub(super) fn compare_boards(&mut self, now: Instant, ran: Instant, replicas: &mut dyn ReplicaStore) {
        self.next_digest = now + self.interval;
        for owner in self.peers.untold() {
            self.ask(now, &owner, None, None, replicas);
        }
        let live: Vec<SocketAddr> = self.live().map(|peer| peer.addr).collect();
        if !live.is_empty() {
            let to = live[self.rng.random_range(0..live.len())];
            self.send_digest(now, ran, to, replicas);
        }
    }

    pub(super) fn send_digest(
        &mut self,
        now: Instant,
        ran: Instant,
        to: SocketAddr,
        replicas: &dyn ReplicaStore,
    ) {
        let hash = self.peers.hash(ALL_ROWS);
        let turn = self.rng.random_range(0..=u32::MAX) as usize;
        let cards = u32::try_from(1 + self.peers.len().0).unwrap_or(u32::MAX);
        let copies = self.copies_hash(now, replicas);
        let silent = self.peers.silent(ran, turn);
        let digest = wire::encode(&wire::Digest { hash, cards, silent, copies });
        self.send(Kind::Digest, &digest, to);
        if copies != 0 {
            self.expect_copies(now, to);
        }
    }

    /// Answers, if the boards differ, with all cards: if they fit a datagram, or the peer has so few that it is new, and has to
    /// know also who is only expected back. Otherwise with what the rows are like, and the cards of the agents that the peer does
    /// not hear.
    pub(super) fn take_digest(&mut self, peer: &Peer, digest: &wire::Digest<'_>) {
        let Some(ran) = self.ran.now else { return };
        let hash = self.peers.hash(ALL_ROWS);
        if hash != digest.hash {
            let count = 1 + self.peers.len().0;
            let is_new = (digest.cards as usize) < count / 2;
            if is_new || count * MIN_CARD <= PIECE_BYTES {
                let all = self.peers.cards(ran, ALL_ROWS);
                if is_new || wire::encode(&all).len() <= PIECE_BYTES {
                    let frames = self.spell(ALL_ROWS, hash, &all, peer.addr);
                    return self.send_cards(frames, peer.addr);
                }
            }
            let hashes: Vec<u8> =
                self.peers.row_hashes().iter().flat_map(|hash| hash.to_le_bytes()).collect();
            self.send(Kind::Rows, &wire::encode(&wire::Rows { hashes: &hashes }), peer.addr);
        }
        let silent = self.peers.cards_of(ran, digest.silent.iter().copied());
        if !silent.is_empty() {
            let frames = self.spell(0, 0, &silent, peer.addr);
            self.send_cards(frames, peer.addr);
        }
    }

    /// Gives the cards of the rows where a peer's board differs from ours.
    pub(super) fn take_rows(&mut self, peer: &Peer, theirs: &wire::Rows<'_>) {
        let Some(ran) = self.ran.now else { return };
        let rows = self.peers.rows_unlike(theirs);
        if rows != 0 {
            let hash = self.peers.hash(rows);
            let frames = self.spell(rows, hash, &self.peers.cards(ran, rows), peer.addr);
            self.send_cards(frames, peer.addr);
        }
    }

    /// Cards for a peer, in as many payloads as it takes: each fits a datagram if TCP does not get through. The receiver's of
    /// these rows are wanted once, with the last one.
    fn spell(&self, rows: u128, hash: u64, cards: &[wire::Card<'_>], to: SocketAddr) -> Vec<Vec<u8>> {
        let most = if self.peers.is_blocked(to) { PIECE_BYTES } else { ANSWER_BYTES };
        let (mut payloads, mut first, mut bytes) = (Vec::new(), 0, 0);
        let payload = |rows: u128, cards: &[wire::Card<'_>]| {
            wire::encode(&wire::Cards { rows, hash, cards: cards.to_vec() })
        };
        for (n, card) in cards.iter().enumerate() {
            let size = wire::encode(card).len();
            if bytes + size > most && n > first {
                payloads.push(payload(0, &cards[first..n]));
                (first, bytes) = (n, 0);
            }
            bytes += size;
        }
        payloads.push(payload(rows, &cards[first..]));
        payloads
    }

    fn send_cards(&mut self, payloads: Vec<Vec<u8>>, to: SocketAddr) {
        for cards in payloads {
            self.send(Kind::Cards, &cards, to);
        }
    }

    /// What came of sending a large frame to an address by TCP. Where it does not get through, what is large goes in pieces
    /// by UDP for a while.
    pub fn handle_tcp(&mut self, now: Instant, to: SocketAddr, gets_through: bool) -> LinkEffects {
        /// Until TCP is tried again.
        const AGAIN: Duration = Duration::from_secs(60);
        let ran = self.ran.now.unwrap_or(now);
        // One that was not heard for this long may be paused, or gone: that says nothing of the way. Where it does not ping us, its
        // last word is perhaps the question that this was to answer.
        let lately = Duration::from_secs(if self.peers.plan.is_sparse() { 3 } else { 1 });
        if !gets_through && self.peers.unheard(ran, to).is_none_or(|unheard| unheard > lately) {
            return self.take_effects();
        }
        let until = (!gets_through).then(|| now + AGAIN);
        if let Some(peer) = self.peers.set_blocked(to, until) {
            self.effects.lines.push(LinkLine::Blocked { peer, is_blocked: !gets_through });
        }
        self.take_effects()
    }

    /// Tells every live peer what we state of ourselves, because that changed. What is lost on the way is noticed when boards
    /// are compared.
    pub(super) fn announce(&mut self, now: Instant) {
        let ran = self.ran.now.unwrap_or(now);
        let live: Vec<SocketAddr> = self.live().map(|peer| peer.addr).collect();
        for to in live {
            self.introduce(to);
        }
        self.give_keys(now, ran);
    }

    /// What is known of every peer, by name.
    pub fn cards(&self) -> Vec<PeerCard> {
        self.peers.known().collect()
    }

    /// Forgets a silent agent at an operator's word: its records are gone here, and its name is in nobody's way. Peers take
    /// that over as soon as it is dead from there.
    pub fn handle_burial(
        &mut self,
        now: Instant,
        name: &AgentName,
        replicas: &mut dyn ReplicaStore,
    ) -> Result<LinkEffects, NotBuried> {
        let ran = self.ran.now.unwrap_or(now);
        let owner = self.peers.bury(ran, name)?;
        replicas.apply(now, News::Buried { owner });
        // Whoever has another board gets this card with the others.
        let cards = wire::encode(&wire::Cards {
            rows: 0,
            hash: 0,
            cards: self.peers.cards_of(ran, [name.as_str()].into_iter()),
        });
        let live: Vec<SocketAddr> = self.live().map(|peer| peer.addr).collect();
        for to in live {
            self.send(Kind::Cards, &cards, to);
        }
        Ok(self.take_effects())
    }

    /// Tells one peer what we state of ourselves.
    pub(super) fn introduce(&mut self, to: SocketAddr) {
        let cards = wire::encode(&wire::Cards { rows: 0, hash: 0, cards: vec![self.peers.own_card()] });
        self.send(Kind::Cards, &cards, to);
    }

    /// Takes a peer's cards, and gives ours if the boards differed and still do.
    pub(super) fn take_cards(
        &mut self,
        now: Instant,
        peer: &Peer,
        cards: &wire::Cards<'_>,
        replicas: &mut dyn ReplicaStore,
    ) -> Result<(), Malformed> {
        let Some(ran) = self.ran.now else { return Ok(()) };
        let learned = self.peers.take(ran, &peer.owner, &cards.cards);
        for news in learned.news {
            match news {
                News::Forgotten { owner } => self.forget(now, vec![owner], replicas),
                news => replicas.apply(now, news),
            }
        }
        if learned.moved {
            self.retarget(now);
        }
        for (owner, version) in learned.versions {
            if self.peers.knows(&owner) {
                self.ask(now, &owner, Some(version), Some(peer), replicas);
            }
        }
        for addr in learned.outdated {
            // A ping says which card we have; whoever has a newer one introduces itself.
            if self.pings.provoked(now, addr) {
                self.ping(now, addr, false);
            }
        }
        self.give_keys(now, ran);
        if cards.rows != 0 && self.peers.hash(cards.rows) != cards.hash {
            let frames = self.spell(0, 0, &self.peers.cards(ran, cards.rows), peer.addr);
            self.send_cards(frames, peer.addr);
        }
        if learned.refused > 0 { Err(Malformed) } else { Ok(()) }
    }

    /// Pings whom the board knows, those to join at, and all that are admitted.
    pub(super) fn retarget(&mut self, now: Instant) {
        let mut targets: BTreeSet<SocketAddr> = self.peers.known_addresses().collect();
        targets.extend(self.joins.keys());
        targets.remove(&self.us().addr);
        self.pings.set_targets(now, &targets);
        self.looked = None;
    }

    /// Starts of agents that are not on the board any more: nothing is asked for them, either.
    pub(super) fn forget(&mut self, now: Instant, owners: Vec<Owner>, replicas: &mut dyn ReplicaStore) {
        for owner in owners {
            self.repairs.forget(&owner);
            replicas.apply(now, News::Forgotten { owner });
        }
    }

    /// What our own changes mean for our card.
    pub(super) fn note_own(&mut self, changes: &[Change]) {
        for Change { cell, .. } in changes {
            self.peers.published(cell.version);
            if cell.content.status() == Some(Status::Left) {
                self.peers.state(|own| own.left = true);
            }
        }
    }
}
