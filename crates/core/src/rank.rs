//! The order of an answer: gost dials the first entry of the wanted network and no other, so the order of the
//! answer is the routing. What is surely alive comes before what may be; what is dead is not listed.

use std::time::Duration;

use super::address::Address;
use super::label::Label;
use super::liveness::Standing;
use super::record::Owner;
use super::tunnels::OwnedRecord;

/// In which order the records of live agents are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Evenly.
    #[default]
    Random,
    /// By the round-trip time to the owner; agents whose times differ by less than a sixteenth evenly.
    Nearest,
}

/// What ranking needs to know of a record's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// How its records are treated.
    pub standing: Standing,
    /// The round-trip time to it; zero for ourselves.
    pub trip: Option<Duration>,
}

/// The records of a Get: each connector once, in an order drawn from `seed`, evenly over seeds.
pub fn rank(
    entries: &[OwnedRecord],
    order: Order,
    seed: u64,
    judge: impl Fn(&OwnedRecord) -> Judged,
) -> impl Iterator<Item = &OwnedRecord> {
    let mut draw = Draw(seed);
    let mut ranked: Vec<Ranked<'_>> = entries
        .iter()
        .map(|entry| (entry, judge(entry)))
        .filter(|(_, judged)| judged.standing != Standing::Hidden)
        .map(|(entry, judged)| Ranked { entry, key: (judged.standing, distance(order, judged), draw.next()) })
        .collect();
    keep_each_once(&mut ranked);
    ranked.sort_unstable_by_key(|ranked| ranked.key);
    ranked.into_iter().map(|ranked| ranked.entry)
}

struct Ranked<'a> {
    entry: &'a OwnedRecord,
    key: (Standing, u32, u64),
}

impl Ranked<'_> {
    fn said_by(&self) -> (&Label, &Owner) {
        (&self.entry.record.id, &self.entry.owner)
    }

    fn said(&self) -> (&Label, &Address) {
        (&self.entry.record.id, &self.entry.record.address)
    }
}

/// Of a connector that is listed twice, the newer version of one owner stays: a record that moved to another slot is in
/// two for the moment between two changes. Of two owners with the same record, it is the one of the better standing: one
/// that changed its agent is at both until the former lets go. Two owners' different records stay, lest one
/// hides the other's record by claiming its id.
fn keep_each_once(ranked: &mut Vec<Ranked<'_>>) {
    if ranked.len() < 2 {
        return;
    }
    ranked.sort_unstable_by(|a, b| {
        a.said_by().cmp(&b.said_by()).then_with(|| b.entry.version.cmp(&a.entry.version))
    });
    ranked.dedup_by(|next, first| next.said_by() == first.said_by());
    ranked.sort_unstable_by(|a, b| a.said().cmp(&b.said()).then(a.key.cmp(&b.key)));
    ranked.dedup_by(|next, first| next.said() == first.said());
}

/// Logarithmic, in sixteenths, so that noise in the measurement does not decide between equals.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "log2 of microseconds is under 64"
)]
#[expect(clippy::cast_precision_loss, reason = "a round trip has few digits that mean anything")]
fn distance(order: Order, judged: Judged) -> u32 {
    match (order, judged.trip) {
        (Order::Random, _) => 0,
        (Order::Nearest, None) => u32::MAX,
        (Order::Nearest, Some(trip)) => ((trip.as_micros() as f64 + 1.0).log2() * 16.0) as u32,
    }
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::Record;
    use super::super::slot::tests::record;
    use super::*;

    fn rank(
        entries: &[OwnedRecord],
        order: Order,
        seed: u64,
        judge: impl Fn(&Owner) -> Judged,
    ) -> Vec<Arc<Record>> {
        super::rank(entries, order, seed, |entry| judge(&entry.owner))
            .map(|entry| entry.record.clone())
            .collect()
    }

    fn entry(id: &str, owner: &str, version: u64) -> OwnedRecord {
        let owner = Arc::new(Owner { name: owner.parse().unwrap(), generation: 1 });
        OwnedRecord { owner, slot: 1, version, record: record(id, "t") }
    }

    fn live(_: &Owner) -> Judged {
        Judged { standing: Standing::Live, trip: None }
    }

    fn ids(ranked: &[Arc<Record>]) -> Vec<String> {
        ranked.iter().map(|record| record.id.to_string()).collect()
    }

    #[test]
    fn every_record_is_first_equally_often() {
        let entries = [entry("0", "a", 1), entry("1", "a", 2), entry("2", "b", 3)];
        let mut first = [0_u32; 3];
        for seed in 0..3_000 {
            let ranked = rank(&entries, Order::Random, seed, live);
            assert_eq!(ranked.len(), 3);
            first[ranked[0].id.text().parse::<usize>().unwrap()] += 1;
        }
        assert!(first.iter().all(|n| (900..1_100).contains(n)), "{first:?}");
    }

    #[test]
    fn a_connector_is_listed_once_by_its_newest_word() {
        let entries = [entry("1", "a", 5), entry("2", "a", 2), entry("1", "a", 9)];
        let ranked = rank(&entries, Order::Random, 7, live);
        assert_eq!(ranked.len(), 2);
        assert!(ranked.iter().any(|r| Arc::ptr_eq(r, &entries[2].record)));
    }

    #[test]
    fn what_is_surely_alive_comes_first_and_what_is_dead_not_at_all() {
        let entries = [entry("1", "suspect", 1), entry("2", "hidden", 2), entry("3", "live", 3)];
        let judge = |owner: &Owner| Judged {
            trip: None,
            standing: match owner.name.as_str() {
                "live" => Standing::Live,
                "suspect" => Standing::Suspect,
                _ => Standing::Hidden,
            },
        };
        for seed in 0..50 {
            assert_eq!(ids(&rank(&entries, Order::Random, seed, judge)), ["3", "1"]);
        }
    }

    #[test]
    fn of_a_connector_at_two_owners_the_live_ones_word_counts() {
        let entries = [entry("1", "suspect", 9), entry("1", "live", 1)];
        let judge = |owner: &Owner| Judged {
            trip: None,
            standing: if owner.name.as_str() == "live" { Standing::Live } else { Standing::Suspect },
        };
        assert!(Arc::ptr_eq(&rank(&entries, Order::Random, 1, judge)[0], &entries[1].record));
        assert_eq!(rank(&entries, Order::Random, 1, judge).len(), 1);
    }

    #[test]
    fn nobody_hides_anothers_record_by_claiming_its_id() {
        let mut claim = entry("1", "b", 9);
        Arc::make_mut(&mut claim.record).address = "10.0.0.66:8420".into();
        let entries = [entry("1", "a", 1), claim];
        let ranked = rank(&entries, Order::Random, 1, live);
        assert!(ranked.iter().any(|record| Arc::ptr_eq(record, &entries[0].record)));
        assert_eq!(ranked.len(), 2);
    }

    #[test]
    fn the_nearest_comes_first_and_equals_take_turns() {
        let entries =
            [entry("far", "c", 1), entry("near", "a", 2), entry("also", "b", 3), entry("unknown", "d", 4)];
        let judge = |owner: &Owner| Judged {
            standing: Standing::Live,
            trip: match owner.name.as_str() {
                "a" => Some(Duration::from_millis(1)),
                "b" => Some(Duration::from_micros(1_010)),
                "c" => Some(Duration::from_millis(90)),
                _ => None,
            },
        };
        let firsts: std::collections::BTreeSet<_> =
            (0..50).map(|seed| ids(&rank(&entries, Order::Nearest, seed, judge))[0].clone()).collect();
        assert_eq!(firsts, ["also".to_owned(), "near".to_owned()].into());
        assert_eq!(ids(&rank(&entries, Order::Nearest, 1, judge))[2..], ["far", "unknown"]);
    }
}
