//! The agent's state behind one lock: leases and directory, which plugin calls read and write from memory, and
//! the outbox that the driver empties towards the cluster. The only reader of time for decisions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::domain::directory::Directory;
use crate::domain::lease::{LeaseTable, Renewal};
use crate::domain::rank::rank;
use crate::domain::record::{Owner, Record};
use crate::domain::slot::{Cell, Change, Slot, SlotsFull, Status};
use crate::gossip::{Cluster, Event};

/// A record lives this long without a Renew, until its Renew period is known: four of gost's default.
pub const LEASE_TTL: Duration = Duration::from_secs(60);

/// A handle; clones share one state. No method waits for anything but the lock, which is never held across
/// an `.await` nor a system call.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    owner: Owner,
    state: Mutex<State>,
    changed: Notify,
    /// Rises with every change of the directory.
    revision: watch::Sender<u64>,
}

struct State {
    leases: LeaseTable,
    directory: Directory,
    /// What the cluster has to hear; a newer change of a slot replaces an older, so it never outgrows the
    /// slots.
    outbox: BTreeMap<Slot, Cell>,
}

/// What the agent holds, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Live records registered here.
    pub own_records: usize,
    /// Records that a Get can list, of all owners.
    pub records: usize,
    /// Agents whose records can be listed, this one included.
    pub agents: usize,
}

impl Agent {
    /// An agent that holds nothing.
    pub fn new(owner: Owner, lease_ttl: Duration) -> Self {
        let mut leases = LeaseTable::new(lease_ttl);
        let ready = leases.say(Status::Ready);
        let mut state = State { leases, directory: Directory::default(), outbox: BTreeMap::new() };
        state.tell(&owner, ready);
        let shared = Shared {
            owner,
            state: Mutex::new(state),
            changed: Notify::new(),
            revision: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who we are.
    pub fn owner(&self) -> &Owner {
        &self.shared.owner
    }

    /// Takes a record: readable here before this returns, and on its way to the peers.
    pub fn register(&self, record: Record) -> Result<(), SlotsFull> {
        self.update(|state, now| state.leases.register(now, record))
    }

    /// Prolongs the lease of an id. False if it is not known here.
    pub fn renew(&self, id: &str) -> bool {
        let mut known = true;
        let renewed: Result<(), SlotsFull> = self.update(|state, now| {
            Ok(match state.leases.renew(now, id) {
                Renewal::Revived(change) => Some(change),
                Renewal::Renewed | Renewal::Released => None,
                Renewal::Unknown => {
                    known = false;
                    None
                }
            })
        });
        renewed.is_ok() && known
    }

    /// Releases an id for ever, known or not.
    pub fn deregister(&self, id: &str) {
        let _: Result<(), SlotsFull> = self.update(|state, _| Ok(state.leases.release(id)));
    }

    /// The records of a tunnel name, in the order in which gost should try them.
    pub fn resolve(&self, name: &str) -> Vec<Arc<Record>> {
        rank(self.lock().directory.lookup(name), rand::random())
    }

    /// Tells that the directory changed, with a number that rises.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// What the agent holds.
    pub fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            own_records: state.leases.live(),
            records: state.directory.len(),
            agents: state.directory.owners().count(),
        }
    }

    /// Hears from the cluster. Quick, and does not panic.
    pub fn handle(&self, event: Event) {
        match event {
            Event::Changed { owner, changes } if owner == self.shared.owner => self.correct(&changes),
            Event::Changed { owner, changes } => {
                let mut state = self.lock();
                for change in &changes {
                    state.directory.apply(&owner, change);
                }
                drop(state);
                self.revise();
            }
            Event::Forgotten { owner } if owner == self.shared.owner => {}
            Event::Forgotten { owner } => {
                self.lock().directory.forget(&owner);
                self.revise();
                tracing::info!(agent = %owner, "forgot an agent that has been dead for long");
            }
        }
    }

    /// Lapses overdue records and brings changes to the cluster, for ever.
    pub async fn drive(self, cluster: Cluster) -> anyhow::Result<()> {
        loop {
            let (changes, next) = self.collect();
            if changes.is_empty() {
                tokio::select! {
                    () = self.shared.changed.notified() => {}
                    () = sleep_until(next) => {}
                }
            } else {
                cluster.publish(changes).await;
            }
        }
    }

    /// What to tell, and when to look again if nobody calls.
    fn collect(&self) -> (Vec<Change>, Instant) {
        let now = Instant::now();
        let mut state = self.lock();
        let overdue = state.leases.expire(now.into_std());
        let lapsed = !overdue.is_empty();
        for change in overdue {
            state.tell(&self.shared.owner, change);
        }
        let changes = std::mem::take(&mut state.outbox);
        let next = state.leases.next_deadline().map_or(now + LEASE_TTL, Instant::from_std);
        drop(state);
        if lapsed {
            self.revise();
        }
        (changes.into_iter().map(|(slot, cell)| Change { slot, cell }).collect(), next)
    }

    /// Somebody else wrote our slots: say again what is true.
    fn correct(&self, changes: &[Change]) {
        let mut state = self.lock();
        for told in changes {
            if let Some(change) = state.leases.correct(told.slot, &told.cell) {
                tracing::warn!(
                    slot = told.slot,
                    "a peer told us something else of our own record; said it again"
                );
                state.tell(&self.shared.owner, change);
                self.shared.changed.notify_one();
            }
        }
    }

    fn update<E>(
        &self,
        act: impl FnOnce(&mut State, std::time::Instant) -> Result<Option<Change>, E>,
    ) -> Result<(), E> {
        let now = Instant::now().into_std();
        let mut state = self.lock();
        if let Some(change) = act(&mut state, now)? {
            state.tell(&self.shared.owner, change);
            drop(state);
            self.shared.changed.notify_one();
            self.revise();
        }
        Ok(())
    }

    fn revise(&self) {
        self.shared.revision.send_modify(|revision| *revision += 1);
    }

    /// A panic under the lock would be a bug; the state is consistent between any two statements that can
    /// fail, so going on beats failing every later call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, owner: &Owner, change: Change) {
        self.directory.apply(owner, &change);
        self.outbox.insert(change.slot, change.cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::Network;

    fn agent() -> Agent {
        Agent::new(Owner { name: "a".parse().unwrap(), generation: 1 }, LEASE_TTL)
    }

    fn record(id: &str) -> Record {
        let [id, name, node, address] = [id, "t", "n", "10.0.0.1:80"].map(Arc::from);
        Record { id, name, node, network: Network::Tcp, address }
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_readable_when_register_returns() {
        let agent = agent();
        agent.register(record("1")).unwrap();
        assert_eq!(agent.resolve("t").len(), 1);
        assert!(agent.renew("1") && !agent.renew("2"));
        agent.deregister("1");
        assert!(agent.resolve("t").is_empty());
        assert!(agent.renew("1"), "a released id is answered OK");
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_leave_nothing_to_tell() {
        let agent = agent();
        agent.register(record("1")).unwrap();
        assert_eq!(agent.collect().0.len(), 2, "the status and the record");
        for _ in 0..3 {
            agent.renew("1");
            agent.register(record("1")).unwrap();
        }
        assert!(agent.collect().0.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_nobody_renews_lapses() {
        let agent = agent();
        agent.register(record("1")).unwrap();
        tokio::time::advance(LEASE_TTL).await;
        agent.collect();
        assert!(agent.resolve("t").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_else_can_write_our_records() {
        let agent = agent();
        agent.register(record("1")).unwrap();
        agent.collect();
        let cell = Cell { seq: 90, content: crate::domain::slot::Content::Empty };
        agent
            .handle(Event::Changed { owner: agent.owner().clone(), changes: vec![Change { slot: 1, cell }] });
        assert_eq!(agent.resolve("t").len(), 1);
        assert_eq!(agent.collect().0[0].cell.seq, 91, "said again, above what was told");
    }
}
