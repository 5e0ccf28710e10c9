//! The bounds on plugin connections, and how many connections were closed for them. An idle connection is never closed
//! for its idleness: gost does not repeat a write whose connection was closed under it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Enough for hundreds of gosts. A process that may open 1,024 file descriptors runs out of them first, and notices it.
pub const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");
/// How long each of these may take: a request's head, its body, sending the answer, and a TLS handshake. On one host
/// they take microseconds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long a guest is served before it is sent home. A guest that cannot reach its own agent, though we can, comes
/// back at once: this bounds how often it dials.
pub const GUEST: Duration = Duration::from_secs(5);

/// The bounds on plugin connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many connections may be open over all listeners.
    pub max_connections: NonZeroUsize,
    /// How long each step of a call may take.
    pub patience: Duration,
    /// How long a guest's connection is served before it is sent home.
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
    /// A new connection needed its place.
    Evicted,
    /// Its TLS handshake took too long.
    SlowHandshake,
    /// A request's head, or a frame, was begun and not completed.
    SlowHead,
    /// A request's body was begun and not completed.
    SlowBody,
    /// The caller did not read the answers.
    Unread,
}

impl Closed {
    /// Every reason, with its name in logs and metrics.
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
pub struct ClosedCounts([AtomicU64; Closed::ALL.len()]);

impl ClosedCounts {
    pub(super) fn count(&self, why: Closed) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections were closed for this reason.
    pub fn closed(&self, why: Closed) -> u64 {
        self.0[why as usize].load(Ordering::Relaxed)
    }
}
