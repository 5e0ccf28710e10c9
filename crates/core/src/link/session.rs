//! A session: what a finished handshake left. Each of its frames is taken once. One that was silent for longer than
//! suspicion takes is stale, see [`super::peers`]: its frames count for nothing, because somebody may have held them back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::Index;
use super::keyring::KeyId;
use super::noise::{Channel, Mismatch};
use crate::record::{AgentName, Owner};

/// Frames that may be behind the newest one of their session and still be taken. TCP frames stand in queues
/// while UDP frames of the same session run past, at most some seconds of a busy sender.
const WINDOW: u64 = 8_192;
const WORDS: usize = (WINDOW / 64) as usize;
/// Of so many frames is told how many were lost: those of a minute in which nothing happens.
const TOLD: u64 = 128;
/// Added to what was missed, so that the share is rarely told too small.
const LUCK: u64 = 3;
/// The newest frames may be overtaken by others, and are not missed yet.
const UNDER_WAY: u64 = 4;
/// A session that another one replaced is dropped when nothing came in it for this long.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// The other end of an admitted session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which agent, and which of its starts.
    pub owner: Owner,
    /// Where to send.
    pub addr: SocketAddr,
}

/// A finished handshake.
pub(super) struct Session {
    pub(super) peer: Peer,
    /// Where the handshake was made with it: this address has answered, the one that it advertises may not.
    pub(super) via: SocketAddr,
    /// The version of its program.
    pub(super) program: Arc<str>,
    /// The key that the handshake was made with.
    pub(super) key: KeyId,
    /// The other end's index.
    pub(super) theirs: Index,
    pub(super) channel: Channel,
    /// When the handshake began, as this end saw it.
    begun: Instant,
    /// When it was finished.
    pub(super) since: Instant,
    /// Whether it is the one to keep of two handshakes that crossed: the one that the lower name began.
    is_preferred: bool,
    window: Box<Window>,
}

impl Session {
    /// Of a handshake that was finished just now, between us and a peer; whether it is we who began it.
    pub(super) fn new(
        (begun, now): (Instant, Instant),
        (us, is_ours): (&AgentName, bool),
        (peer, program): (Peer, Arc<str>),
        key: KeyId,
        theirs: Index,
        channel: Channel,
    ) -> Self {
        let is_preferred = is_ours == (*us < peer.owner.name);
        Self {
            via: peer.addr,
            peer,
            program,
            key,
            theirs,
            channel,
            begun,
            since: now,
            is_preferred,
            window: Box::new(Window::new()),
        }
    }

    /// Whether this one is to be kept although the other one was finished later: their handshakes crossed.
    pub(super) fn is_before(&self, later: &Self) -> bool {
        let crossed = later.begun <= self.since;
        crossed && self.is_preferred && !later.is_preferred
    }

    /// Decrypts a frame that was not seen before.
    pub(super) fn open(&mut self, counter: u64, encrypted: &[u8]) -> Result<Vec<u8>, Unopened> {
        let plain = self.channel.decrypt(counter, encrypted).map_err(|Mismatch| Unopened::Mismatch)?;
        if self.window.take(counter) { Ok(plain) } else { Err(Unopened::Replayed) }
    }

    /// How many in a thousand of the last frames did not arrive, rather too many than too few.
    pub(super) fn lost(&self) -> u16 {
        self.window.lost()
    }
}

/// Why a frame of a session counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// Of no session.
    Unknown,
    /// Not made for this session, or damaged.
    Mismatch,
    /// Seen before, or too old to tell.
    Replayed,
    /// Its session was silent for too long.
    Stale,
}

/// Which of the last [`WINDOW`] counters were seen.
#[derive(Debug)]
struct Window {
    next: u64,
    seen: [u64; WORDS],
}

impl Window {
    fn new() -> Self {
        Self { next: 0, seen: [0; WORDS] }
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

    /// How many in a thousand of the last counters were not seen.
    fn lost(&self) -> u16 {
        let end = self.next.saturating_sub(UNDER_WAY);
        let counters = end.saturating_sub(TOLD)..end;
        let all = counters.end - counters.start;
        let missed = counters.filter(|counter| {
            let (word, bit) = place(*counter);
            self.seen[word] & bit == 0
        });
        let missed = missed.count() as u64;
        let most = (missed + LUCK).min(all);
        if missed == 0 { 0 } else { u16::try_from(most * 1_000 / all).unwrap_or(u16::MAX) }
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

    #[test]
    fn what_did_not_arrive_is_told_and_what_was_overtaken_is_not() {
        let mut window = Window::new();
        assert_eq!(window.lost(), 0, "nothing came");
        (0..1_000).filter(|counter| counter % 400 != 0).for_each(|counter| assert!(window.take(counter)));
        assert_eq!(window.lost(), 0, "none of late");
        (1_001..1_100).for_each(|counter| assert!(window.take(counter)));
        assert_eq!(window.lost(), 4 * 1_000 / 128, "a single one");
        window.take(1_000);
        assert_eq!(window.lost(), 0, "it was late");
        (1_100..2_000).filter(|counter| counter % 5 != 0).for_each(|counter| assert!(window.take(counter)));
        assert!((200..=240).contains(&window.lost()), "{}", window.lost());
        (1_900..2_000).filter(|counter| counter % 5 == 0).for_each(|counter| assert!(window.take(counter)));
        assert!(window.lost() < 100, "they came late: {}", window.lost());
        window.take(100_000);
        assert_eq!(window.lost(), 1_000);
    }

    proptest! {
        #[test]
        fn every_counter_is_taken_once(counters in proptest::collection::vec(0..30_000_u64, 1..400)) {
            let (mut window, mut model) = (Window::new(), HashSet::new());
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
