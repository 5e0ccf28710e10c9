//! What the agent shows of itself: snapshots for operators and metrics, taken under the lock as quickly as a
//! plugin call is served.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keeping::Health;
use super::levels::Level;
use super::resolve::Tally;
use super::unreached::OwnUnreached;
use super::{Changes, Counts, EntrypointView, HealedFrom, State};
use crate::address::Address;
use crate::complaint::Complaint;
use crate::event::{Event, Logged};
use crate::label::Label;
use crate::liveness::{PRESERVE, Standing};
use crate::locality::Locality;
use crate::quota::Quota;
use crate::rank::{BEST, Judged, Order, rank};
use crate::record::{AgentName, Generation, Owner, Record};
use crate::slot::Status;
use crate::tunnels::OwnedRecord;

/// The agent at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// This agent first, then its peers by name.
    pub members: Vec<MemberView>,
    /// Numbers of what it holds.
    pub counts: Counts,
    /// Records registered here that lapsed and may be revived.
    pub lapsed: usize,
    /// Tunnels with a record that is known.
    pub tunnels: usize,
    /// The bounds on what it holds.
    pub quota: Quota,
    /// In which order records are listed.
    pub order: Order,
    /// How often something happened to its records.
    pub changes: Changes,
    /// Its journal.
    pub journal: JournalView,
    /// How full its tables are.
    pub levels: Vec<Level>,
    /// Entrypoints of peers that are dialled in vain from here.
    pub unreached: Vec<EntrypointView>,
    /// Entrypoints of our gosts that peers dial in vain, as they say.
    pub own_unreached: Vec<OwnUnreached>,
    /// Where gosts of this host take connections and do not answer, as peers know it.
    pub frozen: BTreeSet<Address>,
    /// Where those are that have not called since this agent started.
    pub uncalled: BTreeSet<Address>,
    /// Whether so many peers vanished together that it was probably us that vanished.
    pub doubts_itself: bool,
    /// Whether it drains.
    pub draining: bool,
    /// Since it was made.
    pub uptime: Duration,
    /// The number of the newest event.
    pub last_event: u64,
}

/// An agent as this one sees it.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// Who.
    pub name: AgentName,
    /// Which of its starts is shown; none if none is.
    pub generation: Option<Generation>,
    /// Its own status; none if it has not published all that it had at its start.
    pub status: Option<Status>,
    /// How its records are treated.
    pub standing: Standing,
    /// Its zone and weight, as it says; those of an agent that says nothing if it does not.
    pub locality: Locality,
    /// The round-trip time to it.
    pub trip: Option<Duration>,
    /// Since its last sign of life, if it is silent.
    pub silence: Option<Duration>,
    /// Its records that are known.
    pub records: usize,
    /// What is held against it.
    pub complaint: Option<Complaint>,
}

/// How the journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalView {
    /// Whether there is one.
    pub present: bool,
    /// Why it does not take what changes, or why there is none although one was wanted.
    pub problem: Option<String>,
    /// Ids and claims that are not on disk yet.
    pub pending: usize,
    /// Bytes of its file, when it was last written.
    pub bytes: u64,
    /// How long the commit under way has taken so far, or else the last one.
    pub commit: Duration,
    /// How long a commit took lately that was late.
    pub late: Option<Duration>,
}

/// A tunnel, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSummary {
    /// Its id.
    pub name: Label,
    /// Records that a Get lists here.
    pub listed: usize,
    /// Records that it may list: if they are more than [`BEST`], each Get lists so many of them.
    pub eligible: usize,
    /// Records that it does not.
    pub hidden: usize,
    /// Their owners.
    pub agents: BTreeSet<AgentName>,
}

/// A record of a tunnel, and what decides about its place in an answer.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its place in an answer, from 0; none if it is not listed.
    pub rank: Option<usize>,
    /// The record.
    pub record: Arc<Record>,
    /// Who holds it, as a member.
    pub owner: MemberView,
    /// What decides about its place.
    pub judged: Judged,
    /// For how long this agent has known it as it is.
    pub known: Duration,
    /// What is left of its lease and the period of its Renews, if it is registered here.
    pub lease: Option<(Duration, Option<Duration>)>,
}

/// A record that is not known any more.
#[derive(Clone, Debug)]
pub struct PastRecord {
    /// The record.
    pub record: Arc<Record>,
    /// Who held it.
    pub owner: Arc<Owner>,
    /// For how long it has been gone.
    pub gone: Duration,
    /// Whether it was registered here and lapsed, so that a Renew brings it back; or else it was let go by its owner.
    pub is_lapsed: bool,
}

impl State {
    /// Whether the records of these peers, and of all others that are alive, are known; and at least one peer is alive, if
    /// this agent looks for peers.
    pub fn has_caught_up<'a>(
        &self,
        now: Instant,
        mut known: impl Iterator<Item = &'a AgentName>,
        joins: bool,
    ) -> bool {
        let is_live = |name: &AgentName| self.liveness.standing(now, name).is_alive();
        // All that it had at its start and until it was asked; of the start that is heard, not of an earlier one.
        let has_told = |name: &AgentName| {
            let shown = self.directory.replicas.generation(name);
            self.directory.replicas.is_complete(name) && shown >= self.heard.get(name).copied()
        };
        // Peers of which only others had a sign count as well: they are met within a moment.
        let others = self.liveness.peers().map(|(name, _)| name);
        let mut others =
            others.filter(|name| self.liveness.standing(now, name) != Standing::Hidden).peekable();
        // Whom a peer knows is told soon after it is met.
        let is_told_of_others =
            self.last_met.as_ref().is_none_or(|(met, name)| now >= *met + self.telling(name));
        !self.reconciliation.is_open()
            && is_told_of_others
            && (!joins || others.peek().is_some())
            && others.all(has_told)
            && known.all(|name| {
                has_told(name)
                    && (is_live(name) || self.directory.replicas.status(name) == Some(Status::Left))
            })
    }

    /// How often Renews of unknown ids were healed from each source; the last is how often not.
    pub fn heals(&self) -> Vec<(HealedFrom, u64)> {
        self.heals.counts()
    }

    /// Whether so many peers vanished together that it was probably us that vanished: an alarm.
    pub fn doubts_itself(&self) -> bool {
        self.liveness.doubts_itself()
    }

    /// Whether indexes are still to be brought in step, which [`Self::due`] does.
    pub fn has_work(&self) -> bool {
        self.directory.has_work()
    }

    /// What is wrong with the journal, if anything is.
    pub fn journal_problem(&self) -> Option<String> {
        self.journal.problem()
    }

    /// The ids of all tunnels, in no particular order.
    pub fn tunnel_ids(&self) -> Vec<Label> {
        self.directory.tunnels.names().cloned().collect()
    }

    /// At most `limit` events after that number; None if some of them are gone.
    pub fn events(&self, after: u64, limit: usize) -> Option<Vec<Logged>> {
        self.log.after(after, limit)
    }

    /// The records of a tunnel that went within the last hour and did not come back, the last one first: as far as the events
    /// that are kept tell, and at most 16.
    pub fn past(&self, now: Instant, name: &str) -> Vec<PastRecord> {
        const MOST: usize = 16;
        let mut seen = BTreeSet::new();
        let lately =
            self.log.newest_first().take_while(|(at, _)| now.saturating_duration_since(*at) < PRESERVE);
        let gone = lately.filter_map(|(at, event)| {
            let (owner, record, is_down) = match event {
                Event::Up(owner, record) => (owner, record, false),
                Event::Down(owner, record) => (owner, record, true),
                _ => return None,
            };
            let is_newest =
                &*record.name.text() == name && seen.insert((owner.name.clone(), record.id.clone()));
            (is_newest && is_down).then(|| PastRecord {
                record: record.clone(),
                owner: owner.clone(),
                gone: now.saturating_duration_since(at),
                is_lapsed: owner.name == self.owner.name && self.leases.is_lapsed(&record.id),
            })
        });
        let mut found: Vec<PastRecord> = gone.take(MOST).collect();
        // What lapsed before a restart, or so many events ago, is in no event any more.
        let label = Label::from(name);
        let lapsed = self.leases.lapsed_of(&label).map(|(record, since)| PastRecord {
            record: record.clone(),
            owner: Arc::new(self.owner.clone()),
            gone: now.saturating_duration_since(since),
            is_lapsed: true,
        });
        let is_new = |past: &PastRecord| !seen.contains(&(past.owner.name.clone(), past.record.id.clone()));
        found.extend(lapsed.filter(is_new).take(MOST.saturating_sub(found.len())));
        found
    }

    /// What the agent holds.
    pub fn counts(&self) -> Counts {
        Counts {
            own_records: self.leases.live(),
            records: self.directory.replicas.records(),
            agents: self.directory.replicas.owners().count(),
            own_claims: self.directory.claims.stated(),
            claims: self.directory.claims.len(),
            private: self.directory.claims.private(),
        }
    }

    /// The agent and its peers.
    pub fn view(&self, now: Instant) -> View {
        let own = &self.owner.name;
        let mut names: BTreeSet<&AgentName> = self.directory.replicas.agents().collect();
        names.extend(self.liveness.peers().map(|(name, _)| name));
        names.remove(own);
        let members = std::iter::once(own).chain(names).map(|name| self.member(now, name));
        View {
            members: members.collect(),
            counts: self.counts(),
            lapsed: self.leases.lapsed(),
            tunnels: self.directory.tunnels.len(),
            quota: self.quota,
            order: self.order,
            changes: self.counts,
            journal: JournalView {
                present: !matches!(self.journal, Health::Absent(_)),
                problem: self.journal.problem(),
                pending: self.touched() + self.writing,
                bytes: self.journal_bytes,
                commit: self.pace.commit(now),
                late: self.pace.late(now),
            },
            levels: self.levels(),
            unreached: self.entrypoints(now).into_iter().filter(|view| view.is_fault).collect(),
            own_unreached: self.own_unreached(now),
            frozen: self.frozen_entrypoints(),
            uncalled: self.uncalled_entrypoints(),
            doubts_itself: self.liveness.doubts_itself(),
            draining: self.drain.on,
            uptime: now.saturating_duration_since(self.started),
            last_event: self.log.last(),
        }
    }

    /// Every record of a tunnel, in the order of an answer, those that are not listed last. Equals take turns in
    /// answers; here it is always the same turn, so that who looks twice sees what changed.
    pub fn explain(&self, now: Instant, name: &str) -> Vec<Candidate> {
        let ranked = self.ranked(now, name).into_iter();
        ranked.map(|(rank, entry)| self.candidate(now, rank, entry)).collect()
    }

    /// The same, and nothing but each record's place in an answer. Of many records, only some of those that are not listed.
    pub fn ranked(&self, now: Instant, name: &str) -> Vec<(Option<usize>, &OwnedRecord)> {
        let entries = self.directory.lookup(name);
        let listed = rank(&entries, self.order, 0, self.judging(now));
        let listed: Vec<&OwnedRecord> = listed.map(|(entry, _)| entry).collect();
        let mut places: Vec<*const OwnedRecord> =
            listed.iter().map(|entry| std::ptr::from_ref(*entry)).collect();
        places.sort_unstable();
        let (is_many, mut judge) = (entries.len() > BEST, self.judging(now));
        // Of many, those that may be listed and are not this time are only counted.
        let is_hidden = |entry: &&OwnedRecord| !is_many || judge(entry).tier().is_none();
        let hidden = entries
            .iter()
            .filter(|entry| places.binary_search(&std::ptr::from_ref(*entry)).is_err())
            .filter(is_hidden)
            .take(BEST);
        let ranks = (0..listed.len()).map(Some).chain(std::iter::repeat(None));
        ranks.zip(listed.iter().copied().chain(hidden)).collect()
    }

    /// The records of a tunnel, in numbers.
    pub fn count_records(&self, now: Instant, name: &str) -> Tally {
        self.tally(now, name)
    }

    /// How the records of an agent are treated.
    pub fn standing(&self, now: Instant, name: &AgentName) -> Standing {
        if *name == self.owner.name { Standing::Live } else { self.liveness.standing(now, name) }
    }

    fn member(&self, now: Instant, name: &AgentName) -> MemberView {
        let generation = self.directory.replicas.generation(name);
        let own = *name == self.owner.name;
        let said = |generation| self.directory.replicas.locality(&Owner { name: name.clone(), generation });
        let locality = if own { Some(&self.locality) } else { generation.and_then(said) };
        MemberView {
            name: name.clone(),
            generation,
            status: self.directory.replicas.status(name),
            standing: self.standing(now, name),
            locality: locality.cloned().unwrap_or_default(),
            trip: if own { Some(Duration::ZERO) } else { self.liveness.trip(name) },
            silence: self.liveness.silence(now, name),
            records: self.directory.replicas.records_of(name),
            complaint: self.complaints.of(now, name),
        }
    }

    /// A tunnel, in short.
    pub fn tunnel(&self, now: Instant, name: Label) -> TunnelSummary {
        let entries = self.directory.lookup(&name.text());
        let listed = rank(&entries, Order::Random, 0, self.judging(now)).count();
        let Tally { known, eligible, agents } = self.tally(now, &name.text());
        // Of few, those that are listed as another record of the same connector are hidden.
        let eligible = if known > BEST { eligible } else { listed };
        TunnelSummary { name, listed, eligible, hidden: known - eligible, agents }
    }

    fn candidate(&self, now: Instant, rank: Option<usize>, entry: &OwnedRecord) -> Candidate {
        let since = self.directory.replicas.known_since(&entry.owner, entry.slot).unwrap_or(now);
        let own = *entry.owner == self.owner;
        Candidate {
            rank,
            record: entry.record.clone(),
            owner: self.member(now, &entry.owner.name),
            judged: self.judging(now)(entry),
            known: now.saturating_duration_since(since),
            lease: own.then(|| self.leases.remaining(now, &entry.record.id)).flatten(),
        }
    }
}
