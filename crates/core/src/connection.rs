//! Which plugin connections carried calls of which instances. When the last one of an instance closes, its gost may
//! be dead: it closes nothing while it lives, but may drop idle connections.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::capacity::GiveBack as _;

/// Instances that one connection is remembered for; a gost with more tunnel services than that is not known.
pub const MAX_INSTANCES: usize = 256;

/// A number that no two connections of this process share.
pub type ConnectionId = u64;

/// Where a call came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Another host or network namespace; none for this one.
    pub remote: Option<IpAddr>,
    /// The connection that brought the call.
    pub connection: ConnectionId,
}

impl Caller {
    /// A caller on this host.
    pub fn local(connection: ConnectionId) -> Self {
        Self { remote: None, connection }
    }

    /// A caller at an IP address.
    pub fn at(ip: IpAddr, connection: ConnectionId) -> Self {
        let ip = ip.to_canonical();
        Self { remote: (!ip.is_loopback()).then_some(ip), connection }
    }
}

/// The open connections, and the instances that were not looked at since their last one closed.
#[derive(Debug, Default)]
pub struct Connections {
    spoken: HashMap<ConnectionId, HashSet<Arc<str>>>,
    /// How many open connections carried calls of an instance.
    open: HashMap<Arc<str>, usize>,
    orphans: BTreeSet<Arc<str>>,
    /// Open connections of gosts of this host whose instance is unknown: questions do not name it.
    nameless: HashSet<ConnectionId>,
    /// Instances of other hosts. Those that have not called since this process began are not known.
    guests: HashSet<Arc<str>>,
    /// Whether any caller has called.
    has_called: bool,
}

impl Connections {
    /// Whether nobody has called before.
    pub fn is_first_call(&mut self) -> bool {
        !std::mem::replace(&mut self.has_called, true)
    }

    /// A caller named its instance.
    pub fn spoke(&mut self, caller: Caller, node: &str) {
        self.orphans.remove(node);
        let nodes = self.spoken.entry(caller.connection).or_default();
        if nodes.contains(node) || nodes.len() >= MAX_INSTANCES {
            return;
        }
        let node: Arc<str> = node.into();
        if caller.remote.is_some() {
            self.guests.insert(node.clone());
        } else {
            self.guests.remove(&node);
        }
        nodes.insert(node.clone());
        *self.open.entry(node).or_default() += 1;
    }

    /// A gost of this host called, without saying which instance it is.
    pub fn asked(&mut self, connection: ConnectionId) {
        if !self.spoken.contains_key(&connection) {
            self.nameless.insert(connection);
        }
    }

    /// A connection closed. Whether it was the connection of a gost whose instance is unknown.
    pub fn closed(&mut self, connection: ConnectionId) -> bool {
        let was_nameless = self.nameless.remove(&connection) && !self.spoken.contains_key(&connection);
        for node in self.spoken.remove(&connection).into_iter().flatten() {
            let Some(open) = self.open.get_mut(&node) else { continue };
            *open -= 1;
            if *open == 0 {
                self.open.remove(&node);
                self.orphans.insert(node);
            }
        }
        was_nameless
    }

    /// An instance is known and has no connection, as after a restart.
    pub fn orphan(&mut self, node: Arc<str>) {
        if !self.open.contains_key(&node) {
            self.orphans.insert(node);
        }
    }

    /// The instances whose last connection closed, no more than `most`, and none that is to wait.
    pub fn take_orphans(&mut self, most: usize, waits: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let ready = self.orphans.iter().filter(|node| !waits(node)).take(most);
        let taken: Vec<_> = ready.cloned().collect();
        for node in &taken {
            self.orphans.remove(node);
        }
        taken
    }

    /// Whether an instance waits to be looked at.
    pub fn has_orphans(&self) -> bool {
        !self.orphans.is_empty()
    }

    /// Whether an instance is another host's.
    pub fn is_guest(&self, node: &str) -> bool {
        self.guests.contains(node)
    }

    /// The instances of other hosts whose last connection closed.
    pub fn orphaned_guests(&self) -> impl Iterator<Item = &Arc<str>> {
        self.orphans.iter().filter(|node| self.is_guest(node))
    }

    /// Forgets the instances of other hosts that have neither a connection nor anything else to be known for.
    pub fn forget_guests(&mut self, is_known: impl Fn(&str) -> bool) {
        let Self { guests, open, .. } = self;
        guests.retain(|node| open.contains_key(node) || is_known(node));
    }

    /// Whether an open connection carried calls of the instance.
    pub fn has(&self, node: &str) -> bool {
        self.open.contains_key(node)
    }

    /// Whether this connection did.
    pub fn has_spoken(&self, connection: ConnectionId, node: &str) -> bool {
        self.spoken.get(&connection).is_some_and(|nodes| nodes.contains(node))
    }

    /// The instances whose calls open connections carried.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.open.keys().map(|node| &**node)
    }

    /// Gives back the capacity of a peak that is over.
    pub fn give_back(&mut self) {
        self.spoken.give_back();
        self.open.give_back();
        self.guests.give_back();
        self.nameless.give_back();
    }

    /// Entries that there is capacity for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.spoken.capacity() + self.open.capacity()
    }

    /// How many connections carried calls of known instances, and of how many instances.
    pub fn len(&self) -> (usize, usize) {
        (self.spoken.len(), self.open.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphans(connections: &mut Connections) -> Vec<Arc<str>> {
        connections.take_orphans(usize::MAX, |_| false)
    }

    #[test]
    fn an_instance_without_a_connection_is_looked_at_once() {
        let mut connections = Connections::default();
        connections.spoke(Caller::local(1), "n");
        connections.spoke(Caller::local(2), "n");
        connections.spoke(Caller::local(2), "m");
        assert!(connections.has_spoken(2, "m") && !connections.has_spoken(1, "m"));
        connections.closed(2);
        assert_eq!(orphans(&mut connections), ["m"].map(Arc::from), "m has none, n has one");
        connections.closed(1);
        assert_eq!(orphans(&mut connections), ["n"].map(Arc::from));
        assert!(orphans(&mut connections).is_empty());
    }

    #[test]
    fn an_instance_that_returns_is_not_looked_at() {
        let mut connections = Connections::default();
        connections.spoke(Caller::local(1), "n");
        connections.closed(1);
        connections.spoke(Caller::local(2), "n");
        assert!(orphans(&mut connections).is_empty());
        assert!(connections.has("n"));
    }

    #[test]
    fn whoever_has_to_wait_is_looked_at_later() {
        let mut connections = Connections::default();
        for node in ["a", "b", "c", "d"] {
            connections.orphan(node.into());
        }
        assert_eq!(connections.take_orphans(2, |node| node == "a"), ["b", "c"].map(Arc::from));
        assert_eq!(orphans(&mut connections), ["a", "d"].map(Arc::from));
    }

    #[test]
    fn closing_twice_or_unknown_is_nothing() {
        let mut connections = Connections::default();
        connections.spoke(Caller::local(1), "n");
        connections.closed(1);
        connections.closed(1);
        connections.closed(9);
        assert_eq!(orphans(&mut connections).len(), 1);
        assert!(connections.spoken.is_empty() && connections.open.is_empty());
    }

    #[test]
    fn the_capacity_of_a_peak_is_given_back() {
        let mut connections = Connections::default();
        for n in 0..10_000 {
            connections.spoke(Caller::local(n), &n.to_string());
        }
        for n in 10..10_000 {
            connections.closed(n);
        }
        assert!(connections.capacity() >= 20_000);
        connections.give_back();
        assert_eq!(connections.len(), (10, 10));
        assert!(connections.capacity() < 200, "{}", connections.capacity());
    }
}
