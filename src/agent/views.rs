//! Snapshots of an agent for operators and metrics, taken under the lock as quickly as a plugin call is served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant as StdInstant;

use gossd_core::address::Address;
use gossd_core::agent::{
    Around, Candidate, Counts, HealedFrom, PastRecord, State, Tally, TunnelSummary, UnreachedView, View,
};
use gossd_core::event::Logged;
use gossd_core::hostname::HashHost;
use gossd_core::record::AgentName;
use tokio::time::Instant;

use super::Agent;

/// Which tunnels an operator wants to see, and in which order.
pub(crate) struct TunnelList<I, W, K> {
    /// By their ids.
    pub is_id_wanted: I,
    /// By what they are in short, which costs more.
    pub is_wanted: Option<W>,
    /// What they are sorted by, instead of their ids.
    pub key: Option<K>,
    /// Whether those without a listed record come first.
    pub hidden_first: bool,
    /// How many.
    pub limit: usize,
}

impl Agent {
    /// Whether these peers, and all others that are alive, have sent their records; and, if the agent `joins` a
    /// cluster, whether at least one peer is alive.
    pub fn has_caught_up<'a>(&self, known: impl Iterator<Item = &'a AgentName>, joins: bool) -> bool {
        self.read(|state, now| state.has_caught_up(now, known, joins))
    }

    /// Numbers of what the agent holds.
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }

    /// How often Renews of unknown ids were healed from each source; the last entry counts those that were not.
    pub fn heals(&self) -> Vec<(HealedFrom, u64)> {
        self.lock().heals()
    }

    /// Whether so many peers vanished together that the cause is probably this host: an alarm.
    pub fn doubts_itself(&self) -> bool {
        self.lock().doubts_itself()
    }

    /// Whether this agent drains, so that peers hide its records.
    pub fn is_draining(&self) -> bool {
        self.lock().is_draining()
    }

    /// What is wrong with the journal, if anything.
    pub fn journal_problem(&self) -> Option<String> {
        self.lock().journal_problem()
    }

    /// The agent and its peers.
    pub fn view(&self) -> View {
        self.read(State::view)
    }

    /// The tunnels of a list, as far as its limit, and how many there are. Between two bites, calls are answered.
    pub(crate) async fn tunnels<K: Ord>(
        &self,
        list: TunnelList<impl Fn(&str) -> bool, impl Fn(&TunnelSummary) -> bool, impl Fn(&str) -> K>,
    ) -> (usize, Vec<TunnelSummary>) {
        const BITE: usize = 100;
        let TunnelList { is_id_wanted, is_wanted, key, hidden_first, limit } = list;
        let mut ids = self.lock().tunnel_ids();
        ids.retain(|name| is_id_wanted(&name.text()));
        ids.sort_unstable();
        if let Some(key) = key {
            ids.sort_by_cached_key(|name| key(&name.text()));
        }
        let (mut total, mut found, mut later) = (0, Vec::new(), Vec::new());
        for bite in ids.chunks(BITE) {
            if is_wanted.is_none() && found.len() == limit {
                break;
            }
            let bite: Vec<_> =
                self.read(|state, now| bite.iter().map(|name| state.tunnel(now, name.clone())).collect());
            let wanted = bite.into_iter().filter(|tunnel| is_wanted.as_ref().is_none_or(|is| is(tunnel)));
            for tunnel in wanted {
                total += 1;
                let list = if hidden_first && tunnel.listed > 0 { &mut later } else { &mut found };
                if list.len() < limit {
                    list.push(tunnel);
                }
            }
            tokio::task::yield_now().await;
        }
        later.truncate(limit - found.len());
        found.append(&mut later);
        (if is_wanted.is_none() { ids.len() } else { total }, found)
    }

    /// A tunnel, in short.
    pub fn tunnel(&self, name: &str) -> TunnelSummary {
        self.read(|state, now| state.tunnel(now, name.into()))
    }

    /// Every record of a tunnel in the order of an answer; those that an answer leaves out come last. In answers, equal
    /// records take turns; here the turn is fixed, so that two looks show what changed.
    pub fn explain(&self, name: &str) -> Vec<Candidate> {
        self.read(|state, now| state.explain(now, name))
    }

    /// The records of a tunnel that went within the last hour, the last one first.
    pub fn past(&self, name: &str) -> Vec<PastRecord> {
        self.read(|state, now| state.past(now, name))
    }

    /// How visitors get to a tunnel of which this host can dial no record; none if it can.
    pub fn around(&self, name: &str) -> Option<Around> {
        self.read(|state, now| state.around(now, name))
    }

    /// The records of a tunnel, in numbers.
    pub fn count_records(&self, name: &str) -> Tally {
        self.read(|state, now| state.count_records(now, name))
    }

    /// The hosts that do not reach an entrypoint, as their agents say, and how many such pairs there are.
    pub fn unreached(&self) -> (usize, Vec<UnreachedView>) {
        self.read(State::unreached)
    }

    /// Whose these entrypoints are; of several agents with one, the first by name. Between two bites, calls are answered.
    pub fn owners_of(&self, mut wanted: BTreeSet<Address>) -> BTreeMap<Address, AgentName> {
        let mut owners = BTreeMap::new();
        if wanted.is_empty() {
            return owners;
        }
        let names = self.lock().owner_names();
        for name in names {
            let mut from = Some(0);
            while let Some(slot) = from.filter(|_| !wanted.is_empty()) {
                let (found, next) = self.lock().entrypoints_among(&name, &wanted, slot);
                wanted.retain(|entrypoint| !found.contains(entrypoint));
                owners.extend(found.into_iter().map(|entrypoint| (entrypoint, name.clone())));
                from = next;
            }
        }
        owners
    }

    /// At most `limit` events after that number; `None` if some of them are no longer kept. [`Agent::watch`] shows when
    /// to look again.
    pub fn events(&self, after: u64, limit: usize) -> Option<Vec<Logged>> {
        self.lock().events(after, limit)
    }

    /// Rises whenever a host name leads elsewhere, through claims or through tunnels that come and go.
    pub fn hosts_revision(&self) -> u64 {
        self.lock().hosts_revision()
    }

    /// The keys of all claims, in no particular order. A host name that stays claimed meanwhile appears once.
    pub fn claimed_hosts(&self) -> Vec<Arc<str>> {
        let bites = self.lock().claimed_bites();
        (0..bites).flat_map(|bite| self.lock().claimed_hosts(bite, bites)).collect()
    }

    /// The hash hosts of all tunnels that have a record, in no particular order.
    pub fn hash_hosts(&self) -> Vec<HashHost> {
        let names = self.lock().tunnel_ids();
        names.iter().filter_map(HashHost::of_name).collect()
    }

    /// Whether this agent may not have received its peers' records yet.
    pub fn is_young(&self) -> bool {
        self.read(State::is_young)
    }

    /// Reads the state at the current time, without effects.
    fn read<T>(&self, look: impl FnOnce(&State, StdInstant) -> T) -> T {
        let now = Instant::now().into_std();
        look(&self.lock(), now)
    }
}
