//! The open plugin connections of all listeners: a bound on their number under which a newcomer gets in and the
//! least useful goes, and an end for those that have begun something and do not go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Caller;
use super::bounds::{Bounds, Closed, Counters};
use super::gate::Gate;
use super::progress::{Progress, Worth};
use gossd_core::connection::ConnectionId;

/// How often a full table is told to the operator.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The connections of a plugin.
pub(super) struct Connections {
    bounds: Bounds,
    counters: Arc<Counters>,
    gate: Gate,
    last: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: HashMap<ConnectionId, Arc<Progress>>,
    told: Option<Instant>,
}

impl Connections {
    pub(super) fn new(bounds: Bounds, counters: Arc<Counters>, gate: Gate) -> Arc<Self> {
        Arc::new(Self { bounds, counters, gate, last: AtomicU64::new(0), table: Mutex::default() })
    }

    /// A number for a connection that no other has.
    pub(super) fn number(&self) -> ConnectionId {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes a newcomer in; if there is no room, the least useful connection goes.
    pub(super) fn open(self: &Arc<Self>, caller: Caller) -> Open {
        let progress = Arc::new(Progress::new());
        let mut table = self.table();
        while table.open.len() >= self.bounds.max_connections.get() {
            self.evict(&mut table, |_| true);
        }
        table.open.insert(caller.connection, progress.clone());
        Open { progress, caller, connections: self.clone() }
    }

    /// Makes room for the process, which has run out of file descriptors, if somebody has one for nothing.
    /// Whether there is some soon.
    pub(super) fn evict_unproven(&self) -> bool {
        self.evict(&mut self.table(), |worth| matches!(worth, Worth::Unproven(_)))
    }

    /// How often [`Self::sweep`] is due.
    pub(super) fn rhythm(&self) -> Duration {
        self.bounds.patience / 8
    }

    /// Closes what has taken too long.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.table().open.retain(|_, progress| match progress.overdue(now, self.bounds.patience) {
            Some(why) => {
                self.counters.count(why);
                progress.close();
                false
            }
            None => true,
        });
    }

    /// Asks all to end when they have answered what was asked.
    pub(super) fn wind_down(&self) {
        self.table().open.values().for_each(|progress| progress.wind_down());
    }

    /// Closes the least useful of those that may go; whether there was one.
    fn evict(&self, table: &mut Table, may_go: impl Fn(Worth) -> bool) -> bool {
        let now = Instant::now();
        let hitch = self.bounds.patience / 10;
        let worths = table.open.iter().map(|(id, progress)| (progress.worth(now, hitch), *id));
        let Some((_, id)) = worths.filter(|(worth, _)| may_go(*worth)).min() else { return false };
        if let Some(progress) = table.open.remove(&id) {
            progress.close();
            self.counters.count(Closed::Evicted);
            self.tell(table, now);
        }
        true
    }

    fn tell(&self, table: &mut Table, now: Instant) {
        if table.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY) {
            table.told = Some(now);
            tracing::warn!(
                open = table.open.len(),
                evicted = self.counters.closed(Closed::Evicted),
                "no room for more plugin connections: the least useful are closed; see --max-connections"
            );
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the table. Dropping it is the end of the connection, however it ended.
pub(super) struct Open {
    pub(super) progress: Arc<Progress>,
    caller: Caller,
    connections: Arc<Connections>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.caller.connection);
        if let Some(sd) = self.connections.gate.sd() {
            sd.connection_closed(self.caller.connection);
        }
    }
}
