//! The open plugin connections of all listeners. Their number is bounded: a new connection replaces the least useful
//! one. A connection whose caller began something and does not go on is closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Caller;
use super::bounds::{Bounds, Closed, ClosedCounts};
use super::gate::Gate;
use super::progress::{Progress, Worth};
use gossd_core::connection::ConnectionId;

/// How often a full table is logged.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The open connections of the plugin.
pub(super) struct ConnectionTable {
    bounds: Bounds,
    counters: Arc<ClosedCounts>,
    gate: Gate,
    last: AtomicU64,
    table: Mutex<TableState>,
}

#[derive(Default)]
struct TableState {
    open: HashMap<ConnectionId, Arc<Progress>>,
    warned: Option<Instant>,
}

impl ConnectionTable {
    pub(super) fn new(bounds: Bounds, counters: Arc<ClosedCounts>, gate: Gate) -> Arc<Self> {
        Arc::new(Self { bounds, counters, gate, last: AtomicU64::new(0), table: Mutex::default() })
    }

    /// A number for a new connection, never used before.
    pub(super) fn number(&self) -> ConnectionId {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes in a new connection; if the table is full, the least useful connection is closed.
    pub(super) fn open(self: &Arc<Self>, caller: Caller) -> OpenConnection {
        let progress = Arc::new(Progress::new());
        let mut table = self.table();
        while table.open.len() >= self.bounds.max_connections.get() {
            self.evict(&mut table, |_| true);
        }
        table.open.insert(caller.connection, progress.clone());
        OpenConnection { progress, caller, connections: self.clone() }
    }

    /// Closes a connection that was never of use, because the process has no file descriptors left. Whether there was
    /// one.
    pub(super) fn evict_unproven(&self) -> bool {
        self.evict(&mut self.table(), |worth| matches!(worth, Worth::Unproven(_)))
    }

    /// How often [`Self::sweep`] is due.
    pub(super) fn rhythm(&self) -> Duration {
        self.bounds.patience / 8
    }

    /// Closes connections whose callers have taken too long.
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

    /// Asks all connections to end after the calls that they have begun.
    pub(super) fn wind_down(&self) {
        self.table().open.values().for_each(|progress| progress.wind_down());
    }

    /// Closes the least useful connection among those that `may_go`. Whether there was one.
    fn evict(&self, table: &mut TableState, may_go: impl Fn(Worth) -> bool) -> bool {
        let now = Instant::now();
        let hitch = self.bounds.patience / 10;
        let worths = table.open.iter().map(|(id, progress)| (progress.worth(now, hitch), *id));
        let Some((_, id)) = worths.filter(|(worth, _)| may_go(*worth)).min() else { return false };
        if let Some(progress) = table.open.remove(&id) {
            progress.close();
            self.counters.count(Closed::Evicted);
            self.warn_once_in_a_while(table, now);
        }
        true
    }

    /// Nobody has to go, and there is no file descriptor for whoever waits.
    pub(super) fn warn_of_files(&self) {
        let (mut table, now) = (self.table(), Instant::now());
        if table.warned.is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY) {
            table.warned = Some(now);
            tracing::warn!(
                open = table.open.len(),
                "no file descriptor is left for another plugin connection, so it waits until one is closed: raise the limit of open \
                 files (`ulimit -n`, `LimitNOFILE=` of a unit, `--ulimit nofile=` of a container)"
            );
        }
    }

    fn warn_once_in_a_while(&self, table: &mut TableState, now: Instant) {
        if table.warned.is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY) {
            table.warned = Some(now);
            tracing::warn!(
                open = table.open.len(),
                evicted = self.counters.closed(Closed::Evicted),
                "no room for more plugin connections: the least useful are closed; see --max-connections, and the limit of open files"
            );
        }
    }

    fn table(&self) -> MutexGuard<'_, TableState> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the table. Dropping it ends the connection's entry, however the connection ended.
pub(super) struct OpenConnection {
    pub(super) progress: Arc<Progress>,
    caller: Caller,
    connections: Arc<ConnectionTable>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.caller.connection);
        if let Some(sd) = self.connections.gate.sd() {
            sd.connection_closed(self.caller.connection);
        }
    }
}
