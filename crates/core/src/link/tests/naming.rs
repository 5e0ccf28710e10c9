//! Two agents with one name: who gives way, and when it is free again.

use super::*;

#[test]
fn the_later_of_two_agents_with_one_name_is_told_where_the_first_is() {
    let mut room = Room::new(2);
    room.meet();
    room.enter_as(3, "a1", 2, Keyring::public(), "c");
    room.join(addr(3), [addr(2)].into());
    room.run(3_000);
    assert_eq!(room.names_taken.first(), Some(&(addr(3), addr(1))));
    assert!(room.names_taken.iter().all(|(at, _)| *at == addr(3)), "the first one goes on");
    assert_eq!(room.link(2).peers.holder(&owner(1, 1).name).unwrap().peer.addr, addr(1));
}

#[test]
fn two_agents_with_one_name_and_nobody_else_find_out_by_themselves() {
    let mut room = Room::new(1);
    room.enter_as(3, "a1", 2, Keyring::public(), "c");
    room.meet();
    room.run(1_000);
    assert_eq!(room.names_taken.first(), Some(&(addr(3), addr(1))));
    assert!(room.names_taken.iter().all(|(at, _)| *at == addr(3)));
}

#[test]
fn a_name_moves_to_another_address_once_its_holder_is_dead() {
    let mut room = Room::new(2);
    room.meet();
    room.agents.remove(&addr(1));
    room.enter_as(3, "a1", 2, Keyring::public(), "c");
    room.join(addr(3), [addr(2)].into());
    room.run(4_000);
    assert!(room.names_taken.is_empty());
    assert_eq!(room.link(2).peers.holder(&owner(1, 1).name).unwrap().peer.addr, addr(3));
}

#[test]
fn a_word_of_a_third_party_ends_nobody() {
    let mut room = Room::new(3);
    room.meet();
    let conflict = wire::encode(&wire::Conflict { taken_by: addr(3) });
    for _ in 0..10 {
        room.say(2, 1, &wire::pack(Kind::Conflict, &conflict));
        room.run(500);
    }
    assert!(room.names_taken.is_empty() && room.peers(1) == 2);
}

#[test]
fn a_cloned_agent_ends_however_often_it_is_started_and_the_original_is_not_disturbed() {
    let mut room = Room::new(3);
    room.meet();
    room.run(3_000);
    for generation in 2..6 {
        // Another generation, name and identity the same, at another host.
        room.enter_clone_of(1, 4, generation);
        room.join(addr(4), [addr(2)].into());
        room.run(5_000);
        assert_eq!(room.names_taken.first(), Some(&(addr(4), addr(1))));
        assert!(room.names_taken.drain(..).all(|(at, _)| at == addr(4)), "the original goes on");
        assert_eq!(room.link(2).peers.holder(&owner(1, 1).name).unwrap().peer.addr, addr(1));
        assert_eq!((room.peers(1), room.suspicions()), (2, 0));
        room.agents.remove(&addr(4));
    }
}

/// A virtual machine is put back to what it was, with its memory, while the others go on.
#[test]
fn an_agent_whose_memory_was_put_back_starts_anew_above_what_peers_know() {
    for (seconds, changes) in [(6, 0), (6, 5), (60, 5), (3_600, 5)] {
        let [mut before, mut room] = [(); 2].map(|()| {
            let mut room = Room::new(3);
            room.meet();
            room.publish(1, 7);
            room.run(1_000);
            room
        });
        for version in 8..8 + changes {
            room.publish(1, version);
        }
        room.run(seconds * 1_000);
        assert_eq!(room.superseded, []);
        let former = before.agents.remove(&addr(1)).unwrap();
        room.agents.insert(addr(1), former);
        // It says as much as it said then, or more.
        for version in 8..20 {
            room.publish(1, version);
        }
        room.run(5_000);
        assert_eq!(room.superseded, [(addr(1), 1)], "{seconds} seconds and {changes} changes were lost");
    }
}

#[test]
fn an_agent_whose_name_changes_is_suspect_under_the_former_one_as_soon_as_its_next_start_is_met() {
    let mut room = Room::new(3);
    room.meet();
    room.forget_what_was_noted();
    // The same machine and data folder under another name.
    room.agents.remove(&addr(2));
    room.enter_with([2; 32], 2, "renamed", 2, Keyring::public(), "c");
    room.join(addr(2), [addr(1), addr(3)].into());
    room.run(500);
    for n in [1, 3] {
        assert!(room.copies(n).told.contains(&(owner(2, 1), false)), "{:?}", room.copies(n).told);
        assert_eq!(room.peers(n), 2, "the other one, and the renamed one");
    }
    room.run(10_000);
    let suspected = room.copies(1).told.iter().filter(|told| **told == (owner(2, 1), false)).count();
    assert_eq!(suspected, 1, "once");
}
