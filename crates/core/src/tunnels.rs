//! Tunnel name → the entries that are shown of it, and hash host → tunnel. Nearly every tunnel has one entry, so that one
//! takes no allocation, and no name beside its record's.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::slice;
use std::sync::Arc;

use super::capacity::GiveBack as _;
use super::event::Event;
use super::hostname::{HashHost, TunnelId};
use super::label::Label;
use super::record::{Owner, Record};
use super::replica::Replica;
use super::replicas::Shift;
use super::slot::{Slot, Version};

/// One record as one owner holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Who holds it.
    pub owner: Arc<Owner>,
    /// Where the owner holds it.
    pub slot: Slot,
    /// When the owner wrote it.
    pub version: Version,
    /// What it holds.
    pub record: Arc<Record>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tunnels {
    by_name: HashSet<Tunnel>,
    by_hash: HashMap<HashHost, TunnelId>,
    revision: u64,
}

/// A set's element is its name.
#[derive(Debug)]
enum Tunnel {
    One(OwnedRecord),
    /// At least one.
    Several(Vec<OwnedRecord>),
}

impl Tunnels {
    /// The entries of a name, in no particular order.
    pub fn lookup(&self, name: &Label) -> &[OwnedRecord] {
        self.by_name.get(name).map_or(&[], Tunnel::entries)
    }

    /// Every tunnel with an entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Label, &[OwnedRecord])> {
        self.by_name.iter().map(|tunnel| (tunnel.name(), tunnel.entries()))
    }

    /// How many tunnels have an entry.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The tunnel with a hash host, if it has an entry.
    pub fn of_hash_host(&self, host: HashHost) -> Option<TunnelId> {
        self.by_hash.get(&host).copied()
    }

    /// The hash hosts of all tunnels, in no particular order.
    pub fn hash_hosts(&self) -> impl Iterator<Item = HashHost> {
        self.by_hash.keys().copied()
    }

    /// Rises with every change of what hash hosts lead to.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Gives back the capacity of a peak that is over.
    pub fn give_back(&mut self) {
        self.by_name.give_back();
        self.by_hash.give_back();
    }

    /// Entries that there is capacity for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.by_name.capacity() + self.by_hash.capacity()
    }

    /// Follows what is shown. What comes and goes is added to the events; a record that both generations of an agent have was
    /// there all the time.
    pub(crate) fn follow(&mut self, shift: &Shift<'_>, events: &mut Vec<Event>) {
        match shift {
            Shift::Slot { owner, change, before } => {
                if let Some(record) = before.as_ref().and_then(|cell| cell.content.record()) {
                    self.hide(owner, change.slot, record);
                    events.push(Event::Down(owner.clone(), record.clone()));
                }
                if let Some(record) = change.cell.content.record() {
                    let (owner, record) = (owner.clone(), record.clone());
                    events.push(Event::Up(owner.clone(), record.clone()));
                    self.add(OwnedRecord { owner, slot: change.slot, version: change.cell.version, record });
                }
            }
            Shift::Generation { shown, hidden } => {
                let of = |replica: Option<&Replica>, other: Option<&Replica>| -> HashSet<Arc<Record>> {
                    let needed = replica.into_iter().filter(|_| other.is_some());
                    needed.flat_map(records).map(|(.., record)| record.clone()).collect()
                };
                let (after, before) = (of(*shown, *hidden), of(*hidden, *shown));
                for (owner, slot, version, record) in shown.iter().flat_map(|replica| records(replica)) {
                    self.add(OwnedRecord { owner: owner.clone(), slot, version, record: record.clone() });
                    if !before.contains(record) {
                        events.push(Event::Up(owner.clone(), record.clone()));
                    }
                }
                for (owner, slot, _, record) in hidden.iter().flat_map(|replica| records(replica)) {
                    self.hide(owner, slot, record);
                    if !after.contains(record) {
                        events.push(Event::Down(owner.clone(), record.clone()));
                    }
                }
            }
        }
    }

    fn hide(&mut self, owner: &Owner, slot: Slot, record: &Record) {
        self.remove(&record.name, |entry| entry.slot == slot && *entry.owner == *owner);
    }

    fn add(&mut self, entry: OwnedRecord) {
        let tunnel = match self.by_name.take(&entry.record.name) {
            None => {
                if let Some(tunnel) = spelled(&entry.record.name) {
                    self.revision += 1;
                    self.by_hash.insert(HashHost::of(tunnel), tunnel);
                }
                Tunnel::One(entry)
            }
            Some(Tunnel::One(first)) => Tunnel::Several(vec![first, entry]),
            Some(Tunnel::Several(mut entries)) => {
                entries.push(entry);
                Tunnel::Several(entries)
            }
        };
        self.by_name.insert(tunnel);
    }

    /// Removes the first entry of a name that is meant.
    fn remove(&mut self, name: &Label, meant: impl Fn(&OwnedRecord) -> bool) -> Option<OwnedRecord> {
        let at = self.lookup(name).iter().position(meant)?;
        let removed = match self.by_name.take(name)? {
            Tunnel::One(entry) => entry,
            Tunnel::Several(mut entries) => {
                let removed = entries.swap_remove(at);
                if !entries.is_empty() {
                    self.by_name.insert(Tunnel::Several(entries));
                    return Some(removed);
                }
                removed
            }
        };
        if let Some(tunnel) = spelled(name) {
            self.revision += 1;
            self.by_hash.remove(&HashHost::of(tunnel));
        }
        Some(removed)
    }
}

/// The records of a replica, with their slots and versions.
fn records(replica: &Replica) -> impl Iterator<Item = (&Arc<Owner>, Slot, Version, &Arc<Record>)> {
    let cells = replica.cells().iter();
    cells.filter_map(|(slot, cell)| Some((&replica.owner, slot, cell.version, cell.content.record()?)))
}

/// The tunnel whose records have this name: one in another spelling is another name.
fn spelled(name: &Label) -> Option<TunnelId> {
    let name = name.text();
    TunnelId::parse(&name).filter(|tunnel| tunnel.spell(&mut [0; 36]) == &*name)
}

impl Tunnel {
    fn entries(&self) -> &[OwnedRecord] {
        match self {
            Self::One(entry) => slice::from_ref(entry),
            Self::Several(entries) => entries,
        }
    }

    fn name(&self) -> &Label {
        match self {
            Self::One(entry) => &entry.record.name,
            Self::Several(entries) => &entries[0].record.name,
        }
    }
}

impl Borrow<Label> for Tunnel {
    fn borrow(&self) -> &Label {
        self.name()
    }
}

impl Hash for Tunnel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialEq for Tunnel {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Tunnel {}

const _: () = assert!(size_of::<Tunnel>() == size_of::<OwnedRecord>(), "most tunnels have one entry");

#[cfg(test)]
mod tests {
    use super::super::slot::tests::record;
    use super::*;

    fn entry(id: &str, name: &str) -> OwnedRecord {
        let owner = Arc::new(Owner { name: "a".parse().unwrap(), generation: 1 });
        OwnedRecord { owner, slot: 1, version: 1, record: record(id, name) }
    }

    #[test]
    fn a_tunnel_is_there_as_long_as_it_has_an_entry() {
        let mut tunnels = Tunnels::default();
        let (t, is) =
            (Label::from("t"), |id: &'static str| move |entry: &OwnedRecord| entry.record.id == *id);
        for (id, name) in [("1", "t"), ("2", "t"), ("3", "u"), ("4", "t")] {
            tunnels.add(entry(id, name));
        }
        assert_eq!((tunnels.len(), tunnels.lookup(&t).len()), (2, 3));
        assert_eq!(tunnels.remove(&t, is("3")), None, "it is another tunnel's");
        for (id, left) in [("1", 2), ("4", 1), ("2", 0)] {
            assert_eq!(tunnels.remove(&t, is(id)), Some(entry(id, "t")));
            assert_eq!(tunnels.lookup(&t).len(), left);
        }
        assert!(tunnels.remove(&t, is("2")).is_none() && tunnels.len() == 1);
        tunnels.remove(&"u".into(), is("3"));
        assert!(tunnels.is_empty());
    }

    #[test]
    fn a_live_tunnel_has_its_hash_host() {
        let mut tunnels = Tunnels::default();
        let name = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
        tunnels.add(entry("1", name));
        tunnels.add(entry("2", "host@4d21094e-b74c-4916-86c1-d9fa36ea677b"));
        let lookup = |tunnels: &Tunnels, host| tunnels.of_hash_host(HashHost::parse(host).unwrap());
        assert_eq!(lookup(&tunnels, "a6265c6d9847a4be").map(|id| id.to_string()).as_deref(), Some(name));
        assert_eq!(lookup(&tunnels, "a6265c6d9847a4bf"), None);
        tunnels.remove(&name.into(), |_| true);
        assert_eq!(lookup(&tunnels, "a6265c6d9847a4be"), None);
    }

    #[test]
    fn the_capacity_of_a_peak_is_given_back() {
        let (mut tunnels, all) = (Tunnels::default(), 10_000);
        let name = |n: usize| format!("4d21094e-b74c-4916-86c1-{n:012x}");
        for n in 0..all {
            tunnels.add(entry(&n.to_string(), &name(n)));
        }
        for n in 10..all {
            tunnels.remove(&name(n).into(), |_| true);
        }
        assert!(tunnels.capacity() >= 2 * all);
        tunnels.give_back();
        assert!(tunnels.capacity() < 200 && tunnels.len() == 10, "{}", tunnels.capacity());
    }
}
