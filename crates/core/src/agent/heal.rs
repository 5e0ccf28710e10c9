//! What a Renew of an unknown id can be healed from. gost registers a connector once and never again, and its
//! Renews carry no address, so an agent that lost a record has to find its address elsewhere.

use std::sync::Arc;

use super::State;
use super::effects::Line;
use super::gosts::key_of;
use crate::address::Address;
use crate::connection::Caller;
use crate::entrypoints::Place;
use crate::label::Label;
use crate::lease::Holding;
use crate::record::{Draft, Network, Record};
use crate::tunnels::Tunnels;

/// What the caller of a Renew can add.
pub struct Heal<'a> {
    /// Where to dial an instance that is reached at this address; empty if unknown.
    pub dial: &'a dyn Fn(&str) -> String,
    /// The address of instances that were there before this agent, if the operator gave one.
    pub fallback: Option<Address>,
}

/// Where a lost record was found. The journal is not among them: it is read at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealedFrom {
    /// Our former generation's slots, as peers hold them.
    FormerSelf,
    /// Another owner's record of that id and instance.
    OtherOwner,
    /// Where another record of the same instance and handler is, or was.
    Sibling,
    /// The configured fallback address.
    Fallback,
    /// Where a gost of the caller's host registered last.
    RegisteredLast,
    /// Nowhere.
    Nothing,
}

impl HealedFrom {
    /// Every source, in the order in which they are tried.
    pub const ALL: [Self; 6] = [
        Self::FormerSelf,
        Self::OtherOwner,
        Self::Sibling,
        Self::Fallback,
        Self::RegisteredLast,
        Self::Nothing,
    ];
}

/// How often each source healed a record.
#[derive(Debug, Default)]
pub(super) struct Heals([u64; HealedFrom::ALL.len()]);

impl Heals {
    pub(super) fn counts(&self) -> Vec<(HealedFrom, u64)> {
        HealedFrom::ALL.into_iter().zip(self.0).collect()
    }

    fn count(&mut self, from: HealedFrom) -> u64 {
        self.0[from as usize] += 1;
        self.0[from as usize]
    }
}

impl State {
    /// Finds the record of a Renew whose id is not known here.
    pub(super) fn heal(&mut self, caller: Caller, draft: Draft<'_>, heal: &Heal<'_>) -> Option<Holding> {
        let (from, holding) = self.search(caller, draft, heal);
        let times = self.heals.count(from);
        if holding.is_none() && times == 1 {
            let (id, tunnel) = (draft.id.to_owned(), draft.name.to_owned());
            self.effects.lines.push(Line::NotHealed { id, tunnel });
        }
        holding
    }

    fn search(&self, caller: Caller, draft: Draft<'_>, heal: &Heal<'_>) -> (HealedFrom, Option<Holding>) {
        let dialled =
            |record: Arc<Record>| Holding { dial: (heal.dial)(&record.address.to_string()).into(), record };
        if let Some(record) = find(&self.former.tunnels, draft) {
            return (HealedFrom::FormerSelf, Some(dialled(record)));
        }
        if let Some(record) = find(&self.directory.tunnels, draft) {
            return (HealedFrom::OtherOwner, Some(dialled(record)));
        }
        let key = key_of(draft);
        let placed = |Place { address, dial }| Holding { record: Arc::new(at(draft, address)), dial };
        let sibling = self.place_of_sibling(&key).or_else(|| self.entrypoints.of(&key).cloned());
        if let Some(place) = sibling {
            return (HealedFrom::Sibling, Some(placed(place)));
        }
        if let Some(address) = &heal.fallback {
            return (HealedFrom::Fallback, Some(dialled(Arc::new(at(draft, address.clone())))));
        }
        match self.entrypoints.last(caller.remote, key.routers) {
            Some(place) => (HealedFrom::RegisteredLast, Some(placed(place.clone()))),
            None => (HealedFrom::Nothing, None),
        }
    }
}

fn find(tunnels: &Tunnels, draft: Draft<'_>) -> Option<Arc<Record>> {
    let (id, node) = (Label::from(draft.id), Label::from(draft.node));
    let matches = |record: &Record| record.id == id && record.node == node;
    tunnels
        .lookup(&draft.name.into())
        .iter()
        .find(|entry| matches(&entry.record))
        .map(|entry| entry.record.clone())
}

fn at(draft: Draft<'_>, address: Address) -> Record {
    let network = if key_of(draft).routers { Network::Udp } else { Network::Tcp };
    let [id, name, node] = [draft.id, draft.name, draft.node].map(Label::from);
    Record { id, name, node, network, address }
}
