//! Connectors that two agents hold: a gost called a peer, its second address, while its own agent was away. One of the
//! two records is the older one, and must not outlive the gost.
//!
//! A guest's record gives way as soon as its own agent, or another that serves it now, holds the connector, unless the guest
//! still calls here. The own agent's record, which came back from a journal and which no Renew has confirmed yet, is
//! looked at when the peer that served the gost takes its record back: the gost may be dead.

use std::time::Instant;

use super::State;
use crate::event::Event;
use crate::record::{Owner, Record};
use crate::slot::Write;
use crate::tunnels::OwnedRecord;

impl State {
    /// What a peer's news means for connectors that are held here as well.
    pub(super) fn compare_with(&mut self, now: Instant, news: &[Event]) -> Vec<Write> {
        let mut changes = Vec::new();
        for event in news {
            match event {
                Event::Up(owner, theirs) if self.is_left_guests(theirs) && self.is_heard(now, owner) => {
                    changes.extend(self.leases.lapse_one(now, &theirs.id));
                }
                Event::Down(_, theirs) if self.is_unheard(theirs) => {
                    self.connections.orphan((*theirs.node.text()).into());
                }
                _ => {}
            }
        }
        changes
    }

    /// Takes back the records of guests that do not call here any more, and that a peer has by now.
    pub(super) fn let_guests_go(&mut self, now: Instant) -> Vec<Write> {
        let mut gone = Vec::new();
        for node in self.connections.orphaned_guests() {
            for ours in self.leases.live_of(&node.as_ref().into()) {
                let entries = self.directory.lookup(&ours.name.text());
                let elsewhere = |entry: &OwnedRecord| {
                    let other = entry.owner.name != self.owner.name && is_same(&entry.record, ours);
                    other && self.is_heard(now, &entry.owner)
                };
                if entries.iter().any(elsewhere) {
                    gone.push(ours.id.clone());
                }
            }
        }
        gone.iter().filter_map(|id| self.leases.lapse_one(now, id)).collect()
    }

    fn is_heard(&self, now: Instant, owner: &Owner) -> bool {
        self.liveness.standing(now, &owner.name).is_alive()
    }

    /// Whether a guest's record is held here, and the guest does not call any more.
    fn is_left_guests(&self, theirs: &Record) -> bool {
        self.is_unheard(theirs) && self.connections.is_guest(&theirs.node.text())
    }

    /// Whether a record is held here of a gost that does not call.
    fn is_unheard(&self, theirs: &Record) -> bool {
        let ours = self.leases.live_record(&theirs.id);
        ours.is_some_and(|ours| is_same(ours, theirs)) && !self.connections.has(&theirs.node.text())
    }
}

/// The same connector of the same instance. Each agent may have another address for it.
fn is_same(one: &Record, other: &Record) -> bool {
    one.id == other.id && one.node == other.node && one.name == other.name && one.network == other.network
}

#[cfg(test)]
mod tests;
