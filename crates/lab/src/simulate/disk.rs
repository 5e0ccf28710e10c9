//! What is on a host's disk: the journal, as what was written to it last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gossd_core::agent::{Batch, Restored};
use gossd_core::entrypoints::{EntrypointKey, Registered};
use gossd_core::hostname::{Claim, ClaimKey};
use gossd_core::label::Label;
use gossd_core::lease::{KeptLeases, Word};
use gossd_core::record::Generation;
use gossd_core::slot::Version;
use gossd_core::tombstone::Release;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Disk {
    words: BTreeMap<Label, Word>,
    released: Vec<(Label, Release)>,
    periods: BTreeMap<Label, Duration>,
    entrypoints: BTreeMap<EntrypointKey, Registered>,
    draining: bool,
    claims: BTreeMap<ClaimKey, Arc<Claim>>,
    generation: Generation,
    told: Option<(Generation, Version)>,
}

impl Disk {
    /// The next start is above that one.
    pub(super) fn rise_above(&mut self, generation: Generation) {
        self.generation = self.generation.max(generation);
    }

    /// What an agent starts with, when the wall clock shows so many milliseconds since 1970. Two starts from one copy are not
    /// the same start.
    pub(super) fn restore(&mut self, wall: u64, drawn: u16) -> (Generation, Restored) {
        self.generation = wall.max(self.generation + 1 + u64::from(drawn));
        let (mut held, mut lapsed) = (Vec::new(), Vec::new());
        for word in self.words.values() {
            match word {
                Word::Held(holding) => held.push(holding.clone()),
                Word::Lapsed(holding) => lapsed.push(holding.clone()),
                Word::Released(_) | Word::Forgotten => {}
            }
        }
        let periods = self.periods.clone().into_iter().collect();
        let leases = KeptLeases { held, unconfirmed: None, lapsed, released: self.released.clone(), periods };
        let entrypoints = self.entrypoints.values().cloned().collect();
        let claims = self.claims.values().map(|claim| (**claim).clone()).collect();
        (self.generation, Restored { leases, entrypoints, claims, draining: self.draining, told: self.told })
    }

    /// Writes what changed.
    pub(super) fn write(&mut self, batch: Batch) {
        let Batch { words, claims, periods, entrypoints, draining, told } = batch;
        for (id, word) in words {
            self.released.retain(|(released, _)| *released != id);
            match word {
                Word::Released(release) => {
                    self.words.remove(&id);
                    self.released.push((id, release));
                }
                Word::Forgotten => drop(self.words.remove(&id)),
                Word::Held(_) | Word::Lapsed(_) => drop(self.words.insert(id, word)),
            }
        }
        for (node, period) in periods {
            match period {
                Some(period) => drop(self.periods.insert(node, period)),
                None => drop(self.periods.remove(&node)),
            }
        }
        for (key, registered) in entrypoints {
            match registered {
                Some(registered) => drop(self.entrypoints.insert(key, registered)),
                None => drop(self.entrypoints.remove(&key)),
            }
        }
        self.draining = draining.unwrap_or(self.draining);
        self.told = told.map(|told| (self.generation, told)).or(self.told);
        for (key, claim) in claims {
            match claim {
                Some(claim) => drop(self.claims.insert(key, claim)),
                None => drop(self.claims.remove(&key)),
            }
        }
    }
}
