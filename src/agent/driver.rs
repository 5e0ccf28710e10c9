//! The agent's own loop: lapses what is overdue, brings changes to the cluster, and has gosts dialled that may be dead.

use std::time::{Duration, Instant as StdInstant};

use tokio::time::sleep_until;

use super::effects::Line;
use super::gosts::{Dial, Dials};
use super::survivors::SurvivorDials;
use super::{Agent, LEASE_TTL, State, keeper};
use crate::gossip::Cluster;
use gossd_core::address::Address;
use gossd_core::lease::Expired;
use gossd_core::record::Owner;
use gossd_core::replica::EMPTY_KEPT;
use gossd_core::room::Room as _;
use gossd_core::slot::{Change, STATUS_SLOT};

/// How often agents that chitchat forgot, and we did not, are looked at.
const POSTPONED: Duration = Duration::from_secs(10);
/// How often slots that have long been empty are given back.
const TIDYING: Duration = Duration::from_secs(60);

/// What an agent dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialling {
    /// The gosts of its host, and those of silent peers.
    All,
    /// The gosts of its host: where there are no others.
    OwnHost,
}

/// What one look at the state found to do.
struct Work {
    changes: Vec<Change>,
    /// Gosts to be dialled.
    dials: Vec<Dial>,
    /// Entrypoints of silent peers, to be dialled.
    survivors: Vec<Address>,
    /// When to look again if nobody calls.
    next: StdInstant,
}

impl Agent {
    /// Runs for ever.
    pub async fn drive(self, cluster: Cluster, dialling: Dialling) -> anyhow::Result<()> {
        let (mut running, mut survivor_dials) = (Dials::default(), SurvivorDials::default());
        loop {
            let Work { changes, dials, survivors, next } = self.collect(&running);
            for dial in dials {
                running.start(dial);
            }
            for address in survivors.into_iter().filter(|_| dialling == Dialling::All) {
                survivor_dials.start(address);
            }
            if !changes.is_empty() {
                let status = changes.iter().find(|change| change.slot == STATUS_SLOT);
                let status = status.map(|change| change.cell.seq);
                cluster.publish(changes).await;
                if let Some(seq) = status {
                    self.shared.status_told.send_replace(seq);
                }
                continue;
            }
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = sleep_until(next.into()) => {}
                Some((dial, dialled)) = running.next() => {
                    if let Some(again) = self.dialled(dial, dialled) {
                        running.start(again);
                    }
                }
                Some((address, dialled)) = survivor_dials.next() => self.survivor_dialled(&address, dialled),
            }
        }
    }

    fn collect(&self, running: &Dials) -> Work {
        self.with(|state, now| state.collect(now, running))
    }

    #[cfg(test)]
    pub(super) fn collect_changes(&self) -> usize {
        self.collected().len()
    }

    #[cfg(test)]
    pub(super) fn collected(&self) -> Vec<Change> {
        self.collect(&Dials::default()).changes
    }
}

impl State {
    /// What to do as of now.
    fn collect(&mut self, now: StdInstant, running: &Dials) -> Work {
        let Expired { changes, trials } =
            if self.broken.leases { Expired::default() } else { self.leases.expire(now) };
        let records = changes.len();
        self.counts.lapsed += records as u64;
        if records > 0 {
            self.effects.lines.push(Line::Lapsed { records });
        }
        self.tell_all(now, changes);
        let changes = self.look_at_claims(now);
        self.tell_all(now, changes);
        self.note_closed(now);
        let changes = self.let_guests_go(now);
        self.tell_all(now, changes);
        let dials = self.dials(trials, running);
        let survivors = self.survivors.take_due(now);
        let changes = std::mem::take(&mut self.outbox);
        if matches!(self.journal, keeper::Health::Absent(_)) {
            self.keep_nothing();
        }
        if self.next_tidying <= now {
            self.next_tidying = now + TIDYING / self.hurry;
            self.tidy(now, EMPTY_KEPT / self.hurry);
        }
        let mut next = now + LEASE_TTL;
        if !self.postponed.is_empty() {
            self.forget_postponed(now);
            next = now + POSTPONED;
        }
        let next = self.next_due().map_or(next, |due| due.min(next));
        self.armed = Some(next);
        // It has looked.
        self.effects.is_due = false;
        let changes = changes.into_iter().map(|(slot, cell)| Change { slot, cell }).collect();
        Work { changes, dials, survivors, next }
    }

    /// Gives back what is not needed any more.
    fn tidy(&mut self, now: StdInstant, empty_kept: Duration) {
        self.directory.drop_empty(now, empty_kept);
        self.directory.give_back();
        self.former.drop_empty(now, empty_kept);
        self.former.give_back();
        self.leases.give_back();
        self.claims.give_back();
        let Self { connections, leases, .. } = self;
        connections.forget_guests(|node| leases.live_of(&node.into()).next().is_some());
        connections.give_back();
        self.postponed.give_back();
    }

    fn forget_postponed(&mut self, now: StdInstant) {
        let is_gone = |owner: &&Owner| self.is_gone(now, &owner.name);
        let gone: Vec<_> = self.postponed.iter().filter(is_gone).cloned().collect();
        for owner in gone {
            self.postponed.remove(&owner);
            self.forget(now, &owner);
        }
    }
}
