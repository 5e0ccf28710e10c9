//! What each generation of each agent stated, and which generation of an agent is shown: the newest that stated all that it
//! had at its start, which ends with its status. Where nothing of an agent would be shown otherwise, a part of that is.
//!
//! `Replicas::apply` is idempotent and commutative per slot, so it does not matter by which way, how
//! often, or in which order a change arrives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::Address;
use super::capacity::GiveBack as _;
use super::hostname::Claim;
use super::label::Label;
use super::locality::Locality;
use super::quota::Share;
use super::record::{AgentName, Generation, Owner};
use super::replica::{Extent, Part, Replica};
use super::slot::{
    Cell, Change, FIRST_CLAIM, FIRST_UNREACHED, LOCALITY_SLOT, MAX_SLOT, Slot, Status, Unreached, Version,
};

/// Agents that are kept apart: twice the 1,000 that a cluster is designed for, as those that are gone stay for a while.
pub const MAX_AGENTS: usize = 2_000;
/// Generations kept per agent.
pub const MAX_GENERATIONS: usize = 3;
/// Slots that are looked at for entrypoints at once: a tenth of a millisecond.
const BITE: usize = 10_000;

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
#[derive(Debug, Default)]
pub struct Replicas {
    agents: HashMap<AgentName, Generations>,
    share: Share,
    /// What all replicas take.
    bytes: usize,
    /// Generations that are not kept any more, whose memory is still to be given back.
    dropped: Vec<Replica>,
}

/// The generations of one agent.
#[derive(Debug, Default)]
struct Generations {
    /// The shown one, the one that it replaced, and newer ones that are not ready yet.
    all: BTreeMap<Generation, Replica>,
    shown: Option<Generation>,
    /// Gossip has forgotten the shown one. It stays until the agent is dead: it was probably us that vanished.
    is_postponed: bool,
}

/// What is shown differently since a step.
#[must_use = "the indexes have to follow"]
#[derive(Debug)]
pub(crate) enum Shift<'a> {
    /// A slot of a shown generation holds something else than before.
    Slot { owner: Arc<Owner>, change: &'a Change, before: Option<Cell> },
    /// The same of a generation that is not shown yet.
    Staged { owner: Arc<Owner>, change: &'a Change, before: Option<Cell> },
    /// An agent is shown by another generation, or not any more.
    Generation { shown: Option<&'a Replica>, hidden: Option<&'a Replica> },
}

impl Replicas {
    /// Bounds what owners may make it hold from now on.
    pub fn set_share(&mut self, share: Share) {
        self.share = share;
    }

    /// Takes over what an owner said, whoever passed it on.
    pub(crate) fn apply<'a>(
        &'a mut self,
        now: Instant,
        owner: &Owner,
        change: &'a Change,
    ) -> (Applied, Option<Shift<'a>>) {
        if self.is_too_much(owner, change) {
            let agent = self.agents.get_mut(&owner.name);
            if let Some(replica) = agent.and_then(|agent| agent.all.get_mut(&owner.generation)) {
                replica.refuse();
            }
            return (Applied::Refused, None);
        }
        self.take(now, owner, change)
    }

    /// The same without a bound, for what we state ourselves.
    pub(crate) fn take<'a>(
        &'a mut self,
        now: Instant,
        owner: &Owner,
        change: &'a Change,
    ) -> (Applied, Option<Shift<'a>>) {
        let has_place = self.agents.len() < MAX_AGENTS || self.agents.contains_key(&owner.name);
        if change.slot > MAX_SLOT || !has_place {
            return (Applied::Refused, None);
        }
        let agent = self.agents.entry(owner.name.clone()).or_default();
        if agent.is_superseded(owner.generation) {
            return (Applied::Superseded, None);
        }
        let fresh = || Replica::new(Arc::new(owner.clone()));
        let replica = agent.all.entry(owner.generation).or_insert_with(fresh);
        let held = replica.cells().bytes();
        let Some(before) = replica.take(now, change) else { return (Applied::Known, None) };
        self.bytes = self.bytes + replica.cells().bytes() - held;
        if agent.shown == Some(owner.generation) {
            return (Applied::New, Some(Shift::Slot { owner: replica.owner.clone(), change, before }));
        }
        let owner = replica.owner.clone();
        self.bytes -= agent.forget_surplus(&mut self.dropped);
        (Applied::New, Some(Shift::Staged { owner, change, before }))
    }

    /// Shows a generation that has stated all that it had at its start, if it is not shown yet.
    pub(crate) fn show_if_complete(&mut self, owner: &Owner) -> Option<Shift<'_>> {
        let agent = self.agents.get(&owner.name)?;
        let may_be_shown = agent.shown.is_none_or(|shown| owner.generation > shown);
        let is_complete = agent.all.get(&owner.generation).is_some_and(Replica::is_complete);
        if may_be_shown && is_complete { self.show(owner) } else { None }
    }

    /// Shows what there is of a generation rather than nothing of its agent, once its status is known.
    pub(crate) fn show_part(&mut self, owner: &Owner) -> Option<Shift<'_>> {
        let agent = self.agents.get(&owner.name)?;
        let has_status = agent.all.get(&owner.generation).is_some_and(|replica| replica.status().is_some());
        if agent.shown.is_none() && has_status { self.show(owner) } else { None }
    }

    /// The generations that were not kept any more since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> Vec<Replica> {
        std::mem::take(&mut self.dropped)
    }

    /// All that an owner stated, to that extent, has been applied.
    pub(crate) fn reach(&mut self, owner: &Owner, extent: &Extent) -> Option<Shift<'_>> {
        let agent = self.agents.get_mut(&owner.name)?;
        let replica = agent.all.get_mut(&owner.generation)?;
        replica.note(extent);
        replica.reach(extent.since, extent.until);
        self.show_if_complete(owner)
    }

    /// How far an owner's words are known; none if they are of no interest any more.
    pub fn version(&self, owner: &Owner) -> Option<Version> {
        match self.agents.get(&owner.name) {
            Some(agent) if agent.is_superseded(owner.generation) => None,
            Some(agent) => match agent.all.get(&owner.generation) {
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

    /// See [`Replica::emptied`].
    pub fn emptied(&self, owner: &Owner, extent: &Extent, changes: &[Change]) -> Vec<Change> {
        self.replica(owner).map_or_else(Vec::new, |replica| replica.emptied(extent, changes))
    }

    /// Gives back the slots that have been empty for that long, and the capacity of a peak that is over.
    pub fn tidy(&mut self, now: Instant, age: Duration) {
        self.all_mut().for_each(|replica| replica.drop_empty(now, age));
        self.recount();
        let (share, all) = (self.share, self.bytes);
        let has_room = |replica: &Replica| {
            let held = replica.cells().bytes();
            held < share.owner / 2 && (all < share.all / 2 || held < Share::FLOOR / 2)
        };
        self.all_mut().filter(|replica| has_room(replica)).for_each(Replica::make_room);
        self.agents.give_back();
    }

    /// How much memory all that owners stated takes, roughly, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many slots take a place, of all owners.
    pub fn places(&self) -> usize {
        self.all().map(|replica| replica.cells().places()).sum()
    }

    /// How many generations are kept, of all agents.
    pub fn generations(&self) -> usize {
        self.all().count()
    }

    /// Forgets one generation of an agent, with all that it stated; of the shown one, all before it as well. The shown one, if
    /// that is the one; others are in [`Self::take_dropped`].
    pub(crate) fn forget(&mut self, owner: &Owner) -> Option<Replica> {
        let agent = self.agents.get_mut(&owner.name)?;
        let forgotten = agent.all.remove(&owner.generation)?;
        let is_shown = agent.shown == Some(owner.generation);
        if is_shown {
            (agent.shown, agent.is_postponed) = (None, false);
            let later = agent.all.split_off(&owner.generation);
            self.dropped.extend(std::mem::replace(&mut agent.all, later).into_values());
        }
        if agent.all.is_empty() {
            self.agents.remove(&owner.name);
        }
        self.recount();
        if is_shown {
            return Some(forgotten);
        }
        self.dropped.push(forgotten);
        None
    }

    /// Notes whether gossip has forgotten the shown generation of an agent, which is to be forgotten here when the agent is dead.
    pub fn postpone(&mut self, owner: &Owner, is_postponed: bool) {
        let agent = self.agents.get_mut(&owner.name);
        if let Some(agent) = agent.filter(|agent| agent.shown == Some(owner.generation)) {
            agent.is_postponed = is_postponed;
        }
    }

    /// These generations.
    pub fn postponed(&self) -> impl Iterator<Item = &Arc<Owner>> {
        let postponed = self.agents.values().filter(|agent| agent.is_postponed);
        postponed.filter_map(|agent| Some(&agent.shown()?.owner))
    }

    /// What the shown generation of an agent states of itself.
    pub fn status(&self, name: &AgentName) -> Option<Status> {
        self.agents.get(name)?.shown()?.status()
    }

    /// Whether all is known that the shown generation of an agent stated until it was asked.
    pub fn is_complete(&self, name: &AgentName) -> bool {
        self.agents.get(name).and_then(Generations::shown).is_some_and(Replica::is_complete)
    }

    /// The shown generation of an agent.
    pub fn generation(&self, name: &AgentName) -> Option<Generation> {
        self.agents.get(name)?.shown
    }

    /// What an owner stated of a slot last, as far as is known.
    pub fn cell(&self, owner: &Owner, slot: Slot) -> Option<&Cell> {
        self.replica(owner)?.cells().get(slot)
    }

    /// Since when that is known.
    pub fn known_since(&self, owner: &Owner, slot: Slot) -> Option<Instant> {
        self.replica(owner)?.cells().since(slot)
    }

    /// What an owner claims, as far as is known.
    pub fn claims_of(&self, owner: &Owner) -> Vec<Arc<Claim>> {
        let cells = self.replica(owner).into_iter().flat_map(|replica| replica.cells().iter());
        cells.filter_map(|(_, cell)| cell.content.claim().cloned()).collect()
    }

    /// The ids of an owner's records, as far as is known.
    pub fn record_ids(&self, owner: &Owner) -> impl Iterator<Item = &Label> {
        let cells = self.replica(owner).into_iter().flat_map(|replica| replica.cells().iter());
        cells.filter_map(|(_, cell)| Some(&cell.content.record()?.id))
    }

    /// Where an owner is, and how much it is to be used, if it says so.
    pub fn locality(&self, owner: &Owner) -> Option<&Locality> {
        self.cell(owner, LOCALITY_SLOT)?.content.locality().map(|locality| &**locality)
    }

    /// The entrypoints that an owner's host does not reach, as it says.
    pub fn unreached_by(&self, owner: &Owner) -> impl Iterator<Item = &Arc<Unreached>> {
        self.unreached_slots(owner).map(|(_, unreached)| unreached)
    }

    /// The same, with their slots.
    pub fn unreached_slots(&self, owner: &Owner) -> impl Iterator<Item = (Slot, &Arc<Unreached>)> {
        let replica = self.replica(owner).into_iter();
        let cells = replica.flat_map(|replica| replica.cells().iter_from(FIRST_UNREACHED));
        cells.filter_map(|(slot, cell)| Some((slot, cell.content.unreached()?)))
    }

    /// What ranking asks of an owner, at once: the status of its agent, where it is, and whether it says of any entrypoint that
    /// its host does not reach it.
    pub(crate) fn said(&self, owner: &Owner) -> Said<'_> {
        let Some(agent) = self.agents.get(&owner.name) else { return Said::default() };
        let cells = agent.all.get(&owner.generation).map(Replica::cells);
        let locality = cells.and_then(|cells| cells.get(LOCALITY_SLOT)?.content.locality());
        let mut faults = cells.into_iter().flat_map(|cells| cells.iter_from(FIRST_UNREACHED));
        Said {
            status: agent.shown().and_then(Replica::status),
            locality: locality.map(|locality| &**locality),
            has_faults: faults.any(|(_, cell)| cell.content.unreached().is_some()),
        }
    }

    /// Which of these entrypoints an owner's records have, from a slot on; and where to go on, unless that was all.
    pub fn entrypoints_among(
        &self,
        owner: &Owner,
        wanted: &BTreeSet<Address>,
        from: Slot,
    ) -> (BTreeSet<Address>, Option<Slot>) {
        let (mut found, mut last) = (BTreeSet::new(), None);
        let cells = self.replica(owner).into_iter().flat_map(|replica| replica.cells().iter_from(from));
        let cells = cells.take_while(|(slot, _)| *slot < FIRST_CLAIM);
        for (looked, (slot, cell)) in cells.enumerate() {
            if looked == BITE {
                return (found, Some(slot));
            }
            let Some(record) = cell.content.record().filter(|record| !record.is_routers()) else { continue };
            // Gosts have few entrypoints, and many records each.
            if last.replace(&record.address) != Some(&record.address) && wanted.contains(&record.address) {
                found.insert(record.address.clone());
            }
        }
        (found, None)
    }

    /// How many records are shown.
    pub fn records(&self) -> usize {
        self.agents.values().map(Generations::records).sum()
    }

    /// How many records of an agent are shown.
    pub fn records_of(&self, name: &AgentName) -> usize {
        self.agents.get(name).map_or(0, Generations::records)
    }

    /// Every agent that stated something, shown or not.
    pub fn agents(&self) -> impl Iterator<Item = &AgentName> {
        self.agents.keys()
    }

    /// The shown generations.
    pub fn owners(&self) -> impl Iterator<Item = &Arc<Owner>> {
        self.agents.values().filter_map(|agent| Some(&agent.shown()?.owner))
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
        self.bytes = self.all().map(|replica| replica.cells().bytes()).sum();
    }

    pub(crate) fn replica(&self, owner: &Owner) -> Option<&Replica> {
        self.agents.get(&owner.name)?.all.get(&owner.generation)
    }

    fn all(&self) -> impl Iterator<Item = &Replica> {
        self.agents.values().flat_map(|agent| agent.all.values())
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.agents.values_mut().flat_map(|agent| agent.all.values_mut())
    }

    /// Replaces the shown generation of an agent by a newer one.
    fn show(&mut self, owner: &Owner) -> Option<Shift<'_>> {
        let agent = self.agents.get_mut(&owner.name)?;
        let former = agent.shown.replace(owner.generation);
        agent.is_postponed = false;
        // The former one stays: the owner may have lost it, and ask for it.
        let later = agent.all.split_off(&owner.generation);
        let before = self.dropped.len();
        for (generation, replica) in std::mem::replace(&mut agent.all, later) {
            if Some(generation) == former {
                agent.all.insert(generation, replica);
            } else {
                self.dropped.push(replica);
            }
        }
        // It costs as much as there are agents, and with many newcomers there is nothing to count.
        if self.dropped.len() > before {
            self.recount();
        }
        let of = |generation| self.agents.get(&owner.name)?.all.get(&generation);
        Some(Shift::Generation { shown: of(owner.generation), hidden: former.and_then(of) })
    }
}

/// What an owner says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said<'a> {
    /// The status of the start of its agent that is shown.
    pub(crate) status: Option<Status>,
    /// Where it is, and how much it is to be used, if it says so.
    pub(crate) locality: Option<&'a Locality>,
    /// Whether it says of any entrypoint that its host does not reach it.
    pub(crate) has_faults: bool,
}

impl Generations {
    fn shown(&self) -> Option<&Replica> {
        self.all.get(&self.shown?)
    }

    fn records(&self) -> usize {
        self.shown().map_or(0, |replica| replica.cells().records())
    }

    fn is_superseded(&self, generation: Generation) -> bool {
        self.shown.is_some_and(|shown| generation < shown)
    }

    /// Forgets the oldest generations that are not shown: an agent that starts again and again without getting ready must not
    /// fill the table. How many bytes that gave back.
    fn forget_surplus(&mut self, dropped: &mut Vec<Replica>) -> usize {
        let mut bytes = 0;
        while self.all.len() > MAX_GENERATIONS {
            let oldest = self.all.keys().copied().find(|g| Some(*g) != self.shown);
            let replica = oldest.and_then(|g| self.all.remove(&g));
            bytes += replica.as_ref().map_or(0, |replica| replica.cells().bytes());
            dropped.extend(replica);
        }
        bytes
    }
}
