//! What is held against peers: changes and messages of theirs that were refused. A peer that is broken, or whose key somebody has, is
//! found by its name.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::record::AgentName;
use super::replicas::MAX_AGENTS;

/// A peer is worth a line of the log this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

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

    /// The same for operators.
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed => "frames that make no sense",
            Self::NotASlot => "slots that cannot be",
            Self::TooMuch => "more than one agent may make others hold",
        }
    }
}

/// Against one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// How often each of [`Refusal::ALL`].
    pub counts: [u64; Refusal::ALL.len()],
    /// Why last.
    pub last: Refusal,
    told: Instant,
}

impl Complaint {
    /// How often in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
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
        let fresh = Complaint { counts: [0; Refusal::ALL.len()], last: why, told: now };
        let is_first = !self.0.contains_key(of);
        let complaint = self.0.entry(of.clone()).or_insert(fresh);
        complaint.counts[why as usize] += times;
        complaint.last = why;
        let is_due = is_first || now.saturating_duration_since(complaint.told) >= TELL_EVERY;
        if is_due {
            complaint.told = now;
        }
        is_due
    }

    /// What is held against a peer.
    pub fn of(&self, name: &AgentName) -> Option<Complaint> {
        self.0.get(name).copied()
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = (&AgentName, &Complaint)> {
        self.0.iter()
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
        let of = complaints.of(&name).unwrap();
        assert_eq!((of.counts, of.total(), of.last), ([0, 5, 1], 6, Refusal::NotASlot));
        assert!(complaints.note(now + TELL_EVERY, &name, Refusal::TooMuch, 1));
        for n in 0..2 * MAX_AGENTS {
            complaints.note(now, &format!("n{n}").parse().unwrap(), Refusal::Malformed, 1);
        }
        assert_eq!(complaints.iter().count(), MAX_AGENTS);
        for (at, (why, _)) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
    }
}
