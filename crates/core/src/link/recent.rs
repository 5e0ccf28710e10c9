//! What a peer pushed of late. An agent that crashes before repair has brought its last words, and before
//! they are on its disk, can learn them only from those who heard the push: they say them back to its next start.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pushes this much older than a peer's last one have been repaired.
const AGE: Duration = Duration::from_secs(3);
/// Pushes kept per peer, about 1 kB each. Every peer says them back, so it bounds what a return costs.
pub(super) const MAX_PUSHES: usize = 32;
/// A longer push is none of ours, and is not kept: by TCP a peer could send some as long as 65 kB.
const MAX_PUSH: usize = 2_048;

/// The last pushes of one session, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(Instant, u64, Box<[u8]>)>);

impl Recent {
    /// Remembers an encoded [`super::wire::Push`] of that id; a copy of it is not kept as well.
    pub(super) fn note(&mut self, now: Instant, id: u64, push: &[u8]) {
        self.0.retain(|(at, ..)| now.saturating_duration_since(*at) < AGE);
        if push.len() > MAX_PUSH || self.0.iter().any(|(_, known, _)| *known == id) {
            return;
        }
        if self.0.len() == MAX_PUSHES {
            self.0.pop_front();
        }
        self.0.push_back((now, id, push.into()));
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The encoded pushes.
    pub(super) fn pushes(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(.., push)| &**push)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_kept_until_others_follow_much_later() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for n in 0..=MAX_PUSHES {
            recent.note(now, n as u64, &[u8::try_from(n).unwrap()]);
            recent.note(now, n as u64, b"a copy");
        }
        let kept: Vec<u8> = recent.pushes().map(|push| push[0]).collect();
        assert_eq!((kept.len(), kept[0]), (MAX_PUSHES, 1), "the oldest makes room");
        recent.note(now + AGE, 1, b"x");
        recent.note(now + AGE, 2, &[0; MAX_PUSH + 1]);
        assert_eq!(recent.pushes().collect::<Vec<_>>(), [b"x"]);
    }
}
