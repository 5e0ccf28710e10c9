//! What is remembered of claims, by others and by ourselves, and what must not come of it.

use super::*;

fn named(name: &str) -> Agent {
    with_settings(name, 1, LEASE_TTL, Quota::default(), Restored::default())
}

fn forget(agent: &Agent, peer: &Owner) {
    lose(agent, peer);
    agent.lock().liveness.forget(&peer.name);
    agent.handle(News::Forgotten { owner: peer.clone() });
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
fn run_both(p: &Agent, q: &Agent, time: Duration, mut act: impl FnMut()) {
    let end = now() + time;
    while now() < end {
        act();
        advance(Duration::from_secs(15));
        pass(p, &[q]);
        pass(q, &[p]);
    }
}

#[test]
fn a_remembered_loser_that_is_told_no_is_no_ghost() {
    let (agent, b, c) = (agent(), owner("b", 1), owner("c", 1));
    say(&agent, &b, &[("2", 0)], &[claim("x", 0, 5)]);
    say(&agent, &c, &[("3", 1)], &[claim("x", 1, 9)]);
    forget(&agent, &c);
    assert_eq!(agent.claim("x", tunnel(1)), Ok(false));
    unsay(&agent, &b, FIRST_CLAIM);
    unsay(&agent, &b, 1);
    run(&agent, GRACE * 3, || {});
    assert_eq!(
        (leads_to(&agent, "x"), agent.counts().claims),
        (None, 0),
        "nobody says it, and no tunnel lives"
    );
}

#[test]
fn a_name_of_a_lost_host_is_kept_at_an_agent_that_starts_afterwards() {
    let (p, c) = (named("p"), owner("c", 1));
    say(&p, &c, &[("2", 0)], &[claim("x", 0, 7)]);
    forget(&p, &c);
    // Two minutes after the host was lost, another agent is restarted (or added).
    let q = named("q");
    run_both(&p, &q, 3 * LAP, || {});
    assert_eq!(p.claim("x", tunnel(1)), Ok(false), "kept here");
    assert_eq!(q.claim("x", tunnel(1)), Ok(false), "and there");
}

#[test]
fn two_agents_do_not_disagree_for_as_long_as_a_tunnel_lives() {
    let (p, c) = (named("p"), owner("c", 1));
    say(&p, &c, &[("2", 0)], &[claim("x", 0, 7)]);
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
    });
    let _ = q.claim("x", tunnel(1));
    run_both(&p, &q, GRACE * 5, || {
        renew(&q, "1");
        renew(&q, "9");
    });
    assert_eq!(leads_to(&p, "x"), leads_to(&q, "x"), "five hours later");
}

#[test]
fn two_agents_do_not_both_leave_a_name_to_the_other() {
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
    });
    // The client's network fails, and the network between the agents.
    detach(&p, "1");
    detach(&q, "2");
    lose(&p, q.owner());
    lose(&q, p.owner());
    advance(Duration::from_secs(20));
    let (from_p, from_q) = (p.collected(), q.collected());
    // Healed.
    hear(&p, q.owner());
    hear(&q, p.owner());
    tell(&p, q.owner(), from_q);
    tell(&q, p.owner(), from_p);
    assert_eq!((leads_to(&p, "x"), leads_to(&q, "x")), (Some(0), Some(0)), "it has an hour");
    assert_eq!(q.claim("x", tunnel(1)), Ok(false));
}

#[test]
fn an_agent_that_has_just_started_takes_no_name_that_was_anothers_for_days() {
    let (agent, b) = (agent(), owner("b", 1));
    attach(&agent, "1", 1);
    let _ = agent.claim("x", tunnel(1));
    say(&agent, &b, &[("2", 0)], &[claim("x", 0, 60)]);
    run(&agent, 3 * LAP, || {
        renew(&agent, "1");
        hear(&agent, &b);
    });
    assert_eq!(leads_to(&agent, "x"), Some(0));
}

#[test]
fn a_refused_register_forgets_nothing() {
    let size = record("1", 0).size();
    let agent = with_quota(Quota { records: 10, claims: 10, bytes: 2 * size + 10 }, Restored::default());
    attach(&agent, "1", 0);
    advance(LEASE_TTL);
    agent.collect_changes();
    attach(&agent, "2", 0);
    let long = "3".repeat(size + 20);
    let big = agent.register(HERE, Holding { record: record(&long, 0), dial: "".into() });
    assert!(matches!(big, Err(Full::Bytes(_))), "{big:?}");
    assert!(agent.lock().leases.is_lapsed(&"1".into()), "refused, so nothing changed");
}

#[test]
fn a_gost_that_is_replaced_makes_room_for_its_successor() {
    let agent = with_quota(Quota { records: 1, ..Quota::default() }, Restored::default());
    attach(&agent, "1", 0);
    let successor = Record { node: "n2".into(), ..(*record("2", 0)).clone() };
    let taken = agent.register(HERE, Holding { record: Arc::new(successor), dial: "".into() });
    assert_eq!(taken, Ok(()));
}

#[test]
fn a_stale_word_of_our_former_self_brings_nothing_back() {
    let agent = agent();
    let former = owner("a", 4);
    let said = change(FIRST_CLAIM, 3, Content::Claim(Arc::new(claim("x", 0, 5))));
    overhear(&agent, &former, change(FIRST_CLAIM, 9, Content::Empty));
    overhear(&agent, &former, said);
    assert_eq!(leads_to(&agent, "x"), None);
}

#[test]
fn what_our_former_self_took_back_is_not_remembered() {
    let agent = agent();
    let former = owner("a", 4);
    let said = change(FIRST_CLAIM, 3, Content::Claim(Arc::new(claim("x", 0, 5))));
    overhear(&agent, &former, said);
    overhear(&agent, &former, change(FIRST_CLAIM, 9, Content::Empty));
    assert_eq!(leads_to(&agent, "x"), None);
}

#[test]
fn a_claim_that_was_taken_back_is_not_said_from_memory() {
    let (agent, b, c) = (agent(), owner("b", 1), owner("c", 1));
    say(&agent, &c, &[], &[claim("x", 0, 5)]);
    forget(&agent, &c);
    say(&agent, &b, &[], &[claim("x", 0, 5)]);
    unsay(&agent, &b, FIRST_CLAIM);
    attach(&agent, "1", 1);
    assert_eq!(agent.claim("x", tunnel(1)), Ok(true), "it was free");
    attach(&agent, "2", 0);
    run(&agent, 3 * LAP, || {
        renew(&agent, "1");
        renew(&agent, "2");
    });
    assert_eq!(leads_to(&agent, "x"), Some(1), "the earlier tunnel's claim was taken back");
}

#[test]
fn a_later_claim_of_the_same_tunnel_costs_it_no_name() {
    let (agent, b, c, d) = (agent(), owner("b", 1), owner("c", 1), owner("d", 1));
    say(&agent, &c, &[], &[claim("x", 0, 5)]);
    forget(&agent, &c);
    say(&agent, &b, &[("2", 1)], &[claim("x", 1, 7)]);
    assert_eq!(leads_to(&agent, "x"), Some(0));
    say(&agent, &d, &[("3", 0)], &[claim("x", 0, 9)]);
    assert_eq!(leads_to(&agent, "x"), Some(0));
}

#[test]
fn live_records_do_not_grow_over_the_bytes() {
    let size = record("1", 0).size();
    let agent = with_quota(Quota { records: 10, claims: 10, bytes: size + 10 }, Restored::default());
    attach(&agent, "1", 0);
    let grown =
        Record { address: format!("{}.example.org:80", "a".repeat(400)).into(), ..(*record("1", 0)).clone() };
    let _ = agent.register(HERE, Holding { record: Arc::new(grown), dial: "".into() });
    let held = agent.lock().leases.bytes();
    assert!(held <= size + 10, "{held} of {}", size + 10);
}

#[test]
fn a_restored_claim_of_a_tunnel_that_is_away_has_its_hour() {
    // The loser of a concurrent claim is still said by b; our agent restarts while the winner's client is away.
    let restored = Restored { claims: vec![claim("x", 0, 7)], ..Restored::default() };
    let (agent, b) = (with_quota(Quota::default(), restored), owner("b", 1));
    say(&agent, &b, &[("2", 1)], &[claim("x", 1, 7)]);
    run(&agent, 3 * LAP, || hear(&agent, &b));
    assert_eq!(leads_to(&agent, "x"), Some(0));
}

#[test]
fn a_claim_made_before_its_rival_is_shown_gives_way_when_it_is() {
    let (agent, b) = (with_quota(Quota::default(), Restored::default()), owner("b", 1));
    let rival = change(FIRST_CLAIM, 1, Content::Claim(Arc::new(claim("x", 0, 7))));
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
