//! What a table takes back from a journal.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::super::label::Label;
use super::super::moment::Moment;
use super::super::slot::Write;
use super::super::tombstone::Release;
use super::{Holding, Lease, LeaseTable, Sign};

/// What a journal kept of leases, or an agent that handed over.
#[derive(Clone, Debug, Default)]
pub struct KeptLeases {
    /// Live records, to be held with a fresh lease each.
    pub held: Vec<Holding>,
    /// Those of them of which there was no sign since a journal kept them; none if that is all.
    pub unconfirmed: Option<HashSet<Label>>,
    /// Records that had lapsed, to be kept for a late Renew.
    pub lapsed: Vec<Holding>,
    /// Ids that were released a moment before, oldest first.
    pub released: Vec<(Label, Release)>,
    /// Instances and their Renew periods.
    pub periods: Vec<(Label, Duration)>,
}

impl LeaseTable {
    /// Takes back what a journal kept: fresh leases for the live records, an hour for those that had lapsed. How long ago
    /// ids were released is not known, so it counts as now.
    pub fn restore(&mut self, now: Instant, kept: KeptLeases) -> Vec<Write> {
        let now = self.start.moment(now);
        let KeptLeases { held, unconfirmed, lapsed, released, periods } = kept;
        for (id, release) in released {
            self.tombstones.bury(now, &id, release);
        }
        for (node, period) in periods {
            self.instances.restore(node, period);
        }
        self.leases.reserve(held.len() + lapsed.len());
        let sign = |id: &Label| match &unconfirmed {
            Some(ids) if !ids.contains(id) => Sign::Inherited,
            _ => Sign::Restored,
        };
        let changes = held.into_iter().filter_map(|holding| {
            let sign = sign(&holding.record.id);
            self.restore_live(now, holding, sign)
        });
        let changes = changes.collect();
        for holding in lapsed {
            self.keep_lapsed(now, holding);
        }
        self.instances.restored();
        changes
    }

    /// Live records of which there was no sign since a journal kept them.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Label> {
        let restored = |lease: &Lease| lease.slot.is_some() && lease.sign == Sign::Restored;
        self.leases.iter().filter(move |lease| restored(lease)).map(|lease| &lease.holding.record.id)
    }

    /// A gost may need longer than its period to call an agent that was away.
    fn restore_live(&mut self, now: Moment, holding: Holding, sign: Sign) -> Option<Write> {
        let record = holding.record.clone();
        let ttl = self.instances.period(&record.node).ttl(self.ttl).max(self.ttl);
        if self.is_known(now, &record.id) {
            return None;
        }
        let change = self.insert(now, holding, sign, now + ttl).ok()?;
        self.instances.claim_if_vacant(&record);
        Some(change)
    }

    /// Holds a record that lapsed before this table was made, as if it had just then.
    fn keep_lapsed(&mut self, now: Moment, holding: Holding) {
        let id = holding.record.id.clone();
        if self.is_known(now, &id) {
            return;
        }
        let (deadline, size) = (now + self.keep_lapsed, holding.record.size());
        self.instances.add(&holding.record);
        self.bytes += size;
        self.lapsed_bytes += size;
        self.lapsed.insert((deadline, id.clone()));
        self.deadlines.push(Reverse((deadline, id.clone())));
        let lease = Lease::new(holding, now, Sign::Restored, deadline, None);
        self.leases.insert(lease);
    }

    fn is_known(&self, now: Moment, id: &Label) -> bool {
        self.leases.get(id).is_some() || self.tombstones.get(now, id).is_some()
    }
}
