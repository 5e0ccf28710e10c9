//! The owner's truth: which records it holds, until when, and which ids were released. Every change that the cluster has
//! to hear of comes out as a [`Write`] of a slot; every id whose state changed is noted for the journal.

mod doubt;
mod figures;
mod import;
mod leases;
mod moved;
mod restore;
mod verdict;

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::doubt::{AskOutcome, FRESH, LONGEST_PERIOD};
pub use self::import::Imported;
use self::leases::Leases;
pub use self::restore::KeptLeases;
pub use self::verdict::{Judged, Verdict};

use super::address::Address;
use super::capacity::GiveBack as _;
use super::instance::Instances;
use super::label::Label;
use super::moment::{Moment, Start};
use super::record::Record;
use super::slot::{Slot, SlotTable, SlotsFull, Write};
use super::tombstone::{Release, Tombstones};

/// How long a lapsed record is kept, for a late Renew to revive it.
pub const KEEP_LAPSED: Duration = Duration::from_secs(3600);
/// Released ids that are forgotten in one go, to keep the lock short.
const FORGET: usize = 256;

/// Entries that the heap of deadlines may have beside four for each lease, before the stale ones are dropped.
const SPARE_DEADLINES: usize = 64;

/// A record, and what only its owner needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What the cluster gets.
    pub record: Arc<Record>,
    /// Where this agent can dial the record's instance, `host:port`; empty if unknown.
    pub dial: Address,
}

/// What a Renew found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// A live record; its lease was prolonged.
    Renewed,
    /// A lapsed record, live again.
    Revived(Write),
    /// An id that was released a moment ago: nothing changed, and nothing is wrong.
    Released,
    /// No such id here.
    Unknown,
}

/// What came of leases that ended.
#[derive(Debug, Default)]
pub struct Expired {
    /// Of records that lapsed.
    pub changes: Vec<Write>,
    /// Instances that somebody has to dial, for a [`Verdict`].
    pub trials: BTreeSet<Label>,
}

/// The state of an id, for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Live.
    Held(Holding),
    /// Not published any more, and kept for a late Renew.
    Lapsed(Holding),
    /// Released a moment ago.
    Released(Release),
    /// Not known any more.
    Forgotten,
}

/// The leases of one owner.
#[derive(Debug)]
pub struct LeaseTable {
    start: Start,
    ttl: Duration,
    keep_lapsed: Duration,
    leases: Leases,
    instances: Instances,
    slots: SlotTable,
    tombstones: Tombstones,
    /// At least one entry per lease, at its deadline or earlier. A Renew, which moves the deadline away, costs
    /// a hash lookup and no heap operation.
    deadlines: BinaryHeap<Reverse<(Moment, Label)>>,
    touched: BTreeSet<Label>,
    live: usize,
    /// Lapsed ids, by when they are to be forgotten.
    lapsed: BTreeSet<(Moment, Label)>,
    bytes: usize,
    lapsed_bytes: usize,
    /// Verdicts on instances with many records that have been carried out in part.
    pending: VecDeque<verdict::Pending>,
    /// Records that are looked at in one go.
    bite: usize,
}

#[derive(Debug)]
struct Lease {
    holding: Holding,
    deadline: Moment,
    /// Its entry in the heap; others of it are stale.
    queued: Moment,
    /// When there was the last sign of it.
    seen: Moment,
    /// The slot in which it is published; none while lapsed.
    slot: Option<RecordSlot>,
    /// What the last sign was.
    sign: Sign,
    /// Whether its lease has ended and its gost is being dialled.
    on_trial: bool,
}

/// What shows that a connector lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// It did when a journal kept it.
    Restored,
    /// It did while an agent had it that handed over.
    Inherited,
    Registered,
    Renewed,
}

/// Never zero, which is the status slot: so that none takes no more room.
type RecordSlot = NonZeroU32;

const _: () = assert!(size_of::<Lease>() == 56, "there is one for each record");

impl Lease {
    fn new(holding: Holding, now: Moment, sign: Sign, deadline: Moment, slot: Option<Slot>) -> Self {
        let slot = slot.and_then(RecordSlot::new);
        Self { holding, deadline, queued: deadline, seen: now, slot, sign, on_trial: false }
    }

    /// Notes a sign of life, which ends every doubt.
    fn note(&mut self, now: Moment, sign: Sign) {
        (self.seen, self.sign, self.on_trial) = (now, sign, false);
    }
}

impl LeaseTable {
    /// An empty table; `ttl` holds for records whose Renew period is not known yet.
    pub fn new(now: Instant, ttl: Duration) -> Self {
        Self {
            start: Start(now),
            ttl,
            keep_lapsed: KEEP_LAPSED,
            leases: Leases::default(),
            instances: Instances::default(),
            slots: SlotTable::default(),
            tombstones: Tombstones::default(),
            deadlines: BinaryHeap::new(),
            touched: BTreeSet::new(),
            live: 0,
            lapsed: BTreeSet::new(),
            bytes: 0,
            lapsed_bytes: 0,
            pending: VecDeque::new(),
            bite: verdict::BITE,
        }
    }

    /// The same that looks at so many records in one go.
    #[cfg(test)]
    fn biting(self, bite: usize) -> Self {
        Self { bite, ..self }
    }

    /// The same that forgets lapsed records after that time, for tests that do not wait for [`KEEP_LAPSED`].
    #[must_use]
    pub fn keeping(self, keep_lapsed: Duration) -> Self {
        Self { keep_lapsed, ..self }
    }

    /// Takes a record that gost registers, or renews it if it is held as it is. An instance that registers at
    /// another's entrypoint has replaced it: the other's records lapse. Nothing happens if the id's Deregister overtook
    /// this; an id that was held and released is registered anew.
    pub fn register(&mut self, now: Instant, holding: Holding) -> Result<Vec<Write>, SlotsFull> {
        let moment = self.start.moment(now);
        if self.suppresses(moment, &holding.record.id) {
            return Ok(Vec::new());
        }
        let record = holding.record.clone();
        let mut changes: Vec<Write> = self.take(moment, holding, Sign::Registered)?.into_iter().collect();
        if let Some(former) = self.instances.claim(&record) {
            let verdict = Verdict::Replaced(record.address.clone(), record.is_routers());
            changes.extend(self.judge(now, &former, verdict).changes);
        }
        Ok(changes)
    }

    /// The same, without replacing an instance: the address of this one is a guess.
    pub fn register_beside(&mut self, now: Instant, holding: Holding) -> Result<Option<Write>, SlotsFull> {
        let now = self.start.moment(now);
        if self.suppresses(now, &holding.record.id) {
            return Ok(None);
        }
        self.take(now, holding, Sign::Registered)
    }

    /// Takes the record of a connector that gost renews, without replacing an instance: a Renew says nothing about who
    /// came last. But who comes next replaces it.
    pub fn adopt(&mut self, now: Instant, holding: Holding) -> Result<Option<Write>, SlotsFull> {
        self.take(self.start.moment(now), holding, Sign::Renewed)
    }

    fn take(&mut self, now: Moment, holding: Holding, sign: Sign) -> Result<Option<Write>, SlotsFull> {
        let id = holding.record.id.clone();
        let ttl = self.instances.period(&holding.record.node).ttl(self.ttl);
        let Some(lease) = self.leases.get_mut(&id) else {
            let change = self.insert(now, holding.clone(), sign, now + ttl)?;
            self.instances.claim_if_vacant(&holding.record);
            self.touched.insert(id);
            return Ok(Some(change));
        };
        lease.note(now, sign);
        let before = std::mem::replace(&mut lease.deadline, now + ttl);
        let sooner = lease.deadline < lease.queued;
        if lease.slot.is_some() && lease.holding == holding {
            if sooner {
                self.queue(&id);
            }
            return Ok(None);
        }
        let change = match lease.slot {
            Some(slot) => self.slots.replace(slot.get(), holding.record.clone()),
            None => self.slots.put(holding.record.clone())?,
        };
        if lease.slot.is_none() {
            self.live += 1;
            self.lapsed.remove(&(before, id.clone()));
            self.lapsed_bytes -= lease.holding.record.size();
        } else {
            self.instances.fall(&lease.holding.record);
        }
        lease.slot = RecordSlot::new(change.slot);
        self.bytes = self.bytes + holding.record.size() - lease.holding.record.size();
        self.instances.remove(&lease.holding.record);
        self.instances.add(&holding.record);
        self.instances.rise(&holding.record);
        lease.holding = holding;
        if sooner {
            self.queue(&id);
        }
        self.touched.insert(id);
        Ok(Some(change))
    }

    /// Prolongs the lease of an id.
    pub fn renew(&mut self, now: Instant, id: &Label) -> Renewal {
        let now = self.start.moment(now);
        let Some(lease) = self.leases.get_mut(id) else {
            let released = self.tombstones.get(now, id).is_some();
            return if released { Renewal::Released } else { Renewal::Unknown };
        };
        let last = (lease.sign == Sign::Renewed).then_some(lease.seen);
        if matches!(lease.sign, Sign::Restored | Sign::Inherited) && lease.slot.is_some() {
            self.instances.claim_if_vacant(&lease.holding.record);
        }
        let ttl = self.instances.renewed(&lease.holding.record.node, last, now).ttl(self.ttl);
        lease.note(now, Sign::Renewed);
        let before = std::mem::replace(&mut lease.deadline, now + ttl);
        let id = lease.holding.record.id.clone();
        let lapsed = lease.slot.is_none();
        if lease.deadline < lease.queued {
            self.queue(&id);
        }
        if lapsed { self.revive(before, id) } else { Renewal::Renewed }
    }

    /// Says a lapsed record again that was to be forgotten at `due`.
    fn revive(&mut self, due: Moment, id: Label) -> Renewal {
        let Some(lease) = self.leases.get_mut(&id) else { return Renewal::Unknown };
        // The caller sees to it that there is room; without, the record goes at its new deadline.
        let Ok(change) = self.slots.put(lease.holding.record.clone()) else { return Renewal::Unknown };
        lease.slot = RecordSlot::new(change.slot);
        self.touched.insert(id.clone());
        self.lapsed.remove(&(due, id));
        self.lapsed_bytes -= lease.holding.record.size();
        self.instances.rise(&lease.holding.record);
        self.live += 1;
        Renewal::Revived(change)
    }

    /// Releases an id, known or not: its Register may still be on the way.
    pub fn release(&mut self, now: Instant, id: &Label) -> Option<Write> {
        let lease = self.leases.remove(id);
        let release = if lease.is_some() { Release::Held } else { Release::Unheard };
        if self.tombstones.bury(self.start.moment(now), id, release) {
            self.touched.insert(id.clone());
        }
        let lease = lease?;
        let slot = lease.slot;
        self.drop_lease(&lease);
        self.live -= usize::from(slot.is_some());
        slot.map(|slot| self.slots.clear(slot.get()))
    }

    /// Lapses what is overdue, and forgets what lapsed long ago; a bite of it, if that is much: then [`Self::next_deadline`]
    /// is still over. Leases of instances whose period is not known go on until those have been dialled; see
    /// [`Expired::trials`].
    pub fn expire(&mut self, now: Instant) -> Expired {
        let now = self.start.moment(now);
        let mut expired = Expired::default();
        let forgotten = self.tombstones.expire(now, FORGET);
        self.touched.extend(forgotten);
        for _ in 0..self.bite {
            let Some(entry) = self.deadlines.peek_mut().filter(|entry| entry.0.0 <= now) else { break };
            let Reverse((due, id)) = PeekMut::pop(entry);
            let Some(lease) = self.leases.get(&id).filter(|lease| lease.queued == due) else { continue };
            let (has_ended, is_live) = (lease.deadline <= now, lease.slot.is_some());
            if has_ended && !is_live {
                self.forget(&id);
            } else if has_ended && !self.go_on_trial(now, &id, &mut expired.trials) {
                expired.changes.extend(self.lapse(now, &id));
            }
            self.queue(&id);
        }
        expired
    }

    /// A record is left to another owner: it lapses.
    pub fn lapse_one(&mut self, now: Instant, id: &Label) -> Option<Write> {
        self.lapse(self.start.moment(now), id)
    }

    /// The instances whose Renew period changed since the last call, with what is known of it; none if nothing is any
    /// more.
    pub fn take_periods(&mut self) -> BTreeMap<Label, Option<Duration>> {
        let nodes = std::mem::take(self.instances.touched());
        nodes.into_iter().map(|node| (node.clone(), self.instances.kept(&node))).collect()
    }

    /// Counts periods as changed again: they could not be written.
    pub fn touch_periods(&mut self, nodes: impl IntoIterator<Item = Label>) {
        self.instances.touched().extend(nodes);
    }

    /// The ids whose state changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<Label> {
        std::mem::take(&mut self.touched)
    }

    /// The same, and at most so many; the others stay.
    pub fn take_some_touched(&mut self, most: usize) -> BTreeSet<Label> {
        if self.touched.len() <= most {
            return self.take_touched();
        }
        std::iter::from_fn(|| self.touched.pop_first()).take(most).collect()
    }

    /// Whether the state of any id, or any period, changed since it was asked for.
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty() || self.instances.touched_len() > 0
    }

    /// Counts ids as changed again: they could not be written.
    pub fn touch(&mut self, ids: impl IntoIterator<Item = Label>) {
        self.touched.extend(ids);
    }

    /// Counts everything as changed: a journal starts afresh.
    pub fn touch_all(&mut self) {
        let ids: Vec<_> = self.leases.ids().chain(self.tombstones.ids()).cloned().collect();
        self.touch(ids);
        self.instances.touch_all();
    }

    /// The state of an id.
    pub fn word(&self, id: &Label) -> Word {
        match self.leases.get(id) {
            Some(lease) if lease.slot.is_some() => Word::Held(lease.holding.clone()),
            Some(lease) => Word::Lapsed(lease.holding.clone()),
            None => self.tombstones.last(id).map_or(Word::Forgotten, Word::Released),
        }
    }

    /// When [`Self::expire`] may next have something to do, or [`Self::carry_out`] has.
    pub fn next_deadline(&self) -> Option<Instant> {
        let verdict = self.pending.front().map(verdict::Pending::at);
        let due = self.deadlines.peek().map(|Reverse((due, _))| *due);
        verdict.into_iter().chain(due).min().map(|due| self.start.instant(due))
    }

    /// Whether [`Self::expire`] has left something that is overdue.
    pub fn has_overdue(&self, now: Instant) -> bool {
        let now = self.start.moment(now);
        self.deadlines.peek().is_some_and(|Reverse((due, _))| *due <= now)
    }

    /// Gives back the capacity of a peak that is over.
    pub fn give_back(&mut self) {
        self.leases.give_back();
        self.deadlines.give_back();
        self.instances.give_back();
    }

    /// Forgets the record that lapsed first; false if none has.
    pub fn forget_oldest_lapsed(&mut self) -> bool {
        let Some((due, id)) = self.lapsed.first().cloned() else { return false };
        self.forget(&id);
        // Whatever else is wrong, the same one is not found again.
        self.lapsed.remove(&(due, id));
        true
    }

    /// The journal has it, or gets it from the caller.
    fn insert(
        &mut self,
        now: Moment,
        holding: Holding,
        sign: Sign,
        deadline: Moment,
    ) -> Result<Write, SlotsFull> {
        let change = self.slots.put(holding.record.clone())?;
        let id = holding.record.id.clone();
        self.tombstones.remove(&id);
        self.instances.add(&holding.record);
        self.instances.rise(&holding.record);
        let lease = Lease::new(holding, now, sign, deadline, Some(change.slot));
        self.bytes += lease.holding.record.size();
        self.leases.insert(lease);
        self.deadlines.push(Reverse((deadline, id)));
        self.live += 1;
        Ok(change)
    }

    fn lapse(&mut self, now: Moment, id: &Label) -> Option<Write> {
        let lease = self.leases.get_mut(id)?;
        let slot = lease.slot.take()?;
        (lease.deadline, lease.on_trial) = (now + self.keep_lapsed, false);
        self.lapsed.insert((lease.deadline, id.clone()));
        self.lapsed_bytes += lease.holding.record.size();
        self.instances.fall(&lease.holding.record);
        self.live -= 1;
        self.touched.insert(id.clone());
        Some(self.slots.clear(slot.get()))
    }

    fn forget(&mut self, id: &Label) {
        if let Some(lease) = self.leases.remove(id) {
            self.drop_lease(&lease);
            self.touched.insert(id.clone());
        }
    }

    /// What is known of a lease that has been taken out, besides its slot.
    fn drop_lease(&mut self, lease: &Lease) {
        let record = &lease.holding.record;
        if lease.slot.is_some() {
            self.instances.fall(record);
        }
        self.instances.remove(record);
        self.bytes -= record.size();
        if lease.slot.is_none() {
            self.lapsed.remove(&(lease.deadline, record.id.clone()));
            self.lapsed_bytes -= record.size();
        }
    }

    /// Puts a lease into the heap at its deadline; an entry that it has there becomes stale.
    fn queue(&mut self, id: &Label) {
        if let Some(lease) = self.leases.get_mut(id) {
            lease.queued = lease.deadline;
            self.deadlines.push(Reverse((lease.deadline, id.clone())));
        }
        if self.deadlines.len() > self.deadlines_max() {
            self.drop_stale_deadlines();
        }
    }

    fn drop_stale_deadlines(&mut self) {
        let leases = &self.leases;
        self.deadlines.retain(|Reverse((due, id))| leases.get(id).is_some_and(|lease| lease.queued == *due));
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
