//! This host has another address than before: the records of its gosts get it, and so do the peers.

use std::sync::Arc;
use std::time::Instant;

use super::State;
use crate::entrypoints::Place;
use crate::label::Label;
use crate::lease::Holding;
use crate::record::Record;

/// Records that are looked at in one go, to keep the lock short.
pub const BITE: usize = 100;

impl State {
    /// The ids of the records registered here, for [`Self::readdress`] in bites of [`BITE`].
    pub fn own_ids(&self) -> Vec<Label> {
        self.leases.ids()
    }

    /// Gives these records, and where gosts registered, the places that `moved` finds for theirs. How many records moved.
    pub fn readdress(
        &mut self,
        now: Instant,
        ids: &[Label],
        moved: &dyn Fn(&Place) -> Option<Place>,
    ) -> usize {
        let changes = self.leases.readdress(ids, |holding| {
            let Holding { record, dial } = holding;
            let place = Place { address: record.address.clone(), dial: dial.clone() };
            let Place { address, dial } = moved(&place)?;
            let record = if address == record.address {
                record.clone()
            } else {
                Arc::new(Record { address, ..Record::clone(record) })
            };
            Some(Holding { record, dial })
        });
        self.entrypoints.readdress(moved);
        let records = changes.len();
        self.tell_all(now, changes);
        records
    }
}
