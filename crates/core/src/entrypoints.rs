//! Where gosts registered, for calls without an address of their gost: a Renew never does, and a Register does not where
//! gost is configured with a list of entrypoints. Knows nothing of records.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use super::address::Address;
use super::label::Label;

/// Instances whose entrypoint is remembered; those that registered first go first. A host has one gost, or a few.
pub const MAX_REGISTERED: usize = 256;

/// Where an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where other hosts dial it, `host:port`.
    pub address: Address,
    /// Where this agent can dial it; empty if unknown.
    pub dial: Address,
}

/// Which entrypoint of an instance: gost's router handler listens on a UDP port, which its tunnel handler does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntrypointKey {
    /// The instance.
    pub node: Label,
    /// Whether it is the router handler's.
    pub routers: bool,
}

/// An entrypoint that an instance registered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Whose.
    pub key: EntrypointKey,
    /// The host that its gost called from; none for this one.
    pub home: Option<IpAddr>,
    /// Where it is.
    pub place: Place,
    /// Rises with every registration that was another than the one before.
    pub number: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Entrypoints {
    /// Oldest first.
    registered: VecDeque<Registered>,
    touched: BTreeSet<EntrypointKey>,
}

impl Entrypoints {
    /// Takes back what a journal kept.
    pub fn restore(&mut self, mut kept: Vec<Registered>) {
        kept.sort_by_key(|registered| registered.number);
        self.registered = kept.into();
        self.bound();
        self.touched.clear();
    }

    /// An instance registers.
    pub fn note(&mut self, key: EntrypointKey, home: Option<IpAddr>, place: Place) {
        let last = self.registered.back();
        if last.is_some_and(|last| last.key == key && last.home == home && last.place == place) {
            return;
        }
        let number = last.map_or(0, |last| last.number + 1);
        self.registered.retain(|registered| registered.key != key);
        self.touched.insert(key.clone());
        self.registered.push_back(Registered { key, home, place, number });
        self.bound();
    }

    /// Gives entrypoints the places that `moved` finds for them. In which order they registered stays.
    pub fn readdress(&mut self, moved: impl Fn(&Place) -> Option<Place>) {
        for registered in &mut self.registered {
            if let Some(place) = moved(&registered.place) {
                registered.place = place;
                self.touched.insert(registered.key.clone());
            }
        }
    }

    /// Where an instance registered last.
    pub fn of(&self, key: &EntrypointKey) -> Option<&Place> {
        self.find(key).map(|registered| &registered.place)
    }

    /// Where any gost of a host registered last, with the same handler.
    pub fn last(&self, home: Option<IpAddr>, routers: bool) -> Option<&Place> {
        self.newest_first(home, routers).next().map(|registered| &registered.place)
    }

    /// Where the gosts of a host registered, with the same handler; the last one first.
    pub fn newest_first(
        &self,
        home: Option<IpAddr>,
        routers: bool,
    ) -> impl Iterator<Item = &Registered> + use<'_> {
        let newest_first = self.registered.iter().rev();
        newest_first.filter(move |registered| registered.home == home && registered.key.routers == routers)
    }

    /// What a journal has to keep of an entrypoint; nothing if it is forgotten.
    pub fn word(&self, key: &EntrypointKey) -> Option<Registered> {
        self.find(key).cloned()
    }

    /// The entrypoints that changed, or were forgotten, since somebody took them.
    pub fn touched(&mut self) -> &mut BTreeSet<EntrypointKey> {
        &mut self.touched
    }

    /// How many of them there are.
    pub fn touched_len(&self) -> usize {
        self.touched.len()
    }

    /// Counts all as changed.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.registered.iter().map(|registered| registered.key.clone()));
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.registered.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.registered.is_empty()
    }

    fn find(&self, key: &EntrypointKey) -> Option<&Registered> {
        self.registered.iter().rev().find(|registered| registered.key == *key)
    }

    fn bound(&mut self) {
        while self.registered.len() > MAX_REGISTERED
            && let Some(oldest) = self.registered.pop_front()
        {
            self.touched.insert(oldest.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(node: &str, routers: bool) -> EntrypointKey {
        EntrypointKey { node: node.into(), routers }
    }

    fn place(port: u16) -> Place {
        Place { address: format!("10.0.0.1:{port}").into(), dial: format!("127.0.0.1:{port}").into() }
    }

    fn port(place: Option<&Place>) -> Option<u16> {
        place?.address.v4().map(|v4| v4.port())
    }

    const ELSEWHERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)));

    #[test]
    fn the_last_one_of_a_host_and_handler_is_found() {
        let mut entrypoints = Entrypoints::default();
        assert_eq!(entrypoints.last(None, false), None);
        entrypoints.note(key("a", false), None, place(1));
        entrypoints.note(key("b", false), None, place(2));
        entrypoints.note(key("r", true), None, place(3));
        entrypoints.note(key("c", false), ELSEWHERE, place(4));
        let last = |entrypoints: &Entrypoints, home, routers| port(entrypoints.last(home, routers));
        assert_eq!(last(&entrypoints, None, false), Some(2));
        assert_eq!(last(&entrypoints, None, true), Some(3));
        assert_eq!(
            (last(&entrypoints, ELSEWHERE, false), last(&entrypoints, ELSEWHERE, true)),
            (Some(4), None)
        );
        entrypoints.note(key("a", false), None, place(1));
        assert_eq!(last(&entrypoints, None, false), Some(1), "it registered again");
        assert_eq!(port(entrypoints.of(&key("b", false))), Some(2));
        assert_eq!(entrypoints.of(&key("b", true)), None);
    }

    #[test]
    fn what_a_journal_kept_is_as_it_was_and_the_next_one_is_later() {
        let mut before = Entrypoints::default();
        for (node, at) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
            before.note(key(node, false), None, place(at));
        }
        let mut kept: Vec<_> = ["b", "a", "c"].map(|node| before.word(&key(node, false)).unwrap()).into();
        kept.rotate_left(1);
        let mut after = Entrypoints::default();
        after.restore(kept);
        assert_eq!(after.touched_len(), 0);
        assert_eq!(port(after.last(None, false)), Some(4));
        after.note(key("b", false), None, place(2));
        assert_eq!(port(after.last(None, false)), Some(2));
        assert!(after.word(&key("b", false)).unwrap().number > after.word(&key("a", false)).unwrap().number);
    }

    #[test]
    fn saying_the_same_again_is_no_change() {
        let mut entrypoints = Entrypoints::default();
        entrypoints.note(key("a", false), None, place(1));
        assert_eq!(std::mem::take(entrypoints.touched()), [key("a", false)].into());
        entrypoints.note(key("a", false), None, place(1));
        assert_eq!(entrypoints.touched_len(), 0);
        entrypoints.note(key("a", false), None, place(2));
        assert_eq!(entrypoints.touched_len(), 1);
    }

    #[test]
    fn a_move_is_kept_and_changes_no_order() {
        let mut entrypoints = Entrypoints::default();
        for (node, at) in [("a", 1), ("b", 2)] {
            entrypoints.note(key(node, false), None, place(at));
        }
        entrypoints.touched().clear();
        entrypoints.readdress(|before| (before.address == *"10.0.0.1:1").then(|| place(7)));
        assert_eq!(std::mem::take(entrypoints.touched()), [key("a", false)].into());
        assert_eq!(port(entrypoints.of(&key("a", false))), Some(7));
        assert_eq!(port(entrypoints.last(None, false)), Some(2));
    }

    #[test]
    fn the_oldest_go_and_a_journal_hears_of_it() {
        let mut entrypoints = Entrypoints::default();
        for n in 0..=MAX_REGISTERED {
            entrypoints.note(key(&n.to_string(), false), None, place(1));
        }
        assert_eq!((entrypoints.len(), entrypoints.word(&key("0", false))), (MAX_REGISTERED, None));
        assert!(entrypoints.touched().contains(&key("0", false)));
    }
}
