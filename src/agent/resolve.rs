//! What gost is answered when it asks where a tunnel is.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use tokio::time::Instant;

use super::{Agent, State};
use gossd_core::directory::Entry;
use gossd_core::liveness::Standing;
use gossd_core::rank::{Judged, rank};
use gossd_core::record::Record;
use gossd_core::slot::Status;

impl Agent {
    /// The records of a tunnel name, in the order in which gost should try them.
    pub fn resolve(&self, name: &str) -> Vec<Arc<Record>> {
        let now = Instant::now().into_std();
        let mut state = self.lock();
        let is_due = state.want(now, name);
        let judge = |entry: &Entry| self.judge(&state, now, entry);
        let ranked = rank(state.directory.lookup(name), state.order, rand::random(), judge);
        let listed = ranked.map(|entry| entry.record.clone()).collect();
        drop(state);
        if is_due {
            self.shared.changed.notify_one();
        }
        listed
    }

    /// How a record is ranked.
    pub(super) fn judge(&self, state: &State, now: StdInstant, entry: &Entry) -> Judged {
        let owner = &*entry.owner;
        if owner == self.owner() {
            return Judged { standing: Standing::Live, trip: Some(Duration::ZERO) };
        }
        let standing = match state.directory.status(&owner.name) {
            Some(Status::Ready) => state.standing_of(now, entry),
            Some(Status::Draining | Status::Left) | None => Standing::Hidden,
        };
        Judged { standing, trip: state.liveness.trip(&owner.name) }
    }
}
