//! How full the gossip's tables are, and how full each may be: what an operator sees before a bound is felt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::counters::Counters;
use super::{incoming, ping, push, recent, repair, session, transport};

/// A table with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Admitted peers, each with its replay window.
    Sessions,
    /// Pushes of peers that are remembered for their next starts.
    Recent,
    /// Addresses that are pinged.
    Targets,
    /// Pings whose answers are waited for.
    Pings,
    /// Names that two processes claim.
    Contests,
    /// Agents whose keys are known.
    Roll,
    /// Questions for what is missing.
    Questions,
    /// Pushes that wait for acks.
    Pushes,
    /// TCP connections that peers opened.
    ConnectionsIn,
    /// Peers that TCP connections go to.
    ConnectionsOut,
}

impl Table {
    /// Every table, with the word that metrics use, and its bound.
    pub const ALL: [(Self, &'static str, usize); 10] = [
        (Self::Sessions, "sessions", session::MAX_SESSIONS),
        (Self::Recent, "recent_pushes", session::MAX_SESSIONS * recent::MAX_PUSHES),
        (Self::Targets, "targets", ping::MAX_TARGETS),
        (Self::Pings, "pings", 2 * ping::MAX_TARGETS),
        (Self::Contests, "contests", session::MAX_SESSIONS),
        (Self::Roll, "roll", session::MAX_SESSIONS),
        (Self::Questions, "questions", repair::MAX_QUESTIONS),
        (Self::Pushes, "pushes", push::MAX_WAITING),
        (Self::ConnectionsIn, "connections_in", incoming::MAX_CONNECTIONS),
        (Self::ConnectionsOut, "connections_out", transport::MAX_DIALLED),
    ];
}

/// See the module.
#[derive(Debug, Default)]
pub struct Levels([AtomicUsize; Table::ALL.len()]);

impl Levels {
    /// How full a table is.
    pub fn get(&self, table: Table) -> usize {
        self.0[table as usize].load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, table: Table, level: usize) {
        self.0[table as usize].store(level, Ordering::Relaxed);
    }
}

/// An entry of a table, for as long as it lives.
pub(super) struct Entry(Arc<Counters>, Table);

impl Entry {
    pub(super) fn of(counters: &Arc<Counters>, table: Table) -> Self {
        counters.levels.0[table as usize].fetch_add(1, Ordering::Relaxed);
        Self(counters.clone(), table)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.levels.0[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_own_place_and_word() {
        for (at, (table, word, _)) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, at, "{word}");
            assert_eq!(Table::ALL.iter().filter(|(_, other, _)| *other == word).count(), 1);
        }
    }

    #[test]
    fn an_entry_counts_while_it_lives() {
        let counters = Arc::new(Counters::default());
        let entries = [(); 3].map(|()| Entry::of(&counters, Table::ConnectionsIn));
        assert_eq!(counters.levels.get(Table::ConnectionsIn), 3);
        drop(entries);
        assert_eq!(counters.levels.get(Table::ConnectionsIn), 0);
    }
}
