//! The read index: tunnel name → entries of all owners, and their [`Claims`]. Knows what each generation of each agent said, and
//! shows one generation per agent: the newest that said it is ready.
//!
//! [`Directory::apply`] is idempotent and commutative per slot, so it does not matter by which way, how
//! often, or in which order a change arrives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::hostname::{Claim, Claims, Endpoint, HashHost};
use super::label::Label;
use super::quota::Share;
use super::record::{AgentName, Generation, Owner, Record};
use super::replica::{Extent, Part, Replica};
use super::room::Room as _;
use super::slot::{Cell, Change, Content, MAX_SLOT, Slot, Status, Version};
use super::tunnels::Tunnels;

/// Agents that a directory keeps apart: five times the 200 that a cluster is designed for.
pub const MAX_AGENTS: usize = 1_000;
/// Generations kept per agent.
pub const MAX_GENERATIONS: usize = 3;

/// One record as one owner holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who holds it.
    pub owner: Arc<Owner>,
    /// Where the owner holds it.
    pub slot: Slot,
    /// When the owner wrote it.
    pub version: Version,
    /// What it holds.
    pub record: Arc<Record>,
}

/// What a change did to the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was news.
    New,
    /// It was known, or older than what is known.
    Known,
    /// It was from a generation that a newer one has replaced.
    Superseded,
    /// It would go over a bound.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub struct Directory {
    agents: HashMap<AgentName, Agent>,
    index: Tunnels,
    entries: usize,
    claims: Claims,
    /// What was shown and hidden since somebody took it.
    events: Vec<Event>,
    share: Share,
    /// What all replicas take.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Agent {
    /// The shown one, the one that it replaced, and newer ones that are not ready yet.
    generations: BTreeMap<Generation, Replica>,
    shown: Option<Generation>,
    /// Its records that are shown.
    entries: usize,
}

impl Directory {
    /// The directory of this agent, in which nobody is shown yet.
    pub fn new(us: &Owner) -> Self {
        Self {
            agents: HashMap::new(),
            index: Tunnels::default(),
            entries: 0,
            claims: Claims::new(us),
            events: Vec::new(),
            share: Share::default(),
            bytes: 0,
        }
    }

    /// The entries of a tunnel name, in no particular order.
    pub fn lookup(&self, name: &str) -> &[Entry] {
        self.index.lookup(&name.into())
    }

    /// Where a host leads: to the tunnel with the earliest claim on it, or else to the one whose hash host it is.
    pub fn endpoint(&self, host: &str) -> Option<Endpoint> {
        let hashed = || self.index.of_hash_host(HashHost::parse(host)?);
        self.claims.winner(host).or_else(|| Some(self.claims.endpoint_of(hashed()?)))
    }

    /// The claims of all owners.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The same, for the owner.
    pub fn claims_mut(&mut self) -> &mut Claims {
        &mut self.claims
    }

    /// The hash hosts of all tunnels with a record, in no particular order.
    pub fn hash_hosts(&self) -> impl Iterator<Item = HashHost> {
        self.index.hash_hosts()
    }

    /// Rises with every change of what host names lead to.
    pub fn hosts_revision(&self) -> u64 {
        self.index.revision() + self.claims.revision()
    }

    /// What was shown and hidden since the last call, in that order; somebody has to take it.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Bounds what owners may make it hold from now on.
    pub fn set_share(&mut self, share: Share) {
        self.share = share;
    }

    /// Takes over what an owner said, whoever passed it on.
    pub fn apply(&mut self, now: Instant, owner: &Owner, change: &Change) -> Applied {
        if self.is_too_much(owner, change) {
            let agent = self.agents.get_mut(&owner.name);
            if let Some(replica) = agent.and_then(|agent| agent.generations.get_mut(&owner.generation)) {
                replica.refuse();
            }
            return Applied::Refused;
        }
        self.take(now, owner, change)
    }

    fn take(&mut self, now: Instant, owner: &Owner, change: &Change) -> Applied {
        if change.slot > MAX_SLOT || !self.make_room(&owner.name) {
            return Applied::Refused;
        }
        let agent = self.agents.entry(owner.name.clone()).or_default();
        if agent.is_superseded(owner.generation) {
            return Applied::Superseded;
        }
        let fresh = || Replica::new(Arc::new(owner.clone()));
        let replica = agent.generations.entry(owner.generation).or_insert_with(fresh);
        let held = replica.cells().bytes();
        let Some(before) = replica.take(now, change) else { return Applied::Known };
        self.bytes = self.bytes + replica.cells().bytes() - held;
        if agent.shown == Some(owner.generation) {
            let owner = replica.owner.clone();
            self.reindex(&owner, change, before);
        } else if replica.is_complete() {
            self.show(now, owner);
        } else {
            self.bytes -= agent.forget_surplus();
        }
        Applied::New
    }

    /// All that an owner said between two versions has been applied.
    pub fn reach(&mut self, now: Instant, owner: &Owner, since: Version, until: Version) {
        let Some(agent) = self.agents.get_mut(&owner.name) else { return };
        let is_shown = agent.shown == Some(owner.generation);
        let is_superseded = agent.is_superseded(owner.generation);
        let Some(replica) = agent.generations.get_mut(&owner.generation) else { return };
        replica.reach(since, until);
        if replica.is_complete() && !is_shown && !is_superseded {
            self.show(now, owner);
        }
    }

    /// The same for what we say ourselves, which is known without gaps.
    pub fn say(&mut self, now: Instant, us: &Owner, change: &Change) {
        self.take(now, us, change);
        let since = self.replica(us).map_or(0, Replica::version);
        self.reach(now, us, since, since.max(change.cell.version));
    }

    /// How far an owner's words are known; none if they are of no interest any more.
    pub fn version(&self, owner: &Owner) -> Option<Version> {
        match self.agents.get(&owner.name) {
            Some(agent) if agent.is_superseded(owner.generation) => None,
            Some(agent) => match agent.generations.get(&owner.generation) {
                // What is refused is not to be asked for again and again.
                Some(replica) if replica.is_overfull() => None,
                Some(replica) => Some(replica.version()),
                None => Some(0),
            },
            None => Some(0),
        }
    }

    /// See [`Replica::part`]; also of the generation that the shown one replaced, which may want it back.
    pub fn part(&self, owner: &Owner, after: Version, from: Slot) -> Option<Part> {
        self.replica(owner)?.part(after, from)
    }

    /// See [`Replica::note`].
    pub fn note(&mut self, owner: &Owner, extent: &Extent) {
        let agent = self.agents.get_mut(&owner.name);
        if let Some(replica) = agent.and_then(|agent| agent.generations.get_mut(&owner.generation)) {
            replica.note(extent);
        }
    }

    /// See [`Replica::emptied`].
    pub fn emptied(&self, owner: &Owner, extent: &Extent, changes: &[Change]) -> Vec<Change> {
        self.replica(owner).map_or_else(Vec::new, |replica| replica.emptied(extent, changes))
    }

    /// Gives back the slots that have been empty for that long.
    pub fn drop_empty(&mut self, now: Instant, age: Duration) {
        let replicas = self.agents.values_mut().flat_map(|agent| agent.generations.values_mut());
        replicas.for_each(|replica| replica.drop_empty(now, age));
        self.recount();
        let (share, all) = (self.share, self.bytes);
        let has_room = |replica: &Replica| {
            let held = replica.cells().bytes();
            held < share.owner / 2 && (all < share.all / 2 || held < Share::FLOOR / 2)
        };
        let replicas = self.agents.values_mut().flat_map(|agent| agent.generations.values_mut());
        replicas.filter(|replica| has_room(replica)).for_each(Replica::make_room);
    }

    /// Gives back the room of a peak that is over.
    pub fn give_back(&mut self) {
        self.index.give_back();
        self.claims.give_back();
        self.agents.give_back();
    }

    /// Whether a change would go over what its owner, or all of them, may make us hold.
    fn is_too_much(&self, owner: &Owner, change: &Change) -> bool {
        let replica = self.replica(owner);
        let held = replica.map_or(0, |replica| replica.cells().bytes());
        // Most changes, so that the slot need not be looked at.
        if held < Share::FLOOR {
            return false;
        }
        let growth = replica.map_or(0, |replica| replica.cells().growth(change.slot, &change.cell.content));
        growth > 0 && (held + growth > self.share.owner || self.bytes + growth > self.share.all)
    }

    fn recount(&mut self) {
        let replicas = self.agents.values().flat_map(|agent| agent.generations.values());
        self.bytes = replicas.map(|replica| replica.cells().bytes()).sum();
    }

    /// How much memory all that owners said takes, roughly, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many slots take a place, of all owners.
    pub fn places(&self) -> usize {
        let replicas = self.agents.values().flat_map(|agent| agent.generations.values());
        replicas.map(|replica| replica.cells().places()).sum()
    }

    /// How many generations are kept, of all agents.
    pub fn generations(&self) -> usize {
        self.agents.values().map(|agent| agent.generations.len()).sum()
    }

    /// Forgets one generation of an agent, with all that it said; of the shown one, all before it as well.
    pub fn forget(&mut self, now: Instant, owner: &Owner) {
        let Some(agent) = self.agents.get_mut(&owner.name) else { return };
        let Some(replica) = agent.generations.remove(&owner.generation) else { return };
        if agent.shown == Some(owner.generation) {
            agent.shown = None;
            agent.generations.retain(|generation, _| *generation > owner.generation);
            self.unindex(now, &replica);
        }
        if self.agents.get(&owner.name).is_some_and(|agent| agent.generations.is_empty()) {
            self.agents.remove(&owner.name);
        }
        self.recount();
    }

    /// What the shown generation of an agent says of itself.
    pub fn status(&self, name: &AgentName) -> Option<Status> {
        let agent = self.agents.get(name)?;
        agent.generations.get(&agent.shown?)?.status()
    }

    /// The shown generation of an agent.
    pub fn generation(&self, name: &AgentName) -> Option<Generation> {
        self.agents.get(name)?.shown
    }

    /// What an owner said of a slot last, as far as is known.
    pub fn cell(&self, owner: &Owner, slot: Slot) -> Option<&Cell> {
        self.replica(owner)?.cells().get(slot)
    }

    /// What an owner claims, as far as is known.
    pub fn claims_of(&self, owner: &Owner) -> Vec<Arc<Claim>> {
        let cells = self.replica(owner).into_iter().flat_map(|replica| replica.cells().iter());
        cells.filter_map(|(_, cell)| cell.content.claim().cloned()).collect()
    }

    /// Since when that is known.
    pub fn known_since(&self, owner: &Owner, slot: Slot) -> Option<Instant> {
        self.replica(owner)?.cells().since(slot)
    }

    fn replica(&self, owner: &Owner) -> Option<&Replica> {
        self.agents.get(&owner.name)?.generations.get(&owner.generation)
    }

    /// The tunnels with a record that is shown, in no particular order, with its entries.
    pub fn tunnels(&self) -> impl Iterator<Item = (&Label, &[Entry])> {
        self.index.iter()
    }

    /// How many records are shown.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether no record is shown.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many records of an agent are shown.
    pub fn len_of(&self, name: &AgentName) -> usize {
        self.agents.get(name).map_or(0, |agent| agent.entries)
    }

    /// How many tunnels have a record that is shown.
    pub fn tunnels_len(&self) -> usize {
        self.index.len()
    }

    /// Every agent that said something, shown or not.
    pub fn agents(&self) -> impl Iterator<Item = &AgentName> {
        self.agents.keys()
    }

    /// The shown generations.
    pub fn owners(&self) -> impl Iterator<Item = &Arc<Owner>> {
        self.agents.values().filter_map(|agent| Some(&agent.generations.get(&agent.shown?)?.owner))
    }

    fn make_room(&self, name: &AgentName) -> bool {
        self.agents.len() < MAX_AGENTS || self.agents.contains_key(name)
    }

    /// Replaces the shown generation of an agent by a newer one, in one step: no reader sees a gap.
    fn show(&mut self, now: Instant, owner: &Owner) {
        let Some(agent) = self.agents.get_mut(&owner.name) else { return };
        let former = agent.shown.replace(owner.generation);
        let newer = agent.generations.split_off(&owner.generation);
        let replaced = std::mem::replace(&mut agent.generations, newer);
        let entries: Vec<(Slot, Cell)> = agent
            .generations
            .get(&owner.generation)
            .map(|replica| replica.cells().iter().map(|(slot, cell)| (slot, cell.clone())).collect())
            .unwrap_or_default();
        let before = self.events.len();
        let owner = Arc::new(owner.clone());
        for (slot, cell) in entries {
            self.reindex(&owner, &Change { slot, cell }, None);
        }
        // Afterwards, so that what both generations claim has no orphan.
        for replica in replaced.values() {
            self.unindex(now, replica);
        }
        // The owner may have lost it, and ask for it.
        if let Some(agent) = self.agents.get_mut(&owner.name) {
            agent
                .generations
                .extend(replaced.into_iter().filter(|(generation, _)| Some(*generation) == former));
        }
        self.recount();
        self.leave_out_what_stayed(before);
    }

    /// Of the events from `first` on: a record that both generations have was shown all the time.
    fn leave_out_what_stayed(&mut self, first: usize) {
        let all = self.events.split_off(first);
        let of = |event: &Event, up: bool| match event {
            Event::Up(_, record) if up => Some(record.clone()),
            Event::Down(_, record) if !up => Some(record.clone()),
            _ => None,
        };
        let ups: HashSet<Arc<Record>> = all.iter().filter_map(|event| of(event, true)).collect();
        let downs: HashSet<Arc<Record>> = all.iter().filter_map(|event| of(event, false)).collect();
        self.events.extend(all.into_iter().filter(|event| match event {
            Event::Up(_, record) => !downs.contains(record),
            Event::Down(_, record) => !ups.contains(record),
            _ => true,
        }));
    }

    fn reindex(&mut self, owner: &Arc<Owner>, change: &Change, before: Option<Cell>) {
        let Change { slot, cell } = change;
        let before = before.map(|cell| cell.content);
        if let Some(Content::Record(record)) = &before {
            self.hide(owner, *slot, record);
        }
        let (former, claim) = (before.as_ref().and_then(Content::claim), cell.content.claim());
        if former.is_some() || claim.is_some() {
            self.claims.change(owner, *slot, former.map(|claim| &**claim), claim);
        }
        match &cell.content {
            Content::Record(record) => {
                let entry = Entry {
                    owner: owner.clone(),
                    slot: *slot,
                    version: cell.version,
                    record: record.clone(),
                };
                self.events.push(Event::Up(owner.clone(), record.clone()));
                self.add_entry(entry);
            }
            Content::Empty | Content::Claim(_) | Content::Status(_) => {}
        }
    }

    fn unindex(&mut self, now: Instant, replica: &Replica) {
        for (slot, cell) in replica.cells().iter() {
            match &cell.content {
                Content::Record(record) => self.hide(&replica.owner, slot, record),
                Content::Claim(claim) => self.claims.lose(now, &replica.owner, slot, claim),
                Content::Empty | Content::Status(_) => {}
            }
        }
    }

    fn add_entry(&mut self, entry: Entry) {
        self.entries += 1;
        if let Some(agent) = self.agents.get_mut(&entry.owner.name) {
            agent.entries += 1;
        }
        self.index.add(entry);
    }

    /// Does nothing where there is no such entry: replicas that were never shown have none.
    fn hide(&mut self, owner: &Arc<Owner>, slot: Slot, record: &Arc<Record>) {
        let hidden = |entry: &Entry| entry.slot == slot && entry.owner == *owner;
        if self.index.remove(&record.name, hidden).is_none() {
            return;
        }
        self.entries -= 1;
        if let Some(agent) = self.agents.get_mut(&owner.name) {
            agent.entries -= 1;
        }
        self.events.push(Event::Down(owner.clone(), record.clone()));
    }
}

impl Agent {
    fn is_superseded(&self, generation: Generation) -> bool {
        self.shown.is_some_and(|shown| generation < shown)
    }

    /// An agent that starts again and again without getting ready must not fill the directory.
    /// How many bytes that gave back.
    fn forget_surplus(&mut self) -> usize {
        let mut bytes = 0;
        while self.generations.len() > MAX_GENERATIONS {
            let oldest = self.generations.keys().copied().find(|g| Some(*g) != self.shown);
            let replica = oldest.and_then(|g| self.generations.remove(&g));
            bytes += replica.map_or(0, |replica| replica.cells().bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::tests::{Talker, record};
    use super::*;

    fn owner(name: &str, generation: Generation) -> Owner {
        Owner { name: name.parse().unwrap(), generation }
    }

    fn ids(directory: &Directory, name: &str) -> Vec<String> {
        let mut ids: Vec<_> = directory.lookup(name).iter().map(|e| e.record.id.to_string()).collect();
        ids.sort();
        ids
    }

    /// A ready owner with the given record ids, all of tunnel `t`.
    fn said(ids: &[&str]) -> Vec<Change> {
        let mut owner = Talker::default();
        let mut changes: Vec<_> = ids.iter().map(|id| owner.put(record(id, "t"))).collect();
        changes.push(owner.say(Status::Ready));
        changes
    }

    /// In the order in which it was said.
    fn tell(directory: &mut Directory, owner: &Owner, changes: &[Change]) {
        for change in changes {
            directory.say(Instant::now(), owner, change);
        }
    }

    #[test]
    fn nothing_is_shown_before_its_owner_is_ready() {
        let mut directory = Directory::new(&owner("us", 1));
        let changes = said(&["1", "2"]);
        tell(&mut directory, &owner("a", 1), &changes[..2]);
        assert!(ids(&directory, "t").is_empty());
        tell(&mut directory, &owner("a", 1), &changes[2..]);
        assert_eq!(ids(&directory, "t"), ["1", "2"]);
    }

    #[test]
    fn a_newer_generation_replaces_the_older_one_at_once() {
        let mut directory = Directory::new(&owner("us", 1));
        tell(&mut directory, &owner("a", 1), &said(&["1", "2"]));
        let changes = said(&["2", "3"]);
        tell(&mut directory, &owner("a", 2), &changes[..2]);
        assert_eq!(ids(&directory, "t"), ["1", "2"], "not ready yet");
        tell(&mut directory, &owner("a", 2), &changes[2..]);
        assert_eq!(ids(&directory, "t"), ["2", "3"]);
        assert_eq!(directory.len(), 2);

        let late = said(&["1"]);
        assert_eq!(directory.apply(Instant::now(), &owner("a", 1), &late[0]), Applied::Superseded);
        assert_eq!(ids(&directory, "t"), ["2", "3"]);
    }

    #[test]
    fn a_generation_is_not_shown_while_something_that_it_had_at_its_start_may_be_missing() {
        let (mut directory, us) = (Directory::new(&owner("us", 1)), owner("a", 1));
        let changes = said(&["1", "2"]);
        for change in changes.iter().rev() {
            directory.apply(Instant::now(), &us, change);
        }
        assert!(ids(&directory, "t").is_empty(), "there may be others");
        directory.reach(Instant::now(), &us, 0, 2);
        assert!(ids(&directory, "t").is_empty(), "the owner was not ready by then");
        directory.reach(Instant::now(), &us, 2, 3);
        assert_eq!(ids(&directory, "t"), ["1", "2"]);
    }

    #[test]
    fn what_a_newer_generation_replaced_is_kept_for_its_owner_until_it_is_forgotten() {
        let (mut directory, former) = (Directory::new(&owner("us", 1)), owner("a", 1));
        for generation in 1..=3 {
            tell(&mut directory, &owner("a", generation), &said(&[&generation.to_string()]));
        }
        assert_eq!(directory.part(&former, 0, 0), None, "only the last one");
        let part = directory.part(&owner("a", 2), 0, 0).unwrap();
        assert_eq!(part.changes.len(), 2);
        assert_eq!((directory.version(&owner("a", 2)), directory.len()), (None, 1), "it is not asked for");
        directory.forget(Instant::now(), &owner("a", 2));
        assert_eq!((directory.part(&owner("a", 2), 0, 0), directory.len()), (None, 1));
    }

    #[test]
    fn nothing_older_comes_back_when_the_shown_generation_is_forgotten() {
        let mut directory = Directory::new(&owner("us", 1));
        for generation in 1..=2 {
            tell(&mut directory, &owner("a", generation), &said(&["1"]));
        }
        directory.forget(Instant::now(), &owner("a", 2));
        assert!(directory.is_empty() && directory.agents().count() == 0);
    }

    #[test]
    fn agents_do_not_touch_each_other() {
        let mut directory = Directory::new(&owner("us", 1));
        tell(&mut directory, &owner("a", 1), &said(&["1"]));
        tell(&mut directory, &owner("b", 9), &said(&["2"]));
        directory.forget(Instant::now(), &owner("b", 8));
        assert_eq!(ids(&directory, "t"), ["1", "2"]);
        directory.forget(Instant::now(), &owner("b", 9));
        assert_eq!(ids(&directory, "t"), ["1"]);
        assert_eq!(directory.owners().count(), 1);
    }

    #[test]
    fn what_grows_without_end_is_bounded() {
        let mut directory = Directory::new(&owner("us", 1));
        let changes = said(&["1"]);
        for generation in 0..50 {
            directory.apply(Instant::now(), &owner("a", generation), &changes[0]);
        }
        assert_eq!(directory.agents[&"a".parse().unwrap()].generations.len(), MAX_GENERATIONS);
        for n in 0..MAX_AGENTS + 5 {
            directory.apply(Instant::now(), &owner(&format!("n{n}"), 1), &changes[0]);
        }
        assert_eq!(directory.agents.len(), MAX_AGENTS);
        let far = Change { slot: MAX_SLOT + 1, ..changes[0].clone() };
        assert_eq!(directory.apply(Instant::now(), &owner("a", 60), &far), Applied::Refused);
    }

    #[test]
    fn an_owner_cannot_make_others_hold_more_than_its_share_and_all_together_not_more_than_theirs() {
        let (mut directory, now) = (Directory::new(&owner("us", 1)), Instant::now());
        let share = Share { owner: 2 * Share::FLOOR, all: 4 * Share::FLOOR };
        directory.set_share(share);
        // Sparse and empty: what takes most for the fewest bytes said.
        let change =
            |n: u32, version| Change { slot: n * 16 + 1, cell: Cell { version, content: Content::Empty } };
        let fill = |directory: &mut Directory, owner: &Owner| {
            (0..5_000).filter(|n| directory.apply(now, owner, &change(*n, 2)) == Applied::Refused).count()
        };
        assert!(fill(&mut directory, &owner("greedy", 1)) > 1_000);
        assert!(directory.bytes() <= share.owner);
        assert_eq!(directory.version(&owner("greedy", 1)), None, "it is not asked for more");
        directory.reach(Instant::now(), &owner("greedy", 1), 0, 9);
        assert_eq!(directory.part(&owner("greedy", 1), 0, 0), None, "nobody is told that this is all");
        for generation in 2..20 {
            fill(&mut directory, &owner("greedy", generation));
            fill(&mut directory, &owner(&format!("made-up-{generation}"), 1));
        }
        let floors = directory.agents().count() * MAX_GENERATIONS * (Share::FLOOR + 2_000);
        assert!(directory.bytes() <= share.all + floors, "{} bytes", directory.bytes());
        tell(&mut directory, &owner("honest", 1), &said(&["1", "2"]));
        assert_eq!(directory.apply(now, &owner("honest", 1), &change(9, 9)), Applied::New);
        assert_eq!(ids(&directory, "t"), ["1", "2"]);
        for name in directory.agents().cloned().collect::<Vec<_>>() {
            (1..20).for_each(|generation| {
                directory.forget(Instant::now(), &Owner { name: name.clone(), generation })
            });
        }
        assert_eq!(directory.bytes(), 0);
    }

    /// Up and down, by record id.
    fn events(directory: &mut Directory) -> Vec<String> {
        let told = |event: Event| match event {
            Event::Up(owner, record) => format!("{} up at {}", record.id, owner.name),
            Event::Down(owner, record) => format!("{} down at {}", record.id, owner.name),
            other => format!("{other:?}"),
        };
        let mut events: Vec<_> = directory.take_events().into_iter().map(told).collect();
        events.sort();
        events
    }

    #[test]
    fn what_is_shown_and_hidden_is_told_once_and_a_restart_is_not() {
        let mut directory = Directory::new(&owner("us", 1));
        tell(&mut directory, &owner("a", 1), &said(&["1", "2"]));
        assert_eq!(events(&mut directory), ["1 up at a", "2 up at a"]);
        tell(&mut directory, &owner("a", 1), &said(&["1", "2"]));
        assert!(events(&mut directory).is_empty(), "known");
        tell(&mut directory, &owner("a", 2), &said(&["2", "3"]));
        assert_eq!(events(&mut directory), ["1 down at a", "3 up at a"], "2 stayed");
        directory.forget(Instant::now(), &owner("a", 2));
        assert_eq!(events(&mut directory), ["2 down at a", "3 down at a"]);
    }
}
