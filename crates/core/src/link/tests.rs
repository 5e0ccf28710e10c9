//! Links in one room: who meets, what reaches whom, and what nobody can forge.

mod boards;
mod detour;
mod naming;
mod room;
mod rotation;
mod suspicion;
mod versions;
mod watching;
mod whereabouts;

use std::collections::BTreeSet;

use self::room::*;
use self::suspicion::one_in_five;
use super::board::ALL_ROWS;
use super::joins::{JoinState, TurnedAway};
use super::*;
use crate::slot::{Cell, Content, Status};

#[test]
fn agents_that_know_an_address_admit_each_other_and_compare_boards() {
    let mut room = Room::new(3);
    room.meet();
    assert_eq!([1, 2, 3].map(|n| room.peers(n)), [2, 2, 2]);
    let hash = room.link(1).peers.hash(ALL_ROWS);
    assert_eq!([2, 3].map(|n| room.link(n).peers.hash(ALL_ROWS)), [hash; 2]);
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
    let hash = room.link(1).peers.hash(ALL_ROWS);
    assert!((2..=8).all(|n| room.link(n).peers.hash(ALL_ROWS) == hash));
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
fn of_an_agent_that_is_forgotten_nothing_is_asked_any_more() {
    let mut room = Room::new(3);
    room.meet();
    room.publish(3, 7);
    room.run(1_000);
    room.agents.remove(&addr(3));
    room.run(310_000);
    assert_eq!([1, 2].map(|n| room.copies(n).forgotten.clone()), [[owner(3, 1)], [owner(3, 1)]]);
    // A newcomer hears of it: others still expect it back. Boards differ, and are exchanged.
    room.forget_what_was_noted();
    room.enter(4, 1, Keyring::public());
    room.meet();
    room.run(10_000);
    let asked = room.asked();
    assert!(asked.iter().all(|(_, of)| *of != owner(3, 1)), "{asked:?}");
    assert_eq!([1, 2, 4].map(|n| room.shown(n)), [2; 3]);
}

#[test]
fn whoever_was_forgotten_and_returns_is_on_the_board_again() {
    let mut room = Room::new(3);
    room.meet();
    room.cut = |from, to| (from == addr(3)) != (to == addr(3));
    room.run(310_000);
    assert_eq!([1, 2, 3].map(|n| room.shown(n)), [1, 1, 0]);
    room.cut = |_, _| false;
    room.run(5_000);
    assert_eq!([1, 2, 3].map(|n| (room.peers(n), room.shown(n))), [(2, 2); 3]);
    let hash = room.link(1).peers.hash(ALL_ROWS);
    assert_eq!([2, 3].map(|n| room.link(n).peers.hash(ALL_ROWS)), [hash; 2]);
}

#[test]
fn a_change_reaches_every_peer_after_one_delay() {
    let mut room = Room::new(4);
    room.meet();
    room.recording.clear();
    room.publish(1, 7);
    assert_eq!(room.sent(Kind::Push), 3);
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
        link.ask(now, &of, None, None, &mut Noting(copies.into()));
        let before = link.effects.frames.len();
        link.ask(now, &of, None, None, &mut Noting(copies.into()));
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
    for (from, to, kind, frame) in &recording {
        // A Hello that was recorded is answered, no faster than its sender's address may ask.
        if *kind != Kind::Hello {
            room.deliver(*from, *to, frame);
        }
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
    for (from, to, _, frame) in &recording {
        room.deliver(*from, *to, frame);
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
    let (.., push) = room.recording.iter().rfind(|(_, _, kind, _)| *kind == Kind::Push).unwrap().clone();
    room.deliver(addr(2), addr(1), &push);
    assert_eq!(room.counters(1).dropped(Dropped::Stranger) + room.counters(1).dropped(Dropped::BadSeal), 1);
    assert!(room.applied().iter().all(|(at, ..)| *at != addr(1)));
}

#[test]
fn a_hello_thrown_back_at_its_sender_keeps_it_from_nothing() {
    let mut room = Room::new(0);
    room.enter(2, 1, Keyring::public());
    room.join(addr(2), [addr(1)].into());
    room.run(1_000);
    let (.., hello) = room.recording.last().unwrap().clone();
    room.deliver(addr(1), addr(2), &hello);
    assert_eq!(room.counters(2).dropped(Dropped::Reflected), 1);
    room.enter(1, 1, Keyring::public());
    room.run(6_000);
    assert_eq!(room.peers(2), 1);
}

#[test]
fn a_frame_counts_only_for_the_agent_that_it_was_made_for() {
    let mut room = Room::new(3);
    room.meet();
    room.publish(1, 7);
    let made_for = |n: u8| move |(_, to, kind, _): &&Sent| *to == addr(n) && *kind == Kind::Push;
    let (from, .., push) = room.recording.iter().rfind(made_for(2)).unwrap().clone();
    room.run(10);
    room.forget_what_was_noted();
    room.deliver(from, addr(3), &push);
    assert!(room.applied().is_empty());
}

#[test]
fn frames_that_were_held_back_are_no_sign_of_life() {
    let mut room = Room::new(2);
    room.meet();
    room.run(1_000);
    // From here on, somebody keeps what the first sends; then it is dead.
    let kept = room.recording.len();
    room.lose = |_, _| true;
    room.publish(1, 7);
    room.run(1_000);
    let held_back: Vec<_> =
        room.recording[kept..].iter().filter(|(from, ..)| *from == addr(1)).cloned().collect();
    room.agents.remove(&addr(1));
    room.run(15_000);
    room.forget_what_was_noted();
    room.lose = |_, _| false;
    for (from, to, _, frame) in &held_back {
        room.deliver(*from, *to, frame);
        room.run(10);
    }
    assert!(room.applied().is_empty() && room.copies(2).told.is_empty() && room.peers(2) == 0);
    assert!(room.counters(2).dropped(Dropped::Stale) > 1);
}

#[test]
fn an_agent_told_to_join_itself_leaves_itself_alone_for_a_while() {
    let mut room = Room::new(1);
    let alias = addr(9);
    let us = room.agents.remove(&addr(1)).unwrap();
    room.agents.insert(alias, us);
    room.meet();
    let hellos = |room: &Room| room.recording.iter().filter(|(_, to, ..)| *to == alias).count();
    assert_eq!(hellos(&room), 1, "one, which came back");
    room.run(4_000);
    assert_eq!(hellos(&room), 1);
    room.run(2_000);
    assert_eq!(hellos(&room), 2, "the address may have moved to another host");
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
fn whoever_was_met_at_an_address_to_join_at_has_answered_whoever_began() {
    let mut room = Room::new(2);
    // The other one is started later, and begins.
    room.join(addr(1), [addr(3)].into());
    room.run(10_000);
    assert_eq!(room.link(1).joins[&addr(3)], JoinState::Silent);
    room.enter(3, 1, Keyring::public());
    room.join(addr(3), [addr(1)].into());
    let hellos = |room: &Room| {
        let ours = room
            .recording
            .iter()
            .filter(|(from, to, kind, _)| (*from, *to, *kind) == (addr(1), addr(3), Kind::Hello));
        ours.count()
    };
    let before = hellos(&room);
    room.run(20_000);
    assert_eq!(hellos(&room), before, "it was met before it was asked again");
    assert_eq!((room.peers(1), room.link(1).joins[&addr(3)]), (1, JoinState::Answered));
    // Or it is known already when it is to be looked for.
    room.join(addr(2), [addr(1)].into());
    room.run(100);
    room.join(addr(1), [addr(2)].into());
    assert_eq!(room.link(1).joins[&addr(2)], JoinState::Answered);
}

#[test]
fn whoever_joins_in_vain_learns_why_as_far_as_can_be_told() {
    let mut room = Room::new(1);
    room.enter(3, 1, Keyring::parse(&keyring::Key::generate().line()).unwrap());
    room.enter_as(4, "a4", 1, Keyring::public(), "other");
    room.enter(5, 1, Keyring::public());
    for n in [3, 4, 5] {
        room.join(addr(n), [addr(1), addr(9), addr(n)].into());
    }
    room.run(2_000);
    let states = |room: &mut Room, n: u8| [1, 9, n].map(|at| room.link(n).joins[&addr(at)]);
    let turned_away = |why| [JoinState::TurnedAway(why), JoinState::Silent, JoinState::Ourselves];
    assert_eq!(states(&mut room, 3), turned_away(TurnedAway::UnknownKey));
    assert_eq!(states(&mut room, 4), turned_away(TurnedAway::OtherCluster));
    assert_eq!(states(&mut room, 5), [JoinState::Answered, JoinState::Silent, JoinState::Ourselves]);
    let mut later = room.recording.iter().find(|(_, _, kind, _)| *kind == Kind::Hello).unwrap().3.to_vec();
    later[2] += 1;
    room.deliver(addr(9), addr(5), &later);
    assert_eq!(states(&mut room, 5)[1], JoinState::TurnedAway(TurnedAway::OtherVersion));
    // No word of anybody's can take back what was proven.
    room.deliver(addr(1), addr(5), &later);
    assert_eq!(states(&mut room, 5)[0], JoinState::Answered);
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
    for kind in 0..=255 {
        for payload in
            [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x01\xff\xff\xff\xff\x0f", &[0; 300]]
        {
            room.say(2, 1, &[&[kind], payload].concat());
            room.run(1);
        }
    }
    room.say(2, 1, b"");
    room.run(1);
    assert!(room.counters(1).dropped(Dropped::Malformed) > 0);
    assert!(room.counters(1).dropped(Dropped::UnknownKind) > 0);
    room.run(3_000);
    assert_eq!((room.peers(1), room.names_taken.len()), (1, 0));
    room.publish(2, 7);
    room.run(5);
    assert!(room.numbers().contains(&(addr(1), 7)));
}

#[test]
fn what_strangers_send_is_dropped_and_answered_by_nothing_larger() {
    let mut room = Room::new(1);
    for kind in 0..=255 {
        for len in [0, 4, 12, 30, frame::HELLO, 1_200] {
            let bytes = [b"gs", &[frame::VERSION, kind][..], &vec![7; len]].concat();
            room.deliver(addr(9), addr(1), &bytes);
        }
    }
    assert_eq!((room.recording.len(), room.peers(1)), (0, 0));
    assert!(
        room.counters(1).dropped(Dropped::NotAFrame) > 0 && room.counters(1).dropped(Dropped::Stranger) > 0
    );
}

#[test]
fn hellos_beyond_the_pace_get_cookies_and_whoever_shows_one_gets_in() {
    let mut room = Room::new(1);
    room.run(1);
    // Somebody without a session floods from the newcomer's address, with Hellos that it recorded.
    room.enter(2, 1, Keyring::public());
    room.join(addr(2), [addr(9)].into());
    room.run(5_000);
    let hellos: Vec<_> = room.recording.iter().filter(|(_, to, ..)| *to == addr(9)).cloned().collect();
    room.recording.clear();
    for _ in 0..20 {
        for (from, .., hello) in &hellos {
            room.deliver(*from, addr(1), hello);
        }
    }
    let flood = 20 * hellos.len();
    let (replies, cookies) = (room.sent(Kind::Reply), room.sent(Kind::Cookie));
    assert!(replies <= 20 && replies + cookies == flood, "{replies} replies, {cookies} cookies of {flood}");
    assert_eq!(room.counters(1).dropped(Dropped::Paced), cookies as u64);
    assert!(room.recording.iter().all(|(.., answer)| answer.len() <= frame::HELLO));
    room.join(addr(2), [addr(1)].into());
    room.run(500);
    assert_eq!(room.peers(1), 1);
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

#[test]
fn a_hello_that_is_thrown_back_stops_no_pings() {
    let mut room = Room::new(2);
    room.meet();
    room.run(2_000);
    let now = room.now;
    room.link(1).hello(now, addr(2));
    let hello = room.link(1).take_effects().frames.remove(0);
    room.deliver(addr(2), addr(1), &hello.bytes);
    room.recording.clear();
    room.run(600);
    let pings = room.recording.iter().filter(|(from, _, kind, _)| *from == addr(1) && *kind == Kind::Ping);
    assert!(pings.count() > 0);
}

#[test]
fn who_is_not_expected_back_is_not_looked_for() {
    let mut room = Room::new(2);
    room.join(addr(2), [addr(1)].into());
    room.run(100);
    assert_eq!((room.peers(1), room.link(1).pings.len().0), (1, 1));
    room.link(1).peers.left(&owner(2, 1));
    room.agents.remove(&addr(2));
    room.run(u32::try_from(DEAD_GRACE.as_millis()).unwrap() + 10_000);
    assert_eq!(room.link(1).pings.len().0, 0);
}
