//! Which plugin connections spoke for which instances. When the last one that spoke for an instance closes and
//! none returns, its gost may be dead: it closes nothing while it lives, but may drop idle connections.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::room::Room as _;

/// How long an instance may be without a connection before its gost is looked at.
pub const GRACE: Duration = Duration::from_secs(1);
/// Instances that one connection is remembered for; a gost with more tunnel services than that is not known.
pub const MAX_INSTANCES: usize = 256;

/// A number that no two connections of this process share.
pub type ConnectionId = u64;

/// The open connections and the instances without one.
#[derive(Debug, Default)]
pub struct Connections {
    spoken: HashMap<ConnectionId, HashSet<Arc<str>>>,
    /// How many open connections spoke for an instance.
    open: HashMap<Arc<str>, usize>,
    orphans: BTreeMap<Arc<str>, Instant>,
}

impl Connections {
    /// A connection spoke for an instance.
    pub fn spoke(&mut self, connection: ConnectionId, node: &str) {
        self.orphans.remove(node);
        let nodes = self.spoken.entry(connection).or_default();
        if nodes.contains(node) || nodes.len() >= MAX_INSTANCES {
            return;
        }
        let node: Arc<str> = node.into();
        nodes.insert(node.clone());
        *self.open.entry(node).or_default() += 1;
    }

    /// A connection closed.
    pub fn closed(&mut self, now: Instant, connection: ConnectionId) {
        for node in self.spoken.remove(&connection).into_iter().flatten() {
            let Some(open) = self.open.get_mut(&node) else { continue };
            *open -= 1;
            if *open == 0 {
                self.open.remove(&node);
                self.orphan(now, node);
            }
        }
    }

    /// An instance is known and has no connection, as after a restart.
    pub fn orphan(&mut self, now: Instant, node: Arc<str>) {
        if !self.open.contains_key(&node) {
            self.orphans.insert(node, now + GRACE);
        }
    }

    /// The instances to which no connection returned in time.
    pub fn overdue(&mut self, now: Instant) -> Vec<Arc<str>> {
        let overdue: Vec<_> =
            self.orphans.iter().filter(|(_, due)| **due <= now).map(|(node, _)| node.clone()).collect();
        for node in &overdue {
            self.orphans.remove(node);
        }
        overdue
    }

    /// Whether an open connection spoke for the instance.
    pub fn has(&self, node: &str) -> bool {
        self.open.contains_key(node)
    }

    /// Gives back the room of a peak that is over.
    pub fn give_back(&mut self) {
        self.spoken.give_back();
        self.open.give_back();
    }

    /// Entries that there is room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.spoken.room() + self.open.room()
    }

    /// How many connections spoke, and for how many instances.
    pub fn len(&self) -> (usize, usize) {
        (self.spoken.len(), self.open.len())
    }

    /// When [`Self::overdue`] has something next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.orphans.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_without_a_connection_is_overdue_after_its_grace() {
        let (mut connections, now) = (Connections::default(), Instant::now());
        connections.spoke(1, "n");
        connections.spoke(2, "n");
        connections.spoke(2, "m");
        connections.closed(now, 2);
        assert_eq!(connections.next_deadline(), Some(now + GRACE), "m has none, n has one");
        connections.closed(now, 1);
        assert!(connections.overdue(now).is_empty());
        assert_eq!(connections.overdue(now + GRACE), ["m", "n"].map(Arc::from));
        assert!(connections.overdue(now + GRACE).is_empty(), "once");
    }

    #[test]
    fn an_instance_that_returns_is_not_looked_at() {
        let (mut connections, now) = (Connections::default(), Instant::now());
        connections.spoke(1, "n");
        connections.closed(now, 1);
        connections.spoke(2, "n");
        assert!(connections.overdue(now + GRACE).is_empty());
        assert!(connections.has("n"));
    }

    #[test]
    fn closing_twice_or_unknown_is_nothing() {
        let (mut connections, now) = (Connections::default(), Instant::now());
        connections.spoke(1, "n");
        connections.closed(now, 1);
        connections.closed(now, 1);
        connections.closed(now, 9);
        assert_eq!(connections.overdue(now + GRACE).len(), 1);
        assert!(connections.spoken.is_empty() && connections.open.is_empty());
    }

    #[test]
    fn the_room_of_a_peak_is_given_back() {
        let (mut connections, now) = (Connections::default(), Instant::now());
        for n in 0..10_000 {
            connections.spoke(n, &n.to_string());
        }
        for n in 10..10_000 {
            connections.closed(now, n);
        }
        assert!(connections.room() >= 20_000);
        connections.give_back();
        assert_eq!(connections.len(), (10, 10));
        assert!(connections.room() < 200, "{}", connections.room());
    }
}
