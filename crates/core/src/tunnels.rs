//! Tunnel name → the entries that are shown of it. Nearly every tunnel has one, so that one takes no allocation, and no
//! name beside its record's.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::slice;

use super::directory::Entry;
use super::label::Label;
use super::room::Room as _;

/// See the module.
#[derive(Debug, Default)]
pub struct Tunnels(HashSet<Tunnel>);

/// A set's element is its name.
#[derive(Debug)]
enum Tunnel {
    One(Entry),
    /// At least one.
    Several(Vec<Entry>),
}

impl Tunnels {
    /// The entries of a name, in no particular order.
    pub fn lookup(&self, name: &Label) -> &[Entry] {
        self.0.get(name).map_or(&[], Tunnel::entries)
    }

    /// Every tunnel with an entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Label, &[Entry])> {
        self.0.iter().map(|tunnel| (tunnel.name(), tunnel.entries()))
    }

    /// How many tunnels have an entry.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives back the room of a peak that is over.
    pub fn give_back(&mut self) {
        self.0.give_back();
    }

    /// Entries that there is room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.0.room()
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: Entry) {
        let tunnel = match self.0.take(&entry.record.name) {
            None => Tunnel::One(entry),
            Some(Tunnel::One(first)) => Tunnel::Several(vec![first, entry]),
            Some(Tunnel::Several(mut entries)) => {
                entries.push(entry);
                Tunnel::Several(entries)
            }
        };
        self.0.insert(tunnel);
    }

    /// Removes the first entry of a name that is meant.
    pub fn remove(&mut self, name: &Label, meant: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let at = self.lookup(name).iter().position(meant)?;
        match self.0.take(name)? {
            Tunnel::One(entry) => Some(entry),
            Tunnel::Several(mut entries) => {
                let removed = entries.swap_remove(at);
                if !entries.is_empty() {
                    self.0.insert(Tunnel::Several(entries));
                }
                Some(removed)
            }
        }
    }
}

impl Tunnel {
    fn entries(&self) -> &[Entry] {
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

const _: () = assert!(size_of::<Tunnel>() == size_of::<Entry>(), "most tunnels have one entry");

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::Owner;
    use super::super::slot::tests::record;
    use super::*;

    fn entry(id: &str, name: &str) -> Entry {
        let owner = Arc::new(Owner { name: "a".parse().unwrap(), generation: 1 });
        Entry { owner, slot: 1, version: 1, record: record(id, name) }
    }

    #[test]
    fn a_tunnel_is_there_as_long_as_it_has_an_entry() {
        let mut tunnels = Tunnels::default();
        let (t, is) = (Label::from("t"), |id: &'static str| move |entry: &Entry| entry.record.id == *id);
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
    fn the_room_of_a_peak_is_given_back() {
        let (mut tunnels, all) = (Tunnels::default(), 10_000);
        for n in 0..all {
            tunnels.add(entry(&n.to_string(), &n.to_string()));
        }
        for n in 10..all {
            tunnels.remove(&n.to_string().into(), |_| true);
        }
        assert!(tunnels.room() >= all);
        tunnels.give_back();
        assert!(tunnels.room() < 100 && tunnels.len() == 10, "{}", tunnels.room());
    }
}
