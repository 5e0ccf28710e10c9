//! What is known of one owner's slots. An owner fills its slots from the lowest on, so they lie in pages, side by side.

use std::collections::BTreeMap;
use std::time::Instant;

use super::slot::{Cell, Slot};

/// Slots of a page. A slot far from all others takes this many times its place, which is little beside chitchat's copy.
const PAGE: Slot = 16;

/// A cell, and when this word of it was heard.
#[derive(Debug)]
pub struct Heard {
    /// What the owner said last.
    pub cell: Cell,
    /// Since when that is known.
    pub since: Instant,
}

/// Slot → its cell.
#[derive(Debug, Default)]
pub struct Cells(BTreeMap<Slot, Box<Page>>);

type Page = [Option<Heard>; PAGE as usize];

impl Cells {
    /// The cell of a slot.
    pub fn get(&self, slot: Slot) -> Option<&Heard> {
        let (page, at) = place(slot);
        self.0.get(&page)?[at].as_ref()
    }

    /// Takes a cell in place of the one that was there.
    pub fn insert(&mut self, slot: Slot, heard: Heard) -> Option<Heard> {
        let (page, at) = place(slot);
        self.0.entry(page).or_default()[at].replace(heard)
    }

    /// All of them, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Heard)> {
        self.0.iter().flat_map(|(page, cells)| {
            let slots = page * PAGE..;
            slots.zip(&**cells).filter_map(|(slot, heard)| Some((slot, heard.as_ref()?)))
        })
    }
}

/// The number of a slot's page, and where it is there.
fn place(slot: Slot) -> (Slot, usize) {
    (slot / PAGE, (slot % PAGE) as usize)
}

#[cfg(test)]
mod tests {
    use super::super::slot::{Content, MAX_SLOT};
    use super::*;

    #[test]
    fn every_slot_keeps_its_newest_cell() {
        let mut cells = Cells::default();
        let heard = |seq| Heard { cell: Cell { seq, content: Content::Empty }, since: Instant::now() };
        for (slot, seq) in [(MAX_SLOT, 4), (16, 3), (0, 1), (15, 2)] {
            assert!(cells.insert(slot, heard(seq)).is_none());
        }
        assert_eq!(cells.insert(16, heard(9)).unwrap().cell.seq, 3);
        let all: Vec<_> = cells.iter().map(|(slot, heard)| (slot, heard.cell.seq)).collect();
        assert_eq!(all, [(0, 1), (15, 2), (16, 9), (MAX_SLOT, 4)]);
        assert!(cells.get(17).is_none() && cells.get(99).is_none());
        assert_eq!(cells.get(15).unwrap().cell.seq, 2);
    }
}
