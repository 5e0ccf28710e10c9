//! Who cannot reach whose entrypoint, as the agents that are heard say of their own hosts; and what of it the log of this
//! agent has, if the entrypoint is one of our gosts. The cause is often here: a firewall, or a wrong address.
//!
//! Who says what is looked up whenever it is needed. Only what the log has is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use crate::address::Address;
use crate::event::{Event, MAX_NAMED};
use crate::record::{AgentName, Owner};
use crate::slot::{FIRST_UNREACHED, Slot};

/// Hosts and entrypoints that an operator is shown: who wants more has no list to read any more.
pub const MOST_SHOWN: usize = 1_000;
/// Entrypoints of our gosts that the log has at a time. More are not logged, and are shown.
pub(super) const MOST_LOGGED: usize = 64;
/// How often what is said is looked at while somebody says something.
const LOOK: Duration = Duration::from_secs(1);
/// From the first host that does not reach an entrypoint to the line in the log: others find it out meanwhile.
const GATHER: Duration = Duration::from_secs(2);
/// From a line in the log to the next one, if the fault was over in between.
const CALM: Duration = Duration::from_secs(300);
/// The same if it was not.
const AGAIN: Duration = Duration::from_secs(3_600);

/// A host that does not reach an entrypoint, as its agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreachedView {
    /// The host's agent.
    pub by: AgentName,
    /// Where it dials.
    pub entrypoint: Address,
    /// Whether nothing comes; or else its dials are refused.
    pub is_silent: bool,
    /// For how long that has been known here.
    pub since: Duration,
}

/// An entrypoint of a gost of this host that peers do not reach, as they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnUnreached {
    /// Where it is.
    pub entrypoint: Address,
    /// The peers whose dials are refused.
    pub refused: BTreeSet<AgentName>,
    /// The peers whose dials nothing answers.
    pub silent: BTreeSet<AgentName>,
}

/// What the log has.
#[derive(Debug, Default)]
pub(super) struct LoggedFaults {
    known: BTreeMap<Address, LoggedFault>,
    /// When to look again.
    next: Option<Instant>,
}

#[derive(Debug)]
struct LoggedFault {
    /// Since when somebody has said it, without a pause.
    since: Instant,
    /// When the log had it last.
    logged: Option<Instant>,
    /// Whether the log has not that it is over.
    is_open: bool,
    /// Whether somebody says it.
    is_said: bool,
}

impl LoggedFaults {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next
    }

    /// Somebody says that at this time.
    fn note(&mut self, now: Instant, entrypoint: &Address) -> Option<&mut LoggedFault> {
        if self.known.len() >= MOST_LOGGED && !self.known.contains_key(entrypoint) {
            return None;
        }
        let fault = self.known.entry(entrypoint.clone()).or_insert(LoggedFault {
            since: now,
            logged: None,
            is_open: false,
            is_said: true,
        });
        if !std::mem::replace(&mut fault.is_said, true) {
            fault.since = now;
        }
        Some(fault)
    }
}

impl LoggedFault {
    /// Whether the log is to have it now.
    fn is_due(&self, now: Instant) -> bool {
        let pause = if self.is_open { AGAIN } else { CALM };
        let is_calm = self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= pause);
        is_calm && now.saturating_duration_since(self.since) >= GATHER
    }

    /// Whether it may be forgotten: the next time, the log has it at once.
    fn is_past(&self, now: Instant) -> bool {
        let is_calm = self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= CALM);
        !self.is_said && is_calm
    }
}

impl State {
    /// Every host that does not reach an entrypoint, as agents that are heard say, and this one: by their names, at most
    /// [`MOST_SHOWN`]; and how many there are.
    pub fn unreached(&self, now: Instant) -> (usize, Vec<UnreachedView>) {
        let (replicas, mut total, mut shown) = (&self.directory.replicas, 0, Vec::new());
        let mut owners: Vec<&Owner> = self.speakers(now).collect();
        owners.sort_unstable();
        for owner in owners {
            for (slot, unreached) in replicas.unreached_slots(owner) {
                total += 1;
                if shown.len() == MOST_SHOWN {
                    continue;
                }
                let since = replicas.known_since(owner, slot).unwrap_or(now);
                shown.push(UnreachedView {
                    by: owner.name.clone(),
                    entrypoint: unreached.entrypoint.clone(),
                    is_silent: unreached.is_silent,
                    since: now.saturating_duration_since(since),
                });
            }
        }
        shown.sort_by(|one, other| (&one.by, &one.entrypoint).cmp(&(&other.by, &other.entrypoint)));
        (total, shown)
    }

    /// Which of these entrypoints an agent's records have, from a slot on; and where to go on, unless that was all.
    pub fn entrypoints_among(
        &self,
        name: &AgentName,
        wanted: &BTreeSet<Address>,
        from: Slot,
    ) -> (BTreeSet<Address>, Option<Slot>) {
        let replicas = &self.directory.replicas;
        let Some(generation) = replicas.generation(name) else { return (BTreeSet::new(), None) };
        replicas.entrypoints_among(&Owner { name: name.clone(), generation }, wanted, from)
    }

    /// The agents that have records, by their names.
    pub fn owner_names(&self) -> BTreeSet<AgentName> {
        self.directory.replicas.owners().map(|owner| owner.name.clone()).collect()
    }

    /// The entrypoints of our live records that peers which are heard do not reach, as they say.
    pub fn own_unreached(&self, now: Instant) -> Vec<OwnUnreached> {
        let mut found = BTreeMap::<&Address, OwnUnreached>::new();
        for owner in self.speakers(now).filter(|owner| **owner != self.owner) {
            for unreached in self.directory.replicas.unreached_by(owner) {
                let entrypoint = &unreached.entrypoint;
                if !self.leases.lives_at(entrypoint) {
                    continue;
                }
                let of = found.entry(entrypoint).or_insert_with(|| OwnUnreached {
                    entrypoint: entrypoint.clone(),
                    refused: BTreeSet::new(),
                    silent: BTreeSet::new(),
                });
                let by = if unreached.is_silent { &mut of.silent } else { &mut of.refused };
                by.insert(owner.name.clone());
            }
        }
        found.into_values().collect()
    }

    /// A peer changed a slot: perhaps it says that it does not reach an entrypoint. While somebody says so we look every [`LOOK`], and
    /// no sooner, because each look costs as much as there are agents, and all of them say it when a host is lost.
    pub(super) fn note_unreached(&mut self, now: Instant, slot: Slot) {
        if slot >= FIRST_UNREACHED {
            self.logged.next.get_or_insert(now);
        }
    }

    /// Has the log tell which entrypoints of our gosts peers do not reach, when they began to say so, every hour while they do,
    /// and when they do not any more.
    pub(super) fn log_own_unreached(&mut self, now: Instant) {
        if self.logged.next.is_none_or(|next| next > now) {
            return;
        }
        let unreached = self.own_unreached(now);
        let is_over =
            |entrypoint: &Address| unreached.binary_search_by(|of| of.entrypoint.cmp(entrypoint)).is_err();
        let (logged, lines, us) = (&mut self.logged, &mut self.effects.lines, &self.owner.name);
        let mut events = Vec::new();
        for (entrypoint, fault) in &mut logged.known {
            if is_over(entrypoint) {
                fault.is_said = false;
                if std::mem::take(&mut fault.is_open) {
                    events.push(Event::Reached(us.clone(), entrypoint.clone()));
                    lines.push(Line::OwnReached { entrypoint: entrypoint.clone() });
                }
            }
        }
        logged.known.retain(|_, fault| !fault.is_past(now));
        for of in unreached {
            let Some(fault) = logged.note(now, &of.entrypoint) else { continue };
            if fault.is_due(now) {
                (fault.logged, fault.is_open) = (Some(now), true);
                let by = of.refused.union(&of.silent).take(MAX_NAMED).cloned().collect();
                events.push(Event::Unreached(us.clone(), of.entrypoint.clone(), by));
                lines.push(Line::OwnUnreached(of));
            }
        }
        self.effects.is_revised |= !events.is_empty();
        self.log.extend(now, events);
        // Those that are silent may be heard again.
        let replicas = &self.directory.replicas;
        let is_said = replicas.owners().any(|owner| replicas.unreached_by(owner).next().is_some());
        self.logged.next = (is_said || self.logged.len() > 0).then(|| now + LOOK);
    }

    /// The starts of agents whose words about their hosts count: those that are heard, and ourselves.
    fn speakers(&self, now: Instant) -> impl Iterator<Item = &Owner> {
        let owners = self.directory.replicas.owners().map(|owner| &**owner);
        owners.filter(move |owner| self.standing(now, &owner.name).is_alive())
    }
}

#[cfg(test)]
mod tests;
