//! Who may speak: a peer's process is admitted once it has answered a fresh challenge, and then every frame of
//! it is taken once. So a frame recorded yesterday, or sent back to its sender, changes nothing even at an
//! agent that has just started and remembers nothing.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::look::is_live;
use super::recent::Recent;
use super::wire::Session;
use crate::record::{AgentName, Generation, Owner};
use crate::slot::Version;

/// Frames that may be behind the newest one of their session and still be taken. TCP frames stand in queues
/// while UDP frames of the same session run past, at most some seconds of a busy sender.
const WINDOW: u64 = 8_192;
const WORDS: usize = (WINDOW / 64) as usize;
/// Sessions held at a time: five times the agents that a cluster is designed for. A bound against a peer that
/// makes up sessions.
pub const MAX_SESSIONS: usize = 1_000;

/// The other end of an admitted session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which agent, and which of its starts.
    pub owner: Owner,
    /// Where to send.
    pub addr: SocketAddr,
}

/// What to do with an authenticated frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first time that this frame of an admitted session is seen.
    Fresh {
        /// How long nothing had been heard of the session.
        silence: Duration,
        /// Whether it was suspect.
        suspected: bool,
    },
    /// Seen before, or too old to tell.
    Replayed,
    /// A session that has not answered a challenge.
    Stranger,
}

/// The admitted sessions. Time, here, is time in which this process ran: a pause of our own is no silence of
/// theirs.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<Session, Admitted>,
}

#[derive(Debug)]
struct Admitted {
    peer: Peer,
    window: Window,
    heard: Instant,
    suspected: bool,
    /// How far it had told its words at its last ping.
    told: Version,
    recent: Recent,
}

impl Sessions {
    /// Judges a frame by its session and counter, and remembers it.
    pub fn check(&mut self, now: Instant, session: Session, counter: u64) -> Verdict {
        let Some(admitted) = self.sessions.get_mut(&session) else { return Verdict::Stranger };
        if !admitted.window.take(counter) {
            return Verdict::Replayed;
        }
        let silence = now.saturating_duration_since(admitted.heard);
        admitted.heard = now;
        Verdict::Fresh { silence, suspected: std::mem::take(&mut admitted.suspected) }
    }

    /// Admits a session that answered a fresh challenge in its frame `counter`, in place of all others of its
    /// agent. False if there is no room.
    pub fn admit(&mut self, now: Instant, session: Session, counter: u64, peer: Peer) -> bool {
        self.sessions.retain(|_, other| other.peer.owner.name != peer.owner.name);
        if self.sessions.len() >= MAX_SESSIONS && !self.evict(now) {
            return false;
        }
        let window = Window::after(counter);
        let recent = Recent::default();
        let admitted = Admitted { peer, window, heard: now, suspected: false, told: 0, recent };
        self.sessions.insert(session, admitted);
        true
    }

    /// The other end of an admitted session.
    pub fn peer(&self, session: Session) -> Option<&Peer> {
        self.sessions.get(&session).map(|admitted| &admitted.peer)
    }

    /// The session of an agent, and when it was last heard.
    pub fn of(&self, name: &AgentName) -> Option<(Session, &Peer, Instant)> {
        let found = self.sessions.iter().find(|(_, admitted)| admitted.peer.owner.name == *name);
        found.map(|(session, admitted)| (*session, &admitted.peer, admitted.heard))
    }

    /// Remembers what a session pushed.
    pub fn note_push(&mut self, now: Instant, session: Session, push: &[u8]) {
        if let Some(admitted) = self.sessions.get_mut(&session) {
            admitted.recent.note(now, push);
        }
    }

    /// Remembers how far a session has told its words, and gives how far it had at the ping before: pushes since are
    /// perhaps still under way, those before should be here.
    pub fn note_told(&mut self, session: Session, told: Version) -> Version {
        self.sessions.get_mut(&session).map_or(0, |of| std::mem::replace(&mut of.told, told))
    }

    /// What an agent pushed last, and which of its starts that was.
    pub fn take_recent(&mut self, name: &AgentName) -> Option<(Generation, Recent)> {
        let admitted = self.sessions.values_mut().find(|admitted| admitted.peer.owner.name == *name)?;
        Some((admitted.peer.owner.generation, std::mem::take(&mut admitted.recent)))
    }

    /// All admitted peers, with when they were last heard.
    pub fn peers(&self) -> impl Iterator<Item = (&Peer, Instant)> {
        self.sessions.values().map(|admitted| (&admitted.peer, admitted.heard))
    }

    /// The agents whose frames arrive.
    pub(super) fn live(&self, ran: Instant) -> HashSet<&AgentName> {
        let live = self.peers().filter(|(_, heard)| is_live(ran, *heard));
        live.map(|(peer, _)| &peer.owner.name).collect()
    }

    /// How many sessions are admitted, and how many of their pushes are remembered.
    pub fn len(&self) -> (usize, usize) {
        let recent = self.sessions.values().map(|admitted| admitted.recent.len());
        (self.sessions.len(), recent.sum())
    }

    /// The peers that have just become suspect: silent for `patience`, and not told before.
    pub fn suspect(&mut self, now: Instant, patience: Duration) -> Vec<(Peer, Duration)> {
        let mut suspects = Vec::new();
        for admitted in self.sessions.values_mut() {
            let silence = now.saturating_duration_since(admitted.heard);
            if silence >= patience && !admitted.suspected {
                admitted.suspected = true;
                suspects.push((admitted.peer.clone(), silence));
            }
        }
        suspects
    }

    /// Drops the sessions not heard since `then`.
    pub fn forget_silent(&mut self, then: Instant) {
        self.sessions.retain(|_, admitted| admitted.heard >= then);
    }

    /// Makes room by dropping the longest silent suspect.
    fn evict(&mut self, now: Instant) -> bool {
        let suspects =
            self.sessions.iter().filter(|(_, admitted)| admitted.suspected && admitted.heard < now);
        let oldest = suspects.min_by_key(|(_, admitted)| admitted.heard).map(|(session, _)| *session);
        oldest.and_then(|session| self.sessions.remove(&session)).is_some()
    }
}

/// Which of the last [`WINDOW`] counters were seen.
#[derive(Debug)]
struct Window {
    next: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// Takes only what is sent after `counter`: what came before the admission has been dealt with.
    fn after(counter: u64) -> Self {
        Self { next: counter.saturating_add(1), seen: [u64::MAX; WORDS] }
    }

    /// Marks a counter as seen; false if it was, or is too old to tell.
    fn take(&mut self, counter: u64) -> bool {
        if counter == u64::MAX || counter.saturating_add(WINDOW) < self.next {
            return false;
        }
        if counter >= self.next {
            self.clear_up_to(counter);
            self.next = counter + 1;
        }
        let (word, bit) = place(counter);
        let fresh = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        fresh
    }

    /// Forgets what leaves the window, so that its bits can be used for `self.next..=counter`.
    fn clear_up_to(&mut self, counter: u64) {
        if counter - self.next >= WINDOW {
            self.seen = [0; WORDS];
            return;
        }
        for skipped in self.next..=counter {
            let (word, bit) = place(skipped);
            self.seen[word] &= !bit;
        }
    }
}

fn place(counter: u64) -> (usize, u64) {
    (((counter / 64) % WORDS as u64) as usize, 1 << (counter % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const FRESH: Verdict = Verdict::Fresh { silence: Duration::ZERO, suspected: false };

    fn peer(name: &str, generation: u64) -> Peer {
        let owner = Owner { name: name.parse().unwrap(), generation };
        Peer { owner, addr: "10.0.0.1:8002".parse().unwrap() }
    }

    #[test]
    fn a_session_speaks_only_after_it_answered() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        assert_eq!(sessions.check(now, [1; 8], 0), Verdict::Stranger);
        assert!(sessions.admit(now, [1; 8], 4, peer("a", 1)));
        assert_eq!(sessions.check(now, [1; 8], 4), Verdict::Replayed, "the answer itself");
        assert_eq!(sessions.check(now, [1; 8], 3), Verdict::Replayed, "what it said before");
        assert_eq!(sessions.check(now, [1; 8], 6), FRESH);
        assert_eq!(sessions.check(now, [1; 8], 5), FRESH, "overtaken, not replayed");
        assert_eq!(sessions.check(now, [1; 8], 5), Verdict::Replayed);
    }

    #[test]
    fn a_counter_at_the_end_of_its_range_is_a_counter() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.admit(now, [1; 8], 0, peer("a", 1));
        assert_eq!(sessions.check(now, [1; 8], u64::MAX), Verdict::Replayed, "there is none after it");
        assert_eq!(sessions.check(now, [1; 8], u64::MAX - 1), FRESH);
        assert_eq!(sessions.check(now, [1; 8], u64::MAX - 2), FRESH);
        assert_eq!(sessions.check(now, [1; 8], 7), Verdict::Replayed);
    }

    #[test]
    fn a_restarted_agent_replaces_its_former_session() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.admit(now, [1; 8], 0, peer("a", 1));
        sessions.admit(now, [2; 8], 0, peer("b", 1));
        assert!(sessions.admit(now, [3; 8], 0, peer("a", 2)));
        assert_eq!(sessions.check(now, [1; 8], 9), Verdict::Stranger);
        assert_eq!(sessions.check(now, [2; 8], 9), FRESH);
    }

    #[test]
    fn sessions_are_bounded_and_silent_ones_go() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        for n in 0..MAX_SESSIONS as u64 {
            assert!(sessions.admit(now, n.to_le_bytes(), 0, peer(&format!("a{n}"), 1)));
        }
        assert!(!sessions.admit(now, [255; 8], 0, peer("late", 1)));
        let later = now + Duration::from_secs(60);
        sessions.check(later, 7_u64.to_le_bytes(), 1);
        assert_eq!(sessions.suspect(later, Duration::from_secs(1)).len(), MAX_SESSIONS - 1);
        assert!(sessions.suspect(later, Duration::from_secs(1)).is_empty(), "told once");
        assert!(sessions.admit(later, [255; 8], 0, peer("late", 1)), "in place of a silent one");
        sessions.forget_silent(later);
        assert_eq!(sessions.peers().count(), 2);
    }

    proptest! {
        #[test]
        fn every_counter_is_taken_once(counters in proptest::collection::vec(0..30_000_u64, 1..400)) {
            let (mut window, mut model) = (Window { next: 0, seen: [0; WORDS] }, HashSet::new());
            let mut newest = 0;
            for counter in counters {
                let fresh = !model.contains(&counter) && counter + WINDOW > newest;
                newest = newest.max(counter);
                let taken = window.take(counter);
                prop_assert!(!taken || !model.contains(&counter), "{counter} twice");
                prop_assert!(taken || !fresh, "{counter} refused");
                if taken { model.insert(counter); }
            }
        }
    }
}
