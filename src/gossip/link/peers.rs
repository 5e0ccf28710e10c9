//! What there is to do for every peer: pings, suspicion, forgetting. Each look costs as much as there are peers, so they
//! are few, however many frames come.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::Heard;
use super::super::levels::Table;
use super::super::ping::Standing;
use super::super::session::Peer;
use super::{Effect, Link};
use gossd_core::agent::News;

/// A peer not heard for this long gets no pushes: they would only be repeated in vain. Its first frame
/// afterwards starts an exchange that brings it up to date.
pub(super) const SILENT: Duration = Duration::from_secs(5);
/// A peer not heard for this long, of the time in which we ran ourselves, is suspect: hosts die within 3 s.
pub const SUSPECT: Duration = Duration::from_millis(2_600);
/// A peer not heard for this long, when a ping of its own is overdue, is asked for a sign of life.
const DOUBT: Duration = Duration::from_millis(800);
/// A session not heard for this long has to answer a challenge again.
const FORGOTTEN: Duration = Duration::from_secs(86_400);
/// Least time between two looks: of 500 peers a thousand pings are due every second, and no hurry is in any.
const PAUSE: Duration = Duration::from_millis(10);
/// Most time between two.
const STEP: Duration = Duration::from_millis(200);

impl Link {
    /// Pings these addresses from now on: `members`, whom chitchat knows, and those to join at.
    pub fn set_targets(&mut self, now: Instant, members: HashSet<SocketAddr>, joins: &HashSet<SocketAddr>) {
        let mut targets: HashSet<SocketAddr> = members.union(joins).copied().collect();
        self.members = members;
        targets.extend(self.sessions.peers().map(|(peer, _)| peer.addr));
        targets.remove(&self.addr);
        self.pings.set_targets(now, &targets);
        self.looked = None;
    }

    /// When there is something to do for a peer, at the latest a [`STEP`] after we last saw the clock.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let step = self.ran.last.map(|at| at + STEP);
        let due = self.pings.next_deadline().into_iter().chain(step).min()?;
        Some(self.looked.map_or(due, |looked| due.max(looked + PAUSE)))
    }

    /// Suspects, forgets and pings whoever is due for it.
    pub(super) fn look(&mut self, now: Instant, ran: Instant) -> Vec<Effect> {
        self.looked = Some(now);
        if let Some(then) = ran.checked_sub(FORGOTTEN) {
            self.sessions.forget_silent(then);
        }
        let mut effects = Vec::new();
        for (peer, silence) in self.sessions.suspect(ran, SUSPECT) {
            self.counters.suspect();
            self.keys.roll.silent(&peer.owner.name, now.checked_sub(silence).unwrap_or(now));
            effects.push(Effect::Tell(News::Silent { owner: peer.owner, silence }));
        }
        let heard: HashMap<SocketAddr, Standing> =
            self.sessions.peers().map(|(peer, at)| (peer.addr, standing(ran, at))).collect();
        let standing = |addr| heard.get(&addr).copied().unwrap_or(Standing::Stranger);
        for due in self.pings.due(now, standing) {
            let stranger = standing(due.to) == Standing::Stranger;
            let key = if stranger { self.guess_key() } else { self.key_for(due.to) };
            effects.push(self.ping(now, due.to, due.ask, key));
            // The exchange at its admission was lost, or it has been dead for so long that chitchat forgot it.
            if standing(due.to) == Standing::Heard && !self.members.contains(&due.to) {
                effects.push(Effect::Handshake(due.to));
            }
        }
        effects.extend(self.tell_keys(now));
        self.count_tables();
        effects
    }

    fn count_tables(&self) {
        let ((sessions, recent), (targets, pings)) = (self.sessions.len(), self.pings.len());
        for (table, level) in [
            (Table::Sessions, sessions),
            (Table::Recent, recent),
            (Table::Targets, targets),
            (Table::Pings, pings),
            (Table::Contests, self.contests.len()),
            (Table::Roll, self.keys.roll.known().count()),
            (Table::Questions, self.repairs.len()),
            (Table::Pushes, self.pusher.waiting()),
        ] {
            self.counters.levels.set(table, level);
        }
    }

    /// The admitted peers heard of late.
    pub fn live(&self) -> impl Iterator<Item = &Peer> {
        self.sessions.peers().filter(|(_, at)| self.is_heard(*at)).map(|(peer, _)| peer)
    }

    /// The same, with how late their pushes come.
    pub fn heard(&self) -> impl Iterator<Item = Heard> {
        self.sessions.peers_and_lags().filter(|(_, at, _)| self.is_heard(*at)).map(|(peer, _, lag)| Heard {
            owner: peer.owner.clone(),
            addr: peer.addr,
            lag: lag.clone(),
        })
    }

    fn is_heard(&self, at: Instant) -> bool {
        self.ran.now.is_none_or(|ran| ran.saturating_duration_since(at) < SILENT)
    }
}

fn standing(now: Instant, heard: Instant) -> Standing {
    match now.saturating_duration_since(heard) {
        silence if silence < DOUBT => Standing::Heard,
        silence if silence < SUSPECT => Standing::Doubtful,
        _ => Standing::Stranger,
    }
}
