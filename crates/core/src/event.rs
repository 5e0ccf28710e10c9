//! What happened to records and peers, numbered, for watchers. The last ones are kept, so that a watcher that
//! was away for a moment misses nothing. Reads no clock, and knows no protocol.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::address::Address;
use super::record::{AgentName, Owner, Record};

/// Events kept: a restart of a host with a thousand tunnels, four times.
pub const MAX_EVENTS: usize = 4_096;
/// Agents that one event names besides its own.
pub const MAX_NAMED: usize = 16;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A record of this owner is shown from now on.
    Up(Arc<Owner>, Arc<Record>),
    /// It is not any more.
    Down(Arc<Owner>, Arc<Record>),
    /// A peer is alive: for the first time, or again.
    Heard(AgentName),
    /// A peer has become suspect.
    Suspected(AgentName),
    /// A peer has been silent for so long that its records are hidden.
    Died(AgentName),
    /// A peer is not what it was.
    Changed(AgentName, PeerChange),
    /// A peer left.
    Left(AgentName),
    /// A peer has been dead for so long that it is forgotten.
    Forgotten(AgentName),
    /// An entrypoint of this agent's gosts is not reached from the hosts of some others: the first [`MAX_NAMED`] of them.
    Unreached(AgentName, Address, Vec<AgentName>),
    /// It is again, or nobody needs it any more.
    Reached(AgentName, Address),
}

/// What of a peer is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Where its gossip is reached.
    Address {
        /// Before.
        from: SocketAddr,
        /// Now.
        to: SocketAddr,
    },
    /// The version of its program.
    Version {
        /// Before.
        from: Arc<str>,
        /// Now.
        to: Arc<str>,
    },
    /// Which keys it has.
    Keys,
}

/// An event, and when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its number.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// What.
    pub event: Event,
}

/// The last events, numbered from 1 on.
#[derive(Debug, Default)]
pub struct EventLog {
    last: u64,
    events: VecDeque<(Instant, Event)>,
}

impl EventLog {
    /// Takes events of this moment in the order in which they happened.
    pub fn extend(&mut self, now: Instant, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if self.events.len() == MAX_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back((now, event));
            self.last += 1;
        }
    }

    /// The number of the newest event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Those that are kept, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = (Instant, &Event)> {
        self.events.iter().rev().map(|(at, event)| (*at, event))
    }

    /// At most `limit` events after that number; None if some of them are gone, or never were.
    pub fn after(&self, number: u64, limit: usize) -> Option<Vec<Logged>> {
        let oldest = self.last - self.events.len() as u64;
        let skip = usize::try_from(number.checked_sub(oldest)?).ok()?;
        let rest = (number <= self.last).then(|| self.events.iter().skip(skip).take(limit))?;
        let numbered = (number + 1..).zip(rest.cloned());
        Some(numbered.map(|(number, (at, event))| Logged { number, at, event }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(n: usize) -> Event {
        Event::Heard(format!("a{n}").parse().unwrap())
    }

    /// The numbers and events after that number.
    fn after(log: &EventLog, number: u64, limit: usize) -> Option<Vec<(u64, Event)>> {
        Some(log.after(number, limit)?.into_iter().map(|logged| (logged.number, logged.event)).collect())
    }

    #[test]
    fn a_watcher_goes_on_where_it_was() {
        let mut log = EventLog::default();
        assert_eq!(after(&log, 0, 9), Some(Vec::new()));
        log.extend(Instant::now(), (1..=3).map(heard));
        assert_eq!(after(&log, 1, 9), Some(vec![(2, heard(2)), (3, heard(3))]));
        assert_eq!(after(&log, 1, 1), Some(vec![(2, heard(2))]));
        assert_eq!(after(&log, 3, 9), Some(Vec::new()));
        assert_eq!(after(&log, 4, 9), None, "of another start");
    }

    #[test]
    fn the_oldest_go_and_that_is_told() {
        let mut log = EventLog::default();
        log.extend(Instant::now(), (1..=MAX_EVENTS + 2).map(heard));
        assert_eq!(log.last(), MAX_EVENTS as u64 + 2);
        assert_eq!(after(&log, 1, 9), None);
        assert_eq!(after(&log, 2, 1), Some(vec![(3, heard(3))]));
    }
}
