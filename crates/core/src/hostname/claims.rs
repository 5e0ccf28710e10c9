//! The claims of all owners, by host name: who states which, in which slot, since when. Each is kept once: what this agent
//! claims (own.rs), what other owners claim, and what is remembered of owners that are gone. Reads look a name
//! up and allocate nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::own::CLOSED_FOR;
use super::upkeep::{MAX_REMEMBERED, Upkeep};
use super::{Claim, ClaimKey, Clock, Endpoint, MAX_CLOCK, TunnelId};
use crate::capacity::GiveBack as _;
use crate::record::Owner;
use crate::replicas::Shift;
use crate::slot::{Slot, SlotTable};

/// See the module.
#[derive(Debug)]
pub struct Claims {
    pub(super) us: Arc<Owner>,
    by_host: HashMap<Arc<str>, Vec<HeldClaim>>,
    /// How many claims close a tunnel to the public, of those that have any.
    pub(super) closed: HashMap<TunnelId, usize>,
    clock: Clock,
    len: usize,
    revision: u64,
    /// Of the claims that this agent states.
    pub(super) slots: SlotTable,
    pub(super) stated: usize,
    pub(super) bytes: usize,
    /// Of the claims that this agent states or remembers, in the order of their turns.
    pub(super) upkeep: BTreeMap<ClaimKey, Upkeep>,
    pub(super) last_turn: Option<ClaimKey>,
    /// How many claims this agent states of a tunnel, for those that have any.
    pub(super) of_tunnel: HashMap<TunnelId, usize>,
    /// Where the last search for a claim to give up ended.
    pub(super) last_searched: Option<ClaimKey>,
    /// The highest clock that the journal had.
    pub(super) restored: Clock,
    /// Whether this agent has learned by now what others claim.
    pub(super) is_grown: bool,
    /// Until when tunnels stay closed that no owner closes any more.
    pub(super) closing: BTreeMap<TunnelId, Instant>,
    /// What the journal has to write.
    pub(super) touched: BTreeSet<ClaimKey>,
}

/// A claim that somebody states.
#[derive(Debug)]
pub(super) struct HeldClaim {
    pub(super) claim: Arc<Claim>,
    /// Who states it; none if it is only remembered, because its owner is gone.
    owner: Option<Arc<Owner>>,
    /// In which slot of the owner.
    pub(super) slot: Slot,
}

impl HeldClaim {
    pub(super) fn is_of(&self, tunnel: TunnelId) -> bool {
        self.claim.endpoint.tunnel == tunnel
    }

    pub(super) fn is_remembered(&self) -> bool {
        self.owner.is_none()
    }
}

impl Claims {
    /// The table of this owner, empty.
    pub fn new(us: &Owner) -> Self {
        Self {
            us: Arc::new(us.clone()),
            by_host: HashMap::new(),
            closed: HashMap::new(),
            clock: 0,
            len: 0,
            revision: 0,
            slots: SlotTable::for_claims(),
            stated: 0,
            bytes: 0,
            upkeep: BTreeMap::new(),
            last_turn: None,
            of_tunnel: HashMap::new(),
            last_searched: None,
            restored: 0,
            is_grown: false,
            closing: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Where the earliest claim on a host leads.
    pub fn winner(&self, host: &str) -> Option<Endpoint> {
        self.winner_of(host, |_| true)
    }

    /// The same among the claims of tunnels that may have the host.
    pub fn winner_of(&self, host: &str, may_have: impl Fn(TunnelId) -> bool) -> Option<Endpoint> {
        let standing = self.by_host.get(host)?.iter().filter(|held| may_have(held.claim.endpoint.tunnel));
        let first = standing.min_by_key(|held| held.claim.rank())?;
        Some(self.endpoint_of(first.claim.endpoint.tunnel))
    }

    /// A tunnel as it is under all its names.
    pub fn endpoint_of(&self, tunnel: TunnelId) -> Endpoint {
        Endpoint { tunnel, private: self.is_private(tunnel) }
    }

    /// Whether a tunnel is closed to the public: under all its names, if any claim closes it.
    pub fn is_private(&self, tunnel: TunnelId) -> bool {
        self.closed.contains_key(&tunnel)
    }

    /// How many tunnels are closed.
    pub fn private(&self) -> usize {
        self.closed.len()
    }

    /// When a tunnel first claimed a host, as far as is known.
    pub fn claimed(&self, key: &ClaimKey) -> Option<Clock> {
        self.of(key).map(|held| held.claim.clock).min()
    }

    /// The other owners that state a claim, with their clocks.
    pub fn others(&self, key: &ClaimKey) -> impl Iterator<Item = (&Arc<Owner>, Clock)> {
        let others = self.of(key).filter(|held| !self.is_ours(held));
        others.filter_map(|held| Some((held.owner.as_ref()?, held.claim.clock)))
    }

    /// The claims of other tunnels on the same host: tunnel and clock.
    pub fn rivals(&self, key: &ClaimKey) -> impl Iterator<Item = (TunnelId, Clock)> {
        let rivals = self.on(&key.host).filter(|held| !held.is_of(key.tunnel));
        rivals.map(|held| (held.claim.endpoint.tunnel, held.claim.clock))
    }

    /// Above every claim ever seen here.
    pub fn next_clock(&self) -> Clock {
        (self.clock + 1).min(MAX_CLOCK)
    }

    /// Rises with every change of what hosts lead to.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The hosts with a claim, in no particular order.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_host.keys()
    }

    /// How many claims are known, of all owners.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no claim is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Follows what is shown of other owners. This agent's own claims are here already.
    pub(crate) fn follow(&mut self, shift: &Shift<'_>) {
        if let Shift::Slot { owner, change, before } = shift {
            let before = before.as_ref().and_then(|cell| cell.content.claim());
            self.change(owner, change.slot, before.map(|claim| &**claim), change.cell.content.claim());
        }
    }

    /// An owner that is shown from now on has a claim in a slot. It is known already if it was stated since.
    pub(crate) fn take(&mut self, owner: &Arc<Owner>, slot: Slot, claim: &Arc<Claim>) {
        let is_it = stated_by(owner, slot);
        if !self.on(&claim.host).any(is_it) {
            self.change(owner, slot, None, Some(claim));
        }
    }

    /// An owner has another claim in a slot than before, or none.
    pub(super) fn change(
        &mut self,
        owner: &Arc<Owner>,
        slot: Slot,
        before: Option<&Claim>,
        after: Option<&Arc<Claim>>,
    ) {
        if (before.is_none() && after.is_none()) || **owner == *self.us {
            return;
        }
        self.replace(owner, slot, before, after);
        if let Some(before) = before.map(Claim::key)
            && self.of(&before).next().is_none()
        {
            // It was taken back: there is nothing to remember.
            self.upkeep.remove(&before);
        }
    }

    /// An owner is gone that had a claim in a slot. The claim is remembered, unless somebody else has it.
    pub(crate) fn lose(&mut self, now: Instant, owner: &Owner, slot: Slot, claim: &Arc<Claim>) {
        if *owner != *self.us && self.remove(&claim.host, stated_by(owner, slot)) {
            self.remember(now, claim);
        }
    }

    /// Remembers a claim that no owner states, unless it is known: a claim on a host until its checks end it, that a tunnel
    /// is closed for a while.
    pub fn remember(&mut self, now: Instant, claim: &Arc<Claim>) {
        let key = claim.key();
        if self.of(&key).next().is_some() {
            return;
        }
        if claim.is_closing() {
            self.closing.insert(key.tunnel, now + CLOSED_FOR);
        } else if self.upkeep.len() - self.stated < MAX_REMEMBERED {
            self.upkeep.entry(key).or_default();
        } else {
            self.upkeep.remove(&key);
            return;
        }
        self.add(HeldClaim { claim: claim.clone(), owner: None, slot: 0 });
    }

    /// Gives back the capacity of a peak that is over.
    pub fn give_back(&mut self) {
        self.by_host.give_back();
        self.closed.give_back();
        self.of_tunnel.give_back();
    }

    /// Entries that there is capacity for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.by_host.capacity() + self.closed.capacity() + self.of_tunnel.capacity()
    }

    pub(super) fn of(&self, key: &ClaimKey) -> impl Iterator<Item = &HeldClaim> {
        self.on(&key.host).filter(|held| held.is_of(key.tunnel))
    }

    pub(super) fn on(&self, host: &str) -> impl Iterator<Item = &HeldClaim> {
        self.by_host.get(host).into_iter().flatten()
    }

    /// Whether anybody but this agent states a claim, or did.
    pub(super) fn is_known_elsewhere(&self, key: &ClaimKey) -> bool {
        self.of(key).any(|held| !self.is_ours(held))
    }

    pub(super) fn is_ours(&self, held: &HeldClaim) -> bool {
        held.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &self.us))
    }

    pub(super) fn replace(
        &mut self,
        owner: &Arc<Owner>,
        slot: Slot,
        before: Option<&Claim>,
        after: Option<&Arc<Claim>>,
    ) {
        if let Some(before) = before {
            self.remove(&before.host, stated_by(owner, slot));
        }
        if let Some(claim) = after {
            self.add(HeldClaim { claim: claim.clone(), owner: Some(owner.clone()), slot });
            // What is remembered counts until an owner states it with no later clock.
            let key = claim.key();
            self.remove(&key.host, |held| {
                held.is_remembered() && held.is_of(key.tunnel) && held.claim.clock >= claim.clock
            });
        }
    }

    fn add(&mut self, held: HeldClaim) {
        let claim = &held.claim;
        self.clock = self.clock.max(claim.clock);
        if claim.endpoint.private {
            *self.closed.entry(claim.endpoint.tunnel).or_default() += 1;
        }
        if !claim.is_closing() {
            self.len += 1;
        } else if !self.is_ours(&held) && !self.is_known_elsewhere(&claim.key()) {
            self.touched.insert(claim.key());
        }
        self.revision += 1;
        self.by_host.entry(claim.host.clone()).or_default().push(held);
    }

    /// Whether there was such a claim.
    pub(super) fn remove(&mut self, host: &str, which: impl Fn(&HeldClaim) -> bool) -> bool {
        let Some(claims) = self.by_host.get_mut(host) else { return false };
        let Some(at) = claims.iter().position(which) else { return false };
        let held = claims.swap_remove(at);
        if claims.is_empty() {
            self.by_host.remove(host);
        }
        self.revision += 1;
        let claim = &held.claim;
        if !claim.is_closing() {
            self.len -= 1;
        } else if !self.is_ours(&held) && !self.is_known_elsewhere(&claim.key()) {
            self.touched.insert(claim.key());
        }
        if claim.endpoint.private
            && let Some(claims) = self.closed.get_mut(&claim.endpoint.tunnel)
        {
            *claims -= 1;
            if *claims == 0 {
                self.closed.remove(&claim.endpoint.tunnel);
            }
        }
        true
    }
}

pub(super) fn stated_by(owner: &Owner, slot: Slot) -> impl Fn(&HeldClaim) -> bool {
    move |held| held.slot == slot && held.owner.as_ref().is_some_and(|other| **other == *owner)
}
