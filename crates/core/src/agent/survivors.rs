//! Gosts that outlive their agents. One that reads host names from a file, or has a second address of its plugins, serves
//! visitors while its own agent is dead; so the records of a dead peer stay listed, last, while visitors ask for them and
//! their entrypoints answer a dial from here. A record whose entrypoint refuses is stale; one that is silent may cost a
//! visitor 15 s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use super::gosts::Dialled;
use crate::address::Address;
use crate::liveness::{Liveness, PRESERVE, Standing};
use crate::record::{AgentName, Owner};
use crate::tunnels::OwnedRecord;

/// Entrypoints that are dialled, of all silent peers. More are not listed when their agents are dead.
pub(super) const MAX_ENTRYPOINTS: usize = 64;
/// Records of silent peers that are looked at for one question.
const MOST_WANTED: usize = 256;
/// Between two dials of an entrypoint.
const PAUSE: Duration = Duration::from_secs(5);
/// An entrypoint that no visitor wanted for this long is dialled no more.
const WANTED: Duration = Duration::from_secs(60);

/// The entrypoints of silent peers that visitors ask for.
#[derive(Debug, Default)]
pub(super) struct Survivors(HashMap<Address, AwaitedEntrypoint>);

#[derive(Debug)]
struct AwaitedEntrypoint {
    owner: AgentName,
    wanted: Instant,
    /// When it is dialled next.
    due: Instant,
    answers: bool,
    /// Whether the log has that it answers.
    told: bool,
}

impl Survivors {
    /// A visitor asks for a record with this entrypoint.
    fn want(&mut self, now: Instant, address: &Address, owner: &AgentName) {
        if let Some(known) = self.0.get_mut(address) {
            known.wanted = now;
        } else if self.0.len() < MAX_ENTRYPOINTS {
            let known = AwaitedEntrypoint {
                owner: owner.clone(),
                wanted: now,
                due: now,
                answers: false,
                told: false,
            };
            self.0.insert(address.clone(), known);
        }
    }

    /// Those that are to be dialled now; they are due again after a pause.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Address> {
        self.0.retain(|_, known| now.saturating_duration_since(known.wanted) < WANTED);
        let due = self.0.iter_mut().filter(|(_, known)| known.due <= now);
        due.map(|(address, known)| {
            known.due = now + PAUSE;
            address.clone()
        })
        .collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|known| known.due).min()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn answers(&self, address: &Address) -> bool {
        self.0.get(address).is_some_and(|known| known.answers)
    }

    /// Whether any entrypoint of an agent answers.
    fn any_of(&self, owner: &AgentName) -> bool {
        self.0.values().any(|known| known.answers && known.owner == *owner)
    }
}

impl State {
    /// An entrypoint of a silent peer was dialled.
    pub fn survivor_dialled(&mut self, address: &Address, dialled: Dialled) {
        let answers = dialled == Dialled::Answered;
        let Some(known) = self.survivors.0.get_mut(address) else { return };
        if std::mem::replace(&mut known.answers, answers) == answers {
            return;
        }
        let is_news = answers && !std::mem::replace(&mut known.told, true);
        let (agent, entrypoint) = (known.owner.clone(), address.clone());
        self.effects.is_revised = true;
        self.effects.lines.push(if is_news {
            Line::Survives { agent, entrypoint }
        } else {
            Line::SurvivorDialled { agent, entrypoint, dialled }
        });
    }

    /// Notes which entrypoints of silent peers a visitor wants.
    pub(super) fn want(&mut self, now: Instant, name: &str) {
        let Self { directory, liveness, survivors, .. } = self;
        let (mut last, mut wanted) = (None::<(&Arc<Owner>, bool)>, 0);
        for entry in directory.lookup(name).iter() {
            let silent = match last {
                Some((owner, silent)) if Arc::ptr_eq(owner, &entry.owner) => silent,
                _ => last.insert((&entry.owner, is_remembered(liveness, now, &entry.owner.name))).1,
            };
            if silent {
                survivors.want(now, &entry.record.address, &entry.owner.name);
                wanted += 1;
                // Gosts have few entrypoints, and many records each.
                if wanted == MOST_WANTED {
                    break;
                }
            }
        }
    }

    /// Whether the gost of a record answers dials from here.
    pub(super) fn survives(&self, entry: &OwnedRecord) -> bool {
        self.survivors.answers(&entry.record.address)
    }

    /// Whether a peer fell silent so lately that its gost may count without it.
    pub(super) fn is_remembered(&self, now: Instant, owner: &AgentName) -> bool {
        is_remembered(&self.liveness, now, owner)
    }

    /// Whether an agent is dead, and no gost of it is known to live.
    pub(super) fn is_gone(&self, now: Instant, owner: &AgentName) -> bool {
        let survives = || self.survivors.any_of(owner) && is_remembered(&self.liveness, now, owner);
        self.liveness.standing(now, owner) == Standing::Hidden && !survives()
    }
}

/// Whether a peer fell silent so lately that its gost may count without it.
fn is_remembered(liveness: &Liveness, now: Instant, owner: &AgentName) -> bool {
    liveness.silence(now, owner).is_some_and(|silence| silence < PRESERVE)
}

#[cfg(test)]
mod tests;
