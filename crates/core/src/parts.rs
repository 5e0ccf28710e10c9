//! A hashed table in parts: a table that grows moves all that it holds, and whoever waits for the lock waits for that.

use std::hash::{BuildHasher as _, Hash, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::{Entry, OccupiedEntry};

use super::capacity::GiveBack;

/// Of 100,000 entries, the largest part has 3,000, which move in half a millisecond.
const PARTS: usize = 64;

/// What is found by something that follows from it.
pub(crate) trait Hashed {
    /// The hash of what it is found by.
    fn hash_with(&self, hasher: &RandomState) -> u64;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Parts<T> {
    parts: [HashTable<T>; PARTS],
    hasher: RandomState,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { parts: [const { HashTable::new() }; PARTS], hasher: RandomState::default() }
    }
}

impl<T: Hashed> Parts<T> {
    pub(crate) fn find(&self, key: &impl Hash, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        let (hash, part) = self.place(key);
        self.parts[part].find(hash, is_it)
    }

    pub(crate) fn find_mut(&mut self, key: &impl Hash, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let (hash, part) = self.place(key);
        self.parts[part].find_mut(hash, is_it)
    }

    /// What is found, to be taken out.
    pub(crate) fn find_entry(
        &mut self,
        key: &impl Hash,
        is_it: impl FnMut(&T) -> bool,
    ) -> Option<OccupiedEntry<'_, T>> {
        let (hash, part) = self.place(key);
        self.parts[part].find_entry(hash, is_it).ok()
    }

    /// What is found, or where to put it.
    pub(crate) fn entry(&mut self, key: &impl Hash, is_it: impl FnMut(&T) -> bool) -> Entry<'_, T> {
        let (hash, part) = self.place(key);
        let Self { parts, hasher } = self;
        parts[part].entry(hash, is_it, |held| held.hash_with(hasher))
    }

    /// Each, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts.iter().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    /// Entries that there is capacity for.
    pub(crate) fn capacity(&self) -> usize {
        self.parts.iter().map(HashTable::capacity).sum()
    }

    /// Makes room for so many more: growing step by step would move each several times.
    pub(crate) fn reserve(&mut self, more: usize) {
        let Self { parts, hasher } = self;
        for (part, odd) in parts.iter_mut().zip((1..).step_by(2)) {
            part.reserve((more * odd).div_ceil(PARTS * PARTS), |held| held.hash_with(hasher));
        }
    }

    /// A hash, and the part of whoever has it. Parts have different sizes: those of one size would all grow at the same time.
    fn place(&self, key: &impl Hash) -> (u64, usize) {
        let hash = self.hasher.hash_one(key);
        // A table finds its places by the lowest and the highest bits.
        let middle = usize::try_from(hash >> 40 & 0xffff).unwrap_or_default();
        (hash, ((middle * PARTS * PARTS) >> u16::BITS).isqrt())
    }
}

impl<T: Hashed> GiveBack for Parts<T> {
    fn give_back(&mut self) {
        let Self { parts, hasher } = self;
        for part in parts {
            part.shrink_to(2 * part.len(), |held| held.hash_with(hasher));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Number(u64);

    impl Hashed for Number {
        fn hash_with(&self, hasher: &RandomState) -> u64 {
            hasher.hash_one(self.0)
        }
    }

    fn put(table: &mut Parts<Number>, number: u64) {
        table.entry(&number, |held| held.0 == number).insert(Number(number));
    }

    #[test]
    fn whatever_was_put_is_found_however_the_parts_grow_and_shrink() {
        let mut table = Parts::default();
        for number in 0..5_000 {
            put(&mut table, number);
            put(&mut table, number);
        }
        assert_eq!(table.len(), 5_000);
        for number in 100..5_000 {
            assert!(
                table
                    .find_entry(&number, |held| held.0 == number)
                    .is_some_and(|found| found.remove().0 == Number(number))
            );
        }
        let before = table.capacity();
        table.give_back();
        assert!(table.capacity() < before / 4, "{} of {before}", table.capacity());
        for number in 0..200_u64 {
            assert_eq!(table.find(&number, |held| held.0 == number).is_some(), number < 100);
        }
        assert_eq!(table.iter().map(|number| number.0).sum::<u64>(), 4_950);
    }

    #[test]
    fn no_part_has_much_of_it_and_what_was_reserved_is_enough_for_most() {
        let mut table = Parts::default();
        table.reserve(100_000);
        let reserved = table.capacity();
        (0..100_000).for_each(|number| put(&mut table, number));
        let largest = table.parts.iter().map(HashTable::len).max().unwrap();
        assert!(largest < 4_000, "{largest}");
        assert!(table.capacity() < reserved * 5 / 4, "{reserved}, then {}", table.capacity());
    }
}
