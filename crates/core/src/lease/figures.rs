//! What there is to know of leases without changing them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::address::Address;
use super::super::label::Label;
use super::super::moment::Moment;
use super::super::record::Record;
use super::super::tombstone::Release;
use super::{Holding, Lease, LeaseTable, SPARE_DEADLINES};

impl LeaseTable {
    /// Entries that there is capacity for.
    pub fn capacity(&self) -> usize {
        self.leases.capacity() + self.deadlines.capacity() + self.instances.capacity()
    }

    /// The live record of an id.
    pub fn live_record(&self, id: &Label) -> Option<&Record> {
        self.leases.get(id).filter(|lease| lease.slot.is_some()).map(|lease| &*lease.holding.record)
    }

    /// The live records of an instance.
    pub fn live_of(&self, node: &Label) -> impl Iterator<Item = &Record> {
        self.instances.ids(node).filter_map(|id| self.live_record(id))
    }

    /// Where the live records' instance can be dialled, each address once; none if nowhere. An instance has few entrypoints, and
    /// perhaps very many records.
    pub fn dials(&self, node: &Label) -> BTreeSet<Address> {
        self.dials_of(node, false)
    }

    /// The same of routers, whose entrypoints are UDP ports.
    pub fn router_dials(&self, node: &Label) -> BTreeSet<Address> {
        self.dials_of(node, true)
    }

    fn dials_of(&self, node: &Label, routers: bool) -> BTreeSet<Address> {
        const LOOKED_AT: usize = 1_000;
        let live = |lease: &&Lease| lease.slot.is_some() && lease.holding.record.is_routers() == routers;
        // Of those that live: one whose connectors come back one by one after an outage has many that lapsed.
        let leases =
            self.instances.ids(node).filter_map(|id| self.leases.get(id)).filter(live).take(LOOKED_AT);
        leases.map(|lease| lease.holding.dial.clone()).filter(|dial| !dial.is_empty()).collect()
    }

    /// A record of the same instance and handler, which shows the address of an unknown one.
    pub fn sibling(&self, node: &Label, routers: bool) -> Option<&Holding> {
        let leases = self.instances.ids(node).filter_map(|id| self.leases.get(id));
        let mut holdings = leases.map(|lease| &lease.holding);
        holdings.find(|holding| holding.record.is_routers() == routers)
    }

    /// The instances of the records held.
    pub fn nodes(&self) -> impl Iterator<Item = &Label> {
        self.instances.nodes()
    }

    /// How many released ids are remembered.
    pub fn released(&self) -> usize {
        self.tombstones.len()
    }

    /// Entries of the heap of deadlines, stale ones included.
    pub fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    /// How many those may be.
    pub fn deadlines_max(&self) -> usize {
        SPARE_DEADLINES + 4 * self.leases.len()
    }

    /// Entrypoints that some instance has.
    pub fn entrypoints(&self) -> usize {
        self.instances.entrypoints()
    }

    /// Whether a gost with a live record has that entrypoint.
    pub fn lives_at(&self, entrypoint: &Address) -> bool {
        self.instances.lives_at(entrypoint)
    }

    /// Free slots between those in use.
    pub fn slot_gaps(&self) -> usize {
        self.slots.gaps()
    }

    /// Whether an id has a live record.
    pub fn is_live(&self, id: &Label) -> bool {
        self.leases.get(id).is_some_and(|lease| lease.slot.is_some())
    }

    /// The name of an id's record, if that has lapsed.
    pub fn lapsed_name(&self, id: &Label) -> Option<Label> {
        let lapsed = self.leases.get(id).filter(|lease| lease.slot.is_none())?;
        Some(lapsed.holding.record.name.clone())
    }

    /// Whether an id has a record that has lapsed.
    pub fn is_lapsed(&self, id: &Label) -> bool {
        self.leases.get(id).is_some_and(|lease| lease.slot.is_none())
    }

    /// The records of a tunnel name that have lapsed, among the newest of all that have, and since when.
    pub fn lapsed_of(&self, name: &Label) -> impl Iterator<Item = (&Arc<Record>, Instant)> {
        /// A question must not take long, however many have lapsed.
        const LOOKED_AT: usize = 10_000;
        let newest = self.lapsed.iter().rev().take(LOOKED_AT);
        newest.filter_map(move |(forgotten, id)| {
            let record = &self.leases.get(id)?.holding.record;
            let since = self.start.instant(*forgotten).checked_sub(self.keep_lapsed)?;
            (record.name == *name).then_some((record, since))
        })
    }

    /// Whether an id's Deregister overtook its Register, which then changes nothing.
    pub fn is_overtaken(&self, now: Instant, id: &Label) -> bool {
        self.suppresses(self.start.moment(now), id)
    }

    pub(super) fn suppresses(&self, now: Moment, id: &Label) -> bool {
        self.tombstones.get(now, id) == Some(Release::Unheard)
    }

    /// Instances that are known, with records or without.
    pub fn instances(&self) -> usize {
        self.instances.len()
    }

    /// What an id's live record counts against a quota, in bytes.
    pub fn live_size(&self, id: &Label) -> usize {
        self.leases
            .get(id)
            .filter(|lease| lease.slot.is_some())
            .map_or(0, |lease| lease.holding.record.size())
    }

    /// The instance that a record's would replace.
    pub fn replaced_by(&self, record: &Record) -> Option<&Label> {
        self.instances.claimant(record).filter(|former| **former != record.node)
    }

    /// Whether a live record would lapse if this one is registered, because its instance replaces another.
    pub fn would_replace(&self, record: &Record) -> bool {
        let former = self.replaced_by(record);
        former.is_some_and(|former| self.instances.ids(former).any(|id| self.is_live(id)))
    }

    /// What the records count against a quota, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What of it has lapsed.
    pub fn lapsed_bytes(&self) -> usize {
        self.lapsed_bytes
    }

    /// How long a live record has left, and the period of its Renews once it is known.
    pub fn remaining(&self, now: Instant, id: &Label) -> Option<(Duration, Option<Duration>)> {
        let lease = self.leases.get(id).filter(|lease| lease.slot.is_some())?;
        Some((
            lease.deadline.since(self.start.moment(now)),
            self.instances.period(&lease.holding.record.node).longest(),
        ))
    }

    /// How many ids and periods changed since they were last taken.
    pub fn touched(&self) -> usize {
        self.touched.len() + self.instances.touched_len()
    }

    /// How many records are live.
    pub fn live(&self) -> usize {
        self.live
    }

    /// How many records have lapsed and may be revived.
    pub fn lapsed(&self) -> usize {
        self.leases.len() - self.live
    }
}
