//! The agent's own loop: lapses what is overdue, brings changes to the cluster, and looks at instances whose
//! plugin connections are gone.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Agent, LEASE_TTL, keeper};
use crate::domain::address::Address;
use crate::domain::replica::EMPTY_KEPT;
use crate::domain::room::Room as _;
use crate::domain::slot::{Change, STATUS_SLOT};
use crate::gossip::Cluster;

/// An instance that does not refuse within this time is not known to be dead. A refusal takes a round trip
/// within the host; the rest is for hosts that are starved.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Instances looked at in one moment; of more, the others only lose part of their lease.
const MAX_DIALS: usize = 256;
/// How often agents that chitchat forgot, and we did not, are looked at.
const POSTPONED: Duration = Duration::from_secs(10);
/// How often slots that have long been empty are given back.
const TIDYING: Duration = Duration::from_secs(60);

/// What one look at the state found to do.
struct Work {
    changes: Vec<Change>,
    /// Instances without a connection, and where to dial each.
    orphans: Vec<(Arc<str>, BTreeSet<Address>)>,
    /// When to look again if nobody calls.
    next: Instant,
}

impl Agent {
    /// Runs for ever.
    pub async fn drive(self, cluster: Cluster) -> anyhow::Result<()> {
        let mut dials = JoinSet::new();
        loop {
            let Work { changes, orphans, next } = self.collect();
            for (node, addresses) in orphans {
                if addresses.is_empty() || dials.len() >= MAX_DIALS {
                    self.doubt(&node);
                } else {
                    dials.spawn(async move { (is_dead(&addresses).await, node) });
                }
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
                Some(Ok((dead, node))) = dials.join_next() => self.dialled(&node, dead),
            }
        }
    }

    /// What to do, as of now.
    fn collect(&self) -> Work {
        let now = Instant::now();
        let mut state = self.lock();
        let broken = self.shared.settings.broken.leases;
        let overdue = if broken { Vec::new() } else { state.leases.expire(now.into_std()) };
        let lapsed = overdue.len();
        state.counts.lapsed += lapsed as u64;
        for change in overdue {
            state.tell(self.owner(), change);
        }
        for change in state.look_at_claims(now, self.owner()) {
            state.tell(self.owner(), change);
        }
        let orphans = state.connections.overdue(now.into_std());
        let orphans = orphans.into_iter().map(|node| (node.clone(), state.leases.dials(&node))).collect();
        let changes = std::mem::take(&mut state.outbox);
        if matches!(state.journal, keeper::Health::Absent(_)) {
            state.leases.take_touched();
            state.claims.take_touched();
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
        let deadlines = [state.leases.next_deadline().filter(|_| !broken), state.connections.next_deadline()];
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
        Work { changes, orphans, next }
    }

    #[cfg(test)]
    pub(super) fn collect_changes(&self) -> usize {
        self.collected().len()
    }

    #[cfg(test)]
    pub(super) fn collected(&self) -> Vec<Change> {
        self.collect().changes
    }

    /// An instance was dialled: if it is dead, and did not return meanwhile, its records lapse.
    fn dialled(&self, node: &str, dead: bool) {
        if !dead || self.shared.settings.broken.leases {
            return self.doubt(node);
        }
        let mut lapsed = 0;
        let done = self.update(|state, now| {
            if state.connections.has(node) {
                return Ok(Vec::new());
            }
            let changes = state.leases.lapse_instance(now, node);
            lapsed = changes.len();
            state.counts.lapsed += lapsed as u64;
            Ok(changes)
        });
        debug_assert!(done.is_ok(), "lapsing needs no slot");
        if lapsed > 0 {
            tracing::info!(node, records = lapsed, "a gost is gone; its records lapsed");
        }
    }

    fn doubt(&self, node: &str) {
        let mut state = self.lock();
        if !state.connections.has(node) {
            state.leases.doubt_instance(Instant::now().into_std(), node);
        }
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
        self.connections.give_back();
        self.postponed.give_back();
    }

    fn forget_postponed(&mut self, now: std::time::Instant) {
        use crate::domain::liveness::Standing;
        let gone: Vec<_> = self
            .postponed
            .iter()
            .filter(|owner| self.liveness.standing(now, &owner.name) == Standing::Hidden)
            .cloned()
            .collect();
        for owner in gone {
            self.postponed.remove(&owner);
            self.forget(&owner);
        }
    }
}

/// Whether every address of an instance refuses. One dial each: whoever answers, or does not, may be alive.
async fn is_dead(addresses: &BTreeSet<Address>) -> bool {
    for address in addresses {
        let Ok(address) = address.to_string().parse::<SocketAddr>() else { return false };
        let dialled = timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await;
        tracing::debug!(%address, ?dialled, "dialled a gost without a plugin connection");
        match dialled {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(_) | Err(_) => return false,
        }
    }
    true
}
