//! What gost is answered when it asks where a tunnel is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use crate::liveness::Standing;
use crate::rank::{Judged, rank};
use crate::record::{AgentName, Owner, Record};
use crate::slot::Status;
use crate::tunnels::OwnedRecord;

impl State {
    /// The records of a tunnel name, in the order in which gost should try them. Equals take turns: by a number that is
    /// another one for each answer.
    pub fn resolve(&mut self, now: Instant, name: &str, turn: u64) -> Vec<Arc<Record>> {
        self.want(now, name);
        // What the journal had may have been released since. Reads wait for what peers remember, unless this start ends first.
        let is_open = self.reconciliation.is_open();
        let is_sure = |entry: &&OwnedRecord| !is_open || *entry.owner != self.owner;
        let ranked = rank(&self.directory.lookup(name), self.order, turn, self.judging(now));
        ranked.filter(is_sure).map(|entry| entry.record.clone()).collect()
    }

    /// How records are ranked. What is known of an owner is looked up once for all its records that follow one another.
    pub(super) fn judging(&self, now: Instant) -> impl FnMut(&OwnedRecord) -> Judged {
        let mut last: Option<(Arc<Owner>, Judged, bool)> = None;
        move |entry| {
            let (_, judged, may_survive) = match &last {
                Some(known) if Arc::ptr_eq(&known.0, &entry.owner) => known,
                _ => {
                    let (judged, may_survive) = self.judge(now, &entry.owner);
                    last.insert((entry.owner.clone(), judged, may_survive))
                }
            };
            if *may_survive && self.survives(entry) {
                return Judged { standing: Standing::Suspect, ..*judged };
            }
            *judged
        }
    }

    /// How an owner's records are ranked, and whether one of them may outlive it.
    fn judge(&self, now: Instant, owner: &Owner) -> (Judged, bool) {
        if *owner == self.owner {
            return (Judged { standing: Standing::Live, trip: Some(Duration::ZERO) }, false);
        }
        let standing = match self.directory.replicas.status(&owner.name) {
            Some(Status::Ready) => self.liveness.standing(now, &owner.name),
            Some(Status::Draining | Status::Left) | None => {
                return (Judged { standing: Standing::Hidden, trip: None }, false);
            }
        };
        let may_survive = standing == Standing::Hidden && self.is_remembered(now, &owner.name);
        (Judged { standing, trip: self.liveness.trip(&owner.name) }, may_survive)
    }

    /// Which part of a tunnel's records a Get may list, and whose they all are.
    pub(super) fn tally(&self, now: Instant, name: &str) -> Tally {
        let (entries, mut judge) = (self.directory.lookup(name), self.judging(now));
        let (mut eligible, mut owners) = (0, Vec::<&Arc<Owner>>::new());
        for entry in entries.iter() {
            eligible += usize::from(judge(entry).standing != Standing::Hidden);
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
