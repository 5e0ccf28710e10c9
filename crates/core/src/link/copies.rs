//! How far the copies of owners' slots go, compared with a peer's, where not everybody tells everybody in pings: the last means
//! against what a push, its repetitions and rumours all missed. A digest of the board carries one hash of all copies; where
//! they differ, the hashes of the board's rows are told, then the versions of the owners in rows that differ, as many as fit a
//! datagram. So it costs nothing while nothing is missing, and the same whatever is.

use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use super::board::{ROWS, short_hash};
use super::repair::PIECE_BYTES;
use super::wire::{self, Kind};
use super::{Instant, Link, Peer, ReplicaStore};
use crate::record::Owner;
use crate::slot::{MAX_VERSION, Version};

impl Link {
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

    fn copies_by_row(&self, replicas: &dyn ReplicaStore) -> Vec<u64> {
        let mut rows = vec![0; ROWS.into()];
        for (row, owner, version) in self.copies(replicas) {
            // In whatever order.
            rows[usize::from(row)] ^= short_hash(Sha256::new().chain_update(wire::encode(&(
                owner.name.as_str(),
                owner.generation,
                version,
            ))));
        }
        rows
    }

    /// The same for whoever has all that we have, and nothing more; 0 where pings say it.
    pub(super) fn copies_hash(&self, replicas: &dyn ReplicaStore) -> u64 {
        if !self.peers.plan.is_sparse() {
            return 0;
        }
        let rows = self.copies_by_row(replicas).into_iter();
        short_hash(rows.fold(Sha256::new(), |sum, row| sum.chain_update(row.to_le_bytes())))
    }

    /// Says what our rows are like, if a peer's copies go another way than ours.
    pub(super) fn compare_copies(&mut self, peer: &Peer, theirs: u64, replicas: &dyn ReplicaStore) {
        let ours = self.copies_hash(replicas);
        if ours != theirs && ours != 0 && theirs != 0 {
            let rows = self.copies_by_row(replicas);
            let hashes: Vec<u8> = rows.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            self.send(Kind::Copies, &wire::encode(&wire::Rows { hashes: &hashes }), peer.addr);
        }
    }

    /// Says how far our copies go in the rows that differ from a peer's.
    pub(super) fn take_copies(&mut self, peer: &Peer, theirs: &wire::Rows<'_>, replicas: &dyn ReplicaStore) {
        let unlike = theirs.unlike(&self.copies_by_row(replicas));
        if unlike == 0 {
            return;
        }
        // Another row first each time, as not all may fit.
        let first = self.rng.random_range(0..ROWS);
        let copies = self.copies(replicas).filter(|(row, ..)| unlike & 1 << row != 0);
        let mut copies: Vec<_> = copies.collect();
        copies.sort_by_key(|(row, ..)| row.wrapping_sub(first) % ROWS);
        let versions = spell(copies.into_iter().map(|(_, owner, version)| (owner, version)), false);
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
        let mut ours = Vec::new();
        for (name, generation, theirs) in versions.owners {
            let Ok(name) = name.parse() else { continue };
            let owner = Owner { name, generation };
            let known = if owner == self.us().owner {
                Some(self.pusher.told())
            } else if self.peers.knows(&owner) {
                self.ask(now, &owner, Some(theirs.min(MAX_VERSION)), Some(peer), replicas);
                replicas.version(&owner)
            } else {
                None
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
    let owners =
        copies.map(|(owner, version)| (owner.name.as_str(), owner.generation, version)).take_while(|owner| {
            bytes += wire::encode(owner).len();
            bytes <= PIECE_BYTES
        });
    wire::encode(&wire::Versions { is_answer, owners: owners.collect() })
}
