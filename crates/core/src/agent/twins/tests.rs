//! A gost that calls a peer's agent while its own is away, and comes home, seen from both agents.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::tests::{Agent, hear, owner, tell, with_settings};
use super::super::{Caller, Heal, LEASE_TTL, Restored};
use crate::label::Label;
use crate::lease::{Holding, KeptLeases};
use crate::quota::Quota;
use crate::record::{Draft, Network, Record};
use crate::slot::{Cell, Change, Content, STATUS_SLOT, Status};

const GUEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

fn agent(restored: Restored) -> Agent {
    with_settings("b", 5, LEASE_TTL, Quota::default(), restored)
}

/// The connector, reached as one of the agents says.
fn record(address: &str) -> Record {
    let [id, name, node] = ["1", "t", "n"].map(Label::from);
    Record { id, name, node, network: Network::Tcp, address: address.into() }
}

fn holding(address: &str) -> Holding {
    Holding { record: Arc::new(record(address)), dial: "127.0.0.1:80".into() }
}

fn change(slot: u32, version: u64, content: Content) -> Change {
    Change { slot, cell: Cell { version, content } }
}

/// The other agent has the connector, too.
fn has(agent: &Agent, name: &str) {
    hear(agent, &owner(name, 1));
    let record = Content::Record(Arc::new(record("10.0.0.9:80")));
    let ready = change(STATUS_SLOT, 2, Content::Status(Status::Ready));
    tell(agent, &owner(name, 1), vec![change(1, 1, record), ready]);
}

fn has_not_any_more(agent: &Agent, name: &str) {
    tell(agent, &owner(name, 1), vec![change(1, 3, Content::Empty)]);
}

fn own(agent: &Agent) -> usize {
    agent.counts().own_records
}

#[test]
fn a_guests_record_goes_when_its_own_agent_has_it_and_it_does_not_call_any_more() {
    let b = agent(Restored::default());
    b.register(Caller::at(GUEST, 7), holding("10.0.0.9:80")).unwrap();
    has(&b, "a");
    assert_eq!(own(&b), 1, "it calls here");
    b.connection_closed(7);
    b.collected();
    assert_eq!((own(&b), b.resolve("t").len()), (0, 1), "its own agent's is listed");
}

#[test]
fn a_guest_that_left_before_its_own_agent_has_it_is_kept_until_then() {
    let b = agent(Restored::default());
    b.register(Caller::at(GUEST, 7), holding("10.0.0.9:80")).unwrap();
    b.connection_closed(7);
    b.collected();
    assert_eq!(own(&b), 1, "nobody else has it");
    has(&b, "a");
    assert_eq!((own(&b), b.resolve("t").len()), (0, 1));
}

#[test]
fn a_guest_that_comes_back_is_served_again() {
    let b = agent(Restored::default());
    b.register(Caller::at(GUEST, 7), holding("10.0.0.9:80")).unwrap();
    b.connection_closed(7);
    has(&b, "a");
    assert_eq!(own(&b), 0);
    let heal = Heal { dial: &|_| String::new(), fallback: None };
    let draft = Draft { id: "1", name: "t", node: "n", network: "", address: "" };
    assert!(b.renew(Caller::at(GUEST, 8), draft, &heal).unwrap());
    assert_eq!(own(&b), 1);
}

#[test]
fn a_gost_of_this_host_does_not_lose_its_record_to_anybody_who_says_to_have_it() {
    let b = agent(Restored::default());
    b.register(Caller::local(7), holding("10.0.0.2:80")).unwrap();
    b.connection_closed(7);
    has(&b, "a");
    b.collected();
    assert_eq!(own(&b), 1);
}

#[test]
fn when_a_peer_takes_a_guests_record_back_its_gost_is_looked_at_at_home() {
    let leases = KeptLeases { held: vec![holding("10.0.0.2:80")], ..KeptLeases::default() };
    let home = agent(Restored { leases, ..Restored::default() });
    // What a start looks at anyway.
    home.lock().connections.take_orphans(usize::MAX, |_| false);
    has(&home, "c");
    assert!(!home.lock().connections.has_orphans());
    has_not_any_more(&home, "c");
    assert!(home.lock().connections.has_orphans(), "it may be dead");
    assert_eq!(own(&home), 1, "until it refuses");
}

#[test]
fn a_gost_that_calls_is_not_looked_at_for_a_peers_sake() {
    let home = agent(Restored::default());
    home.register(Caller::local(7), holding("10.0.0.2:80")).unwrap();
    has(&home, "c");
    has_not_any_more(&home, "c");
    assert!(!home.lock().connections.has_orphans());
}

#[test]
fn a_gost_that_came_home_and_goes_before_it_renews_is_looked_at() {
    let leases = KeptLeases { held: vec![holding("10.0.0.2:80")], ..KeptLeases::default() };
    let home = agent(Restored { leases, ..Restored::default() });
    home.lock().connections.take_orphans(usize::MAX, |_| false);
    home.connection_closed(3);
    assert!(!home.lock().connections.has_orphans(), "nobody of ours");
    home.called(4);
    home.connection_closed(4);
    assert!(home.lock().connections.has_orphans());
}
