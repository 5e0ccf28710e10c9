//! Host names in scenarios, without a socket, in paused time.

use std::time::Duration;

use super::super::tests::{HERE, change, hear, lose, owner, tell, with_quota, with_settings};
use super::super::{LEASE_TTL, Restored};
use super::*;
use crate::domain::claim::{GRACE, LAP};
use crate::domain::lease::Holding;
use crate::domain::quota::Quota;
use crate::domain::record::{Draft, Network, Record};
use crate::domain::replica::Extent;
use crate::domain::slot::{Content, FIRST_RULE, STATUS_SLOT, Slot};
use crate::gossip::Event;

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

fn rule(host: &str, number: usize, clock: u64) -> Rule {
    Rule { host: host.into(), endpoint: tunnel(number), clock }
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
fn say(agent: &Agent, peer: &Owner, records: &[(&str, usize)], rules: &[Rule]) {
    let records = records.iter().map(|(id, number)| Content::Record(record(id, *number)));
    let rules = rules.iter().map(|rule| Content::Rule(Arc::new(rule.clone())));
    let mut changes: Vec<Change> = (1..).zip(records).map(|(n, content)| change(n, n, content)).collect();
    changes.extend((0..).zip(rules).map(|(n, content)| change(FIRST_RULE + n, n + 1, content)));
    changes.push(change(STATUS_SLOT, 100, Content::Status(Status::Ready)));
    tell(agent, peer, changes);
    hear(agent, peer);
}

/// One thing that an owner said; it may have said more.
fn overhear(agent: &Agent, owner: &Owner, change: Change) {
    let (changes, extent) = (vec![change], Extent::default());
    agent.handle(Event::Changed { owner: owner.clone(), changes, extent });
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
async fn run(agent: &Agent, time: Duration, mut act: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        act();
        tokio::time::advance(Duration::from_secs(15)).await;
        agent.collect_changes();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_tunnel_keeps_a_name_and_the_other_is_told_no() {
    let agent = agent();
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true));
    assert_eq!(agent.claim("x", tunnel(0)), Ok(false));
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true), "again");
    assert_eq!(leads_to(&agent, "x"), Some(1));
    assert_eq!(agent.collect_changes(), 2, "one change, said once, and that we are ready");
    assert_eq!((agent.counts().own_rules, agent.counts().rules), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_its_tunnels_as_long_as_that_has_a_record_anywhere_and_an_hour_more() {
    let (agent, b) = (agent(), owner("b", 1));
    attach(&agent, "1", 0);
    assert_eq!(agent.claim("x", tunnel(0)), Ok(true));
    run(&agent, 2 * GRACE, || renew(&agent, "1")).await;
    assert_eq!(leads_to(&agent, "x"), Some(0), "for ever while it is attached here");
    detach(&agent, "1");
    say(&agent, &b, &[("2", 0)], &[]);
    run(&agent, 2 * GRACE, || hear(&agent, &b)).await;
    assert_eq!(leads_to(&agent, "x"), Some(0), "or there");
    unsay(&agent, &b, 1);
    run(&agent, NEARLY, || assert_eq!(agent.claim("x", tunnel(1)), Ok(false))).await;
    run(&agent, 3 * LAP, || {}).await;
    assert_eq!(leads_to(&agent, "x"), None);
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true), "then it is free");
}

#[tokio::test(start_paused = true)]
async fn both_sides_of_a_partition_come_to_the_same_end() {
    // Claimed at once: the lower tunnel wins. Claimed after more was seen: the earlier clock does.
    for (ours, theirs, winner) in [((1, 0), (0, 1), 0), ((0, 0), (1, 1), 0), ((0, 3), (1, 1), 1)] {
        let (agent, b) = (agent(), owner("b", 1));
        tokio::time::advance(2 * LAP).await;
        for n in 0..ours.1 {
            agent.claim(&n.to_string(), tunnel(2)).unwrap();
        }
        attach(&agent, "1", ours.0);
        assert_eq!(agent.claim("x", tunnel(ours.0)), Ok(true), "before they meet");
        say(&agent, &b, &[("2", theirs.0)], &[rule("x", theirs.0, theirs.1)]);
        assert_eq!(leads_to(&agent, "x"), Some(winner));
        assert_eq!(agent.claim("x", tunnel(1 - winner)), Ok(false));
        assert_eq!(agent.claim("x", tunnel(winner)), Ok(true));
        assert_eq!(agent.endpoint("x"), Some(tunnel(winner)), "whoever asks again");
    }
}

#[tokio::test(start_paused = true)]
async fn the_loser_that_is_told_no_gives_its_claim_up() {
    let (agent, b) = (agent(), owner("b", 1));
    agent.claim("x", tunnel(1)).unwrap();
    say(&agent, &b, &[("2", 0)], &[rule("x", 0, 1)]);
    assert_eq!(agent.counts().own_rules, 1, "it may still win, if the other goes");
    assert_eq!(agent.claim("x", tunnel(1)), Ok(false));
    assert_eq!(agent.counts().own_rules, 0);
    unsay(&agent, &b, FIRST_RULE);
    assert_eq!(leads_to(&agent, "x"), None);
}

#[tokio::test(start_paused = true)]
async fn a_name_outlives_its_owner_and_moves_with_its_tunnel() {
    let (agent, b) = (agent(), owner("b", 1));
    say(&agent, &b, &[("2", 0)], &[rule("x", 0, 7)]);
    lose(&agent, &b);
    tokio::time::advance(LEASE_TTL * 2).await;
    agent.handle(Event::Forgotten { owner: b.clone() });
    assert_eq!(agent.counts().agents, 1, "nobody says it any more");
    assert_eq!(leads_to(&agent, "x"), Some(0));
    assert_eq!(agent.claim("x", tunnel(1)), Ok(false), "it is kept for the tunnel that reconnects");
    attach(&agent, "1", 0);
    run(&agent, 2 * LAP, || renew(&agent, "1")).await;
    assert_eq!(agent.counts().own_rules, 1, "and said here from now on");
    assert_eq!(agent.lock().claims.word(&rule("x", 0, 0).key()).unwrap().clock, 7, "as what it was");
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_owner_and_tunnel_are_gone_is_free_after_an_hour() {
    let (agent, b) = (agent(), owner("b", 1));
    say(&agent, &b, &[("2", 0)], &[rule("x", 0, 7)]);
    lose(&agent, &b);
    tokio::time::advance(LEASE_TTL * 2).await;
    agent.handle(Event::Forgotten { owner: b });
    run(&agent, NEARLY, || assert_eq!(leads_to(&agent, "x"), Some(0))).await;
    run(&agent, 3 * LAP, || {}).await;
    assert_eq!((leads_to(&agent, "x"), agent.counts().rules), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_starts_again_without_its_journal_loses_no_name() {
    let (agent, first, second) = (agent(), owner("b", 1), owner("b", 2));
    say(&agent, &first, &[("2", 0)], &[rule("x", 0, 7)]);
    say(&agent, &second, &[("3", 0)], &[]);
    assert_eq!(leads_to(&agent, "x"), Some(0));
    let healed = with_quota(Quota::default(), Restored::default());
    say(&healed, &owner("a", 4), &[("1", 0)], &[rule("x", 0, 7)]);
    assert_eq!(leads_to(&healed, "x"), Some(0), "nor has the one that started again");
    attach(&healed, "1", 0);
    run(&healed, 2 * LAP, || renew(&healed, "1")).await;
    assert_eq!(healed.counts().own_rules, 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_left_to_the_agent_that_has_the_tunnel_now() {
    let (agent, b) = (agent(), owner("b", 1));
    attach(&agent, "1", 0);
    agent.claim("x", tunnel(0)).unwrap();
    detach(&agent, "1");
    say(&agent, &b, &[("2", 0)], &[rule("x", 0, 1)]);
    run(&agent, 2 * LAP, || hear(&agent, &b)).await;
    assert_eq!((agent.counts().own_rules, leads_to(&agent, "x")), (0, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn claims_from_the_journal_are_answered_at_once_and_kept_for_an_hour() {
    let restored = Restored { rules: vec![rule("x", 0, 7)], ..Restored::default() };
    let agent = with_quota(Quota::default(), restored);
    assert_eq!(leads_to(&agent, "x"), Some(0));
    assert_eq!(agent.claim("x", tunnel(1)), Ok(false));
    run(&agent, NEARLY, || assert_eq!(leads_to(&agent, "x"), Some(0))).await;
    run(&agent, 3 * LAP, || {}).await;
    assert_eq!(leads_to(&agent, "x"), None);
}

#[tokio::test(start_paused = true)]
async fn a_claim_from_an_old_journal_takes_no_name_from_a_living_tunnel_for_long() {
    let restored = Restored { rules: vec![rule("x", 0, 7)], ..Restored::default() };
    let (agent, b) = (with_quota(Quota::default(), restored), owner("b", 1));
    say(&agent, &b, &[("2", 1)], &[rule("x", 1, 9)]);
    run(&agent, 2 * LAP, || hear(&agent, &b)).await;
    assert_eq!(leads_to(&agent, "x"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_changes_of_claims_goes_to_the_journal() {
    let agent = agent();
    agent.use_journal();
    agent.claim("x", tunnel(0)).unwrap();
    let batch = agent.take_batch();
    assert_eq!(batch.rules[&rule("x", 0, 0).key()].as_deref(), Some(&rule("x", 0, 1)));
    assert!(agent.take_batch().is_empty());
    agent.not_written(
        batch,
        &crate::journal::WriteError::Failed { path: "a".into(), source: std::io::Error::other("full") },
    );
    assert_eq!(agent.take_batch().rules.len(), 1, "again, if it could not be written");
}

#[tokio::test(start_paused = true)]
async fn nobody_else_can_write_our_claims() {
    let agent = agent();
    agent.claim("x", tunnel(0)).unwrap();
    agent.collect_changes();
    let forged = vec![change(FIRST_RULE, 90, Content::Rule(Arc::new(rule("x", 1, 0))))];
    tell(&agent, &agent.owner().clone(), forged);
    assert_eq!((leads_to(&agent, "x"), agent.collect_changes()), (Some(0), 0));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_full_refuses_and_keeps_what_it_has() {
    let quota = Quota { records: 2, rules: 1, bytes: 1 << 20 };
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
    assert_eq!(agent.claim("y", tunnel(0)), Err(Full::Rules(1)));
    assert_eq!(agent.claim("x", tunnel(0)), Ok(true));
    assert_eq!((leads_to(&agent, "x"), leads_to(&agent, "y")), (Some(0), None));
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_and_what_has_lapsed_gives_way() {
    let size = record("1", 0).size();
    let quota = Quota { records: 10, rules: 10, bytes: 2 * size };
    let agent = with_quota(quota, Restored::default());
    attach(&agent, "1", 0);
    tokio::time::advance(LEASE_TTL).await;
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

#[tokio::test(start_paused = true)]
async fn a_late_renew_revives_nothing_where_there_is_no_room() {
    let quota = Quota { records: 1, ..Quota::default() };
    let agent = with_quota(quota, Restored::default());
    attach(&agent, "1", 0);
    tokio::time::advance(LEASE_TTL).await;
    agent.collect_changes();
    attach(&agent, "2", 0);
    let heal = super::super::Heal { dial: &|_| String::new(), fallback: None };
    let draft = Draft { id: "1", name: "t", node: "n", network: "", address: "" };
    assert_eq!(agent.renew(HERE, draft, &heal), Err(Full::Records(1)));
    detach(&agent, "2");
    renew(&agent, "1");
    assert_eq!(agent.counts().own_records, 1);
}

fn named(name: &str) -> Agent {
    with_settings(name, 1, LEASE_TTL, Quota::default(), Restored::default())
}

fn forget(agent: &Agent, peer: &Owner) {
    lose(agent, peer);
    agent.lock().liveness.forget(&peer.name);
    agent.handle(Event::Forgotten { owner: peer.clone() });
}

/// `to` hears all that `from` has to say now.
fn pass(from: &Agent, to: &[&Agent]) {
    let changes = from.collected();
    for to in to {
        hear(to, from.owner());
        tell(to, from.owner(), changes.clone());
    }
}

/// Two agents run, renew, and hear of each other.
async fn run_both(p: &Agent, q: &Agent, time: Duration, mut act: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        act();
        tokio::time::advance(Duration::from_secs(15)).await;
        pass(p, &[q]);
        pass(q, &[p]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_remembered_loser_that_is_told_no_is_no_ghost() {
    let (agent, b, c) = (agent(), owner("b", 1), owner("c", 1));
    say(&agent, &b, &[("2", 0)], &[rule("x", 0, 5)]);
    say(&agent, &c, &[("3", 1)], &[rule("x", 1, 9)]);
    forget(&agent, &c);
    assert_eq!(agent.claim("x", tunnel(1)), Ok(false));
    unsay(&agent, &b, FIRST_RULE);
    unsay(&agent, &b, 1);
    run(&agent, GRACE * 3, || {}).await;
    assert_eq!(
        (leads_to(&agent, "x"), agent.counts().rules),
        (None, 0),
        "nobody says it, and no tunnel lives"
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_of_a_lost_host_is_kept_at_an_agent_that_starts_afterwards() {
    let (p, c) = (named("p"), owner("c", 1));
    say(&p, &c, &[("2", 0)], &[rule("x", 0, 7)]);
    forget(&p, &c);
    // Two minutes after the host was lost, another agent is restarted (or added).
    let q = named("q");
    run_both(&p, &q, 3 * LAP, || {}).await;
    assert_eq!(p.claim("x", tunnel(1)), Ok(false), "kept here");
    assert_eq!(q.claim("x", tunnel(1)), Ok(false), "and there");
}

#[tokio::test(start_paused = true)]
async fn two_agents_do_not_disagree_for_as_long_as_a_tunnel_lives() {
    let (p, c) = (named("p"), owner("c", 1));
    say(&p, &c, &[("2", 0)], &[rule("x", 0, 7)]);
    forget(&p, &c);
    let q = named("q");
    // Tunnel 0 has another connector at q, which was not told the name.
    attach(&q, "1", 0);
    attach(&q, "9", 1);
    q.claim("z", tunnel(2)).unwrap();
    for n in 0..9 {
        q.claim(&format!("z{n}"), tunnel(2)).unwrap();
    }
    run_both(&p, &q, 3 * LAP, || {
        renew(&q, "1");
        renew(&q, "9");
    })
    .await;
    let _ = q.claim("x", tunnel(1));
    run_both(&p, &q, GRACE * 5, || {
        renew(&q, "1");
        renew(&q, "9");
    })
    .await;
    assert_eq!(leads_to(&p, "x"), leads_to(&q, "x"), "five hours later");
}

#[tokio::test(start_paused = true)]
async fn two_agents_do_not_both_leave_a_name_to_the_other() {
    let (p, q) = (named("p"), named("q"));
    attach(&p, "1", 0);
    attach(&q, "2", 0);
    p.claim("x", tunnel(0)).unwrap();
    pass(&p, &[&q]);
    q.claim("x", tunnel(0)).unwrap();
    pass(&q, &[&p]);
    run_both(&p, &q, Duration::from_secs(45), || {
        renew(&p, "1");
        renew(&q, "2");
    })
    .await;
    // The client's network fails, and the network between the agents.
    detach(&p, "1");
    detach(&q, "2");
    lose(&p, q.owner());
    lose(&q, p.owner());
    tokio::time::advance(Duration::from_secs(20)).await;
    let (from_p, from_q) = (p.collected(), q.collected());
    // Healed.
    hear(&p, q.owner());
    hear(&q, p.owner());
    tell(&p, q.owner(), from_q);
    tell(&q, p.owner(), from_p);
    assert_eq!((leads_to(&p, "x"), leads_to(&q, "x")), (Some(0), Some(0)), "it has an hour");
    assert_eq!(q.claim("x", tunnel(1)), Ok(false));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_has_just_started_takes_no_name_that_was_anothers_for_days() {
    let (agent, b) = (agent(), owner("b", 1));
    attach(&agent, "1", 1);
    let _ = agent.claim("x", tunnel(1));
    say(&agent, &b, &[("2", 0)], &[rule("x", 0, 60)]);
    run(&agent, 3 * LAP, || {
        renew(&agent, "1");
        hear(&agent, &b);
    })
    .await;
    assert_eq!(leads_to(&agent, "x"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_register_forgets_nothing() {
    let size = record("1", 0).size();
    let agent = with_quota(Quota { records: 10, rules: 10, bytes: 2 * size + 10 }, Restored::default());
    attach(&agent, "1", 0);
    tokio::time::advance(LEASE_TTL).await;
    agent.collect_changes();
    attach(&agent, "2", 0);
    let long = "3".repeat(size + 20);
    let big = agent.register(HERE, Holding { record: record(&long, 0), dial: "".into() });
    assert!(matches!(big, Err(Full::Bytes(_))), "{big:?}");
    assert!(agent.lock().leases.is_lapsed(&"1".into()), "refused, so nothing changed");
}

#[tokio::test(start_paused = true)]
async fn no_peer_can_end_the_replication_of_claims() {
    let (agent, b) = (agent(), owner("b", 1));
    say(&agent, &b, &[], &[rule("y", 0, 1 << 53)]);
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true));
    for change in agent.collected().iter().filter(|change| change.slot >= FIRST_RULE) {
        let value = crate::gossip::slots::value(&change.cell);
        assert!(crate::gossip::slots::parse_value(change.slot, &value).is_some(), "{value:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gost_that_is_replaced_makes_room_for_its_successor() {
    let agent = with_quota(Quota { records: 1, ..Quota::default() }, Restored::default());
    attach(&agent, "1", 0);
    let successor = Record { node: "n2".into(), ..(*record("2", 0)).clone() };
    let taken = agent.register(HERE, Holding { record: Arc::new(successor), dial: "".into() });
    assert_eq!(taken, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_stale_word_of_our_former_self_brings_nothing_back() {
    let agent = agent();
    let former = owner("a", 4);
    let said = change(FIRST_RULE, 3, Content::Rule(Arc::new(rule("x", 0, 5))));
    overhear(&agent, &former, change(FIRST_RULE, 9, Content::Empty));
    overhear(&agent, &former, said);
    assert_eq!(leads_to(&agent, "x"), None);
}

#[tokio::test(start_paused = true)]
async fn what_our_former_self_took_back_is_not_remembered() {
    let agent = agent();
    let former = owner("a", 4);
    let said = change(FIRST_RULE, 3, Content::Rule(Arc::new(rule("x", 0, 5))));
    overhear(&agent, &former, said);
    overhear(&agent, &former, change(FIRST_RULE, 9, Content::Empty));
    assert_eq!(leads_to(&agent, "x"), None);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_taken_back_is_not_said_from_memory() {
    let (agent, b, c) = (agent(), owner("b", 1), owner("c", 1));
    say(&agent, &c, &[], &[rule("x", 0, 5)]);
    forget(&agent, &c);
    say(&agent, &b, &[], &[rule("x", 0, 5)]);
    unsay(&agent, &b, FIRST_RULE);
    attach(&agent, "1", 1);
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true), "it was free");
    attach(&agent, "2", 0);
    run(&agent, 3 * LAP, || {
        renew(&agent, "1");
        renew(&agent, "2");
    })
    .await;
    assert_eq!(leads_to(&agent, "x"), Some(1), "the earlier tunnel's claim was taken back");
}

#[tokio::test(start_paused = true)]
async fn a_later_claim_of_the_same_tunnel_costs_it_no_name() {
    let (agent, b, c, d) = (agent(), owner("b", 1), owner("c", 1), owner("d", 1));
    say(&agent, &c, &[], &[rule("x", 0, 5)]);
    forget(&agent, &c);
    say(&agent, &b, &[("2", 1)], &[rule("x", 1, 7)]);
    assert_eq!(leads_to(&agent, "x"), Some(0));
    say(&agent, &d, &[("3", 0)], &[rule("x", 0, 9)]);
    assert_eq!(leads_to(&agent, "x"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn live_records_do_not_grow_over_the_bytes() {
    let size = record("1", 0).size();
    let agent = with_quota(Quota { records: 10, rules: 10, bytes: size + 10 }, Restored::default());
    attach(&agent, "1", 0);
    let grown =
        Record { address: format!("{}.example.org:80", "a".repeat(400)).into(), ..(*record("1", 0)).clone() };
    let _ = agent.register(HERE, Holding { record: Arc::new(grown), dial: "".into() });
    let held = agent.lock().leases.bytes();
    assert!(held <= size + 10, "{held} of {}", size + 10);
}

#[tokio::test(start_paused = true)]
async fn a_restored_claim_of_a_tunnel_that_is_away_has_its_hour() {
    // The loser of a concurrent claim is still said by b; our agent restarts while the winner's client is away.
    let restored = Restored { rules: vec![rule("x", 0, 7)], ..Restored::default() };
    let (agent, b) = (with_quota(Quota::default(), restored), owner("b", 1));
    say(&agent, &b, &[("2", 1)], &[rule("x", 1, 7)]);
    run(&agent, 3 * LAP, || hear(&agent, &b)).await;
    assert_eq!(leads_to(&agent, "x"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_claim_made_before_its_rival_is_shown_gives_way_when_it_is() {
    let (agent, b) = (with_quota(Quota::default(), Restored::default()), owner("b", 1));
    let rival = change(FIRST_RULE, 1, Content::Rule(Arc::new(rule("x", 0, 7))));
    overhear(&agent, &b, rival);
    attach(&agent, "2", 1);
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true), "nobody is shown yet");
    let ready = vec![
        change(1, 2, Content::Record(record("1", 0))),
        change(STATUS_SLOT, 100, Content::Status(Status::Ready)),
    ];
    tell(&agent, &b, ready);
    hear(&agent, &b);
    assert_eq!(leads_to(&agent, "x"), Some(0));
}
