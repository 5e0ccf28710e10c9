//! The order of an answer: gost dials the first entry of the wanted network and no other, so the order of the
//! answer is the routing.

use std::sync::Arc;

use super::directory::Entry;
use super::record::Record;

/// The records of a Get: each connector once, in an order drawn from `seed`, evenly over seeds.
pub fn rank(entries: &[Entry], seed: u64) -> Vec<Arc<Record>> {
    let mut draw = Draw(seed);
    let mut records: Vec<Arc<Record>> = each_once(entries).map(|entry| entry.record.clone()).collect();
    for last in (1..records.len()).rev() {
        records.swap(last, draw.below(last + 1));
    }
    records
}

/// The newest entry of each connector. A record that moved to another slot is in two for the moment between
/// two changes; one that changed its agent is at two owners until the former one lets go.
fn each_once(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_unstable_by(|a, b| a.record.id.cmp(&b.record.id).then(b.seq.cmp(&a.seq)));
    sorted.dedup_by(|next, first| next.record.id == first.record.id);
    sorted.into_iter()
}

/// `SplitMix64`: enough for a shuffle, and pure.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number under `bound`; the bias of the multiplication is under 2^-50 for lists that fit memory.
    #[expect(clippy::cast_possible_truncation, reason = "the product's upper half is under `bound`")]
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Owner;
    use super::super::slot::tests::record;
    use super::*;

    fn entry(id: &str, slot: u32, seq: u64) -> Entry {
        let owner = Arc::new(Owner { name: "a".parse().unwrap(), generation: 1 });
        Entry { owner, slot, seq, record: record(id, "t") }
    }

    #[test]
    fn every_record_is_first_equally_often() {
        let entries = [entry("0", 1, 1), entry("1", 2, 2), entry("2", 3, 3)];
        let mut first = [0_u32; 3];
        for seed in 0..3_000 {
            let ranked = rank(&entries, seed);
            assert_eq!(ranked.len(), 3);
            first[ranked[0].id.parse::<usize>().unwrap()] += 1;
        }
        assert!(first.iter().all(|n| (900..1_100).contains(n)), "{first:?}");
    }

    #[test]
    fn a_connector_is_listed_once() {
        let entries = [entry("1", 1, 5), entry("2", 2, 2), entry("1", 3, 9)];
        let ranked = rank(&entries, 7);
        assert_eq!(ranked.len(), 2);
        assert!(ranked.iter().any(|r| Arc::ptr_eq(r, &entries[2].record)));
    }
}
