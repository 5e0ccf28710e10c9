//! Indexes that are brought in step in bites of any size.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::directory::Directory;
use super::super::hostname::{Endpoint, TunnelId};
use super::super::record::Generation;
use super::super::replica::Extent;
use super::super::slot::tests::record;
use super::super::slot::{Change, Content, FIRST_CLAIM, STATUS_SLOT, Status, Version};
use super::*;

const TUNNELS: [&str; 3] = ["t", "u", "4d21094e-b74c-4916-86c1-d9fa36ea677b"];

fn owner(name: &str, generation: Generation) -> Owner {
    Owner { name: name.parse().unwrap(), generation }
}

fn change(slot: Slot, version: Version, content: Content) -> Change {
    Change { slot, cell: Cell { version, content } }
}

fn claim(host: u8) -> Content {
    let endpoint = Endpoint { tunnel: TunnelId::from_bytes([host; 16]), private: false };
    Content::Claim(Arc::new(Claim { host: format!("h{host}").as_str().into(), endpoint, clock: 1 }))
}

/// What a generation has, by slot, and how often it changed.
#[derive(Clone, Default)]
struct Truth {
    records: BTreeMap<Slot, (usize, u8)>,
    version: Version,
    is_ready: bool,
}

/// A directory, and what it ought to show.
struct Watched {
    directory: Directory,
    now: Instant,
    truths: BTreeMap<(usize, Generation), Truth>,
    shown: BTreeMap<usize, Generation>,
    bite: usize,
    events: Vec<Event>,
}

/// Agent, generation, slot.
type Place = (usize, Generation, Slot);

const NAMES: [&str; 2] = ["a", "b"];

impl Watched {
    fn new(bite: usize) -> Self {
        let directory = Directory::new(&owner("us", 1));
        let (truths, shown) = (BTreeMap::new(), BTreeMap::new());
        Self { directory, now: Instant::now(), truths, shown, bite, events: Vec::new() }
    }

    fn tell(&mut self, agent: usize, generation: Generation, slot: Slot, content: Content) {
        let owner = owner(NAMES[agent], generation);
        if self.shown.get(&agent).is_some_and(|shown| generation < *shown) {
            return;
        }
        let truth = self.truths.entry((agent, generation)).or_default();
        let since = truth.version;
        truth.version += 1;
        let change = change(slot, truth.version, content);
        self.directory.apply(self.now, &owner, &change, &mut self.events);
        let extent = Extent { since, until: truth.version, whole: None };
        self.directory.reach(self.now, &owner, &extent, &mut self.events);
    }

    fn step(&mut self, step: u8, agent: usize, generation: Generation, slot: Slot, at: usize) {
        match step {
            0..8 => {
                let id = (generation % 2) as u8 * 8 + (slot % 8) as u8;
                self.tell(agent, generation, slot, Content::Record(record(&id.to_string(), TUNNELS[at])));
                if let Some(truth) = self.truths.get_mut(&(agent, generation)) {
                    truth.records.insert(slot, (at, id));
                }
            }
            8..10 => {
                self.tell(agent, generation, slot, Content::Empty);
                if let Some(truth) = self.truths.get_mut(&(agent, generation)) {
                    truth.records.remove(&slot);
                }
            }
            10..12 => self.tell(agent, generation, FIRST_CLAIM + slot, claim((slot % 4) as u8)),
            12..14 => {
                self.tell(agent, generation, STATUS_SLOT, Content::Status(Status::Ready));
                if self.shown.get(&agent).is_none_or(|shown| generation >= *shown) {
                    self.truths.entry((agent, generation)).or_default().is_ready = true;
                    self.shown.insert(agent, generation);
                    self.truths.retain(|(other, kept), _| *other != agent || *kept >= generation);
                }
            }
            14 => {
                self.directory.forget(self.now, &owner(NAMES[agent], generation), &mut self.events);
                self.truths.remove(&(agent, generation));
                if self.shown.get(&agent) == Some(&generation) {
                    self.shown.remove(&agent);
                    self.truths.retain(|(other, kept), _| *other != agent || *kept > generation);
                }
            }
            _ => self.directory.work(self.now, self.bite, &mut self.events),
        }
    }

    /// The records of each tunnel as they ought to be shown.
    fn wanted(&self) -> Vec<Vec<Place>> {
        let mut all = vec![Vec::new(); TUNNELS.len()];
        for (agent, generation) in &self.shown {
            for (slot, (tunnel, _)) in &self.truths[&(*agent, *generation)].records {
                all[*tunnel].push((*agent, *generation, *slot));
            }
        }
        all
    }

    fn found(&self) -> Vec<Vec<Place>> {
        let of = |entry: &super::super::tunnels::OwnedRecord| {
            let agent = NAMES.iter().position(|name| *name == entry.owner.name.as_str()).unwrap();
            (agent, entry.owner.generation, entry.slot)
        };
        let all = TUNNELS.iter().map(|name| {
            let mut found: Vec<_> = self.directory.lookup(name).iter().map(of).collect();
            found.sort_unstable();
            found
        });
        all.collect()
    }

    fn finish(&mut self) {
        while self.directory.has_work() {
            self.directory.work(self.now, self.bite, &mut self.events);
        }
    }

    /// What is left when all is done.
    fn end(&self) -> (Vec<Vec<Place>>, usize, Vec<String>, usize) {
        let claims = &self.directory.claims;
        let mut hosts: Vec<String> = claims.hosts().map(ToString::to_string).collect();
        hosts.sort();
        (self.found(), self.directory.tunnels.len(), hosts, claims.len())
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, usize, Generation, Slot, usize)>> {
    prop::collection::vec((0..16_u8, 0..2_usize, 1..5_u64, 1..40_u32, 0..3_usize), 1..200)
}

proptest! {
    #[test]
    fn at_every_moment_what_is_read_is_right_and_bites_end_as_one_go_does(steps in steps(), bite in 1..7_usize) {
        let (mut bites, mut in_one_go) = (Watched::new(bite), Watched::new(usize::MAX));
        bites.directory.at_once = 0;
        in_one_go.directory.at_once = usize::MAX;
        for (step, agent, generation, slot, at) in steps {
            for watched in [&mut bites, &mut in_one_go] {
                // More generations than are kept would be forgotten by another rule.
                let known = watched.truths.keys().filter(|(other, _)| *other == agent).count();
                if known < 3 || watched.truths.contains_key(&(agent, generation)) {
                    watched.step(step, agent, generation, slot, at);
                }
                prop_assert_eq!(watched.found(), watched.wanted());
            }
        }
        bites.finish();
        in_one_go.finish();
        prop_assert_eq!(bites.end(), in_one_go.end());
    }
}

#[test]
fn a_bite_is_small_however_much_there_is_and_the_answer_is_there_at_once() {
    let mut directory = Directory::new(&owner("us", 1));
    let (now, mut events) = (Instant::now(), Vec::new());
    let all = 5 * Slot::try_from(BITE).unwrap();
    for generation in 1..=2 {
        let owner = owner("a", generation);
        let records = (1..=all).map(|slot| {
            let content = Content::Record(record(&slot.to_string(), &format!("t{slot}")));
            change(slot, u64::from(slot), content)
        });
        let status = change(STATUS_SLOT, u64::from(all) + 1, Content::Status(Status::Ready));
        for change in records.chain([status]) {
            directory.apply(now, &owner, &change, &mut events);
        }
        events.clear();
        let extent = Extent { since: 0, until: u64::from(all) + 1, whole: None };
        directory.reach(now, &owner, &extent, &mut events);
        let mut bites = 0;
        while directory.has_work() {
            for slot in [1, all / 2, all] {
                let found = directory.lookup(&format!("t{slot}"));
                let generations: Vec<_> = found.iter().map(|entry| entry.owner.generation).collect();
                assert_eq!(generations, [generation], "after {bites} bites");
            }
            directory.work(now + Duration::from_millis(bites), BITE, &mut events);
            bites += 1;
        }
        assert!(bites >= 4 * generation, "{bites} bites");
        let told = if generation == 1 { all as usize } else { 0 };
        assert_eq!(events.len(), told, "a restart is not told");
    }
    directory.forget(now, &owner("a", 2), &mut events);
    assert!(directory.lookup("t1").is_empty() && directory.has_work());
    while directory.has_work() {
        directory.work(now, BITE, &mut events);
    }
    assert_eq!((events.len(), directory.tunnels.len()), (all as usize, 0));
}
