//! Being a detour: what a peer is answered that can dial no record of a tunnel, see [`super::holes`]. Answered is from memory;
//! the dials follow, so that the next question of the peer has a better answer. A peer names a tunnel and never an address: what is
//! dialled for it are records of our own directory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::State;
use super::reach::By;
use crate::address::Address;
use crate::hostname::TunnelId;
use crate::label::Label;
use crate::rank::{Hope, Tier, rank};
use crate::record::{Network, Owner};
use crate::tunnels::OwnedRecord;

/// Tunnels for which this host has lately offered to be a detour. For more, it is none.
pub(super) const MAX_OFFERED: usize = 64;
/// For this long after an offer, no detour is taken: longer than an offer counts, and a visitor is on the way.
const LATELY: Duration = Duration::from_secs(5);

/// What a peer is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It cannot get to the tunnel by way of this host.
    Nothing,
    /// This host can dial a record, and no gost of its own is known that lives.
    NoGost,
    /// By this gost.
    Detour(Detour),
}

/// A gost that takes visitors for a tunnel which is attached elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// The instance: never the one that asks, so that gost takes the record.
    pub node: Label,
    /// Its entrypoint.
    pub address: Address,
}

/// When this host offered to be a detour.
#[derive(Debug, Default)]
pub(super) struct Offers(BTreeMap<TunnelId, Instant>);

impl Offers {
    /// Whether one was made lately.
    pub(super) fn has(&self, now: Instant, tunnel: TunnelId) -> bool {
        self.0.get(&tunnel).is_some_and(|at| is_lately(now, *at))
    }

    /// Remembers one; false if there is no room.
    fn note(&mut self, now: Instant, tunnel: TunnelId) -> bool {
        self.0.retain(|_, at| is_lately(now, *at));
        let has_room = self.0.len() < MAX_OFFERED || self.0.contains_key(&tunnel);
        if has_room {
            self.0.insert(tunnel, now);
        }
        has_room
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl State {
    /// What a peer is answered that can dial no record of a tunnel.
    pub(super) fn offer_to(&mut self, now: Instant, by: &Owner, tunnel: TunnelId) -> Offer {
        let mut spelled = [0; 36];
        let name: &str = tunnel.spell(&mut spelled);
        let is_shut = self.drain.on || self.reconciliation.is_open();
        if is_shut || by.name == self.owner.name || self.is_private(tunnel) {
            return Offer::Nothing;
        }
        self.want(now, name, By::Peer);
        let gost = self.own_gost();
        if !self.gets_there(now, by, name, gost.as_ref().map(|gost| &gost.node))
            || !self.offers.note(now, tunnel)
        {
            return Offer::Nothing;
        }
        gost.map_or(Offer::NoGost, Offer::Detour)
    }

    /// Whether a visitor who comes to our gost is served: it has the connector itself, or the record that it is answered first
    /// works from here.
    fn gets_there(&self, now: Instant, by: &Owner, name: &str, node: Option<&Label>) -> bool {
        let entries = self.directory.lookup(name);
        let is_tcp = |entry: &&OwnedRecord| entry.record.network == Network::Tcp;
        let is_ours = |entry: &OwnedRecord| *entry.owner == self.owner && node == Some(&entry.record.node);
        if entries.iter().filter(is_tcp).any(is_ours) {
            return true;
        }
        let mut judge = self.judging(now);
        // gost there asks because it has no connector: back to it, and the visitor goes in circles.
        let leads_back = |entry: &OwnedRecord| entry.owner.name == by.name && judge(entry).tier().is_some();
        if entries.iter().filter(is_tcp).any(leads_back) {
            return false;
        }
        let mut ranked = rank(&entries, self.order, 0, self.judging(now)).filter(|(entry, _)| is_tcp(entry));
        let first = ranked.next().map(|(_, tier)| tier);
        matches!(first, Some(Tier::Usable(Hope::Works) | Tier::Backup(Hope::Works)))
    }

    /// A gost of this host that lives, as its connection or a record shows; of several, the one that registered last.
    fn own_gost(&self) -> Option<Detour> {
        let registered = self.entrypoints.newest_first(None, false);
        let registered = registered.filter(|registered| self.has_gost(&registered.key.node));
        let mut registered = registered.map(|registered| {
            let (node, address) = (registered.key.node.clone(), registered.place.address.clone());
            Detour { node, address }
        });
        registered.find(|gost| self.takes_visitors(gost)).or_else(|| self.gost_with_record())
    }

    /// The same, of those whose entrypoint is known by their records alone.
    fn gost_with_record(&self) -> Option<Detour> {
        let nodes = self.leases.nodes().filter(|node| !self.connections.is_guest(&node.text()));
        let gosts = nodes.filter_map(|node| {
            let record = self.leases.live_of(node).find(|record| !record.is_routers())?;
            Some(Detour { node: node.clone(), address: record.address.clone() })
        });
        gosts.filter(|gost| self.takes_visitors(gost)).min_by(|one, other| one.node.cmp(&other.node))
    }

    fn has_gost(&self, node: &Label) -> bool {
        self.connections.has(&node.text()) || self.leases.live_of(node).next().is_some()
    }

    /// Whether a gost is anywhere, and not frozen.
    fn takes_visitors(&self, gost: &Detour) -> bool {
        gost.address.is_entrypoint() && !self.says_unreached(&self.owner, &gost.address)
    }
}

fn is_lately(now: Instant, at: Instant) -> bool {
    now.saturating_duration_since(at) < LATELY
}

#[cfg(test)]
mod tests;
