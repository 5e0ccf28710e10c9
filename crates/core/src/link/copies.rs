//! How far the copies of owners' slots go, compared with a peer's, where not everybody tells everybody in pings: the last means
//! against what a push, its repetitions and rumours all missed. A digest of the board carries one hash of all copies; where
//! they differ, the hashes of the board's rows are told, then the versions of the owners in rows that differ, as many as fit a
//! datagram. So it costs next to nothing while nothing changes, and at most two datagrams for a digest. Changes that are under
//! way count as missing: who knows of them sooner than they come asks for them, and gets them twice.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use super::board::{ROWS, short_hash};
use super::repair::PIECE_BYTES;
use super::wire::{self, Kind};
use super::{Instant, Link, Peer, ReplicaStore};
use crate::record::Owner;
use crate::slot::{MAX_VERSION, Version};

/// Rows that were hashed a moment ago serve others that compare: each time costs as much as there are owners.
const FRESH: Duration = Duration::from_millis(100);
/// Owners in a frame of versions, at most: an honest one has no room for more.
const MAX_OWNERS: usize = 128;

/// A peer is told our rows no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// What a peer is to say next counts if it comes within this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a comparison with a peer stands: what it says without being asked counts for nothing, as it costs more to take than to
/// make up.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// When it was told our rows last.
    told: Option<Instant>,
    /// What it is to say next, and since when.
    expected: Option<(Kind, Instant)>,
}

impl Comparison {
    /// It is to say this next.
    fn expect(&mut self, now: Instant, kind: Kind) {
        self.expected = Some((kind, now));
    }

    /// It says that. Whether it was to.
    fn expected(&mut self, now: Instant, kind: Kind) -> bool {
        let is_it = |(expected, since): &mut (Kind, Instant)| {
            *expected == kind && now.saturating_duration_since(*since) < PATIENCE
        };
        self.expected.take_if(is_it).is_some()
    }

    /// Whether it may be told our rows, which it then is.
    fn may_tell(&mut self, now: Instant) -> bool {
        let is_due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= PAUSE);
        if is_due {
            self.told = Some(now);
            self.expect(now, Kind::Versions);
        }
        is_due
    }
}

/// The hashes of our copies, by rows of the board, and when they were made.
#[derive(Debug, Default)]
pub(super) struct CopiesByRow(Option<(Instant, Vec<u64>)>);

impl Link {
    /// A peer is sent a digest that says what our copies are like.
    pub(super) fn expect_copies(&mut self, now: Instant, to: SocketAddr) {
        let name = self.peers.at(to).cloned();
        if let Some(comparison) = name.and_then(|name| self.peers.comparison(&name)) {
            comparison.expect(now, Kind::Copies);
        }
    }

    /// How far our copies go, ourselves included, with the owners' rows of the board.
    fn copies<'a>(
        &'a self,
        replicas: &'a dyn ReplicaStore,
    ) -> impl Iterator<Item = (u8, &'a Owner, Version)> {
        let others = self.peers.owners();
        let others = others.filter_map(|(row, owner)| Some((row, owner, replicas.version(owner)?)));
        let (row, us) = self.peers.own_row();
        others.chain([(row, us, self.pusher.told())])
    }

    fn copies_by_row(&mut self, now: Instant, replicas: &dyn ReplicaStore) -> &[u64] {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        if self.copies.0.as_ref().is_none_or(|(at, _)| !is_fresh(*at)) {
            let mut rows = vec![0; ROWS.into()];
            for (row, owner, version) in self.copies(replicas) {
                let copy = wire::encode(&(owner.name.as_str(), owner.generation, version));
                // In whatever order.
                rows[usize::from(row)] ^= short_hash(Sha256::new().chain_update(copy));
            }
            self.copies.0 = Some((now, rows));
        }
        self.copies.0.as_ref().map(|(_, rows)| rows.as_slice()).unwrap_or_default()
    }

    /// The same for whoever has all that we have, and nothing more; 0 where pings say it.
    pub(super) fn copies_hash(&mut self, now: Instant, replicas: &dyn ReplicaStore) -> u64 {
        if !self.peers.plan.is_sparse() {
            return 0;
        }
        let rows = self.copies_by_row(now, replicas).iter();
        short_hash(rows.fold(Sha256::new(), |sum, row| sum.chain_update(row.to_le_bytes())))
    }

    /// Says what our rows are like, if a peer's copies go another way than ours.
    pub(super) fn compare_copies(
        &mut self,
        now: Instant,
        peer: &Peer,
        theirs: u64,
        replicas: &dyn ReplicaStore,
    ) {
        if theirs == 0 {
            return;
        }
        let ours = self.copies_hash(now, replicas);
        if ours != 0
            && ours != theirs
            && self.peers.comparison(&peer.owner.name).is_some_and(|comparison| comparison.may_tell(now))
        {
            let rows = self.copies_by_row(now, replicas);
            let hashes: Vec<u8> = rows.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            self.send(Kind::Copies, &wire::encode(&wire::Rows { hashes: &hashes }), peer.addr);
        }
    }

    /// Says how far our copies go in the rows that differ from a peer's.
    pub(super) fn take_copies(
        &mut self,
        now: Instant,
        peer: &Peer,
        theirs: &wire::Rows<'_>,
        replicas: &dyn ReplicaStore,
    ) {
        let Some(comparison) = self.peers.comparison(&peer.owner.name) else { return };
        if !comparison.expected(now, Kind::Copies) {
            return;
        }
        comparison.expect(now, Kind::Versions);
        let unlike = theirs.unlike(self.copies_by_row(now, replicas));
        if unlike == 0 {
            return;
        }
        let turn = self.rng.random_range(0..=u32::MAX) as usize;
        let copies = self.copies(replicas).filter(|(row, ..)| unlike & 1 << row != 0);
        let mut copies: Vec<_> = copies.map(|(_, owner, version)| (owner, version)).collect();
        // Not all may fit: others come first each time.
        let first = turn % copies.len().max(1);
        copies.rotate_left(first);
        let versions = spell(copies.into_iter(), false);
        self.send(Kind::Versions, &versions, peer.addr);
    }

    /// Asks for what a peer's copies have more than ours, and says where ours go farther.
    pub(super) fn take_versions(
        &mut self,
        now: Instant,
        peer: &Peer,
        versions: wire::Versions<'_>,
        replicas: &mut dyn ReplicaStore,
    ) {
        let comparison = self.peers.comparison(&peer.owner.name);
        if !comparison.is_some_and(|comparison| comparison.expected(now, Kind::Versions)) {
            return;
        }
        let mut ours = Vec::new();
        for (name, generation, theirs) in versions.owners.into_iter().take(MAX_OWNERS) {
            let us = &self.us().owner;
            let (owner, known) = if name == us.name.as_str() && generation == us.generation {
                (us.clone(), Some(self.pusher.told()))
            } else if let Some(owner) = self.peers.named(name, generation) {
                self.ask(now, &owner, Some(theirs.min(MAX_VERSION)), Some(peer), replicas);
                let known = replicas.version(&owner);
                (owner, known)
            } else {
                continue;
            };
            ours.extend(known.filter(|known| *known > theirs).map(|known| (owner, known)));
        }
        if !ours.is_empty() && !versions.is_answer {
            let ours = spell(ours.iter().map(|(owner, version)| (owner, *version)), true);
            self.send(Kind::Versions, &ours, peer.addr);
        }
    }
}

/// As many of these as fit a datagram.
fn spell<'a>(copies: impl Iterator<Item = (&'a Owner, Version)>, is_answer: bool) -> Vec<u8> {
    let mut bytes = 0;
    let owners = copies.map(|(owner, version)| (owner.name.as_str(), owner.generation, version));
    let owners = owners.take_while(|owner| {
        bytes += wire::encode(owner).len();
        bytes <= PIECE_BYTES
    });
    wire::encode(&wire::Versions { is_answer, owners: owners.collect() })
}
