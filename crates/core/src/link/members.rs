//! Who takes part: the board compared with peers', and the addresses that are pinged.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use rand::RngExt as _;

use super::{Kind, Link, Peer, ReplicaStore, wire};
use crate::agent::News;
use crate::record::Owner;
use crate::slot::{Change, Status};

impl Link {
    /// Compares our board with that of one live peer, whichever; and asks for our former starts that nobody told of yet.
    pub(super) fn compare_boards(&mut self, now: Instant, ran: Instant, replicas: &mut dyn ReplicaStore) {
        self.next_digest = now + self.interval;
        for owner in self.board.untold() {
            self.ask(now, &owner, None, replicas);
        }
        let live: Vec<SocketAddr> = self.live().map(|peer| peer.addr).collect();
        if !live.is_empty() {
            let to = live[self.rng.random_range(0..live.len())];
            self.send_digest(ran, to);
        }
    }

    pub(super) fn send_digest(&mut self, ran: Instant, to: SocketAddr) {
        let (live, hash) = (self.sessions.live(ran), self.board.hash());
        let silent = self.board.silent(|name| live.contains(name));
        let digest = wire::encode(&wire::Digest { hash, silent });
        self.send(Kind::Digest, &digest, to);
    }

    /// Answers with all cards if the boards differ, or else with those of the agents that the peer does not hear.
    pub(super) fn take_digest(&mut self, peer: &Peer, digest: &wire::Digest<'_>) {
        let Some(ran) = self.ran.now else { return };
        let differs = self.board.hash() != digest.hash;
        let cards = if differs {
            self.board.cards(ran)
        } else {
            self.board.cards_of(ran, digest.silent.iter().copied())
        };
        if differs || !cards.is_empty() {
            let cards = wire::encode(&wire::Cards { differs, cards });
            self.send(Kind::Cards, &cards, peer.addr);
        }
    }

    /// Takes a peer's cards, and gives ours if the boards differed and still do.
    pub(super) fn take_cards(
        &mut self,
        now: Instant,
        peer: &Peer,
        cards: &wire::Cards<'_>,
        replicas: &mut dyn ReplicaStore,
    ) {
        let Some(ran) = self.ran.now else { return };
        let live = self.sessions.live(ran);
        let learned = self.board.take(ran, &cards.cards, |name| live.contains(name));
        for news in learned.news {
            match news {
                News::Forgotten { owner } => self.forget(now, vec![owner], replicas),
                news => replicas.apply(now, news),
            }
        }
        if learned.moved {
            self.retarget(now);
        }
        for (owner, left) in self.board.owners() {
            self.keys.roll.mentioned(now, &owner.name, owner.generation, left);
        }
        for (owner, version) in learned.versions {
            if self.board.knows(&owner) {
                self.ask(now, &owner, Some(version), replicas);
            }
        }
        if cards.differs && !self.board.knows_no_more_than(&cards.cards) {
            let ours = wire::encode(&wire::Cards { differs: false, cards: self.board.cards(ran) });
            self.send(Kind::Cards, &ours, peer.addr);
        }
    }

    /// Pings whom the board knows, those to join at, and all that are admitted.
    pub(super) fn retarget(&mut self, now: Instant) {
        let admitted = self.sessions.peers().map(|(peer, _)| peer.addr);
        let mut targets: BTreeSet<SocketAddr> = self.board.addresses().chain(admitted).collect();
        targets.extend(&self.joins);
        targets.remove(&self.us.addr);
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
            self.board.published(cell.version);
            if cell.content.status() == Some(Status::Left) {
                self.board.leave();
            }
        }
    }
}
