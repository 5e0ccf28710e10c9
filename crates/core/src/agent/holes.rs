//! Around a hole. If this host can dial no record of a tunnel that visitors want, and a peer has just said that its host can, an
//! answer begins with the entrypoint of the peer's own gost: gost there asks its own agent, and forwards.
//!
//! Peers are asked beside the calls, once a second while visitors come: a [`Seek`] each, which the peer answers from memory with
//! an [`Offer`] (see [`super::offers`]). There is never a second step: whoever has lately offered to be a detour takes none of
//! its own for that tunnel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use super::effects::Line;
use super::offers::{Detour, Offer};
use super::reach::{By, earlier};
use crate::address::Address;
use crate::hostname::TunnelId;
use crate::rank::{BEST, Reach, Tier};
use crate::record::{AgentName, Network, Owner, Record};
use crate::slot::Status;

/// Tunnels that are watched at a time. Of more, none gets a detour.
pub(super) const MAX_HOLES: usize = 64;
/// Peers that are asked at a time: all, or so many of them by turns.
const MAX_ASKED: usize = 8;
/// Offers that are remembered of one tunnel: of all who were asked while an offer counts.
pub(super) const MAX_OFFERS: usize = 4 * MAX_ASKED;
/// Peers are asked as long as a visitor wanted the tunnel so lately.
const WANTED: Duration = Duration::from_secs(10);
/// How often peers are asked.
const ROUND: Duration = Duration::from_secs(1);
/// A younger hole may be a moment's.
const MIN_AGE: Duration = Duration::from_secs(1);
/// An offer counts for this long after it was asked for: whoever held it back on its way gains nothing.
const COUNTS: Duration = Duration::from_secs(3);

/// For this long after its start, an agent does not know that it was a detour just before.
const NEW: Duration = Duration::from_secs(5);
/// Detours are logged once while there is less than this between them.
const EPISODE: Duration = Duration::from_secs(60);

/// What a peer is asked: whether its host can dial a record of this tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seek {
    /// The peer.
    pub to: AgentName,
    /// Which question this is; the offer repeats it.
    pub id: u64,
    /// The tunnel.
    pub tunnel: TunnelId,
}

/// How visitors get to a tunnel of which this host can dial no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Around {
    /// By a peer's gost.
    Detour {
        /// The peer.
        agent: AgentName,
        /// Where its gost is.
        address: Address,
        /// How long ago it was asked for what it said.
        said: Duration,
    },
    /// Not at all.
    Nothing(NoDetour),
}

/// Why there is no detour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoDetour {
    /// The tunnel is private: gost turns visitors away at an entrypoint.
    Private,
    /// No visitor wanted the tunnel lately, so that nobody was asked.
    Unasked,
    /// There has been no record to dial for a moment only.
    Young,
    /// This host is a detour for others, or may have been one just before it started. A second step may lead back.
    IsDetour,
    /// No peer has said lately that it can dial a record.
    Nobody,
    /// A peer can, and knows no entrypoint of a living gost of its own host.
    NoGost(AgentName),
    /// A peer can, and the entrypoint of its gost does not work from here either, or was not dialled yet.
    Unreached(AgentName, Address),
}

/// The tunnels that are watched: visitors want them, and no record is known to work from here.
#[derive(Debug, Default)]
pub(super) struct Holes {
    watched: BTreeMap<TunnelId, Hole>,
    /// None of them is looked at before.
    soonest: Option<Instant>,
    /// The id of the last question.
    last: u64,
    /// When an answer began with a detour last.
    taken: Option<Instant>,
}

#[derive(Debug)]
struct Hole {
    wanted: Instant,
    /// Since when none of its records can be dialled; none while one perhaps can.
    since: Option<Instant>,
    next_look: Instant,
    /// How many peers were asked so far, as their turns go.
    turn: usize,
    /// Questions that are not answered yet, and when they were asked.
    open: BTreeMap<AgentName, (u64, Instant)>,
    /// What peers answered, and when they were asked.
    offers: BTreeMap<AgentName, (Offer, Instant)>,
}

/// A detour that an answer may begin with.
struct Usable<'a> {
    agent: &'a AgentName,
    detour: &'a Detour,
    asked: Instant,
}

impl Holes {
    /// A visitor wants a tunnel of which no record is known to work. Nothing if there is no room.
    fn want(&mut self, now: Instant, tunnel: TunnelId, is_hole: bool) -> Option<&mut Hole> {
        if !self.watched.contains_key(&tunnel) && !self.has_room(is_hole) {
            return None;
        }
        let hole = self.watched.entry(tunnel).or_insert_with(|| {
            let hole = Hole::new(now, is_hole);
            self.soonest = Some(earlier(self.soonest, hole.next_look));
            hole
        });
        hole.wanted = now;
        hole.look(now, is_hole);
        Some(hole)
    }

    /// Whether there is room for one more. What may be none gives way to a hole.
    fn has_room(&mut self, is_hole: bool) -> bool {
        if self.watched.len() < MAX_HOLES {
            return true;
        }
        let doubtful = self.watched.iter().find(|(_, hole)| is_hole && hole.since.is_none());
        let doubtful = doubtful.map(|(tunnel, _)| *tunnel);
        doubtful.is_some_and(|tunnel| self.watched.remove(&tunnel).is_some())
    }

    /// A dial ended with another outcome than before: what is no hole yet is looked at.
    pub(super) fn look_again(&mut self, now: Instant) {
        for hole in self.watched.values_mut().filter(|hole| hole.since.is_none()) {
            hole.next_look = now;
            self.soonest = Some(now);
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.soonest
    }

    pub(super) fn len(&self) -> usize {
        self.watched.len()
    }

    pub(super) fn offers(&self) -> usize {
        self.watched.values().map(|hole| hole.offers.len()).sum()
    }

    /// Whether that question to a peer is open.
    fn has_asked(&self, of: &AgentName, id: u64) -> bool {
        self.watched.values().any(|hole| hole.has_asked(of, id))
    }

    /// Takes the answer to an open question. Whether it is another than before.
    fn take(&mut self, by: &AgentName, id: u64, offer: Offer) -> bool {
        let hole = self.watched.values_mut().find(|hole| hole.has_asked(by, id));
        hole.is_some_and(|hole| hole.take(by, offer))
    }
}

impl Hole {
    fn new(now: Instant, is_hole: bool) -> Self {
        Self {
            wanted: now,
            since: None,
            next_look: if is_hole { now } else { now + ROUND },
            turn: 0,
            open: BTreeMap::new(),
            offers: BTreeMap::new(),
        }
    }

    fn look(&mut self, now: Instant, is_hole: bool) {
        self.since = is_hole.then(|| self.since.unwrap_or(now));
    }

    fn has_asked(&self, of: &AgentName, id: u64) -> bool {
        self.open.get(of).is_some_and(|(open, _)| *open == id)
    }

    /// Takes a peer's answer. Whether it is another than before.
    fn take(&mut self, by: &AgentName, offer: Offer) -> bool {
        let Some((_, asked)) = self.open.remove(by) else { return false };
        let is_other = self.offers.get(by).is_none_or(|(before, _)| *before != offer);
        self.offers.insert(by.clone(), (offer, asked));
        is_other
    }

    /// Asks peers, of these by their turns.
    fn ask(&mut self, now: Instant, tunnel: TunnelId, peers: &[&AgentName], last: &mut u64) -> Vec<Seek> {
        let counts = |asked: Instant| now.saturating_duration_since(asked) < COUNTS;
        self.open.retain(|_, (_, asked)| counts(*asked));
        self.offers.retain(|_, (_, asked)| counts(*asked));
        let first = self.turn % peers.len().max(1);
        let asked = peers.iter().cycle().skip(first).take(peers.len().min(MAX_ASKED));
        let seeks = asked.map(|peer| {
            *last += 1;
            self.open.insert((*peer).clone(), (*last, now));
            Seek { to: (*peer).clone(), id: *last, tunnel }
        });
        let seeks: Vec<Seek> = seeks.collect();
        self.turn = first + seeks.len();
        seeks
    }
}

impl State {
    /// What an answer begins with if none of its records can be dialled, of which this is the best.
    pub(super) fn go_around(&mut self, now: Instant, best: &Record, tier: Tier) -> Option<Arc<Record>> {
        if is_sure(tier) && self.holes.watched.is_empty() {
            return None;
        }
        let tunnel = TunnelId::parse(&best.name.text())?;
        if is_sure(tier) {
            self.holes.watched.remove(&tunnel);
            return None;
        }
        if self.is_private(tunnel) {
            return None;
        }
        self.holes.want(now, tunnel, is_in_vain(tier))?;
        let Usable { agent, detour, .. } = self.usable(now, tunnel).ok()?;
        let (agent, Detour { node, address }) = (agent.clone(), detour.clone());
        self.counts.detours += 1;
        let last = self.holes.taken.replace(now);
        if last.is_none_or(|last| now.saturating_duration_since(last) >= EPISODE) {
            let entrypoint = address.clone();
            self.effects.lines.push(Line::Detour { tunnel: tunnel.to_string(), agent, entrypoint });
        }
        let (id, name) = (best.id.clone(), best.name.clone());
        Some(Arc::new(Record { id, name, node, network: Network::Tcp, address }))
    }

    /// Looks at the tunnels that are watched, and asks peers where there is a hole.
    pub(super) fn take_seeks(&mut self, now: Instant) -> Vec<Seek> {
        let lately = |hole: &Hole| now.saturating_duration_since(hole.wanted) < WANTED;
        self.holes.watched.retain(|_, hole| lately(hole));
        let due = self.holes.watched.iter().filter(|(_, hole)| hole.next_look <= now);
        let due: Vec<TunnelId> = due.map(|(tunnel, _)| *tunnel).collect();
        let mut seeks = Vec::new();
        for tunnel in due {
            let is_hole = !self.is_private(tunnel) && self.is_hole(now, tunnel);
            let Self { holes: Holes { watched, last, .. }, liveness, directory, .. } = self;
            let Some(hole) = watched.get_mut(&tunnel) else { continue };
            hole.next_look = now + ROUND;
            hole.look(now, is_hole);
            if is_hole {
                let live = liveness.peers().filter(|(_, is_alive)| *is_alive).map(|(name, _)| name);
                let ready = live.filter(|name| directory.replicas.status(name) == Some(Status::Ready));
                let ready: BTreeSet<&AgentName> = ready.collect();
                seeks.extend(hole.ask(now, tunnel, &Vec::from_iter(ready), last));
            }
        }
        self.holes.soonest = self.holes.watched.values().map(|hole| hole.next_look).min();
        seeks
    }

    /// A peer answered.
    pub(super) fn take_offer(&mut self, now: Instant, by: &Owner, id: u64, offer: Offer) {
        if !self.holes.has_asked(&by.name, id) {
            self.counts.offers_dropped += 1;
            return;
        }
        if let Offer::Detour(Detour { address, .. }) = &offer {
            self.reaches.want(now, address, &by.name, false, By::Peer);
        }
        self.effects.is_revised |= self.holes.take(&by.name, id, offer);
    }

    /// How visitors get to a tunnel of which no record can be dialled; none of one that is no hole.
    pub fn around(&self, now: Instant, name: &str) -> Option<Around> {
        let tunnel = TunnelId::parse(name)?;
        if !self.is_hole(now, tunnel) {
            return None;
        }
        Some(match self.usable(now, tunnel) {
            Err(why) => Around::Nothing(why),
            Ok(Usable { agent, detour, asked }) => Around::Detour {
                agent: agent.clone(),
                address: detour.address.clone(),
                said: now.saturating_duration_since(asked),
            },
        })
    }

    /// The nearest detour that an answer may begin with.
    fn usable(&self, now: Instant, tunnel: TunnelId) -> Result<Usable<'_>, NoDetour> {
        if self.is_private(tunnel) {
            return Err(NoDetour::Private);
        }
        if self.offers.has(now, tunnel) || now.saturating_duration_since(self.started) < NEW {
            return Err(NoDetour::IsDetour);
        }
        let hole = self.holes.watched.get(&tunnel);
        let hole = hole.filter(|hole| now.saturating_duration_since(hole.wanted) < WANTED);
        let hole = hole.ok_or(NoDetour::Unasked)?;
        if hole.since.is_none_or(|since| now.saturating_duration_since(since) < MIN_AGE) {
            return Err(NoDetour::Young);
        }
        let (mut why, mut nearest) = (NoDetour::Nobody, None::<(Duration, Usable<'_>)>);
        for (agent, (offer, asked)) in &hole.offers {
            let counts = now.saturating_duration_since(*asked) < COUNTS && self.may_be_detour(now, agent);
            let detour = match offer {
                Offer::Detour(detour) if counts => detour,
                Offer::NoGost if counts && why == NoDetour::Nobody => {
                    why = NoDetour::NoGost(agent.clone());
                    continue;
                }
                Offer::Detour(_) | Offer::NoGost | Offer::Nothing => continue,
            };
            match self.reaches.reach(now, &detour.address) {
                Reach::Works(trip) if nearest.as_ref().is_none_or(|(least, _)| trip < *least) => {
                    nearest = Some((trip, Usable { agent, detour, asked: *asked }));
                }
                Reach::Works(_) => {}
                Reach::Untried | Reach::Refused | Reach::Silent => {
                    why = NoDetour::Unreached(agent.clone(), detour.address.clone());
                }
            }
        }
        nearest.map(|(_, usable)| usable).ok_or(why)
    }

    /// Whether a peer lives, and takes visitors.
    fn may_be_detour(&self, now: Instant, agent: &AgentName) -> bool {
        let is_ready = self.directory.replicas.status(agent) == Some(Status::Ready);
        is_ready && self.liveness.standing(now, agent).is_alive()
    }

    /// Whether a tunnel has records that are listed, and none of them can be dialled.
    fn is_hole(&self, now: Instant, tunnel: TunnelId) -> bool {
        let mut judge = self.judging(now);
        let entries = self.directory.lookup(tunnel.spell(&mut [0; 36]));
        let tcp = entries.iter().filter(|entry| entry.record.network == Network::Tcp);
        let mut tiers = tcp.filter_map(|entry| judge(entry).tier()).peekable();
        tiers.peek().is_some() && tiers.all(is_in_vain)
    }
}

/// Puts a detour before the records of an answer.
pub(super) fn put_first(detour: Option<Arc<Record>>, records: &mut Vec<Arc<Record>>) {
    let Some(detour) = detour else { return };
    records.insert(0, detour);
    records.truncate(BEST);
}

/// Whether records of that tier cannot be dialled from here.
fn is_in_vain(tier: Tier) -> bool {
    tier >= Tier::Unreached
}

/// Whether records of that tier are known to be dialled from here.
fn is_sure(tier: Tier) -> bool {
    use crate::rank::Hope::Works;
    matches!(tier, Tier::Usable(Works) | Tier::Backup(Works) | Tier::Survives)
}

#[cfg(test)]
mod tests;
