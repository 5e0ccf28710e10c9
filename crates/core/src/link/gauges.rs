//! How full the gossip's tables are, and how full each may be: what an operator sees before a bound is felt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::counters::Counters;
use super::{handshakes, peers, ping, push, recent, repair};

/// TCP connections that are served at a time: a cluster's 200 agents and some.
pub const MAX_CONNECTIONS_IN: usize = 256;
/// Peers that TCP connections go to at a time: the same.
pub const MAX_CONNECTIONS_OUT: usize = 256;

/// A table with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Sessions, each with its replay window.
    Sessions,
    /// Pushes of peers that are remembered for their next starts.
    Recent,
    /// Addresses that are pinged.
    Targets,
    /// Pings whose answers are waited for.
    Pings,
    /// Names that two processes claim.
    Contests,
    /// Questions for what is missing.
    Questions,
    /// Pushes that wait for acks.
    Pushes,
    /// TCP connections that peers opened.
    ConnectionsIn,
    /// Peers that TCP connections go to.
    ConnectionsOut,
    /// Peers that are known, also silent ones.
    Peers,
    /// Handshakes under way.
    Handshakes,
}

impl Gauge {
    /// Every table, with the word that metrics use, and its bound.
    pub const ALL: [(Self, &'static str, usize); 11] = [
        (Self::Sessions, "sessions", 2 * peers::MAX_KNOWN),
        (Self::Recent, "recent_pushes", peers::MAX_KNOWN * recent::MAX_PUSHES),
        (Self::Targets, "targets", ping::MAX_TARGETS),
        (Self::Pings, "pings", 2 * ping::MAX_TARGETS),
        (Self::Contests, "contests", peers::MAX_KNOWN),
        (Self::Questions, "questions", repair::MAX_QUESTIONS),
        (Self::Pushes, "pushes", push::MAX_WAITING),
        (Self::ConnectionsIn, "connections_in", MAX_CONNECTIONS_IN),
        (Self::ConnectionsOut, "connections_out", MAX_CONNECTIONS_OUT),
        (Self::Peers, "peers", peers::MAX_KNOWN),
        (Self::Handshakes, "handshakes", handshakes::MAX_HANDSHAKES),
    ];
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gauges([AtomicUsize; Gauge::ALL.len()]);

impl Gauges {
    /// How full a table is.
    pub fn get(&self, gauge: Gauge) -> usize {
        self.0[gauge as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, gauge: Gauge, level: usize) {
        self.0[gauge as usize].store(level, Ordering::Relaxed);
    }
}

/// An entry of a table, for as long as it lives.
pub struct Counted(Arc<Counters>, Gauge);

impl Counted {
    /// One more, from now on.
    pub fn of(counters: &Arc<Counters>, gauge: Gauge) -> Self {
        counters.gauges.0[gauge as usize].fetch_add(1, Ordering::Relaxed);
        Self(counters.clone(), gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.gauges.0[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_own_place_and_word() {
        for (at, (gauge, word, _)) in Gauge::ALL.into_iter().enumerate() {
            assert_eq!(gauge as usize, at, "{word}");
            assert_eq!(Gauge::ALL.iter().filter(|(_, other, _)| *other == word).count(), 1);
        }
    }

    #[test]
    fn an_entry_counts_while_it_lives() {
        let counters = Arc::new(Counters::default());
        let entries = [(); 3].map(|()| Counted::of(&counters, Gauge::ConnectionsIn));
        assert_eq!(counters.gauges.get(Gauge::ConnectionsIn), 3);
        drop(entries);
        assert_eq!(counters.gauges.get(Gauge::ConnectionsIn), 0);
    }
}
