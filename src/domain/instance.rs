//! Which records belong to which gost instance, and which instance answers at which entrypoint: what is needed
//! to let all records of a dead or replaced instance go at once.

use std::collections::{BTreeSet, HashMap};

use super::address::Address;
use super::label::Label;
use super::record::Record;
use super::room::Room as _;

/// An entrypoint as an instance claims it. The router handler's is a UDP port, so it does not compete with a
/// tunnel handler's of the same number.
type Claim = (Address, bool);

/// The instances of the records held.
#[derive(Debug, Default)]
pub struct Instances {
    ids: HashMap<Label, BTreeSet<Label>>,
    claims: HashMap<Claim, Label>,
    /// How many records an instance has at an entrypoint: without any, it claims nothing there.
    counts: HashMap<(Label, Claim), usize>,
}

impl Instances {
    /// A record is held from now on.
    pub fn add(&mut self, record: &Record) {
        self.ids.entry(record.node.clone()).or_default().insert(record.id.clone());
        *self.counts.entry((record.node.clone(), claim_of(record))).or_default() += 1;
    }

    /// A record is held no longer.
    pub fn remove(&mut self, record: &Record) {
        let Some(ids) = self.ids.get_mut(&record.node) else { return };
        ids.remove(&record.id);
        if ids.is_empty() {
            self.ids.remove(&record.node);
        }
        let at = (record.node.clone(), claim_of(record));
        let Some(count) = self.counts.get_mut(&at) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&at);
            if self.claims.get(&at.1) == Some(&at.0) {
                self.claims.remove(&at.1);
            }
        }
    }

    /// The instance of a record that registers claims its entrypoint. The instance that it takes the entrypoint
    /// from, if there is one: its gost was replaced.
    pub fn claim(&mut self, record: &Record) -> Option<Label> {
        match self.claims.insert(claim_of(record), record.node.clone()) {
            Some(former) if former != record.node => Some(former),
            _ => None,
        }
    }

    /// The instance of a record has its entrypoint, unless another claims that: it was there before this agent could
    /// tell who came last.
    pub fn claim_if_vacant(&mut self, record: &Record) {
        self.claims.entry(claim_of(record)).or_insert_with(|| record.node.clone());
    }

    /// The instance that has a record's entrypoint.
    pub fn claimant(&self, record: &Record) -> Option<&Label> {
        self.claims.get(&claim_of(record))
    }

    /// The ids of an instance's records.
    pub fn ids(&self, node: &Label) -> impl Iterator<Item = &Label> {
        self.ids.get(node).into_iter().flatten()
    }

    /// Gives back the room of a peak that is over.
    pub fn give_back(&mut self) {
        self.ids.give_back();
        self.claims.give_back();
        self.counts.give_back();
    }

    /// Entries that there is room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.ids.room() + self.claims.room() + self.counts.room()
    }

    /// How many entrypoints are some instance's.
    pub fn entrypoints(&self) -> usize {
        self.claims.len()
    }

    /// All instances.
    pub fn nodes(&self) -> impl Iterator<Item = &Label> {
        self.ids.keys()
    }
}

fn claim_of(record: &Record) -> Claim {
    (record.address.clone(), record.is_routers())
}

#[cfg(test)]
mod tests {
    use super::super::slot::tests::record;
    use super::*;

    fn at(address: &str, id: &str) -> Record {
        Record { address: address.into(), ..Record::clone(&record(id, "t")) }
    }

    #[test]
    fn an_entrypoint_without_a_record_is_nobodys() {
        let mut instances = Instances::default();
        instances.add(&at("10.0.0.2:80", "stays"));
        for port in 1..1_000 {
            let record = at(&format!("10.0.0.1:{port}"), "moves");
            instances.add(&record);
            instances.claim(&record);
            instances.remove(&record);
        }
        assert_eq!((instances.entrypoints(), instances.nodes().count()), (0, 1));
    }

    #[test]
    fn an_entrypoint_is_its_claimants_until_the_last_of_its_records_goes() {
        let mut instances = Instances::default();
        let records = ["1", "2"].map(|id| at("10.0.0.1:80", id));
        for record in &records {
            instances.add(record);
            assert_eq!(instances.claim(record), None);
        }
        instances.remove(&records[0]);
        assert_eq!(instances.claimant(&records[0]), Some(&"node".into()));
        instances.remove(&records[1]);
        assert_eq!(instances.claimant(&records[0]), None);
    }
}
