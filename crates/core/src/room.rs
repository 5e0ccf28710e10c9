//! Room that a table took at a peak and does not need any more. Maps and queues of the standard library keep theirs until
//! told; trees give it back by themselves.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

/// A table with less room than this keeps it.
const SMALL: usize = 256;
/// It has more than this many times the room that it needs: it was fuller once, and is not about to be again.
const FORMER_PEAK: usize = 4;

/// A table that keeps the room of its peak.
pub trait Room {
    /// Its entries.
    fn held(&self) -> usize;
    /// Entries that it has room for.
    fn room(&self) -> usize;
    /// Leaves room for that many, if they are no fewer than there are.
    fn limit(&mut self, entries: usize);

    /// Gives back the room of a peak that is over, but for twice what is needed. Takes the time that it takes to move what
    /// is there, and only after three quarters of it went.
    fn give_back(&mut self) {
        if self.may_be_former_peak() {
            self.limit(2 * self.held());
        }
    }

    /// Whether the table may have so much more room than it needs.
    fn may_be_former_peak(&self) -> bool {
        self.room() > SMALL.max(FORMER_PEAK * self.held())
    }
}

macro_rules! room {
    ($table:ty, [$($bounds:tt)*] $($more:tt)*) => {
        impl<$($bounds)*> Room for $table {
            fn held(&self) -> usize {
                self.len()
            }
            fn room(&self) -> usize {
                self.capacity()
            }
            fn limit(&mut self, entries: usize) {
                self.shrink_to(entries);
            }
            $($more)*
        }
    };
}

macro_rules! hashed {
    ($table:ty, $($bounds:tt)*) => {
        room!($table, [$($bounds)*]
            /// A hashed table's capacity does not count what was removed: only `shrink_to` knows the room that it has, and
            /// leaves it alone unless half would do.
            fn may_be_former_peak(&self) -> bool {
                true
            }
        );
    };
}

hashed!(HashMap<K, V, S>, K: Eq + Hash, V, S: BuildHasher);
hashed!(HashSet<T, S>, T: Eq + Hash, S: BuildHasher);
room!(VecDeque<T>, [T]);
room!(BinaryHeap<T>, [T: Ord]);
room!(Vec<T>, [T]);

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a table, empties it but for some, and looks at its room after each.
    fn lives<T: Room + Default>(put: impl Fn(&mut T, u32), drop_all_but: impl Fn(&mut T, usize)) {
        let mut table = T::default();
        (0..100_000).for_each(|n| put(&mut table, n));
        table.give_back();
        assert!(table.room() >= 100_000, "what is needed stays");
        drop_all_but(&mut table, 50_000);
        table.give_back();
        // Of a hashed table, at least what did not shrink.
        assert!(table.room() >= 50_000 + 14_000, "half of a peak may come again: {}", table.room());
        drop_all_but(&mut table, 1_000);
        assert!(table.room() > 14_000, "nobody gives anything back unasked: {}", table.room());
        table.give_back();
        let room = table.room();
        assert!((2_000..4_000).contains(&room), "{room}");
        table.give_back();
        assert_eq!((table.room(), table.held()), (room, 1_000), "once is enough");
        drop_all_but(&mut table, 0);
        table.give_back();
        assert!(table.room() <= SMALL, "{}", table.room());
    }

    #[test]
    fn the_room_of_a_peak_is_given_back() {
        lives::<HashSet<u32>>(|t, n| assert!(t.insert(n)), |t, most| t.retain(|n| (*n as usize) < most));
        lives::<HashMap<u32, u64>>(
            |t, n| assert!(t.insert(n, 1).is_none()),
            |t, most| t.retain(|n, _| (*n as usize) < most),
        );
        lives::<VecDeque<u32>>(VecDeque::push_back, VecDeque::truncate);
        lives::<Vec<u32>>(Vec::push, Vec::truncate);
        lives::<BinaryHeap<u32>>(BinaryHeap::push, |t, most| t.retain(|n| (*n as usize) < most));
    }

    #[test]
    fn a_small_table_keeps_its_room() {
        let mut table: Vec<u32> = Vec::with_capacity(SMALL);
        table.give_back();
        assert!(table.capacity() >= SMALL);
    }
}
