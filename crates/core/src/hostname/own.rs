//! What this agent claims, and what it keeps for later starts: the owner's side of the table of claims. Each change of what
//! it states comes out as a [`Write`].

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claims::{HeldClaim, stated_by};
use super::upkeep::{LAP, PROBATION};
use super::{Claim, ClaimKey, Claims, Clock, TunnelId};
use crate::slot::{Slot, SlotsFull, Write};

/// How long a tunnel stays closed after no owner closes it any more: an agent that did may be starting again, or this one may,
/// and has not heard of it yet. An operator who opens a tunnel while its agent runs does not wait for this.
pub(crate) const CLOSED_FOR: Duration = LAP;
/// Claims that are looked at, when there is no room, for one to be given up: some ten microseconds of them.
const SEARCHED: usize = 128;

impl Claims {
    /// Takes back what a journal kept: what this agent claimed, and what others had closed.
    pub fn restore(&mut self, now: Instant, claims: Vec<Claim>) -> Vec<Write> {
        let mut writes = Vec::new();
        for claim in claims.into_iter().map(Arc::new) {
            if claim.is_closing() {
                self.remember(now, &claim);
                continue;
            }
            self.restored = self.restored.max(claim.clock);
            let key = claim.key();
            writes.extend(self.state(&claim).ok().flatten());
            if let Some(upkeep) = self.upkeep.get_mut(&key) {
                upkeep.probation = PROBATION;
            }
        }
        self.touched.clear();
        writes
    }

    /// States a claim, which has its whole grace again; nothing else changes if it is stated already.
    pub fn state(&mut self, claim: &Arc<Claim>) -> Result<Option<Write>, SlotsFull> {
        let key = claim.key();
        let write = self.put(claim)?;
        if let Some(upkeep) = self.upkeep.get_mut(&key) {
            (upkeep.idle, upkeep.away) = (0, 0);
        }
        Ok(write)
    }

    pub(super) fn put(&mut self, claim: &Arc<Claim>) -> Result<Option<Write>, SlotsFull> {
        let key = claim.key();
        let before = self.own(&key).map(|held| (held.slot, held.claim.clone()));
        let write = match &before {
            Some((_, before)) if before == claim => return Ok(None),
            Some((slot, _)) => self.slots.replace(*slot, claim.clone()),
            None => self.slots.put(claim.clone())?,
        };
        if before.is_none() {
            self.stated += 1;
            self.bytes += claim.size();
            *self.of_tunnel.entry(key.tunnel).or_default() += 1;
        }
        self.upkeep.entry(key.clone()).or_default();
        self.touched.insert(key);
        let (us, before) = (self.us.clone(), before.map(|(_, before)| before));
        self.replace(&us, write.slot, before.as_deref(), Some(claim));
        Ok(Some(write))
    }

    /// Takes back a claim, and remembers it no more.
    pub fn withdraw(&mut self, key: &ClaimKey) -> Option<Write> {
        self.upkeep.remove(key);
        self.remove(&key.host, |held| held.is_remembered() && held.is_of(key.tunnel));
        let own = self.own(key)?;
        let (slot, size) = (own.slot, own.claim.size());
        self.stated -= 1;
        self.bytes -= size;
        if let Some(claims) = self.of_tunnel.get_mut(&key.tunnel) {
            *claims -= 1;
            if *claims == 0 {
                self.of_tunnel.remove(&key.tunnel);
            }
        }
        self.touched.insert(key.clone());
        Some(self.empty(key, slot))
    }

    /// Takes back what this agent states and may not any more, and remembers nothing of it.
    pub fn withdraw_unless(&mut self, may_stand: impl Fn(&str, TunnelId) -> bool) -> Vec<Write> {
        let over = self.upkeep.keys().filter(|key| !may_stand(&key.host, key.tunnel));
        let over: Vec<ClaimKey> = over.cloned().collect();
        over.iter().filter_map(|key| self.withdraw(key)).collect()
    }

    /// Remembers a claim no more that this agent does not state.
    pub fn forget(&mut self, key: &ClaimKey) {
        if !self.states(key) {
            self.withdraw(key);
        }
    }

    /// States that the operator's rules close these tunnels, and no others.
    pub fn close(&mut self, tunnels: &BTreeSet<TunnelId>) -> Vec<Write> {
        let key = |tunnel: TunnelId| Claim::closing(tunnel).key();
        let opened = self.closed.keys().filter(|tunnel| !tunnels.contains(tunnel));
        let opened = opened.filter_map(|tunnel| Some((*tunnel, self.own(&key(*tunnel))?.slot)));
        let opened: BTreeSet<_> = opened.collect();
        let mut writes: Vec<Write> =
            opened.into_iter().map(|(tunnel, slot)| self.empty(&key(tunnel), slot)).collect();
        for tunnel in tunnels {
            if self.states(&key(*tunnel)) {
                continue;
            }
            let closing = Arc::new(Claim::closing(*tunnel));
            // An agent's rules and claims together are far from filling its slots.
            let Ok(write) = self.slots.put(closing.clone()) else { break };
            let us = self.us.clone();
            self.replace(&us, write.slot, None, Some(&closing));
            writes.push(write);
        }
        writes
    }

    /// Opens the tunnels that stayed closed for long enough after no owner closed them any more.
    pub fn open_due(&mut self, now: Instant) {
        let due = self.closing.iter().filter(|(_, until)| **until <= now);
        for tunnel in due.map(|(tunnel, _)| *tunnel).collect::<Vec<_>>() {
            self.closing.remove(&tunnel);
            self.forget(&Claim::closing(tunnel).key());
        }
    }

    /// When the next of these is opened.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.closing.values().min().copied()
    }

    /// Notes that a claim was made before this agent can have learned what others claim.
    pub fn note_young(&mut self, key: &ClaimKey) {
        if let Some(upkeep) = self.upkeep.get_mut(key) {
            upkeep.young = true;
        }
    }

    /// By now this agent would have learned of rivals.
    pub fn grow_up(&mut self) {
        self.is_grown = true;
    }

    /// Another tunnel's claim on a host became known. If ours was made too soon to know and would win, it is stated again as
    /// what it is: later.
    pub fn yield_to(&mut self, rival: &Claim, later: Clock) -> Option<Write> {
        if self.is_grown {
            return None;
        }
        let ours = |held: &&HeldClaim| self.is_ours(held) && !held.is_of(rival.endpoint.tunnel);
        let ours: Vec<_> = self.on(&rival.host).filter(ours).map(|held| held.claim.clone()).collect();
        let young = |claim: &Arc<Claim>| {
            self.upkeep.get_mut(&claim.key()).is_some_and(|upkeep| std::mem::take(&mut upkeep.young))
        };
        let ours = ours.into_iter().find(young).filter(|ours| ours.rank() <= rival.rank())?;
        self.state(&Arc::new(Claim { clock: later, ..(*ours).clone() })).ok().flatten()
    }

    /// Whether this agent states a claim.
    pub fn states(&self, key: &ClaimKey) -> bool {
        self.own(key).is_some()
    }

    /// How many claims this agent states.
    pub fn stated(&self) -> usize {
        self.stated
    }

    /// How many of them are a tunnel's.
    pub fn stated_of(&self, tunnel: TunnelId) -> usize {
        self.of_tunnel.get(&tunnel).copied().unwrap_or_default()
    }

    /// A claim that this agent states for a tunnel that is not to be `kept`: of some that follow the last search, the one
    /// that was found without a record most often.
    pub fn find_unattached(&mut self, kept: impl Fn(TunnelId) -> bool) -> Option<ClaimKey> {
        let after = self.last_searched.take().map_or(Bound::Unbounded, Bound::Excluded);
        let following = self.upkeep.range((after, Bound::Unbounded)).chain(&self.upkeep);
        let some: Vec<_> = following.take(SEARCHED).map(|(key, upkeep)| (upkeep.idle, key)).collect();
        let mut last = some.last().map(|(_, key)| (*key).clone());
        std::mem::swap(&mut self.last_searched, &mut last);
        let unattached = some.into_iter().filter(|(_, key)| self.states(key) && !kept(key.tunnel));
        unattached.max_by_key(|(idle, _)| *idle).map(|(_, key)| key.clone())
    }

    /// What they count against a quota, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a journal has to keep of a claim: nothing unless this agent states it, or others close a tunnel with it. Until
    /// those are known again after a start, the tunnel must not be open.
    pub fn kept(&self, key: &ClaimKey) -> Option<Arc<Claim>> {
        let closing = Claim::closing(key.tunnel);
        if closing.key() == *key {
            return self.is_known_elsewhere(key).then(|| Arc::new(closing));
        }
        self.own(key).map(|held| held.claim.clone())
    }

    /// The claims of which the journal has to keep something else since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<ClaimKey> {
        std::mem::take(&mut self.touched)
    }

    /// How many these are.
    pub fn touched(&self) -> usize {
        self.touched.len()
    }

    /// Counts claims as changed again: they could not be written.
    pub fn touch(&mut self, keys: impl IntoIterator<Item = ClaimKey>) {
        self.touched.extend(keys);
    }

    /// Counts all that is kept as changed: a journal starts afresh.
    pub fn touch_all(&mut self) {
        let closing = self.closed.keys().map(|tunnel| Claim::closing(*tunnel).key());
        let closing = closing.filter(|key| self.is_known_elsewhere(key));
        let stated = self.upkeep.keys().filter(|key| self.states(key)).cloned();
        let all: Vec<ClaimKey> = closing.chain(stated).collect();
        self.touched.extend(all);
    }

    pub(super) fn own(&self, key: &ClaimKey) -> Option<&HeldClaim> {
        self.of(key).find(|held| self.is_ours(held))
    }

    fn empty(&mut self, key: &ClaimKey, slot: Slot) -> Write {
        let us = self.us.clone();
        self.remove(&key.host, stated_by(&us, slot));
        self.slots.clear(slot)
    }
}
