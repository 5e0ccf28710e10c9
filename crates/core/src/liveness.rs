//! What an agent thinks of its peers: who is alive as seen from here, whose records come last, and whose are
//! hidden. Judges by what it is given; measures nothing itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::record::AgentName;
use super::replicas::MAX_AGENTS;

/// How long the records of peers that vanished together are kept, when it was probably us that vanished.
pub const PRESERVE: Duration = Duration::from_secs(3600);
/// Peers that are remembered: as many as can have sessions. A bound against made-up ones.
pub const MAX_PEERS: usize = MAX_AGENTS;
/// Peers that fell silent within this time of each other vanished together.
const TOGETHER: Duration = Duration::from_secs(10);
/// One peer that is gone may well be gone; it takes two to doubt ourselves.
const TOGETHER_AT_LEAST: usize = 2;

/// How the records of an agent are treated by a Get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Surely alive: first.
    Live,
    /// Alive, and silent for a moment: behind those that are not.
    Doubted,
    /// Perhaps alive: last.
    Suspect,
    /// Dead, gone, drained, or never met: not listed.
    Hidden,
}

impl Standing {
    /// Whether it counts as alive. A doubt costs nothing but order.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Live | Self::Doubted)
    }
}

/// The peers met so far.
#[derive(Debug)]
pub struct Liveness {
    ttl: Duration,
    peers: HashMap<AgentName, Signs>,
}

#[derive(Debug)]
struct Signs {
    contact: Contact,
    /// When it last gave a sign of life, directly or through others; of no meaning while it is alive.
    last_sign: Instant,
    /// Whether it has been silent for a moment, since it was heard.
    is_doubted: bool,
    /// Whether its death was told.
    is_told_dead: bool,
    trip: Option<Duration>,
}

/// What this agent itself has of a peer. Where there is no room for all, the first variants go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contact {
    /// Only others had a sign of life of it.
    Never,
    /// Its frames arrived, and do not any more.
    Lost,
    /// Its frames arrive.
    Alive,
}

impl Signs {
    fn is_alive(&self) -> bool {
        self.contact == Contact::Alive
    }
}

impl Liveness {
    /// Nobody met yet. Records of a silent peer are hidden `ttl` after its last sign of life.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, peers: HashMap::new() }
    }

    /// A frame of a peer arrived; perhaps a round trip to it was measured.
    pub fn heard(&mut self, now: Instant, name: &AgentName, trip: Option<Duration>) {
        let peer = self.peer(now, name);
        peer.contact = Contact::Alive;
        (peer.last_sign, peer.is_doubted, peer.is_told_dead) = (now, false, false);
        peer.trip = trip.or(peer.trip);
    }

    /// Nothing of a peer has arrived for a moment.
    pub fn doubt(&mut self, name: &AgentName) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.is_doubted = true;
        }
    }

    /// Nothing of a peer has arrived for `silence`.
    pub fn silent(&mut self, now: Instant, name: &AgentName, silence: Duration) {
        let peer = self.peer(now, name);
        if peer.is_alive() {
            peer.contact = Contact::Lost;
            peer.last_sign = now.checked_sub(silence).unwrap_or(now);
        }
    }

    /// Somebody else received a peer's frames so long ago.
    pub fn hearsay(&mut self, now: Instant, name: &AgentName, age: Duration) {
        let sign = now.checked_sub(age).unwrap_or(now);
        let peer = self.peer(sign, name);
        peer.last_sign = peer.last_sign.max(sign);
    }

    /// A peer left, or has been dead for so long that it does not count any more.
    pub fn forget(&mut self, name: &AgentName) {
        self.peers.remove(name);
    }

    /// How an agent's records are treated now.
    pub fn standing(&self, now: Instant, name: &AgentName) -> Standing {
        self.peers.get(name).map_or(Standing::Hidden, |peer| self.standing_of(now, peer))
    }

    /// The same, with the round-trip time.
    pub fn standing_and_trip(&self, now: Instant, name: &AgentName) -> (Standing, Option<Duration>) {
        let peer = self.peers.get(name);
        peer.map_or((Standing::Hidden, None), |peer| (self.standing_of(now, peer), peer.trip))
    }

    fn standing_of(&self, now: Instant, peer: &Signs) -> Standing {
        let age = now.saturating_duration_since(peer.last_sign);
        if peer.is_alive() {
            if peer.is_doubted { Standing::Doubted } else { Standing::Live }
        } else if age < self.ttl || (age < PRESERVE && self.vanished_together(peer)) {
            Standing::Suspect
        } else {
            Standing::Hidden
        }
    }

    /// Whether a peer was lost whose death was not told yet.
    pub fn has_dying(&self) -> bool {
        self.peers.values().any(|peer| peer.contact == Contact::Lost && !peer.is_told_dead)
    }

    /// The peers that were lost, and are hidden now, each once.
    pub fn take_dead(&mut self, now: Instant) -> Vec<AgentName> {
        let lost = self.peers.iter().filter(|(_, peer)| peer.contact == Contact::Lost && !peer.is_told_dead);
        let dead = lost.filter(|(name, _)| self.standing(now, name) == Standing::Hidden);
        let mut dead: Vec<AgentName> = dead.map(|(name, _)| name.clone()).collect();
        dead.sort_unstable();
        for name in &dead {
            if let Some(peer) = self.peers.get_mut(name) {
                peer.is_told_dead = true;
            }
        }
        dead
    }

    /// Whether more than half of the peers vanished together: it was probably us that vanished, and an alarm is due.
    pub fn doubts_itself(&self) -> bool {
        self.peers.values().any(|peer| self.vanished_together(peer))
    }

    /// How long a silent peer has given no sign of life.
    pub fn silence(&self, now: Instant, name: &AgentName) -> Option<Duration> {
        let peer = self.peers.get(name).filter(|peer| !peer.is_alive())?;
        Some(now.saturating_duration_since(peer.last_sign))
    }

    /// The round-trip time to a peer.
    pub fn trip(&self, name: &AgentName) -> Option<Duration> {
        self.peers.get(name)?.trip
    }

    /// The peers met, and whether each is alive.
    pub fn peers(&self) -> impl Iterator<Item = (&AgentName, bool)> {
        self.peers.iter().map(|(name, peer)| (name, peer.is_alive()))
    }

    /// Whether anything is remembered of a peer.
    pub fn knows(&self, name: &AgentName) -> bool {
        self.peers.contains_key(name)
    }

    /// Whether a peer's frames do not arrive any more.
    pub fn is_lost(&self, name: &AgentName) -> bool {
        self.peers.get(name).is_some_and(|peer| peer.contact == Contact::Lost)
    }

    /// Whether a peer is one of many that were lost at once. Whoever was never met cannot be lost.
    fn vanished_together(&self, one: &Signs) -> bool {
        if one.contact != Contact::Lost {
            return false;
        }
        let apart = |other: &Signs| {
            let (a, b) = (one.last_sign, other.last_sign);
            a.saturating_duration_since(b).max(b.saturating_duration_since(a))
        };
        let lost = self.peers.values().filter(|other| other.contact == Contact::Lost);
        let together = lost.filter(|other| apart(other) <= TOGETHER).count();
        let met = self.peers.values().filter(|other| other.contact != Contact::Never).count();
        together >= TOGETHER_AT_LEAST && together * 2 > met
    }

    fn peer(&mut self, now: Instant, name: &AgentName) -> &mut Signs {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(name) {
            let longest_silent = self.peers.iter().min_by_key(|(_, peer)| (peer.contact, peer.last_sign));
            let longest_silent = longest_silent.map(|(name, _)| name.clone());
            longest_silent.and_then(|name| self.peers.remove(&name));
        }
        self.peers.entry(name.clone()).or_insert(Signs {
            contact: Contact::Never,
            last_sign: now,
            is_doubted: false,
            is_told_dead: false,
            trip: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);
    const SILENCE: Duration = Duration::from_millis(2_500);

    fn name(n: usize) -> AgentName {
        format!("a{n}").parse().unwrap()
    }

    /// Peers 0 to `count` - 1, all heard.
    fn met(count: usize) -> (Liveness, Instant) {
        let (mut liveness, now) = (Liveness::new(TTL), Instant::now());
        (0..count).for_each(|n| liveness.heard(now, &name(n), None));
        (liveness, now)
    }

    #[test]
    fn a_silent_peer_comes_last_and_is_hidden_at_the_ttl_after_its_last_sign_of_life() {
        let (mut liveness, now) = met(3);
        liveness.silent(now + SILENCE, &name(0), SILENCE);
        assert_eq!(liveness.standing(now + SILENCE, &name(0)), Standing::Suspect);
        assert_eq!(liveness.standing(now + TTL, &name(0)), Standing::Hidden);
        liveness.heard(now + TTL * 2, &name(0), None);
        assert_eq!(liveness.standing(now + TTL * 2, &name(0)), Standing::Live, "back at once");
    }

    #[test]
    fn a_death_is_told_once_and_only_of_a_peer_that_was_met() {
        let (mut liveness, now) = met(3);
        liveness.hearsay(now, &name(7), Duration::ZERO);
        liveness.silent(now + SILENCE, &name(0), SILENCE);
        assert!(liveness.has_dying() && liveness.take_dead(now + SILENCE).is_empty(), "it may live");
        assert_eq!(liveness.take_dead(now + TTL), [name(0)]);
        assert!(!liveness.has_dying() && liveness.take_dead(now + TTL).is_empty());
        liveness.heard(now + TTL, &name(0), None);
        liveness.silent(now + TTL + SILENCE, &name(0), SILENCE);
        assert_eq!(liveness.take_dead(now + TTL * 2), [name(0)], "it was alive again");
    }

    #[test]
    fn a_doubt_is_over_with_the_next_frame_and_costs_no_life() {
        let (mut liveness, now) = met(2);
        liveness.doubt(&name(0));
        assert_eq!(liveness.standing(now, &name(0)), Standing::Doubted);
        assert!(liveness.standing(now, &name(0)).is_alive());
        liveness.heard(now, &name(0), None);
        assert_eq!(liveness.standing(now, &name(0)), Standing::Live);
        liveness.doubt(&name(0));
        liveness.silent(now + SILENCE, &name(0), SILENCE);
        assert_eq!(liveness.standing(now + SILENCE, &name(0)), Standing::Suspect);
        liveness.doubt(&name(7));
        assert_eq!(liveness.standing(now, &name(7)), Standing::Hidden, "never met");
    }

    #[test]
    fn a_peer_that_was_never_met_is_hidden() {
        let (mut liveness, now) = met(1);
        assert_eq!(liveness.standing(now, &name(7)), Standing::Hidden);
        liveness.hearsay(now, &name(7), Duration::ZERO);
        assert_eq!(liveness.standing(now, &name(7)), Standing::Suspect, "others hear it: last, but there");
        assert_eq!(liveness.standing(now + TTL, &name(7)), Standing::Hidden);
    }

    #[test]
    fn a_peer_that_others_hear_is_kept() {
        let (mut liveness, now) = met(3);
        liveness.silent(now + SILENCE, &name(0), SILENCE);
        liveness.hearsay(now + TTL, &name(0), Duration::ZERO);
        assert_eq!(liveness.standing(now + TTL * 3 / 2, &name(0)), Standing::Suspect);
    }

    #[test]
    fn most_peers_vanishing_together_are_kept_for_an_hour() {
        let (mut liveness, now) = met(4);
        let then = now + SILENCE;
        (0..2).for_each(|n| liveness.silent(then, &name(n), SILENCE));
        assert_eq!(liveness.standing(now + TTL, &name(0)), Standing::Hidden, "half is not most");
        assert!(!liveness.doubts_itself());
        liveness.silent(then + TOGETHER, &name(2), SILENCE);
        assert_eq!(liveness.standing(now + TTL * 2, &name(0)), Standing::Suspect);
        assert!(liveness.doubts_itself());
        assert_eq!(liveness.standing(now + PRESERVE, &name(0)), Standing::Hidden);
    }

    #[test]
    fn peers_that_vanish_one_after_the_other_are_not_our_fault() {
        let (mut liveness, now) = met(4);
        for (n, turn) in (0..4).zip(0..) {
            let at = now + TTL * turn;
            liveness.heard(at, &name(n), None);
            liveness.silent(at + SILENCE, &name(n), SILENCE);
        }
        assert_eq!(liveness.standing(now + TTL * 5, &name(0)), Standing::Hidden);
    }

    #[test]
    fn of_too_many_peers_the_longest_silent_is_not_remembered() {
        let (mut liveness, now) = met(MAX_PEERS);
        liveness.silent(now + SILENCE, &name(7), SILENCE);
        liveness.heard(now + SILENCE, &name(MAX_PEERS), None);
        assert_eq!(liveness.peers().count(), MAX_PEERS);
        let standing = |n| liveness.standing(now + SILENCE, &name(n));
        assert_eq!(
            [standing(7), standing(8), standing(MAX_PEERS)],
            [Standing::Hidden, Standing::Live, Standing::Live]
        );
    }

    #[test]
    fn a_single_peer_that_is_gone_is_gone() {
        let (mut liveness, now) = met(1);
        liveness.silent(now + SILENCE, &name(0), SILENCE);
        assert_eq!(liveness.standing(now + TTL, &name(0)), Standing::Hidden);
    }

    #[test]
    fn whoever_was_never_met_is_not_lost_and_no_reason_to_doubt_ourselves() {
        let (mut liveness, now) = met(1);
        (1..10).for_each(|n| liveness.hearsay(now, &name(n), Duration::ZERO));
        assert_eq!(liveness.standing(now, &name(5)), Standing::Suspect, "it lives, as others tell");
        assert!(!liveness.is_lost(&name(5)) && !liveness.doubts_itself());
        liveness.silent(now, &name(0), SILENCE);
        assert!(liveness.is_lost(&name(0)) && !liveness.doubts_itself(), "one may well be gone");
        liveness.heard(now, &name(1), None);
        liveness.silent(now, &name(1), SILENCE);
        assert!(liveness.doubts_itself(), "all that were met");
    }
}
