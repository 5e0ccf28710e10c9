//! What an agent does by itself: lapses what is overdue, brings changes to the cluster, and has gosts dialled that may be dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::effects::Line;
use super::gosts::Dial;
use super::holes::Seek;
use super::keeping::Health;
use super::reach::Try;
use super::{LEASE_TTL, State};
use crate::event::Event;
use crate::label::Label;
use crate::lease::Expired;
use crate::replica::EMPTY_KEPT;
use crate::slot::{Cell, Change, Slot};

/// How often agents that the board forgot, and we did not, are looked at.
const POSTPONED: Duration = Duration::from_secs(10);
/// How often it is looked whether the records of a silent peer are hidden now.
const DYING: Duration = Duration::from_secs(1);
/// How often slots that have long been empty are given back.
pub(super) const TIDYING: Duration = Duration::from_secs(60);

/// Changes as the state holds them: calls wait for the state, so that whoever publishes many writes them out without it. They are
/// published together, because a push says up to which version it tells everything.
#[derive(Debug)]
pub struct Outbox(BTreeMap<Slot, Cell>);

impl Outbox {
    /// Writes them out.
    pub fn into_changes(self) -> Vec<Change> {
        self.0.into_iter().map(|(slot, cell)| Change { slot, cell }).collect()
    }
}

/// What one look at the state found to do.
#[derive(Debug)]
pub struct Due {
    /// For the cluster.
    pub changes: Outbox,
    /// Gosts to be dialled.
    pub dials: Vec<Dial>,
    /// Entrypoints that visitors want, to be dialled.
    pub tries: Vec<Try>,
    /// Peers to be asked for a detour.
    pub seeks: Vec<Seek>,
    /// When to look again if there is no call before.
    pub next: Instant,
}

/// What came of leases that ended together, while a bite after the other is looked at.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// How many lapsed.
    records: usize,
    /// Instances that have to answer a dial.
    trials: BTreeSet<Label>,
}

impl State {
    /// What is due, as of now. There is room for so many dials of gosts; those that are being dialled are not dialled again.
    pub fn due(&mut self, now: Instant, room: usize, is_dialled: impl Fn(&Label) -> bool) -> Due {
        self.carry_out(now);
        let trials = self.expire(now);
        self.check_claims(now);
        self.reconcile_due(now);
        self.directory.claims.open_due(now);
        let changes = self.let_guests_go(now);
        self.tell_all(now, changes);
        let silent = self.silent_gosts(now);
        let dials = self.dials(trials.into_iter().chain(silent).collect(), room, is_dialled);
        let seeks = self.take_seeks(now);
        let tries = self.reaches.take_due(now);
        self.state_faults(now);
        self.tell_deaths(now);
        self.log_own_unreached(now);
        if self.directory.has_work() {
            self.reindex(now);
        }
        let works_on_former = self.former.work(now);
        let changes = Outbox(std::mem::take(&mut self.outbox));
        if matches!(self.journal, Health::Absent(_)) {
            self.keep_nothing();
        }
        if self.next_tidying <= now {
            self.next_tidying = now + TIDYING / self.hurry;
            self.tidy(now, EMPTY_KEPT / self.hurry);
        }
        let mut next = now + LEASE_TTL;
        if self.liveness.has_dying() {
            next = now + DYING;
        }
        if self.directory.replicas.postponed().next().is_some() {
            self.forget_postponed(now);
            next = next.min(now + POSTPONED);
        }
        let next = self.next_due().map_or(next, |due| due.min(next));
        let has_work = self.directory.has_work() || works_on_former;
        let next = if has_work { next.min(now) } else { next };
        self.armed = Some(next);
        // It has looked.
        self.effects.is_due = false;
        Due { changes, dials, tries, seeks, next }
    }

    /// Lapses what is overdue, or a bite of it. The instances that have to answer a dial.
    fn expire(&mut self, now: Instant) -> BTreeSet<Label> {
        if self.broken.leases {
            return BTreeSet::new();
        }
        let Expired { changes, trials } = self.leases.expire(now);
        self.overdue.records += changes.len();
        self.overdue.trials.extend(trials);
        self.counts.lapsed += changes.len() as u64;
        self.tell_all(now, changes);
        if self.leases.has_overdue(now) {
            return BTreeSet::new();
        }
        // Said once, and dialled once.
        let Overdue { records, trials } = std::mem::take(&mut self.overdue);
        if records > 0 {
            self.effects.lines.push(Line::Lapsed { records });
        }
        trials
    }

    /// Says which peers have been silent for so long that their records are hidden.
    fn tell_deaths(&mut self, now: Instant) {
        for agent in self.liveness.take_dead(now) {
            let records = self.directory.replicas.records_of(&agent);
            self.log.extend(now, [Event::Died(agent.clone())]);
            self.effects.lines.push(Line::Died { agent, records });
        }
    }

    /// Gives back what is not needed any more.
    fn tidy(&mut self, now: Instant, empty_kept: Duration) {
        self.directory.tidy(now, empty_kept);
        self.former.tidy(now, empty_kept);
        let liveness = &self.liveness;
        self.heard.retain(|name, _| liveness.knows(name));
        self.leases.give_back();
        let Self { connections, leases, .. } = self;
        connections.forget_guests(|node| leases.live_of(&node.into()).next().is_some());
        connections.give_back();
    }

    fn forget_postponed(&mut self, now: Instant) {
        let postponed = self.directory.replicas.postponed();
        let gone: Vec<_> = postponed.filter(|owner| self.is_gone(now, &owner.name)).cloned().collect();
        for agent in gone {
            self.forget(now, &agent);
            self.log.extend(now, [Event::Forgotten(agent.name.clone())]);
            self.effects.lines.push(Line::Forgotten { agent: (*agent).clone() });
        }
    }
}
