//! Agents that move, that are reached elsewhere than they say, or that say what only their own host can dial.

use super::*;
use crate::event::PeerChange;

const LOOPBACK: &str = "127.0.0.1:8002";

impl Room {
    /// Where an agent's peer is, as that agent has it; none if it is not live.
    fn place_of(&self, at: u8, of: u8) -> Option<SocketAddr> {
        let name = owner(of, 1).name;
        self.agents[&addr(at)].link.live().find(|peer| peer.owner.name == name).map(|peer| peer.addr)
    }

    fn moves_told(&self) -> Vec<(SocketAddr, SocketAddr, SocketAddr)> {
        let told = self.agents.iter().flat_map(|(at, agent)| {
            agent.copies.changed.iter().filter_map(|(_, change)| match change {
                PeerChange::Address { from, to } => Some((*at, *from, *to)),
                _ => None,
            })
        });
        told.collect()
    }

    fn sent_to(&self, to: SocketAddr) -> usize {
        self.recording.iter().filter(|(_, sent_to, ..)| *sent_to == to).count()
    }
}

#[test]
fn a_host_that_gets_another_address_is_followed_at_once_and_keeps_what_it_had() {
    let mut room = Room::new(3);
    for at in [1, 3] {
        room.join(addr(at), [addr(2)].into());
    }
    room.run(1_000);
    room.publish(1, 7);
    room.run(1_000);
    room.lines.clear();
    room.forget_what_was_noted();
    room.move_host(1, 11);
    room.run(20);
    let moved = |at| (addr(at), addr(1), addr(11));
    assert_eq!(room.moves_told(), [moved(2), moved(3)], "once each");
    assert!(room.lines.is_empty(), "nobody joined: {:?}", room.lines);
    assert_eq!([2, 3].map(|at| room.place_of(at, 1)), [Some(addr(11)); 2]);
    room.publish_at(addr(11), 8);
    room.publish(2, 9);
    room.run(10);
    for got in [(addr(2), 8), (addr(3), 8), (addr(11), 9)] {
        assert!(room.numbers().contains(&got), "{got:?}");
    }
    room.run(3_000);
    room.recording.clear();
    room.run(10_000);
    assert_eq!(room.sent_to(addr(1)), 0, "nobody sends to where it was");
    assert_eq!((room.suspicions(), room.moves_told().len()), (0, 2));
    let hash = room.at(addr(11)).link.peers.hash(ALL_ROWS);
    assert_eq!([2, 3].map(|n| room.link(n).peers.hash(ALL_ROWS)), [hash; 2]);
}

#[test]
fn a_move_is_known_everywhere_although_one_frame_in_five_is_lost() {
    let mut room = Room::new(8);
    room.meet();
    room.lose = one_in_five;
    room.move_host(1, 11);
    room.run(6_000);
    let places: Vec<_> = (2..=8).map(|at| room.place_of(at, 1)).collect();
    assert!(places.iter().all(|place| *place == Some(addr(11))), "{places:?}");
}

#[test]
fn a_host_that_was_unreachable_between_two_addresses_is_served_again_within_a_second() {
    let mut room = Room::new(2);
    room.meet();
    room.lose = |_, _| true;
    room.run(20_000);
    room.lose = |_, _| false;
    room.move_host(1, 11);
    room.run(1_000);
    assert_eq!(room.place_of(2, 1), Some(addr(11)));
    assert_eq!(room.moves_told(), [(addr(2), addr(1), addr(11))]);
}

#[test]
fn frames_go_to_where_an_agents_frames_come_from_while_what_it_advertises_does_not_answer() {
    let mut room = Room::new(2);
    // The second one is behind a NAT that lets answers in, and nothing else.
    room.seems.insert(addr(2), addr(12));
    room.arrives.extend([(addr(12), Some(addr(2))), (addr(2), None)]);
    room.join(addr(2), [addr(1)].into());
    room.run(1_000);
    assert_eq!([1, 2].map(|n| room.peers(n)), [1, 1]);
    room.publish(1, 7);
    room.run(20);
    assert!(room.numbers().contains(&(addr(2), 7)));
    room.run(60_000);
    assert_eq!(room.suspicions(), 0);
    // The NAT forgets, and chooses another port.
    room.seems.insert(addr(2), addr(13));
    room.arrives.extend([(addr(12), None), (addr(13), Some(addr(2)))]);
    room.run(5_000);
    assert_eq!([1, 2].map(|n| room.peers(n)), [1, 1]);
    room.publish(1, 8);
    room.run(20);
    assert!(room.numbers().contains(&(addr(2), 8)));
    assert!(room.moves_told().is_empty(), "it says that it is where it was");
    // Somebody forwards the advertised address at last: it is the first choice.
    room.arrives.remove(&addr(2));
    room.run(5_000);
    room.recording.clear();
    room.run(5_000);
    let (first, other) = (room.sent_to(addr(2)), room.sent_to(addr(13)));
    assert!(first > 5 && other <= 1, "{first} to the advertised address, {other} to the other");
}

#[test]
fn a_frame_that_somebody_sends_on_leads_nobody_astray() {
    let mut room = Room::new(2);
    room.meet();
    room.run(1_000);
    room.lose = |kind, _| kind == Kind::Ping;
    for _ in 0..100 {
        room.publish(2, 7);
        let (.., push) = room.recording.iter().rfind(|(_, _, kind, _)| *kind == Kind::Push).unwrap().clone();
        room.wire.clear();
        room.deliver(addr(66), addr(1), &push);
        room.run(50);
    }
    room.lose = |_, _| false;
    room.recording.clear();
    room.publish(1, 9);
    room.run(20);
    assert_eq!(room.sent_to(addr(66)), 0, "it answered no challenge");
    assert!(room.numbers().contains(&(addr(2), 9)));
}

#[test]
fn an_agent_of_another_host_that_says_loopback_is_refused_once_named_and_taken_when_it_knows_better() {
    let mut room = Room::new(2);
    room.meet();
    room.enter(3, 1, Keyring::public());
    room.advertise(addr(3), LOOPBACK.parse().unwrap());
    room.join(addr(3), [addr(1), addr(2)].into());
    room.run(5_000);
    assert_eq!([1, 2, 3].map(|n| room.peers(n)), [1, 1, 0]);
    assert!(room.counters(1).dropped(Dropped::ForeignLoopback) > 1);
    let refusals = room.lines.iter().filter(|(_, line)| matches!(line, LinkLine::LoopbackRefused { .. }));
    assert_eq!(refusals.count(), 2, "once at each");
    assert_eq!(room.sent_to(LOOPBACK.parse().unwrap()), 0);
    room.advertise(addr(3), addr(3));
    room.run(1_000);
    assert_eq!([1, 2, 3].map(|n| room.peers(n)), [2, 2, 2]);
}

#[test]
fn whoever_joins_at_an_agent_that_says_loopback_does_not_take_it_for_its_own_host() {
    let mut room = Room::new(2);
    room.advertise(addr(1), LOOPBACK.parse().unwrap());
    room.join(addr(2), [addr(1)].into());
    room.run(3_000);
    assert_eq!([1, 2].map(|n| room.peers(n)), [0, 0]);
    assert!(room.counters(2).dropped(Dropped::ForeignLoopback) > 0);
}

#[test]
fn agents_of_one_host_meet_at_loopback_and_lead_no_other_host_there() {
    let mut room = Room::new(2);
    room.meet();
    let here: SocketAddr = LOOPBACK.parse().unwrap();
    room.enter(3, 1, Keyring::public());
    let third = room.agents.remove(&addr(3)).unwrap();
    room.agents.insert(here, third);
    room.advertise(here, here);
    // The first one is on its host, and reached at any of its addresses.
    room.cut =
        |from, to| (from == addr(2)) != (to == addr(2)) && (from.ip().is_loopback() || to.ip().is_loopback());
    room.join(here, [addr(1)].into());
    room.run(5_000);
    assert_eq!(room.agents[&here].link.live().count(), 1, "the second one is another host's");
    assert_eq!([1, 2].map(|n| room.peers(n)), [2, 1]);
    let from_second = room.recording.iter().filter(|(from, to, ..)| *from == addr(2) && *to == here);
    assert_eq!(from_second.count(), 0);
}

#[test]
fn an_alias_of_a_peer_is_asked_now_and_then_because_it_may_move_to_another_agent() {
    let mut room = Room::new(3);
    let alias = addr(9);
    room.arrives.insert(alias, Some(addr(1)));
    room.join(addr(2), [alias].into());
    room.run(1_000);
    assert_eq!(room.place_of(2, 1), Some(addr(1)));
    room.recording.clear();
    room.run(20_000);
    let hellos = room.recording.iter().filter(|(_, to, kind, _)| *to == alias && *kind == Kind::Hello);
    assert!((3..=5).contains(&hellos.count()), "not at every ping");
    room.arrives.insert(alias, Some(addr(3)));
    room.run(6_000);
    assert_eq!(room.place_of(2, 3), Some(addr(3)));
}

#[test]
fn an_alias_that_becomes_a_peers_own_address_is_pinged_as_every_peer_is() {
    let mut room = Room::new(2);
    let alias = addr(11);
    room.arrives.insert(alias, Some(addr(1)));
    room.join(addr(2), [alias].into());
    room.run(100);
    room.arrives.clear();
    room.move_host(1, 11);
    room.run(100);
    room.recording.clear();
    room.run(3_000);
    let is_ping = |(from, to, kind, _): &&Sent| *from == addr(2) && *to == alias && *kind == Kind::Ping;
    let pings = room.recording.iter().filter(is_ping).count();
    assert!((5..=8).contains(&pings), "{pings} in three seconds");
}

#[test]
fn a_dead_peer_is_suspect_in_time_although_no_ping_is_due() {
    let mut room = Room::new(2);
    room.meet();
    let now = room.now;
    room.link(2).pings.met_elsewhere(now, addr(1));
    room.agents.remove(&addr(1));
    room.run(3_000);
    assert_eq!(room.suspicions(), 1);
}

#[test]
fn a_peer_that_did_not_get_a_new_address_is_told_again() {
    let mut room = Room::new(2);
    room.join(addr(2), [addr(1)].into());
    room.run(1_000);
    room.join(addr(2), BTreeSet::new());
    room.lose = |kind, _| kind == Kind::Hello;
    room.move_host(1, 11);
    room.run(400);
    room.lose = |_, _| false;
    assert_eq!(room.place_of(2, 1), Some(addr(1)));
    room.run(1_000);
    assert_eq!(room.place_of(2, 1), Some(addr(11)));
}
