//! What is held against peers: changes and messages of theirs that were refused. A peer that is broken, or whose key
//! somebody has, is found by its name. What is long over is held against nobody.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::record::AgentName;
use super::replicas::MAX_AGENTS;

/// A peer is worth a line of the log this often.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// A peer of which nothing was refused for this long is as good as any other.
const FORGIVEN: Duration = Duration::from_secs(3_600);

/// Why they were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A frame whose content makes no sense.
    Malformed,
    /// A slot that cannot be.
    NotASlot,
    /// More than its share: see [`super::quota::Share`].
    TooMuch,
}

impl Refusal {
    /// Every reason, with the word that metrics use.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Malformed, "malformed"), (Self::NotASlot, "not_a_slot"), (Self::TooMuch, "too_much")];
}

/// Against one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// How often each of [`Refusal::ALL`], since the agent's start.
    pub counts: [u64; Refusal::ALL.len()],
    /// How often in all, since it was forgiven last.
    pub recent: u64,
    /// Why last.
    pub last: Refusal,
    at: Instant,
    told: Instant,
}

/// Against all of them, [`MAX_AGENTS`] at most: those who come later are not named.
#[derive(Debug, Default)]
pub struct Complaints(HashMap<AgentName, Complaint>);

impl Complaints {
    /// Notes what was refused. Whether the log is due.
    pub fn note(&mut self, now: Instant, of: &AgentName, why: Refusal, times: u64) -> bool {
        if self.0.len() >= MAX_AGENTS && !self.0.contains_key(of) {
            return false;
        }
        let fresh = Complaint { counts: [0; Refusal::ALL.len()], recent: 0, last: why, at: now, told: now };
        let is_first = !self.0.contains_key(of);
        let complaint = self.0.entry(of.clone()).or_insert(fresh);
        if complaint.is_forgiven(now) {
            complaint.recent = 0;
        }
        complaint.counts[why as usize] += times;
        complaint.recent += times;
        (complaint.last, complaint.at) = (why, now);
        let is_due = is_first || now.saturating_duration_since(complaint.told) >= TELL_EVERY;
        if is_due {
            complaint.told = now;
        }
        is_due
    }

    /// What is held against a peer, and is not forgiven.
    pub fn of(&self, now: Instant, name: &AgentName) -> Option<Complaint> {
        self.0.get(name).filter(|complaint| !complaint.is_forgiven(now)).copied()
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = (&AgentName, &Complaint)> {
        self.0.iter()
    }
}

impl Complaint {
    fn is_forgiven(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= FORGIVEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_culprit_is_named_with_what_it_did_and_logged_once_a_minute() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        let name: AgentName = "b".parse().unwrap();
        assert!(complaints.note(now, &name, Refusal::TooMuch, 1));
        assert!(!complaints.note(now, &name, Refusal::NotASlot, 5));
        let of = complaints.of(now, &name).unwrap();
        assert_eq!((of.counts, of.recent, of.last), ([0, 5, 1], 6, Refusal::NotASlot));
        assert!(complaints.note(now + TELL_EVERY, &name, Refusal::TooMuch, 1));
        let later = now + TELL_EVERY + FORGIVEN;
        assert_eq!(complaints.of(later, &name), None, "it is forgiven");
        complaints.note(later, &name, Refusal::TooMuch, 1);
        let of = complaints.of(later, &name).unwrap();
        assert_eq!((of.counts, of.recent), ([0, 5, 3], 1), "metrics count on");
        for n in 0..2 * MAX_AGENTS {
            complaints.note(now, &format!("n{n}").parse().unwrap(), Refusal::Malformed, 1);
        }
        assert_eq!(complaints.iter().count(), MAX_AGENTS);
        for (at, (why, _)) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
    }
}
