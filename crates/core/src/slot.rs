//! The unit of replication: an owner's numbered cells, each holding one record, one rule or nothing, each change
//! of one carrying the owner's next sequence number. A released slot is overwritten and reused, never deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::record::Record;
use super::rule::Rule;

/// The number of a slot. [`STATUS_SLOT`] holds the owner's [`Status`], those after it records, and those from
/// [`FIRST_RULE`] on rules.
pub type Slot = u32;
/// The owner's own rising number of a change. Of two changes of a slot the higher one holds; it does not matter
/// that records and rules are counted apart.
pub type Seq = u64;

/// Where an owner says how it is.
pub const STATUS_SLOT: Slot = 0;
/// Most records, and most rules, of one owner: ten times the records that a cluster is designed for.
pub const MAX_EACH: Slot = 1_000_000;
/// The first slot of rules.
pub const FIRST_RULE: Slot = MAX_EACH + 1;
/// Highest slot of one owner. A bound against hostile slot numbers.
pub const MAX_SLOT: Slot = 2 * MAX_EACH;

/// What an owner says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All records that it had are told: this generation may be shown.
    Ready,
    /// Its records are to be left alone elsewhere for a while; its own host goes on using them.
    Draining,
    /// It is going, and does not come back as this generation.
    Left,
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: never used, or released.
    Empty,
    /// A live record.
    Record(Arc<Record>),
    /// A claim on a host name.
    Rule(Arc<Rule>),
    /// The owner's status; only in [`STATUS_SLOT`].
    Status(Status),
}

impl Content {
    /// What it takes besides its cell, roughly, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Empty | Self::Status(_) => 0,
            Self::Record(record) => record.size(),
            Self::Rule(rule) => rule.size(),
        }
    }
}

impl From<Arc<Record>> for Content {
    fn from(record: Arc<Record>) -> Self {
        Self::Record(record)
    }
}

impl From<Arc<Rule>> for Content {
    fn from(rule: Arc<Rule>) -> Self {
        Self::Rule(rule)
    }
}

/// A slot at one moment of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// When it was written, in the owner's own count.
    pub seq: Seq,
    /// What was written.
    pub content: Content,
}

/// What an owner tells the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which slot.
    pub slot: Slot,
    /// Its new cell.
    pub cell: Cell,
}

/// No slot is free: the owner holds [`MAX_EACH`] records, or rules. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this agent already holds {MAX_EACH} of them")]
pub struct SlotsFull;

/// How far an owner's words are known: to which number of what it said in the slots of records, its status among them,
/// and to which of what it said in those of rules, because the two are counted apart. Whoever knows an owner to a mark has
/// the newest cell of each slot that the owner has not written since; what comes later with a number up to the mark is old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Of the slots before [`FIRST_RULE`].
    pub records: Seq,
    /// Of the others.
    pub rules: Seq,
}

impl Mark {
    /// Nothing is known.
    pub const NONE: Self = Self { records: 0, rules: 0 };

    /// The number that counts for a slot.
    pub fn of(self, slot: Slot) -> Seq {
        if slot < FIRST_RULE { self.records } else { self.rules }
    }

    /// Goes up to what a change says.
    pub fn include(&mut self, slot: Slot, seq: Seq) {
        let part = if slot < FIRST_RULE { &mut self.records } else { &mut self.rules };
        *part = seq.max(*part);
    }

    /// The higher of both, part by part.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { records: self.records.max(other.records), rules: self.rules.max(other.rules) }
    }

    /// Whether all that is known to `other` is known to this.
    pub fn covers(self, other: Self) -> bool {
        self.max(other) == self
    }
}

/// The owner's side of its records or of its rules: which slots are taken, and the sequence number.
#[derive(Debug)]
pub struct SlotTable {
    /// The lowest number that has never been taken, or has been given back with all above it.
    next: Slot,
    /// The highest number there may be.
    last: Slot,
    /// Below `next`.
    free: BTreeSet<Slot>,
    last_seq: Seq,
}

/// For records, after the status.
impl Default for SlotTable {
    fn default() -> Self {
        Self::of(STATUS_SLOT + 1, MAX_EACH)
    }
}

impl SlotTable {
    /// For rules.
    pub fn for_rules() -> Self {
        Self::of(FIRST_RULE, MAX_SLOT)
    }

    fn of(next: Slot, last: Slot) -> Self {
        Self { next, last, free: BTreeSet::new(), last_seq: 0 }
    }

    /// Puts a record or rule into the lowest free slot.
    pub fn put(&mut self, content: impl Into<Content>) -> Result<Change, SlotsFull> {
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None if self.next > self.last => return Err(SlotsFull),
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        Ok(self.write(slot, content.into()))
    }

    /// Overwrites what is in a taken slot.
    pub fn replace(&mut self, slot: Slot, content: impl Into<Content>) -> Change {
        self.write(slot, content.into())
    }

    /// Empties a taken slot, which the next one may reuse.
    pub fn clear(&mut self, slot: Slot) -> Change {
        self.free.insert(slot);
        while self.free.last().is_some_and(|last| last + 1 == self.next) {
            self.free.pop_last();
            self.next -= 1;
        }
        self.write(slot, Content::Empty)
    }

    /// Says how the owner is.
    pub fn say(&mut self, status: Status) -> Change {
        self.write(STATUS_SLOT, Content::Status(status))
    }

    /// How many slots below the highest one in use are free.
    pub fn gaps(&self) -> usize {
        self.free.len()
    }

    fn write(&mut self, slot: Slot, content: Content) -> Change {
        self.last_seq += 1;
        Change { slot, cell: Cell { seq: self.last_seq, content } }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::Network;

    pub(crate) fn record(id: &str, name: &str) -> Arc<Record> {
        Arc::new(Record {
            id: id.into(),
            name: name.into(),
            node: "node".into(),
            network: Network::Tcp,
            address: "10.0.0.1:80".into(),
        })
    }

    #[test]
    fn a_released_slot_is_reused_under_a_higher_number() {
        let mut slots = SlotTable::default();
        let first = slots.put(record("1", "t")).unwrap();
        let second = slots.put(record("2", "t")).unwrap();
        assert_eq!((first.slot, second.slot), (1, 2));
        let cleared = slots.clear(1);
        let third = slots.put(record("3", "t")).unwrap();
        assert_eq!(third.slot, 1);
        assert!(first.cell.seq < cleared.cell.seq && cleared.cell.seq < third.cell.seq);
    }

    #[test]
    fn what_was_taken_at_a_peak_is_given_back_from_the_top() {
        let mut slots = SlotTable::default();
        let taken: Vec<Slot> = (0..9).map(|n| slots.put(record(&n.to_string(), "t")).unwrap().slot).collect();
        for slot in [taken[0], taken[8], taken[6]] {
            slots.clear(slot);
        }
        assert_eq!(slots.gaps(), 2, "the highest is no gap");
        slots.clear(taken[7]);
        assert_eq!(slots.gaps(), 1);
        assert_eq!(slots.put(record("9", "t")).unwrap().slot, taken[0]);
        assert_eq!(slots.put(record("10", "t")).unwrap().slot, taken[6]);
    }

    #[test]
    fn a_table_is_full_when_its_last_slot_is_taken() {
        let mut slots = SlotTable::of(1, 2);
        for id in ["1", "2"] {
            assert!(slots.put(record(id, "t")).is_ok());
        }
        assert_eq!(slots.put(record("3", "t")), Err(SlotsFull));
        slots.clear(2);
        assert_eq!(slots.put(record("3", "t")).unwrap().slot, 2);
    }

    #[test]
    fn records_and_rules_are_marked_apart() {
        let mut mark = Mark::NONE;
        mark.include(FIRST_RULE, 4);
        mark.include(STATUS_SLOT, 7);
        mark.include(MAX_EACH, 6);
        assert_eq!((mark, mark.of(MAX_EACH), mark.of(MAX_SLOT)), (Mark { records: 7, rules: 4 }, 7, 4));
        let other = Mark { records: 8, rules: 3 };
        assert!(!mark.covers(other) && !other.covers(mark));
        assert!(mark.max(other).covers(mark) && mark.max(other).covers(other));
    }
}
