//! What is told of an agent: snapshots for operators and metrics, taken under the lock as quickly as a plugin call is served.

use std::sync::Arc;
use std::time::Instant as StdInstant;

use gossd_core::agent::{Candidate, Counts, HealedFrom, State, Tunnel, View};
use gossd_core::event::Event;
use gossd_core::hostname::HashHost;
use gossd_core::record::AgentName;
use tokio::time::Instant;

use super::Agent;

impl Agent {
    /// Whether these peers, and all others that are heard, have told their records; and one is heard at least, if some are
    /// looked for.
    pub fn has_caught_up<'a>(&self, known: impl Iterator<Item = &'a AgentName>, joins: bool) -> bool {
        self.read(|state, now| state.has_caught_up(now, known, joins))
    }

    /// What the agent holds.
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }

    /// How often Renews of unknown ids were healed from each source; the last is how often not.
    pub fn heals(&self) -> Vec<(HealedFrom, u64)> {
        self.lock().heals()
    }

    /// Whether so many peers vanished together that it was probably us: an alarm.
    pub fn doubts_itself(&self) -> bool {
        self.lock().doubts_itself()
    }

    /// Whether peers hide our records because we were told to drain.
    pub fn is_draining(&self) -> bool {
        self.lock().is_draining()
    }

    /// What is wrong with the journal, if anything is.
    pub fn journal_problem(&self) -> Option<String> {
        self.lock().journal_problem()
    }

    /// The agent and its peers.
    pub fn view(&self) -> View {
        self.read(State::view)
    }

    /// The first tunnels by id whose id has `search` in it, and how many there are. Holds the lock for the time
    /// that it takes to copy the ids, a millisecond for 100,000.
    pub fn tunnels(&self, search: &str, limit: usize) -> (usize, Vec<Tunnel>) {
        let mut found = self.lock().tunnel_ids();
        found.retain(|name| name.text().contains(search));
        found.sort_unstable();
        let total = found.len();
        let first = found.into_iter().take(limit);
        (total, self.read(|state, now| first.map(|name| state.tunnel(now, name)).collect()))
    }

    /// Every record of a tunnel, in the order of an answer, those that are not listed last. Equals take turns in
    /// answers; here it is always the same turn, so that who looks twice sees what changed.
    pub fn explain(&self, name: &str) -> Vec<Candidate> {
        self.read(|state, now| state.explain(now, name))
    }

    /// At most `limit` events after that number; None if some of them are gone. See [`Agent::watch`] for when to
    /// look again.
    pub fn events(&self, after: u64, limit: usize) -> Option<Vec<(u64, Event)>> {
        self.lock().events(after, limit)
    }

    /// Rises with every change of what host names lead to, by claims and by tunnels that come and go.
    pub fn hosts_revision(&self) -> u64 {
        self.lock().hosts_revision()
    }

    /// The keys of all claims, in no particular order. A host that is claimed all the while is there once.
    pub fn claimed_hosts(&self) -> Vec<Arc<str>> {
        let bites = self.lock().claimed_bites();
        (0..bites).flat_map(|bite| self.lock().claimed_hosts(bite, bites)).collect()
    }

    /// The hash hosts of all tunnels that have a record, in no particular order.
    pub fn hash_hosts(&self) -> Vec<HashHost> {
        self.lock().hash_hosts()
    }

    /// Whether this agent may not have heard yet what its peers say.
    pub fn is_young(&self) -> bool {
        self.read(State::is_young)
    }

    /// Looks at the state at this moment: nothing follows from that.
    fn read<T>(&self, look: impl FnOnce(&State, StdInstant) -> T) -> T {
        let now = Instant::now().into_std();
        look(&self.lock(), now)
    }
}
