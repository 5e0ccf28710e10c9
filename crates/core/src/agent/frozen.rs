//! Gosts of this host that are frozen: their ports take connections, because the kernel does, and nobody answers. A visitor who is
//! sent there waits 15 s. So a gost that falls silent when it should not is asked, by a request for a host name that is nobody's:
//! one that lives answers in a millisecond, and writes four lines to its log. It should not be silent when visitors were
//! just using it, and when a Renew is overdue. One that is idle and well is not asked again and again: once after the last visitors.
//!
//! A frozen gost's records stay, and come behind all that surely works, at every host, until it speaks. So do those of a gost that
//! has not called since this agent started: it may not know yet that its agent is back, and can send no visitor on before it does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use crate::address::Address;
use crate::label::Label;

/// The host name for which a gost is asked. No tunnel can have it, because its top-level domain is reserved.
pub const NOBODYS: &str = "gossd.invalid";
/// A gost that visitors were using is asked when it has been silent for this long.
const QUIET: Duration = Duration::from_secs(5);
/// Visitors are using a gost if two of their questions are no further apart.
const USED: Duration = Duration::from_secs(10);
/// Between two times that a frozen gost is asked.
const AGAIN: Duration = Duration::from_secs(2);
/// Between two looks for Renews that are late, however many gosts there are.
const LOOK: Duration = Duration::from_secs(1);
/// Gosts that are asked at a time, and that are known to be frozen. A host has one, or a few.
pub(super) const MAX_FROZEN: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// The last two questions of visitors' gosts, the newest first.
    visits: [Option<Instant>; 2],
    /// When the gosts here are asked, if none of them calls until then.
    quiet: Option<Instant>,
    /// When a Renew is late, if it does not come until then; and when that was looked at last.
    late: Option<Instant>,
    looked: Option<Instant>,
    /// Those that were asked, and have not answered or called since.
    asked: BTreeMap<Label, Instant>,
    /// Those that did not answer, and when each is asked again.
    frozen: BTreeMap<Label, Instant>,
    /// Those that were there before this agent, and have not called it yet.
    uncalled: BTreeSet<Label>,
}

impl Silence {
    /// A gost of this host asks for a visitor.
    fn visit(&mut self, now: Instant) {
        self.visits = [Some(now), self.visits[0]];
        let is_used = self.visits[1].is_some_and(|before| now.saturating_duration_since(before) <= USED);
        self.quiet = is_used.then(|| now + QUIET);
    }

    /// A gost of this host calls.
    fn speak(&mut self, now: Instant) {
        if self.quiet.is_some() {
            self.quiet = Some(now + QUIET);
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.quiet, self.late].into_iter().flatten().chain(self.frozen.values().copied()).min()
    }

    pub(super) fn len(&self) -> usize {
        self.frozen.len().max(self.asked.len())
    }
}

impl State {
    /// A gost of this host asks something, for a visitor or because it was asked for [`NOBODYS`].
    pub(super) fn note_question(&mut self, now: Instant, is_visit: bool) {
        if is_visit {
            self.silence.visit(now);
        } else {
            self.silence.speak(now);
        }
        // Which gost asks is not known if there are several; if there is one, it lives.
        if self.leases.is_the_only_gost() {
            let Silence { frozen, asked, uncalled, .. } = &self.silence;
            let known: Vec<Label> = frozen.keys().chain(asked.keys()).chain(uncalled).cloned().collect();
            for node in known {
                self.note_life(now, &node);
            }
        }
    }

    /// A gost of this host calls, or answers.
    pub(super) fn note_life(&mut self, now: Instant, node: &Label) {
        self.silence.speak(now);
        self.silence.asked.remove(node);
        self.note_call(now, node);
        if self.silence.frozen.remove(node).is_some() {
            self.effects.lines.push(Line::Thawed { node: node.clone() });
            self.state_faults(now);
        }
    }

    /// A gost calls, of this host or a guest.
    pub(super) fn note_call(&mut self, now: Instant, node: &Label) {
        if self.silence.uncalled.remove(node) {
            self.state_faults(now);
        }
    }

    /// The agent starts with records of gosts that called the one before it. Guests have an agent of their own.
    pub(super) fn await_calls(&mut self, now: Instant) {
        let homes: BTreeSet<&Label> =
            self.entrypoints.newest_first(None, false).map(|registered| &registered.key.node).collect();
        let nodes = self.leases.live_nodes().filter(|node| homes.contains(node));
        self.silence.uncalled = nodes.take(MAX_FROZEN).cloned().collect();
        self.state_faults(now);
    }

    /// A gost did not answer.
    pub(super) fn note_mute(&mut self, now: Instant, node: &Label) {
        // It has called since.
        if self.silence.asked.remove(node).is_none() && !self.silence.frozen.contains_key(node) {
            return;
        }
        if self.silence.frozen.len() >= MAX_FROZEN && !self.silence.frozen.contains_key(node) {
            return;
        }
        let addresses = self.leases.dials(node);
        if self.silence.frozen.insert(node.clone(), now + AGAIN).is_none() {
            self.effects.lines.push(Line::Frozen { node: node.clone(), addresses });
            self.state_faults(now);
        }
    }

    /// The gosts that are to be asked now.
    pub(super) fn silent_gosts(&mut self, now: Instant) -> BTreeSet<Label> {
        if self.broken.leases || self.silence.next_due().is_none_or(|due| now < due) {
            return BTreeSet::new();
        }
        let mut ask = BTreeSet::new();
        if self.silence.quiet.take_if(|due| *due <= now).is_some() {
            ask.extend(self.leases.live_nodes().take(MAX_FROZEN).cloned());
        }
        if self.silence.late.is_some_and(|due| due <= now) {
            let looked = self.silence.looked.replace(now);
            let (late, next) = self.leases.late_nodes(looked, now, MAX_FROZEN);
            self.silence.late = next.map(|next| next.max(now + LOOK));
            ask.extend(late);
        }
        let leases = &self.leases;
        self.silence.frozen.retain(|node, _| leases.live_of(node).next().is_some());
        for (node, due) in &mut self.silence.frozen {
            if *due <= now {
                *due = now + AGAIN;
                ask.insert(node.clone());
            }
        }
        ask.retain(|node| !self.connections.is_guest(&node.text()));
        self.silence.asked.retain(|_, at| now.saturating_duration_since(*at) < USED);
        for node in &ask {
            self.silence.asked.insert(node.clone(), now);
        }
        ask
    }

    /// A gost renewed: its next Renew is expected in time.
    pub(super) fn expect_renew(&mut self, node: &Label) {
        // Of several, the first one is due: then all are looked at.
        if self.silence.late.is_none() {
            self.silence.late = self.leases.late(node);
        }
    }

    /// Where frozen gosts take visitors, as peers know it.
    pub(super) fn frozen_entrypoints(&self) -> BTreeSet<Address> {
        self.entrypoints_of(self.silence.frozen.keys())
    }

    /// The same of gosts that have not called yet.
    pub(super) fn uncalled_entrypoints(&self) -> BTreeSet<Address> {
        self.entrypoints_of(self.silence.uncalled.iter())
    }

    fn entrypoints_of<'a>(&'a self, nodes: impl Iterator<Item = &'a Label>) -> BTreeSet<Address> {
        // Many connectors of one gost must not hide another gost.
        let records = nodes.flat_map(|node| self.leases.live_of(node).take(MAX_FROZEN));
        records.filter(|record| !record.is_routers()).map(|record| record.address.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
