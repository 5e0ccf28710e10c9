//! Holes and the ways around them, in paused time; peers and dials are answered by the test.

use std::collections::BTreeSet;

use super::super::tests::{Agent, HERE, advance, agent, change, hear, lose, now, owner, register, tell};
use super::super::{Adjusted, Holding, News, Quota, Tried};
use super::*;
use crate::link::ReplicaStore as _;
use crate::locality::Locality;
use crate::rank::Order;
use crate::slot::Content;

const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const WORKS: Tried = Tried::Works(Duration::from_millis(1));
/// Where b's gost is, which has the tunnel; and c's and d's, which do not.
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const D: &str = "10.0.0.4:80";

fn tunnel() -> TunnelId {
    TunnelId::parse(TUNNEL).unwrap()
}

fn record(id: &str, node: &str, address: &str) -> Record {
    let [id, name, node] = [id, TUNNEL, node].map(Into::into);
    Record { id, name, node, network: Network::Tcp, address: address.into() }
}

/// A peer that is heard, with these records.
fn peer(agent: &Agent, name: &str, records: &[Record]) -> Owner {
    let owner = owner(name, 1);
    let records = records.iter().map(|record| Content::Record(Arc::new(record.clone())));
    let mut changes: Vec<_> = (1..).zip(records).map(|(n, content)| change(n, n, content)).collect();
    changes.push(change(0, 100, Content::Status(Status::Ready)));
    tell(agent, &owner, changes);
    hear(agent, &owner);
    owner
}

/// An agent that hears b, which has the tunnel, and c, which has not.
fn heard() -> (Agent, [Owner; 2]) {
    let agent = agent();
    advance(NEW);
    let b = peer(&agent, "b", &[record("1", "b's gost", B)]);
    let c = peer(&agent, "c", &[]);
    (agent, [b, c])
}

/// What a visitor is answered: addresses.
fn get(agent: &Agent) -> Vec<String> {
    agent.resolve(TUNNEL).iter().map(|record| record.address.to_string()).collect()
}

/// Does what is due: dials of these addresses work, others are in vain. Who is asked.
fn due(agent: &Agent, works: &[&str]) -> Vec<Seek> {
    let due = agent.lock().due(now(), 0, |_| false);
    for entrypoint in due.tries {
        let is_open = works.iter().any(|address| entrypoint.address == **address);
        agent.tried(&entrypoint.address, if is_open { WORKS } else { Tried::Silent });
    }
    due.seeks
}

fn offer(agent: &Agent, by: &Owner, id: u64, offer: Offer) {
    agent.handle(News::Offered { by: by.clone(), id, offer });
}

fn by(address: &str) -> Offer {
    Offer::Detour(Detour { node: "another gost".into(), address: address.into() })
}

/// Visitors come for so long; dials of these addresses work, and who is asked answers like that.
fn pass(agent: &Agent, ms: u64, works: &[&str], answer: impl Fn(&str) -> Offer) {
    for _ in 0..ms / 100 {
        get(agent);
        for seek in due(agent, works) {
            let name = seek.to.as_str();
            offer(agent, &owner(name, 1), seek.id, answer(name));
        }
        due(agent, works);
        advance(Duration::from_millis(100));
    }
}

fn c_offers(name: &str) -> Offer {
    if name == "c" { by(C) } else { Offer::Nothing }
}

fn around(agent: &Agent) -> Option<Around> {
    agent.lock().around(now(), TUNNEL)
}

fn watched(agent: &Agent) -> usize {
    agent.lock().holes.len()
}

fn offers(agent: &Agent) -> usize {
    agent.lock().holes.offers()
}

fn why(agent: &Agent) -> NoDetour {
    match around(agent) {
        Some(Around::Nothing(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn dropped(agent: &Agent) -> u64 {
    agent.view().changes.offers_dropped
}

#[test]
fn a_hole_that_is_older_than_a_second_has_a_way_around_by_a_peer_that_reaches_the_tunnel() {
    let (agent, _) = heard();
    pass(&agent, 900, &[C], c_offers);
    assert_eq!((get(&agent), why(&agent)), (vec![B.to_owned()], NoDetour::Young));
    pass(&agent, 500, &[C], c_offers);
    let answer = agent.resolve(TUNNEL);
    let first = Record { address: C.into(), ..record("1", "another gost", B) };
    assert_eq!((&*answer[0], answer[1].address.to_string()), (&first, B.to_owned()), "the others follow");
    let Some(Around::Detour { agent: by, address, said }) = around(&agent) else { panic!("none") };
    assert!((by.as_str(), &*address.to_string()) == ("c", C) && said < COUNTS);
    let told = |agent: &Agent| {
        let lines = agent.effects().lines.into_iter();
        lines.filter(|line| matches!(line, Line::Detour { .. })).count()
    };
    assert_eq!(told(&agent), 1);
    advance(Duration::from_secs(20));
    pass(&agent, 30_000, &[C], c_offers);
    assert_eq!((get(&agent).len(), told(&agent)), (2, 0), "once, although it was forgotten meanwhile");
    assert!(agent.view().changes.detours > 1);
}

#[test]
fn what_can_be_dialled_needs_no_way_around_and_nobody_is_asked() {
    let (agent, _) = heard();
    for _ in 0..30 {
        assert_eq!(get(&agent), [B]);
        assert!(due(&agent, &[B, C]).is_empty());
        advance(Duration::from_millis(100));
    }
    assert_eq!((around(&agent), watched(&agent)), (None, 0));
}

#[test]
fn a_hole_that_closes_is_answered_with_its_own_records_at_once() {
    let (agent, _) = heard();
    pass(&agent, 2_000, &[C], c_offers);
    assert_eq!(get(&agent), [C, B]);
    agent.tried(&B.into(), WORKS);
    assert_eq!((get(&agent), around(&agent)), (vec![B.to_owned()], None));
}

#[test]
fn nobody_is_asked_for_a_private_tunnel() {
    let (agent, _) = heard();
    pass(&agent, 2_000, &[C], c_offers);
    let (quota, locality, private) = (Quota::default(), Locality::default(), [tunnel()].into());
    let order = Order::Random;
    agent.adjust(Adjusted { order, quota, locality: &locality, private: &private });
    assert_eq!((get(&agent), why(&agent)), (vec![B.to_owned()], NoDetour::Private));
    advance(ROUND);
    assert!(due(&agent, &[C]).is_empty());
    assert_eq!(agent.lock().offer(now(), &owner("c", 1), tunnel()), Offer::Nothing);
}

#[test]
fn whoever_has_lately_offered_to_be_a_way_around_takes_none() {
    let (agent, [_, c]) = heard();
    // It could dial b, and said so; and then it cannot any more.
    register(&agent, "ours");
    get(&agent);
    due(&agent, &[B]);
    assert_ne!(agent.lock().offer(now(), &c, tunnel()), Offer::Nothing);
    agent.tried(&B.into(), Tried::Silent);
    pass(&agent, 4_900, &[C], c_offers);
    assert_eq!((get(&agent), why(&agent)), (vec![B.to_owned()], NoDetour::IsDetour));
    pass(&agent, 200, &[C], c_offers);
    assert_eq!(get(&agent), [C, B]);
}

#[test]
fn an_agent_that_has_just_started_does_not_know_what_it_offered_and_takes_no_way_around() {
    let agent = agent();
    peer(&agent, "b", &[record("1", "b's gost", B)]);
    peer(&agent, "c", &[]);
    pass(&agent, 4_900, &[C], c_offers);
    assert_eq!((get(&agent), why(&agent)), (vec![B.to_owned()], NoDetour::IsDetour));
    pass(&agent, 200, &[C], c_offers);
    assert_eq!(get(&agent), [C, B]);
}

#[test]
fn without_an_address_of_the_peers_gost_there_is_no_way_around_and_the_agent_says_so() {
    let (agent, [_, c]) = heard();
    pass(&agent, 2_000, &[C], |name| if name == "c" { Offer::NoGost } else { Offer::Nothing });
    assert_eq!((get(&agent), why(&agent)), (vec![B.to_owned()], NoDetour::NoGost(c.name)));
    pass(&agent, 4_000, &[C], |_| Offer::Nothing);
    assert_eq!((get(&agent), why(&agent)), (vec![B.to_owned()], NoDetour::Nobody));
}

#[test]
fn what_a_peer_said_counts_for_three_seconds_after_it_was_asked() {
    let (agent, [_, c]) = heard();
    pass(&agent, 2_000, &[C], c_offers);
    let said = |agent: &Agent| match around(agent) {
        Some(Around::Detour { said, .. }) => Some(said),
        _ => None,
    };
    let age = said(&agent).unwrap();
    advance(COUNTS.saturating_sub(age + Duration::from_millis(1)));
    assert_eq!(get(&agent), [C, B]);
    advance(Duration::from_millis(1));
    assert_eq!((get(&agent), why(&agent)), (vec![B.to_owned()], NoDetour::Nobody));
    // An answer that somebody held back is as old as its question.
    let seeks = due(&agent, &[C]);
    let seek = seeks.iter().find(|seek| seek.to == c.name).unwrap();
    get(&agent);
    advance(COUNTS);
    offer(&agent, &c, seek.id, by(C));
    assert_eq!(get(&agent), [B]);
}

#[test]
fn what_a_peer_takes_back_counts_no_more() {
    let (agent, _) = heard();
    pass(&agent, 2_000, &[C], c_offers);
    assert_eq!(get(&agent), [C, B]);
    pass(&agent, 1_000, &[C], |_| Offer::Nothing);
    assert_eq!(get(&agent), [B]);
}

#[test]
fn a_way_around_that_is_not_dialled_well_from_here_is_not_used() {
    let (agent, [_, c]) = heard();
    pass(&agent, 3_000, &[], c_offers);
    assert_eq!((get(&agent), why(&agent)), (vec![B.to_owned()], NoDetour::Unreached(c.name, C.into())));
    agent.tried(&C.into(), WORKS);
    assert_eq!(get(&agent), [C, B]);
    agent.tried(&C.into(), Tried::Refused);
    assert_eq!(get(&agent), [B]);
    let faults = agent.lock().entrypoints(now());
    let of_c = faults.iter().find(|entrypoint| entrypoint.address == *C).unwrap();
    assert!(!of_c.is_fault, "no visitor wants a record of it");
}

#[test]
fn of_several_ways_around_the_nearest_comes_first_and_none_of_a_dead_peer() {
    let (agent, [_, c]) = heard();
    peer(&agent, "d", &[]);
    let both = |name: &str| match name {
        "c" => by(C),
        "d" => by(D),
        _ => Offer::Nothing,
    };
    pass(&agent, 2_000, &[C, D], both);
    agent.tried(&D.into(), Tried::Works(Duration::from_micros(10)));
    assert_eq!(get(&agent), [D, B]);
    agent.tried(&D.into(), Tried::Works(Duration::from_millis(10)));
    assert_eq!(get(&agent), [C, B]);
    lose(&agent, &c);
    assert_eq!(get(&agent), [D, B]);
}

#[test]
fn an_answer_counts_from_whom_it_was_asked_of_and_once() {
    let (agent, [b, c]) = heard();
    get(&agent);
    due(&agent, &[]);
    get(&agent);
    let seeks = due(&agent, &[]);
    let [of_b, of_c] = ["b", "c"].map(|name| seeks.iter().find(|seek| seek.to.as_str() == name).unwrap());
    // Another's question, a question that nobody asked, and another peer.
    for (from, id) in [(&b, of_c.id), (&c, of_b.id), (&c, of_c.id + 100), (&owner("d", 1), of_c.id)] {
        offer(&agent, from, id, by(C));
    }
    assert_eq!((dropped(&agent), offers(&agent)), (4, 0));
    offer(&agent, &c, of_c.id, by(C));
    offer(&agent, &c, of_c.id, by(D));
    assert_eq!((dropped(&agent), offers(&agent)), (5, 1));
    due(&agent, &[C, D]);
    advance(MIN_AGE);
    assert_eq!(get(&agent), [C, B]);
}

#[test]
fn peers_are_asked_once_a_second_while_visitors_come_and_for_ten_seconds_more() {
    let (agent, _) = heard();
    let mut rounds = Vec::new();
    let start = now();
    while now() - start < Duration::from_secs(30) {
        if now() - start < Duration::from_secs(5) {
            get(&agent);
        }
        let asked: BTreeSet<String> =
            due(&agent, &[]).into_iter().map(|seek| seek.to.as_str().to_owned()).collect();
        if !asked.is_empty() {
            assert_eq!(asked, ["b", "c"].map(String::from).into());
            rounds.push(now() - start);
        }
        advance(Duration::from_millis(50));
    }
    assert!((14..=16).contains(&rounds.len()), "{rounds:?}");
    assert!(*rounds.last().unwrap() < Duration::from_secs(15), "{rounds:?}");
    assert!(rounds.windows(2).all(|pair| pair[1] >= pair[0] + ROUND));
    assert_eq!((why(&agent), watched(&agent)), (NoDetour::Unasked, 0));
}

#[test]
fn of_many_peers_eight_are_asked_at_a_time_and_everybody_by_turns() {
    let (agent, _) = heard();
    for n in 10..28 {
        peer(&agent, &format!("p{n}"), &[]);
    }
    get(&agent);
    due(&agent, &[]);
    let mut asked = BTreeSet::new();
    for _ in 0..3 {
        get(&agent);
        let seeks = due(&agent, &[]);
        assert_eq!(seeks.len(), MAX_ASKED);
        asked.extend(seeks.into_iter().map(|seek| seek.to));
        advance(ROUND);
    }
    assert_eq!(asked.len(), 20);
}

#[test]
fn no_more_than_64_tunnels_are_watched_and_a_hole_takes_the_place_of_none() {
    let (mut holes, now) = (Holes::default(), now());
    let numbered = |n: u8| TunnelId::from_bytes([n; 16]);
    for n in 0..64 {
        assert!(holes.want(now, numbered(n), n != 7).is_some());
    }
    assert!(holes.want(now, numbered(64), false).is_none());
    assert!(holes.want(now, numbered(64), true).is_some());
    assert!(holes.want(now, numbered(65), true).is_none());
    assert!(holes.len() == MAX_HOLES && !holes.watched.contains_key(&numbered(7)));
}

#[test]
fn a_tunnel_without_a_listed_record_is_no_hole() {
    let agent = agent();
    peer(&agent, "c", &[]);
    assert!(get(&agent).is_empty());
    assert_eq!((around(&agent), watched(&agent)), (None, 0));
    agent.register(HERE, Holding { record: Arc::new(record("1", "n", B)), dial: "".into() }).unwrap();
    assert_eq!(get(&agent), [B]);
    assert_eq!(around(&agent), None, "our own is served here");
}
