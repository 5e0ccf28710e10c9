//! Which tunnel a host name belongs to: claims made here, claims that others say, and those that nobody says any
//! more but that have to be kept for a while.

mod list;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use crate::directory::{Applied, Directory};
use crate::hostname::{Claim, ClaimKey, Endpoint, LAP, Look, MAX_CLOCK, TunnelId};
use crate::liveness::{Liveness, Standing};
use crate::quota::Full;
use crate::record::Owner;
use crate::slot::{Change, Content, Status, Write};

/// How long after meeting its first peer an agent may take to hear the others: a hundred thousand records take
/// two seconds.
const CATCH_UP: Duration = Duration::from_secs(3);
/// How long a tunnel stays closed after nobody says any more that it is: an agent that said so may be starting again, or
/// this one may, and has not heard it yet. An operator who opens a tunnel while its agent runs does not wait for this.
const CLOSED_FOR: Duration = LAP;

/// Until when tunnels stay closed that nobody says are closed.
#[derive(Debug, Default)]
pub(super) struct Closing(BTreeMap<TunnelId, Instant>);

impl Closing {
    /// When the next one is open again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}

impl State {
    /// Where a host leads, by its key; see [`crate::hostname`].
    pub fn endpoint(&self, host: &str) -> Option<Endpoint> {
        let endpoint = self.directory.hosts().endpoint(host);
        endpoint.filter(|found| !(self.broken.names && self.has_own(&found.tunnel.to_string())))
    }

    /// Whether a tunnel is closed to the public under all its names: its operator's rule or its client's claim says so.
    pub fn is_private(&self, tunnel: TunnelId) -> bool {
        self.directory.hosts().is_private(tunnel)
    }

    /// Claims a host for a tunnel. False if it is another tunnel's; a claim that this one had lost is given up.
    pub fn claim(&mut self, now: Instant, host: &str, endpoint: Endpoint) -> Result<bool, Full> {
        let hosts = self.directory.hosts();
        let key = ClaimKey { host: host.into(), tunnel: endpoint.tunnel };
        if hosts.winner(host).is_some_and(|winner| winner.tunnel != endpoint.tunnel) {
            self.directory.hosts_mut().forget(&key);
            let change = self.claims.unsay(&key);
            self.tell_all(now, change);
            return Ok(false);
        }
        let since = hosts.claimed(&key);
        let clock = since.unwrap_or(hosts.next_clock());
        let claim = Claim { host: key.host.clone(), endpoint, clock };
        if !self.claims.says(&key) {
            if self.claims.said() >= self.quota.claims {
                return Err(Full::Claims(self.quota.claims));
            }
            self.make_room(claim.size())?;
        }
        if since.is_none() && self.is_young(now) {
            self.claims.note_young(key);
        }
        let change = self.claims.say(Arc::new(claim))?;
        self.tell_all(now, change);
        Ok(true)
    }

    /// Looks at some of our claims: what is to be told.
    pub(super) fn look_at_claims(&mut self, now: Instant) -> Vec<Write> {
        if self.next_look.is_some_and(|at| at > now) {
            return Vec::new();
        }
        if !self.is_young(now) {
            self.claims.grow_up();
        }
        let most = self.quota.claims;
        let Self { owner: us, claims, directory, liveness, .. } = self;
        let seen = Seen { now, us, directory, liveness };
        let looked = claims.look(most, |key| seen.look(key));
        for key in looked.forgotten {
            directory.hosts_mut().forget(&key);
        }
        self.next_look = self.claims.pace().map(|pace| now + pace);
        looked.changes
    }

    /// Remembers what owners claimed that are gone, and for a while what they closed.
    pub(super) fn remember_orphans(&mut self, now: Instant) {
        for claim in self.directory.take_orphans() {
            if claim.is_closing() {
                self.close_for_now(now, &claim);
            } else {
                self.remember(claim);
            }
        }
    }

    /// A tunnel stays closed for a while although nobody says so.
    pub(super) fn close_for_now(&mut self, now: Instant, claim: &Arc<Claim>) {
        if self.directory.hosts_mut().remember(claim) {
            self.closing.0.insert(claim.endpoint.tunnel, now + CLOSED_FOR);
        }
    }

    /// Opens the tunnels that have been closed like that for long enough, and notes for the journal what others say.
    pub(super) fn note_closed(&mut self, now: Instant) {
        let due = |until: &Instant| *until <= now;
        let open: Vec<TunnelId> =
            self.closing.0.iter().filter(|(_, until)| due(until)).map(|(tunnel, _)| *tunnel).collect();
        for tunnel in open {
            self.closing.0.remove(&tunnel);
            self.directory.hosts_mut().forget(&Claim::closing(tunnel).key());
        }
        for tunnel in self.directory.hosts_mut().take_changed() {
            let closed = self.directory.hosts().is_closed_elsewhere(&self.owner, tunnel);
            self.claims.note_closed_elsewhere(tunnel, closed);
        }
    }

    fn remember(&mut self, claim: Arc<Claim>) {
        if self.claims.can_remember() && self.directory.hosts_mut().remember(&claim) {
            self.claims.remember(claim);
        }
    }

    /// What our former self said of a slot, in the order in which it said it: its last word counts.
    pub(super) fn hear_former_self(&mut self, now: Instant, owner: &Owner, change: &Change) {
        let before = self.former.cell(owner, change.slot).map(|cell| cell.content.clone());
        if self.former.apply(now, owner, change) != Applied::New {
            return;
        }
        // What our rules close, our flags say.
        let is_claim = |claim: &Arc<Claim>| !claim.is_closing();
        if let Some(Content::Claim(claim)) = before
            && is_claim(&claim)
        {
            self.claims.forget(&claim.key());
            self.directory.hosts_mut().forget(&claim.key());
        }
        if let Content::Claim(claim) = &change.cell.content
            && is_claim(claim)
        {
            self.remember(claim.clone());
        }
    }

    /// A claim of another owner was heard: one of ours that was made too soon to know of it gives way.
    pub(super) fn yield_to(&mut self, rival: &Claim) -> Option<Write> {
        // The rival's owner may not be shown yet.
        let later = self.directory.hosts().next_clock().max(rival.clock + 1).min(MAX_CLOCK);
        self.claims.yield_to(rival, later)
    }

    /// Whether this agent may not have heard yet what its peers say.
    pub fn is_young(&self, now: Instant) -> bool {
        now < self.started + LAP && self.met.is_none_or(|met| now < met + CATCH_UP)
    }
}

/// What an agent sees of the cluster at one moment.
struct Seen<'a> {
    now: Instant,
    us: &'a Owner,
    directory: &'a Directory,
    liveness: &'a Liveness,
}

impl Seen<'_> {
    fn look(&self, key: &ClaimKey) -> Look {
        let hosts = self.directory.hosts();
        let elsewhere = hosts.holders(key).filter(|(owner, _)| ***owner != *self.us);
        let elsewhere = elsewhere.filter(|(owner, _)| self.is_sure(owner) && self.has(owner, key));
        Look {
            alive: self.attached(key).next().is_some(),
            here: self.attached(key).any(|owner| *owner == *self.us),
            elsewhere: elsewhere.map(|(_, since)| since).min(),
            rival: hosts
                .rivals(key)
                .filter(|(tunnel, _)| self.lives(key, *tunnel))
                .map(|(_, since)| since)
                .max(),
            claimed: hosts.claimed(key),
            said: hosts.holders(key).map(|(_, since)| since).min(),
        }
    }

    fn lives(&self, key: &ClaimKey, tunnel: TunnelId) -> bool {
        self.attached(&ClaimKey { host: key.host.clone(), tunnel }).next().is_some()
    }

    fn is_sure(&self, owner: &Owner) -> bool {
        self.liveness.standing(self.now, &owner.name) == Standing::Live
    }

    fn has(&self, owner: &Owner, key: &ClaimKey) -> bool {
        self.attached(key).any(|other| other == owner)
    }

    /// The agents that have a record of a claim's tunnel, as far as they are not known to be dead.
    fn attached(&self, key: &ClaimKey) -> impl Iterator<Item = &Owner> {
        let mut buffer = [0; 36];
        let entries = self.directory.lookup(key.tunnel.spell(&mut buffer));
        entries.iter().map(|entry| &*entry.owner).filter(|owner| *owner == self.us || self.is_there(owner))
    }

    fn is_there(&self, owner: &Owner) -> bool {
        let status = self.directory.status(&owner.name);
        matches!(status, Some(Status::Ready | Status::Draining))
            && self.liveness.standing(self.now, &owner.name) != Standing::Hidden
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
