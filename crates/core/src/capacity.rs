//! Capacity that a table took at a peak and does not need any more. Maps and queues of the standard library keep theirs until
//! told to give it back; trees do so by themselves.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

/// A table with less capacity than this keeps it.
const SMALL: usize = 256;
/// A table with more than this many times the capacity that it needs was fuller once, and is not about to be again.
const FORMER_PEAK: usize = 4;

/// A table that keeps the capacity of its peak.
pub trait GiveBack {
    /// Gives back the capacity of a peak that is over, but for twice what is needed. Takes the time that it takes to move the
    /// entries, and only after three quarters of them went.
    fn give_back(&mut self);
}

macro_rules! give_back {
    ($table:ty, $is_former_peak:expr, $($bounds:tt)*) => {
        impl<$($bounds)*> GiveBack for $table {
            fn give_back(&mut self) {
                if $is_former_peak(self.len(), self.capacity()) {
                    self.shrink_to(2 * self.len());
                }
            }
        }
    };
}

fn is_former_peak(held: usize, capacity: usize) -> bool {
    capacity > SMALL.max(FORMER_PEAK * held)
}

/// A hashed table's capacity does not count what was removed: only `shrink_to` knows the real one, and leaves the table alone
/// unless half would do.
fn may_be_former_peak(_held: usize, _capacity: usize) -> bool {
    true
}

give_back!(HashMap<K, V, S>, may_be_former_peak, K: Eq + Hash, V, S: BuildHasher);
give_back!(HashSet<T, S>, may_be_former_peak, T: Eq + Hash, S: BuildHasher);
give_back!(VecDeque<T>, is_former_peak, T);
give_back!(BinaryHeap<T>, is_former_peak, T: Ord);
give_back!(Vec<T>, is_former_peak, T);

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a table, empties it but for some, and looks at its capacity after each.
    fn lives<T: GiveBack + Default>(
        put: impl Fn(&mut T, u32),
        drop_all_but: impl Fn(&mut T, usize),
        fill: impl Fn(&T) -> (usize, usize),
    ) {
        let capacity = |table: &T| fill(table).1;
        let mut table = T::default();
        (0..100_000).for_each(|n| put(&mut table, n));
        table.give_back();
        assert!(capacity(&table) >= 100_000, "what is needed stays");
        drop_all_but(&mut table, 50_000);
        table.give_back();
        // Of a hashed table, at least what did not shrink.
        assert!(capacity(&table) >= 50_000 + 14_000, "half of a peak may come again: {}", capacity(&table));
        drop_all_but(&mut table, 1_000);
        assert!(capacity(&table) > 14_000, "nobody gives anything back unasked: {}", capacity(&table));
        table.give_back();
        let rest = capacity(&table);
        assert!((2_000..4_000).contains(&rest), "{rest}");
        table.give_back();
        assert_eq!(fill(&table), (1_000, rest), "once is enough");
        drop_all_but(&mut table, 0);
        table.give_back();
        assert!(capacity(&table) <= SMALL, "{}", capacity(&table));
    }

    #[test]
    fn the_capacity_of_a_peak_is_given_back() {
        lives::<HashSet<u32>>(
            |t, n| assert!(t.insert(n)),
            |t, most| t.retain(|n| (*n as usize) < most),
            |t| (t.len(), t.capacity()),
        );
        lives::<HashMap<u32, u64>>(
            |t, n| assert!(t.insert(n, 1).is_none()),
            |t, most| t.retain(|n, _| (*n as usize) < most),
            |t| (t.len(), t.capacity()),
        );
        lives::<VecDeque<u32>>(VecDeque::push_back, VecDeque::truncate, |t| (t.len(), t.capacity()));
        lives::<Vec<u32>>(Vec::push, Vec::truncate, |t| (t.len(), t.capacity()));
        lives::<BinaryHeap<u32>>(
            BinaryHeap::push,
            |t, most| t.retain(|n| (*n as usize) < most),
            |t| (t.len(), t.capacity()),
        );
    }

    #[test]
    fn a_small_table_keeps_its_capacity() {
        let mut table: Vec<u32> = Vec::with_capacity(SMALL);
        table.give_back();
        assert!(table.capacity() >= SMALL);
    }
}
