//! What shows that a gost beside this agent lives or that a record of it is stale, besides its Renews: its plugin
//! connections, a dial of its entrypoint, and what it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use crate::address::Address;
use crate::connection::{Caller, ConnectionId};
use crate::entrypoints::{EntrypointKey, Place};
use crate::label::Label;
use crate::lease::{AskOutcome, Holding, Judged, Verdict};
use crate::record::{Draft, Record};

/// After how long a gost that answered is dialled again, as long as no connection of it returns: a process that ends closes
/// its sockets one after the other, those of its plugins perhaps before those of its entrypoint.
const LATER: [Duration; 2] = [Duration::from_millis(40), Duration::from_secs(1)];
/// Gosts that are dialled at a time; more wait for their turn.
pub const MAX_DIALS: usize = 256;
/// Records of one tunnel here, at most, of which a question for the tunnel says something.
const MOST_ASKED: usize = 64;
/// Questions that are evidence, with less than this between them, are logged once.
const EPISODE: Duration = Duration::from_secs(60);

/// What dialling all entrypoints of an instance led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// At least one took the connection.
    Answered,
    /// Each refused it, twice.
    Refused,
    /// It was to answer a request, and did not, although its host takes connections, or takes no more of them.
    Mute,
    /// None of these: silence, no route, no address to dial. No evidence of anything.
    Silent,
}

/// A gost that is to be dialled.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The instance.
    pub node: Label,
    /// Its entrypoints.
    pub addresses: BTreeSet<Address>,
    /// What to wait before.
    pub later: Option<Duration>,
    /// Whether only an answer counts, and not a connection: the kernel makes one with a process that is frozen.
    pub asks: bool,
    /// Whether they are a router's, at UDP ports: the host refuses what is sent to one that nobody has.
    pub is_udp: bool,
    /// How often it answered before.
    answered: usize,
}

impl Dial {
    /// Of an instance, for the first time.
    pub fn of(node: Label, addresses: BTreeSet<Address>) -> Self {
        Self { node, addresses, later: None, asks: false, is_udp: false, answered: 0 }
    }
}

impl State {
    /// A gost was dialled: if it is dead, and did not return meanwhile, its records lapse; of what waited for this dial,
    /// those that it does not answer for. If it is to be dialled once more, how.
    pub fn dialled(&mut self, now: Instant, dial: Dial, dialled: Dialled) -> Option<Dial> {
        let node = &dial.node;
        let is_connected = self.connections.has(&node.text());
        let addresses = dial.addresses.clone();
        self.effects.lines.push(Line::Dialled { node: node.clone(), addresses, dialled });
        self.counts.dialled[dialled as usize] += 1;
        let is_dead = dialled == Dialled::Refused && !is_connected;
        let verdict = match dialled {
            Dialled::Refused if is_dead && !self.broken.leases => Some(Verdict::Dead),
            Dialled::Answered if self.broken.dials => Some(Verdict::Dead),
            Dialled::Answered if dial.asks => {
                self.note_life(now, node);
                Some(Verdict::Answered)
            }
            Dialled::Answered => None,
            Dialled::Mute => {
                self.note_mute(now, node);
                Some(Verdict::Unanswered)
            }
            Dialled::Refused | Dialled::Silent => Some(Verdict::Unanswered),
        };
        if let Some(verdict) = verdict {
            let judged = self.leases.judge(now, node, verdict);
            self.take_judged(now, judged);
        }
        let later = *LATER.get(dial.answered)?;
        let again = dialled == Dialled::Answered && !is_connected && !dial.asks;
        again.then(|| Dial { answered: dial.answered + 1, later: Some(later), ..dial })
    }

    /// Goes on with what verdicts on instances have left to do: false if that is nothing.
    pub fn carry_out(&mut self, now: Instant) -> bool {
        let had = self.leases.has_pending();
        let judged = self.leases.carry_out();
        self.take_judged(now, judged);
        had
    }

    /// Records of an instance have been judged, or some of them.
    fn take_judged(&mut self, now: Instant, judged: Judged) {
        let Judged { changes, ended } = judged;
        self.tell_all(now, changes);
        let Some((node, verdict, records)) = ended.filter(|(_, _, records)| *records > 0) else { return };
        let line = match verdict {
            Verdict::Dead => Line::Gone { node, records },
            Verdict::Unanswered => Line::Unanswered { node, records },
            // What gost did tells it.
            Verdict::Answered | Verdict::Replaced(..) => return,
        };
        self.counts.lapsed += records as u64;
        self.effects.lines.push(line);
    }

    /// A gost of this host asks where a tunnel is: one that had its connector would not ask. So if it is the only gost here,
    /// its own record of the tunnel is stale; one that it has just registered aside.
    pub fn asked(&mut self, now: Instant, connection: ConnectionId, name: &str) {
        if self.broken.leases {
            return;
        }
        let Some((node, ids)) = self.in_question(connection, name) else { return };
        let AskOutcome::Lapsed(change) = self.leases.asked(now, &ids) else { return };
        self.counts.asked += 1;
        self.counts.lapsed += 1;
        self.tell(now, change);
        if self.evidence.begins(now) {
            self.effects.lines.push(Line::Asked { tunnel: name.into(), node, id: ids[0].clone() });
        }
    }

    /// Notes the address with which a gost registered: for calls without one.
    pub fn note_entrypoint(&mut self, caller: Caller, record: &Record, dial: &Address) {
        let key = EntrypointKey { node: record.node.clone(), routers: record.is_routers() };
        let place = Place { address: record.address.clone(), dial: dial.clone() };
        self.entrypoints.note(key, caller.remote, place);
    }

    /// Where an entrypoint is that a Register does not name: where its instance registered last, or else any gost of the
    /// caller's host.
    pub fn registered_last(&self, caller: Caller, draft: Draft<'_>) -> Option<Place> {
        let key = key_of(draft);
        // From the journal of an agent that noted no entrypoints.
        let sibling = self.place_of_sibling(&key).filter(|place| !place.dial.is_empty());
        let noted =
            || self.entrypoints.of(&key).or_else(|| self.entrypoints.last(caller.remote, key.routers));
        sibling.or_else(|| noted().cloned())
    }

    /// Whether a record of a tunnel is ours.
    pub fn has_own(&self, name: &str) -> bool {
        self.directory.lookup(name).iter().any(|entry| *entry.owner == self.owner)
    }

    /// Gosts that are to be dialled.
    pub(super) fn dials(
        &mut self,
        trials: BTreeSet<Label>,
        room: usize,
        is_dialled: impl Fn(&Label) -> bool,
    ) -> Vec<Dial> {
        let orphans = self.connections.take_orphans(room, |node| is_dialled(&node.into()));
        let orphans = orphans.iter().map(|node| Label::from(&**node));
        // A gost on trial has nothing but its answer to show that it is not frozen. One that is being dialled already is
        // on trial again soon.
        let asked = trials.into_iter().filter(|node| !is_dialled(node)).map(|node| (node, true));
        let nodes: BTreeMap<Label, bool> =
            orphans.map(|node| (node, false)).chain(asked).take(room).collect();
        let dials = nodes.into_iter().map(|(node, asks)| {
            let addresses = self.leases.dials(&node);
            if addresses.is_empty() && !asks {
                let routers = self.leases.router_dials(&node);
                return Dial { is_udp: true, ..Dial::of(node, routers) };
            }
            Dial { asks, ..Dial::of(node, addresses) }
        });
        dials.filter(|dial| !dial.addresses.is_empty()).collect()
    }

    /// The instance that asks for a tunnel which is registered here for it, with the ids of that; none if another gost may
    /// be asking.
    fn in_question(&self, connection: ConnectionId, name: &str) -> Option<(Label, Vec<Label>)> {
        let own = self.directory.lookup(name).iter().filter(|entry| *entry.owner == self.owner);
        let own: Vec<&Record> = own.map(|entry| &*entry.record).take(MOST_ASKED + 1).collect();
        // It has lost one of so many, if any: no evidence against one of them.
        if own.len() > MOST_ASKED {
            return None;
        }
        let node = own.first()?.node.clone();
        let ids = own.iter().map(|record| record.id.clone()).collect();
        let text = node.text();
        let other = |other: &str| *other != *text && !self.leases.is_routers(&other.into());
        let is_only = self.leases.is_the_only_one(&node) && !self.connections.nodes().any(other);
        // gost's calls share its connections.
        let may_be_it = self.connections.has_spoken(connection, &text) || !self.connections.has(&text);
        let is_it = is_only && may_be_it;
        is_it.then(|| (node.clone(), ids))
    }

    /// Where the other records of an instance and handler are.
    pub(super) fn place_of_sibling(&self, key: &EntrypointKey) -> Option<Place> {
        let Holding { record, dial } = self.leases.sibling(&key.node, key.routers)?;
        Some(Place { address: record.address.clone(), dial: dial.clone() })
    }
}

/// The handler that a call is from: only the names of gost's router handler have an `@`.
pub(super) fn key_of(draft: Draft<'_>) -> EntrypointKey {
    EntrypointKey { node: draft.node.into(), routers: draft.name.contains('@') }
}

/// Which questions of gosts were logged.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    last: Option<Instant>,
}

impl Evidence {
    /// Whether a question is the first one for a while.
    fn begins(&mut self, now: Instant) -> bool {
        let last = self.last.replace(now);
        last.is_none_or(|last| now.saturating_duration_since(last) >= EPISODE)
    }
}

#[cfg(test)]
mod tests;
