//! What the gossip counts: frames and bytes by way and kind, and what it dropped and why.

use std::sync::atomic::{AtomicU64, Ordering};

use super::frame::FrameError;
use super::gauges::Gauges;
use super::session::Unopened;
use super::wire::Kind;

/// Why something that arrived, or should have left, was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// No frame at all.
    NotAFrame,
    /// A frame of another format version.
    Version,
    /// Made with a key that is not ours.
    UnknownKey,
    /// Forged, damaged or of another cluster.
    BadSeal,
    /// Authentic, but its content makes no sense.
    Malformed,
    /// Authentic, of a kind that a later version may know.
    UnknownKind,
    /// Authentic, with fields that a later version may know: those only.
    UnknownField,
    /// Authentic, but seen before.
    Replayed,
    /// Our own frame, come back.
    Reflected,
    /// Of no handshake or session that is known here.
    Stranger,
    /// A handshake of another host's agent that says that it is reached at a loopback address.
    ForeignLoopback,
    /// Of a session that was silent for too long: its process has to make another handshake.
    Stale,
    /// The beginning of a handshake, where too many came.
    Paced,
    /// A key or value that is no slot.
    NotASlot,
    /// A queue to a peer was full.
    QueueFull,
    /// The socket did not take it.
    SendFailed,
    /// The kernel's buffer for what peers send was full.
    ReceiveBuffer,
    /// A TCP connection that broke the framing, or brought nothing new from a peer for too long.
    Connection,
    /// A TCP connection that made room for another.
    Crowded,
}

impl Dropped {
    /// Every reason, with the word that logs and metrics use.
    pub const ALL: [(Self, &'static str); 19] = [
        (Self::NotAFrame, "not_a_frame"),
        (Self::Version, "version"),
        (Self::UnknownKey, "unknown_key"),
        (Self::BadSeal, "bad_seal"),
        (Self::Malformed, "malformed"),
        (Self::UnknownKind, "unknown_kind"),
        (Self::UnknownField, "unknown_field"),
        (Self::Replayed, "replayed"),
        (Self::Reflected, "reflected"),
        (Self::Stranger, "stranger"),
        (Self::ForeignLoopback, "foreign_loopback"),
        (Self::Stale, "stale"),
        (Self::Paced, "paced"),
        (Self::NotASlot, "not_a_slot"),
        (Self::QueueFull, "queue_full"),
        (Self::SendFailed, "send_failed"),
        (Self::ReceiveBuffer, "receive_buffer"),
        (Self::Connection, "connection"),
        (Self::Crowded, "crowded"),
    ];
}

impl From<FrameError> for Dropped {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::NotAFrame => Self::NotAFrame,
            FrameError::Version => Self::Version,
        }
    }
}

impl From<Unopened> for Dropped {
    fn from(error: Unopened) -> Self {
        match error {
            Unopened::Unknown => Self::Stranger,
            Unopened::Mismatch => Self::BadSeal,
            Unopened::Replayed => Self::Replayed,
            Unopened::Stale => Self::Stale,
        }
    }
}

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    dropped: [AtomicU64; Dropped::ALL.len()],
    sent: [AtomicU64; Kind::ALL.len()],
    sent_bytes: [AtomicU64; Kind::ALL.len()],
    received: [AtomicU64; Kind::ALL.len()],
    pushes_given_up: AtomicU64,
    doubts: AtomicU64,
    suspicions: AtomicU64,
    /// How full the tables are.
    pub gauges: Gauges,
}

impl Counters {
    /// Counts something dropped.
    pub fn count(&self, why: Dropped) {
        add(&self.dropped[why as usize], 1);
    }

    /// Counts so much dropped at once.
    pub fn count_all(&self, why: Dropped, count: u64) {
        add(&self.dropped[why as usize], count);
    }

    /// How often something was dropped for that reason.
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why as usize].load(Ordering::Relaxed)
    }

    /// Counts a frame sent, of `bytes` on the wire without IP's and UDP's.
    pub fn send(&self, kind: Kind, bytes: usize) {
        add(&self.sent[kind as usize], 1);
        add(&self.sent_bytes[kind as usize], bytes as u64);
    }

    /// Frames of one kind sent.
    pub fn sent_of(&self, kind: Kind) -> u64 {
        self.sent[kind as usize].load(Ordering::Relaxed)
    }

    /// Bytes of the frames of one kind sent, without IP's and UDP's.
    pub fn sent_bytes_of(&self, kind: Kind) -> u64 {
        self.sent_bytes[kind as usize].load(Ordering::Relaxed)
    }

    /// Counts a frame taken.
    pub fn receive(&self, kind: Kind) {
        add(&self.received[kind as usize], 1);
    }

    /// Frames of one kind taken.
    pub fn received_of(&self, kind: Kind) -> u64 {
        self.received[kind as usize].load(Ordering::Relaxed)
    }

    /// Counts a peer that came in doubt.
    pub fn doubt(&self) {
        add(&self.doubts, 1);
    }

    /// How often a peer came in doubt.
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    /// Counts a peer that became suspect.
    pub fn suspect(&self) {
        add(&self.suspicions, 1);
    }

    /// How often a peer became suspect.
    pub fn suspicions(&self) -> u64 {
        self.suspicions.load(Ordering::Relaxed)
    }

    /// Says how many pushes were left to repair so far.
    pub fn set_pushes_given_up(&self, count: u64) {
        self.pushes_given_up.store(count, Ordering::Relaxed);
    }

    /// Pushes left to repair, counted once for each peer that did not answer.
    pub fn pushes_given_up(&self) -> u64 {
        self.pushes_given_up.load(Ordering::Relaxed)
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_word() {
        for (at, (why, word)) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at, "{word}");
            assert_eq!(Dropped::ALL.iter().filter(|(_, other)| *other == word).count(), 1);
        }
    }
}
