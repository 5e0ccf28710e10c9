//! Watching, where not everybody watches everybody ([`super::plan`]). An agent gives its watchers signs of life, and nobody
//! else. A watcher that misses them tells everybody, again and again while it does. What three of them say is enough to doubt the
//! agent, and to ask it; it is suspect if it leaves that question unanswered as well, since their words may be old or lies. Who
//! answers lives. An agent asks everybody once in a while, one that somebody has missed for long at once, and all of them when
//! most of those whom it watches itself are silent.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::look::{DOUBTED, SUSPECT};
use super::peers::{KnownPeer, PeerContact, Peers};
use super::ping::Nearness;
use super::plan::Plan;
use super::wire::{self, Kind};
use super::{Link, ReplicaStore};
use crate::agent::News;
use crate::record::{AgentName, Generation};

/// So many watchers have to agree: one or two may be badly connected themselves.
const AGREE: usize = 3;
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
/// How often a watcher says that an agent is heard again.
const ALL_CLEAR: u8 = 3;
/// A peer that nobody reports silent, and that has not answered us for so long, is out of our own reach.
const OUT_OF_REACH: Duration = Duration::from_secs(5);
/// An agent is asked for a sign of life by everybody, if even one of its watchers has missed it for so long.
const QUESTIONABLE: Duration = Duration::from_secs(2);
/// Of those whom we watch, we hear less than one in so many: perhaps the watchers of others do not reach us, either, and we ask
/// everybody.
const SILENT_AROUND: usize = 2;
/// And less than one in so many: it is we who are cut off.
const GONE_AROUND: usize = 4;
/// More than so many are not asked again and again at once.
const MANY: usize = 64;
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
    sign: Instant,
    /// Until when it counts, unless it is repeated.
    until: Instant,
}

/// What we, as its watcher, are telling of an agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Telling {
    next: Instant,
    /// How often yet that it is heard again; none while it is silent.
    all_clear: Option<u8>,
}

/// A question for a sign of life that is not answered yet.
#[derive(Debug)]
pub(super) struct Asked {
    at: Instant,
    /// The last sign of life, if no answer comes.
    sign: Instant,
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
    LookFor(super::Peer),
    /// Nothing that has to be now.
    Nothing,
}

/// What is heard of those whom we watch.
struct Surroundings {
    /// Since when most of them are silent, if they are.
    silent_since: Option<Instant>,
    /// Whether almost all of them are.
    are_gone: bool,
    /// When anybody was heard last.
    latest: Instant,
}

impl PeerContact {
    /// Since when it has been silent to us, if we expect or asked for a sign of life.
    pub(super) fn silent_since(&self, tie: Tie) -> Option<Instant> {
        let expected = tie.watches.then(|| self.heard.max(self.expected));
        expected.or(self.asked.as_ref().map(|asked| asked.at))
    }

    /// So far its watchers vouch for it: what they agree on, and the last word of one of them, are signs of life that they miss
    /// more of since.
    fn judge(
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

    /// How near it is, for pings.
    pub(super) fn nearness(&self, ran: Instant, is_sparse: bool, asks_many: bool) -> Nearness {
        let Some(contact) = &self.contact else { return Nearness::Stranger };
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
    /// Makes the plan anew if others are alive than before.
    pub(super) fn replan(&mut self, ran: Instant) {
        let is_alive = |known: &KnownPeer| {
            !known.left && known.contact.as_ref().is_some_and(|contact| !contact.is_stale)
        };
        let us = self.own.peer.owner.name.clone();
        let alive = self.table.iter().filter(|(_, known)| is_alive(known)).map(|(name, _)| name);
        // Agents that do not agree on whether there are many would not tell each other who is silent.
        let sparse = |known: &KnownPeer| {
            is_alive(known) && known.contact.as_ref().is_some_and(|contact| contact.is_sparse)
        };
        let is_sparse = self.plan.is_sparse() || self.table.values().any(sparse);
        if self.plan.is_for(&us, alive.clone(), is_sparse) {
            return;
        }
        let members: BTreeSet<AgentName> = alive.cloned().chain([us.clone()]).collect();
        self.plan = Plan::new(is_sparse, members.into_iter().collect(), self.mesh);
        let plan = &self.plan;
        let watchers: BTreeSet<&AgentName> = plan.watchers(&us).collect();
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
                let asked = contact.asked.take();
                if !contact.is_stale {
                    contact.expected = asked.map_or(ran, |asked| asked.at);
                }
            }
            known.tie = tie;
        }
    }

    /// Judges those whom not everybody watches by what their watchers say. Who is not in doubt any more is returned.
    fn vouch(&mut self, ran: Instant, surroundings: &Surroundings) -> Vec<AgentName> {
        let silence = |since: Instant| ran.saturating_duration_since(since);
        let mut recovered = Vec::new();
        for (name, KnownPeer { contact, tie, alerts, sign: last_sign, left, .. }) in &mut self.table {
            alerts.retain(|alert| alert.until > ran);
            let Some(contact) = contact.as_mut().filter(|contact| !contact.is_stale) else { continue };
            if *left {
                // Nobody has to vouch for it any more.
                contact.vouched = contact.vouched.min(contact.heard);
                continue;
            }
            // What our own later answer disproves counts for nothing.
            let words =
                alerts.iter().map(|alert| alert.sign).filter(|sign| *sign + DISPROVED > contact.answered);
            let mut words: Vec<Instant> = words.collect();
            words.sort_unstable();
            let agreed = if words.is_empty() {
                None
            } else {
                let watchers: BTreeSet<&AgentName> = self.plan.watchers(name).collect();
                words.get(watchers.len().clamp(1, AGREE) - 1).copied()
            };
            let last_word = words.last().copied();
            let is_questionable = words.first().is_some_and(|sign| silence(*sign) >= QUESTIONABLE);
            let missed = agreed.or(last_word.filter(|_| is_questionable)).or(surroundings.silent_since);
            if let Some(sign) = missed.filter(|_| !tie.watches) {
                contact.asked.get_or_insert(Asked { at: ran, sign: sign.max(contact.answered) });
            }
            contact.vouched = contact.judge(ran, *tie, agreed, last_word, surroundings);
            let last = contact.sign(*tie);
            *last_sign = (*last_sign).max(last);
            if contact.is_doubted && silence(last) < DOUBTED {
                contact.is_doubted = false;
                recovered.push(name.clone());
            }
        }
        recovered
    }

    /// How many of those whom we watch are heard.
    fn surroundings(&self, ran: Instant) -> Surroundings {
        let (mut watched, mut heard, mut latest, mut silent_since) = (0, 0, None, None);
        for known in self.table.values() {
            let Some(contact) = &known.contact else { continue };
            latest = latest.max(Some(contact.heard));
            if known.tie.watches && !contact.is_stale {
                let since = contact.silent_since(known.tie);
                let since = since.filter(|since| ran.saturating_duration_since(*since) >= SUSPECT);
                watched += 1;
                heard += usize::from(since.is_none());
                silent_since = silent_since.max(since);
            }
        }
        Surroundings {
            silent_since: silent_since.filter(|_| heard * SILENT_AROUND < watched),
            are_gone: heard * GONE_AROUND < watched,
            latest: latest.unwrap_or(ran),
        }
    }

    /// Whether so many are asked for a sign of life that the questions have to be fewer.
    pub(super) fn asks_many(&self) -> bool {
        let asked = |known: &&KnownPeer| {
            let contact = known.contact.as_ref().filter(|contact| !contact.is_stale && !known.tie.watches);
            contact.is_some_and(|contact| contact.asked.is_some())
        };
        self.table.values().filter(asked).take(MANY).count() == MANY
    }

    /// What there is to tell of those whom we watch, now.
    fn alarms(&mut self, now: Instant, ran: Instant) -> Vec<(AgentName, Generation, Duration)> {
        let mut is_due = false;
        for known in self.table.values_mut() {
            if known.is_forgotten || known.contact.is_none() {
                known.telling = None;
                continue;
            }
            let silence = known.missed(ran);
            let is_silent = silence >= DOUBTED;
            match known.telling {
                None if is_silent => known.telling = Some(Telling { next: now, all_clear: None }),
                // That it is heard again is told to the end, whoever watches it now.
                Some(Telling { all_clear: None, .. }) if !is_silent => {
                    let all_clear = known.tie.watches.then_some(ALL_CLEAR);
                    known.telling = all_clear.map(|left| Telling { next: now, all_clear: Some(left) });
                }
                Some(Telling { all_clear: Some(_), .. }) if is_silent => {
                    known.telling = Some(Telling { next: now, all_clear: None });
                }
                _ => {}
            }
            is_due |= known.telling.is_some_and(|telling| telling.next <= now);
        }
        if !is_due {
            return Vec::new();
        }
        let mut alarms = Vec::new();
        for (name, known) in &mut self.table {
            let silence = known.missed(ran);
            let Some(telling) = &mut known.telling else { continue };
            let silence = if telling.all_clear.is_none() { silence } else { Duration::ZERO };
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
    fn take_alert(&mut self, ran: Instant, by: &AgentName, alert: &wire::Silent<'_>) -> AlertTaken {
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
            && let Some(sign) = ran.checked_sub(silence)
        {
            known.alerts.push(Alert { watcher: by.clone(), sign, until: ran + counts });
        }
        if is_first && !is_stale { AlertTaken::Judge } else { AlertTaken::Nothing }
    }
}

impl Link {
    /// Judges those whom we do not watch, and says who of those whom we do is silent, or is heard again.
    pub(super) fn watch(&mut self, now: Instant, ran: Instant, replicas: &mut dyn ReplicaStore) {
        self.peers.replan(ran);
        if !self.peers.plan.is_sparse() {
            return;
        }
        let surroundings = self.peers.surroundings(ran);
        for name in self.peers.vouch(ran, &surroundings) {
            if let Some(owner) = self.peers.owner(&name) {
                replicas.apply(now, News::Heard { owner, trip: None });
            }
        }
        // Who is cut off misses everybody, and nobody is to believe it.
        let alarms = if surroundings.are_gone { Vec::new() } else { self.peers.alarms(now, ran) };
        for alarms in alarms.chunks(PER_FRAME) {
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

    pub(super) fn take_alerts(&mut self, now: Instant, by: &AgentName, alert: &wire::Alert<'_>) {
        let Some(ran) = self.ran.now else { return };
        for silent in alert.silent.iter().take(PER_FRAME) {
            match self.peers.take_alert(ran, by, silent) {
                AlertTaken::Judge => self.pings.hurry(now),
                AlertTaken::LookFor(peer) if self.pings.looked_for(now, peer.addr) => {
                    self.hello(now, peer.addr);
                }
                AlertTaken::LookFor(_) | AlertTaken::Nothing => {}
            }
        }
    }
}
