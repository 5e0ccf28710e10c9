//! What our former starts stated, as peers remember it. Their records heal Renews of ids that this start does not know;
//! nobody is answered from them.

use std::time::{Duration, Instant};

use crate::record::Owner;
use crate::reindex::{BITE, Backlog, Bite, Indexes};
use crate::replica::Extent;
use crate::replicas::{Applied, Replicas};
use crate::slot::Change;
use crate::tunnels::Tunnels;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FormerRecords {
    pub(super) replicas: Replicas,
    pub(super) tunnels: Tunnels,
    backlog: Backlog,
}

impl FormerRecords {
    pub(super) fn apply(&mut self, now: Instant, owner: &Owner, change: &Change) -> Applied {
        let (applied, shift) = self.replicas.apply(now, owner, change);
        if let Some(shift) = &shift {
            self.tunnels.follow(shift, &mut Vec::new());
        }
        if let Some(shift) = self.replicas.show_if_complete(owner) {
            self.backlog.follow(&shift, &mut self.tunnels);
        }
        applied
    }

    /// See [`Replicas::reach`].
    pub(super) fn reach(&mut self, owner: &Owner, extent: &Extent) {
        if let Some(shift) = self.replicas.reach(owner, extent) {
            self.backlog.follow(&shift, &mut self.tunnels);
        }
    }

    pub(super) fn forget(&mut self, owner: &Owner) {
        if let Some(hidden) = self.replicas.forget(owner) {
            self.backlog.free(hidden, true, &mut self.tunnels);
        }
    }

    /// Brings the index in step, a bite at a time: whether there is more to do.
    pub(super) fn work(&mut self, now: Instant) -> bool {
        let Self { replicas, tunnels, backlog } = self;
        for replica in replicas.take_dropped() {
            backlog.free(replica, false, tunnels);
        }
        backlog.work(BITE, &mut Indexes { now, replicas, tunnels, claims: None }, &mut Bite::default());
        !self.backlog.is_empty()
    }

    pub(super) fn tidy(&mut self, now: Instant, age: Duration) {
        self.replicas.tidy(now, age);
        self.tunnels.give_back();
    }
}
