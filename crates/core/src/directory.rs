//! What is known of all owners, as it is read: their records by tunnel ([`Tunnels`]) and their claims by host name
//! ([`Claims`]), both in step with what is shown of their [`Replicas`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::hostname::{Claim, Claims, Endpoint, HashHost, TunnelId};
use super::record::Owner;
use super::reindex::{BITE, Backlog, Bite, Indexes};
use super::replica::Extent;
use super::replicas::{Applied, Replicas, Shift};
use super::slot::{Change, STATUS_SLOT};
use super::tunnels::{Entries, Tunnels};

/// See the module.
#[derive(Debug)]
pub struct Directory {
    /// What owners stated.
    pub(crate) replicas: Replicas,
    /// The records that are shown.
    pub(crate) tunnels: Tunnels,
    /// The claims that are shown, stated here and remembered.
    pub(crate) claims: Claims,
    us: Owner,
    backlog: Backlog,
    /// Claims of owners that are shown since [`Self::take_learned`] was called last.
    learned: Vec<Arc<Claim>>,
    /// Slots that are brought in step with a change itself.
    pub(crate) at_once: usize,
}

impl Directory {
    /// The directory of this agent, in which nobody is shown yet.
    pub fn new(us: &Owner) -> Self {
        let (replicas, tunnels, backlog) = (Replicas::default(), Tunnels::default(), Backlog::default());
        Self {
            replicas,
            tunnels,
            claims: Claims::new(us),
            us: us.clone(),
            backlog,
            learned: Vec::new(),
            at_once: BITE,
        }
    }

    /// The entries of a tunnel name, in no particular order.
    pub fn lookup(&self, name: &str) -> Entries<'_> {
        self.tunnels.lookup(&name.into())
    }

    /// Where a host leads: to the tunnel with the earliest claim on it, or else to the one whose hash host it is.
    pub fn endpoint(&self, host: &str, may_have: impl Fn(TunnelId) -> bool) -> Option<Endpoint> {
        let hashed = || self.tunnels.of_hash_host(HashHost::parse(host)?);
        self.claims.winner_of(host, may_have).or_else(|| Some(self.claims.endpoint_of(hashed()?)))
    }

    /// Rises with every change of what host names lead to.
    pub fn hosts_revision(&self) -> u64 {
        self.tunnels.revision() + self.claims.revision()
    }

    /// Takes over what an owner stated, whoever passed it on. What is shown and hidden by it is added to the events.
    pub fn apply(
        &mut self,
        now: Instant,
        owner: &Owner,
        change: &Change,
        events: &mut Vec<Event>,
    ) -> Applied {
        let (applied, shift) = self.replicas.apply(now, owner, change);
        if let Some(shift) = &shift {
            self.tunnels.follow(shift, events);
            self.claims.follow(shift);
        }
        if applied == Applied::New && change.slot == STATUS_SLOT {
            if let Some(shift) = self.replicas.show_if_complete(owner) {
                self.backlog.follow(&shift, &mut self.tunnels);
            }
            self.begin_work(now, events);
        }
        applied
    }

    /// Little is done at once.
    fn begin_work(&mut self, now: Instant, events: &mut Vec<Event>) {
        for replica in self.replicas.take_dropped() {
            self.backlog.free(replica, false, &mut self.tunnels);
        }
        if self.has_work() {
            self.work(now, self.at_once, events);
        }
    }

    /// Whether indexes are to be brought in step: see [`Self::work`].
    pub fn has_work(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Brings indexes in step, as far as so many slots go. Whatever is read before that is right already.
    pub fn work(&mut self, now: Instant, slots: usize, events: &mut Vec<Event>) {
        let Self { replicas, tunnels, claims, backlog, .. } = self;
        let mut bite = Bite::default();
        let mut indexes = Indexes { now, replicas, tunnels, claims: Some(claims) };
        backlog.work(slots, &mut indexes, &mut bite);
        events.extend(bite.events);
        self.learned.extend(bite.claims);
    }

    /// The claims of owners that are shown since this was called last.
    pub fn take_learned(&mut self) -> Vec<Arc<Claim>> {
        std::mem::take(&mut self.learned)
    }

    /// The same for what we state ourselves, which is known without gaps.
    pub fn say(&mut self, now: Instant, us: &Owner, change: &Change, events: &mut Vec<Event>) {
        match self.replicas.take(now, us, change) {
            // Before this agent is ready, nobody asks it.
            (_, Some(Shift::Staged { owner, change, before })) if *us == self.us => {
                self.tunnels.follow(&Shift::Slot { owner, change, before }, events);
            }
            (_, Some(shift)) => {
                self.tunnels.follow(&shift, events);
                self.claims.follow(&shift);
            }
            (_, None) => {}
        }
        let since = self.replicas.version(us).unwrap_or_default();
        let extent = Extent { since, until: since.max(change.cell.version), whole: None };
        self.reach(now, us, &extent, events);
    }

    /// All that an owner stated, to that extent, has been applied.
    pub fn reach(&mut self, now: Instant, owner: &Owner, extent: &Extent, events: &mut Vec<Event>) {
        if let Some(shift) = self.replicas.reach(owner, extent) {
            self.backlog.follow(&shift, &mut self.tunnels);
        }
        self.begin_work(now, events);
    }

    /// See [`Replicas::show_part`].
    pub fn show_part(&mut self, now: Instant, owner: &Owner, events: &mut Vec<Event>) {
        if let Some(shift) = self.replicas.show_part(owner) {
            self.backlog.follow(&shift, &mut self.tunnels);
            self.begin_work(now, events);
        }
    }

    /// See [`Replicas::forget`].
    pub fn forget(&mut self, now: Instant, owner: &Owner, events: &mut Vec<Event>) {
        if let Some(hidden) = self.replicas.forget(owner) {
            self.backlog.free(hidden, true, &mut self.tunnels);
        }
        self.begin_work(now, events);
    }

    /// Gives back the slots that have been empty for that long, and the room of a peak that is over.
    pub fn tidy(&mut self, now: Instant, age: Duration) {
        self.replicas.tidy(now, age);
        self.tunnels.give_back();
        self.claims.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::super::quota::Share;
    use super::super::record::Generation;
    use super::super::replicas::{MAX_AGENTS, MAX_GENERATIONS};
    use super::super::slot::tests::{Talker, record};
    use super::super::slot::{Cell, Content, MAX_SLOT, Status, Version};
    use super::*;

    fn owner(name: &str, generation: Generation) -> Owner {
        Owner { name: name.parse().unwrap(), generation }
    }

    fn extent(since: Version, until: Version) -> Extent {
        Extent { since, until, whole: None }
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

    /// In the order of the changes.
    fn tell(directory: &mut Directory, owner: &Owner, changes: &[Change]) -> Vec<String> {
        let mut events = Vec::new();
        for change in changes {
            directory.say(Instant::now(), owner, change, &mut events);
        }
        told(events)
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
        assert_eq!(directory.replicas.records(), 2);

        let late = said(&["1"]);
        assert_eq!(
            directory.apply(Instant::now(), &owner("a", 1), &late[0], &mut Vec::new()),
            Applied::Superseded
        );
        assert_eq!(ids(&directory, "t"), ["2", "3"]);
    }

    #[test]
    fn a_generation_is_not_shown_while_something_that_it_had_at_its_start_may_be_missing() {
        let (mut directory, us) = (Directory::new(&owner("us", 1)), owner("a", 1));
        let changes = said(&["1", "2"]);
        for change in changes.iter().rev() {
            directory.apply(Instant::now(), &us, change, &mut Vec::new());
        }
        assert!(ids(&directory, "t").is_empty(), "there may be others");
        directory.reach(Instant::now(), &us, &extent(0, 2), &mut Vec::new());
        assert!(ids(&directory, "t").is_empty(), "the owner was not ready by then");
        directory.reach(Instant::now(), &us, &extent(2, 3), &mut Vec::new());
        assert_eq!(ids(&directory, "t"), ["1", "2"]);
    }

    #[test]
    fn what_a_newer_generation_replaced_is_kept_for_its_owner_until_it_is_forgotten() {
        let (mut directory, former) = (Directory::new(&owner("us", 1)), owner("a", 1));
        for generation in 1..=3 {
            tell(&mut directory, &owner("a", generation), &said(&[&generation.to_string()]));
        }
        assert_eq!(directory.replicas.part(&former, 0, 0), None, "only the last one");
        let part = directory.replicas.part(&owner("a", 2), 0, 0).unwrap();
        assert_eq!(part.changes.len(), 2);
        assert_eq!(
            (directory.replicas.version(&owner("a", 2)), directory.replicas.records()),
            (None, 1),
            "it is not asked for"
        );
        directory.forget(Instant::now(), &owner("a", 2), &mut Vec::new());
        assert_eq!((directory.replicas.part(&owner("a", 2), 0, 0), directory.replicas.records()), (None, 1));
    }

    #[test]
    fn nothing_older_comes_back_when_the_shown_generation_is_forgotten() {
        let mut directory = Directory::new(&owner("us", 1));
        for generation in 1..=2 {
            tell(&mut directory, &owner("a", generation), &said(&["1"]));
        }
        directory.forget(Instant::now(), &owner("a", 2), &mut Vec::new());
        assert!(directory.replicas.records() == 0 && directory.replicas.agents().count() == 0);
    }

    #[test]
    fn agents_do_not_touch_each_other() {
        let mut directory = Directory::new(&owner("us", 1));
        tell(&mut directory, &owner("a", 1), &said(&["1"]));
        tell(&mut directory, &owner("b", 9), &said(&["2"]));
        directory.forget(Instant::now(), &owner("b", 8), &mut Vec::new());
        assert_eq!(ids(&directory, "t"), ["1", "2"]);
        directory.forget(Instant::now(), &owner("b", 9), &mut Vec::new());
        assert_eq!(ids(&directory, "t"), ["1"]);
        assert_eq!(directory.replicas.owners().count(), 1);
    }

    #[test]
    fn what_grows_without_end_is_bounded() {
        let mut directory = Directory::new(&owner("us", 1));
        let changes = said(&["1"]);
        for generation in 0..50 {
            directory.apply(Instant::now(), &owner("a", generation), &changes[0], &mut Vec::new());
        }
        assert_eq!(directory.replicas.generations(), MAX_GENERATIONS);
        for n in 0..MAX_AGENTS + 5 {
            directory.apply(Instant::now(), &owner(&format!("n{n}"), 1), &changes[0], &mut Vec::new());
        }
        assert_eq!(directory.replicas.agents().count(), MAX_AGENTS);
        let far = Change { slot: MAX_SLOT + 1, ..changes[0].clone() };
        assert_eq!(directory.apply(Instant::now(), &owner("a", 60), &far, &mut Vec::new()), Applied::Refused);
    }

    #[test]
    fn an_owner_cannot_make_others_hold_more_than_its_share_and_all_together_not_more_than_theirs() {
        let (mut directory, now) = (Directory::new(&owner("us", 1)), Instant::now());
        let share = Share { owner: 2 * Share::FLOOR, all: 4 * Share::FLOOR };
        directory.replicas.set_share(share);
        // Sparse and empty: what takes most for the fewest bytes.
        let change =
            |n: u32, version| Change { slot: n * 16 + 1, cell: Cell { version, content: Content::Empty } };
        let fill = |directory: &mut Directory, owner: &Owner| {
            (0..5_000)
                .filter(|n| directory.apply(now, owner, &change(*n, 2), &mut Vec::new()) == Applied::Refused)
                .count()
        };
        assert!(fill(&mut directory, &owner("greedy", 1)) > 1_000);
        assert!(directory.replicas.bytes() <= share.owner);
        assert_eq!(directory.replicas.version(&owner("greedy", 1)), None, "it is not asked for more");
        directory.reach(Instant::now(), &owner("greedy", 1), &extent(0, 9), &mut Vec::new());
        assert_eq!(
            directory.replicas.part(&owner("greedy", 1), 0, 0),
            None,
            "nobody is told that this is all"
        );
        for generation in 2..20 {
            fill(&mut directory, &owner("greedy", generation));
            fill(&mut directory, &owner(&format!("made-up-{generation}"), 1));
        }
        let floors = directory.replicas.agents().count() * MAX_GENERATIONS * (Share::FLOOR + 2_000);
        assert!(directory.replicas.bytes() <= share.all + floors, "{} bytes", directory.replicas.bytes());
        tell(&mut directory, &owner("honest", 1), &said(&["1", "2"]));
        assert_eq!(directory.apply(now, &owner("honest", 1), &change(9, 9), &mut Vec::new()), Applied::New);
        assert_eq!(ids(&directory, "t"), ["1", "2"]);
        for name in directory.replicas.agents().cloned().collect::<Vec<_>>() {
            (1..20).for_each(|generation| {
                directory.forget(Instant::now(), &Owner { name: name.clone(), generation }, &mut Vec::new());
            });
        }
        assert_eq!(directory.replicas.bytes(), 0);
    }

    /// Up and down, by record id.
    fn told(events: Vec<Event>) -> Vec<String> {
        let told = |event: Event| match event {
            Event::Up(owner, record) => format!("{} up at {}", record.id, owner.name),
            Event::Down(owner, record) => format!("{} down at {}", record.id, owner.name),
            other => format!("{other:?}"),
        };
        let mut events: Vec<_> = events.into_iter().map(told).collect();
        events.sort();
        events
    }

    #[test]
    fn what_is_shown_and_hidden_is_told_once_and_a_restart_is_not() {
        let mut directory = Directory::new(&owner("us", 1));
        let first = said(&["1", "2"]);
        assert_eq!(tell(&mut directory, &owner("a", 1), &first), ["1 up at a", "2 up at a"]);
        assert!(tell(&mut directory, &owner("a", 1), &first).is_empty(), "known");
        let second = said(&["2", "3"]);
        assert_eq!(tell(&mut directory, &owner("a", 2), &second), ["1 down at a", "3 up at a"], "2 stayed");
        let mut events = Vec::new();
        directory.forget(Instant::now(), &owner("a", 2), &mut events);
        assert_eq!(told(events), ["2 down at a", "3 down at a"]);
    }
}
