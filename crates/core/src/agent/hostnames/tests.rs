//! Host names in scenarios, without a socket, in paused time.

mod memory;
mod private;
mod shares;

use std::time::Duration;

use super::super::tests::{
    Agent, HERE, advance, change, hear, lose, now, owner, tell, with_quota, with_settings,
};
use super::super::{LEASE_TTL, Restored, Settings};
use super::*;
use crate::agent::News;
use crate::hostname::{GRACE, LAP};
use crate::lease::Holding;
use crate::quota::Quota;
use crate::record::{Draft, Network, Record};
use crate::replica::Extent;
use crate::slot::{Content, FIRST_CLAIM, STATUS_SLOT, Slot};

/// Almost the grace.
const NEARLY: Duration = GRACE.saturating_sub(LAP.saturating_mul(2));
/// Tunnels by number, in the order in which they win ties.
const TUNNELS: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "11111111-1111-1111-1111-111111111111",
    "22222222-2222-2222-2222-222222222222",
];

fn agent() -> Agent {
    with_quota(Quota::default(), Restored::default())
}

pub(super) fn tunnel(number: usize) -> Endpoint {
    Endpoint::parse(TUNNELS[number]).unwrap()
}

fn claim(host: &str, number: usize, clock: u64) -> Claim {
    Claim { host: host.into(), endpoint: tunnel(number), clock }
}

fn record(id: &str, number: usize) -> Arc<Record> {
    let [id, name, node] = [id, TUNNELS[number], "n"].map(Into::into);
    Arc::new(Record { id, name, node, network: Network::Tcp, address: "10.0.0.1:80".into() })
}

/// A client of a tunnel binds at our gost.
pub(super) fn attach(agent: &Agent, id: &str, number: usize) {
    agent.register(HERE, Holding { record: record(id, number), dial: "".into() }).unwrap();
}

pub(super) fn detach(agent: &Agent, id: &str) {
    agent.deregister(HERE, Draft { id, name: "t", node: "n", network: "", address: "" });
}

fn renew(agent: &Agent, id: &str) {
    let heal = super::super::Heal { dial: &|_| String::new(), fallback: None };
    let draft = Draft { id, name: "t", node: "n", network: "", address: "" };
    assert!(agent.renew(HERE, draft, &heal).unwrap());
}

/// What a peer says: contents of record slots, and rules.
fn say(agent: &Agent, peer: &Owner, records: &[(&str, usize)], claims: &[Claim]) {
    let records = records.iter().map(|(id, number)| Content::Record(record(id, *number)));
    let claims = claims.iter().map(|claim| Content::Claim(Arc::new(claim.clone())));
    let mut changes: Vec<Change> = (1..).zip(records).map(|(n, content)| change(n, n, content)).collect();
    changes.extend((0..).zip(claims).map(|(n, content)| change(FIRST_CLAIM + n, 50 + n, content)));
    changes.push(change(STATUS_SLOT, 100, Content::Status(Status::Ready)));
    tell(agent, peer, changes);
    hear(agent, peer);
}

/// One thing that an owner said; it may have said more.
fn overhear(agent: &Agent, owner: &Owner, change: Change) {
    let (changes, extent) = (vec![change], Extent::default());
    agent.handle(News::Changed { owner: owner.clone(), changes, extent });
}

fn unsay(agent: &Agent, peer: &Owner, slot: Slot) {
    let changes = vec![change(slot, 190, Content::Empty)];
    tell(agent, peer, changes);
}

pub(super) fn leads_to(agent: &Agent, host: &str) -> Option<usize> {
    let endpoint = agent.endpoint(host)?.to_string();
    TUNNELS.iter().position(|tunnel| *tunnel == endpoint)
}

/// The agent runs for this long, and something happens as often as gost renews.
fn run(agent: &Agent, time: Duration, mut act: impl FnMut()) {
    let end = now() + time;
    while now() < end {
        act();
        advance(Duration::from_secs(15));
        agent.collect_changes();
    }
}

#[test]
fn the_first_tunnel_keeps_a_name_and_the_other_is_told_no() {
    let agent = agent();
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true));
    assert_eq!(agent.claim("x", tunnel(0)), Ok(false));
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true), "again");
    assert_eq!(leads_to(&agent, "x"), Some(1));
    assert_eq!(agent.collect_changes(), 2, "one change, said once, and that we are ready");
    assert_eq!((agent.counts().own_claims, agent.counts().claims), (1, 1));
}

#[test]
fn a_name_is_its_tunnels_as_long_as_that_has_a_record_anywhere_and_an_hour_more() {
    let (agent, b) = (agent(), owner("b", 1));
    attach(&agent, "1", 0);
    assert_eq!(agent.claim("x", tunnel(0)), Ok(true));
    run(&agent, 2 * GRACE, || renew(&agent, "1"));
    assert_eq!(leads_to(&agent, "x"), Some(0), "for ever while it is attached here");
    detach(&agent, "1");
    say(&agent, &b, &[("2", 0)], &[]);
    run(&agent, 2 * GRACE, || hear(&agent, &b));
    assert_eq!(leads_to(&agent, "x"), Some(0), "or there");
    unsay(&agent, &b, 1);
    run(&agent, NEARLY, || assert_eq!(agent.claim("x", tunnel(1)), Ok(false)));
    run(&agent, 3 * LAP, || {});
    assert_eq!(leads_to(&agent, "x"), None);
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true), "then it is free");
}

#[test]
fn both_sides_of_a_partition_come_to_the_same_end() {
    // Claimed at once: the lower tunnel wins. Claimed after more was seen: the earlier clock does.
    for (ours, theirs, winner) in [((1, 0), (0, 1), 0), ((0, 0), (1, 1), 0), ((0, 3), (1, 1), 1)] {
        let (agent, b) = (agent(), owner("b", 1));
        advance(2 * LAP);
        for n in 0..ours.1 {
            agent.claim(&n.to_string(), tunnel(2)).unwrap();
        }
        attach(&agent, "1", ours.0);
        assert_eq!(agent.claim("x", tunnel(ours.0)), Ok(true), "before they meet");
        say(&agent, &b, &[("2", theirs.0)], &[claim("x", theirs.0, theirs.1)]);
        assert_eq!(leads_to(&agent, "x"), Some(winner));
        assert_eq!(agent.claim("x", tunnel(1 - winner)), Ok(false));
        assert_eq!(agent.claim("x", tunnel(winner)), Ok(true));
        assert_eq!(agent.endpoint("x"), Some(tunnel(winner)), "whoever asks again");
    }
}

#[test]
fn the_loser_that_is_told_no_gives_its_claim_up() {
    let (agent, b) = (agent(), owner("b", 1));
    agent.claim("x", tunnel(1)).unwrap();
    say(&agent, &b, &[("2", 0)], &[claim("x", 0, 1)]);
    assert_eq!(agent.counts().own_claims, 1, "it may still win, if the other goes");
    assert_eq!(agent.claim("x", tunnel(1)), Ok(false));
    assert_eq!(agent.counts().own_claims, 0);
    unsay(&agent, &b, FIRST_CLAIM);
    assert_eq!(leads_to(&agent, "x"), None);
}

#[test]
fn a_name_outlives_its_owner_and_moves_with_its_tunnel() {
    let (agent, b) = (agent(), owner("b", 1));
    say(&agent, &b, &[("2", 0)], &[claim("x", 0, 7)]);
    lose(&agent, &b);
    advance(LEASE_TTL * 2);
    agent.handle(News::Forgotten { owner: b.clone() });
    assert_eq!(agent.counts().agents, 1, "nobody says it any more");
    assert_eq!(leads_to(&agent, "x"), Some(0));
    assert_eq!(agent.claim("x", tunnel(1)), Ok(false), "it is kept for the tunnel that reconnects");
    attach(&agent, "1", 0);
    run(&agent, 2 * LAP, || renew(&agent, "1"));
    assert_eq!(agent.counts().own_claims, 1, "and said here from now on");
    assert_eq!(
        agent.lock().directory.claims.kept(&claim("x", 0, 0).key()).unwrap().clock,
        7,
        "as what it was"
    );
}

#[test]
fn a_name_whose_owner_and_tunnel_are_gone_is_free_after_an_hour() {
    let (agent, b) = (agent(), owner("b", 1));
    say(&agent, &b, &[("2", 0)], &[claim("x", 0, 7)]);
    lose(&agent, &b);
    advance(LEASE_TTL * 2);
    agent.handle(News::Forgotten { owner: b });
    run(&agent, NEARLY, || assert_eq!(leads_to(&agent, "x"), Some(0)));
    run(&agent, 3 * LAP, || {});
    assert_eq!((leads_to(&agent, "x"), agent.counts().claims), (None, 0));
}

#[test]
fn a_peer_that_starts_again_without_its_journal_loses_no_name() {
    let (agent, first, second) = (agent(), owner("b", 1), owner("b", 2));
    say(&agent, &first, &[("2", 0)], &[claim("x", 0, 7)]);
    say(&agent, &second, &[("3", 0)], &[]);
    assert_eq!(leads_to(&agent, "x"), Some(0));
    let healed = with_quota(Quota::default(), Restored::default());
    say(&healed, &owner("a", 4), &[("1", 0)], &[claim("x", 0, 7)]);
    assert_eq!(leads_to(&healed, "x"), Some(0), "nor has the one that started again");
    attach(&healed, "1", 0);
    run(&healed, 2 * LAP, || renew(&healed, "1"));
    assert_eq!(healed.counts().own_claims, 1);
}

#[test]
fn a_name_is_left_to_the_agent_that_has_the_tunnel_now() {
    let (agent, b) = (agent(), owner("b", 1));
    attach(&agent, "1", 0);
    agent.claim("x", tunnel(0)).unwrap();
    detach(&agent, "1");
    say(&agent, &b, &[("2", 0)], &[claim("x", 0, 1)]);
    run(&agent, 2 * LAP, || hear(&agent, &b));
    assert_eq!((agent.counts().own_claims, leads_to(&agent, "x")), (0, Some(0)));
}

#[test]
fn claims_from_the_journal_are_answered_at_once_and_kept_for_an_hour() {
    let restored = Restored { claims: vec![claim("x", 0, 7)], ..Restored::default() };
    let agent = with_quota(Quota::default(), restored);
    assert_eq!(leads_to(&agent, "x"), Some(0));
    assert_eq!(agent.claim("x", tunnel(1)), Ok(false));
    run(&agent, NEARLY, || assert_eq!(leads_to(&agent, "x"), Some(0)));
    run(&agent, 3 * LAP, || {});
    assert_eq!(leads_to(&agent, "x"), None);
}

#[test]
fn a_claim_from_an_old_journal_takes_no_name_from_a_living_tunnel_for_long() {
    let restored = Restored { claims: vec![claim("x", 0, 7)], ..Restored::default() };
    let (agent, b) = (with_quota(Quota::default(), restored), owner("b", 1));
    say(&agent, &b, &[("2", 1)], &[claim("x", 1, 9)]);
    run(&agent, 2 * LAP, || hear(&agent, &b));
    assert_eq!(leads_to(&agent, "x"), Some(1));
}

#[test]
fn what_changes_of_claims_goes_to_the_journal() {
    let agent = agent();
    agent.use_journal();
    agent.claim("x", tunnel(0)).unwrap();
    let batch = agent.take_batch();
    assert_eq!(batch.claims[&claim("x", 0, 0).key()].as_deref(), Some(&claim("x", 0, 1)));
    assert!(agent.take_batch().is_empty());
    agent.not_written(batch, false);
    assert_eq!(agent.take_batch().claims.len(), 1, "again, if it could not be written");
}

#[test]
fn nobody_else_can_write_our_claims() {
    let agent = agent();
    agent.claim("x", tunnel(0)).unwrap();
    agent.collect_changes();
    let forged = vec![change(FIRST_CLAIM, 90, Content::Claim(Arc::new(claim("x", 1, 0))))];
    tell(&agent, &agent.owner().clone(), forged);
    assert_eq!((leads_to(&agent, "x"), agent.collect_changes()), (Some(0), 0));
}

#[test]
fn an_agent_that_is_full_refuses_and_keeps_what_it_has() {
    let quota = Quota { records: 2, claims: 1, bytes: 1 << 20 };
    let agent = with_quota(quota, Restored::default());
    attach(&agent, "1", 0);
    attach(&agent, "2", 0);
    let third = || agent.register(HERE, Holding { record: record("3", 0), dial: "".into() });
    assert_eq!(third(), Err(Full::Records(2)));
    attach(&agent, "1", 1);
    assert_eq!(agent.counts().own_records, 2, "what is there may change");
    detach(&agent, "1");
    assert_eq!(third(), Ok(()), "and makes room when it goes");

    agent.claim("x", tunnel(0)).unwrap();
    assert_eq!(agent.claim("y", tunnel(0)), Err(Full::Claims(1)));
    assert_eq!(agent.claim("x", tunnel(0)), Ok(true));
    assert_eq!((leads_to(&agent, "x"), leads_to(&agent, "y")), (Some(0), None));
}

#[test]
fn bytes_are_bounded_and_what_has_lapsed_gives_way() {
    let size = record("1", 0).size();
    let quota = Quota { records: 10, claims: 10, bytes: 2 * size };
    let agent = with_quota(quota, Restored::default());
    attach(&agent, "1", 0);
    advance(LEASE_TTL);
    agent.collect_changes();
    attach(&agent, "2", 0);
    attach(&agent, "3", 0);
    assert_eq!(agent.counts().own_records, 2);
    assert!(!agent.lock().leases.is_lapsed(&"1".into()), "the lapsed one is forgotten");
    let fourth = agent.register(HERE, Holding { record: record("4", 0), dial: "".into() });
    assert_eq!(fourth, Err(Full::Bytes(2 * size)));
    assert_eq!(agent.claim("x", tunnel(0)), Err(Full::Bytes(2 * size)));
    assert_eq!(agent.counts().own_records, 2);
}

#[test]
fn a_late_renew_revives_nothing_where_there_is_no_room() {
    let quota = Quota { records: 1, ..Quota::default() };
    let agent = with_quota(quota, Restored::default());
    attach(&agent, "1", 0);
    advance(LEASE_TTL);
    agent.collect_changes();
    attach(&agent, "2", 0);
    let heal = super::super::Heal { dial: &|_| String::new(), fallback: None };
    let draft = Draft { id: "1", name: "t", node: "n", network: "", address: "" };
    assert_eq!(agent.renew(HERE, draft, &heal), Err(Full::Records(1)));
    detach(&agent, "2");
    renew(&agent, "1");
    assert_eq!(agent.counts().own_records, 1);
}
