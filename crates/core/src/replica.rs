//! A copy of one generation's slots, and how far it goes. Copies are brought up to date in two ways: by changes, each of
//! which may be lost or late, and by [`Part`]s of another's copy, which has all after a version.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cells::Cells;
use super::record::Owner;
use super::slot::{Cell, Change, Content, STATUS_SLOT, Slot, Status, Version};

/// Empty slots are kept for this long: whoever is behind by less is told of each that became empty; others are
/// told the whole.
pub const EMPTY_KEPT: Duration = Duration::from_secs(600);

/// How much of what an owner said is among some changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Whoever knew all to this version,
    pub since: Version,
    /// knows all to this one.
    pub until: Version,
    /// Slots that hold nothing but what is among the changes, or was said after the version.
    pub whole: Option<(Range<Slot>, Version)>,
}

impl Extent {
    /// These changes, and that this is their extent, in pieces of at most so many: taken one after the other, they come to the
    /// same.
    pub fn pieces(self, mut changes: Vec<Change>, most: usize) -> Vec<(Vec<Change>, Self)> {
        let mut pieces = Vec::new();
        let mut whole = self.whole;
        while changes.len() > most {
            let rest = changes.split_off(most);
            // Only changes in slot order are the whole of a range.
            let part = whole.as_mut().map(|(slots, until)| {
                let next = rest[0].slot.clamp(slots.start, slots.end);
                (std::mem::replace(&mut slots.start, next)..next, *until)
            });
            pieces.push((std::mem::replace(&mut changes, rest), Self { whole: part, ..Self::default() }));
        }
        pieces.push((changes, Self { whole, ..self }));
        pieces
    }
}

/// What one who asks is told at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// In slot order, from the slot that was asked for.
    pub changes: Vec<Change>,
    /// Where to go on asking; none if that was all.
    pub next: Option<Slot>,
    /// Whether slots that are not among the changes are empty. Otherwise they are as they were.
    pub whole: bool,
    /// How far the copy goes.
    pub until: Version,
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    /// Whose slots.
    pub owner: Arc<Owner>,
    cells: Cells,
    version: Version,
    /// Of the empty slots that were dropped, here or by somebody whom this was copied from.
    dropped: Version,
    /// Something was refused: there are gaps that are not to be filled.
    overfull: bool,
}

impl Replica {
    /// Of a generation of which nothing is known yet.
    pub fn new(owner: Arc<Owner>) -> Self {
        Self { owner, cells: Cells::default(), version: 0, dropped: 0, overfull: false }
    }

    /// Takes a change, unless it is old: what the slot held before.
    pub fn take(&mut self, now: Instant, change: &Change) -> Option<Option<Cell>> {
        let held = self.cells.get(change.slot).map_or(0, |held| held.version);
        if change.cell.version <= held.max(self.version) {
            return None;
        }
        Some(self.cells.insert(now, change.slot, change.cell.clone()))
    }

    /// Notes that a change was refused.
    pub fn refuse(&mut self) {
        self.overfull = true;
    }

    /// Whether one was, and there is no more room yet.
    pub fn is_overfull(&self) -> bool {
        self.overfull
    }

    /// All that was said between the versions has been taken.
    pub fn reach(&mut self, since: Version, until: Version) {
        if self.version >= since && !self.overfull {
            self.version = self.version.max(until);
        }
    }

    /// How far it goes; 0 as long as there may be gaps from the start on.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What the owner says of itself; none until it is known. One of a later version that is not known counts as ready: before
    /// any status, an owner tells the records that it had.
    pub fn status(&self) -> Option<Status> {
        let content = &self.cells.get(STATUS_SLOT)?.content;
        content.status().or_else(|| (!content.is_empty()).then_some(Status::Ready))
    }

    /// Whether it has all that the owner had at its start, which it says before its status. The status may be heard first,
    /// by an answer to a question: it has to be reached, too.
    pub fn is_complete(&self) -> bool {
        let status = self.cells.get(STATUS_SLOT).filter(|cell| !cell.content.is_empty());
        status.is_some_and(|status| self.version >= status.version)
    }

    /// Its cells.
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Takes out the first few cells, of a copy that is given up.
    pub(crate) fn pop_cells(&mut self) -> Option<Vec<(Slot, Cell)>> {
        self.cells.pop()
    }

    /// What somebody who knows all to `after` is to be told, from a slot on; nothing if there may be gaps.
    pub fn part(&self, after: Version, from: Slot) -> Option<Part> {
        if self.version == 0 {
            return None;
        }
        let whole = after < self.dropped;
        let after = if whole { 0 } else { after };
        let (changes, next) = self.cells.after(after, from);
        Some(Part { changes, next, whole, until: self.version })
    }

    /// What is held here, and empty by that extent.
    pub fn emptied(&self, extent: &Extent, changes: &[Change]) -> Vec<Change> {
        let Some((slots, until)) = &extent.whole else { return Vec::new() };
        let told = |slot: Slot| changes.binary_search_by_key(&slot, |change| change.slot).is_ok();
        let gone = self.cells.held(slots.start, slots.end, *until).filter(|slot| !told(*slot));
        let empty = || Cell { version: *until, content: Content::Empty };
        gone.map(|slot| Change { slot, cell: empty() }).collect()
    }

    /// An extent has been taken. If it is of all that there is, whatever else became empty was not said.
    pub fn note(&mut self, extent: &Extent) {
        if let Some((_, until)) = &extent.whole {
            self.dropped = self.dropped.max(*until);
        }
    }

    /// There is room again, so that what was refused may be asked for.
    pub fn make_room(&mut self) {
        self.overfull = false;
    }

    /// Gives back the slots that have been empty for that long, as a rule [`EMPTY_KEPT`].
    pub fn drop_empty(&mut self, now: Instant, age: Duration) {
        let dropped = self.cells.drop_empty(now, age, self.version);
        self.dropped = self.dropped.max(dropped);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::slot::MAX_SLOT;
    use super::super::slot::tests::{Talker, record};
    use super::*;

    fn replica() -> Replica {
        Replica::new(Arc::new(Owner { name: "a".parse().unwrap(), generation: 1 }))
    }

    fn reached(changes: &[Change]) -> Version {
        changes.iter().map(|change| change.cell.version).max().unwrap_or_default()
    }

    /// The owner's own copy, which has what it says at once.
    fn say(owner: &mut Replica, now: Instant, change: &Change) {
        assert!(owner.take(now, change).is_some());
        let until = owner.version().max(reached(std::slice::from_ref(change)));
        owner.reach(owner.version(), until);
    }

    /// Takes another's copy, so many changes at a time.
    fn copy(of: &Replica, to: &mut Replica, now: Instant, most: usize) {
        let (after, mut from, mut until) = (to.version(), 0, None);
        while let Some(part) = of.part(after, from) {
            let until = *until.get_or_insert(part.until);
            let next = part.next.unwrap_or(MAX_SLOT + 1);
            let whole = part.whole.then_some((from..next, until));
            let (since, reached) =
                if part.next.is_some() { (0, 0) } else { (if part.whole { 0 } else { after }, until) };
            let extent = Extent { whole, since, until: reached };
            for (changes, extent) in extent.pieces(part.changes, most) {
                for change in to.emptied(&extent, &changes).iter().chain(&changes) {
                    to.take(now, change);
                }
                to.note(&extent);
                to.reach(extent.since, extent.until);
            }
            if part.next.is_none() {
                return;
            }
            from = next;
        }
    }

    fn held(replica: &Replica) -> Vec<(Slot, Content)> {
        let cells = replica.cells().iter().map(|(slot, cell)| (slot, cell.content.clone()));
        cells.filter(|(_, content)| *content != Content::Empty).collect()
    }

    #[test]
    fn a_gap_is_no_reason_to_believe_that_all_is_known() {
        let (mut replica, mut slots, now) = (replica(), Talker::default(), Instant::now());
        let said = [slots.put(record("1", "t")), slots.say(Status::Ready), slots.put(record("2", "t"))];
        replica.take(now, &said[2]);
        replica.reach(2, 3);
        assert_eq!((replica.version(), replica.part(0, 0)), (0, None));
        replica.take(now, &said[1]);
        assert!(!replica.is_complete(), "it has a status, and not all before that");
        replica.take(now, &said[0]);
        replica.reach(0, 2);
        assert!(replica.is_complete());
        replica.reach(2, 3);
        assert_eq!(replica.version(), 3);
    }

    #[test]
    fn what_comes_late_does_not_fill_a_slot_that_was_dropped() {
        let (mut replica, mut slots, now) = (replica(), Talker::default(), Instant::now());
        let first = slots.put(record("1", "t"));
        say(&mut replica, now, &slots.say(Status::Ready));
        say(&mut replica, now, &slots.clear(first.slot));
        replica.drop_empty(now + EMPTY_KEPT, EMPTY_KEPT);
        assert!(replica.cells().get(first.slot).is_none(), "given back");
        assert!(replica.take(now, &first).is_none());
    }

    #[test]
    fn whoever_was_away_for_long_hears_what_became_empty() {
        let (mut owner, mut peer, now) = (replica(), replica(), Instant::now());
        let mut slots = Talker::default();
        for id in ["1", "2", "3"] {
            say(&mut owner, now, &slots.put(record(id, "t")));
        }
        copy(&owner, &mut peer, now, 100);
        say(&mut owner, now, &slots.clear(2));
        owner.drop_empty(now + EMPTY_KEPT, EMPTY_KEPT);
        say(&mut owner, now, &slots.put(record("4", "t")));
        say(&mut owner, now, &slots.clear(1));
        assert!(owner.part(peer.version(), 0).unwrap().whole);
        copy(&owner, &mut peer, now, 100);
        assert_eq!((held(&peer), peer.version()), (held(&owner), owner.version()));
    }

    proptest! {
        /// Changes arrive or not, copies are made from whom there is, and what is empty is dropped at any time.
        #[test]
        fn copies_of_copies_are_the_owners_truth(
            steps in proptest::collection::vec((0..8_u8, any::<prop::sample::Index>(), any::<bool>()), 1..150),
            most in 1..20_usize,
        ) {
            let (mut owner, mut slots) = (replica(), Talker::default());
            let (mut near, mut far, mut taken) = (replica(), replica(), Vec::new());
            let mut now = Instant::now();
            say(&mut owner, now, &slots.say(Status::Ready));
            for (n, (step, at, heard)) in steps.iter().enumerate() {
                let before = owner.version();
                let change = match step {
                    0..3 => Some(slots.put(record(&n.to_string(), "t"))),
                    3..5 if !taken.is_empty() => Some(slots.clear(taken.swap_remove(at.index(taken.len())))),
                    5 => { copy(&near, &mut far, now, most); None }
                    6 => { copy(&owner, &mut near, now, most); None }
                    7 if *heard => { near = replica(); None }
                    _ => { now += EMPTY_KEPT / 2; None }
                };
                for replica in [&mut owner, &mut near, &mut far] {
                    replica.drop_empty(now, EMPTY_KEPT);
                }
                let Some(change) = change else { continue };
                if change.cell.content != Content::Empty {
                    taken.push(change.slot);
                }
                say(&mut owner, now, &change);
                if *heard {
                    near.take(now, &change);
                    near.reach(before, owner.version());
                }
            }
            copy(&owner, &mut near, now, most);
            copy(&near, &mut far, now, most);
            prop_assert_eq!((held(&near), near.version()), (held(&owner), owner.version()));
            prop_assert_eq!((held(&far), far.version()), (held(&owner), owner.version()));
        }
    }
}
