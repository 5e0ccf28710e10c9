//! What gost is answered when it asks where a tunnel is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use super::holes::put_first;
use super::reach::By;
use crate::liveness::Standing;
use crate::locality::MAX_WEIGHT;
use crate::rank::{Judged, Reach, rank};
use crate::record::{AgentName, Network, Owner, Record};
use crate::replicas::Said;
use crate::slot::Status;
use crate::tunnels::OwnedRecord;

/// What is known of an owner.
#[derive(Clone, Copy, Debug, Default)]
struct JudgedOwner {
    judged: Judged,
    is_own: bool,
    /// Whether it says of any entrypoint that it does not reach it.
    has_faults: bool,
    /// Whether its gost may count without it.
    may_survive: bool,
}

impl State {
    /// The records of a tunnel name, in the order in which gost should try them. Equals take turns: by a number that is
    /// another one for each answer.
    pub fn resolve(&mut self, now: Instant, name: &str, turn: u64) -> Vec<Arc<Record>> {
        let entries = self.directory.lookup(name);
        self.reaches.want_all(now, &self.liveness, &self.owner, &entries, By::Visitor);
        // What the journal had may have been released since. Reads wait for what peers remember, unless this start ends first.
        let is_open = self.reconciliation.is_open();
        let is_sure = |entry: &OwnedRecord| !is_open || *entry.owner != self.owner;
        let ranked = rank(&entries, self.order, turn, self.judging(now));
        let mut best = None;
        let listed = ranked.filter(|(entry, _)| is_sure(entry)).map(|(entry, tier)| {
            if best.is_none() && entry.record.network == Network::Tcp {
                best = Some((entry.record.clone(), tier));
            }
            entry.record.clone()
        });
        let mut records: Vec<Arc<Record>> = listed.collect();
        if let Some((best, tier)) = best {
            put_first(self.go_around(now, &best, tier), &mut records);
        }
        records
    }

    /// How records are ranked. What is known of an owner is looked up once for all its records that follow one another.
    pub(super) fn judging(&self, now: Instant) -> impl FnMut(&OwnedRecord) -> Judged {
        let mut last: Option<(Arc<Owner>, JudgedOwner)> = None;
        move |entry| {
            let (_, owner) = match &last {
                Some(known) if Arc::ptr_eq(&known.0, &entry.owner) => known,
                _ => last.insert((entry.owner.clone(), self.judge(now, &entry.owner))),
            };
            let mut judged = owner.judged;
            judged.is_frozen = owner.has_faults && self.says_unreached(&entry.owner, &entry.record.address);
            judged.survives = owner.may_survive && self.survives(entry);
            if !owner.is_own {
                judged.reach = self.reach(now, entry);
                if let Reach::Works(trip) = judged.reach {
                    judged.trip = Some(trip);
                }
            }
            judged
        }
    }

    /// How an owner's records are ranked, as far as that does not differ between them.
    fn judge(&self, now: Instant, owner: &Owner) -> JudgedOwner {
        if *owner == self.owner {
            let judged = Judged {
                standing: Standing::Live,
                reach: Reach::Works(Duration::ZERO),
                weight: self.locality.weight,
                trip: Some(Duration::ZERO),
                ..Judged::default()
            };
            let has_faults = self.reaches.has_stated();
            return JudgedOwner { judged, is_own: true, has_faults, may_survive: false };
        }
        let Said { status, locality, has_faults } = self.directory.replicas.said(owner);
        let (standing, trip) = match status {
            Some(Status::Ready) => self.liveness.standing_and_trip(now, &owner.name),
            Some(Status::Draining | Status::Left) | None => return JudgedOwner::default(),
        };
        let judged = Judged {
            standing,
            is_far: !self.locality.zone.is_empty()
                && !locality.is_some_and(|locality| locality.is_near(&self.locality)),
            weight: locality.map_or(MAX_WEIGHT, |locality| locality.weight),
            trip,
            ..Judged::default()
        };
        let may_survive = !standing.is_alive() && self.is_remembered(now, &owner.name);
        JudgedOwner { judged, is_own: false, has_faults, may_survive }
    }

    /// Which part of a tunnel's records a Get may list, and whose they all are.
    pub(super) fn tally(&self, now: Instant, name: &str) -> Tally {
        let (entries, mut judge) = (self.directory.lookup(name), self.judging(now));
        let (mut eligible, mut owners) = (0, Vec::<&Arc<Owner>>::new());
        for entry in entries.iter() {
            eligible += usize::from(judge(entry).tier().is_some());
            if owners.last().is_none_or(|last| !Arc::ptr_eq(last, &entry.owner)) {
                owners.push(&entry.owner);
            }
        }
        Tally {
            known: entries.len(),
            eligible,
            agents: owners.iter().map(|owner| owner.name.clone()).collect(),
        }
    }
}

/// The records of a tunnel, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub known: usize,
    /// Those whose owner is not hidden: of more than [`BEST`], an answer lists so many.
    ///
    /// [`BEST`]: crate::rank::BEST
    pub eligible: usize,
    /// Their owners.
    pub agents: BTreeSet<AgentName>,
}
