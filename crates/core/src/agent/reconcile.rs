//! What peers remember of our former start, against what the journal had. The journal may be the older of the two: it was put
//! back from a copy, or the process was killed before its last commit. Then what the former start stated last counts more. Records
//! of the journal that it did not have any more were released, or had lapsed: they lapse here as well, so that a gost that does
//! have them revives them with its next Renew.
//!
//! Until peers had their chance to tell, they are not told that this start is ready. So they list what the former start
//! had, and never what it had released; nor does this one, where a read does not wait until then.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use crate::label::Label;
use crate::record::{AgentName, Generation, Owner};
use crate::slot::{STATUS_SLOT, Slot, Status, Version, Write};

/// After a peer is met, it tells what it remembers of our former start within a round trip; and as long at least.
const TELLING: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reconciliation {
    /// The start, and its version, to which the journal had everything, or peers told what they remember.
    kept: Option<(Generation, Version)>,
    /// The newest former start of which peers told that they remember it.
    former: Option<Generation>,
    /// While our status is withheld.
    withheld: Option<Withheld>,
}

#[derive(Debug)]
struct Withheld {
    until: Instant,
    /// When to look next whether it need not be any more.
    look: Instant,
    /// Peers that the former start knew.
    known: Vec<AgentName>,
}

impl Reconciliation {
    /// Of a start with a journal that had everything to that version of that start.
    pub(super) fn of(kept: Option<(Generation, Version)>) -> Self {
        Self { kept, former: None, withheld: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.withheld.is_some()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.withheld.as_ref().map(|withheld| withheld.look)
    }

    fn is_newer(&self, former: (Generation, Version)) -> bool {
        self.kept.is_some_and(|kept| former > kept)
    }
}

/// Records that are still to be compared with what peers remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreconciled {
    /// The start, and its version, to which everything was known when they were kept.
    pub told: (Generation, Version),
    /// Theirs; at least one.
    pub ids: Vec<Label>,
}

impl State {
    /// What an agent that takes over has to go on comparing; none if there is nothing.
    pub fn unreconciled(&self) -> Option<Unreconciled> {
        let told = self.reconciliation.kept?;
        let ids: Vec<_> = self.leases.unconfirmed().cloned().collect();
        (!ids.is_empty()).then_some(Unreconciled { told, ids })
    }

    /// Withholds from peers that this start is ready, until that time at the latest: until these peers are met, or any if there
    /// are none, and have told what they remember of the former start. Call it before anything is published. Without records
    /// from a journal, there is nothing to wait for.
    pub fn withhold_status(&mut self, until: Instant, known: Vec<AgentName>) {
        if self.reconciliation.kept.is_some() && self.leases.live() > 0 {
            self.outbox.remove(&STATUS_SLOT);
            self.reconciliation.withheld = Some(Withheld { until, look: until, known });
        }
    }

    /// Whether a slot is one that peers must not know of yet.
    pub(super) fn is_withheld(&self, slot: Slot) -> bool {
        slot == STATUS_SLOT && self.reconciliation.is_open()
    }

    /// Peers told something of a former start of ours.
    pub(super) fn reconcile(&mut self, now: Instant, former: &Owner) {
        let newest = self.reconciliation.former.max(Some(former.generation));
        self.reconciliation.former = newest;
        // Shown is what was told without gaps.
        if self.former.replicas.generation(&former.name) != Some(former.generation) {
            return;
        }
        let version = self.former.replicas.version(former).unwrap_or_default();
        let told = (former.generation, version);
        if self.reconciliation.is_newer(told) {
            self.reconciliation.kept = Some(told);
            self.lapse_what_is_not_remembered(now, former);
        }
        if newest == Some(former.generation) {
            self.publish_status(now);
        }
    }

    /// A peer was met for the first time: it may remember our former start.
    pub(super) fn await_memories(&mut self, now: Instant, of: &AgentName) {
        let telling = self.telling(of);
        if let Some(withheld) = &mut self.reconciliation.withheld {
            withheld.look = (now + telling).min(withheld.until);
        }
    }

    /// How long a peer may take to tell what it has.
    pub(super) fn telling(&self, name: &AgentName) -> Duration {
        self.liveness.trip(name).map_or(TELLING, |trip| TELLING.max(2 * trip))
    }

    /// Publishes the status if no peer has to be waited for any more.
    pub(super) fn reconcile_due(&mut self, now: Instant) {
        let Some(Withheld { until, look, known }) = &self.reconciliation.withheld else { return };
        if now < *look {
            return;
        }
        let is_live = |name: &AgentName| self.liveness.standing(now, name).is_alive();
        let has_met = !known.is_empty() || self.liveness.peers().any(|(_, is_alive)| is_alive);
        let is_told = self.reconciliation.former.is_none() && has_met && known.iter().all(is_live);
        if is_told || now >= *until {
            self.publish_status(now);
        } else if let Some(withheld) = &mut self.reconciliation.withheld {
            withheld.look = withheld.until;
        }
    }

    fn publish_status(&mut self, now: Instant) {
        if self.reconciliation.withheld.take().is_some() {
            // Anew, under a version of its own: later changes may have been published meanwhile.
            self.tell(now, Write::status(if self.drain.on { Status::Draining } else { Status::Ready }));
        }
    }

    /// A status that is stated now is the one that peers get.
    pub(super) fn end_withholding(&mut self) {
        self.reconciliation.withheld = None;
    }

    fn lapse_what_is_not_remembered(&mut self, now: Instant, former: &Owner) {
        let remembered: HashSet<_> = self.former.replicas.record_ids(former).collect();
        let stale: Vec<_> =
            self.leases.unconfirmed().filter(|id| !remembered.contains(id)).cloned().collect();
        drop(remembered);
        let changes: Vec<Write> = stale.iter().filter_map(|id| self.leases.lapse_one(now, id)).collect();
        if changes.is_empty() {
            return;
        }
        self.counts.lapsed += changes.len() as u64;
        self.effects.lines.push(Line::NotRemembered { records: changes.len() });
        self.tell_all(now, changes);
    }
}

#[cfg(test)]
mod tests;
