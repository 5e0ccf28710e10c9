//! What peers that look for a detour are answered.

use std::sync::Arc;

use super::super::tests::{Agent, HERE, advance, agent, change, hear, now, owner, tell};
use super::super::{Holding, Tried};
use super::*;
use crate::connection::Caller;
use crate::link::ReplicaStore as _;
use crate::record::Record;
use crate::slot::{Content, Status};

const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const OTHER: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677c";
const WORKS: Tried = Tried::Works(Duration::from_millis(1));
const OURS: &str = "10.0.0.1:80";
const THEIRS: &str = "10.0.0.2:80";

fn record(id: &str, name: &str, node: &str, address: &str) -> Record {
    let [id, name, node] = [id, name, node].map(Into::into);
    Record { id, name, node, network: Network::Tcp, address: address.into() }
}

fn peer(agent: &Agent, name: &str, records: &[Record]) -> Owner {
    let owner = owner(name, 1);
    let records = records.iter().map(|record| Content::Record(Arc::new(record.clone())));
    let mut changes: Vec<_> = (1..).zip(records).map(|(n, content)| change(n, n, content)).collect();
    changes.push(change(0, 100, Content::Status(Status::Ready)));
    tell(agent, &owner, changes);
    hear(agent, &owner);
    owner
}

/// An agent that hears b, which has the tunnel, and a, who looks for a detour.
fn heard() -> (Agent, Owner) {
    let agent = agent();
    peer(&agent, "b", &[record("1", TUNNEL, "b's gost", THEIRS)]);
    let asker = peer(&agent, "asker", &[]);
    (agent, asker)
}

/// A gost of this host, with a connector of a tunnel.
fn register(agent: &Agent, caller: Caller, node: &str, name: &str) {
    let record = Arc::new(record(&format!("{node}'s"), name, node, OURS));
    agent.register(caller, Holding { record: record.clone(), dial: OURS.into() }).unwrap();
    agent.note_entrypoint(caller, &record, &OURS.into());
}

fn ask(agent: &Agent, by: &Owner) -> Offer {
    let tunnel = TunnelId::parse(TUNNEL).unwrap();
    agent.lock().offer(now(), by, tunnel)
}

/// Dials that are due end like this. Where.
fn dial(agent: &Agent, tried: Tried) -> Vec<String> {
    let due = agent.lock().due(now(), 0, |_| false).tries;
    for entrypoint in &due {
        agent.tried(&entrypoint.address, tried);
    }
    due.iter().map(|entrypoint| entrypoint.address.to_string()).collect()
}

fn ours() -> Offer {
    Offer::Detour(Detour { node: "n".into(), address: OURS.into() })
}

#[test]
fn a_peer_is_offered_our_gost_when_a_record_of_our_own_directory_was_dialled_well() {
    let (agent, asker) = heard();
    register(&agent, HERE, "n", OTHER);
    assert_eq!(ask(&agent, &asker), Offer::Nothing, "from memory: it was not dialled yet");
    assert_eq!(dial(&agent, WORKS), [THEIRS]);
    assert_eq!(ask(&agent, &asker), ours());
    agent.tried(&THEIRS.into(), Tried::Silent);
    assert_eq!(ask(&agent, &asker), Offer::Nothing);
}

#[test]
fn nothing_is_dialled_for_a_tunnel_that_is_not_known_and_no_fault_is_told_for_a_peers_sake() {
    let (agent, asker) = heard();
    let unknown = TunnelId::parse(OTHER).unwrap();
    assert_eq!(agent.lock().offer(now(), &asker, unknown), Offer::Nothing);
    assert!(dial(&agent, WORKS).is_empty());
    for _ in 0..5 {
        ask(&agent, &asker);
        dial(&agent, Tried::Refused);
        advance(Duration::from_secs(1));
    }
    let known = agent.lock().entrypoints(now());
    assert!(known.len() == 1 && !known[0].is_fault);
    agent.resolve(TUNNEL);
    assert!(agent.lock().entrypoints(now())[0].is_fault, "a visitor wants it");
}

#[test]
fn a_peer_is_offered_our_gost_when_it_has_the_connector_itself() {
    let (agent, asker) = heard();
    register(&agent, HERE, "n", TUNNEL);
    assert_eq!(ask(&agent, &asker), ours());
}

#[test]
fn a_peer_whose_own_record_is_known_here_would_go_in_circles_and_is_offered_nothing() {
    let (agent, _) = heard();
    register(&agent, HERE, "n", OTHER);
    let asker = peer(&agent, "stale", &[record("2", TUNNEL, "its gost", "10.0.0.9:80")]);
    ask(&agent, &asker);
    dial(&agent, WORKS);
    assert_eq!(ask(&agent, &asker), Offer::Nothing);
    assert_eq!(ask(&agent, &owner("asker", 1)), ours());
}

#[test]
fn what_our_gost_would_be_answered_first_has_to_work() {
    let (agent, asker) = heard();
    register(&agent, HERE, "n", OTHER);
    ask(&agent, &asker);
    dial(&agent, WORKS);
    assert_eq!(ask(&agent, &asker), ours());
    agent.handle(crate::agent::News::Doubted { owner: owner("b", 1) });
    assert_eq!(ask(&agent, &asker), Offer::Nothing, "it has been silent for a moment");
}

#[test]
fn a_gost_that_does_not_live_or_is_a_guest_is_not_offered() {
    let (agent, asker) = heard();
    ask(&agent, &asker);
    dial(&agent, WORKS);
    assert_eq!(ask(&agent, &asker), Offer::NoGost, "none ever registered");

    let guest = Caller::at("10.0.0.7".parse().unwrap(), 7);
    register(&agent, guest, "guest", OTHER);
    assert_eq!(ask(&agent, &asker), Offer::NoGost);

    register(&agent, HERE, "n", OTHER);
    assert_eq!(ask(&agent, &asker), ours());
    let draft = crate::record::Draft { id: "n's", name: OTHER, node: "n", network: "", address: "" };
    agent.deregister(HERE, draft);
    assert_eq!(ask(&agent, &asker), ours(), "it has no tunnel, and is connected");
    agent.connection_closed(HERE.connection);
    assert_eq!(ask(&agent, &asker), Offer::NoGost);
}

#[test]
fn an_agent_that_drains_offers_nothing() {
    let (agent, asker) = heard();
    register(&agent, HERE, "n", OTHER);
    ask(&agent, &asker);
    dial(&agent, WORKS);
    agent.say(Status::Draining);
    assert_eq!(ask(&agent, &asker), Offer::Nothing);
    agent.say(Status::Ready);
    assert_eq!(ask(&agent, &asker), ours());
}

#[test]
fn no_more_than_64_offers_are_remembered_and_what_is_not_remembered_is_not_offered() {
    let (mut offers, now) = (Offers::default(), now());
    let numbered = |n: u8| TunnelId::from_bytes([n; 16]);
    assert!((0..64).all(|n| offers.note(now, numbered(n))));
    assert!(!offers.note(now, numbered(64)) && offers.note(now, numbered(3)));
    assert!(offers.len() == MAX_OFFERED && offers.has(now, numbered(3)));
    let later = now + LATELY;
    assert!(!offers.has(later, numbered(3)) && offers.note(later, numbered(64)));
    assert_eq!(offers.len(), 1);
}

#[test]
fn peers_leave_room_for_what_visitors_want() {
    let (agent, asker) = heard();
    let most = u8::try_from(MAX_OFFERED).unwrap();
    for n in 0..most {
        let tunnel = TunnelId::from_bytes([n; 16]);
        let address = format!("10.0.1.{n}:80");
        peer(&agent, &format!("p{n}"), &[record("1", &tunnel.to_string(), "n", &address)]);
        agent.lock().offer(now(), &asker, tunnel);
    }
    assert_eq!(agent.lock().entrypoints(now()).len(), 32);
    agent.resolve(TUNNEL);
    assert_eq!(agent.lock().entrypoints(now()).len(), 33);
}
