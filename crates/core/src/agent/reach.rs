//! Whether this host reaches the entrypoints that its visitors ask for. gost dials the first record of an answer, once, for 15 s,
//! so whether an entrypoint takes connections *from here* is found out before a visitor needs it: by a dial, beside the
//! calls.
//!
//! Of a peer that is heard, a connection is enough. The gost of a peer that is not heard has to answer a request as well, because the
//! kernel takes connections for a process that is frozen. One that reads host names from a file, or has a second address of
//! its plugins, serves visitors while its own agent is dead; so the records of a dead peer stay listed, last, while
//! visitors ask for them and their entrypoints answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use crate::address::Address;
use crate::event::Event;
use crate::liveness::{Liveness, PRESERVE, Standing};
use crate::rank::Reach;
use crate::record::{AgentName, Owner};
use crate::slot::{Slot, SlotTable, Unreached, Write};
use crate::tunnels::{Entries, OwnedRecord};

/// Entrypoints that are dialled. More are not, and count as not tried.
pub(super) const MAX_ENTRYPOINTS: usize = 64;
/// Records that are looked at for one question.
const MOST_WANTED: usize = 256;
/// Between two dials if there are many: ten a second.
const DIAL_PACE: Duration = Duration::from_millis(100);
/// So far ahead of its pace a dial may be: ten at once, after a pause.
const AHEAD: Duration = Duration::from_millis(900);
/// Between two dials of an entrypoint that takes connections; after [`SETTLED`] of that; and of a silent peer's.
const PAUSE: Duration = Duration::from_secs(10);
const LONG_PAUSE: Duration = Duration::from_secs(60);
const SILENT_PAUSE: Duration = Duration::from_secs(5);
const SETTLED: Duration = Duration::from_secs(600);
/// Between two dials of one that does not: this, then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// An entrypoint that nobody wanted for this long is dialled no more.
const WANTED: Duration = Duration::from_secs(60);
/// A connection shows something for this long: for the longest pause, and the dial after it.
const FRESH: Duration = Duration::from_secs(75);
/// An entrypoint that no visitor wanted for this long is forgotten, with its verdict.
const REMEMBERED: Duration = Duration::from_secs(3_600);
/// One that visitors want gives way to none that others want, until they did not want it for this long.
const GIVES_WAY: Duration = Duration::from_secs(10);
/// Of one tunnel, at most, for a peer.
const MOST_FOR_PEER: usize = 8;
/// While more entrypoints are dialled, none is for a peer that was not before: the rest is for visitors.
const FOR_PEERS: usize = MAX_ENTRYPOINTS / 2;
/// So many dials in vain, one after the other, are a fault; a gost that is just being started refuses one.
const FAULT: u32 = 2;
/// How often the log has that an entrypoint is not reached.
const AGAIN: Duration = Duration::from_secs(3_600);

/// Who wants an entrypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A visitor at a gost of this host.
    Visitor,
    /// A peer whose host looks for a detour; or this one, which looks for a detour by it.
    Peer,
}

/// How one dial of an entrypoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It took the connection, and answered if it was asked, after a round trip.
    Works(Duration),
    /// It refused.
    Refused,
    /// It did neither in time; or its name does not resolve.
    Silent,
}

/// An entrypoint to be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// `host:port`; the host may be a name.
    pub address: Address,
    /// Whether only an answer counts, and not a connection.
    pub asks: bool,
}

/// An entrypoint that visitors want, here or at a peer, and what dialling it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrypointView {
    /// Where.
    pub address: Address,
    /// Whose.
    pub owner: AgentName,
    /// What dials showed.
    pub reach: Reach,
    /// For how long that has been so.
    pub since: Duration,
    /// How long ago it was dialled last.
    pub age: Option<Duration>,
    /// Whether it is a fault: dialled in vain more than once, of a peer that is heard.
    pub is_fault: bool,
}

/// The entrypoints that visitors ask for.
#[derive(Debug)]
pub(super) struct Reaches {
    known: BTreeMap<Address, KnownEntrypoint>,
    /// None of them is due before: a call must not look at all of them.
    soonest: Option<Instant>,
    /// When the next dial may be, if all dials so far were as far apart as they may be.
    next_dial: Option<Instant>,
    slots: SlotTable,
    /// The faults that peers are told of.
    stated: BTreeMap<Address, (Slot, Arc<Unreached>)>,
}

#[derive(Debug)]
struct KnownEntrypoint {
    owner: AgentName,
    wanted: Instant,
    /// When a visitor here wanted it last.
    visited: Option<Instant>,
    next: Next,
    /// Whether a connection is not enough.
    asks: bool,
    /// How the last dial ended.
    tried: Option<Tried>,
    /// Whether that one asked.
    asked: bool,
    at: Instant,
    /// Since when it has been as it is: works, or does not.
    since: Instant,
    /// Dials in vain since one was not.
    failures: u32,
    /// When the log had last that it is not reached; none if it has that it is reached again.
    told: Option<Instant>,
    /// Whether the log has that it survives its agent.
    is_survivor: bool,
}

/// When an entrypoint is dialled next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    At(Instant),
    /// It is being dialled, and asked or not.
    Running(bool),
    /// Not before a visitor wants it again.
    Idle,
}

impl Default for Reaches {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            soonest: None,
            next_dial: None,
            slots: SlotTable::for_unreached(),
            stated: BTreeMap::new(),
        }
    }
}

impl Reaches {
    /// Notes which entrypoints of a tunnel's entries somebody wants. The owner's own agent dials nothing of its own.
    pub(super) fn want_all(
        &mut self,
        now: Instant,
        liveness: &Liveness,
        us: &Owner,
        entries: &Entries<'_>,
        by: By,
    ) {
        let mut last = None::<(&OwnedRecord, Option<bool>)>;
        let mut room = if by == By::Peer { MOST_FOR_PEER } else { MOST_WANTED };
        // A router's entrypoint is a UDP port.
        for entry in entries.iter().take(MOST_WANTED).filter(|entry| !entry.record.is_routers()) {
            let asks = match last {
                // Gosts have few entrypoints, and many records each.
                Some((seen, asks)) if Arc::ptr_eq(&seen.owner, &entry.owner) => {
                    if seen.record.address == entry.record.address {
                        continue;
                    }
                    asks
                }
                _ if *entry.owner == *us => None,
                _ => match liveness.standing(now, &entry.owner.name) {
                    Standing::Live | Standing::Doubted => Some(false),
                    Standing::Suspect | Standing::Hidden => {
                        is_remembered(liveness, now, &entry.owner.name).then_some(true)
                    }
                },
            };
            last = Some((entry, asks));
            if let Some(asks) = asks
                && room > 0
            {
                room -= 1;
                self.want(now, &entry.record.address, &entry.owner.name, asks, by);
            }
        }
    }

    /// Somebody asks for a record with this entrypoint.
    pub(super) fn want(&mut self, now: Instant, address: &Address, owner: &AgentName, asks: bool, by: By) {
        let visited = (by == By::Visitor).then_some(now);
        if let Some(known) = self.known.get_mut(address) {
            known.wanted = now;
            known.visited = visited.or(known.visited);
            if known.owner != *owner {
                known.owner = owner.clone();
            }
            // What a connection showed says nothing of a gost whose agent is silent.
            if known.next == Next::Idle || asks && !known.asks && !known.is_running() {
                known.next = Next::At(now);
                self.soonest = Some(earlier(self.soonest, now));
            }
            known.asks = asks;
        } else if self.has_room(now, by) && !address.is_empty() {
            let known = KnownEntrypoint {
                owner: owner.clone(),
                wanted: now,
                visited,
                next: Next::At(now),
                asks,
                tried: None,
                asked: false,
                at: now,
                since: now,
                failures: 0,
                told: None,
                is_survivor: false,
            };
            self.known.insert(address.clone(), known);
            self.soonest = Some(earlier(self.soonest, now));
        }
    }

    /// Whether there is room for one more; the one that was not wanted for longest gives way.
    fn has_room(&mut self, now: Instant, by: By) -> bool {
        if self.known.len() < MAX_ENTRYPOINTS {
            return by == By::Visitor || self.known.len() < FOR_PEERS;
        }
        if by == By::Peer {
            return false;
        }
        let oldest = self.known.iter().filter(|(_, known)| !known.is_running());
        let oldest = oldest.min_by_key(|(_, known)| known.wanted);
        let oldest = oldest.filter(|(_, known)| now.saturating_duration_since(known.wanted) >= GIVES_WAY);
        let Some(address) = oldest.map(|(address, _)| address.clone()) else { return false };
        self.known.remove(&address).is_some()
    }

    /// Those that are to be dialled now, at a bounded pace.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Try> {
        self.known.retain(|_, known| {
            known.is_running() || now.saturating_duration_since(known.wanted) < REMEMBERED
        });
        let mut due = Vec::new();
        for (address, known) in &mut self.known {
            let Next::At(at) = known.next else { continue };
            if now.saturating_duration_since(known.wanted) >= WANTED {
                known.next = Next::Idle;
            } else if at <= now {
                due.push((at, address, known));
            }
        }
        due.sort_by(|(at, address, _), (other_at, other, _)| (at, address).cmp(&(other_at, other)));
        let mut tries = Vec::new();
        for (_, address, known) in due {
            // As many at once as in a second, and then one after the other.
            let next_dial = self.next_dial.filter(|next| *next > now).unwrap_or(now);
            if next_dial > now + AHEAD {
                break;
            }
            self.next_dial = Some(next_dial + DIAL_PACE);
            known.next = Next::Running(known.asks);
            tries.push(Try { address: address.clone(), asks: known.asks });
        }
        self.soonest = self.known.values().filter_map(KnownEntrypoint::due).min();
        tries
    }

    /// An agent is heard again. What dials showed while it was not says nothing of the way to its entrypoints any more: they are
    /// dialled at once, and are no fault before that. Whether there are any.
    pub(super) fn met_again(&mut self, now: Instant, owner: &AgentName) -> bool {
        let in_vain = |known: &&mut KnownEntrypoint| known.owner == *owner && known.failures > 0;
        let mut any = false;
        for known in self.known.values_mut().filter(in_vain) {
            known.failures = 0;
            if !known.is_running() {
                known.next = Next::At(now);
                self.soonest = Some(earlier(self.soonest, now));
            }
            any = true;
        }
        any
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        // Whoever is due waits for the pace.
        let paced = self.next_dial.and_then(|next| next.checked_sub(AHEAD));
        self.soonest.map(|due| paced.map_or(due, |paced| due.max(paced)))
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// What is known of an entrypoint from here.
    pub(super) fn reach(&self, now: Instant, address: &Address) -> Reach {
        self.known.get(address).map_or(Reach::Untried, |known| known.reach(now))
    }

    /// Whether peers are told of any entrypoint that is not reached from here; one of our own gosts may be among them.
    pub(super) fn has_stated(&self) -> bool {
        !self.stated.is_empty()
    }

    /// Whether the gost of a silent peer answers there.
    fn answers(&self, address: &Address) -> bool {
        self.known.get(address).is_some_and(KnownEntrypoint::answers)
    }

    /// Whether any entrypoint of an agent answers.
    fn any_of(&self, owner: &AgentName) -> bool {
        self.known.values().any(|known| known.owner == *owner && known.answers())
    }
}

impl KnownEntrypoint {
    fn is_running(&self) -> bool {
        matches!(self.next, Next::Running(_))
    }

    fn due(&self) -> Option<Instant> {
        match self.next {
            Next::At(at) => Some(at),
            Next::Running(_) | Next::Idle => None,
        }
    }

    fn answers(&self) -> bool {
        self.asked && matches!(self.tried, Some(Tried::Works(_)))
    }

    fn reach(&self, now: Instant) -> Reach {
        match self.tried {
            None => Reach::Untried,
            Some(Tried::Works(_)) if now.saturating_duration_since(self.at) >= FRESH => Reach::Untried,
            Some(Tried::Works(trip)) => Reach::Works(trip),
            Some(Tried::Refused) => Reach::Refused,
            Some(Tried::Silent) => Reach::Silent,
        }
    }

    /// Whether it is dialled in vain, and visitors here want it.
    fn is_fault(&self, liveness: &Liveness, now: Instant) -> bool {
        let is_visited = self.visited.is_some_and(|at| now.saturating_duration_since(at) < WANTED);
        self.failures >= FAULT
            && is_visited
            && self.next != Next::Idle
            && liveness.standing(now, &self.owner).is_alive()
    }

    fn take(&mut self, now: Instant, tried: Tried) {
        let works = matches!(tried, Tried::Works(_));
        if self.tried.is_none_or(|before| matches!(before, Tried::Works(_)) != works) {
            self.since = now;
        }
        self.failures = if works { 0 } else { self.failures.saturating_add(1) };
        // Its agent may have fallen silent since the dial began.
        let asked = self.next == Next::Running(true);
        (self.tried, self.at, self.asked) = (Some(tried), now, asked);
        let settled = now.saturating_duration_since(self.since) >= SETTLED;
        let pause = match self.failures {
            0 if self.asks && !asked => Duration::ZERO,
            0 if self.asks => SILENT_PAUSE,
            0 if settled => LONG_PAUSE,
            0 => PAUSE,
            failures => (FIRST_RETRY * 2_u32.pow(failures.min(6) - 1)).min(LAST_RETRY),
        };
        self.next = Next::At(now + pause);
    }
}

impl State {
    /// An entrypoint was dialled.
    pub fn tried(&mut self, now: Instant, address: &Address, tried: Tried) {
        let Some(known) = self.reaches.known.get_mut(address) else { return };
        let before = (known.reach(now), known.answers());
        known.take(now, tried);
        if let Some(due) = known.due() {
            self.reaches.soonest = Some(earlier(self.reaches.soonest, due));
        }
        let is_other = std::mem::discriminant(&before.0) != std::mem::discriminant(&known.reach(now))
            || before.1 != known.answers();
        let (agent, entrypoint) = (known.owner.clone(), address.clone());
        if known.is_fault(&self.liveness, now) {
            if known.told.is_none_or(|told| now.saturating_duration_since(told) >= AGAIN) {
                known.told = Some(now);
                let by = vec![self.owner.name.clone()];
                self.log.extend(now, [Event::Unreached(agent.clone(), entrypoint.clone(), by)]);
                self.effects.is_revised = true;
                self.effects.lines.push(Line::Unreached { agent, entrypoint, tried });
            }
        } else if known.failures == 0 && known.told.take().is_some() {
            self.log.extend(now, [Event::Reached(agent.clone(), entrypoint.clone())]);
            self.effects.lines.push(Line::Reached { agent, entrypoint });
        } else if known.answers() && !std::mem::replace(&mut known.is_survivor, true) {
            self.effects.lines.push(Line::Survives { agent, entrypoint });
        } else if is_other {
            self.effects.lines.push(Line::Tried { agent, entrypoint, tried });
        }
        self.effects.is_revised |= is_other;
        if is_other {
            self.holes.look_again(now);
        }
        self.counts.tried[match tried {
            Tried::Works(_) => 0,
            Tried::Refused => 1,
            Tried::Silent => 2,
        }] += 1;
        self.state_faults(now);
    }

    /// Notes that somebody wants a tunnel's entrypoints.
    pub(super) fn want(&mut self, now: Instant, name: &str, by: By) {
        self.reaches.want_all(now, &self.liveness, &self.owner, &self.directory.lookup(name), by);
    }

    /// Tells peers which entrypoints are not reached from here, and which are again.
    pub(super) fn state_faults(&mut self, now: Instant) {
        let (frozen, uncalled) = (self.frozen_entrypoints(), self.uncalled_entrypoints());
        let Reaches { known, slots, stated, .. } = &mut self.reaches;
        let is_fault = |address: &Address| match known.get(address) {
            _ if frozen.contains(address) => Some(Tried::Silent),
            // No gost of ours refuses and stays: of one of them, this is the other thing that there is to say.
            _ if uncalled.contains(address) => Some(Tried::Refused),
            Some(known) if known.is_fault(&self.liveness, now) => known.tried,
            Some(_) | None => None,
        };
        let mut writes: Vec<Write> = Vec::new();
        stated.retain(|address, (slot, _)| {
            let stays = is_fault(address).is_some();
            if !stays {
                writes.push(slots.clear(*slot));
            }
            stays
        });
        for address in known.keys().chain(&frozen).chain(&uncalled) {
            let Some(tried) = is_fault(address) else { continue };
            let unreached = Unreached { entrypoint: address.clone(), is_silent: tried == Tried::Silent };
            match stated.get_mut(address) {
                Some((_, before)) if **before == unreached => {}
                Some((slot, before)) => {
                    *before = Arc::new(unreached);
                    writes.push(slots.replace(*slot, before.clone()));
                }
                None => {
                    let unreached = Arc::new(unreached);
                    let Ok(write) = slots.put(unreached.clone()) else { continue };
                    stated.insert(address.clone(), (write.slot, unreached));
                    writes.push(write);
                }
            }
        }
        self.tell_all(now, writes);
    }

    /// The entrypoints that visitors want, here or at a peer, by their addresses.
    pub fn entrypoints(&self, now: Instant) -> Vec<EntrypointView> {
        let view = |(address, known): (&Address, &KnownEntrypoint)| EntrypointView {
            address: address.clone(),
            owner: known.owner.clone(),
            reach: known.reach(now),
            since: now.saturating_duration_since(known.since),
            age: known.tried.map(|_| now.saturating_duration_since(known.at)),
            is_fault: known.is_fault(&self.liveness, now),
        };
        self.reaches.known.iter().map(view).collect()
    }

    /// What dials from here showed of a record's entrypoint.
    pub(super) fn reach(&self, now: Instant, entry: &OwnedRecord) -> Reach {
        // A router's entrypoint is a UDP port; gost's tunnel handler may have the same number.
        if entry.record.is_routers() {
            Reach::Untried
        } else {
            self.reaches.reach(now, &entry.record.address)
        }
    }

    /// Whether the gost of a record answers dials from here although its agent does not.
    pub(super) fn survives(&self, entry: &OwnedRecord) -> bool {
        self.reaches.answers(&entry.record.address)
    }

    /// Whether a peer fell silent so lately that its gost may count without it.
    pub(super) fn is_remembered(&self, now: Instant, owner: &AgentName) -> bool {
        is_remembered(&self.liveness, now, owner)
    }

    /// Whether an agent is dead, and no gost of it is known to live.
    pub(super) fn is_gone(&self, now: Instant, owner: &AgentName) -> bool {
        let survives = || self.reaches.any_of(owner) && is_remembered(&self.liveness, now, owner);
        self.liveness.standing(now, owner) == Standing::Hidden && !survives()
    }

    /// Whether an owner says that the entrypoint of a record of its own does not answer.
    pub(super) fn says_unreached(&self, owner: &Owner, address: &Address) -> bool {
        self.directory.replicas.unreached_by(owner).any(|unreached| unreached.entrypoint == *address)
    }
}

/// The earlier one of what is due first so far and another.
pub(super) fn earlier(first: Option<Instant>, other: Instant) -> Instant {
    first.map_or(other, |first| first.min(other))
}

/// Whether a peer fell silent so lately that its gost may count without it.
fn is_remembered(liveness: &Liveness, now: Instant, owner: &AgentName) -> bool {
    liveness.silence(now, owner).is_some_and(|silence| silence < PRESERVE)
}

#[cfg(test)]
mod tests;
