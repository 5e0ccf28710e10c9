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
    assert_eq!(room.link(2).sessions.of(&owner(1, 1).name).unwrap().1.addr, addr(1));
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
    assert_eq!(room.link(2).sessions.of(&owner(1, 1).name).unwrap().1.addr, addr(3));
}
