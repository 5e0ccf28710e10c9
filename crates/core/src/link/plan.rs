//! Who watches whom. In a small cluster everybody watches everybody. In a large one each agent has eight watchers, whom it
//! gives signs of life, so that what an agent sends while nothing happens does not grow with the cluster: every name has its
//! place on eight rings, and its watchers are the next agents there. An agent more or less moves its own neighbours and
//! nobody else's.
//!
//! Pure: a plan comes from the names of the agents that are alive, and from nothing else. Agents that see others alive have
//! other plans for a moment; what goes wrong then costs a few frames, because whoever misses a sign of life asks for one.

use sha2::{Digest as _, Sha256};

use crate::record::AgentName;

/// Rings, and so watchers of an agent. With eight, one is alive with a probability of 0.9999 if a third of the cluster
/// dies at once.
pub(super) const RINGS: usize = 8;
/// So many agents, ourselves included, all watch each other.
pub const MESH: usize = 96;
/// Neighbours on a ring whose word of an agent counts: the next one, and a few behind it, because agents may see others alive.
const NEAR: usize = 3;

/// The places of a name.
type Places = [u32; RINGS];

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Who is alive, ourselves included, by name.
    members: Vec<AgentName>,
    /// The members' places and their indices, in order. Empty if everybody watches everybody.
    rings: [Vec<(u32, usize)>; RINGS],
    /// Whether there was a sparse one when it was made.
    is_sparse: bool,
}

impl Plan {
    /// For these agents, by name. It is a sparse one above `mesh` agents; where there is a sparse one, here or at a peer, it
    /// stays one above two thirds of that.
    pub(super) fn new(is_sparse: bool, members: Vec<AgentName>, mesh: usize) -> Self {
        let most = if is_sparse { mesh * 2 / 3 } else { mesh };
        let mut rings: [Vec<(u32, usize)>; RINGS] = Default::default();
        if members.len() > most {
            for (index, name) in members.iter().enumerate() {
                for (ring, place) in rings.iter_mut().zip(places(name)) {
                    ring.push((place, index));
                }
            }
            for ring in &mut rings {
                ring.sort_unstable();
            }
        }
        Self { members, rings, is_sparse }
    }

    /// Whether it would be made alike for the same agents, so many, of whom one has a sparse one or not.
    pub(super) fn is_for(&self, members: usize, is_one_sparse: bool) -> bool {
        self.members.len() == members && self.is_sparse == (self.is_sparse() || is_one_sparse)
    }

    /// Whether an agent has watchers, and not everybody.
    pub(super) fn is_sparse(&self) -> bool {
        !self.rings[0].is_empty()
    }

    /// The watchers of an agent, alive or not, one of each ring. One may be on several.
    pub(super) fn watchers<'a>(&'a self, name: &AgentName) -> impl Iterator<Item = &'a AgentName> {
        self.followers(name, 1)
    }

    /// Whether an agent is another one's watcher, or may be in the plan of somebody who sees others alive.
    pub(super) fn may_watch(&self, watcher: &AgentName, name: &AgentName) -> bool {
        self.followers(name, NEAR).any(|follower| follower == watcher)
    }

    /// The next agents behind a name on each ring.
    fn followers<'a>(&'a self, name: &AgentName, count: usize) -> impl Iterator<Item = &'a AgentName> {
        let places = places(name);
        let own = self.members.binary_search(name).ok();
        self.rings
            .iter()
            .zip(places)
            .flat_map(move |(ring, place)| {
                let first = ring.partition_point(|(other, _)| *other < place);
                let behind = ring[first..].iter().chain(&ring[..first]);
                behind.map(|(_, index)| *index).filter(move |index| Some(*index) != own).take(count)
            })
            .map(|index| &self.members[index])
    }
}

fn places(name: &AgentName) -> Places {
    let hash: [u8; 32] = Sha256::digest(name.as_str()).into();
    std::array::from_fn(|ring| u32::from_le_bytes(std::array::from_fn(|at| hash[4 * ring + at])))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn names(numbers: impl IntoIterator<Item = u32>) -> Vec<AgentName> {
        let names: BTreeSet<AgentName> =
            numbers.into_iter().map(|n| format!("host-{n}").parse().unwrap()).collect();
        names.into_iter().collect()
    }

    fn plan(members: &[AgentName], mesh: usize) -> Plan {
        Plan::new(false, members.to_vec(), mesh)
    }

    /// Who watches whom, with how many rings.
    fn edges(plan: &Plan) -> BTreeMap<(AgentName, AgentName), usize> {
        let mut edges = BTreeMap::new();
        for name in &plan.members {
            for watcher in plan.watchers(name) {
                *edges.entry((watcher.clone(), name.clone())).or_insert(0) += 1;
            }
        }
        edges
    }

    proptest! {
        #[test]
        fn everybody_has_eight_watchers_and_watches_eight(numbers in prop::collection::btree_set(0..100_000_u32, 2..60)) {
            let members = names(numbers);
            let (mut watched, mut watches) = (BTreeMap::new(), BTreeMap::new());
            for ((watcher, name), rings) in edges(&plan(&members, 1)) {
                prop_assert_ne!(&watcher, &name);
                *watches.entry(watcher).or_insert(0) += rings;
                *watched.entry(name).or_insert(0) += rings;
            }
            let eight: BTreeMap<AgentName, usize> = members.into_iter().map(|name| (name, RINGS)).collect();
            prop_assert_eq!(watches, eight.clone());
            prop_assert_eq!(watched, eight);
        }

        #[test]
        fn an_agent_more_moves_its_own_neighbours_alone(numbers in prop::collection::btree_set(0..100_000_u32, 3..60)) {
            let all = names(numbers);
            let (newcomer, before) = all.split_last().unwrap();
            let (before, after) = (edges(&plan(before, 1)), edges(&plan(&all, 1)));
            let moved = |from: &BTreeMap<_, usize>, to: &BTreeMap<_, usize>| {
                from.iter().map(|(edge, rings)| rings.saturating_sub(to.get(edge).copied().unwrap_or(0))).sum::<usize>()
            };
            // On each ring one edge goes, and two come in its place.
            prop_assert!(moved(&before, &after) <= RINGS);
            prop_assert!(moved(&after, &before) <= 2 * RINGS);
            prop_assert!(after.keys().any(|(watcher, _)| watcher == newcomer));
        }

        #[test]
        fn an_agent_that_is_gone_keeps_its_watchers(numbers in prop::collection::btree_set(0..100_000_u32, 4..60)) {
            let mut members = names(numbers);
            let before = plan(&members, 1);
            let gone = members.remove(members.len() / 2);
            let after = plan(&members, 1);
            let watchers: Vec<_> = before.watchers(&gone).collect();
            prop_assert!(after.watchers(&gone).eq(watchers));
            prop_assert!(after.watchers(&gone).all(|watcher| before.may_watch(watcher, &gone)));
        }
    }

    #[test]
    fn a_plan_changes_its_kind_above_the_limit_and_back_at_two_thirds() {
        let mut plan = Plan::default();
        let mut kinds = Vec::new();
        for count in [95, 96, 97, 96, 65, 64, 96, 97] {
            plan = Plan::new(plan.is_sparse(), names(0..count), MESH);
            kinds.push(plan.is_sparse());
        }
        assert_eq!(kinds, [false, false, true, true, true, false, false, true]);
        assert_eq!(plan.watchers(&names([500])[0]).count(), RINGS);
        assert_eq!(Plan::new(false, names(0..3), MESH).watchers(&names([1])[0]).count(), 0);
    }
}
