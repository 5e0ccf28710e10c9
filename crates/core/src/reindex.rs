//! Brings the indexes in step when an agent is shown by another generation, or not any more. That may be a hundred thousand
//! records, and whoever waits for the lock meanwhile is a visitor; so it is done a bite at a time, and what is read in between
//! is right: a generation's records are indexed apart while they arrive ([`Tunnels::stage`]), so that they are shown at once, and
//! those of the generation before are passed over from then on. What is left is to move the ones and to remove the others.
//!
//! Claims have no index apart: the claims of the new generation are taken first, and until those of the former one are let go, a
//! host name leads where it did.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use super::hostname::{Claim, Claims};
use super::record::Owner;
use super::replica::Replica;
use super::replicas::{Replicas, Shift};
use super::slot::{Cell, Slot};
use super::tunnels::Tunnels;

/// Slots that are looked at in one bite: a tenth of a millisecond, and ten times that where no cache has any of them.
pub const BITE: usize = 50;

/// What is left to do, in this order.
#[derive(Debug, Default)]
pub(crate) struct Backlog(VecDeque<Step>);

#[derive(Debug)]
enum Step {
    /// What is indexed apart of an owner joins the others.
    Settle { owner: Arc<Owner>, former: Option<Arc<Owner>>, from: Slot },
    /// What a superseded generation had is removed. It stays among the replicas: its owner may want it back.
    Retire { owner: Arc<Owner>, by: Option<Arc<Owner>>, from: Slot },
    /// The same of one that is no replica any more; its memory is given back on the way.
    Free { replica: Replica, was: Was },
}

/// What a generation was before it was no replica any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    Shown,
    /// It was shown, and what it had is not removed everywhere.
    Superseded,
    /// It never was, or nothing is left of it.
    Hidden,
}

/// What a bite did.
#[derive(Debug, Default)]
pub(crate) struct Bite {
    /// What is shown or hidden.
    pub(crate) events: Vec<Event>,
    /// Claims that are known from now on.
    pub(crate) claims: Vec<Arc<Claim>>,
}

/// What is brought in step.
pub(crate) struct Indexes<'a> {
    pub(crate) now: Instant,
    pub(crate) replicas: &'a Replicas,
    pub(crate) tunnels: &'a mut Tunnels,
    /// None where claims are of no interest.
    pub(crate) claims: Option<&'a mut Claims>,
}

impl Backlog {
    /// Whether nothing is left to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An agent is shown by another generation: at once, and the rest is left to do.
    pub(crate) fn follow(&mut self, shift: &Shift<'_>, tunnels: &mut Tunnels) {
        let Shift::Generation { shown, hidden } = shift else { return };
        let [shown, hidden] = [shown, hidden].map(|replica| replica.map(|replica| replica.owner.clone()));
        if let Some(hidden) = &hidden {
            tunnels.retire(hidden);
        }
        if let Some(owner) = &shown {
            tunnels.show(owner, hidden.is_none());
            let (owner, former) = (owner.clone(), hidden.clone());
            self.0.push_back(Step::Settle { owner, former, from: 0 });
        }
        if let Some(owner) = hidden {
            self.0.push_back(Step::Retire { owner, by: shown, from: 0 });
        }
    }

    /// A generation is no replica any more.
    pub(crate) fn free(&mut self, replica: Replica, was_shown: bool, tunnels: &mut Tunnels) {
        let was = match (was_shown, tunnels.is_retired(&replica.owner)) {
            (true, _) => Was::Shown,
            (false, true) => Was::Superseded,
            (false, false) => Was::Hidden,
        };
        tunnels.retire(&replica.owner);
        self.0.push_back(Step::Free { replica, was });
    }

    /// Does a part of it, of so many slots.
    pub(crate) fn work(&mut self, slots: usize, indexes: &mut Indexes<'_>, bite: &mut Bite) {
        let mut left = slots;
        while left > 0
            && let Some(step) = self.0.pop_front()
        {
            let owner = step.owner().clone();
            let rest = match step {
                Step::Settle { owner, former, from } => indexes.settle(&mut left, owner, former, from, bite),
                Step::Retire { owner, by, from } => indexes.retire(&mut left, owner, by, from, bite),
                Step::Free { replica, was } => indexes.free(&mut left, replica, was, bite),
            };
            if let Some(rest) = rest {
                self.0.push_front(rest);
            } else if !self.0.iter().any(|step| Arc::ptr_eq(step.owner(), &owner) && step.removes()) {
                indexes.tunnels.retired(&owner);
            }
        }
    }
}

impl Step {
    fn owner(&self) -> &Arc<Owner> {
        match self {
            Self::Settle { owner, .. } | Self::Retire { owner, .. } => owner,
            Self::Free { replica, .. } => &replica.owner,
        }
    }

    fn removes(&self) -> bool {
        matches!(self, Self::Retire { .. } | Self::Free { .. })
    }
}

impl<'a> Indexes<'a> {
    fn settle(
        &mut self,
        left: &mut usize,
        owner: Arc<Owner>,
        former: Option<Arc<Owner>>,
        from: Slot,
        bite: &mut Bite,
    ) -> Option<Step> {
        let replica = self.copy_of(&owner)?;
        for (slot, cell) in replica.cells().iter_from(from) {
            if *left == 0 {
                return Some(Step::Settle { owner, former, from: slot });
            }
            *left -= 1;
            if let Some(record) = cell.content.record()
                && self.tunnels.settle(&owner, slot, record)
                && !former.as_ref().is_some_and(|former| self.tunnels.has(former, record))
            {
                bite.events.push(Event::Up(owner.clone(), record.clone()));
            }
            if let (Some(claim), Some(claims)) = (cell.content.claim(), &mut self.claims) {
                claims.take(&owner, slot, claim);
                bite.claims.push(claim.clone());
            }
        }
        self.tunnels.settled(&owner);
        None
    }

    /// The very copy that a step is about: after it was forgotten, there may be another one of the same generation.
    fn copy_of(&self, owner: &Arc<Owner>) -> Option<&'a Replica> {
        self.replicas.replica(owner).filter(|replica| Arc::ptr_eq(&replica.owner, owner))
    }

    fn retire(
        &mut self,
        left: &mut usize,
        owner: Arc<Owner>,
        by: Option<Arc<Owner>>,
        from: Slot,
        bite: &mut Bite,
    ) -> Option<Step> {
        let replica = self.copy_of(&owner)?;
        for (slot, cell) in replica.cells().iter_from(from) {
            if *left == 0 {
                return Some(Step::Retire { owner, by, from: slot });
            }
            *left -= 1;
            self.remove((&owner, slot, cell), by.as_deref(), true, bite);
        }
        None
    }

    fn free(&mut self, left: &mut usize, mut replica: Replica, was: Was, bite: &mut Bite) -> Option<Step> {
        let owner = replica.owner.clone();
        while let Some(cells) = replica.pop_cells() {
            for (slot, cell) in &cells {
                *left = left.saturating_sub(1);
                if let (Some(claim), Some(claims)) = (cell.content.claim(), &mut self.claims)
                    && was != Was::Hidden
                {
                    // It may not have been settled yet, and is remembered all the same.
                    claims.take(&owner, *slot, claim);
                }
                self.remove((&owner, *slot, cell), None, was == Was::Shown, bite);
            }
            if *left == 0 {
                return Some(Step::Free { replica, was });
            }
        }
        None
    }

    fn remove(
        &mut self,
        (owner, slot, cell): (&Arc<Owner>, Slot, &Cell),
        by: Option<&Owner>,
        was_shown: bool,
        bite: &mut Bite,
    ) {
        if let Some(record) = cell.content.record() {
            let stays = by.is_some_and(|by| self.tunnels.has(by, record));
            if self.tunnels.remove_entry(owner, slot, &record.name) && was_shown && !stays {
                bite.events.push(Event::Down(owner.clone(), record.clone()));
            }
        }
        if let (Some(claim), Some(claims)) = (cell.content.claim(), &mut self.claims) {
            claims.lose(self.now, owner, slot, claim);
        }
    }
}

#[cfg(test)]
mod tests;
