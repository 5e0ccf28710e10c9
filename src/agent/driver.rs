//! The agent's loop: does what is due, publishes changes to the cluster, dials gosts.

use gossd_core::agent::{Dial, Dialled, Due};
use gossd_core::slot::STATUS_SLOT;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::Agent;
use super::dials::{Dials, Tries};
use crate::net::Cluster;

/// Which gosts an agent dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialling {
    /// The gosts of its host, and those of peers that visitors here want.
    All,
    /// The gosts of its host only, for an agent without peers.
    OwnHost,
}

impl Agent {
    /// Runs for ever.
    pub async fn drive(self, cluster: Cluster, dialling: Dialling) -> anyhow::Result<()> {
        let (mut running, mut trying) = (Dials::default(), Tries::default());
        loop {
            // What is left to do comes in bites, one after the other, and others on this thread come between them.
            yield_now().await;
            let Due { changes, dials, tries, seeks, next } = self.due(&running);
            for dial in dials {
                running.start(dial);
            }
            for next in tries.into_iter().filter(|_| dialling == Dialling::All) {
                trying.start(next);
            }
            if !seeks.is_empty() {
                cluster.seek(seeks);
            }
            let changes = changes.into_changes();
            if !changes.is_empty() {
                let status = changes.iter().find(|change| change.slot == STATUS_SLOT);
                let status = status.map(|change| change.cell.version);
                cluster.publish(changes).await;
                if let Some(version) = status {
                    self.shared.status_published.send_replace(version);
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
                Some((address, tried)) = trying.next() => {
                    self.with(|state, now| state.tried(now, &address, tried));
                }
            }
        }
    }

    fn due(&self, running: &Dials) -> Due {
        self.in_turn(|state, now| state.due(now, running.room(), |node| running.has(node)))
    }

    fn dialled(&self, dial: Dial, dialled: Dialled) -> Option<Dial> {
        self.with(|state, now| state.dialled(now, dial, dialled))
    }

    #[cfg(test)]
    pub(super) fn collected(&self) -> Vec<gossd_core::slot::Change> {
        self.due(&Dials::default()).changes.into_changes()
    }
}
