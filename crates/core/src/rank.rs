//! The order of an answer: gost dials the first entry of the wanted network and no other, so the order of the
//! answer is the routing. What surely works from here comes before what may; what is dead is not listed.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::label::Label;
use super::liveness::Standing;
use super::locality::MAX_WEIGHT;
use super::record::{Network, Owner};
use super::tunnels::{Entries, OwnedRecord};

/// Records in an answer, at most. gost dials the first one that fits and no other, so the rest of a long list is only there to be
/// encoded, sent and parsed for every visitor. An answer of 64 fits into a few packets; one of 100,000 is 20 MB.
pub const BEST: usize = 64;
/// Of many records, so many of the best are looked at more closely: some of them may be the same connector.
const LOOKED_AT: usize = 2 * BEST;

/// What a dial of an entrypoint from this host showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It took the connection, after a round trip.
    Works(Duration),
    /// It was not dialled, or not lately.
    Untried,
    /// It refused.
    Refused,
    /// Nothing came.
    Silent,
}

/// Which records come before which others, whatever else there is to choose by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Of an agent that is heard.
    Usable(Hope),
    /// The same, of an agent with weight 0: if there is nobody else. It comes before what is doubted, since that is what a
    /// backup is for.
    Backup(Hope),
    /// Its agent has been silent for a moment, or says that its gost does not answer.
    Doubted {
        /// Whether its agent has weight 0.
        is_backup: bool,
    },
    /// Its agent is silent, and its gost takes connections from here.
    Survives,
    /// Its agent is heard, and dials from here are in vain.
    Unreached,
    /// Its agent is silent, and nothing more is known of its gost; or that does not answer either.
    Suspect,
}

/// How likely a record of an agent that is heard works from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hope {
    /// It was dialled, and took the connection; or it is our own.
    Works,
    /// It was not dialled yet.
    Untried,
}

/// In which order records of the same tier are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Evenly.
    #[default]
    Random,
    /// By the round-trip time to the owner; agents whose times differ by less than a sixteenth evenly.
    Nearest,
}

/// What ranking needs to know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// How its owner is.
    pub standing: Standing,
    /// What dials of its entrypoint showed.
    pub reach: Reach,
    /// Whether its owner says that its gost does not answer.
    pub is_frozen: bool,
    /// Whether its owner is silent, and its gost answers.
    pub survives: bool,
    /// Whether its owner is in another zone than we are.
    pub is_far: bool,
    /// How often it is to come first among its equals, beside others: 0 to [`MAX_WEIGHT`].
    pub weight: u8,
    /// The round-trip time to its entrypoint, or else to its owner; zero for ourselves.
    pub trip: Option<Duration>,
}

/// Nothing is known of it.
impl Default for Judged {
    fn default() -> Self {
        Self {
            standing: Standing::Hidden,
            reach: Reach::Untried,
            is_frozen: false,
            survives: false,
            is_far: false,
            weight: MAX_WEIGHT,
            trip: None,
        }
    }
}

impl Judged {
    /// Its tier; none if it is not listed.
    pub fn tier(&self) -> Option<Tier> {
        let is_backup = self.weight == 0;
        let hope = match (self.standing, self.reach) {
            (Standing::Suspect | Standing::Hidden, _) if self.survives => return Some(Tier::Survives),
            (Standing::Hidden, _) => return None,
            (Standing::Suspect, Reach::Works(_)) => return Some(Tier::Survives),
            (Standing::Suspect, _) => return Some(Tier::Suspect),
            (_, Reach::Refused | Reach::Silent) => return Some(Tier::Unreached),
            (Standing::Doubted, _) => return Some(Tier::Doubted { is_backup }),
            (Standing::Live, _) if self.is_frozen => return Some(Tier::Doubted { is_backup }),
            (Standing::Live, Reach::Works(_)) => Hope::Works,
            (Standing::Live, Reach::Untried) => Hope::Untried,
        };
        Some(if is_backup { Tier::Backup(hope) } else { Tier::Usable(hope) })
    }
}

/// The records of a Get, with their tiers: each connector once, in an order drawn from `seed`; the best [`BEST`] of them. Among its equals each
/// owner comes first as often as its weight says, however many records it has.
pub fn rank<'a, J: FnMut(&OwnedRecord) -> Judged>(
    entries: &Entries<'a>,
    order: Order,
    seed: u64,
    mut judge: J,
) -> impl Iterator<Item = (&'a OwnedRecord, Tier)> + use<'a, J> {
    let (mut draw, mut last) = (Draw(seed), None::<(&Arc<Owner>, Judged, Option<Preference>)>);
    let candidates = entries.iter().filter_map(|entry| {
        let judged = judge(entry);
        // Entries of one owner come one after the other, mostly.
        let preference = match last {
            Some((owner, known, preference)) if known == judged && Arc::ptr_eq(owner, &entry.owner) => {
                preference
            }
            _ => last.insert((&entry.owner, judged, preference(order, seed, &entry.owner, &judged))).2,
        };
        Some(Ranked { entry, key: (preference?, draw.next()) })
    });
    let mut ranked = if entries.len() <= BEST {
        let mut all: Vec<_> = candidates.collect();
        keep_each_once(&mut all);
        all
    } else {
        best(candidates)
    };
    ranked.sort_unstable_by_key(|ranked| ranked.key);
    ranked.into_iter().map(|Ranked { entry, key: (preference, _) }| (entry, preference.tier))
}

/// The best of many, without sorting or copying them all. gost takes the first record of the network that it wants and of
/// another instance than its own, so the best that fits is among them, whoever asks.
fn best<'a>(candidates: impl Iterator<Item = Ranked<'a>>) -> Vec<Ranked<'a>> {
    let mut best = BinaryHeap::with_capacity(LOOKED_AT + 1);
    let mut needed = [Needed::default(), Needed::default()];
    for ranked in candidates {
        needed[usize::from(ranked.entry.record.network == Network::Udp)].note(ranked);
        if best.len() < LOOKED_AT {
            best.push(ranked);
        } else if let Some(mut worst) = best.peek_mut()
            && ranked < *worst
        {
            *worst = ranked;
        }
    }
    let mut best = best.into_vec();
    keep_each_once(&mut best);
    best.sort_unstable_by_key(|ranked| ranked.key);
    let needed = needed.into_iter().flat_map(|needed| [needed.first, needed.other]).flatten();
    let missing =
        |needed: &Ranked<'_>| !best.iter().take(BEST - 4).any(|chosen| chosen.said() == needed.said());
    let missing: Vec<_> = needed.filter(missing).collect();
    best.truncate(BEST - missing.len());
    best.extend(missing);
    // What was needed may have been in between.
    keep_each_once(&mut best);
    best
}

/// The best record of a network, and the best of another instance than its.
#[derive(Default)]
struct Needed<'a> {
    first: Option<Ranked<'a>>,
    other: Option<Ranked<'a>>,
}

impl<'a> Needed<'a> {
    fn note(&mut self, ranked: Ranked<'a>) {
        let node = |ranked: Ranked<'a>| &ranked.entry.record.node;
        match self.first {
            Some(first) if first < ranked => {
                if self.other.is_none_or(|other| ranked < other) && node(first) != node(ranked) {
                    self.other = Some(ranked);
                }
            }
            first => {
                if first.is_some_and(|first| node(first) != node(ranked)) {
                    self.other = first;
                }
                self.first = Some(ranked);
            }
        }
    }
}

/// The least comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    tier: Tier,
    is_far: bool,
    distance: u32,
    turn: u64,
}

fn preference(order: Order, seed: u64, owner: &Owner, judged: &Judged) -> Option<Preference> {
    let tier = judged.tier()?;
    Some(Preference {
        tier,
        is_far: judged.is_far,
        distance: distance(order, judged),
        turn: turn(seed, owner, judged.weight),
    })
}

/// When an owner has its turn: drawn so that it is first among its equals as often as its weight says.
#[expect(clippy::cast_precision_loss, reason = "the first 52 bits are enough for a draw")]
fn turn(seed: u64, owner: &Owner, weight: u8) -> u64 {
    let name = owner.name.as_str().bytes();
    let name = name.fold(seed ^ owner.generation, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // Exponentially distributed, at the rate of the weight: the least of several is each as often as its rate is a part of all.
    let even = ((Draw(name).next() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    let wait = -even.ln() / f64::from(weight.max(1));
    // Of two positive numbers the larger one has the larger bits.
    wait.to_bits()
}

#[derive(Clone, Copy)]
struct Ranked<'a> {
    entry: &'a OwnedRecord,
    key: (Preference, u64),
}

/// The best is the least.
impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Ranked<'_> {}

impl Ranked<'_> {
    fn said_by(&self) -> (&Label, &Owner) {
        (&self.entry.record.id, &self.entry.owner)
    }

    fn said(&self) -> (&Label, &Address) {
        (&self.entry.record.id, &self.entry.record.address)
    }
}

/// Of a connector that is listed twice, the newer version of one owner stays: a record that moved to another slot is in
/// two for the moment between two changes. Of two owners with the same record, it is the one that comes first: one
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
fn distance(order: Order, judged: &Judged) -> u32 {
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
    use super::super::record::Record;
    use super::super::slot::tests::record;
    use super::*;

    fn rank(
        entries: &[OwnedRecord],
        order: Order,
        seed: u64,
        judge: impl Fn(&Owner) -> Judged,
    ) -> Vec<Arc<Record>> {
        super::rank(&entries.into(), order, seed, |entry| judge(&entry.owner))
            .map(|(entry, _)| entry.record.clone())
            .collect()
    }

    fn entry(id: &str, owner: &str, version: u64) -> OwnedRecord {
        let owner = Arc::new(Owner { name: owner.parse().unwrap(), generation: 1 });
        OwnedRecord { owner, slot: 1, version, record: record(id, "t") }
    }

    fn live(_: &Owner) -> Judged {
        Judged { standing: Standing::Live, ..Judged::default() }
    }

    fn ids(ranked: &[Arc<Record>]) -> Vec<String> {
        ranked.iter().map(|record| record.id.to_string()).collect()
    }

    /// How often each record comes first, of 4,000 times.
    fn firsts<const N: usize>(entries: &[OwnedRecord; N], judge: impl Fn(&Owner) -> Judged) -> [u32; N] {
        let mut first = [0_u32; N];
        for seed in 0..4_000 {
            let ranked = rank(entries, Order::Random, seed, &judge);
            first[ranked[0].id.text().parse::<usize>().unwrap()] += 1;
        }
        first
    }

    fn is_about(found: u32, wanted: u32) -> bool {
        found.abs_diff(wanted) < 150
    }

    #[test]
    fn every_owner_is_first_equally_often_however_many_records_it_has() {
        let entries = [entry("0", "a", 1), entry("1", "a", 2), entry("2", "b", 3)];
        let first = firsts(&entries, live);
        assert!(is_about(first[0], 1_000) && is_about(first[1], 1_000), "{first:?}");
        assert!(is_about(first[2], 2_000), "{first:?}");
    }

    #[test]
    fn an_owner_is_first_as_often_as_its_weight_says() {
        let entries = [entry("0", "a", 1), entry("1", "b", 2), entry("2", "c", 3)];
        let first = firsts(&entries, |owner| Judged {
            weight: match owner.name.as_str() {
                "a" => 100,
                "b" => 75,
                _ => 25,
            },
            ..live(owner)
        });
        for (found, wanted) in first.into_iter().zip([2_000, 1_500, 500]) {
            assert!(is_about(found, wanted), "{first:?}");
        }
    }

    #[test]
    fn whoever_is_near_comes_first_and_a_backup_if_nobody_else_is_usable() {
        let near = Judged { standing: Standing::Live, ..Judged::default() };
        let judge = |owner: &Owner| match owner.name.as_str() {
            "near" => near,
            "far" => Judged { is_far: true, ..near },
            "backup" => Judged { weight: 0, reach: Reach::Works(Duration::ZERO), ..near },
            "unreached" => Judged { reach: Reach::Refused, ..near },
            other => panic!("{other}"),
        };
        let all = ["unreached", "backup", "far", "near"].map(|name| entry(name, name, 1));
        for seed in 0..50 {
            let ranked = rank(&all, Order::Random, seed, judge);
            assert_eq!(ids(&ranked), ["near", "far", "backup", "unreached"]);
        }
    }

    #[test]
    fn what_works_from_here_comes_before_what_may() {
        const TRIP: Duration = Duration::from_millis(1);
        let live = Judged { standing: Standing::Live, ..Judged::default() };
        let works = Judged { reach: Reach::Works(TRIP), ..live };
        let suspect = Judged { standing: Standing::Suspect, ..live };
        let in_order = [
            works,
            live,
            Judged { weight: 0, ..works },
            Judged { weight: 0, ..live },
            Judged { standing: Standing::Doubted, ..works },
            Judged { standing: Standing::Doubted, weight: 0, ..works },
            Judged { survives: true, ..suspect },
            Judged { reach: Reach::Silent, ..live },
            suspect,
        ];
        assert!(in_order.windows(2).all(|pair| pair[0].tier() < pair[1].tier()));
        assert_eq!(Judged { is_frozen: true, ..works }.tier(), Some(Tier::Doubted { is_backup: false }));
        let dead = Judged { standing: Standing::Hidden, ..works };
        assert_eq!(dead.tier(), None);
        assert_eq!(Judged { survives: true, ..dead }.tier(), Some(Tier::Survives));
        assert_eq!(Judged { reach: Reach::Refused, ..suspect }.tier(), Some(Tier::Suspect));
    }

    #[test]
    #[ignore = "seconds: scripts/check.sh runs it"]
    fn of_many_the_best_are_listed_each_once_and_equally_often_first() {
        let all = 10 * BEST;
        let mut entries: Vec<_> = (0..all).map(|n| entry(&n.to_string(), "live", n as u64)).collect();
        entries.extend((0..all).map(|n| entry(&format!("s{n}"), "suspect", n as u64)));
        let judge = |owner: &Owner| Judged {
            standing: if owner.name.as_str() == "live" { Standing::Live } else { Standing::Suspect },
            ..Judged::default()
        };
        let mut firsts = std::collections::BTreeSet::new();
        for seed in 0..2_000 {
            let ranked = ids(&rank(&entries, Order::Random, seed, judge));
            let once: std::collections::BTreeSet<_> = ranked.iter().collect();
            assert_eq!((ranked.len(), once.len()), (BEST, BEST));
            assert!(
                !ranked.iter().any(|id| id.starts_with('s')),
                "what may be dead comes after all that lives"
            );
            firsts.insert(ranked[0].clone());
        }
        assert!(firsts.len() > all / 2, "{} of {all} were ever first", firsts.len());
    }

    #[test]
    fn of_many_there_is_one_for_whoever_asks() {
        let node = |mut entry: OwnedRecord, node: &str, network| {
            let record = Arc::make_mut(&mut entry.record);
            (record.node, record.network) = (node.into(), network);
            entry
        };
        let many = (0..1_000).map(|n| node(entry(&n.to_string(), "live", n), "own", Network::Tcp));
        let mut entries: Vec<_> = many.collect();
        entries.push(node(entry("another's", "suspect", 1), "another", Network::Tcp));
        entries.push(node(entry("datagrams", "suspect", 1), "own", Network::Udp));
        let judge = |owner: &Owner| Judged {
            standing: if owner.name.as_str() == "live" { Standing::Live } else { Standing::Suspect },
            ..Judged::default()
        };
        for seed in 0..50 {
            let ranked = rank(&entries, Order::Random, seed, judge);
            assert_eq!(ranked.len(), BEST);
            assert_eq!(&*ranked[0].node.text(), "own");
            for wanted in ["another's", "datagrams"] {
                assert!(ids(&ranked).contains(&wanted.to_owned()), "{wanted}");
            }
        }
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
            ..Judged::default()
        };
        for seed in 0..50 {
            assert_eq!(ids(&rank(&entries, Order::Random, seed, judge)), ["3", "1"]);
        }
    }

    #[test]
    fn of_a_connector_at_two_owners_the_live_ones_word_counts() {
        let entries = [entry("1", "suspect", 9), entry("1", "live", 1)];
        let judge = |owner: &Owner| Judged {
            standing: if owner.name.as_str() == "live" { Standing::Live } else { Standing::Suspect },
            ..Judged::default()
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
            ..Judged::default()
        };
        let firsts: std::collections::BTreeSet<_> =
            (0..50).map(|seed| ids(&rank(&entries, Order::Nearest, seed, judge))[0].clone()).collect();
        assert_eq!(firsts, ["also".to_owned(), "near".to_owned()].into());
        assert_eq!(ids(&rank(&entries, Order::Nearest, 1, judge))[2..], ["far", "unknown"]);
    }
}
