//! The agent's own loop: lapses what is overdue, brings changes to the cluster, and has gosts dialled that may be dead.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::gosts::{Dial, Dials};
use super::survivors::SurvivorDials;
use super::{Agent, LEASE_TTL, keeper};
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
    next: Instant,
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
                () = sleep_until(next) => {}
                Some((dial, dialled)) = running.next() => {
                    if let Some(again) = self.dialled(dial, dialled) {
                        running.start(again);
                    }
                }
                Some((address, dialled)) = survivor_dials.next() => self.survivor_dialled(&address, dialled),
            }
        }
    }

    /// What to do, as of now.
    fn collect(&self, running: &Dials) -> Work {
        let now = Instant::now();
        let mut state = self.lock();
        let broken = self.shared.settings.broken.leases;
        let Expired { changes, trials } =
            if broken { Expired::default() } else { state.leases.expire(now.into_std()) };
        let lapsed = changes.len();
        state.counts.lapsed += lapsed as u64;
        for change in changes {
            state.tell(self.owner(), change);
        }
        for change in state.look_at_claims(now, self.owner()) {
            state.tell(self.owner(), change);
        }
        state.note_closed(now.into_std(), self.owner());
        for change in state.let_guests_go(now.into_std(), self.owner()) {
            state.tell(self.owner(), change);
        }
        let dials = state.dials(trials, running);
        let survivors = state.survivors.take_due(now.into_std());
        let changes = std::mem::take(&mut state.outbox);
        if matches!(state.journal, keeper::Health::Absent(_)) {
            state.keep_nothing();
        }
        if state.next_tidying <= now {
            let hurry = self.shared.settings.hurry.max(1);
            state.next_tidying = now + TIDYING / hurry;
            state.tidy(now.into_std(), EMPTY_KEPT / hurry);
        }
        let mut next = now + LEASE_TTL;
        if !state.postponed.is_empty() {
            state.forget_postponed(now.into_std());
            next = now + POSTPONED;
        }
        let deadlines = [
            state.leases.next_deadline().filter(|_| !broken),
            state.closing.next_deadline(),
            state.survivors.next_due(),
        ];
        let deadlines = deadlines.into_iter().flatten().map(Instant::from_std);
        let next = deadlines.chain(state.next_look).fold(next, Instant::min);
        let touched = state.is_touched();
        drop(state);
        if touched {
            self.note_touched();
        }
        if lapsed > 0 {
            self.revise();
            tracing::info!(records = lapsed, "records lapsed: their gost does not renew them any more");
        }
        let changes = changes.into_iter().map(|(slot, cell)| Change { slot, cell }).collect();
        Work { changes, dials, survivors, next }
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

impl super::State {
    /// Gives back what is not needed any more.
    fn tidy(&mut self, now: std::time::Instant, empty_kept: Duration) {
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

    fn forget_postponed(&mut self, now: std::time::Instant) {
        let is_gone = |owner: &&Owner| self.is_gone(now, &owner.name);
        let gone: Vec<_> = self.postponed.iter().filter(is_gone).cloned().collect();
        for owner in gone {
            self.postponed.remove(&owner);
            self.forget(now, &owner);
        }
    }
}
