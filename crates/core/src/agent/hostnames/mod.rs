//! Which tunnel a host name belongs to: claims that this agent states, claims of other owners, and claims that are remembered
//! because their owner is gone.

mod list;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use crate::directory::Directory;
use crate::hostname::{Claim, ClaimKey, Endpoint, LAP, MAX_CLOCK, TunnelId, TunnelSighting};
use crate::label::Label;
use crate::liveness::{Liveness, Standing};
use crate::quota::{Full, MAX_TUNNEL_CLAIMS, MAX_UNATTACHED_CLAIMS};
use crate::record::Owner;
use crate::replicas::Applied;
use crate::slot::{Change, Status, Write};

/// How long after meeting its first peer an agent may take to get all records: a hundred thousand take two seconds.
const CATCH_UP: Duration = Duration::from_secs(3);

impl State {
    /// Where a host leads, by its key, as far as tunnels may have it; see [`crate::hostname`].
    pub fn endpoint(&self, host: &str, may_have: impl Fn(TunnelId) -> bool) -> Option<Endpoint> {
        let endpoint = self.directory.endpoint(host, may_have);
        endpoint.filter(|found| !(self.broken.names && self.has_own(&found.tunnel.to_string())))
    }

    /// Whether a tunnel is closed to the public under all its names: by its operator's rule or its client's claim.
    pub fn is_private(&self, tunnel: TunnelId) -> bool {
        self.directory.claims.is_private(tunnel)
    }

    /// Takes back the claims of this agent that an operator's policy does not let stand. How many these were.
    pub fn withdraw_claims(&mut self, now: Instant, may_stand: impl Fn(&str, TunnelId) -> bool) -> usize {
        let writes = self.directory.claims.withdraw_unless(may_stand);
        let withdrawn = writes.len();
        self.tell_all(now, writes);
        withdrawn
    }

    /// Claims a host for a tunnel. False if it is that of another tunnel which may have it; a claim that this one had lost is given
    /// up.
    pub fn claim(
        &mut self,
        now: Instant,
        host: &str,
        endpoint: Endpoint,
        may_have: impl Fn(TunnelId) -> bool,
    ) -> Result<bool, Full> {
        let claims = &self.directory.claims;
        let key = ClaimKey { host: host.into(), tunnel: endpoint.tunnel };
        if claims.winner_of(host, may_have).is_some_and(|winner| winner.tunnel != endpoint.tunnel) {
            let write = self.directory.claims.withdraw(&key);
            self.tell_all(now, write);
            return Ok(false);
        }
        let since = claims.claimed(&key);
        let clock = since.unwrap_or(claims.next_clock());
        let claim = Claim { host: key.host.clone(), endpoint, clock };
        if !claims.states(&key) {
            let is_attached = self.is_attached(endpoint.tunnel);
            let most = if is_attached { MAX_TUNNEL_CLAIMS } else { MAX_UNATTACHED_CLAIMS };
            if claims.stated_of(endpoint.tunnel) >= most {
                return Err(Full::TunnelClaims(most));
            }
            if claims.stated() >= self.quota.claims && !self.give_up_a_claim(now, endpoint.tunnel) {
                return Err(Full::Claims(self.quota.claims));
            }
            self.make_room(claim.size())?;
        }
        let is_young = since.is_none() && self.is_young(now);
        let claims = &mut self.directory.claims;
        let write = claims.state(&Arc::new(claim))?;
        if is_young {
            claims.note_young(&key);
        }
        self.tell_all(now, write);
        Ok(true)
    }

    /// Whether any agent has a record of a tunnel.
    fn is_attached(&self, tunnel: TunnelId) -> bool {
        !self.directory.lookup(tunnel.spell(&mut [0; 36])).is_empty()
    }

    /// Gives up a claim whose tunnel has no record anywhere, for a claim of another tunnel: names that nobody serves must
    /// not keep out those that somebody does. False if none of those that were looked at is such a claim.
    fn give_up_a_claim(&mut self, now: Instant, other: TunnelId) -> bool {
        let Directory { claims, tunnels, .. } = &mut self.directory;
        let kept = |tunnel: TunnelId| {
            let name = Label::from(tunnel.spell(&mut [0; 36]));
            tunnel == other || !tunnels.lookup(&name).is_empty()
        };
        let Some(key) = claims.find_unattached(kept) else { return false };
        let write = claims.withdraw(&key);
        self.tell_all(now, write);
        true
    }

    /// Checks some of the claims that are stated or remembered here.
    pub(super) fn check_claims(&mut self, now: Instant) {
        if self.next_check.is_some_and(|at| at > now) {
            return;
        }
        if !self.is_young(now) {
            self.directory.claims.grow_up();
        }
        for key in self.directory.claims.take_turns() {
            let Self { owner: us, directory, liveness, .. } = &*self;
            let found = ClusterView { now, us, directory, liveness }.found(&key);
            let write = self.directory.claims.check(&key, found, self.quota.claims);
            self.tell_all(now, write);
        }
        self.next_check = self.directory.claims.pace().map(|pace| now + pace);
    }

    /// What our former self stated in a slot, in the order in which it did: the last change counts.
    pub(super) fn hear_former_self(&mut self, now: Instant, owner: &Owner, change: &Change) {
        let before = self.former.replicas.cell(owner, change.slot).map(|cell| cell.content.clone());
        if self.former.apply(now, owner, change) != Applied::New {
            return;
        }
        // The operator's rules are in the flags.
        let is_claim = |claim: &&Arc<Claim>| !claim.is_closing();
        if let Some(claim) = before.as_ref().and_then(|before| before.claim()).filter(is_claim) {
            self.directory.claims.forget(&claim.key());
        }
        if let Some(claim) = change.cell.content.claim().filter(is_claim) {
            self.directory.claims.remember(now, claim);
        }
    }

    /// A claim of another owner became known: one of ours that was made too soon to know of it gives way.
    pub(super) fn yield_to(&mut self, rival: &Claim) -> Option<Write> {
        let claims = &mut self.directory.claims;
        // The rival's owner may not be shown yet.
        let later = claims.next_clock().max(rival.clock + 1).min(MAX_CLOCK);
        claims.yield_to(rival, later)
    }

    /// Whether this agent may not know yet what its peers state.
    pub fn is_young(&self, now: Instant) -> bool {
        now < self.started + LAP && self.met.is_none_or(|met| now < met + CATCH_UP)
    }
}

/// What an agent sees of the cluster at one moment.
struct ClusterView<'a> {
    now: Instant,
    us: &'a Owner,
    directory: &'a Directory,
    liveness: &'a Liveness,
}

impl ClusterView<'_> {
    fn found(&self, key: &ClaimKey) -> TunnelSighting {
        let claims = &self.directory.claims;
        let agents = self.attached(key.tunnel);
        let elsewhere = claims.others(key).filter(|(owner, _)| {
            self.liveness.standing(self.now, &owner.name).is_alive() && agents.contains(&&***owner)
        });
        let rivals = claims.rivals(key).filter(|(tunnel, _)| !self.attached(*tunnel).is_empty());
        TunnelSighting {
            alive: !agents.is_empty(),
            here: agents.contains(&self.us),
            elsewhere: elsewhere.map(|(_, since)| since).min(),
            rival: rivals.map(|(_, since)| since).max(),
        }
    }

    /// The agents that have a record of a tunnel, as far as they are not known to be dead.
    fn attached(&self, tunnel: TunnelId) -> Vec<&Owner> {
        let entries = self.directory.lookup(tunnel.spell(&mut [0; 36])).iter();
        entries.map(|entry| &*entry.owner).filter(|owner| *owner == self.us || self.is_there(owner)).collect()
    }

    fn is_there(&self, owner: &Owner) -> bool {
        let status = self.directory.replicas.status(&owner.name);
        matches!(status, Some(Status::Ready | Status::Draining))
            && self.liveness.standing(self.now, &owner.name) != Standing::Hidden
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
