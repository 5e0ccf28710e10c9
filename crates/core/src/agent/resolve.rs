//! What gost is answered when it asks where a tunnel is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use crate::liveness::Standing;
use crate::rank::{Judged, rank};
use crate::record::Record;
use crate::slot::Status;
use crate::tunnels::OwnedRecord;

impl State {
    /// The records of a tunnel name, in the order in which gost should try them. Equals take turns: by a number that is
    /// another one for each answer.
    pub fn resolve(&mut self, now: Instant, name: &str, turn: u64) -> Vec<Arc<Record>> {
        self.want(now, name);
        let ranked = rank(self.directory.lookup(name), self.order, turn, |entry| self.judge(now, entry));
        ranked.map(|entry| entry.record.clone()).collect()
    }

    /// How a record is ranked.
    pub(super) fn judge(&self, now: Instant, entry: &OwnedRecord) -> Judged {
        let owner = &*entry.owner;
        if *owner == self.owner {
            return Judged { standing: Standing::Live, trip: Some(Duration::ZERO) };
        }
        let standing = match self.directory.replicas.status(&owner.name) {
            Some(Status::Ready) => self.standing_of(now, entry),
            Some(Status::Draining | Status::Left) | None => Standing::Hidden,
        };
        Judged { standing, trip: self.liveness.trip(&owner.name) }
    }
}
