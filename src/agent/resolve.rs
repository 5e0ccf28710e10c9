//! What gost is answered when it asks where a tunnel is.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use super::{Agent, State};
use gossd_core::directory::Entry;
use gossd_core::liveness::Standing;
use gossd_core::rank::{Judged, rank};
use gossd_core::record::Record;
use gossd_core::slot::Status;

impl Agent {
    /// The records of a tunnel name, in the order in which gost should try them.
    pub fn resolve(&self, name: &str) -> Vec<Arc<Record>> {
        let turn = rand::random();
        self.with(|state, now| state.resolve(now, name, turn))
    }
}

impl State {
    /// Equals take turns: by a number that is another one for each answer.
    fn resolve(&mut self, now: StdInstant, name: &str, turn: u64) -> Vec<Arc<Record>> {
        self.effects.is_due |= self.want(now, name);
        let ranked = rank(self.directory.lookup(name), self.order, turn, |entry| self.judge(now, entry));
        ranked.map(|entry| entry.record.clone()).collect()
    }

    /// How a record is ranked.
    pub(super) fn judge(&self, now: StdInstant, entry: &Entry) -> Judged {
        let owner = &*entry.owner;
        if *owner == self.owner {
            return Judged { standing: Standing::Live, trip: Some(Duration::ZERO) };
        }
        let standing = match self.directory.status(&owner.name) {
            Some(Status::Ready) => self.standing_of(now, entry),
            Some(Status::Draining | Status::Left) | None => Standing::Hidden,
        };
        Judged { standing, trip: self.liveness.trip(&owner.name) }
    }
}
