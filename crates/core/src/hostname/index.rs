//! The read index of ingress: host name → the claims on it of all owners, and hash host → tunnel. Part of the
//! directory, which tells it what owners say.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Claim, ClaimKey, Clock, Endpoint, HashHost, MAX_CLOCK, TunnelId};
use crate::label::Label;
use crate::record::Owner;
use crate::room::Room as _;
use crate::slot::Slot;

/// See the module.
#[derive(Debug, Default)]
pub struct Hosts {
    claims: HashMap<Arc<str>, Vec<Held>>,
    /// Tunnels that have a record.
    tunnels: HashMap<HashHost, TunnelId>,
    /// How many rules close a tunnel to the public, of those that have any.
    closed: HashMap<TunnelId, usize>,
    /// Tunnels that agents began or ceased to say are closed since somebody took them.
    changed: BTreeSet<TunnelId>,
    clock: Clock,
    len: usize,
    revision: u64,
}

#[derive(Debug)]
struct Held {
    claim: Arc<Claim>,
    /// Who says so, and where; none for what is remembered of an owner that is gone.
    holder: Option<(Arc<Owner>, Slot)>,
}

impl Held {
    fn is(&self, tunnel: TunnelId) -> bool {
        self.claim.endpoint.tunnel == tunnel
    }
}

impl Hosts {
    /// Where a host leads: its hash host's tunnel, or else the earliest claim on it.
    pub fn endpoint(&self, host: &str) -> Option<Endpoint> {
        let hashed = || Some(*self.tunnels.get(&HashHost::parse(host)?)?);
        self.winner(host).or_else(|| Some(self.of_tunnel(hashed()?)))
    }

    /// Where the earliest claim on a host leads.
    pub fn winner(&self, host: &str) -> Option<Endpoint> {
        let claims = self.claims.get(host)?;
        let first = claims.iter().min_by_key(|claim| claim.claim.rank())?;
        Some(self.of_tunnel(first.claim.endpoint.tunnel))
    }

    /// Whether a tunnel is closed to the public: under all its names, if anybody says so under one.
    pub fn is_private(&self, tunnel: TunnelId) -> bool {
        self.closed.contains_key(&tunnel)
    }

    /// How many tunnels are.
    pub fn private(&self) -> usize {
        self.closed.len()
    }

    /// Whether anybody but `us` says that a tunnel is closed, without claiming a host for it.
    pub fn is_closed_elsewhere(&self, us: &Owner, tunnel: TunnelId) -> bool {
        let others = |claim: &Held| claim.holder.as_ref().is_none_or(|(owner, _)| **owner != *us);
        self.of(&Claim::closing(tunnel).key()).any(others)
    }

    /// The tunnels of which that may have changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<TunnelId> {
        std::mem::take(&mut self.changed)
    }

    fn of_tunnel(&self, tunnel: TunnelId) -> Endpoint {
        Endpoint { tunnel, private: self.is_private(tunnel) }
    }

    /// When a tunnel first claimed a host, as far as is known.
    pub fn claimed(&self, key: &ClaimKey) -> Option<Clock> {
        self.of(key).map(|claim| claim.claim.clock).min()
    }

    /// Who says that a host is a tunnel's, and since when.
    pub fn holders(&self, key: &ClaimKey) -> impl Iterator<Item = (&Arc<Owner>, Clock)> {
        self.of(key).filter_map(|claim| Some((&claim.holder.as_ref()?.0, claim.claim.clock)))
    }

    /// The other claims on a host: whose, and since when.
    pub fn rivals(&self, key: &ClaimKey) -> impl Iterator<Item = (TunnelId, Clock)> {
        let tunnel = key.tunnel;
        let claims = self.claims.get(&key.host).into_iter().flatten();
        claims
            .filter(move |claim| !claim.is(tunnel))
            .map(|claim| (claim.claim.endpoint.tunnel, claim.claim.clock))
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
    pub fn claimed_hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.claims.keys()
    }

    /// The hash hosts of tunnels that have a record, in no particular order.
    pub fn hash_hosts(&self) -> impl Iterator<Item = HashHost> {
        self.tunnels.keys().copied()
    }

    /// How many claims are known.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no claim is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Remembers a claim whose holder is gone; false if it is known from somebody.
    pub fn remember(&mut self, claim: &Arc<Claim>) -> bool {
        let fresh = self.of(&claim.key()).next().is_none();
        if fresh {
            self.add(Held { claim: claim.clone(), holder: None });
        }
        fresh
    }

    /// Forgets a claim that was only remembered.
    pub fn forget(&mut self, key: &ClaimKey) {
        self.remove(&key.host, |claim| claim.is(key.tunnel) && claim.holder.is_none());
    }

    /// Gives back the room of a peak that is over.
    pub fn give_back(&mut self) {
        self.claims.give_back();
        self.tunnels.give_back();
        self.closed.give_back();
    }

    /// Entries that there is room for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.claims.room() + self.tunnels.room() + self.closed.room()
    }

    pub(crate) fn hold(&mut self, owner: &Arc<Owner>, slot: Slot, claim: &Arc<Claim>) {
        // What is remembered from earlier counts until somebody says that.
        let key = claim.key();
        let later =
            |held: &Held| held.is(key.tunnel) && held.holder.is_none() && held.claim.clock >= claim.clock;
        self.remove(&key.host, later);
        self.add(Held { claim: claim.clone(), holder: Some((owner.clone(), slot)) });
    }

    pub(crate) fn release(&mut self, owner: &Owner, slot: Slot, claim: &Claim) {
        let held = |claim: &Held| claim.holder.as_ref().is_some_and(|(o, s)| **o == *owner && *s == slot);
        self.remove(&claim.host, held);
    }

    pub(crate) fn tunnel_appeared(&mut self, name: &Label) {
        if let Some(tunnel) = spelled(name) {
            self.revision += 1;
            self.tunnels.insert(HashHost::of(tunnel), tunnel);
        }
    }

    pub(crate) fn tunnel_vanished(&mut self, name: &Label) {
        if let Some(tunnel) = spelled(name) {
            self.revision += 1;
            self.tunnels.remove(&HashHost::of(tunnel));
        }
    }

    fn of(&self, key: &ClaimKey) -> impl Iterator<Item = &Held> {
        let tunnel = key.tunnel;
        self.claims.get(&key.host).into_iter().flatten().filter(move |claim| claim.is(tunnel))
    }

    fn add(&mut self, claim: Held) {
        self.clock = self.clock.max(claim.claim.clock);
        self.note(&claim.claim);
        self.len += usize::from(!claim.claim.is_closing());
        if claim.claim.endpoint.private {
            *self.closed.entry(claim.claim.endpoint.tunnel).or_default() += 1;
        }
        self.revision += 1;
        self.claims.entry(claim.claim.host.clone()).or_default().push(claim);
    }

    fn note(&mut self, claim: &Claim) {
        if claim.is_closing() {
            self.changed.insert(claim.endpoint.tunnel);
        }
    }

    fn remove(&mut self, host: &str, which: impl Fn(&Held) -> bool) {
        let Some(claims) = self.claims.get_mut(host) else { return };
        let gone = claims.iter().position(which).map(|at| claims.swap_remove(at));
        if claims.is_empty() {
            self.claims.remove(host);
        }
        let Some(Held { claim, .. }) = gone else { return };
        self.revision += 1;
        self.note(&claim);
        self.len -= usize::from(!claim.is_closing());
        if claim.endpoint.private
            && let Some(claims) = self.closed.get_mut(&claim.endpoint.tunnel)
        {
            *claims -= 1;
            if *claims == 0 {
                self.closed.remove(&claim.endpoint.tunnel);
            }
        }
    }
}

/// The tunnel whose records have this name: one in another spelling is another name.
fn spelled(name: &Label) -> Option<TunnelId> {
    let name = name.text();
    TunnelId::parse(&name).filter(|tunnel| tunnel.spell(&mut [0; 36]) == &*name)
}

#[cfg(test)]
mod tests {
    use super::super::{claim, tunnel};
    use super::*;

    fn owner(name: &str) -> Arc<Owner> {
        Arc::new(Owner { name: name.parse().unwrap(), generation: 1 })
    }

    fn winner(hosts: &Hosts) -> Option<TunnelId> {
        hosts.winner("x").map(|endpoint| endpoint.tunnel)
    }

    #[test]
    fn the_earliest_claim_wins_and_of_two_at_once_the_lower_tunnel_in_any_order() {
        let claims = [claim("x", 3, 5), claim("x", 2, 5), claim("x", 1, 6)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut hosts = Hosts::default();
            for at in order {
                hosts.hold(&owner("a"), at, &claims[at as usize]);
            }
            assert_eq!(winner(&hosts), Some(tunnel(2)));
            assert_eq!(hosts.next_clock(), 7);
            hosts.release(&owner("a"), 1, &claims[1]);
            assert_eq!(winner(&hosts), Some(tunnel(3)), "the next one moves up");
        }
    }

    #[test]
    fn a_claim_that_several_hold_counts_from_its_first_and_is_private_if_any_says_so() {
        let mut hosts = Hosts::default();
        hosts.hold(&owner("a"), 1, &claim("x", 1, 9));
        hosts.hold(&owner("b"), 1, &claim("x", 2, 8));
        assert_eq!(winner(&hosts), Some(tunnel(2)));
        let endpoint = Endpoint { tunnel: tunnel(1), private: true };
        hosts.hold(&owner("c"), 1, &Arc::new(Claim { host: "x".into(), endpoint, clock: 3 }));
        assert_eq!(hosts.winner("x"), Some(endpoint));
        hosts.release(&owner("b"), 1, &claim("x", 2, 8));
        hosts.release(&owner("c"), 1, &claim("x", 1, 3));
        assert_eq!(hosts.winner("x"), Some(Endpoint { private: false, ..endpoint }));
        hosts.release(&owner("a"), 1, &claim("x", 1, 9));
        assert!(hosts.is_empty() && hosts.winner("x").is_none());
    }

    #[test]
    fn a_tunnel_that_any_rule_closes_is_private_under_all_its_names() {
        let mut hosts = Hosts::default();
        let name = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
        let (tunnel, hash) = (TunnelId::parse(name).unwrap(), "a6265c6d9847a4be");
        let of_tunnel = |host: &str, private| {
            Arc::new(Claim { host: host.into(), endpoint: Endpoint { tunnel, private }, clock: 5 })
        };
        hosts.tunnel_appeared(&name.into());
        hosts.hold(&owner("a"), 1, &of_tunnel("shop", false));
        hosts.hold(&owner("a"), 2, &of_tunnel(".example.org", false));
        hosts.hold(&owner("a"), 3, &claim("other", 9, 1));
        let private = |hosts: &Hosts| {
            ["shop", ".example.org", hash, "other"].map(|host| hosts.endpoint(host).unwrap().private)
        };
        assert_eq!(private(&hosts), [false; 4]);
        let closing = Arc::new(Claim::closing(tunnel));
        hosts.hold(&owner("b"), 7, &closing);
        hosts.hold(&owner("c"), 8, &closing);
        assert_eq!((private(&hosts), hosts.private()), ([true, true, true, false], 1));
        assert_eq!((hosts.len(), hosts.next_clock()), (3, 6), "it is no claim");
        hosts.release(&owner("b"), 7, &closing);
        assert_eq!(private(&hosts), [true, true, true, false], "the other still says so");
        hosts.hold(&owner("a"), 4, &of_tunnel("late", true));
        hosts.release(&owner("c"), 8, &closing);
        assert_eq!(private(&hosts), [true, true, true, false], "and so does a claim");
        hosts.release(&owner("a"), 4, &of_tunnel("late", true));
        assert_eq!((private(&hosts), hosts.private()), ([false; 4], 0));
    }

    #[test]
    fn a_remembered_claim_goes_when_somebody_holds_it() {
        let mut hosts = Hosts::default();
        assert!(hosts.remember(&claim("x", 1, 4)));
        assert!(!hosts.remember(&claim("x", 1, 4)));
        assert_eq!(winner(&hosts), Some(tunnel(1)));
        hosts.hold(&owner("a"), 1, &claim("x", 1, 4));
        assert!(!hosts.remember(&claim("x", 1, 4)), "it is held");
        assert_eq!(hosts.len(), 1);
        hosts.release(&owner("a"), 1, &claim("x", 1, 4));
        assert_eq!(winner(&hosts), None);
    }

    #[test]
    fn a_live_tunnel_has_its_hash_host() {
        let mut hosts = Hosts::default();
        let name = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
        hosts.tunnel_appeared(&name.into());
        hosts.tunnel_appeared(&"host@4d21094e-b74c-4916-86c1-d9fa36ea677b".into());
        let endpoint = hosts.endpoint("a6265c6d9847a4be").map(|endpoint| endpoint.to_string());
        assert_eq!(endpoint.as_deref(), Some(name));
        assert_eq!(hosts.endpoint("a6265c6d9847a4bf"), None);
        hosts.tunnel_vanished(&name.into());
        assert_eq!(hosts.endpoint("a6265c6d9847a4be"), None);
    }

    #[test]
    fn the_room_of_a_peak_is_given_back() {
        let (mut hosts, all, a) = (Hosts::default(), 10_000, owner("a"));
        let claims = |n: u32| claim(&n.to_string(), 1, 1);
        let name = |n: u32| Label::from(format!("4d21094e-b74c-4916-86c1-{n:012x}"));
        for n in 0..all {
            hosts.hold(&a, n, &claims(n));
            hosts.tunnel_appeared(&name(n));
        }
        for n in 10..all {
            hosts.release(&a, n, &claims(n));
            hosts.tunnel_vanished(&name(n));
        }
        assert!(hosts.room() >= 20_000);
        hosts.give_back();
        assert!(hosts.room() < 200 && hosts.len() == 10, "{}", hosts.room());
    }
}
