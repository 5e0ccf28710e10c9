//! What is known of one owner's slots. An owner fills its slots from the lowest on, so they lie in pages, side by side.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::moment::{Moment, Start};
use super::slot::{Cell, Change, Content, Slot, Version};

/// Slots of a page. A slot far from all others takes this many times its place.
const PAGE: Slot = 16;
/// Pages looked at for one part: 65,536 slots, a quarter of a millisecond.
const MOST_PAGES: usize = 4_096;
/// Changes in one part: about what fits into the largest frame.
const MOST_CHANGES: usize = 1_024;

/// A page's memory, with its place in the tree.
const PAGE_BYTES: usize = size_of::<Page>() + 64;

/// Slot → its cell, the last that is known of it, and since when.
#[derive(Debug, Default)]
pub struct Cells {
    pages: BTreeMap<Slot, Box<Page>>,
    /// Of all contents, in bytes.
    contents: usize,
    /// How many of them are records.
    records: usize,
}

#[derive(Debug)]
struct Page {
    /// The highest number in it, or a higher one.
    newest: Version,
    /// When it was made.
    start: Start,
    cells: [Option<Heard>; PAGE as usize],
}

#[derive(Debug)]
struct Heard {
    cell: Cell,
    since: Moment,
}

impl Cells {
    /// The cell of a slot.
    pub fn get(&self, slot: Slot) -> Option<&Cell> {
        self.heard(slot).map(|(_, heard)| &heard.cell)
    }

    /// Since when that is known.
    pub fn since(&self, slot: Slot) -> Option<Instant> {
        self.heard(slot).map(|(page, heard)| page.start.instant(heard.since))
    }

    /// Takes a cell in place of the one that was there.
    pub fn insert(&mut self, now: Instant, slot: Slot, cell: Cell) -> Option<Cell> {
        let (page, at) = place(slot);
        let page = self.pages.entry(page).or_insert_with(|| Box::new(Page::new(now)));
        page.newest = page.newest.max(cell.version);
        self.contents += cell.content.size();
        self.records += usize::from(is_record(&cell));
        let since = page.start.moment(now);
        let before = page.cells[at].replace(Heard { cell, since }).map(|heard| heard.cell);
        if let Some(before) = &before {
            self.contents -= before.content.size();
            self.records -= usize::from(is_record(before));
        }
        before
    }

    /// How many hold a record.
    pub fn records(&self) -> usize {
        self.records
    }

    /// How much memory they take, roughly, in bytes.
    pub fn bytes(&self) -> usize {
        self.contents + self.pages.len() * PAGE_BYTES
    }

    /// How much more they would take with that in a slot.
    pub fn growth(&self, slot: Slot, content: &Content) -> usize {
        let page = if self.pages.contains_key(&place(slot).0) { 0 } else { PAGE_BYTES };
        let held = self.get(slot).map_or(0, |held| held.content.size());
        content.size().saturating_sub(held) + page
    }

    /// All of them, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Cell)> {
        self.from(0).flat_map(|(first, page)| page.iter(first))
    }

    /// Those from a slot on, in slot order.
    pub fn iter_from(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Cell)> {
        self.from(slot).flat_map(|(first, page)| page.iter(first)).filter(move |(at, _)| *at >= slot)
    }

    /// Takes out the first few.
    pub fn pop(&mut self) -> Option<Vec<(Slot, Cell)>> {
        let (number, page) = self.pages.pop_first()?;
        let cells = (number * PAGE..).zip(page.cells);
        Some(cells.filter_map(|(slot, heard)| Some((slot, heard?.cell))).collect())
    }

    /// What was written after a version, from a slot on, in slot order; and where to go on, unless that was all.
    pub fn after(&self, version: Version, from: Slot) -> (Vec<Change>, Option<Slot>) {
        let mut changes = Vec::new();
        for (looked, (first, page)) in self.from(from).enumerate() {
            if looked == MOST_PAGES || changes.len() + PAGE as usize > MOST_CHANGES {
                return (changes, Some(first.max(from)));
            }
            if page.newest > version {
                let news = page.iter(first).filter(|(slot, _)| *slot >= from);
                let news = news.filter(|(_, cell)| cell.version > version);
                changes.extend(news.map(|(slot, cell)| Change { slot, cell: cell.clone() }));
            }
        }
        (changes, None)
    }

    /// The slots of a range that hold something that was written up to a version.
    pub fn held(&self, from: Slot, until: Slot, version: Version) -> impl Iterator<Item = Slot> {
        let cells = self.from(from).take_while(move |(first, _)| *first < until);
        let cells = cells.flat_map(|(first, page)| page.iter(first));
        let held = move |(slot, cell): &(Slot, &Cell)| {
            (from..until).contains(slot) && cell.version <= version && !cell.content.is_empty()
        };
        cells.filter(held).map(|(slot, _)| slot)
    }

    /// Drops the slots that are empty, as is known up to a version, and were when `age` ago. The version of what was dropped.
    pub fn drop_empty(&mut self, now: Instant, age: Duration, known: Version) -> Version {
        let mut dropped = 0;
        self.pages.retain(|_, page| {
            let now = page.start.moment(now);
            for place in &mut page.cells {
                let old = |heard: &mut Heard| {
                    heard.cell.content.is_empty()
                        && heard.cell.version <= known
                        && now.since(heard.since) >= age
                };
                if let Some(heard) = place.take_if(old) {
                    dropped = dropped.max(heard.cell.version);
                }
            }
            page.cells.iter().any(Option::is_some)
        });
        dropped
    }

    /// How many slots take a place.
    pub fn places(&self) -> usize {
        self.pages.len() * PAGE as usize
    }

    fn heard(&self, slot: Slot) -> Option<(&Page, &Heard)> {
        let (page, at) = place(slot);
        let page = self.pages.get(&page)?;
        Some((page, page.cells[at].as_ref()?))
    }

    fn from(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Page)> {
        self.pages.range(place(slot).0..).map(|(number, page)| (number * PAGE, &**page))
    }
}

impl Page {
    fn new(now: Instant) -> Self {
        Self { newest: 0, start: Start(now), cells: Default::default() }
    }

    fn iter(&self, first: Slot) -> impl Iterator<Item = (Slot, &Cell)> {
        (first..).zip(&self.cells).filter_map(|(slot, heard)| Some((slot, &heard.as_ref()?.cell)))
    }
}

fn is_record(cell: &Cell) -> bool {
    cell.content.record().is_some()
}

/// The number of a slot's page, and where it is there.
fn place(slot: Slot) -> (Slot, usize) {
    (slot / PAGE, (slot % PAGE) as usize)
}

#[cfg(test)]
mod tests {
    use super::super::slot::tests::record;
    use super::super::slot::{FIRST_CLAIM, MAX_SLOT};
    use super::*;

    fn cell(version: Version) -> Cell {
        Cell { version, content: Content::Record(record("1", "t")) }
    }

    fn empty(version: Version) -> Cell {
        Cell { version, content: Content::Empty }
    }

    fn fill(cells: &mut Cells, slots: impl IntoIterator<Item = (Slot, Version)>) {
        for (slot, version) in slots {
            assert!(cells.insert(Instant::now(), slot, cell(version)).is_none());
        }
    }

    fn all(cells: &Cells) -> Vec<(Slot, Version)> {
        cells.iter().map(|(slot, cell)| (slot, cell.version)).collect()
    }

    #[test]
    fn every_slot_keeps_its_newest_cell() {
        let mut cells = Cells::default();
        fill(&mut cells, [(MAX_SLOT, 4), (16, 3), (0, 1), (15, 2)]);
        let now = Instant::now() + Duration::from_secs(7);
        assert_eq!(cells.insert(now, 16, cell(9)).unwrap().version, 3);
        assert_eq!(cells.since(16), Some(now));
        assert_eq!(all(&cells), [(0, 1), (15, 2), (16, 9), (MAX_SLOT, 4)]);
        assert!(cells.get(17).is_none() && cells.get(99).is_none());
        assert_eq!(cells.get(15).unwrap().version, 2);
    }

    #[test]
    fn parts_have_all_that_is_after_the_mark_once_and_in_order() {
        let mut cells = Cells::default();
        let slots = (0..5_000).chain(FIRST_CLAIM - 3..FIRST_CLAIM + 3).chain([MAX_SLOT]);
        fill(&mut cells, slots.clone().map(|slot| (slot, u64::from(slot % 7) + 1)));
        for version in [0, 5, 7] {
            let (mut told, mut from) = (Vec::new(), Some(0));
            while let Some(at) = from {
                let (part, next) = cells.after(version, at);
                assert!(part.len() <= MOST_CHANGES && next.is_none_or(|next| next > at));
                told.extend(part.iter().map(|change| change.slot));
                from = next;
            }
            let want: Vec<Slot> = slots.clone().filter(|slot| u64::from(slot % 7) + 1 > version).collect();
            assert_eq!(told, want, "{version:?}");
        }
    }

    #[test]
    fn what_they_take_is_known_to_the_byte() {
        let (mut cells, long) = (Cells::default(), record(&"x".repeat(300), "t"));
        let content = || Content::Record(long.clone());
        assert_eq!(cells.growth(1, &content()), long.size() + PAGE_BYTES);
        let cell = Cell { version: 1, content: content() };
        cells.insert(Instant::now(), 1, cell);
        assert_eq!(cells.bytes(), long.size() + PAGE_BYTES);
        assert_eq!((cells.growth(1, &content()), cells.growth(2, &content())), (0, long.size()));
        cells.insert(Instant::now(), 1, empty(2));
        assert_eq!(cells.bytes(), PAGE_BYTES);
        cells.drop_empty(Instant::now(), Duration::ZERO, 2);
        assert_eq!(cells.bytes(), 0);
    }

    #[test]
    fn empty_slots_are_dropped_when_they_are_old_and_surely_empty() {
        let (mut cells, start) = (Cells::default(), Instant::now());
        let age = Duration::from_secs(60);
        cells.insert(start, 1, cell(1));
        cells.insert(start, 17, empty(2));
        cells.insert(start + age, 33, empty(3));
        cells.insert(start, 49, empty(9));
        let known = 8;
        assert_eq!(cells.drop_empty(start + age, age, known), 2);
        assert_eq!((all(&cells), cells.places()), (vec![(1, 1), (33, 3), (49, 9)], 48));
        assert_eq!(cells.drop_empty(start + age * 2, age, known), 3);
    }

    #[test]
    fn what_is_held_in_a_range_is_told_up_to_a_mark() {
        let mut cells = Cells::default();
        fill(&mut cells, [(3, 1), (4, 2), (20, 3), (40, 4)]);
        cells.insert(Instant::now(), 5, empty(1));
        let held = |from, until, version| cells.held(from, until, version).collect::<Vec<_>>();
        assert_eq!(held(0, 41, 9), [3, 4, 20, 40]);
        assert_eq!(held(4, 40, 9), [4, 20]);
        assert_eq!(held(0, 41, 2), [3, 4]);
    }
}
