//! The leases by the ids of their records.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::hash_table::Entry;

use super::Lease;
use crate::capacity::GiveBack;
use crate::label::Label;
use crate::parts::{Hashed, Parts};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Leases(Parts<Lease>);

impl Hashed for Lease {
    fn hash_with(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one(self.id())
    }
}

impl Lease {
    fn id(&self) -> &Label {
        &self.holding.record.id
    }
}

impl Leases {
    pub(super) fn get(&self, id: &Label) -> Option<&Lease> {
        self.0.find(id, |lease| lease.id() == id)
    }

    pub(super) fn get_mut(&mut self, id: &Label) -> Option<&mut Lease> {
        self.0.find_mut(id, |lease| lease.id() == id)
    }

    /// Puts a lease in the place of that of its id.
    pub(super) fn insert(&mut self, lease: Lease) {
        let id = lease.id().clone();
        match self.0.entry(&id, |held| *held.id() == id) {
            Entry::Occupied(mut held) => *held.get_mut() = lease,
            Entry::Vacant(vacant) => drop(vacant.insert(lease)),
        }
    }

    pub(super) fn remove(&mut self, id: &Label) -> Option<Lease> {
        Some(self.0.find_entry(id, |lease| lease.id() == id)?.remove().0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.0.iter()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &Label> {
        self.iter().map(Lease::id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }
}

impl GiveBack for Leases {
    fn give_back(&mut self) {
        self.0.give_back();
    }
}
