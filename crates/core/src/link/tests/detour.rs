//! Questions for detours, and their answers, between links.

use super::*;
use crate::agent::{Detour, Seek};
use crate::link::wire::OfferedGost;

fn tunnel() -> TunnelId {
    TunnelId::from_bytes([7; 16])
}

fn detour() -> Offer {
    Offer::Detour(Detour { node: "n".into(), address: "10.0.0.2:80".into() })
}

fn seek(room: &mut Room, of: u8, to: &str, id: u64) {
    let seek = Seek { to: to.parse().unwrap(), id, tunnel: tunnel() };
    let effects = room.link(of).handle_seeks(&[seek]);
    room.perform(addr(of), effects);
}

/// An agent says this, whatever it may be; how many frames of the receiver are malformed by then.
fn say(room: &mut Room, kind: Kind, payload: &[u8]) -> u64 {
    room.link(2).send(kind, payload, addr(1));
    let effects = room.link(2).take_effects();
    room.perform(addr(2), effects);
    room.run(10);
    room.counters(1).dropped(Dropped::Malformed)
}

#[test]
fn a_question_for_a_detour_reaches_the_peer_that_it_is_for_and_the_answer_says_who_gave_it() {
    let mut room = Room::new(3);
    room.meet();
    for (id, offer) in [(4, Offer::Nothing), (5, Offer::NoGost), (6, detour())] {
        room.at(addr(2)).copies.offer = Some(offer.clone());
        seek(&mut room, 1, "a2", id);
        room.run(10);
        assert_eq!(room.copies(2).sought.last(), Some(&(owner(1, 1), tunnel())));
        assert_eq!(room.copies(1).offers.last(), Some(&(owner(2, 1), id, offer)));
    }
    assert!(room.copies(3).sought.is_empty());
    assert_eq!((room.sent(Kind::Seek), room.sent(Kind::Offer)), (3, 3));
}

#[test]
fn whoever_is_not_live_is_not_asked() {
    let mut room = Room::new(2);
    room.meet();
    room.recording.clear();
    seek(&mut room, 1, "a9", 4);
    room.run(10);
    assert_eq!(room.sent(Kind::Seek), 0);
}

#[test]
fn an_answer_that_is_no_entrypoint_of_a_gost_is_dropped_and_counted() {
    let mut room = Room::new(2);
    room.meet();
    let long = "x".repeat(60_000);
    let (none, some) = (None, |node, address| Some(OfferedGost { node, address }));
    let bad = [
        (false, some("n", "10.0.0.2:80")),
        (true, some("", "10.0.0.2:80")),
        (true, some("n", "")),
        (true, some("n", "10.0.0.2:0")),
        (true, some("n", "no port")),
        (true, some("n\n", "10.0.0.2:80")),
        (true, some(&long, "10.0.0.2:80")),
        (true, some("n", &long)),
    ];
    let mut malformed = 0;
    for (reaches, gost) in bad {
        malformed += 1;
        let payload = wire::encode(&wire::Offer { id: 4, reaches, gost });
        assert_eq!(say(&mut room, Kind::Offer, &payload), malformed);
    }
    assert!(room.copies(1).offers.is_empty());
    let payload = wire::encode(&wire::Offer { id: 4, reaches: true, gost: none });
    for end in 0..payload.len() {
        malformed += 1;
        assert_eq!(say(&mut room, Kind::Offer, &payload[..end]), malformed, "{end} bytes");
    }
    let payload = wire::encode(&wire::Seek { id: 4, tunnel: tunnel() });
    for end in 0..payload.len() {
        malformed += 1;
        assert_eq!(say(&mut room, Kind::Seek, &payload[..end]), malformed, "{end} bytes");
    }
    assert!(room.copies(1).offers.is_empty() && room.copies(1).sought.is_empty());
    assert_eq!(room.peers(1), 1, "it is a peer nevertheless");
}
