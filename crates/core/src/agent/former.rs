//! What our former starts stated, as peers remember it. Their records heal Renews of ids that this start does not know;
//! nobody is answered from them.

use std::time::{Duration, Instant};

use crate::record::Owner;
use crate::replica::Extent;
use crate::replicas::{Applied, Replicas, Shift};
use crate::slot::Change;
use crate::tunnels::Tunnels;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FormerRecords {
    pub(super) replicas: Replicas,
    pub(super) tunnels: Tunnels,
}

impl FormerRecords {
    pub(super) fn apply(&mut self, now: Instant, owner: &Owner, change: &Change) -> Applied {
        let (applied, shift) = self.replicas.apply(now, owner, change);
        if let Some(shift) = &shift {
            self.tunnels.follow(shift, &mut Vec::new());
        }
        applied
    }

    /// See [`Replicas::reach`].
    pub(super) fn reach(&mut self, owner: &Owner, extent: &Extent) {
        if let Some(shift) = self.replicas.reach(owner, extent) {
            self.tunnels.follow(&shift, &mut Vec::new());
        }
    }

    pub(super) fn forget(&mut self, owner: &Owner) {
        if let Some(hidden) = self.replicas.forget(owner) {
            let shift = Shift::Generation { shown: None, hidden: Some(&hidden) };
            self.tunnels.follow(&shift, &mut Vec::new());
        }
    }

    pub(super) fn tidy(&mut self, now: Instant, age: Duration) {
        self.replicas.tidy(now, age);
        self.tunnels.give_back();
    }
}
