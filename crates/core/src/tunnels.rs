//! Tunnel name → the entries that are shown of it, and hash host → tunnel. Nearly every tunnel has one entry, so that one
//! takes no allocation, and no name beside its record's.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::slice;
use std::sync::Arc;

use hashbrown::hash_table::Entry;

use super::capacity::GiveBack as _;
use super::event::Event;
use super::hostname::{HashHost, TunnelId};
use super::label::Label;
use super::parts::{Hashed, Parts};
use super::record::{Owner, Record};
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
    index: TunnelIndex,
    /// What is indexed apart: records of generations that are not shown yet, or only lately.
    stages: Vec<StagedIndex>,
    /// Generations that are not shown any more, and still have entries.
    retired: Vec<Arc<Owner>>,
    revision: u64,
}

/// Tunnels by their names and by their hash hosts. One table serves both: what a tunnel is hashed by follows from its name as well.
#[derive(Debug, Default)]
struct TunnelIndex(Parts<Tunnel>);

impl Hashed for Tunnel {
    fn hash_with(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one(Key::of(self.name()))
    }
}

/// What a tunnel is hashed by.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    /// Its hash host.
    Host(HashHost),
    /// Its name, if that is no tunnel's id.
    Name(&'a Label),
}

/// The records of one generation.
#[derive(Debug)]
struct StagedIndex {
    owner: Arc<Owner>,
    index: TunnelIndex,
    is_shown: bool,
    /// Whether nothing of its agent was shown before.
    is_first: bool,
}

#[derive(Debug)]
enum Tunnel {
    One(OwnedRecord),
    /// At least one.
    Several(Box<SeveralRecords>),
}

#[derive(Debug, Default)]
struct SeveralRecords {
    entries: Vec<OwnedRecord>,
    /// Where each of them is, if they are so many that none is looked for among all.
    places: Option<HashMap<(usize, Slot), usize>>,
}

/// From so many entries on, a tunnel remembers their places.
const MANY: usize = 64;
/// Among more entries than this, nobody looks for an equal record: it would take as long for each of them.
const TOO_MANY: usize = 1_024;

/// The entries of a name, in no particular order.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    settled: &'a [OwnedRecord],
    staged: Vec<&'a [OwnedRecord]>,
    retired: &'a [Arc<Owner>],
}

impl<'a> Entries<'a> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a OwnedRecord> + use<'a> {
        let retired = self.retired;
        let is_shown =
            move |entry: &&OwnedRecord| !retired.iter().any(|owner| Arc::ptr_eq(owner, &entry.owner));
        self.settled.iter().chain(self.staged.clone().into_iter().flatten()).filter(is_shown)
    }

    /// How many.
    pub fn len(&self) -> usize {
        if self.retired.is_empty() && self.staged.is_empty() {
            self.settled.len()
        } else {
            self.iter().count()
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'a> From<&'a [OwnedRecord]> for Entries<'a> {
    fn from(settled: &'a [OwnedRecord]) -> Self {
        Self { settled, staged: Vec::new(), retired: &[] }
    }
}

impl Tunnels {
    /// The entries of a name.
    pub fn lookup(&self, name: &Label) -> Entries<'_> {
        let shown = self.stages.iter().filter(|stage| stage.is_shown);
        let staged = shown.map(|stage| stage.index.entries(name)).filter(|entries| !entries.is_empty());
        Entries { settled: self.index.entries(name), staged: staged.collect(), retired: &self.retired }
    }

    /// The name of every tunnel with an entry, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &Label> {
        let shown = self.stages.iter().filter(|stage| stage.is_shown);
        let staged = shown.flat_map(|stage| stage.index.names());
        let staged = staged.filter(|name| self.index.entries(name).is_empty());
        self.index.names().chain(staged)
    }

    /// How many tunnels have an entry; while many come and go, roughly.
    pub fn len(&self) -> usize {
        let first = self.stages.iter().filter(|stage| stage.is_shown && stage.is_first);
        self.index.len() + first.map(|stage| stage.index.len()).sum::<usize>()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tunnel with a hash host, if it has an entry.
    pub fn of_hash_host(&self, host: HashHost) -> Option<TunnelId> {
        let shown = self.stages.iter().filter(|stage| stage.is_shown).map(|stage| &stage.index);
        std::iter::once(&self.index).chain(shown).find_map(|index| index.of_hash_host(host))
    }

    /// Rises with every change of what hash hosts lead to.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Gives back the capacity of a peak that is over.
    pub fn give_back(&mut self) {
        self.index.0.give_back();
    }

    /// Entries that there is capacity for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.index.0.capacity()
    }

    /// Follows a change of a slot. What comes and goes is added to the events. Of another generation that is shown, see
    /// [`Backlog::follow`].
    ///
    /// [`Backlog::follow`]: super::reindex::Backlog::follow
    pub(crate) fn follow(&mut self, shift: &Shift<'_>, events: &mut Vec<Event>) {
        match shift {
            Shift::Slot { owner, change, before } => {
                if let Some(record) = before.as_ref().and_then(|cell| cell.content.record()) {
                    self.remove_entry(owner, change.slot, &record.name);
                    events.push(Event::Down(owner.clone(), record.clone()));
                }
                if let Some(record) = change.cell.content.record() {
                    let (owner, record) = (owner.clone(), record.clone());
                    events.push(Event::Up(owner.clone(), record.clone()));
                    self.add(OwnedRecord { owner, slot: change.slot, version: change.cell.version, record });
                }
            }
            Shift::Staged { owner, change, before } => {
                let index = self.stage(owner);
                if let Some(record) = before.as_ref().and_then(|cell| cell.content.record()) {
                    index.remove(&record.name, owner, change.slot);
                }
                if let Some(record) = change.cell.content.record() {
                    let (owner, record) = (owner.clone(), record.clone());
                    index.add(OwnedRecord { owner, slot: change.slot, version: change.cell.version, record });
                }
            }
            Shift::Generation { .. } => {}
        }
    }

    fn stage(&mut self, owner: &Arc<Owner>) -> &mut TunnelIndex {
        let at = self.stages.iter().position(|stage| Arc::ptr_eq(&stage.owner, owner));
        let at = at.unwrap_or_else(|| {
            let index = TunnelIndex::default();
            self.stages.push(StagedIndex { owner: owner.clone(), index, is_shown: false, is_first: false });
            self.stages.len() - 1
        });
        &mut self.stages[at].index
    }

    /// Shows what is indexed apart of an owner.
    pub(crate) fn show(&mut self, owner: &Arc<Owner>, is_first: bool) {
        self.revision += 1;
        for stage in self.stages.iter_mut().filter(|stage| Arc::ptr_eq(&stage.owner, owner)) {
            (stage.is_shown, stage.is_first) = (true, is_first);
        }
    }

    /// Passes over the entries of an owner from now on.
    pub(crate) fn retire(&mut self, owner: &Arc<Owner>) {
        if !self.is_retired(owner) {
            self.retired.push(owner.clone());
            self.revision += 1;
        }
    }

    /// Whether an owner's entries are passed over.
    pub(crate) fn is_retired(&self, owner: &Arc<Owner>) -> bool {
        self.retired.iter().any(|retired| Arc::ptr_eq(retired, owner))
    }

    /// An owner has no entries any more.
    pub(crate) fn retired(&mut self, owner: &Arc<Owner>) {
        self.retired.retain(|retired| !Arc::ptr_eq(retired, owner));
        self.settled(owner);
        self.revision += 1;
    }

    /// Moves an entry that is indexed apart to the others; false if it is not there.
    pub(crate) fn settle(&mut self, owner: &Arc<Owner>, slot: Slot, record: &Record) -> bool {
        let stage = self.stages.iter_mut().find(|stage| Arc::ptr_eq(&stage.owner, owner));
        let Some(entry) = stage.and_then(|stage| stage.index.remove(&record.name, owner, slot)) else {
            return false;
        };
        self.add(entry);
        true
    }

    /// Nothing of an owner is indexed apart any more.
    pub(crate) fn settled(&mut self, owner: &Arc<Owner>) {
        self.stages.retain(|stage| !Arc::ptr_eq(&stage.owner, owner));
    }

    /// Whether an owner has this very record; also if there are too many to look.
    pub(crate) fn has(&self, owner: &Owner, record: &Record) -> bool {
        let entries = self.index.entries(&record.name);
        entries.len() > TOO_MANY
            || entries.iter().any(|entry| *entry.owner == *owner && *entry.record == *record)
    }

    /// Removes an entry; false if it is not there.
    pub(crate) fn remove_entry(&mut self, owner: &Arc<Owner>, slot: Slot, name: &Label) -> bool {
        if self.index.remove(name, owner, slot).is_some() {
            self.revision += 1;
            return true;
        }
        let stage = self.stages.iter_mut().find(|stage| Arc::ptr_eq(&stage.owner, owner));
        stage.is_some_and(|stage| stage.index.remove(name, owner, slot).is_some() && stage.is_shown)
    }

    fn add(&mut self, entry: OwnedRecord) {
        self.revision += u64::from(self.index.add(entry));
    }
}

impl TunnelIndex {
    fn entries(&self, name: &Label) -> &[OwnedRecord] {
        self.0.find(&Key::of(name), |tunnel| tunnel.name() == name).map_or(&[], Tunnel::entries)
    }

    fn names(&self) -> impl Iterator<Item = &Label> {
        self.0.iter().map(Tunnel::name)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn of_hash_host(&self, host: HashHost) -> Option<TunnelId> {
        let is_its = |tunnel: &Tunnel| Key::of(tunnel.name()) == Key::Host(host);
        TunnelId::of_name(self.0.find(&Key::Host(host), is_its)?.name())
    }

    /// Whether the tunnel was not there.
    fn add(&mut self, entry: OwnedRecord) -> bool {
        let name = entry.record.name.clone();
        match self.0.entry(&Key::of(&name), |tunnel| *tunnel.name() == name) {
            Entry::Vacant(vacant) => {
                vacant.insert(Tunnel::One(entry));
                true
            }
            Entry::Occupied(occupied) => {
                let (tunnel, vacant) = occupied.remove();
                vacant.insert(tunnel.with(entry));
                false
            }
        }
    }

    fn remove(&mut self, name: &Label, owner: &Arc<Owner>, slot: Slot) -> Option<OwnedRecord> {
        // Most tunnels have one entry. It is taken out only if it is the one.
        let found = self.0.find_entry(&Key::of(name), |tunnel| tunnel.name() == name)?;
        let at = found.get().place(owner, slot)?;
        let (tunnel, vacant) = found.remove();
        let (removed, rest) = tunnel.without(at);
        if let Some(rest) = rest {
            vacant.insert(rest);
        }
        Some(removed)
    }
}

impl<'a> Key<'a> {
    fn of(name: &'a Label) -> Self {
        HashHost::of_name(name).map_or(Self::Name(name), Self::Host)
    }
}

impl Tunnel {
    fn entries(&self) -> &[OwnedRecord] {
        match self {
            Self::One(entry) => slice::from_ref(entry),
            Self::Several(several) => &several.entries,
        }
    }

    fn name(&self) -> &Label {
        &self.entries()[0].record.name
    }

    fn place(&self, owner: &Arc<Owner>, slot: Slot) -> Option<usize> {
        if let Self::Several(several) = self
            && let Some(places) = &several.places
        {
            return places.get(&key(owner, slot)).copied();
        }
        self.entries().iter().position(|entry| entry.slot == slot && Arc::ptr_eq(&entry.owner, owner))
    }

    fn with(self, entry: OwnedRecord) -> Self {
        let mut several = match self {
            Self::One(first) => Box::new(SeveralRecords { entries: vec![first], places: None }),
            Self::Several(several) => several,
        };
        several.push(entry);
        Self::Several(several)
    }

    /// The entry at a place, and what is left.
    fn without(self, at: usize) -> (OwnedRecord, Option<Self>) {
        match self {
            Self::One(entry) => (entry, None),
            Self::Several(mut several) => {
                let removed = several.swap_remove(at);
                (removed, (!several.entries.is_empty()).then_some(Self::Several(several)))
            }
        }
    }
}

impl SeveralRecords {
    fn push(&mut self, entry: OwnedRecord) {
        if self.entries.len() == MANY && self.places.is_none() {
            let keys = self.entries.iter().map(|entry| key(&entry.owner, entry.slot));
            self.places = Some(keys.zip(0..).collect());
        }
        if let Some(places) = &mut self.places {
            places.insert(key(&entry.owner, entry.slot), self.entries.len());
        }
        self.entries.push(entry);
    }

    fn swap_remove(&mut self, at: usize) -> OwnedRecord {
        let removed = self.entries.swap_remove(at);
        if let Some(places) = &mut self.places {
            places.remove(&key(&removed.owner, removed.slot));
            if let Some(moved) = self.entries.get(at) {
                places.insert(key(&moved.owner, moved.slot), at);
            }
        }
        removed
    }
}

/// An owner by its place in memory: all its entries share it, and it stays as long as one of them does.
fn key(owner: &Arc<Owner>, slot: Slot) -> (usize, Slot) {
    (Arc::as_ptr(owner).addr(), slot)
}

const _: () = assert!(size_of::<Tunnel>() == size_of::<OwnedRecord>(), "most tunnels have one entry");

#[cfg(test)]
mod tests {
    use super::super::slot::tests::record;
    use super::*;

    fn owner() -> Arc<Owner> {
        thread_local! {
            static OWNER: Arc<Owner> = Arc::new(Owner { name: "a".parse().unwrap(), generation: 1 });
        }
        OWNER.with(Arc::clone)
    }

    fn entry(slot: Slot, name: &str) -> OwnedRecord {
        OwnedRecord { owner: owner(), slot, version: 1, record: record(&slot.to_string(), name) }
    }

    #[test]
    fn a_tunnel_is_there_as_long_as_it_has_an_entry() {
        let mut tunnels = Tunnels::default();
        let t = Label::from("t");
        for (slot, name) in [(1, "t"), (2, "t"), (3, "u"), (4, "t")] {
            tunnels.add(entry(slot, name));
        }
        assert_eq!((tunnels.len(), tunnels.lookup(&t).len()), (2, 3));
        assert!(!tunnels.remove_entry(&owner(), 3, &t), "it is another tunnel's");
        for (slot, left) in [(1, 2), (4, 1), (2, 0)] {
            assert!(tunnels.remove_entry(&owner(), slot, &t));
            assert_eq!(tunnels.lookup(&t).len(), left);
        }
        assert!(!tunnels.remove_entry(&owner(), 2, &t) && tunnels.len() == 1);
        tunnels.remove_entry(&owner(), 3, &"u".into());
        assert!(tunnels.is_empty());
    }

    #[test]
    fn a_tunnel_with_many_entries_is_like_one_with_few() {
        let (mut tunnels, t) = (Tunnels::default(), Label::from("t"));
        let many = 3 * Slot::try_from(MANY).unwrap();
        (1..=many).for_each(|slot| tunnels.add(entry(slot, "t")));
        let slots = |tunnels: &Tunnels| {
            let mut slots: Vec<Slot> = tunnels.lookup(&t).iter().map(|entry| entry.slot).collect();
            slots.sort_unstable();
            slots
        };
        assert_eq!(slots(&tunnels), (1..=many).collect::<Vec<_>>());
        let (gone, left): (Vec<Slot>, Vec<Slot>) = (1..=many).partition(|slot| slot % 3 == 0);
        for slot in gone {
            assert!(tunnels.remove_entry(&owner(), slot, &t) && !tunnels.remove_entry(&owner(), slot, &t));
        }
        assert_eq!(slots(&tunnels), left);
        for slot in left {
            assert!(tunnels.remove_entry(&owner(), slot, &t));
        }
        assert!(tunnels.is_empty());
    }

    #[test]
    fn a_live_tunnel_has_its_hash_host() {
        let mut tunnels = Tunnels::default();
        let name = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
        tunnels.add(entry(1, name));
        tunnels.add(entry(2, "host@4d21094e-b74c-4916-86c1-d9fa36ea677b"));
        let lookup = |tunnels: &Tunnels, host| tunnels.of_hash_host(HashHost::parse(host).unwrap());
        assert_eq!(lookup(&tunnels, "a6265c6d9847a4be").map(|id| id.to_string()).as_deref(), Some(name));
        assert_eq!(lookup(&tunnels, "a6265c6d9847a4bf"), None);
        tunnels.remove_entry(&owner(), 1, &name.into());
        assert_eq!(lookup(&tunnels, "a6265c6d9847a4be"), None);
    }

    #[test]
    fn the_capacity_of_a_peak_is_given_back() {
        let (mut tunnels, all) = (Tunnels::default(), 10_000);
        let name = |n: Slot| format!("4d21094e-b74c-4916-86c1-{n:012x}");
        for n in 0..all {
            tunnels.add(entry(n, &name(n)));
        }
        for n in 10..all {
            tunnels.remove_entry(&owner(), n, &name(n).into());
        }
        assert!(tunnels.capacity() >= all as usize);
        tunnels.give_back();
        assert!(tunnels.capacity() < all as usize / 4 && tunnels.len() == 10, "{}", tunnels.capacity());
    }
}
