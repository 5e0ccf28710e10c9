//! Links in one room: who meets, what reaches whom, and what nobody can forge.

mod naming;
mod room;
mod rotation;
mod suspicion;
mod versions;

use self::room::*;
use self::suspicion::one_in_five;
use super::*;
use crate::slot::{Cell, Content, Status};

#[test]
fn agents_that_know_an_address_admit_each_other_and_compare_boards() {
    let mut room = Room::new(3);
    room.meet();
    assert_eq!([1, 2, 3].map(|n| room.peers(n)), [2, 2, 2]);
    let hash = room.link(1).board.hash();
    assert_eq!([2, 3].map(|n| room.link(n).board.hash()), [hash; 2]);
}

#[test]
fn whoever_joins_anybody_meets_everybody_although_one_frame_in_five_is_lost() {
    let mut room = Room::new(8);
    room.lose = one_in_five;
    for n in 2..=8 {
        room.join(addr(n), [addr(1)].into());
    }
    room.run(10_000);
    assert!((1..=8).all(|n| room.peers(n) == 7), "{:?}", (1..=8).map(|n| room.peers(n)).collect::<Vec<_>>());
    room.lose = |_, _| false;
    room.run(10_000);
    let hash = room.link(1).board.hash();
    assert!((2..=8).all(|n| room.link(n).board.hash() == hash));
    room.recording.clear();
    room.run(20_000);
    assert_eq!(room.sent(Kind::Cards), 0, "boards that are the same are not exchanged");
}

#[test]
fn an_agent_that_is_cut_off_from_one_peer_hears_of_it_by_others_and_gets_its_changes() {
    let mut room = Room::new(3);
    room.meet();
    room.cut = |from, to| [from, to] == [addr(1), addr(2)] || [from, to] == [addr(2), addr(1)];
    room.run(6_000);
    room.forget_what_was_noted();
    room.publish(2, 7);
    room.run(6_000);
    assert!(room.numbers().contains(&(addr(1), 7)), "{:?}", room.numbers());
    assert!(room.copies(1).hearsay.contains(&owner(2, 1)), "it lives, as the third one tells");
    room.run(600_000);
    assert!(room.copies(1).forgotten.is_empty());
    room.agents.remove(&addr(2));
    room.run(301_000);
    assert_eq!([1, 3].map(|n| room.copies(n).forgotten.clone()), [[owner(2, 1)], [owner(2, 1)]]);
}

#[test]
fn whoever_was_forgotten_and_returns_is_on_the_board_again() {
    let mut room = Room::new(3);
    room.meet();
    room.cut = |from, to| (from == addr(3)) != (to == addr(3));
    room.run(310_000);
    assert_eq!([1, 2, 3].map(|n| room.link(n).board.len()), [1, 1, 0]);
    room.cut = |_, _| false;
    room.run(5_000);
    assert_eq!([1, 2, 3].map(|n| (room.peers(n), room.link(n).board.len())), [(2, 2); 3]);
    let hash = room.link(1).board.hash();
    assert_eq!([2, 3].map(|n| room.link(n).board.hash()), [hash; 2]);
}

#[test]
fn a_change_reaches_every_peer_after_one_delay_in_one_sealed_frame() {
    let mut room = Room::new(4);
    room.meet();
    room.recording.clear();
    room.publish(1, 7);
    let frames: Vec<_> = room.recording.iter().filter(|(_, kind, _)| *kind == Kind::Push).collect();
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|(_, _, frame)| Arc::ptr_eq(frame, &frames[0].2)), "sealed once");
    room.run(1);
    assert_eq!(room.numbers(), [(addr(2), 7), (addr(3), 7), (addr(4), 7)]);
    room.run(1_000);
    assert_eq!(room.sent(Kind::Push), 3, "acknowledged, so not repeated");
}

#[test]
fn a_lost_push_is_sent_again() {
    let mut room = Room::new(2);
    room.meet();
    // Nothing is repaired meanwhile.
    room.lose = |kind, n| kind == Kind::Question || kind == Kind::Push && !n.is_multiple_of(4);
    for version in 1..=50 {
        room.publish(1, version);
        room.run(200);
    }
    assert!(room.numbers().len() >= 40, "{} of 50", room.numbers().len());
    let given_up = room.counters(1).pushes_given_up();
    assert_eq!(room.numbers().len() as u64 + given_up, 50, "what did not arrive was left to repair");
}

#[test]
fn whoever_missed_a_push_does_not_believe_that_it_knows_all() {
    let mut room = Room::new(2);
    room.meet();
    let known = |room: &Room| room.copies(2).versions.get(&owner(1, 1)).copied().unwrap_or_default();
    room.publish(1, 1);
    room.run(10);
    assert_eq!(known(&room), 1);
    room.lose = |kind, _| matches!(kind, Kind::Push | Kind::Question);
    room.publish(1, 2);
    room.run(5_000);
    room.lose = |kind, _| kind == Kind::Question;
    room.publish(1, 3);
    room.run(10);
    assert_eq!(
        (known(&room), room.numbers().last()),
        (1, Some(&(addr(2), 3))),
        "it has 3, and may miss others"
    );
}

#[test]
fn who_meets_or_returns_is_asked_what_it_changed() {
    let mut room = Room::new(2);
    room.meet();
    let both = [(addr(2), owner(2, 1)), (addr(1), owner(1, 1))];
    assert!(both.iter().all(|asked| room.asked().contains(asked)), "{:?}", room.asked());
    room.forget_what_was_noted();
    room.lose = |_, _| true;
    room.run(8_000);
    room.lose = |_, _| false;
    room.run(1_200);
    assert!(both.iter().all(|asked| room.asked().contains(asked)), "{:?}", room.asked());
}

#[test]
fn what_no_push_brought_is_missed_at_the_pings() {
    let mut room = Room::new(2);
    room.meet();
    room.run(1_000);
    room.forget_what_was_noted();
    room.publish(1, 7);
    room.run(2_000);
    assert!(room.asked().is_empty(), "nothing is missing: {:?}", room.asked());
    room.lose = |kind, _| kind == Kind::Push;
    room.publish(1, 8);
    room.run(2_000);
    assert!(room.asked().iter().all(|asked| *asked == (addr(1), owner(1, 1))), "{:?}", room.asked());
    assert_eq!(room.copies(2).versions[&owner(1, 1)], 8);
}

#[test]
fn the_owner_is_asked_if_it_is_live_and_anybody_else_if_not() {
    let mut room = Room::new(3);
    room.meet();
    let version = 4;
    for (of, asked) in [(owner(2, 1), Some(addr(2))), (owner(2, 9), None), (owner(9, 1), None)] {
        room.run(3_000);
        room.forget_what_was_noted();
        let now = room.now;
        let Member { link, copies, .. } = room.at(addr(1));
        copies.versions.insert(of.clone(), version);
        link.ask(now, &of, None, &mut Noting(copies.into()));
        let before = link.effects.frames.len();
        link.ask(now, &of, None, &mut Noting(copies.into()));
        assert_eq!((before, link.effects.frames.len()), (1, 1), "once");
        let effects = link.take_effects();
        room.perform(addr(1), effects);
        room.run(1);
        let [(at, question)] = &*room.asked() else { panic!("{:?}", room.asked()) };
        assert_eq!(*question, of);
        assert!(asked.is_none_or(|asked| *at == asked));
        assert_eq!(room.agents[at].copies.asked, [(of, version, 0)]);
    }
}

#[test]
fn a_lost_ack_repeats_the_push_and_not_its_acknowledgement_only() {
    let mut room = Room::new(2);
    room.meet();
    room.lose = |kind, _| kind == Kind::PushAck;
    room.publish(1, 7);
    room.run(2_000);
    assert!(room.applied().len() > 1, "each repetition is a new frame, so that it is acknowledged anew");
    assert_eq!(room.counters(2).dropped(Dropped::Replayed), 0);
}

#[test]
fn a_recorded_conversation_changes_nothing_when_it_is_played_again() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    room.run(10);
    let recording = room.recording.clone();
    let (applied, sent) = (room.applied().len(), room.recording.len());
    for (to, _, frame) in &recording {
        room.deliver(*to, frame);
    }
    assert_eq!((room.applied().len(), room.recording.len()), (applied, sent), "no effect and no answer");
    let replayed = room.counters(1).dropped(Dropped::Replayed) + room.counters(2).dropped(Dropped::Replayed);
    assert!(replayed > 0);
}

#[test]
fn a_restarted_agent_takes_nothing_from_a_recording() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    room.run(10);
    let recording = room.recording.clone();
    room.agents.remove(&addr(1));
    room.enter(2, 2, Keyring::public());
    for (to, _, frame) in &recording {
        room.deliver(*to, frame);
        room.run(20);
    }
    assert!(room.applied().is_empty());
    assert_eq!(room.peers(2), 0, "nobody answered its challenge");
    assert!(room.counters(2).dropped(Dropped::Stranger) > 0);
}

#[test]
fn our_own_frames_thrown_back_are_dropped() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    let push = room.recording.iter().rfind(|(_, kind, _)| *kind == Kind::Push).unwrap().2.clone();
    room.deliver(addr(1), &push);
    assert_eq!(room.counters(1).dropped(Dropped::Reflected), 1);
    assert!(room.applied().iter().all(|(at, ..)| *at != addr(1)));
}

#[test]
fn an_agent_told_to_join_itself_leaves_itself_alone() {
    let mut room = Room::new(1);
    let alias = addr(9);
    let us = room.agents.remove(&addr(1)).unwrap();
    room.agents.insert(alias, us);
    room.meet();
    let pings = |room: &Room| room.recording.iter().filter(|(to, ..)| *to == alias).count();
    assert_eq!(pings(&room), 1, "one, which came back");
    room.meet();
    assert_eq!(pings(&room), 1);
}

#[test]
fn an_agent_with_another_key_stays_outside_and_is_counted() {
    let mut room = Room::new(2);
    room.enter(3, 1, Keyring::parse(&keyring::Key::generate().line()).unwrap());
    room.enter_as(4, "a4", 1, Keyring::public(), "other");
    room.meet();
    room.publish(3, 7);
    room.publish(4, 8);
    room.run(100);
    assert_eq!([1, 2, 3, 4].map(|n| room.peers(n)), [1, 1, 0, 0]);
    assert!(room.numbers().is_empty());
    assert!(room.counters(1).dropped(Dropped::UnknownKey) > 0);
    assert!(room.counters(1).dropped(Dropped::BadSeal) > 0);
}

#[test]
fn boards_are_compared_with_a_peer_that_was_silent_when_it_is_back() {
    let mut room = Room::new(2);
    room.meet();
    room.lose = |_, _| true;
    room.run(8_000);
    assert_eq!([1, 2].map(|n| room.peers(n)), [0, 0]);
    room.recording.clear();
    room.lose = |_, _| false;
    room.run(600);
    assert_eq!([1, 2].map(|n| room.peers(n)), [1, 1]);
    assert!(room.sent(Kind::Digest) > 0);
}

#[test]
fn whatever_an_authentic_peer_sends_is_dropped_or_taken_and_never_ends_anything() {
    let mut room = Room::new(2);
    room.meet();
    let header = Header { session: [9; 8], counter: 0, from: addr(7), kind: 0 };
    let sealer = public();
    let mut malformed = 0;
    for kind in 0..=255 {
        for payload in
            [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x01\xff\xff\xff\xff\x0f", &[0; 300]]
        {
            let header = Header { kind, counter: 1, ..header };
            room.deliver(addr(1), &seal(&sealer, kind, &wire::pack(header, payload)));
            malformed = room.counters(1).dropped(Dropped::Malformed);
        }
    }
    for len in 0..40 {
        room.deliver(addr(1), &seal(&sealer, 1, &vec![0xff; len]));
    }
    let unspecified = Header { from: "0.0.0.0:1".parse().unwrap(), ..header };
    room.deliver(addr(1), &seal(&sealer, 2, &wire::pack(unspecified, b"\0")));
    assert!(malformed > 0 && room.counters(1).dropped(Dropped::UnknownKind) > 0);
    assert_eq!(room.peers(1), 1);
    room.publish(2, 7);
    room.run(5);
    assert_eq!(room.numbers(), [(addr(1), 7)]);
}

#[test]
fn an_agent_that_crashed_asks_for_what_it_changed_also_if_none_of_it_was_pushed() {
    let mut room = Room::new(2);
    room.meet();
    room.enter(1, 2, Keyring::public());
    room.meet();
    room.run(1_000);
    assert!(room.asked().contains(&(addr(2), owner(1, 1))), "{:?}", room.asked());
}

#[test]
fn an_agent_that_crashed_asks_again_for_what_it_changed_until_a_peer_tells() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    room.run(10);
    // More questions in a row than repair asks.
    room.lose = |kind, _| kind == Kind::Question;
    room.enter(1, 2, Keyring::public());
    room.meet();
    room.run(2_000);
    let former = (addr(2), owner(1, 1));
    assert!(!room.asked().contains(&former));
    room.lose = |_, _| false;
    room.run(2_000);
    assert!(room.asked().contains(&former), "{:?}", room.asked());
    room.forget_what_was_noted();
    room.run(10_000);
    assert!(!room.asked().contains(&former), "it was told");
}

#[test]
fn an_agent_that_crashed_gets_from_its_peers_what_it_pushed_last() {
    let mut room = Room::new(2);
    room.meet();
    room.publish(1, 7);
    room.run(10);
    room.forget_what_was_noted();
    // The first push to the returned agent is lost, or comes before it has admitted its sender.
    room.lose = |kind, n| kind == Kind::Push && n % 3 != 0;
    room.enter(1, 2, Keyring::public());
    room.meet();
    room.run(1_000);
    let applied = room.applied();
    assert!(applied.contains(&(addr(1), owner(1, 1), vec![change(7)])), "{applied:?}");
    assert!(room.asked().contains(&(addr(2), owner(1, 1))), "for what it changed before: {:?}", room.asked());
    assert!(applied.iter().all(|(at, ..)| *at == addr(1)), "nobody else is told");
    room.run(301_000);
    assert_eq!(room.copies(1).forgotten, [owner(1, 1)], "in the end");
}
