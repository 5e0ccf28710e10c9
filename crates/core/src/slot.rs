//! The unit of replication: an owner's numbered cells, each holding one record, one rule or nothing, each change
//! of one carrying the owner's next version. A released slot is overwritten and reused, never deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::hostname::Claim;
use super::locality::Locality;
use super::record::Record;

/// The number of a slot. [`STATUS_SLOT`] holds the owner's [`Status`], those after it records, and those from
/// [`FIRST_CLAIM`] on rules.
pub type Slot = u32;
/// The owner's own rising number of a change. Of two changes of a slot the higher one holds.
pub type Version = u64;

/// Versions above this are hostile: an owner that writes a million times a second needs 285 years to get there.
pub const MAX_VERSION: Version = 1 << 53;

/// Where an owner says how it is.
pub const STATUS_SLOT: Slot = 0;
/// Most records, and most rules, of one owner: ten times the records that a cluster is designed for.
pub const MAX_EACH: Slot = 1_000_000;
/// The first slot of rules.
pub const FIRST_CLAIM: Slot = MAX_EACH + 1;
/// Where an owner says in which zone it is, and how much it is to be used.
pub const LOCALITY_SLOT: Slot = FIRST_CLAIM + MAX_EACH;
/// The first slot of entrypoints that the owner's host does not reach.
pub const FIRST_UNREACHED: Slot = LOCALITY_SLOT + 1;
/// Most entrypoints that one owner says it does not reach: those that it dials, and its own gosts'.
pub const MAX_UNREACHED: Slot = 128;
/// Highest slot of one owner. A bound against hostile slot numbers.
pub const MAX_SLOT: Slot = LOCALITY_SLOT + MAX_UNREACHED;

/// What an owner says of itself. Encoded by its number: a variant is never changed, only added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    Claim(Arc<Claim>),
    /// The owner's status; only in [`STATUS_SLOT`].
    Status(Status),
    /// The owner's zone and weight; only in [`LOCALITY_SLOT`].
    Locality(Arc<Locality>),
    /// An entrypoint that the owner's host does not reach.
    Unreached(Arc<Unreached>),
    /// What a version later than this one wrote.
    Later(Arc<Later>),
}

const _: () = assert!(size_of::<Content>() == 16, "every slot has one");

/// An entrypoint that an owner's host dials in vain. One of its own gosts: that takes connections, and does not answer; or, if it
/// is not silent, that it has not called its agent since that started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreached {
    /// `host:port`.
    pub entrypoint: Address,
    /// Whether it is silent; or else it refuses.
    pub is_silent: bool,
}

impl Unreached {
    /// Whether it can be what an agent wrote.
    pub(super) fn is_plausible(&self) -> bool {
        self.entrypoint.is_entrypoint()
    }
}

/// A content that is more than this version understands. It is stored and passed on byte for byte.
#[derive(Debug, PartialEq, Eq)]
pub struct Later {
    /// All of it, as it came.
    pub(super) bytes: Box<[u8]>,
    /// What stands before the fields that are not known; none of a kind that is not known. Never of a later version itself.
    pub(super) known: Option<Content>,
}

impl Content {
    /// As much of it as this version understands; never [`Content::Later`].
    fn known(&self) -> Option<&Self> {
        match self {
            Self::Later(later) => later.known.as_ref(),
            known => Some(known),
        }
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.known() == Some(&Self::Empty)
    }

    /// The record that it is, if it is one.
    pub fn record(&self) -> Option<&Arc<Record>> {
        if let Self::Record(record) = self.known()? { Some(record) } else { None }
    }

    /// The claim that it is, if it is one.
    pub fn claim(&self) -> Option<&Arc<Claim>> {
        if let Self::Claim(claim) = self.known()? { Some(claim) } else { None }
    }

    /// The status that it is, if it is one.
    pub fn status(&self) -> Option<Status> {
        if let Self::Status(status) = self.known()? { Some(*status) } else { None }
    }

    /// The zone and weight that it is, if it is one.
    pub fn locality(&self) -> Option<&Arc<Locality>> {
        if let Self::Locality(locality) = self.known()? { Some(locality) } else { None }
    }

    /// The entrypoint that is not reached, if it is one.
    pub fn unreached(&self) -> Option<&Arc<Unreached>> {
        if let Self::Unreached(unreached) = self.known()? { Some(unreached) } else { None }
    }

    /// Whether that slot can hold it. What is not known may be in any.
    pub fn fits(&self, slot: Slot) -> bool {
        match self.known() {
            Some(Self::Status(_)) => slot == STATUS_SLOT,
            Some(Self::Record(_)) => (STATUS_SLOT + 1..FIRST_CLAIM).contains(&slot),
            Some(Self::Claim(_)) => (FIRST_CLAIM..LOCALITY_SLOT).contains(&slot),
            Some(Self::Locality(_)) => slot == LOCALITY_SLOT,
            Some(Self::Unreached(_)) => (FIRST_UNREACHED..=MAX_SLOT).contains(&slot),
            Some(Self::Empty | Self::Later(_)) => (STATUS_SLOT + 1..=MAX_SLOT).contains(&slot),
            None => slot <= MAX_SLOT,
        }
    }

    /// What it takes besides its cell, roughly, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Empty | Self::Status(_) => 0,
            Self::Record(record) => record.size(),
            Self::Claim(claim) => claim.size(),
            Self::Locality(locality) => size_of::<Locality>() + locality.zone.len(),
            Self::Unreached(unreached) => size_of::<Unreached>() + unreached.entrypoint.text_len(),
            Self::Later(later) => {
                let known = later.known.as_ref().map_or(0, Self::size);
                size_of::<Later>() + later.bytes.len() + known
            }
        }
    }
}

impl From<Arc<Record>> for Content {
    fn from(record: Arc<Record>) -> Self {
        Self::Record(record)
    }
}

impl From<Arc<Claim>> for Content {
    fn from(claim: Arc<Claim>) -> Self {
        Self::Claim(claim)
    }
}

impl From<Arc<Unreached>> for Content {
    fn from(unreached: Arc<Unreached>) -> Self {
        Self::Unreached(unreached)
    }
}

/// A slot at one moment of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// When it was written, in the owner's own count.
    pub version: Version,
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

/// What an owner writes into a slot, before it has a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which slot.
    pub slot: Slot,
    /// What is in it from now on.
    pub content: Content,
}

/// The owner's running number of changes: one for records, claims and status together. Whoever knows an owner to a version
/// has the newest cell of each slot that the owner has not written since; what comes later with a version up to that is old.
#[derive(Debug, Default)]
pub struct Versions {
    last: Version,
}

impl Versions {
    /// The next change.
    pub fn change(&mut self, write: Write) -> Change {
        self.last += 1;
        Change { slot: write.slot, cell: Cell { version: self.last, content: write.content } }
    }

    /// The number of the newest change; 0 before the first.
    pub fn last(&self) -> Version {
        self.last
    }
}

/// The owner's side of its records or of its rules: which slots are taken.
#[derive(Debug)]
pub struct SlotTable {
    /// The lowest number that has never been taken, or has been given back with all above it.
    next: Slot,
    /// The highest number there may be.
    last: Slot,
    /// Below `next`.
    free: BTreeSet<Slot>,
}

/// For records, after the status.
impl Default for SlotTable {
    fn default() -> Self {
        Self::of(STATUS_SLOT + 1, MAX_EACH)
    }
}

impl SlotTable {
    /// For rules.
    pub fn for_claims() -> Self {
        Self::of(FIRST_CLAIM, LOCALITY_SLOT - 1)
    }

    /// For entrypoints that are not reached.
    pub fn for_unreached() -> Self {
        Self::of(FIRST_UNREACHED, MAX_SLOT)
    }

    fn of(next: Slot, last: Slot) -> Self {
        Self { next, last, free: BTreeSet::new() }
    }

    /// Puts a record or rule into the lowest free slot.
    pub fn put(&mut self, content: impl Into<Content>) -> Result<Write, SlotsFull> {
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None if self.next > self.last => return Err(SlotsFull),
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        Ok(Write { slot, content: content.into() })
    }

    /// Overwrites what is in a taken slot.
    pub fn replace(&mut self, slot: Slot, content: impl Into<Content>) -> Write {
        Write { slot, content: content.into() }
    }

    /// Empties a taken slot, which the next one may reuse.
    pub fn clear(&mut self, slot: Slot) -> Write {
        self.free.insert(slot);
        while self.free.last().is_some_and(|last| last + 1 == self.next) {
            self.free.pop_last();
            self.next -= 1;
        }
        Write { slot, content: Content::Empty }
    }

    /// How many slots below the highest one in use are free.
    pub fn gaps(&self) -> usize {
        self.free.len()
    }
}

impl Write {
    /// How the owner is.
    pub fn status(status: Status) -> Self {
        Self { slot: STATUS_SLOT, content: Content::Status(status) }
    }

    /// In which zone the owner is, and how much it is to be used.
    pub fn locality(locality: Locality) -> Self {
        Self { slot: LOCALITY_SLOT, content: Content::Locality(Arc::new(locality)) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::Network;

    /// An owner that says everything that it writes.
    #[derive(Default)]
    pub(crate) struct Talker {
        slots: SlotTable,
        versions: Versions,
    }

    impl Talker {
        pub(crate) fn put(&mut self, record: Arc<Record>) -> Change {
            let write = self.slots.put(record).unwrap();
            self.versions.change(write)
        }

        pub(crate) fn clear(&mut self, slot: Slot) -> Change {
            let write = self.slots.clear(slot);
            self.versions.change(write)
        }

        pub(crate) fn say(&mut self, status: Status) -> Change {
            self.versions.change(Write::status(status))
        }
    }

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
    fn a_released_slot_is_reused_under_a_higher_version() {
        let mut owner = Talker::default();
        let (first, second) = (owner.put(record("1", "t")), owner.put(record("2", "t")));
        assert_eq!((first.slot, second.slot), (1, 2));
        let (cleared, third) = (owner.clear(1), owner.put(record("3", "t")));
        assert_eq!(third.slot, 1);
        assert!(first.cell.version < cleared.cell.version && cleared.cell.version < third.cell.version);
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
}
