//! The promise that replication rests on: whatever the order, the duplicates and the losses in which an
//! owner's changes arrive, once the current cells have been repaired all directories are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::directory::Directory;
use super::lease::{Holding, LeaseTable};
use super::record::{Generation, Owner};
use super::replica::Extent;
use super::slot::tests::record;
use super::slot::{Change, Slot, Status, Versions, Write};
use super::tombstone::IN_FLIGHT;

const TTL: Duration = Duration::from_secs(60);

/// What a gost may do at one agent, in any order; ids repeat so that calls overtake each other.
#[derive(Clone, Debug)]
enum Call {
    Register { id: u8, name: u8 },
    Renew { id: u8 },
    Deregister { id: u8 },
    Wait { seconds: u64 },
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (0..12_u8, 0..3_u8).prop_map(|(id, name)| Call::Register { id, name }),
        1 => (0..12_u8).prop_map(|id| Call::Renew { id }),
        2 => (0..12_u8).prop_map(|id| Call::Deregister { id }),
        1 => (1..50_u64).prop_map(|seconds| Call::Wait { seconds }),
    ]
}

/// One generation of an agent: everything it said, and what is true at its end.
struct Life {
    owner: Owner,
    said: Vec<Change>,
    last: Vec<Change>,
}

fn live(generation: Generation, calls: &[Call]) -> Life {
    let mut leases = LeaseTable::new(Instant::now(), TTL);
    let mut now = Instant::now();
    let mut said = vec![Write::status(Status::Ready)];
    for call in calls {
        match call {
            Call::Register { id, name } => {
                let record = record(&id.to_string(), &name.to_string());
                said.extend(leases.register(now, Holding { record, dial: "".into() }).unwrap());
            }
            Call::Renew { id } => {
                if let super::lease::Renewal::Revived(change) = leases.renew(now, &id.to_string().into()) {
                    said.push(change);
                }
            }
            Call::Deregister { id } => said.extend(leases.release(now, &id.to_string().into())),
            Call::Wait { seconds } => {
                now += Duration::from_secs(*seconds);
                said.extend(leases.expire(now).changes);
            }
        }
    }
    let owner = Owner { name: "a".parse().unwrap(), generation };
    let mut versions = Versions::default();
    let said: Vec<Change> = said.into_iter().map(|write| versions.change(write)).collect();
    let last: BTreeMap<Slot, Change> = said.iter().map(|change| (change.slot, change.clone())).collect();
    Life { owner, said, last: last.into_values().collect() }
}

fn us() -> Owner {
    Owner { name: "us".parse().unwrap(), generation: 1 }
}

/// The last word on every slot arrives, and that it is the last.
fn repair(directory: &mut Directory, life: &Life, first: usize) {
    let mut cells = life.last.clone();
    let first = first % cells.len();
    cells.rotate_left(first);
    for change in &cells {
        directory.apply(Instant::now(), &life.owner, change, &mut Vec::new());
    }
    let until = life.said.iter().map(|change| change.cell.version).max().unwrap_or_default();
    let extent = Extent { until, ..Extent::default() };
    directory.reach(Instant::now(), &life.owner, &extent, &mut Vec::new());
}

/// What a directory shows of the tunnels, comparable.
fn shown(directory: &Directory) -> BTreeSet<(String, String, Slot, u64)> {
    let names = (0..3_u8).map(|name| name.to_string());
    names
        .flat_map(|name| directory.lookup(&name).iter().cloned().collect::<Vec<_>>())
        .map(|e| (e.record.id.to_string(), e.record.name.to_string(), e.slot, e.owner.generation))
        .collect()
}

fn truth(life: &Life) -> BTreeSet<(String, String, Slot, u64)> {
    let record = |change: &Change| {
        let record = change.cell.content.record()?;
        Some((record.id.to_string(), record.name.to_string(), change.slot, life.owner.generation))
    };
    life.last.iter().filter_map(record).collect()
}

proptest! {
    #[test]
    fn any_delivery_with_repair_ends_in_the_owners_truth(
        calls in proptest::collection::vec(call(), 0..60),
        deliveries in proptest::collection::vec(any::<prop::sample::Index>(), 0..120),
        first in any::<usize>(),
    ) {
        let life = live(1, &calls);
        let mut directory = Directory::new(&us());
        for at in &deliveries {
            directory.apply(Instant::now(), &life.owner, at.get(&life.said), &mut Vec::new());
        }
        repair(&mut directory, &life, first);
        for at in &deliveries {
            directory.apply(Instant::now(), &life.owner, at.get(&life.said), &mut Vec::new());
        }
        prop_assert_eq!(shown(&directory), truth(&life));
        prop_assert_eq!(directory.replicas.records(), truth(&life).len());
    }

    #[test]
    fn the_newest_ready_generation_is_shown_whatever_arrives_when(
        former in proptest::collection::vec(call(), 0..30),
        latter in proptest::collection::vec(call(), 0..30),
        order in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..150),
    ) {
        let lives = [live(1, &former), live(2, &latter)];
        let mut directory = Directory::new(&us());
        for (second, at) in &order {
            let life = &lives[usize::from(*second)];
            directory.apply(Instant::now(), &life.owner, at.get(&life.said), &mut Vec::new());
        }
        for life in &lives {
            repair(&mut directory, life, 0);
        }
        prop_assert_eq!(shown(&directory), truth(&lives[1]));
        directory.forget(Instant::now(), &lives[0].owner, &mut Vec::new());
        prop_assert_eq!(shown(&directory), truth(&lives[1]));
        directory.forget(Instant::now(), &lives[1].owner, &mut Vec::new());
        prop_assert!(directory.replicas.records() == 0);
    }

    /// What gost says of a connector: a Register, Renews and a Deregister, which overtake each other on their way. They all
    /// arrive within [`IN_FLIGHT`] of the Deregister.
    #[test]
    fn the_first_deregister_wins_over_all_that_is_in_flight_beside_it(
        others in proptest::collection::vec(call(), 0..60),
        renews in 0..4_usize,
        places in proptest::collection::vec(any::<prop::sample::Index>(), 6),
    ) {
        let mut waited = Duration::ZERO;
        // An id of its own, so that nobody else registers it.
        let mut calls: Vec<Call> = others
            .into_iter()
            .filter(|call| match call {
                Call::Wait { seconds } => {
                    waited += Duration::from_secs(*seconds);
                    waited < IN_FLIGHT
                }
                _ => true,
            })
            .collect();
        let of_its_own = [Call::Register { id: 99, name: 0 }, Call::Deregister { id: 99 }];
        let of_its_own = of_its_own.into_iter().chain(std::iter::repeat_n(Call::Renew { id: 99 }, renews));
        for (call, place) in of_its_own.zip(&places) {
            calls.insert(place.index(calls.len() + 1), call);
        }
        let life = live(1, &calls);
        prop_assert!(truth(&life).iter().all(|(id, ..)| id != "99"), "{calls:?}");
    }

    #[test]
    fn no_slot_holds_two_records_and_no_id_is_in_two_slots(
        calls in proptest::collection::vec(call(), 0..80),
    ) {
        let life = live(1, &calls);
        let ids: BTreeSet<_> = truth(&life).into_iter().map(|(id, ..)| id).collect();
        prop_assert_eq!(ids.len(), truth(&life).len());
        let seqs: BTreeSet<_> = life.said.iter().map(|change| change.cell.version).collect();
        prop_assert_eq!(seqs.len(), life.said.len(), "every change has its own number");
    }
}
