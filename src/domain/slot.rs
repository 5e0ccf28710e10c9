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

/// The owner's side of its records or of its rules: which slots are taken, and the sequence number.
#[derive(Debug)]
pub struct SlotTable {
    /// The number of the first cell.
    first: Slot,
    /// The highest number there may be.
    last: Slot,
    cells: Vec<Cell>,
    free: BTreeSet<Slot>,
    last_seq: Seq,
}

/// For records, after the status.
impl Default for SlotTable {
    fn default() -> Self {
        let status = Cell { seq: 0, content: Content::Empty };
        Self { cells: vec![status], ..Self::of(STATUS_SLOT, MAX_EACH) }
    }
}

impl SlotTable {
    /// For rules.
    pub fn for_rules() -> Self {
        Self::of(FIRST_RULE, MAX_SLOT)
    }

    fn of(first: Slot, last: Slot) -> Self {
        Self { first, last, cells: Vec::new(), free: BTreeSet::new(), last_seq: 0 }
    }

    /// Puts a record or rule into the lowest free slot.
    pub fn put(&mut self, content: impl Into<Content>) -> Result<Change, SlotsFull> {
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None => self.grow()?,
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
        self.write(slot, Content::Empty)
    }

    /// Says how the owner is.
    pub fn say(&mut self, status: Status) -> Change {
        self.write(STATUS_SLOT, Content::Status(status))
    }

    /// Answers a cell of ours, of this table's part of the slots, that a peer holds: nothing if it is ours or older than ours, else what we have
    /// there, said again with a number above the peer's.
    pub fn correct(&mut self, slot: Slot, told: &Cell) -> Option<Change> {
        let at = (slot - self.first) as usize;
        let own = self.cells.get(at);
        if own.is_some_and(|own| own == told || own.seq > told.seq) {
            return None;
        }
        let content = own.map_or(Content::Empty, |own| own.content.clone());
        if own.is_none() && content == told.content {
            return None;
        }
        self.last_seq = self.last_seq.max(told.seq);
        self.last_seq += 1;
        let cell = Cell { seq: self.last_seq, content };
        if let Some(own) = self.cells.get_mut(at) {
            *own = cell.clone();
        }
        Some(Change { slot, cell })
    }

    /// All cells, in slot order.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    fn grow(&mut self) -> Result<Slot, SlotsFull> {
        let slot = Slot::try_from(self.cells.len()).map_err(|_| SlotsFull)? + self.first;
        if slot > self.last {
            return Err(SlotsFull);
        }
        self.cells.push(Cell { seq: 0, content: Content::Empty });
        Ok(slot)
    }

    fn write(&mut self, slot: Slot, content: Content) -> Change {
        self.last_seq += 1;
        let cell = Cell { seq: self.last_seq, content };
        self.cells[(slot - self.first) as usize] = cell.clone();
        Change { slot, cell }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::record::Network;

    pub(in crate::domain) fn record(id: &str, name: &str) -> Arc<Record> {
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
        assert_eq!(slots.cells().len(), 3);
    }

    #[test]
    fn a_cell_that_somebody_else_wrote_is_said_again() {
        let mut slots = SlotTable::default();
        let ours = slots.put(record("1", "t")).unwrap();
        assert_eq!(slots.correct(1, &ours.cell), None, "our own word");

        let forged = Cell { seq: 70, content: Content::Record(record("evil", "t")) };
        let said = slots.correct(1, &forged).unwrap();
        assert_eq!((said.cell.seq, &said.cell.content), (71, &ours.cell.content));
        assert_eq!(slots.correct(1, &forged), None, "already answered");

        let unknown = slots.correct(9, &forged).unwrap();
        assert_eq!(unknown.cell.content, Content::Empty);
        assert_eq!(slots.put(record("2", "t")).unwrap().slot, 2, "the table did not grow to it");
    }
}
