//! How much one agent holds at most. Whoever comes when it is full is refused; what is there stays.

use super::slot::{MAX_EACH, SlotsFull};

/// The bounds of what is registered and claimed at one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Live records; as many may have lapsed and wait to be revived.
    pub records: usize,
    /// Claims on host names; every tunnel has one on its hash host.
    pub claims: usize,
    /// All of it, in bytes of memory, roughly.
    pub bytes: usize,
}

/// Live records of one tunnel at one agent: many times what any tunnel has clients at one host, and a twelfth of what an
/// agent holds by default, so that no tunnel fills it.
pub const MAX_TUNNEL_RECORDS: usize = 8_192;
/// Host names that one tunnel with a record anywhere may claim at one agent.
pub const MAX_TUNNEL_CLAIMS: usize = 1_024;
/// Host names of a tunnel without a record. gost claims the names of a client, its hash host and one more, before it
/// registers the client; and a tunnel whose clients are away keeps its names for a while.
pub const MAX_UNATTACHED_CLAIMS: usize = 64;

impl Default for Quota {
    /// What a cluster is designed for, at one agent.
    fn default() -> Self {
        Self { records: 100_000, claims: 200_000, bytes: 256 << 20 }
    }
}

/// How much is kept of other owners, in bytes of memory, roughly: a bound against owners that make things up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of one start of one owner.
    pub owner: usize,
    /// Of all together. Whoever has less than [`Share::FLOOR`] is kept all the same.
    pub all: usize,
}

impl Share {
    /// What every owner may have: some thousand records.
    pub const FLOOR: usize = 1 << 20;

    /// Of agents with such a quota, or with the usual one if that is more: each owner what it may hold itself and half
    /// as much for the slots around that; all together four times as much.
    pub fn of(quota: &Quota) -> Self {
        let own = quota.bytes.max(Quota::default().bytes);
        let owner = own.saturating_add(own / 2);
        Self { owner, all: owner.saturating_mul(4) }
    }
}

impl Share {
    /// No more than so many bytes.
    #[must_use]
    pub fn within(self, most: usize) -> Self {
        Self { owner: self.owner.min(most), all: self.all.min(most) }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::of(&Quota::default())
    }
}

/// There is no room. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// See [`Quota::records`].
    #[error("this agent already holds {0} records (--max-records)")]
    Records(usize),
    /// See [`Quota::claims`].
    #[error("this agent already holds {0} ingress rules (--max-rules)")]
    Claims(usize),
    /// See [`Quota::bytes`].
    #[error("this agent already holds {0} bytes of records and rules (--max-bytes)")]
    Bytes(usize),
    /// See [`MAX_TUNNEL_RECORDS`].
    #[error("this tunnel already has {0} records at this agent, the most that one tunnel may have")]
    TunnelRecords(usize),
    /// See [`MAX_TUNNEL_CLAIMS`] and [`MAX_UNATTACHED_CLAIMS`].
    #[error("this tunnel already has {0} host names at this agent, the most that one tunnel may have")]
    TunnelClaims(usize),
    /// See [`MAX_EACH`].
    #[error("this agent already holds {MAX_EACH} of them")]
    Slots,
}

impl From<SlotsFull> for Full {
    fn from(_: SlotsFull) -> Self {
        Self::Slots
    }
}
