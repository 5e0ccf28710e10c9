//! The owner's truth: which records it holds, until when, and which ids were released for ever. Every change
//! that the cluster has to hear of comes out as a [`Change`] of a slot.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::Record;
use super::slot::{Cell, Change, Slot, SlotTable, SlotsFull, Status};
use super::tombstone::Tombstones;

/// How long a lapsed record is kept, for a late Renew to revive it.
pub const KEEP_LAPSED: Duration = Duration::from_secs(3600);
/// A learned TTL is this many Renew periods: two Renews may be lost or late.
const PERIODS: u32 = 3;
/// Bounds of a learned TTL. Below the lower one, a pause of the host would take live tunnels away.
const LEARNED_TTL: (Duration, Duration) = (Duration::from_secs(5), KEEP_LAPSED);
/// A period is the longest of this many last intervals: gost's ticker, held up once, ticks early once.
const INTERVALS: usize = 3;

/// What a Renew found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// A live record; its lease was prolonged.
    Renewed,
    /// A lapsed record, live again.
    Revived(Change),
    /// An id that was released: nothing changed, and nothing is wrong.
    Released,
    /// No such id here.
    Unknown,
}

/// The leases of one owner.
#[derive(Debug)]
pub struct LeaseTable {
    ttl: Duration,
    leases: HashMap<Arc<str>, Lease>,
    slots: SlotTable,
    tombstones: Tombstones,
    /// One entry per lease, moved lazily: a Renew costs a hash lookup, not a heap operation.
    deadlines: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    live: usize,
}

#[derive(Debug)]
struct Lease {
    record: Arc<Record>,
    /// None while lapsed.
    slot: Option<Slot>,
    deadline: Instant,
    period: Period,
}

/// The Renew period of one record, learned from its Renews.
#[derive(Debug, Default)]
struct Period {
    last_renew: Option<Instant>,
    intervals: [Option<Duration>; INTERVALS],
}

impl LeaseTable {
    /// An empty table; `ttl` holds for records whose Renew period is not known yet.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            leases: HashMap::new(),
            slots: SlotTable::default(),
            tombstones: Tombstones::default(),
            deadlines: BinaryHeap::new(),
            live: 0,
        }
    }

    /// Takes a record, or renews it if it is held as it is. Nothing happens to a released id.
    pub fn register(&mut self, now: Instant, record: Record) -> Result<Option<Change>, SlotsFull> {
        if self.tombstones.contains(&record.id) {
            return Ok(None);
        }
        let record = Arc::new(record);
        let Some(lease) = self.leases.get_mut(&record.id) else {
            return self.insert(now, record).map(Some);
        };
        lease.deadline = now + lease.period.ttl(self.ttl);
        let change = match lease.slot {
            Some(_) if lease.record == record => None,
            Some(slot) => Some(self.slots.replace(slot, record.clone())),
            None => {
                let change = self.slots.put(record.clone())?;
                lease.slot = Some(change.slot);
                self.live += 1;
                Some(change)
            }
        };
        lease.record = record;
        Ok(change)
    }

    /// Prolongs the lease of an id.
    pub fn renew(&mut self, now: Instant, id: &str) -> Renewal {
        let Some(lease) = self.leases.get_mut(id) else {
            return if self.tombstones.contains(id) { Renewal::Released } else { Renewal::Unknown };
        };
        lease.period.renewed(now);
        lease.deadline = now + lease.period.ttl(self.ttl);
        if lease.slot.is_some() {
            return Renewal::Renewed;
        }
        match self.slots.put(lease.record.clone()) {
            Ok(change) => {
                lease.slot = Some(change.slot);
                self.live += 1;
                Renewal::Revived(change)
            }
            Err(SlotsFull) => Renewal::Unknown,
        }
    }

    /// Releases an id for ever, known or not: its Register may still be on the way.
    pub fn release(&mut self, id: &str) -> Option<Change> {
        let Some((id, lease)) = self.leases.remove_entry(id) else {
            self.tombstones.bury(&id.into());
            return None;
        };
        self.tombstones.bury(&id);
        lease.slot.map(|slot| self.clear(slot))
    }

    /// Lapses what is overdue, and forgets what lapsed long ago.
    pub fn expire(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(Reverse((due, _))) = self.deadlines.peek()
            && *due <= now
            && let Some(Reverse((_, id))) = self.deadlines.pop()
        {
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            if lease.deadline <= now {
                let Some(slot) = lease.slot.take() else {
                    self.leases.remove(&id);
                    continue;
                };
                lease.deadline = now + KEEP_LAPSED;
                changes.push(self.slots.clear(slot));
                self.live -= 1;
            }
            self.deadlines.push(Reverse((self.leases[&id].deadline, id)));
        }
        changes
    }

    /// When [`Self::expire`] may next have something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((due, _))| *due)
    }

    /// Says how the owner is.
    pub fn say(&mut self, status: Status) -> Change {
        self.slots.say(status)
    }

    /// See [`SlotTable::correct`].
    pub fn correct(&mut self, slot: Slot, told: &Cell) -> Option<Change> {
        self.slots.correct(slot, told)
    }

    /// The owner's cells, as the cluster should know them.
    pub fn cells(&self) -> &[Cell] {
        self.slots.cells()
    }

    /// How many records are live.
    pub fn live(&self) -> usize {
        self.live
    }

    fn insert(&mut self, now: Instant, record: Arc<Record>) -> Result<Change, SlotsFull> {
        let change = self.slots.put(record.clone())?;
        let id = record.id.clone();
        let deadline = now + self.ttl;
        let lease = Lease { record, slot: Some(change.slot), deadline, period: Period::default() };
        self.leases.insert(id.clone(), lease);
        self.deadlines.push(Reverse((deadline, id)));
        self.live += 1;
        Ok(change)
    }

    fn clear(&mut self, slot: Slot) -> Change {
        self.live -= 1;
        self.slots.clear(slot)
    }
}

impl Period {
    fn renewed(&mut self, now: Instant) {
        if let Some(last) = self.last_renew.replace(now) {
            self.intervals.rotate_right(1);
            self.intervals[0] = Some(now.saturating_duration_since(last));
        }
    }

    fn ttl(&self, unknown: Duration) -> Duration {
        let longest = self.intervals.iter().flatten().max();
        longest.map_or(unknown, |period| period.saturating_mul(PERIODS).clamp(LEARNED_TTL.0, LEARNED_TTL.1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::tests::record;
    use super::*;
    use crate::domain::slot::Content;

    const TTL: Duration = Duration::from_secs(60);

    fn table() -> (LeaseTable, Instant) {
        (LeaseTable::new(TTL), Instant::now())
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn take(table: &mut LeaseTable, now: Instant, id: &str) -> Option<Change> {
        table.register(now, (*record(id, "t")).clone()).unwrap()
    }

    #[test]
    fn registering_twice_says_it_once() {
        let (mut table, now) = table();
        assert!(take(&mut table, now, "1").is_some());
        assert_eq!(take(&mut table, now, "1"), None);
        assert_eq!(table.live(), 1);
    }

    #[test]
    fn a_moved_record_keeps_its_slot() {
        let (mut table, now) = table();
        let first = take(&mut table, now, "1").unwrap();
        let moved = Record { address: "10.0.0.2:80".into(), ..(*record("1", "t")).clone() };
        let second = table.register(now, moved).unwrap().unwrap();
        assert_eq!(first.slot, second.slot);
        assert!(second.cell.seq > first.cell.seq);
    }

    #[test]
    fn the_first_deregister_wins_over_whatever_comes_later() {
        let (mut table, now) = table();
        take(&mut table, now, "1");
        assert_eq!(table.release("1").unwrap().cell.content, Content::Empty);
        assert_eq!(take(&mut table, now, "1"), None);
        assert_eq!(table.renew(now, "1"), Renewal::Released);
        assert_eq!(table.live(), 0);
    }

    #[test]
    fn a_deregister_may_overtake_its_register() {
        let (mut table, now) = table();
        assert_eq!(table.release("1"), None);
        assert_eq!(take(&mut table, now, "1"), None);
    }

    #[test]
    fn an_overdue_record_lapses_and_a_late_renew_revives_it() {
        let (mut table, now) = table();
        take(&mut table, now, "1");
        assert!(table.expire(now + secs(59)).is_empty());
        assert_eq!(table.expire(now + secs(60)).len(), 1);
        assert_eq!(table.live(), 0);
        assert!(matches!(table.renew(now + secs(90), "1"), Renewal::Revived(_)));
        assert_eq!(table.live(), 1);
    }

    #[test]
    fn a_record_lapsed_for_an_hour_is_forgotten() {
        let (mut table, now) = table();
        take(&mut table, now, "1");
        table.expire(now + secs(60));
        table.expire(now + secs(60) + KEEP_LAPSED);
        assert_eq!(table.renew(now + secs(60) + KEEP_LAPSED, "1"), Renewal::Unknown);
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn renews_teach_their_period() {
        let (mut table, now) = table();
        take(&mut table, now, "1");
        table.renew(now + secs(3), "1");
        table.renew(now + secs(18), "1");
        assert!(table.expire(now + secs(18 + 44)).is_empty());
        assert_eq!(table.expire(now + secs(18 + 45)).len(), 1, "three periods of 15 s");
    }

    #[test]
    fn a_hasty_pair_of_renews_does_not_shorten_the_lease() {
        let (mut table, now) = table();
        take(&mut table, now, "1");
        for at in [10, 25, 53, 55] {
            assert_eq!(table.renew(now + secs(at), "1"), Renewal::Renewed);
        }
        assert!(table.expire(now + secs(55 + 83)).is_empty(), "the longest of 15, 28 and 2 s, three times");
    }

    #[test]
    fn a_learned_lease_is_never_under_five_seconds() {
        let (mut table, now) = table();
        take(&mut table, now, "1");
        for at in 0..4 {
            table.renew(now + Duration::from_millis(at), "1");
        }
        assert!(table.expire(now + secs(4)).is_empty());
    }
}
