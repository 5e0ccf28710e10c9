//! The checks of the claims that this agent states or remembers. Each claim has its turn about once a [`LAP`]. A claim whose
//! tunnel has had no record anywhere for [`GRACE`] is given up, so that the name is free.
//!
//! Time is counted in checks, not read: an agent that was stopped for a while must not take the tunnels that it has not heard
//! of since for dead ones.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::claims::HeldClaim;
use super::{Claim, ClaimKey, Claims, Clock};
use crate::quota::MAX_TUNNEL_CLAIMS;
use crate::slot::{MAX_EACH, Write};

/// Between two checks of a claim.
pub const LAP: Duration = Duration::from_secs(60);
/// Consecutive checks that find no record of a claim's tunnel before the claim is given up.
pub(super) const MAX_IDLE: u8 = 60;
/// How long a name is kept for a tunnel without a record: clients reconnect, hosts are booted.
pub const GRACE: Duration = LAP.saturating_mul(MAX_IDLE as u32);
/// Checks until a claim from the journal counts like any other: a lease from the journal lasts no longer.
pub(super) const PROBATION: u8 = 2;
/// Consecutive checks that find a claim's tunnel only at another agent before the claim is handed over. Between two checks,
/// each of two agents learns if the other has lost the tunnel as well.
pub(super) const MAX_AWAY: u8 = 2;
/// Claims checked in one go, to keep the lock short.
pub(super) const BATCH: usize = 128;
/// Claims that are remembered at most: a bound against owners that come and go.
pub const MAX_REMEMBERED: usize = MAX_EACH as usize;

/// What the rest of the cluster shows of a claim's tunnel and of its rivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSighting {
    /// Whether any agent has a record of the tunnel.
    pub alive: bool,
    /// Whether this agent has one.
    pub here: bool,
    /// The earliest clock with which another agent, surely alive, states the claim and has a record of the tunnel.
    pub elsewhere: Option<Clock>,
    /// The latest claim on the host of another tunnel that has a record.
    pub rival: Option<Clock>,
}

/// What the checks of a claim found so far.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Consecutive checks without a record of the tunnel.
    pub(super) idle: u8,
    /// Consecutive checks that found the tunnel at another agent that states the claim, too, and not here.
    pub(super) away: u8,
    /// Checks until the claim counts fully.
    pub(super) probation: u8,
    /// Whether the claim was made before this agent can have learned what others claim.
    pub(super) young: bool,
}

impl Claims {
    /// The claims whose turn it is to be checked.
    pub fn take_turns(&mut self) -> Vec<ClaimKey> {
        (0..self.batch()).map_while(|_| self.next_turn()).collect()
    }

    /// When the next claims have their turn, for each to have one once a [`LAP`]; none without claims.
    pub fn pace(&self) -> Option<Duration> {
        let goes = u32::try_from(self.upkeep.len().div_ceil(self.batch().max(1))).ok()?;
        LAP.checked_div(goes)
    }

    /// How many claims are checked, because this agent states or remembers them.
    pub fn checked(&self) -> usize {
        self.upkeep.len()
    }

    /// Checks a claim: what is to be stated for it, or not any more. This agent states no more than `most`.
    pub fn check(&mut self, key: &ClaimKey, found: TunnelSighting, most: usize) -> Option<Write> {
        let claimed = self.claimed(key)?;
        let own = self.own(key).map(|held| held.claim.clock);
        let is_remembered = self.of(key).any(HeldClaim::is_remembered);
        let upkeep = self.upkeep.get_mut(key)?;
        upkeep.idle = if found.alive { 0 } else { upkeep.idle + 1 };
        let is_away = !found.here && found.elsewhere.is_some_and(|since| since <= own.unwrap_or(claimed));
        upkeep.away = if is_away { upkeep.away.saturating_add(1) } else { 0 };
        let is_unproven = upkeep.probation > 0;
        upkeep.probation = upkeep.probation.saturating_sub(1);
        // While this agent was away, the name may have become another's.
        let is_lost = is_unproven && !found.alive && found.rival.is_some_and(|since| since > self.restored);
        let is_moved = own.is_some() && upkeep.away >= MAX_AWAY;
        if upkeep.idle >= MAX_IDLE || is_lost || is_moved {
            return self.withdraw(key);
        }
        // Somebody has to state it, for those to learn who were not there; and with the tunnel's first clock, so that it does
        // not lose what another agent stated.
        let is_due = match own {
            None => {
                let has_room = self.stated < most && self.stated_of(key.tunnel) < MAX_TUNNEL_CLAIMS;
                has_room && (found.here || is_remembered)
            }
            Some(clock) => claimed < clock,
        };
        let model = self.own(key).or_else(|| self.of(key).min_by_key(|held| !held.is_remembered()));
        let model = model.filter(|_| is_due)?.claim.clone();
        // Without a free slot it stays as it was.
        self.put(&Arc::new(Claim { clock: claimed, ..(*model).clone() })).ok().flatten()
    }

    /// As many as have their turn if there is a check a second.
    fn batch(&self) -> usize {
        self.upkeep.len().div_ceil(60).min(BATCH)
    }

    fn next_turn(&mut self) -> Option<ClaimKey> {
        let after = self.last_turn.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.upkeep.range((after, Bound::Unbounded)).next();
        let (key, _) = next.or_else(|| self.upkeep.first_key_value())?;
        self.last_turn = Some(key.clone());
        self.last_turn.clone()
    }
}
