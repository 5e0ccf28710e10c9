//! Ids that were deregistered: whatever arrives for them later changes nothing.

use std::collections::{BTreeSet, VecDeque};

use super::label::Label;

/// How many released ids an agent remembers; the oldest go first. An id is a random UUID that gost never
/// reuses, so only calls that are in flight beside a Deregister have to find it here: seconds, at most the
/// minutes of a long outage, at 100 disconnects a second.
pub const MAX_TOMBSTONES: usize = 100_000;

/// The set of released ids, bounded.
#[derive(Debug, Default)]
pub struct Tombstones {
    /// A hashed set that is full, and changes, doubles its room, because what was removed leaves marks in it.
    ids: BTreeSet<Label>,
    oldest_first: VecDeque<Label>,
}

impl Tombstones {
    /// Remembers a released id. False if it was known.
    pub fn bury(&mut self, id: &Label) -> bool {
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.oldest_first.push_back(id.clone());
        if self.oldest_first.len() > MAX_TOMBSTONES
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    /// Whether the id was released.
    pub fn contains(&self, id: &Label) -> bool {
        self.ids.contains(id)
    }

    /// The released ids, oldest first.
    pub fn ids(&self) -> impl Iterator<Item = &Label> {
        self.oldest_first.iter()
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_remembered() {
        let mut tombstones = Tombstones::default();
        for n in 0..=MAX_TOMBSTONES {
            assert!(tombstones.bury(&n.to_string().into()));
        }
        assert_eq!(tombstones.len(), MAX_TOMBSTONES);
        assert!(!tombstones.contains(&"0".into()) && tombstones.contains(&"1".into()));
        assert!(!tombstones.bury(&"1".into()));
    }
}
