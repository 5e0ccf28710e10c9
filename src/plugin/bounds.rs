//! How much of an agent its callers may take: the bounds on plugin connections, and how many were closed for
//! them. Idleness is no reason: gost never repeats a write whose connection was closed under it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Hundreds of gosts, and few enough for a process with 1,024 file descriptors to notice by itself.
pub const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");
/// A request's head, its body, the answer's way out and a TLS handshake may take this long each. On one host
/// they take microseconds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A guest whose own agent is heard, but not reached by it, comes back at once: then it dials no more often than this.
pub const GUEST: Duration = Duration::from_secs(5);

/// The bounds on plugin connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many may be open over all listeners.
    pub max_connections: NonZeroUsize,
    /// How long each step of a call may take.
    pub patience: Duration,
    /// How long a guest's connection is served at least before it is sent home.
    pub guest: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_connections: MAX_CONNECTIONS, patience: PATIENCE, guest: GUEST }
    }
}

/// Why the agent closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Others needed the room.
    Evicted,
    /// Its TLS handshake took too long.
    SlowHandshake,
    /// A request's head, or a frame, was begun and not completed.
    SlowHead,
    /// A request's body was not completed.
    SlowBody,
    /// The answers were not read.
    Unread,
}

impl Closed {
    /// Every reason, with the word that logs and metrics use.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Evicted, "evicted"),
        (Self::SlowHandshake, "slow_handshake"),
        (Self::SlowHead, "slow_head"),
        (Self::SlowBody, "slow_body"),
        (Self::Unread, "unread"),
    ];
}

/// How many connections were closed, by reason.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Closed::ALL.len()]);

impl Counters {
    pub(super) fn count(&self, why: Closed) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were closed for this reason.
    pub fn closed(&self, why: Closed) -> u64 {
        self.0[why as usize].load(Ordering::Relaxed)
    }
}
