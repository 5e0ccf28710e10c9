//! Watching, where not everybody watches everybody ([`super::plan`]). An agent gives its watchers signs of life, and nobody
//! else. A watcher that misses them tells everybody, again and again while it does. What three of them say is enough to doubt the
//! agent, and to ask it; it is suspect if it leaves that question unanswered as well, since their words may be old or lies. Who
//! answers lives. An agent asks everybody once in a while, one that somebody has missed for long at once, and all of them when
//! most of those whom it watches itself are silent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::frame::Index;
use super::look::{DOUBTED, SUSPECT};
use super::peers::{KnownPeer, PeerContact, Peers};
use super::ping::Nearness;
use super::plan::Plan;
use super::session::Session;
use super::wire::{self, Kind};
use super::{Link, Peer};
use crate::record::{AgentName, Generation};

/// So many watchers have to agree: one or two may be badly connected themselves.
pub(super) const AGREE: usize = 3;
/// How often a watcher says that an agent is silent, until everybody suspects it: as often as makes losing all unlikely.
const REPEAT: Duration = Duration::from_millis(300);
/// And how often after that, for those that missed it all.
const REMIND: Duration = Duration::from_secs(5);
/// And how often when it has been silent for long.
const REMIND_SELDOM: Duration = Duration::from_secs(20);
/// The silence after which everybody suspects it, and that after which reminders are few.
const REMINDED: Duration = Duration::from_secs(4);
const LONG_SILENT: Duration = Duration::from_secs(30);
/// A word of a silence that began so long before our own last answer is disproved.
const DISPROVED: Duration = Duration::from_secs(1);
/// A round trip may take longer, but nothing waits for that.
const LONGEST_TRIP: Duration = Duration::from_millis(600);
/// How often a watcher says that an agent is heard again.
const ALL_CLEAR: u8 = 3;
/// A peer that nobody reports silent, and that has not answered us for so long, is out of our own reach.
const OUT_OF_REACH: Duration = Duration::from_secs(5);
/// An agent is asked for a sign of life by everybody, if even one of its watchers has missed it for so long.
pub(super) const QUESTIONABLE: Duration = Duration::from_secs(2);
/// Of those whom we watch, we hear less than one in so many: perhaps the watchers of others do not reach us, either, and we ask
/// everybody.
const SILENT_AROUND: usize = 2;
/// And less than one in so many: it is we who are cut off.
const GONE_AROUND: usize = 4;
/// More than so many are not asked again and again at once.
pub(super) const MANY: usize = 64;
/// All agents that are only expected back are asked no more often than this.
const REUNION: Duration = Duration::from_secs(10);
/// Agents in one alert: it fits a datagram with names of the greatest length.
const PER_FRAME: usize = 12;
/// Watchers whose word of an agent is kept; there cannot be more.
const MAX_ALERTS: usize = 24;
/// A peer that has been silent for so long is asked for a sign of life, while it may be alive.
pub(super) const PROBED: Duration = Duration::from_millis(600);

/// How long a watcher waits before it says again that an agent has been silent for so long.
fn pause_after(silence: Duration) -> Duration {
    match silence {
        silence if silence < REMINDED => REPEAT,
        silence if silence < LONG_SILENT => REMIND,
        _ => REMIND_SELDOM,
    }
}

/// What we and a peer are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tie {
    /// Whether we expect its signs of life.
    pub(super) watches: bool,
    /// Whether it expects ours.
    pub(super) is_watched: bool,
}

impl Tie {
    /// Where everybody watches everybody.
    pub(super) const MESH: Self = Self { watches: true, is_watched: true };
}

/// A watcher's word: an agent gave it no sign of life since then.
#[derive(Clone, Debug)]
pub(super) struct Alert {
    watcher: AgentName,
    pub(super) sign: Instant,
    /// Until when it counts, unless it is repeated.
    pub(super) until: Instant,
}

/// What we, as its watcher, are telling of an agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Telling {
    next: Instant,
    /// How long it has been silent.
    silence: Duration,
    /// How often yet that it is heard again; none while it is silent.
    all_clear: Option<u8>,
}

/// A question for a sign of life that is not answered yet.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) at: Instant,
    /// The last sign of life, if no answer comes.
    pub(super) sign: Instant,
}

impl Asked {
    /// Asked now, of somebody that nobody misses.
    pub(super) fn now(ran: Instant) -> Self {
        Self { at: ran, sign: ran }
    }
}

/// What a watcher's word of an agent asks for.
enum AlertTaken {
    /// To judge the agent at once: this watcher did not miss it before.
    Judge,
    /// To look for it, because it is heard there and not here.
    LookFor(Peer),
    /// Nothing that has to be now.
    Nothing,
}

/// What is heard of those whom we watch.
pub(super) struct Surroundings {
    /// Since when most of them are silent, if they are.
    pub(super) silent_since: Option<Instant>,
    /// Whether almost all of them are.
    pub(super) are_gone: bool,
    /// When anybody was heard last.
    latest: Instant,
}

impl PeerContact {
    /// What its watchers say that no later answer to us disproves, in order.
    pub(super) fn words(&self, alerts: &[Alert]) -> Vec<Instant> {
        let words = alerts.iter().map(|alert| alert.sign).filter(|sign| *sign + DISPROVED > self.answered);
        let mut words: Vec<Instant> = words.collect();
        words.sort_unstable();
        words
    }

    /// Since when it has been silent to us, if we expect or asked for a sign of life.
    pub(super) fn silent_since(&self, tie: Tie) -> Option<Instant> {
        let expected = tie.watches.then(|| self.heard.max(self.expected));
        expected.or(self.asked.as_ref().map(|asked| asked.at))
    }

    /// So far its watchers vouch for it: what they agree on, and the last word of one of them, are signs of life that they miss
    /// more of since.
    pub(super) fn vouched_until(
        &self,
        ran: Instant,
        tie: Tie,
        agreed: Option<Instant>,
        last_word: Option<Instant>,
        surroundings: &Surroundings,
    ) -> Instant {
        let since = self.silent_since(tie);
        let silence = since.map(|since| ran.saturating_duration_since(since)).unwrap_or_default();
        if silence >= OUT_OF_REACH {
            let asked = self.asked.as_ref();
            // Frames that came since it was asked may have been held back.
            let heard = asked.map_or(self.heard, |asked| self.heard.min(asked.at)).max(self.answered);
            let sign = asked.map(|asked| asked.sign);
            return sign.into_iter().chain(since).chain(last_word).min().unwrap_or(ran).max(heard);
        }
        if surroundings.are_gone {
            return self.vouched.min(surroundings.latest);
        }
        match (agreed, last_word) {
            // We are one who watches it, and somebody else agrees.
            (_, Some(word)) if tie.watches && silence >= DOUBTED => {
                since.map_or(word, |since| since.max(word))
            }
            (Some(agreed), _) if silence >= PROBED => agreed,
            // Enough for a doubt. For more, it has to leave our own question unanswered: their words may have been held back.
            (Some(agreed), _) => agreed.max(ran.checked_sub(DOUBTED).unwrap_or(ran)),
            (None, _) => ran,
        }
    }

    /// Its last sign of life: heard here, or vouched for by its watchers. A frame of somebody that is not watched is none,
    /// unless it answers a question: somebody may have held it back.
    pub(super) fn sign(&self, tie: Tie) -> Instant {
        let sign = self.vouched.max(self.answered);
        if tie.watches { sign.max(self.heard) } else { sign }
    }
}

impl KnownPeer {
    /// How long we, as its watcher, have missed it.
    fn missed(&self, ran: Instant) -> Duration {
        match &self.contact {
            Some(contact) if self.tie.watches => {
                let silence =
                    contact.silent_since(self.tie).map(|since| ran.saturating_duration_since(since));
                silence.unwrap_or_default().max(if contact.is_stale { REMINDED } else { Duration::ZERO })
            }
            _ => Duration::ZERO,
        }
    }

    /// Follows what there is to tell of it, if we watch it. Whether something is due. Over a long leg answers take their time,
    /// and everybody would hear of each moment in which a few were lost.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        ran: Instant,
        trip: impl Fn(SocketAddr) -> Option<Duration>,
    ) -> bool {
        if self.is_forgotten || self.contact.is_none() {
            self.telling = None;
            return false;
        }
        let silence = self.missed(ran);
        let is_silent = silence >= DOUBTED
            && silence >= DOUBTED + trip(self.peer.addr).unwrap_or_default().min(LONGEST_TRIP) / 4;
        match &mut self.telling {
            None if is_silent => self.telling = Some(Telling { next: now, silence, all_clear: None }),
            // That it is heard again is told to the end, whoever watches it now.
            Some(Telling { all_clear: None, .. }) if !is_silent => {
                let all_clear = self.tie.watches.then_some(ALL_CLEAR);
                let silence = Duration::ZERO;
                self.telling = all_clear.map(|left| Telling { next: now, silence, all_clear: Some(left) });
            }
            Some(Telling { all_clear: Some(_), .. }) if is_silent => {
                self.telling = Some(Telling { next: now, silence, all_clear: None });
            }
            Some(Telling { silence: told, all_clear: None, .. }) => *told = silence,
            None | Some(_) => {}
        }
        self.telling.is_some_and(|telling| telling.next <= now)
    }

    /// How near it is, for pings.
    pub(super) fn nearness(
        &self,
        ran: Instant,
        sessions: &BTreeMap<Index, Session>,
        (is_sparse, asks_many): (bool, bool),
    ) -> Nearness {
        let contact = self.contact.as_ref().filter(|contact| sessions.contains_key(&contact.current));
        let Some(contact) = contact else { return Nearness::Stranger };
        if is_sparse && contact.is_stale && !self.tie.watches {
            let is_lost = self.is_forgotten || self.alerts.len() >= AGREE;
            return if is_lost { Nearness::Lost } else { Nearness::Stranger };
        }
        let is_missed =
            contact.asked.as_ref().is_some_and(|asked| asked.sign < asked.at) && !self.tie.watches;
        let probed = if is_missed { Duration::ZERO } else { PROBED };
        let most = if self.tie.watches { SUSPECT } else { OUT_OF_REACH };
        match contact.silent_since(self.tie).map(|since| ran.saturating_duration_since(since)) {
            Some(silence) if silence >= most => Nearness::Stranger,
            Some(silence) if silence >= probed && asks_many && !self.tie.watches => Nearness::Asked,
            Some(silence) if silence >= probed => Nearness::Doubtful,
            _ if self.tie.is_watched => Nearness::Heard,
            // A NAT forgets the way to it when nothing goes there.
            _ if self.tie.watches || contact.way.is_indirect() => Nearness::Watched,
            _ => Nearness::Far,
        }
    }
}

impl Peers {
    /// Makes the plan anew, for those who are alive now. Agents that do not agree on whether there are many would not tell each
    /// other who is silent.
    pub(super) fn replan(&mut self, ran: Instant, is_one_sparse: bool) {
        let us = self.own.peer.owner.name.clone();
        let alive = self.table.iter().filter(|(_, known)| known.is_alive()).map(|(name, _)| name.clone());
        let members: BTreeSet<AgentName> = alive.chain([us.clone()]).collect();
        let is_sparse = self.plan.is_sparse() || is_one_sparse;
        self.plan = Plan::new(is_sparse, members.into_iter().collect(), self.mesh);
        let plan = &self.plan;
        let watchers: BTreeSet<&AgentName> = plan.watchers(&us).collect();
        self.watched.clear();
        for (name, known) in &mut self.table {
            let tie = if plan.is_sparse() {
                Tie {
                    watches: plan.watchers(name).any(|watcher| *watcher == us),
                    is_watched: watchers.contains(name),
                }
            } else {
                Tie::MESH
            };
            if let Some(contact) = &mut known.contact
                && tie.watches != known.tie.watches
            {
                // Its watchers vouch for it from now on: so far we heard it ourselves.
                contact.vouched = contact.vouched.max(contact.heard);
                let asked = contact.asked.take();
                if !contact.is_stale {
                    contact.expected = asked.map_or(ran, |asked| asked.at);
                }
            }
            if tie.watches {
                self.watched.push(name.clone());
            }
            (known.tie, known.is_planned) = (tie, known.is_alive());
        }
    }

    /// How many of those whom we watch are heard.
    pub(super) fn surroundings(&self, ran: Instant) -> Surroundings {
        let (mut watched, mut heard, mut silent_since) = (0, 0, None);
        for known in self.watched.iter().filter_map(|name| self.table.get(name)) {
            let contact = known.contact.as_ref().filter(|contact| known.tie.watches && !contact.is_stale);
            let Some(contact) = contact else { continue };
            let since = contact.silent_since(known.tie);
            let since = since.filter(|since| ran.saturating_duration_since(*since) >= SUSPECT);
            watched += 1;
            heard += usize::from(since.is_none());
            silent_since = silent_since.max(since);
        }
        Surroundings {
            silent_since: silent_since.filter(|_| heard * SILENT_AROUND < watched),
            are_gone: heard * GONE_AROUND < watched,
            latest: self.latest.unwrap_or(ran),
        }
    }

    /// What there is to tell of those whom we watch, now.
    fn alarms(&mut self, now: Instant) -> Vec<(AgentName, Generation, Duration)> {
        let mut alarms = Vec::new();
        for (name, known) in &mut self.table {
            let Some(telling) = &mut known.telling else { continue };
            let silence = telling.silence;
            let pause = pause_after(silence);
            // Those that are due soon go along: it is one frame.
            if telling.next > now + pause / 2 {
                continue;
            }
            telling.next = now + pause;
            telling.all_clear = telling.all_clear.map(|left| left - 1);
            if telling.all_clear == Some(0) {
                known.telling = None;
            }
            alarms.push((name.clone(), known.peer.owner.generation, silence));
        }
        alarms
    }

    /// A peer pings as one does where not everybody watches everybody, or not.
    pub(super) fn note_sparse(&mut self, name: &AgentName, is_sparse: bool) {
        if let Some(contact) = self.table.get_mut(name).and_then(|known| known.contact.as_mut()) {
            contact.is_sparse = is_sparse;
        }
    }

    /// A peer says how long an agent that it watches has been silent to it.
    fn take_alert(
        &mut self,
        (ran, said): (Instant, Duration),
        by: &AgentName,
        alert: &wire::Silent<'_>,
    ) -> AlertTaken {
        let Some((name, known)) = self.table.get_key_value(alert.name) else { return AlertTaken::Nothing };
        if known.peer.owner.generation != alert.generation || !self.plan.may_watch(by, name) {
            return AlertTaken::Nothing;
        }
        let Some(known) = self.table.get_mut(alert.name) else { return AlertTaken::Nothing };
        let before = known.alerts.len();
        known.alerts.retain(|alert| alert.watcher != *by);
        let is_first = known.alerts.len() == before;
        let is_stale = known.contact.as_ref().is_some_and(|contact| contact.is_stale);
        let silence = Duration::from_millis(alert.silence_ms.into());
        if silence < DOUBTED {
            return if is_stale { AlertTaken::LookFor(known.peer.clone()) } else { AlertTaken::Nothing };
        }
        let counts = pause_after(silence).max(REPEAT * 3) * 5 / 2;
        if known.alerts.len() < MAX_ALERTS
            && let Some(sign) = ran.checked_sub(silence + said)
        {
            known.alerts.push(Alert { watcher: by.clone(), sign, until: ran + counts });
        }
        if is_first && !is_stale { AlertTaken::Judge } else { AlertTaken::Nothing }
    }
}

impl Link {
    /// Says who of those whom we watch is silent, or is heard again.
    pub(super) fn alarm(&mut self, now: Instant) {
        for alarms in self.peers.alarms(now).chunks(PER_FRAME) {
            let silent = alarms.iter().map(|(name, generation, silence)| wire::Silent {
                name: name.as_str(),
                generation: *generation,
                silence_ms: u32::try_from(silence.as_millis()).unwrap_or(u32::MAX),
            });
            let alert = wire::encode(&wire::Alert { silent: silent.collect() });
            let live: Vec<_> = self.live().map(|peer| peer.addr).collect();
            for to in live {
                self.send(Kind::Alert, &alert, to);
            }
        }
    }

    /// Somebody is back who was away for long, perhaps with others that are asked one after the other: now and then, all of
    /// them are asked at that. Whether they were.
    pub(super) fn reunite(&mut self, now: Instant) -> bool {
        let is_too_soon = self.reunited.is_some_and(|at| now.saturating_duration_since(at) < REUNION);
        if is_too_soon || !self.peers.plan.is_sparse() {
            return false;
        }
        self.reunited = Some(now);
        for addr in self.peers.expected_back().collect::<Vec<_>>() {
            if self.pings.looked_for(now, addr) {
                self.hello(now, addr);
            }
        }
        true
    }

    pub(super) fn take_alerts(&mut self, now: Instant, by: &Peer, alert: &wire::Alert<'_>) {
        let Some(ran) = self.ran.now else { return };
        // So long ago it was said.
        let said = self.pings.trip(by.addr).unwrap_or_default().min(LONGEST_TRIP) / 2;
        for silent in alert.silent.iter().take(PER_FRAME) {
            match self.peers.take_alert((ran, said), &by.owner.name, silent) {
                AlertTaken::Judge => self.judge_by(now),
                AlertTaken::LookFor(peer) if self.pings.looked_for(now, peer.addr) => {
                    self.hello(now, peer.addr);
                }
                AlertTaken::LookFor(_) | AlertTaken::Nothing => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::{of, session};
    use super::super::ping::Pings;
    use super::super::toy;
    use super::*;

    /// Twelve agents, not all of whom we watch; where those are that we do; and when they met.
    fn sparse() -> (Peers, Vec<SocketAddr>, Instant) {
        toy::play();
        let (mut peers, now) = (of("us", 1, 99), Instant::now());
        peers.mesh = 1;
        for n in 1..=12 {
            peers.admit(now, n, session(now, &format!("a{n}"), 1, u16::try_from(n).unwrap()).0).unwrap();
        }
        peers.judge(now, now, &Pings::default());
        let watched = peers.table.values().filter(|known| known.tie.watches).map(|known| known.peer.addr);
        let watched: Vec<SocketAddr> = watched.collect();
        (peers, watched, now)
    }

    /// All but one are heard.
    fn hear_others(peers: &mut Peers, at: Instant, silent: SocketAddr) {
        for known in peers.table.values_mut().filter(|known| known.peer.addr != silent) {
            known.contact.as_mut().unwrap().heard = at;
        }
    }

    #[test]
    fn over_a_long_leg_a_watcher_waits_for_answers_before_it_tells() {
        let (mut peers, watched, now) = sparse();
        let silent = watched[0];
        let mut pings = Pings::default();
        pings.set_targets(now, &BTreeSet::from([silent]));
        pings.measured(now, silent, Duration::from_millis(400));
        let mut is_told = |ms, pings: &Pings| {
            let at = now + Duration::from_millis(ms);
            hear_others(&mut peers, at, silent);
            peers.judge(at, at, pings).has_alarms
        };
        assert!(!is_told(1_190, &pings));
        assert!(!is_told(1_290, &pings), "answers take 400 ms");
        assert!(is_told(1_300, &pings));
    }

    #[test]
    fn a_known_peer_that_is_admitted_again_changes_no_plan() {
        let (mut peers, _, now) = sparse();
        let is_replanned = |peers: &mut Peers| peers.judge(now, now, &Pings::default()).is_replanned;
        assert!(is_replanned(&mut peers), "there are many from now on");
        assert!(!is_replanned(&mut peers));
        peers.admit(now, 99, session(now, "a1", 1, 1).0).unwrap();
        assert!(!is_replanned(&mut peers));
        peers.admit(now, 100, session(now, "b", 1, 50).0).unwrap();
        assert!(is_replanned(&mut peers));
    }
}
