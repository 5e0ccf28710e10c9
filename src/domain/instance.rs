//! Which records belong to which gost instance, and which instance answers at which entrypoint: what is needed
//! to let all records of a dead or replaced instance go at once.

use std::collections::{BTreeSet, HashMap};

use super::address::Address;
use super::label::Label;
use super::record::Record;

/// An entrypoint as an instance claims it. The router handler's is a UDP port, so it does not compete with a
/// tunnel handler's of the same number.
type Claim = (Address, bool);

/// The instances of the records held.
#[derive(Debug, Default)]
pub struct Instances {
    ids: HashMap<Label, BTreeSet<Label>>,
    claims: HashMap<Claim, Label>,
}

impl Instances {
    /// A record is held from now on.
    pub fn add(&mut self, record: &Record) {
        self.ids.entry(record.node.clone()).or_default().insert(record.id.clone());
    }

    /// A record is held no longer.
    pub fn remove(&mut self, record: &Record) {
        let Some(ids) = self.ids.get_mut(&record.node) else { return };
        ids.remove(&record.id);
        if ids.is_empty() {
            self.ids.remove(&record.node);
            self.claims.retain(|_, node| *node != record.node);
        }
    }

    /// The instance of a record that registers claims its entrypoint. The instance that it takes the entrypoint
    /// from, if there is one: its gost was replaced.
    pub fn claim(&mut self, record: &Record) -> Option<Label> {
        let claim = (record.address.clone(), record.is_routers());
        match self.claims.insert(claim, record.node.clone()) {
            Some(former) if former != record.node => Some(former),
            _ => None,
        }
    }

    /// The instance of a record has its entrypoint, unless another claims that: it was there before this agent could
    /// tell who came last.
    pub fn claim_if_vacant(&mut self, record: &Record) {
        self.claims
            .entry((record.address.clone(), record.is_routers()))
            .or_insert_with(|| record.node.clone());
    }

    /// The instance that has a record's entrypoint.
    pub fn claimant(&self, record: &Record) -> Option<&Label> {
        self.claims.get(&(record.address.clone(), record.is_routers()))
    }

    /// The ids of an instance's records.
    pub fn ids(&self, node: &Label) -> impl Iterator<Item = &Label> {
        self.ids.get(node).into_iter().flatten()
    }

    /// All instances.
    pub fn nodes(&self) -> impl Iterator<Item = &Label> {
        self.ids.keys()
    }
}
